"""Images to distil on: from names and files, with their channels adapted, and never those that are tested on."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.picture_folders import picture
from qvit.data import npz, transfer
from qvit.data import source as source_module
from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.data.pictures import read_pictures
from qvit.data.squares import to_square
from qvit.data.transfer import UNLABELLED, check_disjoint, load_images
from qvit.errors import ConfigError, DataError

Arrays = dict[str, Any]
Save = Callable[..., Path]


def load(path: str | Path, size: int = 28, channels: int = 3, **options: Any) -> tuple[Split, str]:
    return load_images(path, size=size, channels=channels, **options)


def channels_last(split: Split) -> np.ndarray:
    return split.images.transpose(0, 2, 3, 1)


def grey_by_hand(colours: np.ndarray) -> np.ndarray:
    """Luma of ITU-R BT.601 in whole thousandths, halves rounded up; no number of which depends on rounding."""
    red, green, blue = (colours[..., k].astype(np.int64) for k in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


# --- images as they are ---


@pytest.mark.parametrize("key", ["images", "train_images"])
def test_a_file_of_images_alone(key: str, arrays: Arrays, save: Save) -> None:
    path = save({key: arrays["train_images"], "notes": np.array(["any", "text"])})
    for name in (path, str(path)):
        split, digest = load(name)
        assert np.array_equal(channels_last(split), arrays["train_images"])
        assert split.images.flags.c_contiguous
        assert (split.labels.shape, split.labels.dtype) == ((23, 1), np.int64)
        assert (split.labels == -1).all()
        assert len(digest) == 32
    images, labels = split.batch([22, 0])
    assert np.array_equal(images.numpy().transpose(0, 2, 3, 1), arrays["train_images"][[22, 0]])
    assert labels.tolist() == [[-1], [-1]]


def test_only_training_images_are_taken(arrays: Arrays, save: Save) -> None:
    """Of a whole dataset as well, labels and other splits unread: they may be anything."""
    path = save({**arrays, "train_labels": np.array(["?"]), "val_images": np.zeros(3), "test_images": np.zeros(0)})
    split, _ = load(path)
    assert np.array_equal(channels_last(split), arrays["train_images"])


@pytest.mark.parametrize("form", ["(N, S, S)", "(N, S, S, 1)", "Fortran", "stored"])
def test_grey_images_in_any_form(form: str, arrays: Arrays, save: Save) -> None:
    grey = arrays["train_images"][..., 0]
    saved = {"(N, S, S, 1)": grey[..., None], "Fortran": np.asfortranarray(grey)}.get(form, grey)
    split, _ = load(save({"images": saved}, compressed=form != "stored"), channels=1)
    assert np.array_equal(split.images[:, 0], grey)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images_are_rounded_to_eight_bits(dtype: Any, arrays: Arrays, save: Save) -> None:
    split, _ = load(save({"images": (arrays["train_images"] / 255).astype(dtype)}))
    assert split.images.dtype == np.uint8
    assert np.array_equal(channels_last(split), arrays["train_images"])


def test_a_name_of_the_registry(arrays: Arrays, save: Save, official: Callable[..., None], tmp_path: Path) -> None:
    path = save(arrays, "retinamnist.npz")
    official(path)
    split, digest = load("retinamnist", root=tmp_path, download=False)
    assert np.array_equal(channels_last(split), arrays["train_images"])
    assert (split.labels == -1).all()
    assert digest == load(path)[1], "the same images of the same file"
    with pytest.raises(DataError, match=r"expected the official file of RetinaMNIST, found nothing there"):
        load("retinamnist", root=tmp_path / "elsewhere", download=False)
    with pytest.raises(ConfigError, match="no files of size 29"):
        load("retinamnist", 29, root=tmp_path)


def test_the_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.data.phantom.SPLITS", {"train": 60, "val": 20, "test": 30})
    split, digest = load("phantom")
    whole = load_dataset("phantom")
    assert np.array_equal(split.images, whole.train.images)
    assert split.labels.shape == (60, 1)
    assert (split.labels == -1).all()
    check_disjoint(split, whole)
    grey, other = load("phantom", channels=1)
    assert np.array_equal(grey.images[:, 0], grey_by_hand(channels_last(split)))
    assert digest != other
    with pytest.raises(DataError, match=r"of shape \(3, 28, 28\), as in phantom, got \(1, 28, 28\). Load them with"):
        check_disjoint(grey, whole)


# --- channels ---


def test_grey_is_repeated(arrays: Arrays, save: Save) -> None:
    grey = arrays["train_images"][..., 0]
    split, _ = load(save({"images": grey}), channels=3)
    assert split.images.shape == (23, 3, 28, 28)
    assert split.images.flags.c_contiguous
    assert (split.images == grey[:, None]).all()


def test_colours_become_luma(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 256, (23, 28, 28, 3)).astype(np.uint8)
    known = [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
        (0, 0, 0),
        (77, 77, 77),
        (10, 20, 200),
        (0, 0, 250),
    ]
    colours[7, 0, :8] = known
    path = save({"images": colours})
    split, digest = load(path, channels=1)
    assert split.images.shape == (23, 1, 28, 28)
    # 28.5 for the last, a half, is rounded up.
    assert split.images[7, 0, 0, :8].tolist() == [76, 150, 29, 255, 0, 77, 38, 29]
    assert np.array_equal(split.images[:, 0], grey_by_hand(colours))
    monkeypatch.setattr("qvit.data.arrays._CHUNK", 5 * 3 * 28 * 28)  # several lots, the last not whole
    again, same = load(path, channels=1)
    assert np.array_equal(again.images, split.images)
    assert same == digest


def test_grey_as_colours_comes_back_as_it_was(save: Save) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    colours, _ = load(save({"images": ramp}), 16, channels=3)
    back, _ = load(save({"images": channels_last(colours)}), 16, channels=1)
    assert np.array_equal(back.images[:, 0], ramp)


# --- large files ---


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_large_files_are_mapped(
    compressed: bool, channels: int, arrays: Arrays, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey images that are repeated stay mapped as well."""
    grey = arrays["train_images"][..., 0]
    path, root = save({"images": grey}, compressed=compressed), tmp_path / "root"
    small, digest = load(path, channels=channels, root=root)
    monkeypatch.setattr(transfer, "MAP_ABOVE", 10_000)
    split, same = load(path, channels=channels, root=root)
    assert (small.mapped, split.mapped) == (False, True)
    assert same == digest
    assert split.images.shape == (23, channels, 28, 28)
    assert (split.images == grey[:, None]).all()
    rows = [3, 0, 22, 3]
    images, labels = split.batch(rows)
    assert torch.equal(images, small.batch(rows)[0])
    images.zero_()
    assert (split.images == grey[:, None]).all()
    assert labels.tolist() == [[-1]] * 4
    unpacked = [p.relative_to(root).as_posix() for p in root.rglob("*.npy")]
    assert unpacked == ([f"unpacked/own-{npz.md5_of(path)}/images.npy"] if compressed else [])


def test_large_files_in_colour(arrays: Arrays, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAP_ABOVE", 10_000)
    monkeypatch.setattr(source_module, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(
        source_module, "why_not_writable", lambda folder: "Read-only" if folder.name == "root" else None
    )
    path = save({"images": arrays["train_images"]})
    split, _ = load(path, channels=3, root=tmp_path / "root")
    assert split.mapped
    assert np.array_equal(channels_last(split), arrays["train_images"])
    grey, _ = load(path, channels=1, root=tmp_path / "root")
    assert not grey.mapped
    assert np.array_equal(grey.images[:, 0], grey_by_hand(arrays["train_images"]))
    assert [p.name for p in (tmp_path / "cache").rglob("*.npy")] == ["images.npy"]
    assert not (tmp_path / "root").exists()
    monkeypatch.setenv("QVIT_DATA", str(tmp_path / "by_environment"))
    assert load(path)[0].mapped
    assert [p.name for p in (tmp_path / "by_environment").rglob("*.npy")] == ["images.npy"]


# --- the digest ---


def test_the_digest_says_which_images(arrays: Arrays, save: Save) -> None:
    path = save({"images": arrays["train_images"]})
    copied = save({"images": arrays["train_images"]}, "elsewhere/copy.npz")
    copied.write_bytes(path.read_bytes())
    digest = load(path)[1]
    assert digest == load(path)[1] == load(copied)[1], "of the contents, not of the place"
    assert digest != load(path, channels=1)[1]
    other = arrays["train_images"].copy()
    other[22, 27, 27, 2] ^= 1
    changed = save({"images": other}, "changed.npz")
    assert load(save({"train_images": arrays["train_images"]}, "key.npz"))[1] == digest, "nor of the array's name"
    grey = save({"images": arrays["train_images"][..., 0]}, "grey.npz")
    digests = [digest, load(changed)[1], load(grey)[1], load(grey, channels=1)[1]]
    assert len(set(digests)) == 4


def test_images_to_distil_on_that_are_written_meanwhile(
    arrays: Arrays, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, honest = save({"images": arrays["train_images"]}), transfer.image_layout

    def meanwhile(*given: Any) -> Any:
        layout = honest(*given)
        os.utime(path, (1, 1))
        return layout

    monkeypatch.setattr(transfer, "image_layout", meanwhile)
    with pytest.raises(DataError, match="one that changed while it was read"):
        transfer.load_images(path, size=28, channels=3)


# --- wrong inputs: most are in test_refusals ---


def test_what_is_no_file_of_images(arrays: Arrays, save: Save) -> None:
    with pytest.raises(ConfigError, match=r"Unknown dataset 'phantm'. Did you mean 'phantom'\?"):
        load("phantm")
    with pytest.raises(DataError, match=r"found \(23, 3, 28, 28\)\. .* channels last\.$"):
        load(save({"images": arrays["train_images"].transpose(0, 3, 1, 2)}))
    with pytest.raises(DataError, match=r"expected images in images, found none\. At least one is needed\.$"):
        load(save({"images": arrays["train_images"][:0]}))
    path = save({"images": arrays["train_images"]})
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:900] + bytes([whole[900] ^ 0x10]) + whole[901:], b"text"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"own.npz: expected (intact arrays|an .npz file)"):
            load(path)


# --- no image that is tested on ---


@pytest.fixture
def data(arrays: Arrays, save: Save) -> Dataset:
    return load_dataset(save(arrays))


def joined(*images: np.ndarray) -> Split:
    together = np.concatenate(images)
    return Split(together, np.full((len(together), 1), -1, np.int64))


def test_other_images_and_training_images_are_fine(data: Dataset) -> None:
    strangers = np.random.default_rng(0).integers(0, 256, (23, 3, 28, 28)).astype(np.uint8)
    check_disjoint(joined(data.train.images, strangers), data)
    nearly = data.test.images.copy()
    nearly[:, 2, 27, 27] ^= 1
    check_disjoint(joined(nearly), data)
    check_disjoint(joined(data.test.images.transpose(0, 1, 3, 2)), data)


@pytest.mark.parametrize("chunk", [1 << 23, 1, 3 * 3 * 28 * 28])
def test_images_that_are_tested_on_are_refused(chunk: int, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.data.arrays._CHUNK", chunk)
    mixed = joined(data.train.images, data.val.images[[6, 2]], data.test.images[[0, 5, 10, 10]])
    message = (
        r"^6 of 29 images to distil on are byte-identical to images of own \(2 to validation, 4 to test images; "
        r"the first is image 23\). Distilling on them would leak .*: leave them out\.$"
    )
    with pytest.raises(DataError, match=message):
        check_disjoint(mixed, data)
    with pytest.raises(DataError, match=r"^1 of 1 .*\(0 to validation, 1 to test images; the first is image 0\)"):
        check_disjoint(joined(data.test.images[4:5]), data)
    with pytest.raises(DataError, match=r"^7 of 7 .*\(7 to validation, 0 to test images"):
        check_disjoint(data.val, data)


def test_what_is_trained_on_anyway_is_no_leak(data: Dataset) -> None:
    """An official dataset may hold an image in two splits; distilling on its training images adds nothing to that."""
    images = data.test.images.copy()
    images[[2, 7]] = data.train.images[[4, 4]]
    doubled = replace(data, test=Split(images, data.test.labels))
    check_disjoint(data.train, doubled)
    with pytest.raises(DataError, match=r"^9 of 11 .*\(0 to validation, 9 to test images; the first is image 0\)"):
        check_disjoint(doubled.test, doubled)


def test_adapted_images_are_compared(arrays: Arrays, save: Save) -> None:
    """Grey images that were repeated are those of a dataset in colour that is grey; and so the other way round."""
    grey = {key: value[..., 0] if "images" in key else value for key, value in arrays.items()}
    as_colours = {key: np.repeat(v[..., None], 3, axis=3) if "images" in key else v for key, v in grey.items()}
    test_images, _ = load(save({"images": grey["test_images"]}, "test.npz"), channels=3)
    with pytest.raises(DataError, match=r"^11 of 11 .* of colours "):
        check_disjoint(test_images, load_dataset(save(as_colours, "colours.npz")))
    check_disjoint(test_images, load_dataset(save(arrays, "other.npz")))
    luma = {key: grey_by_hand(value) if "images" in key else value for key, value in arrays.items()}
    test_images, _ = load(save({"images": arrays["test_images"]}, "test.npz"), channels=1)
    with pytest.raises(DataError, match=r"^11 of 11 .* of luma "):
        check_disjoint(test_images, load_dataset(save(luma, "luma.npz")))


def test_mapped_images_are_compared(
    arrays: Arrays, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MAP_ABOVE", 0)
    monkeypatch.setattr("qvit.data.source.MAP_ABOVE", 0)
    monkeypatch.setattr("qvit.data.arrays._CHUNK", 4 * 3 * 28 * 28)
    data = load_dataset(save(arrays), root=tmp_path / "root")
    images = np.concatenate([arrays["train_images"], arrays["test_images"][:3]])
    split, _ = load(save({"images": images}, "images.npz"), root=tmp_path / "root")
    assert data.test.mapped
    assert split.mapped
    with pytest.raises(DataError, match=r"^3 of 26 .*\(0 to validation, 3 to test images; the first is image 23\)"):
        check_disjoint(split, data)
    fine, _ = load(save({"images": arrays["train_images"]}, "images.npz"), root=tmp_path / "root")
    check_disjoint(fine, data)


def test_images_of_another_size_are_refused(data: Dataset, save: Save) -> None:
    small, _ = load(save({"images": np.zeros((3, 20, 20), np.uint8)}, "small.npz"), 20)
    with pytest.raises(DataError, match=r"\(3, 28, 28\), as in own, got \(3, 20, 20\). .*size=28 and channels=3"):
        check_disjoint(small, data)


def test_a_folder_of_pictures_without_labels(tmp_path: Path) -> None:
    folder = tmp_path / "unlabelled"
    for number, name in enumerate(("10.png", "2.png", "deep/er/x.jpg", "deep/grey.png")):
        picture(folder / name, number, mode="L" if "grey" in name else "RGB")
    (folder / "bad.png").write_text("no picture")
    with pytest.warns(UserWarning, match=r"1 of 5 files were left out \(bad\.png: expected "):
        split, digest = load_images(folder, size=5, channels=3, root=tmp_path / "root")
    assert split.images.shape == (4, 3, 5, 5)
    assert (split.labels == UNLABELLED).all()
    order = ("2.png", "10.png", "deep/er/x.jpg", "deep/grey.png")
    expected = [to_square(read_pictures(folder / name)[0].pixels, 5) for name in order]
    for image, square in zip(split.images, expected, strict=True):
        assert np.array_equal(image, np.broadcast_to(square, (5, 5, 3)).transpose(2, 0, 1))
    assert load_images(folder, size=5, channels=3, root=tmp_path / "root")[1] == digest, "without reading them again"
    with pytest.warns(UserWarning, match="left out"):
        grey, _ = load_images(folder, size=5, channels=1, root=tmp_path / "root")
    assert grey.images.shape == (4, 1, 5, 5)
    assert np.array_equal(grey.images[3, 0], split.images[3, 0])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"expected a folder of pictures, found no \.png or \.jpg or \.jpeg in it"):
        load_images(empty, size=5, channels=3)
    with pytest.raises(ConfigError, match="size must be from 1"):
        load_images(folder, size=0, channels=3)
