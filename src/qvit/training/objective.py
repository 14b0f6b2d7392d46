"""What is minimised, image by image: an objective is a function of a model and a batch, for one model or a stack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.errors import ConfigError, ModelError
from qvit.models.zoo import Model
from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.losses import Loss, balanced_weights, make_loss

# The parameters of an objective that is a module are trained with the model's.
# A module that stacks m models has the losses (m, b) of each, and m first in the shape of every parameter.
# One that takes batches of mixed images (see `Batch.losses`) says so by an attribute `mixes`, which is true.
Objective = Callable[[nn.Module, Batch], Float[Tensor, "*m b"]]


@dataclass(frozen=True, eq=False)
class Supervised:
    """The plain objective: the task's loss of the model's logits against the labels.

    `class_weights` are `(c,)`, of a stack `(m, c)`; see `losses.make_loss`.
    """

    task: str
    name: str
    smoothing: float
    class_weights: Tensor | None
    mixes: ClassVar[bool] = True

    @cached_property
    def loss(self) -> Loss:
        """The loss as a function of logits and labels."""
        return make_loss(self.task, name=self.name, smoothing=self.smoothing, class_weights=self.class_weights)

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Float[Tensor, "*m b"]:
        """Return the loss of each image."""
        logits = model(batch.images)
        return batch.losses(lambda one: self.loss(logits, one.labels))

    def stacked(self, others: Sequence["Supervised"]) -> "Supervised":
        """Return the objective of a stack, whose first model has this one; they may differ in their weights."""
        if self.class_weights is None:
            return self
        weights = [one.class_weights for one in (self, *others) if one.class_weights is not None]
        return replace(self, class_weights=torch.stack(weights))

    def part(self, places: Sequence[int]) -> "Supervised":
        """Return the objective of the models at some places of a stack that this one is of."""
        return self if self.class_weights is None else replace(self, class_weights=self.class_weights[list(places)])


def supervised(data: Dataset, config: TrainConfig) -> Supervised:
    """Return the plain objective; raises `ConfigError` for a loss that does not fit the task."""
    weights = None
    if config.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, data.info.task, data.info.num_classes).to(config.device)
    make_loss(data.info.task, name=config.loss)
    return Supervised(data.info.task, config.loss, config.label_smoothing, weights)


def objective_of(given: Any, data: Dataset, config: TrainConfig) -> Objective:
    """Return an objective if one is given, else the plain one.

    Raises `ConfigError` for mixup with an objective that would take mixed images for their first parts.
    """
    if given is None:
        return supervised(data, config)
    if config.mixup and not getattr(given, "mixes", False):
        raise ConfigError(
            f"mixup={config.mixup} needs an objective that learns from both labels of a mixed image, and says so by an "
            f"attribute mixes=True, got {type(given).__name__}. Give it that, with its losses by `Batch.losses`, or "
            "leave mixup out."
        )
    return given


@runtime_checkable
class Stackable(Protocol):
    """An objective that can be put together with others of its kind for a stack of models."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each image."""

    def stacked(self, others: Sequence[Any]) -> "Stackable":
        """Return the objective of a stack, whose first model has this one, and the next ones the others."""

    def part(self, places: Sequence[int]) -> "Stackable":
        """Return the objective of the models at some places of a stack that this one is of."""


def stacked_objective(objectives: Sequence[Any]) -> Stackable:
    """Return one objective for the stack of the models that these are for.

    Raises `ModelError` unless they are `Stackable`, and all of one kind.
    """
    first, *others = objectives
    if not isinstance(first, Stackable) or any(type(other) is not type(first) for other in others):
        kinds = ", ".join(sorted({type(objective).__name__ for objective in objectives}))
        raise ModelError(
            f"Expected objectives of one kind, with methods `stacked` and `part`, to train models as a stack, got "
            f"{kinds}. Train these models one by one."
        )
    return first.stacked(others)


@runtime_checkable
class Guide(Protocol):
    """What a run learns from instead of the labels, or besides them; see `qvit.distill`."""

    @property
    def described(self) -> dict[str, Any]:
        """What config.json records of the guide: all that determines the run."""

    def prepare(self, model: Model, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        """Return the data to train on, with the validation split of `data`, and what to minimise.

        With several processes each calls this, the first one of a machine before the others.
        """
