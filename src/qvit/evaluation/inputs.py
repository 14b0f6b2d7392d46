"""Checks of the labels and scores that every measure takes.

Internally, every task is a set of yes-or-no questions. Binary is multi-label with one label; multi-class and ordinal
tasks ask one question per class. Validated arrays are therefore always two-dimensional.
"""

from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from qvit.data.registry import Task
from qvit.errors import MetricError, nearest

RANGE_TOLERANCE = 1e-6
SUM_TOLERANCE = 1e-3  # of probabilities in float16 and wider
BFLOAT16_TOLERANCE = 2**-7  # twice the rounding error of a sum of bfloat16 numbers, 2⁻⁸
NEAR = 0.1  # a row whose sum is off by less than this was meant to be probabilities


def asks_per_label(task: str) -> bool:
    """Return whether each column of scores is a question of its own, answered at 0.5, rather than by argmax.

    Raises MetricError for a task that does not exist.
    """
    if task not in get_args(Task):
        valid = ", ".join(f"'{name}'" for name in get_args(Task))
        raise MetricError(f"Unknown task {task!r}; expected one of {valid}.{nearest(str(task), get_args(Task))}")
    return task in ("binary", "multi-label")


def check_scores(scores: ArrayLike, task: str) -> Float[np.ndarray, "b c"]:
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
    checked = check_scores(scores, task)
    truth = _check_labels(labels, task, classes=checked.shape[1])
    if len(truth) != len(checked):
        raise MetricError(
            f"Labels and scores must be of the same images, but came for {len(truth)} and {len(checked)}."
        )
    return truth, checked


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
