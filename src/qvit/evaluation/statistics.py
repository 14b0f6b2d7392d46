"""Confidence intervals: over test images (bootstrap), over seeds (Student's t), over both at once, and over folds.

A bootstrap resample is a row of counts of how often each image was drawn; `evaluation.sampled` computes metrics from
them. Resamples run in blocks, so that memory does not grow with their number.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from qvit.errors import MetricError
from qvit.evaluation.inputs import as_array, asks_per_label, check_inputs
from qvit.evaluation.metrics import AbsentClassWarning
from qvit.evaluation.sampled import METRICS, check_metric, too_few_images

BLOCK_ELEMENTS = 2**18  # images × resamples at a time: 2 MB per array, which stays in cache


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval, both None if there is too little data; `why` may say why."""

    value: float
    low: float | None
    high: float | None
    level: float
    why: str = ""


def draw_counts(images: int, *, resamples: int, seed: int) -> Iterator[Int[np.ndarray, "r b"]]:
    """Yield, block by block, how often each of `resamples` resamples with replacement holds each image."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // images)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(images, size=(rows, images))
        drawn += images * np.arange(rows)[:, np.newaxis]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)


def check_level(level: float) -> None:
    """Raise MetricError unless a confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise MetricError(f"A confidence level must lie between 0 and 1, such as 0.95, but came as {level}.")


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
    """Return metrics, of `METRICS`, of each bootstrap resample, each `(resamples,)`.

    A class that a resample lacks is left out of its mean; where no class is left, its AUC is nan. Raises
    MetricError as `check_inputs` does, for other metrics, and for fewer than one resample.
    """
    for name in metrics:
        check_metric(name, "bootstrapped")
    _check_resamples(resamples)
    truth, checked = check_inputs(labels, scores, task)
    of_counts = {name: METRICS[name].resampled(truth, checked, task) for name in metrics}
    blocks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in metrics}
    for counts in draw_counts(len(truth), resamples=resamples, seed=seed):
        for name, values_of in of_counts.items():
            blocks[name].append(values_of(counts))
    return {name: np.concatenate(values) for name, values in blocks.items()}


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise MetricError(f"The bootstrap needs at least 1 resample, but {resamples} were asked for.")


def _percentiles(values: Float[np.ndarray, " r"], level: float, title: str) -> tuple[float, float]:
    """Return the ends of the middle `level` of all resamples that have a value."""
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        raise MetricError(
            f"None of {len(values)} resamples held images with and without a class, "
            f"so {title} has no interval. Take more resamples or more images."
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    task: str,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return AUC and accuracy, or other `METRICS`, with percentile bootstrap intervals over the images.

    Labels and scores are as in `check_inputs`. The value is that of all images, as the metric's function returns it
    (with its warning and errors); resamples without any AUC are left out of its interval. The same seed gives the same
    interval. Memory is bounded by a few arrays of 2**18 elements or of one resample, whichever is more.

    If there are too few images (see `too_few_images`), the interval has no ends and says why.

    Also raises MetricError for a metric that is not in `METRICS`, a level outside (0, 1), fewer than one resample, and
    if no resample has an AUC.
    Source: Efron 1979; Efron and Tibshirani 1993, section 13.3.
    """
    check_level(level)
    truth, checked = check_inputs(labels, scores, task)
    samples = resampled_metrics(labels, scores, task, metrics=metrics, resamples=resamples, seed=seed)
    intervals = {}
    for name, values in samples.items():
        value = METRICS[name].value(labels, scores, task)
        why = too_few_images(truth, task, name, classes=checked.shape[1])
        if why:
            intervals[name] = Interval(value, None, None, level, why)
            continue
        low, high = _percentiles(values, level, METRICS[name].title)
        intervals[name] = Interval(value, low, high, level)
    return intervals


def _seed_values(
    truth: Int[np.ndarray, "b k"], scores: Float[np.ndarray, "s b c"], task: str, metric: str
) -> list[float]:
    """Return the metric of each seed, and warn of absent classes once: all seeds lack the same."""
    measure = METRICS[metric].value
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
    low, high = _percentiles(value + over_seeds + over_images, level, METRICS[metric].title)
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
    return _student_interval(values, 1 / max(1, len(values)), level)


def folds_interval(values: Sequence[float], folds: int, *, level: float = 0.95) -> Interval:
    """Return the mean of one value per fold, of one or several divisions into `folds`, with a corrected t interval.

    Models of two folds have most of their training images in common, so that their values do not vary as much as they
    would with other images, and Student's interval is too narrow. The variance of the mean of J values is taken as
    (1/J + t) s², where s² is their sample variance, and t is the images held out over those trained on, 1/(folds − 1),
    with J − 1 degrees of freedom. That is a rule of thumb: no estimate of this variance is free of bias for all data.

    A single value has no interval. Raises MetricError as `mean_interval` does, and for fewer than two folds.
    Sources: Nadeau and Bengio 2003, Inference for the Generalization Error, for one held-out part drawn again and
    again; Bouckaert and Frank 2004, Evaluating the Replicability of Significance Tests, for repeated folds; Bengio and
    Grandvalet 2004, No Unbiased Estimator of the Variance of K-Fold Cross-Validation.
    """
    if folds < 2:
        raise MetricError(f"Values of folds come of at least 2, but folds came as {folds}.")
    return _student_interval(values, 1 / max(1, len(values)) + 1 / (folds - 1), level)


def _student_interval(values: Sequence[float], share: float, level: float) -> Interval:
    """Return the mean, with an interval for the case that its variance is a `share` of that of the values."""
    check_level(level)
    spread = deviation(values)
    mean = math.fsum(values) / len(values)
    if spread is None:
        return Interval(mean, None, None, level)
    from scipy.special import stdtrit  # heavy, and needed by few

    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * spread * math.sqrt(share)
    return Interval(mean, mean - half, mean + half, level)
