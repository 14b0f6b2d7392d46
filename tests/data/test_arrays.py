import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qvit.data import arrays as loading
from qvit.data.arrays import load_dataset, verify
from qvit.data.registry import is_path
from qvit.errors import ConfigError, DataError

Arrays = dict[str, Any]
Save = Callable[..., Path]


def refuses(path: Path, message: str, **arguments: Any) -> None:
    """Loading and verifying raise one readable line that names the file, and change nothing."""
    before = path.read_bytes() if path.is_file() else None
    for check in (load_dataset, *([] if arguments else [verify])):
        with pytest.raises(DataError, match=message) as caught:
            check(path, **arguments)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert before == (path.read_bytes() if path.is_file() else None)


# --- files as they should be ---


def test_own_file_arrives_as_it_was_saved(arrays: Arrays, save: Save) -> None:
    path = save(arrays)
    data = load_dataset(str(path))
    assert data.info.name == data.info.title == "own"
    assert (data.info.task, data.info.labels) == ("multi-class", ("0", "1", "2", "3", "4"))
    assert (data.info.augment, data.info.citation, data.info.sizes) == ("none", "", ())
    assert (data.size, data.path) == (28, path)
    assert list(data.splits) == ["train", "val", "test"]
    for name, split in data.splits.items():
        assert split is data[name]
        assert split.images.flags.c_contiguous
        assert not split.mapped
        assert np.array_equal(split.images.transpose(0, 2, 3, 1), arrays[f"{name}_images"])
        assert split.labels.dtype == np.int64
        assert np.array_equal(split.labels, arrays[f"{name}_labels"])
        assert len(split) == data.info.splits[name]
    with pytest.raises(ConfigError, match="Unknown split 'tests'"):
        data["tests"]


@pytest.mark.parametrize("form", ["(N, S, S)", "(N, S, S, 1)", "Fortran", "stored"])
def test_grey_images_in_any_form(form: str, arrays: Arrays, save: Save) -> None:
    grey = {k: v[..., 0] if "images" in k else v for k, v in arrays.items()}
    saved = dict(grey)
    for key in ("train_images", "val_images", "test_images"):
        if form == "(N, S, S, 1)":
            saved[key] = grey[key][..., None]
        elif form == "Fortran":
            saved[key] = np.asfortranarray(grey[key])
    data = load_dataset(save(saved, compressed=form != "stored"))
    assert data.info.channels == 1
    assert np.array_equal(data.test.images[:, 0], grey["test_images"])


@pytest.mark.parametrize("form", [np.int8, np.uint16, np.int64, np.float32, "flat"])
def test_labels_in_any_form(form: Any, arrays: Arrays, save: Save) -> None:
    saved = {k: v if "images" in k else v[:, 0] if form == "flat" else v.astype(form) for k, v in arrays.items()}
    assert np.array_equal(load_dataset(save(saved)).val.labels, arrays["val_labels"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_float_images_are_rounded_to_eight_bits(dtype: Any, arrays: Arrays, save: Save) -> None:
    saved = {k: (v / 255).astype(dtype) if "images" in k else v for k, v in arrays.items()}
    data = load_dataset(save(saved))
    assert data.train.images.dtype == np.uint8
    assert np.array_equal(data.train.images.transpose(0, 2, 3, 1), arrays["train_images"])


def test_tasks_are_inferred_or_given(arrays: Arrays, save: Save) -> None:
    binary = {k: v if "images" in k else v > 2 for k, v in arrays.items()}
    rng = np.random.default_rng(0)
    multi = {k: v if "images" in k else rng.integers(0, 2, (len(v), 3)) for k, v in arrays.items()}
    assert load_dataset(save(binary)).info.task == "binary"
    assert load_dataset(save(binary)).info.num_classes == 2
    data = load_dataset(save(multi))
    assert (data.info.task, data.info.num_classes, data.train.labels.shape) == ("multi-label", 3, (23, 3))
    assert load_dataset(save(arrays), task="ordinal").info.task == "ordinal"
    with pytest.raises(ConfigError, match=r"Unknown task 'ordinl'\. Did you mean 'ordinal'"):
        load_dataset(save(arrays), task="ordinl")
    refuses(save(arrays), r"train_labels from 0 to 1 \(binary\), found 4 .*image \d+", task="binary")
    refuses(save(arrays), "several columns of labels for the task multi-label, found one", task="multi-label")
    refuses(save(multi), r"1 column\(s\) in train_labels for the task ordinal, found 3", task="ordinal")


def test_suspicious_labels_are_warned_of(arrays: Arrays, save: Save) -> None:
    gap = {k: np.where(v == 3, 2, v) if "train_labels" in k else v for k, v in arrays.items()}
    with pytest.warns(UserWarning, match="no training image of class 3"):
        assert load_dataset(save(gap)).info.num_classes == 5
    one_hot = {k: v if "images" in k else np.eye(5, dtype=int)[v[:, 0]] for k, v in arrays.items()}
    with pytest.warns(UserWarning, match="if these are one-hot classes, save class numbers"):
        load_dataset(save(one_hot))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(save(one_hot), task="multi-label")


def test_batches_keep_the_order_asked_for(arrays: Arrays, save: Save) -> None:
    split = load_dataset(save(arrays)).train
    rows = np.array([5, 0, 22, 5, -1])
    for index in (rows, torch.from_numpy(rows), rows.astype(np.int32), rows.tolist()):
        images, labels = split.batch(index)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(images.numpy().transpose(0, 2, 3, 1), arrays["train_images"][rows])
        assert np.array_equal(labels.numpy(), arrays["train_labels"][rows])
    images, labels = split.batch(np.array([], dtype=np.int64))
    assert (images.shape, labels.shape) == ((0, 3, 28, 28), (0, 1))
    images, _ = split.batch(np.array([1]))
    images.zero_()
    assert split.images[1].any(), "a batch is a copy"
    for bad, message in (
        ([23], "positions below 23, .* got 23 to 23"),
        ([-24, 0], "got -24 to 0"),
        ([0.5], "whole-number positions, got float64"),
        ([[1]], "got int64"),
    ):
        with pytest.raises(DataError, match=message):
            split.batch(np.array(bad))


def test_names_and_paths() -> None:
    assert [is_path(n) for n in ("retinamnist", "phantom", "a.npz", "./a", Path("a"))] == [0, 0, 1, 1, 1]


# --- files as they should not be: a wrong array ---


def nan_image(a: Arrays) -> Any:
    images = a["val_images"] / 255
    images[5, 3, 3, 1] = np.nan
    return images


def bright_image(a: Arrays) -> Any:
    images = a["val_images"] / 255
    images[2] *= 2
    return images


WRONG: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "missing key": (
        lambda a: {k: v for k, v in a.items() if k != "val_labels"},
        r"expected the arrays train_images, .* found no val_labels \(it holds .*\). Save all six",
    ),
    "dtype": (
        lambda a: {**a, "train_images": a["train_images"].astype(np.int32)},
        r"uint8 in train_images, found int32. Convert them",
    ),
    "bool images": (
        lambda a: {**a, "train_images": a["train_images"] > 9},
        "uint8 in train_images, found bool",
    ),
    "two channels": (
        lambda a: {**a, "train_images": a["train_images"][..., :2]},
        r"found \(23, 28, 28, 2\). Save grey images as",
    ),
    "flat images": (
        lambda a: {**a, "val_images": a["val_images"].reshape(7, -1)},
        r"val_images of shape \(N, S, S\) or \(N, S, S, 3\), found \(7, 2352\)",
    ),
    "not square": (
        lambda a: {**a, "train_images": a["train_images"][:, :20]},
        "square images in train_images, found 20 x 28 pixels. Crop or pad",
    ),
    "another size": (
        lambda a: {**a, "test_images": a["test_images"][:, :20, :20]},
        r"test_images like train_images uint8 \(23, 28, 28, 3\), found uint8 \(11, 20, 20, 3\)",
    ),
    "other channels": (lambda a: {**a, "val_images": a["val_images"][..., 0]}, r"found uint8 \(7, 28, 28\)"),
    "mixed types": (lambda a: {**a, "val_images": a["val_images"] / 255}, r"found float64 \(7, 28, 28, 3\)"),
    "empty split": (
        lambda a: {**a, "val_images": a["val_images"][:0], "val_labels": a["val_labels"][:0]},
        "images in val_images, found none",
    ),
    "lengths": (lambda a: {**a, "val_labels": a["val_labels"][:6]}, "7 rows in val_labels, found 6"),
    "label shape": (lambda a: {**a, "val_labels": a["val_labels"][..., None]}, r"found \(7, 1, 1\)"),
    "label columns": (
        lambda a: {**a, "val_labels": np.zeros((7, 2), int)},
        r"1 column\(s\) in val_labels, as in train, found 2",
    ),
    "negative label": (
        lambda a: {**a, "val_labels": np.array([0, 1, 2, -1, 0, -3, 1])},
        r"val_labels of 0 or more, found -3 \(first at image 3\)",
    ),
    "fractional label": (
        lambda a: {**a, "val_labels": np.array([0, 1, 2.5, 1, 0, 1, 1])},
        "whole numbers in val_labels, found 2.5 at image 2",
    ),
    "NaN label": (
        lambda a: {**a, "val_labels": np.array([0, 1, 2, np.nan, 0, 1, 1])},
        "found nan at image 3",
    ),
    "text labels": (
        lambda a: {**a, "val_labels": np.array(list("abcdefg"))},
        "found <U1. Number the classes",
    ),
    "multi-label of 2": (
        lambda a: {k: v if "images" in k else np.repeat(v, 2, axis=1) for k, v in a.items()},
        r"train_labels from 0 to 1 \(multi-label\), found 4",
    ),
    "absurd class": (
        lambda a: {**a, "val_labels": a["val_labels"] + 200},
        "classes numbered from 0, found 20",
    ),
    "one class": (
        lambda a: {k: v if "images" in k else v * 0 for k, v in a.items()},
        r"at least two classes in train_labels, found only \[0\]",
    ),
    "NaN image": (
        lambda a: {k: v / 255 if "images" in k else v for k, v in a.items()} | {"val_images": nan_image(a)},
        "finite numbers in val_images, found NaN or infinity in image 5. Repair",
    ),
    "bright image": (
        lambda a: {k: v / 255 if "images" in k else v for k, v in a.items()} | {"val_images": bright_image(a)},
        r"numbers in \[0, 1\] in val_images, found [\d.e-]+ to [\d.]+ in image 2. Scale",
    ),
    "0 to 255 floats": (
        lambda a: {k: v * 1.0 if "images" in k else v for k, v in a.items()},
        "found 0 to 255 in image 0. Scale the images",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_array_is_refused(case: str, arrays: Arrays, save: Save) -> None:
    change, message = WRONG[case]
    refuses(save(change(arrays)), message)


def test_a_size_that_the_file_does_not_have(arrays: Arrays, save: Save) -> None:
    refuses(save(arrays), "images of 64 x 64 pixels, found 28 x 28. Leave the size out", size=64)


# --- files as they should not be: damaged, or something else ---


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_flipped_byte_in_any_array(
    compressed: bool,
    mapped: bool,
    arrays: Arrays,
    save: Save,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QVIT_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "MAP_ABOVE", 0 if mapped else 2**40)
    path = save(arrays, compressed=compressed)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        places = {i.filename: i.header_offset + i.compress_size // 2 + 100 for i in archive.infolist()}
    for name, place in places.items():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        if "images" in name:
            refuses(path, "expected intact arrays, found damage")
    path.write_bytes(whole)
    assert len(load_dataset(path).train) == 23


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.999])
def test_a_truncated_file(share: float, arrays: Arrays, save: Save) -> None:
    path = save(arrays)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refuses(path, rf"a zip of arrays, found {path.stat().st_size} bytes that are not .* copy it anew")


def test_something_else(arrays: Arrays, tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("not a dataset")
    refuses(text, "found 13 bytes that are not")
    foreign = tmp_path / "foreign.npz"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("letter.txt", "hello")
    refuses(foreign, r"found no train_images, .*\(it holds letter.txt\)")
    liar = tmp_path / "liar.npz"
    with zipfile.ZipFile(liar, "w") as archive:
        for key in arrays:
            archive.writestr(f"{key}.npy", b"no numpy header here")
    refuses(liar, "expected intact arrays, found damage .*magic string")
    short = tmp_path / "short.npz"
    with zipfile.ZipFile(short, "w") as archive:
        for key, value in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            archive.writestr(f"{key}.npy", buffer.getvalue()[:-1])
    refuses(short, r"expected \d+ bytes in train_images, found \d+")
    refuses(tmp_path / "missing.npz", "found nothing there")
    refuses(tmp_path, "found a folder")


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def test_pickles_are_never_loaded(arrays: Arrays, save: Save) -> None:
    payload = np.empty(7, dtype=object)
    payload[:] = [Bomb() for _ in range(7)]
    with pytest.raises(SystemExit):
        pickle.loads(pickle.dumps(payload))
    refuses(save({**arrays, "val_labels": payload}), r"numbers in val_labels, found Python objects \(a pickle\)")


# --- official files ---


def test_official_file_is_checked_by_md5_first(
    arrays: Arrays, save: Save, official: Callable[..., None], tmp_path: Path
) -> None:
    path = save(arrays, "retinamnist.npz")
    official(path)
    data = load_dataset("retinamnist", root=tmp_path)
    assert data.info.title == "RetinaMNIST"
    assert data.digest == data.info.md5[28]
    report = verify("retinamnist", root=tmp_path)
    assert report["official"]
    assert report["splits"]["val"]["per_label"] == np.bincount(arrays["val_labels"][:, 0], minlength=5).tolist()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:500], b"", whole[:900] + b"?" + whole[901:], b"text"):
        path.write_bytes(damaged)
        message = rf"MD5 {data.digest}, found \w+ \({len(damaged)} bytes\). .*left untouched: move it away and run"
        for check in (load_dataset, verify):
            with pytest.raises(DataError, match=message):
                check("retinamnist", root=tmp_path)
        assert path.read_bytes() == damaged
        assert [p.name for p in tmp_path.iterdir()] == ["retinamnist.npz"]


def test_official_file_must_hold_what_its_row_says(
    arrays: Arrays, save: Save, official: Callable[..., None], tmp_path: Path
) -> None:
    path = save(arrays, "retinamnist.npz")
    for changes, message in (
        ({"splits": {"train": 23, "val": 8, "test": 11}}, "8 images in val, found 7. It is not the official"),
        ({"channels": 1}, r"28 x 28 pixels in 1 channel\(s\), found uint8 \(23, 28, 28, 3\)"),
        ({"labels": ("a", "b")}, r"from 0 to 1 \(ordinal\), found 4"),
        ({"task": "multi-label"}, r"5 column\(s\) in train_labels for the task multi-label, found 1"),
    ):
        official(path, **changes)
        with pytest.raises(DataError, match=message):
            load_dataset("retinamnist", root=tmp_path)
    with pytest.raises(ConfigError, match="has the task multi-label, not binary; leave the task out"):
        load_dataset("retinamnist", root=tmp_path, task="binary")
    with pytest.raises(ConfigError, match="has the task multi-class, not binary"):
        load_dataset("phantom", task="binary")
    with pytest.raises(ConfigError, match="no files of size 29"):
        load_dataset("retinamnist", 29, root=tmp_path)
    with pytest.raises(ConfigError, match="made on the spot"):
        verify("phantom")


def test_verify_reports_own_files(arrays: Arrays, save: Save) -> None:
    report = verify(save(arrays))
    assert (report["name"], report["official"], report["size"], report["channels"]) == ("own", False, 28, 3)
    assert {s: r["images"] for s, r in report["splits"].items()} == {"train": 23, "val": 7, "test": 11}
    multi = {k: v if "images" in k else np.tile([0, 1, 1], (len(v), 1)) for k, v in arrays.items()}
    multi["train_labels"][0] = [1, 0, 0]
    assert verify(save(multi))["splits"]["train"]["per_label"] == [1, 22, 22]
