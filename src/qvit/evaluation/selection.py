"""What it costs to choose the best of many by the scores that are then reported, and what new images will give.

Candidates are judged on folds, in rungs: all of them on the first folds, the better ones on more (successive halving).
The best of many looks better than it is, as chance chose as well. So the whole choice is done again on resamples of the
images, and who is chosen there is judged on the images that the resample lacks (BBC-CV): nothing is trained again.

    scores (candidate × fold) → resamples of images → halving again on those drawn → the chosen one on those left out

Labels of all images are `(N, 1)`, or `(N, K)` of several labels; `rows[j]` are the places of the images of fold j among
them, `scores[i][j]` what candidate i says of these, None if it was not judged on them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray

from qvit.errors import MetricError
from qvit.evaluation.influence import image_covariance
from qvit.evaluation.inputs import check_inputs
from qvit.evaluation.sampled import METRICS
from qvit.evaluation.statistics import deviation, draw_counts

RESAMPLES = 500
Rows = Sequence[NDArray[np.int64]]  # places of the images of each fold
OfFolds = Sequence[NDArray[Any] | None]  # probabilities (n, c) of each fold


@dataclass(frozen=True)
class Rung:
    """How many candidates are judged on how many folds, counted from the first."""

    folds: int
    entrants: int


@dataclass(frozen=True)
class Corrected:
    """What the choice is worth on images that it was not made by.

    `value` is the AUC expected of the chosen one, `gain` its lead over the first candidate. `chosen` is the share of
    resamples in which each candidate was chosen.
    """

    value: float
    gain: float
    chosen: tuple[float, ...]


def survivors(scores: Float[np.ndarray, "i r"], going: Bool[np.ndarray, "i r"], number: int) -> Bool[np.ndarray, "i r"]:
    """Return who of those `going` goes on: the `number` with the best scores, and always the first candidate.

    Columns are resamples. Of equal scores that of the earlier candidate counts as better; nan is worse than any number.
    """
    told = np.where(going, np.where(np.isnan(scores), -1.0, scores), -np.inf)  # no AUC is below 0
    told[0] = np.inf
    place = np.argsort(np.argsort(-told, axis=0, kind="stable"), axis=0, kind="stable")
    kept: Bool[np.ndarray, "i r"] = going & (place < max(1, number))
    return kept


def mean_of(values: Float[np.ndarray, "i j r"]) -> Float[np.ndarray, "i r"]:
    """Return means over folds, of those that are not nan; nan where all are."""
    known = ~np.isnan(values)
    number = known.sum(axis=1)
    empty = np.full(number.shape, np.nan)
    return np.divide(np.where(known, values, 0.0).sum(axis=1), number, out=empty, where=number > 0)


def halved(scores: Float[np.ndarray, "i j r"], rungs: Sequence[Rung], *, first: bool = True) -> Int[np.ndarray, " r"]:
    """Return which candidate successive halving chooses in each resample, from the scores of each on each fold.

    A candidate without a score on a fold, as it was dropped before, is judged by the folds that it has. The first one
    is on all rungs, and may be chosen unless `first` is false.
    """
    going = np.ones((scores.shape[0], scores.shape[2]), bool)
    for last, rung in pairwise(rungs):
        going = survivors(mean_of(scores[:, : last.folds]), going, rung.entrants)
    final = mean_of(scores[:, : rungs[-1].folds])
    going[0] &= first
    return np.argmax(np.where(going & ~np.isnan(final), final, -np.inf), axis=0)


def bias_corrected(
    labels: Int[np.ndarray, "n k"],
    task: str,
    rows: Rows,
    scores: Sequence[OfFolds],
    rungs: Sequence[Rung],
    *,
    first: bool = True,
    groups: Shaped[np.ndarray, " n"] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Corrected:
    """Return the AUC that the chosen candidate will have on new images, free of what chance adds to the best of many.

    Each resample draws images with replacement, or whole `groups`, and repeats the halving by the AUC of the images
    drawn, fold by fold; who wins is judged by the images that were not drawn, on the folds of the first rung. On these
    all candidates were judged. On later folds only those were that did well on all images, those not drawn among them:
    who was dropped and would have been kept by a resample did badly on the others, so that the few folds that it has
    would make the value too low (by 0.02 in a simulation), and later folds of the others make it too high. The first
    rung should hold out every image once. `first` is as in `halved`.

    Raises MetricError for no candidates, and if no resample leaves images of two classes out.
    Source: Tsamardinos et al. 2018, Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation, algorithms 4 and 6 (with repetitions: scores are averaged, not predictions).
    """
    if not scores or not rungs:
        raise MetricError("There are no candidates to choose from: expected at least one, judged on at least one fold.")
    inside, outside = _resampled(labels, task, rows, scores, groups, resamples, seed)
    winner = halved(inside, rungs, first=first)
    left = mean_of(outside[:, : rungs[0].folds])
    told, others = left[winner, np.arange(left.shape[1])], left[0]
    known = ~np.isnan(told)
    if not known.any():
        raise MetricError(
            f"None of {resamples} resamples leaves out images with and without a class, so what the choice is worth "
            "cannot be told. Take more images, or more folds."
        )
    both = known & ~np.isnan(others)
    gain = float((told[both] - others[both]).mean()) if both.any() else 0.0
    shares = np.bincount(winner, minlength=len(scores)) / len(winner)
    return Corrected(float(told[known].mean()), gain, tuple(shares.tolist()))


def _resampled(
    labels: Int[np.ndarray, "n k"],
    task: str,
    rows: Rows,
    scores: Sequence[OfFolds],
    groups: Shaped[np.ndarray, " n"] | None,
    resamples: int,
    seed: int,
) -> tuple[Float[np.ndarray, "i j r"], Float[np.ndarray, "i j r"]]:
    """Return each candidate's AUC on each fold, of the images drawn and of those left out; nan where there is none."""
    of_counts = {}
    for i, of_folds in enumerate(scores):
        for j, told in enumerate(of_folds):
            if told is not None:
                truth, checked = check_inputs(labels[rows[j]], told, task)
                of_counts[i, j] = METRICS["auc"].resampled(truth, checked, task)
    shape = len(scores), len(rows), resamples
    inside, outside = np.full(shape, np.nan), np.full(shape, np.nan)
    owner = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    start = 0
    for drawn in draw_counts(int(owner.max()) + 1, resamples=resamples, seed=seed):
        counts = drawn[:, owner]
        here = slice(start, start + len(counts))
        for (i, j), values_of in of_counts.items():
            of_fold = counts[:, rows[j]]
            inside[i, j, here] = values_of(of_fold)
            outside[i, j, here] = values_of((of_fold == 0).astype(np.int64))
        start += len(counts)
    return inside, outside


def folds_error(values: Sequence[float], folds: int) -> float | None:
    """Return the standard error of the mean of one value per fold, as in `folds_interval`; None for a single value."""
    spread = deviation(values)
    return None if spread is None else spread * math.sqrt(1 / len(values) + 1 / (folds - 1))


@dataclass(frozen=True)
class Errors:
    """Standard deviations of a candidate's mean AUC over folds: from its expected AUC, and from a test AUC."""

    expected: float
    reading: float


def errors_of(
    labels: Int[np.ndarray, "n k"],
    task: str,
    rows: Rows,
    scores: OfFolds,
    *,
    images: int,
    seeds: int = 1,
    folds: int = 1,
    groups: Shaped[np.ndarray, " n"] | None = None,
) -> Errors:
    """Return how far a candidate's mean AUC over folds is from its AUC on all images like these, and on some of them.

    From the expected one it differs by the variance over random images, and by that over trainings. One reading of
    `images` test images by `seeds` models adds the variances of these: the images are taken to be like those of the
    folds, with the same share of each class. Variances over images are those of their influences, summed by `groups`;
    those over trainings come from the spread over repetitions of `folds` folds each, if there are several.
    """
    shared, own = np.zeros(len(labels)), []
    known = [(j, told) for j, told in enumerate(scores) if told is not None]
    owner = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    strata = labels[:, 0] if groups is None and labels.shape[1] == 1 else np.zeros(len(labels), np.int64)
    values = []
    for j, told in known:
        place = rows[j]
        truth, checked = check_inputs(labels[place], told, task)
        value, influence = METRICS["auc"].influence(truth, checked, task)
        values.append(value)
        shared[place] += influence / len(known)
        own.append(_spread(influence, owner[place], strata[place], groups is not None) * len(place) / images)
    repeated = [float(np.mean(values[start : start + folds])) for start in range(0, len(values), folds)]
    trained = (deviation(repeated) or 0.0) ** 2 if len(values) == folds * len(repeated) else 0.0
    expected = _spread(shared, owner, strata, groups is not None) + trained / len(repeated)
    return Errors(math.sqrt(expected), math.sqrt(expected + float(np.mean(own)) + folds * trained / seeds))


def _spread(
    influence: Float[np.ndarray, " b"], owner: Int[np.ndarray, " b"], strata: Int[np.ndarray, " b"], grouped: bool
) -> float:
    """Return the variance of a sum of influences over random images, or random groups of them."""
    if grouped:
        influence = np.bincount(np.unique(owner, return_inverse=True)[1], influence)
        strata = np.zeros(len(influence), np.int64)
    return float(image_covariance(influence[np.newaxis], strata)[0, 0])


def front(parameters: Sequence[int], scores: Sequence[float]) -> list[int]:
    """Return the places of those that nobody with as few parameters beats, from the smallest to the largest."""
    best, found = -math.inf, []
    for place in sorted(range(len(scores)), key=lambda k: (parameters[k], -scores[k], k)):
        if scores[place] > best:
            best = scores[place]
            found.append(place)
    return found
