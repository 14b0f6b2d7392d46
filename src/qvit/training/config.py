"""How to train: the options of the loop, and what values they may have."""

import math
from dataclasses import dataclass
from typing import Literal

from qvit.data.distort import MOST as MOST_DISTORTED
from qvit.data.mixup import LEAST as LEAST_MIXED
from qvit.data.mixup import MOST as MOST_MIXED
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
    group of `data.augment`, or "auto" for the dataset's own. `distort`: how much training images are turned, zoomed,
    shifted and changed in contrast, on top of that; 1 is a little (see `data.distort`). `mixup`: α of the shares by
    which images of a batch are mixed, and their losses (see `data.mixup`). `tta` averages predictions over the group of
    `augment`: "always", "never", or "auto" where the validation AUC is better for it. `keep`: the weights of the "best"
    epoch by validation AUC, or of the "last"; `average`: the mean of the weights after each of so many last epochs
    (Izmailov et al. 2018, arXiv:1803.05407). `patience`: stop after so many epochs without a better checkpoint.
    `threads`: CPU threads of torch in a process; small models are fastest on one.
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
    distort: float = 0.0
    mixup: float = 0.0
    tta: Literal["auto", "always", "never"] = "auto"
    keep: Literal["best", "last"] = "best"
    average: int = 1
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
        in_range = 0.0 <= self.distort <= MOST_DISTORTED
        require(in_range, "distort", f"from 0 (off) to {MOST_DISTORTED:g}", self.distort)
        in_range = self.mixup == 0.0 or LEAST_MIXED <= self.mixup <= MOST_MIXED
        require(in_range, "mixup", f"0 (off) or from {LEAST_MIXED:g} to {MOST_MIXED:g}", self.mixup)
        require(self.patience is None or self.patience >= 1, "patience", "at least 1 or null", self.patience)
        together = self.patience is None or self.keep == "best"
        require(together, "patience", "null with keep=last, as nothing is chosen then", self.patience)
        require(self.average >= 1, "average", "at least 1", self.average)
        one = self.average == 1 or self.keep == "last"
        require(one, "average", "1 with keep=best, as that keeps one epoch (set keep=last, too)", self.average)
        require(self.average <= self.epochs, "average", f"at most epochs, {self.epochs}", self.average)

    def averaged(self, epoch: int) -> int:
        """Return over how many epochs, up to this one, weights are averaged; 1 before the last `average` ones begin."""
        return max(1, epoch - self.epochs + self.average)
