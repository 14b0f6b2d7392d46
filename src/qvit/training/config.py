"""How to train: the options of the loop, and what values they may have."""

import math
from dataclasses import dataclass
from typing import Literal

from qvit.training.losses import LossName
from qvit.validate import require

MOST_EPOCHS = 100_000  # a run's records of more could not be read back
MOST_THREADS = 1024  # more end the process
MOST_IMAGES = 1_000_000  # in a batch
MEMORY = 1.0  # gigabytes that a stack may take


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are those of every figure we report.

    `batch_size=None` is 64, halved down to 8 while an epoch has fewer than 16 steps: with a few hundred images a small
    model needs many steps more than it needs smooth gradients; several processes share a batch. `lr` is the schedule's
    peak, `warmup` the fraction of all steps before it; `clip_norm` the largest gradient norm. `loss`: "auto", or
    one of `losses.LOSSES`. `class_weights`: "balanced" weighs classes inversely to their frequency. `augment`: a
    group of `data.augment`, or "auto" for the dataset's own. `tta` averages predictions over that group: "always",
    "never", or "auto" where the validation AUC is better for it. `keep`: the weights of the "best" epoch by validation
    AUC, or of the "last". `patience`: stop after so many epochs without a better checkpoint. `threads`: CPU threads of
    torch in a process; small models are fastest on one.
    Raises `ConfigError` for values out of range.
    """

    epochs: int = 100
    batch_size: int | None = None
    lr: float = 5e-3
    weight_decay: float = 0.01
    schedule: Literal["one_cycle", "warmup_cosine", "constant"] = "one_cycle"
    warmup: float = 0.3
    clip_norm: float | None = 1.0
    loss: LossName = "auto"
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    augment: Literal["auto", "none", "mirror", "d4"] = "auto"
    tta: Literal["auto", "always", "never"] = "auto"
    keep: Literal["best", "last"] = "best"
    patience: int | None = None
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, most in (("epochs", MOST_EPOCHS), ("threads", MOST_THREADS), ("batch_size", MOST_IMAGES)):
            value = getattr(self, name)
            if value is None:  # a batch size that depends on the data
                continue
            require(value >= 1, name, "at least 1", value)
            require(value <= most, name, f"at most {most:,}", value)
        require(0.0 < self.lr < math.inf, "lr", "positive", self.lr)
        require(0.0 <= self.weight_decay < math.inf, "weight_decay", "zero or more", self.weight_decay)
        require(0.0 <= self.warmup < 1.0, "warmup", "in [0, 1)", self.warmup)
        require(
            self.clip_norm is None or 0.0 < self.clip_norm < math.inf, "clip_norm", "positive or null", self.clip_norm
        )
        require(0.0 <= self.label_smoothing < 1.0, "label_smoothing", "in [0, 1)", self.label_smoothing)
        require(self.patience is None or self.patience >= 1, "patience", "at least 1 or null", self.patience)
        together = self.patience is None or self.keep == "best"
        require(together, "patience", "null with keep=last, as nothing is chosen then", self.patience)
