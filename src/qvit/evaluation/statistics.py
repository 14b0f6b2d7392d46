"""How sure a number is: bootstrap intervals over test images, and Student-t intervals over seeds.

A bootstrap resample is a row of counts, how often each image was drawn. Accuracy is then a weighted mean, and
AUC a weighted rank statistic: scores are sorted once, and each resample costs one cumulative sum a class.
Resamples run in blocks, so that memory does not grow with their number.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from qvit.errors import MetricError, nearest
from qvit.evaluation.metrics import accuracy, auc, check_inputs, decide, one_vs_rest

BLOCK_ELEMENTS = 2**18  # images × resamples at a time: 2 MB an array, which stays in cache


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its confidence interval, None where a single value gives none."""

    value: float
    low: float | None
    high: float | None
    level: float


@dataclass(frozen=True)
class RankedClass:
    """The images of one class against the rest, sorted by score, as the weighted AUC needs them.

    `order` sorts all images by score, and `negative` is 1 where an image in that order lacks the class.
    `positives` are the images that have it; of the images in order, the first `below[i]` score less than
    positive `i`, and the first `upto[i]` score no more than it.
    """

    order: NDArray[np.int64]
    negative: NDArray[np.int64]
    positives: NDArray[np.int64]
    below: NDArray[np.int64]
    upto: NDArray[np.int64]


def rank_class(positive: Bool[np.ndarray, " b"], scores: Float[np.ndarray, " b"]) -> RankedClass:
    """Sort the images of one class against the rest, once for all resamples."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    positives = np.flatnonzero(positive)
    below = np.searchsorted(ordered, scores[positives], side="left")
    upto = np.searchsorted(ordered, scores[positives], side="right")
    return RankedClass(order, (~positive[order]).astype(np.int64), positives, below, upto)


def weighted_auc(ranked: RankedClass, counts: Int[np.ndarray, "r b"]) -> Float[np.ndarray, " r"]:
    """Return the AUC of one class in each resample, ties counting half, nan where one side is missing.

    `counts` says how often each resample holds each image. All sums are of integers, hence exact.
    """
    negatives = np.zeros((len(counts), counts.shape[1] + 1), dtype=np.int64)
    np.multiply(np.take(counts, ranked.order, axis=1), ranked.negative, out=negatives[:, 1:])
    np.cumsum(negatives, axis=1, out=negatives)
    weights = np.take(counts, ranked.positives, axis=1)
    beaten_twice = np.take(negatives, ranked.below, axis=1)
    beaten_twice += np.take(negatives, ranked.upto, axis=1)
    wins_twice = np.einsum("rb,rb->r", weights, beaten_twice)
    pairs_twice = 2 * weights.sum(axis=1) * negatives[:, -1]
    empty = np.full(len(counts), np.nan)
    return np.divide(wins_twice, pairs_twice, out=empty, where=pairs_twice > 0)


def draw_counts(images: int, *, resamples: int, seed: int) -> Iterator[Int[np.ndarray, "r b"]]:
    """Yield, block by block, how often each of `resamples` resamples with replacement holds each image."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // images)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(images, size=(rows, images))
        drawn += images * np.arange(rows)[:, np.newaxis]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)


def _mean_over_classes(per_class: Float[np.ndarray, "c r"]) -> Float[np.ndarray, " r"]:
    known = ~np.isnan(per_class)
    count = known.sum(axis=0)
    empty = np.full(per_class.shape[1], np.nan)
    return np.divide(np.where(known, per_class, 0.0).sum(axis=0), count, out=empty, where=count > 0)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise MetricError(f"A confidence level must lie between 0 and 1, such as 0.95, but came as {level}.")


def resampled_metrics(
    labels: ArrayLike, scores: ArrayLike, task: str, *, metrics: Sequence[str], resamples: int, seed: int
) -> dict[str, Float[np.ndarray, " r"]]:
    """Return the metrics "auc" and "acc" of each bootstrap resample, each `(resamples,)`.

    A class that a resample lacks is left out of its mean; where no class is left, its AUC is nan. Raises
    MetricError as `check_inputs` does, for other metrics, and for fewer than one resample.
    """
    for name in metrics:
        if name not in ("auc", "acc"):
            hint = nearest(name, ("auc", "acc"))
            raise MetricError(f"Only 'auc' and 'acc' can be bootstrapped, but '{name}' was asked for.{hint}")
    if resamples < 1:
        raise MetricError(f"The bootstrap needs at least 1 resample, but {resamples} were asked for.")
    truth, checked = check_inputs(labels, scores, task)
    images, classes = checked.shape
    right = np.mean(truth == decide(checked, task).reshape(images, -1), axis=1)
    ranked: list[RankedClass] = []
    if "auc" in metrics:
        positive = one_vs_rest(truth, task, classes=classes)
        ranked = [rank_class(positive[:, column], checked[:, column]) for column in range(classes)]
    blocks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in metrics}
    for counts in draw_counts(images, resamples=resamples, seed=seed):
        if "auc" in metrics:
            blocks["auc"].append(_mean_over_classes(np.stack([weighted_auc(each, counts) for each in ranked])))
        if "acc" in metrics:
            blocks["acc"].append(counts @ right / images)
    return {name: np.concatenate(values) for name, values in blocks.items()}


def bootstrap_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    task: str,
    *,
    metrics: Sequence[str] = ("auc", "acc"),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return AUC and accuracy with percentile bootstrap intervals over the images.

    Labels and scores as in `check_inputs`. The value is that of all images, as `auc` and `accuracy` give it
    (with their warning and errors); resamples without any AUC are left out of its interval. The same seed
    gives the same interval. Memory is bounded by a few arrays of 2**18 elements or of one resample, whichever
    is more.

    Raises MetricError also for a metric other than "auc" and "acc", a level outside (0, 1), fewer than one
    resample, and if no resample has an AUC.
    Source: Efron 1979; Efron and Tibshirani 1993, section 13.3.
    """
    _check_level(level)
    samples = resampled_metrics(labels, scores, task, metrics=metrics, resamples=resamples, seed=seed)
    intervals = {}
    for name, values in samples.items():
        value = auc(labels, scores, task) if name == "auc" else accuracy(labels, scores, task)
        defined = values[~np.isnan(values)]
        if defined.size == 0:
            raise MetricError(
                f"None of {resamples} resamples held images with and without a class, "
                "so AUC has no interval. Take more resamples or more images."
            )
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        intervals[name] = Interval(value, float(low), float(high), level)
    return intervals


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the mean of one value a seed, with its Student-t confidence interval.

    A single value says nothing of the spread, so its interval has `low` and `high` None. Raises MetricError
    for no values, values that are not finite, and a level outside (0, 1).
    Source: Student 1908.
    """
    _check_level(level)
    if len(values) == 0:
        raise MetricError("There are no values to take the mean of.")
    if not all(math.isfinite(value) for value in values):
        raise MetricError(f"Values must be finite, but came as {list(values)}. Leave failed runs out.")
    from scipy.special import stdtrit  # heavy, and needed by nothing else here

    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, None, None, level)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stdtrit(count - 1, (1 + level) / 2)) * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, level)
