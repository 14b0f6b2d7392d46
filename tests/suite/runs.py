"""Runs as if trained on made-up files, kept for the whole session, for tests of studies and of reports."""

import platform
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qvit.distill.guide import TeacherGuide
from qvit.evaluation import sampled, statistics
from qvit.training import measured
from qvit.training import run as training
from qvit.training.options import resolve
from qvit.training.records import Best, EpochRecord
from qvit.training.run import Run, train_run
from qvit.training.state import TrainState

platform.platform()  # asks another program, and keeps the answer: now, so that no test starts one
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


def as_if_fitted(model: Any, data: Any, config: Any, *, seed: int, objective: Any = None, **_: Any) -> TrainState:
    """Stand for `fit`: weights that depend on all that training depends on, and a history."""
    torch.manual_seed(zlib.crc32(repr((config, seed, getattr(objective, "config", None))).encode()))
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.05 * torch.randn_like(weights)
    epochs = range(1, config.epochs + 1)
    history = [EpochRecord(epoch, 0.001, 1.0, 1.25, 0.5 + 0.125 / epoch, 0.5, "none") for epoch in epochs]
    best = Best(history[0], model.state_dict())
    return TrainState(epoch=config.epochs, best=best, history=history, seconds=[1.5] * config.epochs)


def few_resamples(*arguments: Any, **options: Any) -> Any:
    return statistics.bootstrap_interval(*arguments, **options | {"resamples": 40})


@pytest.fixture(scope="session")
def train_as_if() -> Callable[..., Run]:
    """Do what `train_run` does without training: folder, predictions and figures are real."""

    def make(config: Any, folder: Path, **options: Any) -> Run:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(training, "fit", as_if_fitted)
            patched.setattr(measured, "bootstrap_interval", few_resamples)
            patched.setattr(
                TeacherGuide, "prepare", lambda self, model, data, *_, **__: (data, SimpleNamespace(config=self.config))
            )
            return train_run(config, folder, **options)

    return make


@pytest.fixture(scope="session")
def make_run(
    make_npz: Callable[..., Path], train_as_if: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    """A finished run, as if trained; the same options give the same one."""
    made: dict[str, Run] = {}

    def make(npz: Path | None = None, **options: Any) -> Run:
        given = {"dataset": str(npz or make_npz()), "model": "vit_4q1h", "epochs": 2} | options
        key = repr(sorted(given.items()))
        if key not in made:
            made[key] = train_as_if(resolve(given), tmp_path_factory.mktemp("run") / "run")
        return made[key]

    return make


@pytest.fixture(autouse=True)
def few_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of test images is enough to compare."""
    monkeypatch.setattr(sampled, "FEWEST_OF_A_CLASS", 0)
    monkeypatch.setattr(sampled, "FEWEST_IN_ALL", 0)
