"""How far the training of a model is, and what determines it: what the loop keeps for each model that it trains."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from qvit.data.arrays import Dataset
from qvit.errors import QvitError
from qvit.training.config import TrainConfig
from qvit.training.records import Best, EpochRecord
from qvit.training.saved import copied, running_mean


@dataclass
class TrainState:
    """Everything that the run of one model needs to be resumed: what has been learned, and the history so far."""

    epoch: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: Best | None = None
    history: list[EpochRecord] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def blank(self) -> bool:
        """Whether nothing has been trained yet."""
        return not (self.epoch or self.model or self.objective or self.optimizer)

    def update(
        self,
        record: EpochRecord,
        seconds: float,
        *,
        model: dict[str, Any],
        objective: dict[str, Any],
        optimizer: dict[str, Any],
        keep: Literal["best", "last"] = "best",
        averaged: int = 1,
    ) -> None:
        """Record an epoch, with copies of what has been learned, and keep its weights: always, or if they are best.

        If it is not the first of the epochs that are `averaged`, the mean of their weights is kept.
        """
        self.epoch = record.epoch
        self.history.append(record)
        self.model, self.objective, self.optimizer = copied(model), copied(objective), optimizer
        if keep == "last" or self.best is None or record.merit > self.best.record.merit:
            kept = self.model
            if averaged > 1 and self.best is not None:
                kept = running_mean(self.best.model, self.model, averaged)
            self.best = Best(record, kept)
        self.seconds.append(seconds)


@dataclass(eq=False)
class Member:
    """One model's training, alone or in a stack: on what, how, by which seed, what is minimised, and how far it is.

    `objective` is an `objective.Objective`, None for the plain one; `on_epoch(state)` is called after each epoch.
    `error` is set when the model of a stack has diverged: it is left as it was then, and the others go on.
    """

    data: Dataset
    config: TrainConfig
    seed: int
    objective: Any = None
    state: TrainState = field(default_factory=TrainState)
    on_epoch: Callable[[TrainState], None] | None = None
    error: QvitError | None = None

    @property
    def goes_on(self) -> bool:
        """Whether there is another epoch to train."""
        state, patience = self.state, self.config.patience
        if self.error is not None or state.epoch >= self.config.epochs:
            return False
        return patience is None or state.best is None or state.epoch - state.best.record.epoch < patience
