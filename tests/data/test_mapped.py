"""Files too large for memory: unpacked once, mapped, checked on every load."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data import mapped, npz
from qvit.data import source as loading
from qvit.data.arrays import load_dataset
from qvit.errors import DataError

Save = Callable[..., Path]


@pytest.fixture
def large() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    counts = {"train": 23, "val": 7, "test": 11}
    images = {f"{s}_images": rng.integers(0, 256, (n, 64, 64, 3)).astype(np.uint8) for s, n in counts.items()}
    return images | {f"{s}_labels": (np.arange(n) % 5)[:, None].astype(np.uint8) for s, n in counts.items()}


@pytest.fixture
def root(large: dict[str, np.ndarray], save: Save, official: Callable[..., None]) -> Path:
    path = save(large, "root/retinamnist_64.npz")
    official(path, 64)
    return path.parent


def unpacked(folder: Path) -> list[Path]:
    return sorted((folder / "unpacked").rglob("*.*"))


def test_large_official_images_are_mapped_and_equal(root: Path, large: dict[str, np.ndarray]) -> None:
    data = load_dataset("retinamnist", 64, root)
    assert data.size == 64
    for name, split in data.splits.items():
        assert split.mapped
        assert not split.images.flags.writeable
        assert split.images.shape == (len(split), 3, 64, 64)
        assert np.array_equal(split.images.transpose(0, 2, 3, 1), large[f"{name}_images"])
        rows = np.array([3, 0, 5, 3, -1])
        images, labels = split.batch(rows)
        assert np.array_equal(images.numpy().transpose(0, 2, 3, 1), large[f"{name}_images"][rows])
        assert np.array_equal(labels.numpy(), large[f"{name}_labels"][rows])
    folder = root / "unpacked" / f"retinamnist_64-{data.info.md5[64]}"
    assert unpacked(root) == sorted(folder / f"{s}_images.npy" for s in ("train", "val", "test"))


def test_unpacked_once(root: Path) -> None:
    load_dataset("retinamnist", 64, root)
    before = {p: p.stat().st_ino for p in unpacked(root)}
    load_dataset("retinamnist", 64, root)
    assert {p: p.stat().st_ino for p in unpacked(root)} == before


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_unpacked_file_is_rebuilt(damage: str, root: Path, large: dict[str, np.ndarray]) -> None:
    load_dataset("retinamnist", 64, root)
    victim = next(p for p in unpacked(root) if p.name.startswith("val"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + (bytes([whole[-1] ^ 1]) if damage == "flipped" else b""))
    with pytest.warns(UserWarning, match=r"val_images.npy was damaged and has been unpacked again from"):
        data = load_dataset("retinamnist", 64, root)
    assert np.array_equal(data.val.images.transpose(0, 2, 3, 1), large["val_images"])
    assert victim.read_bytes() == whole
    assert len(unpacked(root)) == 3, "no temporary file is left"


def test_a_read_only_root_falls_back_to_the_cache(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "why_not_writable", lambda folder: "Read-only file system" if folder == root else None)
    monkeypatch.setattr(loading, "user_cache", lambda: tmp_path / "cache")
    assert load_dataset("retinamnist", 64, root).train.mapped
    assert [p.name for p in root.iterdir()] == ["retinamnist_64.npz"]
    assert len(unpacked(tmp_path / "cache")) == 3


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_who_may_read_the_file_may_read_what_was_unpacked(root: Path, mode: int) -> None:
    """In a folder that several share, or it would be damaged to the others, and made anew again and again."""
    (root / "retinamnist_64.npz").chmod(mode)
    load_dataset("retinamnist", 64, root)
    assert {path.stat().st_mode & 0o777 for path in unpacked(root) if path.is_file()} == {mode}


class Full(io.FileIO):
    """A file on a disk that is full before it is written."""

    def write(self, data: Any) -> int:
        super().write(data[:1000])
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mapped.os, "fdopen", Full)
        with pytest.raises(DataError, match=r"room to unpack 0 MB from .*, found No space left on device. Free"):
            load_dataset("retinamnist", 64, root)
    assert [p for p in unpacked(root) if p.is_file()] == []
    assert load_dataset("retinamnist", 64, root).train.mapped


def test_a_disk_too_small_is_not_filled_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = mapped.shutil.disk_usage(root).total
    with monkeypatch.context() as patch:
        patch.setattr(mapped.shutil, "disk_usage", lambda _: type("Usage", (), {"total": total, "free": 20_000}))
        patch.setattr(mapped.tempfile, "mkstemp", lambda **_: pytest.fail("a file was begun"))
        with pytest.raises(DataError, match=r"expected room to unpack 0 MB from .*, found 0 MB. Free"):
            load_dataset("retinamnist", 64, root)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_own_large_files_are_mapped(
    compressed: bool, order: Any, large: dict, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QVIT_DATA", str(tmp_path / "cache"))
    saved = {k: np.asarray(v, order=order) for k, v in large.items()}
    path = save(saved, compressed=compressed)
    assert not load_dataset(path).train.mapped
    monkeypatch.setattr(loading, "MAP_ABOVE", 500_000)
    data = load_dataset(path)
    assert data.train.mapped
    assert data.size == 64
    for split in ("train", "val", "test"):
        assert np.array_equal(data[split].images.transpose(0, 2, 3, 1), large[f"{split}_images"])
    assert len(unpacked(tmp_path / "cache")) == (3 if compressed else 0), "uncompressed ones are mapped in place"


def test_own_large_float_images_become_bytes_in_memory(
    large: dict, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MAP_ABOVE", 0)
    monkeypatch.setattr(npz, "_RUN", 1 << 12)  # several runs of rows
    path = save({k: (v / 255).astype(np.float32) if "images" in k else v for k, v in large.items()})
    data = load_dataset(path)
    assert not data.train.mapped
    assert np.array_equal(data.train.images.transpose(0, 2, 3, 1), large["train_images"])
