"""Small datasets made on the spot, and a registry row that takes them for official ones."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data import registry

COUNTS = {"train": 23, "val": 7, "test": 11}
Arrays = dict[str, np.ndarray]


def make_arrays(size: int = 28, channels: int = 3, classes: int = 5) -> Arrays:
    """Random images and labels in which every class occurs in training."""
    rng = np.random.default_rng(7)
    arrays = {}
    for split, n in COUNTS.items():
        shape = (n, size, size, 3) if channels == 3 else (n, size, size)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape).astype(np.uint8)
        arrays[f"{split}_labels"] = rng.permutation(np.arange(n) % classes).astype(np.uint8)[:, None]
    return arrays


@pytest.fixture
def make_own() -> Callable[..., Arrays]:
    return make_arrays


@pytest.fixture
def arrays() -> Arrays:
    return make_arrays()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write arrays to an .npz file, compressed as the official ones are."""

    def save(arrays: dict[str, Any], name: str = "own.npz", *, compressed: bool = True) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return save


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the registry take a file for the official RetinaMNIST, MD5 and split sizes included."""

    row = registry.DATASETS["retinamnist"]

    def official(path: Path, size: int = 28, **changes: Any) -> None:
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        changed = replace(row, **({"md5": {**row.md5, size: digest}, "splits": dict(COUNTS)} | changes))
        monkeypatch.setitem(registry.DATASETS, "retinamnist", changed)

    return official
