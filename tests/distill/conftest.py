"""Made-up images that teachers can be told apart by, tiny teachers and students, and what must not change in them.

Runs made here are real ones but for their epochs, each of which is a single step: see `one_step`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.data.registry import DatasetInfo
from qvit.distill import DistillationConfig, Teacher, measures, resolve_distillation
from qvit.models import Preprocess, create_model
from qvit.training import loop
from qvit.training.batches import load_batch
from qvit.training.options import resolve
from qvit.training.run import Run, train_run
from qvit.training.seeding import INIT, ORDER, generator, seeded
from qvit.training.step import train_step
from qvit.training.together import Alone, Together

CLASSES = {"binary": 2, "multi-class": 4, "ordinal": 5, "multi-label": 3}
COUNTS = {"train": 21, "val": 14, "test": 15}  # odd, so that the last batch is a short one
SIZE = 12

torch.set_num_threads(1)  # as runs do: on models this small, threads only wait for each other


def _arrays(task: str, channels: int, seed: int) -> dict[str, np.ndarray]:
    """Noise whose brightness follows the label, differently in each channel."""
    rng, arrays = np.random.default_rng(seed), {}
    for split, n in COUNTS.items():
        order = rng.permutation(np.arange(n))[:, None]
        labels = order >> np.arange(CLASSES[task]) & 1 if task == "multi-label" else order % CLASSES[task]
        level = 60.0 + 120.0 * labels / labels.max()
        level = level * np.linspace(1.0, 0.5, channels) if task != "multi-label" else level[:, :channels]
        images = level[:, None, None] + 50.0 * rng.standard_normal((n, SIZE, SIZE, channels))
        images = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_images"] = images[..., 0] if channels == 1 else images
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    return arrays


@pytest.fixture(scope="session")
def make_data() -> Callable[..., Dataset]:
    """A dataset in memory: 21, 14 and 15 images of 12 pixels."""

    def make(task: Any = "multi-class", *, channels: Any = 3, seed: int = 0) -> Dataset:
        arrays, splits = _arrays(task, channels, seed), {}
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
            channels=channels,
            splits=COUNTS,
            md5={},
            licence="",
            citation="",
            augment="d4",
        )
        return Dataset(info, SIZE, **splits)

    return make


@pytest.fixture(scope="session")
def make_npz(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The same as a file."""
    folder = tmp_path_factory.mktemp("data")

    def make(task: str = "multi-class", *, channels: int = 3, seed: int = 0) -> Path:
        path = folder / f"{task}-{channels}-{seed}.npz"
        if not path.exists():
            np.savez(path, **_arrays(task, channels, seed))
        return path

    return make


def _one_step(trained: Together) -> tuple[list[float], Tensor]:
    """Stand in for an epoch: one step on all images at once, each under a symmetry that is drawn."""
    assert isinstance(trained, Alone)
    (one,) = trained.members
    order, images = generator(one.seed, ORDER, one.state.epoch), torch.arange(len(one.data.train))
    batch = load_batch(trained.views[one.data.train], images, order, "cpu")
    loss = train_step(trained.module.train(), batch, trained.objective, trained.optimizer, lr=one.config.lr)
    return [one.config.lr], loss[None]


@contextmanager
def _stepping() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "train_epoch", _one_step)
        patched.setattr(measures, "count_flops", lambda *_: 1)
        yield


@pytest.fixture(scope="session")
def stepping() -> Callable[[], Any]:
    """`one_step` as a block, for fixtures that are made once."""
    return _stepping


@pytest.fixture
def one_step() -> Iterator[None]:
    """Epochs of a single step: what becomes of a run's data, options, guide and origin shows after one."""
    with _stepping():
        yield


@pytest.fixture(scope="session")
def make_run(make_npz: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A finished run, for all tests: not to be changed. The same options give the same one; an epoch is `one_step`."""
    made: dict[str, Run] = {}

    def make(npz: Path | None = None, **options: Any) -> Run:
        given = {"dataset": str(npz or make_npz()), "model": "vit_4q1h", "epochs": 1, "batch_size": 8} | options
        key = repr(sorted(given.items()))
        if key not in made:
            with _stepping():
                made[key] = train_run(resolve(given), tmp_path_factory.mktemp("run") / "run")
        return Run(made[key].folder)

    return make


@pytest.fixture(scope="session")
def run_teacher(make_run: Callable[..., Run]) -> Teacher:
    """The usual teacher of a distillation."""
    return Teacher.of_runs([make_run(model="vit_8q1h").folder])


@pytest.fixture(scope="session")
def settings(make_npz: Callable[..., Path]) -> Callable[..., DistillationConfig]:
    """A distillation of one epoch a stage on the usual images, none of them mixed."""

    def make(task: str = "multi-class", **options: Any) -> DistillationConfig:
        given: dict[str, Any] = {"dataset": str(make_npz(task)), "task": task, "model": "vit_4q1h", "epochs": 1}
        given |= {"batch_size": 8, "mixtures": 0} | ({} if options.get("joint") else {"finetune": {"epochs": 1}})
        return resolve_distillation(given | options)

    return make


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting FLOPs takes longer than the rest of a distillation as small as these; see `test_measures`."""
    monkeypatch.setattr(measures, "count_flops", lambda *_: 1)


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """A model for a dataset, its weights fixed by a seed."""

    def make(data: Dataset, name: str = "vit_4q1h", *, seed: int = 0, **options: Any) -> nn.Module:
        if name.startswith("resnet"):
            options = {"width": 1 / 16} | options
        with seeded(seed, INIT):
            return create_model(
                name, in_chans=data.info.channels, num_classes=data.info.num_classes, img_size=data.size, **options
            )

    return make


class Counting(nn.Module):
    """A linear map of bytes to logits that counts the images it sees."""

    def __init__(self, channels: int, classes: int, scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(Preprocess(channels), nn.Flatten(), nn.Linear(channels * SIZE**2, classes))
        nn.init.normal_(self.body[-1].weight, std=scale)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.body(images)


@pytest.fixture(scope="session")
def linear_teacher() -> Callable[..., Teacher]:
    """A bare module as a teacher, whose every answer depends on every pixel."""

    def make(data: Dataset, *, seed: int = 0, scale: float = 0.05) -> Teacher:
        with seeded(seed, INIT):
            return Teacher.of_module(Counting(data.info.channels, data.info.num_classes, scale))

    return make


@pytest.fixture(scope="session")
def snapshot() -> Callable[..., Any]:
    """Everything about modules that learning from them must not change."""

    def take(*modules: nn.Module) -> list[Any]:
        return [
            [
                {name: value.detach().clone().numpy().tobytes() for name, value in module.state_dict().items()},
                {name: (value.requires_grad, value.grad) for name, value in module.named_parameters()},
                {name: part.training for name, part in module.named_modules()},
            ]
            for module in modules
        ]

    return take
