"""Runs made on the spot: one epoch each on made-up files, kept for the whole session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qvit.training.options import resolve
from qvit.training.run import Run, train_run

torch.set_num_threads(1)  # as runs do: on models this small, threads only wait for each other

COUNTS = {"train": 24, "val": 16, "test": 20}


@pytest.fixture(scope="session")
def make_npz(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A file of noise with as many classes (or, if `several`, labels) as asked for."""
    folder = tmp_path_factory.mktemp("data")

    def make(name: str = "first", *, classes: int = 3, channels: int = 3, several: bool = False, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        arrays = {}
        for split, n in COUNTS.items():
            shape = (n, 12, 12, 3) if channels == 3 else (n, 12, 12)
            arrays[f"{split}_images"] = rng.integers(0, 256, shape).astype(np.uint8)
            labels = rng.permutation(np.arange(n))[:, None]
            arrays[f"{split}_labels"] = labels >> np.arange(classes) & 1 if several else labels % classes
        path = folder / f"{name}.npz"
        np.savez(path, **arrays)
        return path

    return make


@pytest.fixture(scope="session")
def make_run(make_npz: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A finished run; the same options give the same one."""
    made: dict[str, Run] = {}

    def make(npz: Path | None = None, **options: Any) -> Run:
        given = {"dataset": str(npz or make_npz()), "model": "vit_4q1h", "epochs": 2} | options
        key = repr(sorted(given.items()))
        if key not in made:
            made[key] = train_run(resolve(given), tmp_path_factory.mktemp("run") / "run")
        return made[key]

    return make
