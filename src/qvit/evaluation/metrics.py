"""MedMNIST's AUC and accuracy, and seven more measures of the same labels and scores.

Every task is a set of yes-or-no questions (see `evaluation.inputs`), and one rule holds for all measures: a ratio 0/0
is left out of a mean, and if nothing is left the value is 0.0. Only AUC raises an error instead, since it has no worst
value to return.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from qvit.errors import MetricError
from qvit.evaluation.inputs import asks_per_label, check_inputs, check_scores, check_sums

THRESHOLD = 0.5


class AbsentClassWarning(UserWarning):
    """Some classes have no AUC, since no image or every image has them; the mean is over the others."""


def decide(scores: ArrayLike, task: str) -> NDArray[np.int64]:
    """Return the decisions that MedMNIST derives from scores.

    Binary: 0/1 `(N,)`, 1 where P(class 1) > 0.5. Multi-label: 0/1 `(N, K)`, likewise. Multi-class and
    ordinal: the index of the largest score `(N,)`, the first of them on a tie. Raises MetricError as
    `check_inputs` does.
    """
    checked = check_scores(scores, task)
    if not asks_per_label(task):
        return np.argmax(checked, axis=1).astype(np.int64)
    above = (checked > THRESHOLD).astype(np.int64)
    return above[:, 0] if task == "binary" else above


def one_vs_rest(labels: Int[np.ndarray, "b k"], task: str, *, classes: int) -> Bool[np.ndarray, "b c"]:
    """Return, for each image and each yes-or-no question of the task, whether the answer is yes."""
    return labels == 1 if asks_per_label(task) else labels == np.arange(classes)


def _auc_of(positive: Bool[np.ndarray, " b"], scores: Float[np.ndarray, " b"]) -> float:
    """Return P(a positive scores above a negative), ties counting half, from exact integer counts."""
    values, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group[positive], minlength=len(values))
    negatives = np.bincount(group[~positive], minlength=len(values))
    below_twice = 2 * (np.cumsum(negatives) - negatives) + negatives
    return float(positives @ below_twice) / float(2 * positives.sum() * negatives.sum())


def auc(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the area under the ROC curve as MedMNIST defines it.

    Binary: the AUC of P(class 1). Multi-class and ordinal: the unweighted mean of each class against the rest.
    Multi-label: the mean over labels. A class that no image has, or all have, is left out with an AbsentClassWarning.
    Raises MetricError as `check_inputs` does, and if no class is left.
    Source: Yang et al. 2023, MedMNIST v2; `medmnist.evaluator.getAUC` 3.0.2.
    """
    truth, checked = check_inputs(labels, scores, task)
    positive = one_vs_rest(truth, task, classes=checked.shape[1])
    known = np.flatnonzero(positive.any(axis=0) & ~positive.all(axis=0))
    if known.size == 0:
        raise MetricError(
            f"AUC needs images with and without a class, but all {len(truth)} have the same labels "
            f"({truth[0].tolist()}). Evaluate on more images."
        )
    if known.size < positive.shape[1]:
        missing = sorted(set(range(positive.shape[1])) - set(known.tolist()))
        kind = "label" if task == "multi-label" else "class"
        warnings.warn(
            f"AUC is the mean over {known.size} of {positive.shape[1]}, without {kind} "
            f"{', '.join(map(str, missing))}, which no image has or all have.",
            AbsentClassWarning,
            stacklevel=2,
        )
    return float(np.mean([_auc_of(positive[:, column], checked[:, column]) for column in known]))


def _decided(scores: Float[np.ndarray, "b c"], task: str) -> Int[np.ndarray, "b k"]:
    return decide(scores, task).reshape(len(scores), -1)


def accuracy(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the share of right decisions (see `decide`), for multi-label the mean over labels.

    Raises MetricError as `check_inputs` does.
    Source: Yang et al. 2023, MedMNIST v2; `medmnist.evaluator.getACC` 3.0.2.
    """
    truth, checked = check_inputs(labels, scores, task)
    return float(np.mean(truth == _decided(checked, task)))


def _outcomes(labels: ArrayLike, scores: ArrayLike, task: str) -> Int[np.ndarray, "c 2 2"]:
    """Return how often each question had each truth and decision, indexed `[question, truth, decision]`."""
    truth, checked = check_inputs(labels, scores, task)
    classes = checked.shape[1]
    actual = one_vs_rest(truth, task, classes=classes)
    said = one_vs_rest(_decided(checked, task), task, classes=classes)
    both, yes, says = (actual & said).sum(axis=0), actual.sum(axis=0), said.sum(axis=0)
    neither = len(truth) - yes - says + both
    return np.stack([neither, says - both, yes - both, both], axis=1).reshape(classes, 2, 2)


def _ratios(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Return part / whole, with nan where both are zero."""
    empty = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=empty, where=np.asarray(whole) > 0)


def _mean_defined(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else 0.0


def rates_by_class(
    labels: ArrayLike, scores: ArrayLike, task: str
) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Return sensitivity and specificity of each class against the rest, or of each label; nan where there is none.

    Of a binary task, those of class 1: class 0 has the same the other way round. Raises MetricError as `check_inputs`.
    """
    outcomes = _outcomes(labels, scores, task)
    counts = outcomes.sum(axis=2)
    return _ratios(outcomes[:, 1, 1], counts[:, 1]), _ratios(outcomes[:, 0, 0], counts[:, 0])


def sensitivity(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the share of positives that were found (recall).

    Binary: of class 1. Multi-class and ordinal: the mean of each class against the rest. Multi-label: the mean over
    labels. Classes that no image has are left out; 0.0 if none is left. Raises MetricError as `check_inputs` does.
    """
    return _mean_defined(rates_by_class(labels, scores, task)[0])


def specificity(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the share of negatives that were recognised as such.

    Binary: of class 0. Multi-class and ordinal: the mean of each class against the rest, over the classes
    that some image has, the same as in `sensitivity`. Multi-label: the mean over labels. A class that every
    image has is left out; 0.0 if none is left. Raises MetricError as `check_inputs` does.
    """
    recalls, rates = rates_by_class(labels, scores, task)
    return _mean_defined(rates if asks_per_label(task) else rates[~np.isnan(recalls)])


def balanced_accuracy(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the mean recall over classes, for multi-label the mean over labels of the recalls of 0 and 1.

    Classes that no image has are left out. Raises MetricError as `check_inputs` does.
    """
    if not asks_per_label(task):
        return sensitivity(labels, scores, task)
    outcomes = _outcomes(labels, scores, task)
    recalls = _ratios(np.diagonal(outcomes, axis1=1, axis2=2), outcomes.sum(axis=2))
    return float(np.nanmean(recalls, axis=1).mean())


def f1(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).

    Binary: of class 1. Otherwise the unweighted mean over classes or labels. As in scikit-learn, a class that
    no image has counts as 0 if it was predicted, and is left out if it was not; 0.0 if none is left. Raises
    MetricError as `check_inputs` does.
    """
    outcomes = _outcomes(labels, scores, task)
    twice = 2 * outcomes[:, 1, 1]
    return _mean_defined(_ratios(twice, twice + outcomes[:, 0, 1] + outcomes[:, 1, 0]))


def cohen_kappa(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the agreement of decisions and labels beyond chance, at most 1.

    Ordinal: with quadratic weights (i - j)², over all C classes whether or not they occur. Otherwise unweighted;
    multi-label: the mean over labels. Where all labels and decisions are the same constant, kappa is 0/0: such a label
    is left out, and the value is 0.0 if none is left. Raises MetricError as `check_inputs` does.
    Source: Cohen 1960 and 1968.
    """
    if asks_per_label(task):
        confusion = _outcomes(labels, scores, task)
    else:
        truth, checked = check_inputs(labels, scores, task)
        classes = checked.shape[1]
        cells = (truth * classes + _decided(checked, task)).ravel()
        confusion = np.bincount(cells, minlength=classes**2).reshape(1, classes, classes)
    rank = np.arange(confusion.shape[1])
    apart = np.abs(rank[:, np.newaxis] - rank)
    weights = apart**2 if task == "ordinal" else (apart > 0).astype(np.int64)
    total = confusion.sum(axis=(1, 2))
    chance = confusion.sum(axis=2)[:, :, np.newaxis] * confusion.sum(axis=1)[:, np.newaxis, :]
    observed = (confusion * weights).sum(axis=(1, 2)) * total
    return _mean_defined(1 - _ratios(observed, (chance * weights).sum(axis=(1, 2))))


def expected_calibration_error(labels: ArrayLike, scores: ArrayLike, task: str, *, bins: int = 15) -> float:
    """Return how far the confidence in decisions is from their accuracy, averaged over images.

    Confidence is the score of the decision taken: the largest of a row, for binary the larger of P(class 1)
    and 1 - P(class 1). Images fall into `bins` intervals of equal width, closed above. Multi-label: the mean
    over labels of each label's binary value. Raises MetricError as `check_inputs` does, and for fewer than
    one bin.
    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3.
    """
    if bins < 1:
        raise MetricError(f"The calibration error needs at least 1 bin, but {bins} were asked for.")
    truth, checked = check_inputs(labels, scores, task)
    right = truth == _decided(checked, task)
    per_label = asks_per_label(task)
    confidence = np.maximum(checked, 1 - checked) if per_label else checked.max(axis=1, keepdims=True)
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    place = np.searchsorted(inner_edges, confidence, side="left") + bins * np.arange(confidence.shape[1])
    gap = np.bincount(place.ravel(), weights=(right - confidence).ravel())
    return float(np.abs(gap).sum() / right.size)


def log_loss(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the mean of -ln P(the true label), in nats.

    Multi-label: the mean over labels too. Probabilities are kept 1e-15 away from 0. Raises MetricError as
    `check_inputs` does.
    """
    truth, checked = check_inputs(labels, scores, task)
    if asks_per_label(task):
        of_truth = np.where(truth == 1, checked, 1 - checked)
    else:
        of_truth = np.take_along_axis(checked, truth, axis=1)
    return float(-np.log(np.maximum(of_truth, 1e-15)).mean())


def evaluate(labels: ArrayLike, scores: ArrayLike, task: str) -> dict[str, float]:
    """Return all measures by name: auc, acc, balanced_acc, f1, kappa, sensitivity, specificity, ece and log_loss.

    Labels and scores are as in `check_inputs`; where a row holds all classes (all tasks but multi-label), it must also
    sum to 1 within 1e-3, or 2⁻⁷ if bfloat16 can represent all scores. Raises MetricError for inputs that do not fit,
    and where `auc` does; warns AbsentClassWarning as `auc` does.
    """
    _, checked = check_inputs(labels, scores, task)
    check_sums(scores, task)
    return {
        "auc": auc(labels, checked, task),
        "acc": accuracy(labels, checked, task),
        "balanced_acc": balanced_accuracy(labels, checked, task),
        "f1": f1(labels, checked, task),
        "kappa": cohen_kappa(labels, checked, task),
        "sensitivity": sensitivity(labels, checked, task),
        "specificity": specificity(labels, checked, task),
        "ece": expected_calibration_error(labels, checked, task),
        "log_loss": log_loss(labels, checked, task),
    }
