"""Confidence intervals: over test images (bootstrap), over seeds (Student's t), and over both at once.

A bootstrap resample is a row of counts of how often each image was drawn. Accuracy is then a weighted mean, and AUC a
weighted rank statistic: scores are sorted once, and each resample costs one cumulative sum per class. Resamples run in
blocks, so that memory does not grow with their number.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from qvit.errors import MetricError, nearest
from qvit.evaluation.metrics import (
    AbsentClassWarning,
    accuracy,
    as_array,
    asks_per_label,
    auc,
    check_inputs,
    decide,
    one_vs_rest,
)

BLOCK_ELEMENTS = 2**18  # images × resamples at a time: 2 MB per array, which stays in cache
METRICS = ("auc", "acc")
FEWEST_OF_A_CLASS = 10  # the fewest images with a class, and without it, that show how its AUC varies
FEWEST_IN_ALL = 30  # the fewest images that show how accuracy varies


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval, both None if there is too little data; `why` may say why."""

    value: float
    low: float | None
    high: float | None
    level: float
    why: str = ""


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


def too_few_images(truth: Int[np.ndarray, "b k"], task: str, metric: str, *, classes: int) -> str:
    """Return why there are too few images to tell how a metric varies over random images; empty if there are enough.

    Labels are as `check_inputs` returns them. With fewer than `FEWEST_OF_A_CLASS` images with a class, or without it,
    tests and intervals of AUC are wrong several times as often as they say (`benchmarks/few_images.py`); accuracy needs
    `FEWEST_IN_ALL` images. A class that no image has, or all have, is left out of the AUC anyway.
    """
    images = len(truth)
    if metric == "acc":
        return f"there are {images} images, fewer than {FEWEST_IN_ALL}" if images < FEWEST_IN_ALL else ""
    of_class = one_vs_rest(truth, task, classes=classes).sum(axis=0)
    asked = "label" if task == "multi-label" else "class"
    for place, count in enumerate(of_class.tolist()):
        name = 1 if task == "binary" else place
        if 0 < count < FEWEST_OF_A_CLASS and count < images:
            return f"{asked} {name} has {count} images, fewer than {FEWEST_OF_A_CLASS}"
        if 0 < images - count < FEWEST_OF_A_CLASS and count:
            return f"{images - count} images are without {asked} {name}, fewer than {FEWEST_OF_A_CLASS}"
    return ""


def check_images(truth: Int[np.ndarray, "b k"], task: str, metric: str, *, classes: int) -> None:
    """Raise MetricError, with the reason, if `too_few_images` gives one."""
    why = too_few_images(truth, task, metric, classes=classes)
    if why:
        instead = "compare accuracies, or train" if metric == "auc" else "train"
        raise MetricError(
            f"A comparison of {metric.upper()} over random images cannot tell how much chance is in them: {why}. "
            f"Add test images, {instead} several seeds and use seeds_test, which holds for these images only."
        )


def check_level(level: float) -> None:
    """Raise MetricError unless a confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise MetricError(f"A confidence level must lie between 0 and 1, such as 0.95, but came as {level}.")


def check_metric(name: str, done: str) -> None:
    """Raise MetricError for a metric other than "auc" and "acc"; the message says `done`, as "bootstrapped"."""
    if name not in METRICS:
        raise MetricError(f"Only 'auc' and 'acc' can be {done}, but '{name}' was asked for.{nearest(name, METRICS)}")


def check_values(values: Sequence[float]) -> None:
    """Raise MetricError for no values, and for values that are not finite."""
    if len(values) == 0:
        raise MetricError("There are no values to take the mean of.")
    if not all(math.isfinite(value) for value in values):
        raise MetricError(f"Values must be finite, but came as {list(values)}. Leave failed runs out.")


def check_seeds(
    labels: ArrayLike, scores: ArrayLike, task: str
) -> tuple[Int[np.ndarray, "b k"], Float[np.ndarray, "s b c"]]:
    """Validate labels, and the scores of several seeds for the same images; return them as `check_inputs` does.

    Scores are `(S, N, C)`, one `(N, C)` per seed, for binary also `(S, N)`. Raises MetricError for other shapes, for no
    seed, and as `check_inputs` does, naming the seed.
    """
    asks_per_label(task)  # raises here, so that an unknown task is not blamed on a seed
    try:
        array = as_array(scores)
    except MetricError as error:
        if not isinstance(error.__cause__, ValueError):
            raise
        raise MetricError("All seeds must score the same images and classes, but their shapes differ.") from error
    shape = array.shape
    if task == "binary" and array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or len(array) == 0:
        wanted = "(S, N) or (S, N, C)" if task == "binary" else "(S, N, C)"
        raise MetricError(
            f"Scores of the seeds of {task} tasks must have the shape {wanted} with S of at least 1, "
            f"but came as {shape}."
        )
    checked = []
    for seed, each in enumerate(array):
        try:
            truth, of_seed = check_inputs(labels, each, task)
        except MetricError as error:
            raise MetricError(f"The scores of seed {seed} (counted from 0) do not fit. {error}") from error
        checked.append(of_seed)
    return truth, np.stack(checked)


def resampled_metrics(
    labels: ArrayLike, scores: ArrayLike, task: str, *, metrics: Sequence[str], resamples: int, seed: int
) -> dict[str, Float[np.ndarray, " r"]]:
    """Return the metrics "auc" and "acc" of each bootstrap resample, each `(resamples,)`.

    A class that a resample lacks is left out of its mean; where no class is left, its AUC is nan. Raises
    MetricError as `check_inputs` does, for other metrics, and for fewer than one resample.
    """
    for name in metrics:
        check_metric(name, "bootstrapped")
    _check_resamples(resamples)
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


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise MetricError(f"The bootstrap needs at least 1 resample, but {resamples} were asked for.")


def _percentiles(values: Float[np.ndarray, " r"], level: float) -> tuple[float, float]:
    """Return the ends of the middle `level` of all resamples that have a value."""
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        raise MetricError(
            f"None of {len(values)} resamples held images with and without a class, "
            "so AUC has no interval. Take more resamples or more images."
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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

    Labels and scores are as in `check_inputs`. The value is that of all images, as `auc` and `accuracy` return it (with
    their warning and errors); resamples without any AUC are left out of its interval. The same seed gives the same
    interval. Memory is bounded by a few arrays of 2**18 elements or of one resample, whichever is more.

    If there are too few images (see `too_few_images`), the interval has no ends and says why.

    Also raises MetricError for a metric other than "auc" and "acc", a level outside (0, 1), fewer than one resample,
    and if no resample has an AUC.
    Source: Efron 1979; Efron and Tibshirani 1993, section 13.3.
    """
    check_level(level)
    truth, checked = check_inputs(labels, scores, task)
    reasons = {name: too_few_images(truth, task, name, classes=checked.shape[1]) for name in metrics}
    samples = resampled_metrics(labels, scores, task, metrics=metrics, resamples=resamples, seed=seed)
    intervals = {}
    for name, values in samples.items():
        value = auc(labels, scores, task) if name == "auc" else accuracy(labels, scores, task)
        if reasons[name]:
            intervals[name] = Interval(value, None, None, level, reasons[name])
            continue
        low, high = _percentiles(values, level)
        intervals[name] = Interval(value, low, high, level)
    return intervals


def _seed_values(
    truth: Int[np.ndarray, "b k"], scores: Float[np.ndarray, "s b c"], task: str, metric: str
) -> list[float]:
    """Return the metric of each seed, and warn of absent classes once: all seeds lack the same."""
    measure = auc if metric == "auc" else accuracy
    first = measure(truth, scores[0], task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsentClassWarning)
        return [first, *(measure(truth, each, task) for each in scores[1:])]


def _expansion(seeds: int, level: float) -> float:
    """Return the factor that makes the bootstrap's spread of a mean over few seeds as wide as Student's t."""
    if seeds == 1:
        return 0.0
    from scipy.special import ndtri, stdtrit  # heavy, as below

    end = (1 + level) / 2
    return math.sqrt(seeds / (seeds - 1)) * float(stdtrit(seeds - 1, end)) / float(ndtri(end))


def _shared(samples: Float[np.ndarray, "s r"]) -> float:
    """Return the spread over resamples that all seeds share, as a fraction of the spread of the seeds' mean."""
    seeds, resamples = samples.shape
    if seeds == 1 or resamples < 2:
        return 1.0
    covariance = np.cov(samples)
    total = float(covariance.sum())
    between = (total - float(covariance.trace())) * seeds / (seeds - 1)
    return math.sqrt(min(1.0, max(0.0, between / total))) if total > 0 else 1.0


def crossed_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    task: str,
    *,
    metric: str = "auc",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean of a metric over seeds, with a bootstrap interval over both seeds and test images.

    Labels are as in `check_inputs`, scores of S seeds as in `check_seeds`. A resample draws images, the same for all
    seeds, and independently seeds. Two deviations are corrected. A bootstrap over few seeds spreads too little, by
    (S - 1)/S in variance and since it lacks Student's t: the deviation of the drawn seeds' mean is multiplied by
    sqrt(S/(S - 1)) t/z. The effect of images on single seeds is already part of the spread over seeds: the deviation
    due to resampled images is reduced to the part that all seeds share. The variances are then those of
    `paired.contrast`. One seed says nothing about the spread over seeds: its interval is that of `bootstrap_interval`,
    over images alone. If there are too few images (see `too_few_images`), the interval has no ends and says why.

    Raises MetricError as `check_seeds` and `bootstrap_interval` do; warns AbsentClassWarning as `auc` does, once.
    Sources: Hesterberg 2015, What Teachers Should Know About the Bootstrap (the expanded percentile interval), for the
    seeds; Obuchowski and Rockette 1995 for the variance; Owen 2007, The Pigeonhole Bootstrap, for why drawing both
    seeds and images is not enough: it counts the images' own part three times.
    """
    check_level(level)
    check_metric(metric, "bootstrapped")
    _check_resamples(resamples)
    truth, checked = check_seeds(labels, scores, task)
    seeds = len(checked)
    values = np.array(_seed_values(truth, checked, task, metric))
    value = math.fsum(values) / seeds
    why = too_few_images(truth, task, metric, classes=checked.shape[2])
    if why:
        return Interval(value, None, None, level, why)
    # One seed of the generator draws the same images for all seeds of training.
    options: dict[str, Any] = {"metrics": (metric,), "resamples": resamples, "seed": seed}
    samples = np.stack([resampled_metrics(truth, each, task, **options)[metric] for each in checked])
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))  # not the images' stream
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    over_seeds = _expansion(seeds, level) * (drawn @ values / seeds - value)
    over_images = _shared(samples[:, ~np.isnan(samples[0])]) * (samples.mean(axis=0) - value)
    low, high = _percentiles(value + over_seeds + over_images, level)
    return Interval(value, max(low, 0.0), min(high, 1.0), level)  # a stretched interval may leave [0, 1]


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation of one value per seed, with S - 1 in the denominator; None for one value.

    Raises MetricError for no values, and values that are not finite.
    """
    check_values(values)
    if len(values) == 1:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the mean of one value per seed, with its Student-t confidence interval.

    A single value says nothing about the spread, so its interval has `low` and `high` None. Raises MetricError for no
    values, values that are not finite, and a level outside (0, 1).
    Source: Student 1908.
    """
    check_level(level)
    spread = deviation(values)
    count = len(values)
    mean = math.fsum(values) / count
    if spread is None:
        return Interval(mean, None, None, level)
    from scipy.special import stdtrit  # heavy, and needed by few

    half = float(stdtrit(count - 1, (1 + level) / 2)) * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, level)
