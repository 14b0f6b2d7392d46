"""Made-up datasets of coloured squares, tiny and learnable under every symmetry, and runs that only seem trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.data.arrays import Dataset, Split
from qvit.data.registry import DatasetInfo
from qvit.training.folder import Run
from qvit.training.options import RunConfig, resolve
from qvit.training.records import Best, EpochRecord
from qvit.training.run import train_run
from qvit.training.state import TrainState
from qvit.training.together import Alone, Stack, Together

CLASSES = {"binary": 2, "multi-class": 4, "ordinal": 5, "multi-label": 3}
COUNTS = {"train": 37, "val": 21, "test": 23}  # odd, so that the last batch is a short one
SIZE = 12
Arrays = dict[str, np.ndarray]

torch.set_num_threads(1)  # as runs do: on models this small, threads only wait for each other


def _labels(rng: np.random.Generator, n: int, task: str) -> np.ndarray:
    classes = CLASSES[task]
    if task == "multi-label":
        return rng.permutation(np.arange(n) % 2**classes)[:, None] >> np.arange(classes) & 1
    return rng.permutation(np.arange(n) % classes)[:, None]


def _images(rng: np.random.Generator, labels: np.ndarray, channels: int, noise: float) -> np.ndarray:
    n, columns = labels.shape
    if columns > 1:  # each label lights up one colour
        level = 80.0 + 90.0 * labels
    else:  # each class has its brightness, one colour following it and the next opposing it
        level = 40.0 + 170.0 * labels / max(1, labels.max()) * np.ones(3)
        level[:, 1] = 250.0 - level[:, 1]
    level = level[:, None, None, :channels]
    images = level + noise * rng.standard_normal((n, SIZE, SIZE, channels))
    images = images.clip(0, 255).astype(np.uint8)
    return images[..., 0] if channels == 1 else images


@pytest.fixture(scope="session")
def make_arrays() -> Callable[..., Arrays]:
    """The six arrays of a made-up file."""

    def make(task: str = "multi-class", *, channels: int = 3, seed: int = 0, noise: float = 120.0) -> Arrays:
        arrays: Arrays = {}
        rng = np.random.default_rng(seed)
        for split, n in COUNTS.items():
            labels = _labels(rng, n, task)
            arrays[f"{split}_images"] = _images(rng, labels, channels, noise)
            arrays[f"{split}_labels"] = labels.astype(np.uint8)
        return arrays

    return make


@pytest.fixture(scope="session")
def make_data(make_arrays: Callable[..., Arrays]) -> Callable[..., Dataset]:
    """The same as a dataset in memory."""

    def make(task: str = "multi-class", **options: Any) -> Dataset:
        arrays = make_arrays(task, **options)
        splits = {}
        for split in COUNTS:
            images = arrays[f"{split}_images"]
            images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
            splits[split] = Split(np.ascontiguousarray(images), arrays[f"{split}_labels"].astype(np.int64))
        info = DatasetInfo(
            name="madeup",
            title="Made up",
            description="",
            task=task,
            labels=tuple("abcdefgh"[: CLASSES[task]]),
            channels=splits["train"].images.shape[1],
            splits=COUNTS,
            md5={},
            licence="",
            citation="",
            augment="d4",
        )
        return Dataset(info, SIZE, **splits)

    return make


@pytest.fixture
def make_npz(make_arrays: Callable[..., Arrays], tmp_path: Path) -> Callable[..., Path]:
    """The same as a file."""

    def make(task: str = "multi-class", name: str = "madeup.npz", **options: Any) -> Path:
        path = tmp_path / name
        np.savez(path, **make_arrays(task, **options))
        return path

    return make


@pytest.fixture
def config(make_npz: Callable[..., Path]) -> Callable[..., RunConfig]:
    """A run of two epochs of three steps on a made-up file."""

    def make(dataset: Path | None = None, **options: Any) -> RunConfig:
        path = make_npz() if dataset is None else dataset
        return resolve({"dataset": str(path), "model": "vit_4q1h", "epochs": 2, "batch_size": 16} | options)

    return make


def nudge(trained: Together) -> tuple[list[float], Tensor]:
    """Move all that is trained a little, as seed, epoch and rate say, in the place of an epoch's steps."""
    assert isinstance(trained, Alone | Stack)
    members, first = trained.members, trained.members[0]
    with torch.no_grad():
        for parameter in trained.optimizer.parameters:
            parameter += first.config.lr * torch.randn_like(parameter)
    return [one.config.lr for one in members], torch.tensor([1.0 / (one.state.epoch + 1) for one in members]).double()


@pytest.fixture
def nudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without training: real in all but their steps. What is asked of folders needs no more."""
    monkeypatch.setattr("qvit.training.loop.train_epoch", nudge)


@pytest.fixture(scope="session")
def finished(make_arrays: Callable[..., Arrays], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of data, `cells.npz`, and a finished `run` of it. It is never changed: copy it."""
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "cells.npz", **make_arrays())
    settings = {"dataset": str(folder / "cells.npz"), "model": "qvit_4q1h", "epochs": 2, "seed": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qvit.training.loop.train_epoch", nudge)
        train_run(resolve(settings), folder / "run")
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    """A finished run to look at, or to spoil."""
    return Run(Path(shutil.copytree(finished / "run", tmp_path / "run")))


@pytest.fixture(scope="session")
def kept() -> Callable[[Path], dict[str, bytes]]:
    """All files of a run folder by name, but those that say when and where it ran."""

    def read(folder: Path) -> dict[str, bytes]:
        varying = ("environment.json", "timings.jsonl")
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in varying}

    return read


@pytest.fixture
def state() -> TrainState:
    """A state after two epochs, written by hand."""
    weights = {"weight": torch.tensor([1.0, 2.0])}
    history = [EpochRecord(epoch, 0.1, 1.0, 1.0, 0.5, 0.5, "none") for epoch in (1, 2)]
    best = Best(history[0], {"weight": torch.tensor([3.0, 4.0])})
    objective = {"map": torch.tensor([5.0])}
    return TrainState(2, weights, objective, {"state": {}, "param_groups": []}, best, history, [0.5, 0.25])
