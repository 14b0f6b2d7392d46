"""Runs on made-up pictures of 12 pixels, and pictures like them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run
from qvit.training.together import Together

COUNTS = {"train": 120, "val": 60, "test": 30}
NAMES = ("bright", "dark", "red")
SIZE = 12

torch.set_num_threads(1)


def images(labels: np.ndarray, channels: int = 3, *, seed: int = 0, side: int = SIZE) -> np.ndarray:
    """Noisy squares, each class of its own colour."""
    rng = np.random.default_rng(seed)
    colours = np.array([[200, 180, 170], [60, 70, 80], [180, 50, 60]])[:, :channels]
    noisy = colours[labels][:, None, None] + rng.normal(scale=45, size=(len(labels), side, side, channels))
    return noisy.clip(0, 255).astype(np.uint8)


def arrays(task: str = "multi-class", channels: int = 3) -> dict[str, np.ndarray]:
    """The arrays of a file in MedMNIST's layout, with names of classes."""
    made: dict[str, np.ndarray] = {}
    classes = 2 if task == "binary" else 3
    for seed, (split, count) in enumerate(COUNTS.items()):
        labels = np.random.default_rng(seed).permutation(np.arange(count) % classes)
        made[f"{split}_images"] = images(labels, channels, seed=seed).squeeze()
        several = np.stack([labels != 1, labels == 1], axis=1)
        made[f"{split}_labels"] = (several if task == "multi-label" else labels[:, None]).astype(np.uint8)
    made["class_names"] = np.array(NAMES[: 2 if task == "multi-label" else classes])
    return made


def nothing_learnt(trained: Together) -> tuple[list[float], Tensor]:
    """In place of the steps of an epoch: the weights stay as they are."""
    return [one.config.lr for one in trained.members], torch.ones(len(trained.members))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A finished run on a task, made once, beside the file of its data; it has learnt nothing."""
    made: dict[tuple[object, ...], Path] = {}

    def train(task: str = "multi-class", channels: int = 3, *, seed: int = 0, tta: str = "none") -> Path:
        key = task, channels, seed, tta
        if key not in made:
            folder = tmp_path_factory.mktemp("trained")
            np.savez(folder / "squares.npz", **arrays(task, channels))
            options = {"dataset": str(folder / "squares.npz"), "task": task, "model": "vit_4q1h", "patch_size": 4}
            more = {"epochs": 1, "seed": seed, "augment": tta, "tta": "always"}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("qvit.training.loop.train_epoch", nothing_learnt)
                train_run(resolve(options | more), folder / "run")
            made[key] = folder / "run"
        return made[key]

    return train


def copied(run: Path, to: Path) -> Run:
    """A copy of a run and its data, without what other tests have kept in its folder."""
    shutil.copytree(run.parent, to, ignore=shutil.ignore_patterns("calibration.json", "validation.safetensors"))
    return Run(to / "run")


@pytest.fixture
def run(trained: Callable[..., Path], tmp_path: Path) -> Run:
    """A finished run of three classes, with its data, to do anything with."""
    return copied(trained(), tmp_path / "there")


def pictures(folder: Path, count: int = 6, channels: int = 3, *, side: int = 30) -> list[Path]:
    """PNGs of 30 pixels, two of each class in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{place:02}.png" for place in range(count)]
    for path, image in zip(paths, images(np.arange(count) % 3, channels, seed=9, side=side), strict=True):
        Image.fromarray(image.squeeze()).save(path)
    return paths
