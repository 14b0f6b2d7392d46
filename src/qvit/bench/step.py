"""Time a training step of a quantum model against its classical twin: exactly the step that `fit` takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qvit.models import create_model
from qvit.timing import median_milliseconds
from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.seeding import seeded
from qvit.training.step import make_optimizer, train_step

CLASSES, SIDE = 5, 28
DEFAULT_PAIRS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("qvit_4q2h", {}, "vit_4q2h"),
    ("qvit_8q1h", {}, "vit_8q1h"),
    ("qvit_8q2h", {}, "vit_8q2h"),
    ("qvit_8q2h", {"n_layers": 2}, "vit_8q2h"),
)


@dataclass(frozen=True)
class StepRow:
    """Median milliseconds of a step of each model, and their ratio."""

    quantum: str
    layers: int
    classical: str
    batch: int
    quantum_ms: float
    classical_ms: float

    @property
    def ratio(self) -> float:
        """The time of a quantum step divided by that of a classical step."""
        return self.quantum_ms / self.classical_ms


def make_step(name: str, batch: int, **options: Any) -> Callable[[], None]:
    """Return a function that trains a fresh model for one step on random 28 × 28 RGB images."""
    model = create_model(name, num_classes=CLASSES, img_size=SIDE, **options)
    config = TrainConfig()
    optimizer = make_optimizer(model, config)
    images = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (batch,))
    still = Batch(images, labels, torch.arange(batch), torch.zeros(batch, dtype=torch.long))

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch.images), batch.labels, reduction="none")

    def step() -> None:
        train_step(model, still, objective, optimizer, lr=config.lr, clip_norm=config.clip_norm)

    return step


def bench_step(quantum: str, classical: str, *, batch: int = 64, repeats: int = 200, **options: Any) -> StepRow:
    """Time a step of both models in turn; `options` are those of the quantum model."""
    with seeded(0):
        steps = [make_step(quantum, batch, **options), make_step(classical, batch)]
    ours, theirs = median_milliseconds(steps, repeats=repeats, warm_up=20, budget=60.0)
    return StepRow(quantum, int(options.get("n_layers", 1)), classical, batch, ours, theirs)
