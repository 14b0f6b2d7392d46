"""Every measure of labels and scores."""

from collections.abc import Callable
from typing import Any

from qvit.evaluation.metrics import (
    accuracy,
    auc,
    balanced_accuracy,
    cohen_kappa,
    evaluate,
    expected_calibration_error,
    f1,
    log_loss,
    sensitivity,
    specificity,
)

MEASURES: tuple[Callable[..., Any], ...] = (
    auc,
    accuracy,
    balanced_accuracy,
    f1,
    cohen_kappa,
    sensitivity,
    specificity,
    expected_calibration_error,
    log_loss,
    evaluate,
)
