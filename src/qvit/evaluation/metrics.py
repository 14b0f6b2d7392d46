"""MedMNIST's AUC and accuracy, and seven more measures of the same labels and scores.

Internally, every task is a set of yes-or-no questions. Binary is multi-label with one label; multi-class and ordinal
tasks ask one question per class. Validated arrays are therefore always two-dimensional, and one rule holds for all
measures: a ratio 0/0 is left out of a mean, and if nothing is left the value is 0.0. Only AUC raises an error instead,
since it has no worst value to return.
"""

import warnings
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from qvit.data.registry import Task
from qvit.errors import MetricError, nearest

THRESHOLD = 0.5
RANGE_TOLERANCE = 1e-6
SUM_TOLERANCE = 1e-3  # of probabilities in float16 and wider
BFLOAT16_TOLERANCE = 2**-7  # twice the rounding error of a sum of bfloat16 numbers, 2⁻⁸
NEAR = 0.1  # a row whose sum is off by less than this was meant to be probabilities


class AbsentClassWarning(UserWarning):
    """Some classes have no AUC, since no image or every image has them; the mean is over the others."""


def asks_per_label(task: str) -> bool:
    """Return whether each column of scores is a question of its own, answered at 0.5, rather than by argmax.

    Raises MetricError for a task that does not exist.
    """
    if task not in get_args(Task):
        valid = ", ".join(f"'{name}'" for name in get_args(Task))
        raise MetricError(f"Unknown task {task!r}; expected one of {valid}.{nearest(str(task), get_args(Task))}")
    return task in ("binary", "multi-label")


def _check_scores(scores: ArrayLike, task: str) -> Float[np.ndarray, "b c"]:
    """Return finite probabilities in two dimensions, as float64; for binary the one column of P(class 1)."""
    array = as_array(scores)
    binary, per_label = task == "binary", asks_per_label(task)
    if array.dtype.kind not in "fiub":
        raise MetricError(f"Scores must be real numbers, but their type is {array.dtype}.")
    if binary and array.ndim == 1:
        array = array[:, np.newaxis]
    wanted = {"binary": "(N,), (N, 1) or (N, 2)", "multi-label": "(N, K)"}.get(task, "(N, C) with C of at least 2")
    columns = array.shape[1] if array.ndim == 2 else 0
    if columns == 0 or (binary and columns > 2) or (not per_label and columns < 2):
        raise MetricError(f"Scores of {task} tasks must have the shape {wanted}, but came as {array.shape}.")
    if len(array) == 0:
        raise MetricError("There are no images to score: labels and scores are empty.")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise MetricError(f"Scores must be finite, but row {row} holds {array[row].tolist()}.")
    low, high = array.min(), array.max()
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise MetricError(
            f"Scores must lie within [0, 1], but range from {low:.6g} to {high:.6g}: "
            f"scores are probabilities, never logits. Apply a {'sigmoid' if per_label else 'softmax'} first."
        )
    return array[:, -1:] if binary else array


def as_array(scores: ArrayLike) -> NDArray[Any]:
    """Return scores as a NumPy array; raises MetricError for what NumPy cannot convert."""
    try:
        return np.asarray(scores)
    except (
        TypeError,
        RuntimeError,
        ValueError,
    ) as error:  # tensors of bfloat16, on a GPU or with gradients; ragged lists
        reason = " ".join(str(error).split()).rstrip(".")
        raise MetricError(
            f"Scores must be an array of numbers, but came as {type(scores).__name__}: {reason}. Of a tensor give "
            "tensor.detach().cpu().float().numpy()."
        ) from error


def _check_labels(labels: ArrayLike, task: str, *, classes: int) -> Int[np.ndarray, "b k"]:
    """Return labels in two dimensions: one column of class indices, or one column of 0/1 per label."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise MetricError(f"Labels must be integers, but their type is {array.dtype}.")
    if array.ndim == 1 and task != "multi-label":
        array = array[:, np.newaxis]
    columns = classes if task == "multi-label" else 1
    if array.ndim != 2 or array.shape[1] != columns:
        wanted = f"(N, {columns}), as the scores" if task == "multi-label" else "(N,) or (N, 1)"
        raise MetricError(f"Labels of {task} tasks must have the shape {wanted}, but came as {array.shape}.")
    top = 1 if asks_per_label(task) else classes - 1
    if array.size and (array.min() < 0 or array.max() > top):
        raise MetricError(
            f"Labels of this {task} task must lie within 0 to {top}, but range from {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def check_inputs(
    labels: ArrayLike, scores: ArrayLike, task: str
) -> tuple[Int[np.ndarray, "b k"], Float[np.ndarray, "b c"]]:
    """Validate labels and scores and return both in two dimensions.

    Labels come as integers `(N,)` or `(N, 1)`, for multi-label as 0/1 `(N, K)`. Scores are probabilities:
    `(N, C)`, for binary `(N, 2)`, `(N, 1)` or `(N,)` whose last column is P(class 1), for multi-label `(N,
    K)`. Returned are labels `(N, 1)` or `(N, K)` as int64 and scores `(N, 1)`, `(N, C)` or `(N, K)` as
    float64. Nothing is squeezed, so a single image or a single label keeps its axes.

    Raises MetricError for an unknown task, wrong shapes or types, no images, scores that are not finite or
    not within [0, 1] (to 1e-6), and labels out of range.
    """
    checked = _check_scores(scores, task)
    truth = _check_labels(labels, task, classes=checked.shape[1])
    if len(truth) != len(checked):
        raise MetricError(
            f"Labels and scores must be of the same images, but came for {len(truth)} and {len(checked)}."
        )
    return truth, checked


def decide(scores: ArrayLike, task: str) -> NDArray[np.int64]:
    """Return the decisions that MedMNIST derives from scores.

    Binary: 0/1 `(N,)`, 1 where P(class 1) > 0.5. Multi-label: 0/1 `(N, K)`, likewise. Multi-class and
    ordinal: the index of the largest score `(N,)`, the first of them on a tie. Raises MetricError as
    `check_inputs` does.
    """
    checked = _check_scores(scores, task)
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


def sensitivity(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the share of positives that were found (recall).

    Binary: of class 1. Multi-class and ordinal: the mean of each class against the rest. Multi-label: the mean over
    labels. Classes that no image has are left out; 0.0 if none is left. Raises MetricError as `check_inputs` does.
    """
    outcomes = _outcomes(labels, scores, task)
    return _mean_defined(_ratios(outcomes[:, 1, 1], outcomes[:, 1].sum(axis=1)))


def specificity(labels: ArrayLike, scores: ArrayLike, task: str) -> float:
    """Return the share of negatives that were recognised as such.

    Binary: of class 0. Multi-class and ordinal: the mean of each class against the rest, over the classes
    that some image has, the same as in `sensitivity`. Multi-label: the mean over labels. A class that every
    image has is left out; 0.0 if none is left. Raises MetricError as `check_inputs` does.
    """
    outcomes = _outcomes(labels, scores, task)
    rates = _ratios(outcomes[:, 0, 0], outcomes[:, 0].sum(axis=1))
    return _mean_defined(rates if asks_per_label(task) else rates[outcomes[:, 1].sum(axis=1) > 0])


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


def check_sums(scores: ArrayLike, task: str, *, row_of: str = "row") -> None:
    """Raise MetricError if rows that hold all classes do not sum to 1, within the rounding error of the scores' type.

    Rounding to bfloat16 moves a sum by up to 2⁻⁸, so it may be off by 2⁻⁷ where all scores are numbers of that type.
    """
    array = as_array(scores)
    if array.ndim != 2 or array.shape[1] < 2 or task == "multi-label":
        return
    sums = array.astype(np.float64).sum(axis=1)
    off = np.abs(sums - 1)
    worst = int(off.argmax())
    if off[worst] <= SUM_TOLERANCE or (off[worst] <= BFLOAT16_TOLERANCE and _are_bfloat16(array)):
        return
    told = (
        "they have been rounded too much, or lack a class. Divide each row by its sum."
        if off[worst] < NEAR
        else "scores are probabilities, never logits. Apply a softmax first."
    )
    raise MetricError(
        f"Score rows of {task} tasks must sum to 1, but {row_of} {worst} sums to {sums[worst]:.6g}: {told}"
    )


def _are_bfloat16(scores: NDArray[Any]) -> bool:
    """Return whether bfloat16 can represent all scores: NumPy lacks this type, so they come in a wider one."""
    single = scores.astype(np.float32)
    return bool((single == scores).all() and not (single.view(np.uint32) & 0xFFFF).any())


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
