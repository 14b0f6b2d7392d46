"""The command line, called in this process for speed or as a real process; and made-up files and runs to call it on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.cli import main
from qvit.training.options import resolve
from qvit.training.run import train_run
from qvit.training.together import Together

torch.set_num_threads(1)  # as runs do: on models this small, threads only wait for each other

COUNTS = {"train": 24, "val": 16, "test": 20}
Arrays = dict[str, np.ndarray]


class Told(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def qvit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Run a command in this process."""

    def run(*arguments: object) -> Told:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return Told(int(ended.value.code or 0), told.out, told.err)

    return run


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "qvit", *map(str, arguments)]


@pytest.fixture
def process() -> Callable[..., Told]:
    """Run a command in a process of its own."""

    def run(*arguments: object) -> Told:
        done = subprocess.run(
            command(arguments), capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        return Told(done.returncode, done.stdout, done.stderr)

    return run


# --- what stands for an epoch ---


def nothing_learnt(trained: Together) -> tuple[list[float], Tensor]:
    """In place of the steps of an epoch: the weights stay as they are, all around it goes on as ever."""
    return [one.config.lr for one in trained.members], torch.ones(len(trained.members))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without learning: what a command makes of its options, files and figures does not depend on that."""
    monkeypatch.setattr("qvit.training.loop.train_epoch", nothing_learnt)


@pytest.fixture
def small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phantom in sixteenths: drawing it takes longer than all that is done with it."""
    monkeypatch.setattr("qvit.data.phantom.SPLITS", {"train": 125, "val": 25, "test": 50})


# --- files and runs ---


def make_arrays() -> Arrays:
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for split, n in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (n, 12, 12, 3)).astype(np.uint8)
        made[f"{split}_labels"] = (rng.permutation(np.arange(n)) % 3).astype(np.uint8)[:, None]
    return made


@pytest.fixture
def arrays() -> Arrays:
    """Three classes of noise, in MedMNIST's layout."""
    return make_arrays()


@pytest.fixture
def npz(arrays: Arrays, tmp_path: Path) -> Path:
    path = tmp_path / "small.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def train(qvit: Callable[..., Told], npz: Path) -> Callable[..., Told]:
    """Train for one epoch on the made-up file."""

    def run(out: Path, *more: object, **options: Any) -> Told:
        named = [part for key, value in options.items() for part in (f"--{key}", value)]
        return qvit("train", npz, "--model", "vit_4q1h", "--epochs", 1, "--out", out, *named, *more)

    return run


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the made-up file, which lies beside it."""
    folder = tmp_path_factory.mktemp("shared")
    np.savez(folder / "small.npz", **make_arrays())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qvit.training.loop.train_epoch", nothing_learnt)
        config = resolve({"dataset": str(folder / "small.npz"), "model": "vit_4q1h", "epochs": 1})
        train_run(config, folder / "run")
    return folder / "run"


@pytest.fixture
def run(shared_run: Path, npz: Path, tmp_path: Path) -> Path:
    """A finished run on `npz`, to do anything with."""
    folder = tmp_path / "run"
    shutil.copytree(shared_run, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace(str(shared_run.with_name("small.npz")), str(npz)))
    return folder


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes | None]]:
    """Everything below a folder, by name; None for folders."""

    def read(folder: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }

    return read
