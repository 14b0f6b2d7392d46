"""Metrics, intervals and result files: arrays in, numbers out; a model is never seen."""

from qvit.evaluation.metrics import AbsentClassWarning, accuracy, auc, evaluate
from qvit.evaluation.results import read_result, write_result
from qvit.evaluation.statistics import Interval, bootstrap_interval, mean_interval

__all__ = [
    "AbsentClassWarning",
    "Interval",
    "accuracy",
    "auc",
    "bootstrap_interval",
    "evaluate",
    "mean_interval",
    "read_result",
    "write_result",
]
