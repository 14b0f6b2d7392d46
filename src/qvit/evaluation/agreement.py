"""How close a student is to its teacher: functions of two arrays of scores that return numbers."""

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from qvit.errors import MetricError
from qvit.evaluation.inputs import asks_per_label, check_inputs, check_sums
from qvit.evaluation.metrics import decide

SMALLEST = 1e-15  # probability, as in `metrics.log_loss`


def _check_one(scores: ArrayLike, task: str, whose: str) -> Float[np.ndarray, "b c"]:
    try:
        # There are no labels here; the decisions of the scores stand in for them, as they always fit.
        return check_inputs(decide(scores, task), scores, task)[1]
    except MetricError as error:
        raise MetricError(f"The {whose}'s scores are not fit to compare. {error}") from error


def _check_pair(
    student: ArrayLike, teacher: ArrayLike, task: str
) -> tuple[Float[np.ndarray, "b c"], Float[np.ndarray, "b c"]]:
    """Return the scores of student and teacher in two dimensions, as `check_inputs` does."""
    asks_per_label(task)  # raises here, so that an unknown task is not blamed on student or teacher
    ours, theirs = _check_one(student, task, "student"), _check_one(teacher, task, "teacher")
    if ours.shape != theirs.shape:
        raise MetricError(
            "Student and teacher must score the same images and classes, but their scores came as "
            f"{np.shape(student)} and {np.shape(teacher)}. Predict the same split with both."
        )
    return ours, theirs


def agreement(student: ArrayLike, teacher: ArrayLike, task: str) -> float:
    """Return the share of equal decisions (see `metrics.decide`) of student and teacher, over images and labels.

    Scores are as in `inputs.check_inputs`. Raises MetricError as that does, and for scores of different shapes.
    Source: Stanton et al. 2021, Does Knowledge Distillation Really Work?, average top-1 agreement (arXiv:2106.05945).
    """
    ours, theirs = _check_pair(student, teacher, task)
    return float(np.mean(decide(ours, task) == decide(theirs, task)))


def _distributions(scores: Float[np.ndarray, "b c"], task: str, whose: str) -> Float[np.ndarray, "b k a"]:
    """Return the probabilities of all answers to each question: one question per image, or one per label."""
    inside = np.clip(scores, 0.0, 1.0)  # rounding may have led outside
    if asks_per_label(task):
        return np.stack([1.0 - inside, inside], axis=2)
    check_sums(inside, task, row_of=f"the {whose}'s row")
    return (inside / inside.sum(axis=1, keepdims=True))[:, np.newaxis]


def divergence(student: ArrayLike, teacher: ArrayLike, task: str) -> float:
    """Return the mean of KL(teacher ‖ student) over images, in nats.

    For binary tasks the distributions are Bernoulli with P(class 1); for multi-label tasks there is one per label, and
    the mean is over labels too. Probabilities are kept 1e-15 away from 0, so the value is finite, and 0 where the
    scores are equal.

    Scores are as in `inputs.check_inputs`. Raises MetricError as that does, for scores of different shapes, and where
    rows of a multi-class or ordinal task do not sum to 1 within the tolerance of `inputs.check_sums`; within it, rows
    are divided by their sum.
    Source: Stanton et al. 2021, average predictive KL (arXiv:2106.05945).
    """
    ours, theirs = _check_pair(student, teacher, task)
    q, p = _distributions(ours, task, "student"), _distributions(theirs, task, "teacher")
    surprise = np.log(np.maximum(p, SMALLEST)) - np.log(np.maximum(q, SMALLEST))
    # KL is not negative, but a sum of rounded terms may be.
    return max(0.0, float((p * surprise).sum(axis=2).mean()))


def gap_closed(scratch: float, distilled: float, teacher: float) -> float | None:
    """Return (distilled − scratch)/(teacher − scratch), the share of the gap to its teacher that distilling closed.

    The three are values of one measure, larger being better. 1 means that the student equals the teacher; below 0
    distilling did harm, above 1 the student is better than its teacher. The result is None if the teacher is not better
    than training from scratch, since there is no gap to close. Raises MetricError for values that are not finite.
    """
    if not all(math.isfinite(value) for value in (scratch, distilled, teacher)):
        raise MetricError(
            f"A gap needs three finite values, but scratch, distilled and teacher came as {scratch}, {distilled} "
            f"and {teacher}. Leave out runs without a value."
        )
    return (distilled - scratch) / (teacher - scratch) if teacher > scratch else None
