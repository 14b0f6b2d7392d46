"""Records of epochs and results, which other packages use and a run's folder holds as JSON."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self

Ends = tuple[float | None, float | None]  # of an interval; None if there are too few images


class _Judged:
    """Base of records that are compared by their figures on the validation split."""

    val_loss: float
    val_auc: float

    @property
    def merit(self) -> tuple[float, float]:
        """The key that is largest for the best epoch: AUC first, then the lower loss."""
        return self.val_auc, -self.val_loss


@dataclass(frozen=True)
class Validation(_Judged):
    """Figures on the validation split; `tta` says over which group of symmetries predictions were averaged."""

    val_loss: float
    val_auc: float
    val_acc: float
    tta: str


@dataclass(frozen=True)
class EpochRecord(_Judged):
    """One epoch, counted from 1: its last learning rate, the mean loss of training, and figures on validation."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_auc: float
    val_acc: float
    tta: str

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Return the record in values that were checked before; unknown keys are left out."""
        return cls(**_known(cls, values))


def lines_of(history: Iterable[EpochRecord]) -> str:
    """Return the lines of JSON that tell of epochs."""
    return "".join(map(_line, history))


@lru_cache(maxsize=2**16)  # as all epochs of a run are written again after each
def _line(record: EpochRecord) -> str:
    return json.dumps(vars(record)) + "\n"


@dataclass(frozen=True)
class Best:
    """The epoch whose weights are kept, the best one or the last, and the weights."""

    record: EpochRecord
    model: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Measures of one split, see `evaluation.metrics.evaluate`; AUC and accuracy with 95 % bootstrap intervals.

    Those by class are of each class, or label (of a binary task of class 1); None of a class that no image has, or all.
    """

    auc: float
    acc: float
    balanced_acc: float | None = None
    f1: float | None = None
    kappa: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    ece: float | None = None
    log_loss: float | None = None
    auc_interval: Ends
    acc_interval: Ends
    sensitivity_by_class: tuple[float | None, ...] | None = None
    specificity_by_class: tuple[float | None, ...] | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Return the figures in values that were checked before; unknown keys are left out."""
        known: dict[str, Any] = _known(cls, values)
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known | lists)


@dataclass(frozen=True)
class Result:
    """The result of a finished run, as in result.json; `tta` is what predictions were averaged over."""

    parameters: int
    best_epoch: int
    tta: str
    val: Figures
    test: Figures

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Return the result in values that were checked before; unknown keys are left out."""
        return cls(**_known(cls, values) | {split: Figures.of(values[split]) for split in ("val", "test")})


def _known(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}
