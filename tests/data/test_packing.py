"""Files of arrays: what numpy reads of them, and that they can be mapped where they lie."""

import zipfile
from pathlib import Path

import numpy as np

from qvit.data.arrays import load_dataset
from qvit.data.mapped import map_array
from qvit.data.npz import read_headers
from qvit.data.packing import Packer


def packed(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with path.open("wb") as file, Packer(file) as packer:
        for seed, (split, n) in enumerate((("train", 9), ("val", 4), ("test", 5))):
            images = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
            labels = np.arange(n, dtype=np.int64)[:, None] % 3
            packer.add_split(
                split,
                [images[:2], images[2:]],
                labels,
                shape=images.shape,
                sources=[f"ü{k}" for k in range(n)],
                groups=None,
            )
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        packer.add("class_names", np.array(["a", "b", "c"]))
    return arrays


def test_numpy_and_we_read_the_same(tmp_path: Path) -> None:
    arrays = packed(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert set(found) == {*arrays, "class_names", "train_sources", "val_sources", "test_sources"}
        assert all(np.array_equal(found[key], value) for key, value in arrays.items())
        assert found["val_sources"].tolist() == ["ü0", "ü1", "ü2", "ü3"]
    data = load_dataset(tmp_path / "a.npz")
    assert np.array_equal(data.val.images.transpose(0, 2, 3, 1), arrays["val_images"])
    assert data.info.labels == ("a", "b", "c")
    assert data.groups is None


def test_images_are_mapped_in_place(tmp_path: Path) -> None:
    arrays = packed(tmp_path / "a.npz")
    member = read_headers(tmp_path / "a.npz")["train_images"]
    mapped = map_array(tmp_path / "a.npz", member, tmp_path / "cache")
    assert np.array_equal(mapped, arrays["train_images"])
    assert not (tmp_path / "cache").exists()


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    packed(tmp_path / "a.npz")
    packed(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_arrays_are_added(tmp_path: Path) -> None:
    packed(tmp_path / "a.npz")
    with Packer(tmp_path / "a.npz", more=True) as packer:
        packer.add("task", np.array("ordinal"))
    assert load_dataset(tmp_path / "a.npz").info.task == "ordinal"
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None


def test_large_labels_stay_large(tmp_path: Path) -> None:
    for highest, kind in ((255, np.uint8), (256, np.int64)):
        with (tmp_path / "x.npz").open("wb") as file, Packer(file) as packer:
            packer.add_split("val", [], np.array([[highest]]), shape=(0, 2, 2))
        assert np.load(tmp_path / "x.npz")["val_labels"].dtype == kind
