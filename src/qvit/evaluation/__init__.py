"""Metrics, intervals, comparisons and result files: functions of arrays that return numbers and know no models."""

from qvit.evaluation.medmnist_files import read_result, write_result
from qvit.evaluation.metrics import AbsentClassWarning, accuracy, auc, evaluate
from qvit.evaluation.paired import (
    Comparison,
    compare_arms,
    contrast,
    delong_test,
    hedges_g,
    holm,
    mcnemar_test,
    permutation_test,
    seeds_test,
    superiority,
)
from qvit.evaluation.ranking import Ranking, friedman, rank
from qvit.evaluation.statistics import Interval, bootstrap_interval, crossed_interval, folds_interval, mean_interval

__all__ = [
    "AbsentClassWarning",
    "Comparison",
    "Interval",
    "Ranking",
    "accuracy",
    "auc",
    "bootstrap_interval",
    "compare_arms",
    "contrast",
    "crossed_interval",
    "delong_test",
    "evaluate",
    "folds_interval",
    "friedman",
    "hedges_g",
    "holm",
    "mcnemar_test",
    "mean_interval",
    "permutation_test",
    "rank",
    "read_result",
    "seeds_test",
    "superiority",
    "write_result",
]
