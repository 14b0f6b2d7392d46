import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qvit.data import source as loading
from qvit.data.arrays import describe, load_dataset, verify
from qvit.errors import DataError

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


def test_the_digest_is_as_it_says(arrays: Arrays, save: Save) -> None:
    data = load_dataset(save(arrays))
    shapes = ", ".join(f'"{name}": [{len(split)}, 3, 28, 28]' for name, split in data.splits.items())
    said = f'{{"classes": ["0", "1", "2", "3", "4"], "images": {{{shapes}}}}}'.encode()
    for split in ("train", "val", "test"):
        said += arrays[f"{split}_images"].transpose(0, 3, 1, 2).tobytes()
        said += arrays[f"{split}_labels"].astype("<i8").tobytes()
    assert data.digest == hashlib.blake2b(said, digest_size=16).hexdigest()


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
    (tmp_path / "folder.npz").mkdir()
    refuses(tmp_path / "folder.npz", "found no .png")


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def test_pickles_are_never_loaded(arrays: Arrays, save: Save) -> None:
    payload = np.empty(7, dtype=object)
    payload[:] = [Bomb() for _ in range(7)]
    with pytest.raises(SystemExit):
        pickle.loads(pickle.dumps(payload))
    refuses(save({**arrays, "val_labels": payload}), r"numbers in val_labels, found Python objects \(a pickle\)")


def test_verify_reports_own_files(arrays: Arrays, save: Save) -> None:
    path = save({**arrays, "val_labels": np.minimum(arrays["val_labels"], 3)})  # none of the last class
    assert verify(path) == {
        "name": "own",
        "path": str(path),
        "md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "official": False,
        "task": "multi-class",
        "size": 28,
        "channels": 3,
        "labels": ["0", "1", "2", "3", "4"],
        "splits": {
            "train": {"images": 23, "per_label": [5, 5, 5, 4, 4]},
            "val": {"images": 7, "per_label": [2, 2, 1, 2, 0]},
            "test": {"images": 11, "per_label": [3, 2, 2, 2, 2]},
        },
    }
    data = load_dataset(path)
    assert describe(data) == verify(path) | {"md5": None, "digest": data.digest}
    multi = {k: v if "images" in k else np.tile([0, 1, 1], (len(v), 1)) for k, v in arrays.items()}
    multi["train_labels"][0] = [1, 0, 0]
    assert verify(save(multi))["splits"]["train"]["per_label"] == [1, 22, 22]
