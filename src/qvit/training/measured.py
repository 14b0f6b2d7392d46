"""How good a run's answers are to images whose labels are known: over images, and over patients."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Shaped

from qvit.evaluation.metrics import evaluate, rates_by_class
from qvit.evaluation.statistics import bootstrap_interval
from qvit.training.records import Figures


@dataclass(frozen=True, eq=False)
class Predicted:
    """Images whose labels are known, and the probabilities that a run gives them.

    `labels` are (n, 1), of several labels 0/1 (n, c); `scores` (n, c) are of the `classes`, or labels; `groups` (n,)
    are those of the images, such as patients, None if they are not known.
    """

    task: str
    classes: tuple[str, ...]
    labels: Int64[np.ndarray, "n k"]
    scores: Float[np.ndarray, "n c"]
    groups: Shaped[np.ndarray, " n"] | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """What was predicted, and all measures of it.

    `figures` are over images; `by_group` over `groups` groups, whose probabilities are averaged: None if groups are not
    known, or too few to be measured. `mixed` groups, whose images have different labels, are left out there.
    """

    predicted: Predicted
    figures: Figures
    groups: int | None = None
    mixed: int = 0
    by_group: Figures | None = None


def measure(predicted: Predicted) -> Measured:
    """Return all measures of what was predicted; raises MetricError as `evaluation.metrics.evaluate` does."""
    labels, scores, task, groups = predicted.labels, predicted.scores, predicted.task, predicted.groups
    figures = figures_of(labels, scores, task)
    if groups is None:
        return Measured(predicted, figures)
    _, first, place, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    same = np.bincount(place, (labels == labels[first][place]).all(axis=1)) == counts
    means = np.stack([np.bincount(place, column) for column in scores.T], axis=1) / counts[:, None]
    told = labels[first][same]
    measurable = len(told) and not (told == told[0]).all()
    by_group = figures_of(told, means[same], task) if measurable else None
    return Measured(predicted, figures, len(told), int((~same).sum()), by_group)


def figures_of(labels: Int64[np.ndarray, "n k"], scores: Float[np.ndarray, "n c"], task: str) -> Figures:
    """Return all measures, AUC and accuracy with intervals, rates by class; raises MetricError as `evaluate` does."""
    intervals = bootstrap_interval(labels, scores, task)
    ends = {f"{metric}_interval": (interval.low, interval.high) for metric, interval in intervals.items()}
    rates = zip(("sensitivity", "specificity"), rates_by_class(labels, scores, task), strict=True)
    each = {f"{name}_by_class": tuple(None if np.isnan(v) else v for v in values.tolist()) for name, values in rates}
    return Figures.of(evaluate(labels, scores, task) | ends | each)
