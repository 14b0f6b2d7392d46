"""How a classifier decides: ROC and precision–recall of each class, what it takes for what, confidence and accuracy."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from numpy.typing import ArrayLike
from sklearn.metrics import auc, average_precision_score, confusion_matrix, precision_recall_curve, roc_curve

from qvit.evaluation.inputs import asks_per_label, check_inputs
from qvit.evaluation.metrics import THRESHOLD, one_vs_rest

BINS = 15  # of confidence, as of `metrics.expected_calibration_error`


@dataclass(frozen=True, eq=False)
class Curve:
    """How well scores tell the images of one class, or with one label, from all others, whatever the threshold.

    `tpr` against `fpr` (r,) is the ROC curve, `auc` the area under it; `precision` against `recall` (p,) goes from the
    lowest threshold to above the highest, and `average_precision` is the area under its steps. `prevalence` is the
    share of the class, the precision by chance.
    """

    fpr: Float[np.ndarray, " r"]
    tpr: Float[np.ndarray, " r"]
    auc: float
    precision: Float[np.ndarray, " p"]
    recall: Float[np.ndarray, " p"]
    average_precision: float
    prevalence: float


def curves(labels: ArrayLike, scores: ArrayLike, task: str) -> tuple[Curve | None, ...]:
    """Return the curves of each class against the rest, or of each label; of a binary task those of class 1 alone.

    None for a class that no image has, or all. Raises MetricError as `check_inputs` does.
    """
    truth, checked = check_inputs(labels, scores, task)
    positive = one_vs_rest(truth, task, classes=checked.shape[1])
    return tuple(_curve(*columns) for columns in zip(positive.T, checked.T, strict=True))


def _curve(positive: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Curve | None:
    if positive.all() or not positive.any():
        return None
    fpr, tpr, _ = roc_curve(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    found = float(average_precision_score(positive, scores))
    return Curve(fpr, tpr, float(auc(fpr, tpr)), precision, recall, found, float(positive.mean()))


def confusion(labels: Int[np.ndarray, "n 1"], answers: Bool[np.ndarray, "n c"]) -> Int64[np.ndarray, "c c"]:
    """Return how many images of each class, by row, were taken for each class, by column; `answers` as `decided`."""
    return confusion_matrix(labels[:, 0], answers.argmax(axis=1), labels=np.arange(answers.shape[1]))


def outcomes(labels: Int[np.ndarray, "n k"], answers: Bool[np.ndarray, "n c"], task: str) -> Int64[np.ndarray, "q 2 2"]:
    """Return how many images have each class, or label, and are said to: `[question, truth, answer]`.

    The questions are those of `curves`; `answers` as `calibration.decided`.
    """
    truth = one_vs_rest(labels, task, classes=answers.shape[1])
    said = answers[:, -truth.shape[1] :]
    return np.stack([confusion_matrix(*pair, labels=[False, True]) for pair in zip(truth.T, said.T, strict=True)])


@dataclass(frozen=True, eq=False)
class Reliability:
    """Mean `confidence`, `accuracy` and number of decisions, `counts`, in each bin of confidence that has any (b,)."""

    confidence: Float[np.ndarray, " b"]
    accuracy: Float[np.ndarray, " b"]
    counts: Int64[np.ndarray, " b"]


def reliability(labels: ArrayLike, scores: ArrayLike, task: str) -> Reliability:
    """Return how often decisions are right by how confident they are, in the bins of the calibration error.

    Of several labels each is a decision. Raises MetricError as `check_inputs` does.
    """
    truth, checked = check_inputs(labels, scores, task)
    if asks_per_label(task):
        confidence, right = np.maximum(checked, 1 - checked), (checked > THRESHOLD) == truth
    else:
        confidence, right = checked.max(axis=1), checked.argmax(axis=1) == truth[:, 0]
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence.ravel(), side="left")
    counts = np.bincount(place, minlength=BINS)
    kept = counts > 0
    sure, true = (np.bincount(place, values.ravel(), BINS)[kept] / counts[kept] for values in (confidence, right))
    return Reliability(sure, true, counts[kept])
