"""Tests whether one model, or one way of training, is better than another, on common test images.

Which test is right depends on what is random. If images are random and two trained models are given: `delong_test` for
AUC, `mcnemar_test` and `permutation_test` for accuracy. If seeds are random and the test images are given, to compare
two ways of training: `seeds_test`. If seeds and images are both random: `compare_arms`, the one that a claim such as "A
is better than B" needs. An arm is a way of training, run once per seed; S is the number of seeds.

Variances over random images come from the influence of each image, see `evaluation.influence`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from qvit.errors import MetricError
from qvit.evaluation.influence import image_covariance, image_strata
from qvit.evaluation.inputs import check_inputs
from qvit.evaluation.metrics import auc, decide
from qvit.evaluation.sampled import METRICS, check_images, check_metric
from qvit.evaluation.statistics import check_level, check_seeds, check_values, deviation

ROUNDING = 1e-13  # of a weighted sum, far below what one image can change in a metric


@dataclass(frozen=True)
class Comparison:
    """How much better A is than B, with the ends of the confidence interval and the two-sided p value.

    `df` is the degrees of freedom of Student's t, None for a test without them; `method` names the test.
    """

    difference: float
    low: float
    high: float
    p: float
    level: float
    df: float | None
    method: str


def judge(difference: float, variance: float, df: float | None, *, level: float, method: str) -> Comparison:
    """Compare a difference of known variance with 0, by Student's t or, if `df` is None, by the normal distribution."""
    from scipy.special import ndtr, ndtri, stdtr, stdtrit  # heavy, as in statistics

    if variance == 0:  # the limit of small variances: p is 0, or 1 if the difference is 0
        return Comparison(difference, difference, difference, float(difference == 0), level, df, method)
    error = math.sqrt(variance)
    distance, end = -abs(difference) / error, (1 + level) / 2
    p = 2 * float(ndtr(distance) if df is None else stdtr(df, distance))
    half = float(ndtri(end) if df is None else stdtrit(df, end)) * error
    return Comparison(difference, difference - half, difference + half, p, level, df, method)


# --- two models, random images ---


def _check_models(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, task: str
) -> tuple[Int[np.ndarray, "b k"], Float[np.ndarray, "2 b c"]]:
    truth, ours = check_inputs(labels, scores_a, task)
    theirs = check_inputs(labels, scores_b, task)[1]
    if ours.shape != theirs.shape:
        raise MetricError(
            "Both models must score the same classes, but their scores came as "
            f"{np.shape(scores_a)} and {np.shape(scores_b)}."
        )
    return truth, np.stack([ours, theirs])


def delong_test(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, task: str, *, level: float = 0.95
) -> Comparison:
    """Compare the AUCs of two given models on the same images, which are random.

    Labels and scores are as in `check_inputs`. The interval and p are normal; beyond binary, AUC is the mean over
    classes or labels, and its variance comes from `image_influence`. The result says nothing about other seeds of the
    same training: see `compare_arms`. If the AUCs differ but all images of a class have the same influence, as when one
    model is always right and the other always wrong, the estimated variance is 0, and so is p.

    Raises MetricError and warns AbsentClassWarning as `auc` does; raises MetricError for scores of different classes,
    too few images of a class (see `too_few_images`), and a level outside (0, 1).
    Source: DeLong et al. 1988, Comparing the Areas under Two or More Correlated ROC Curves.
    """
    check_level(level)
    truth, both = _check_models(labels, scores_a, scores_b, task)
    auc(truth, both[0], task)  # refuses and warns
    check_images(truth, task, "auc", classes=both.shape[2])
    (ours, influence_a), (theirs, influence_b) = (METRICS["auc"].influence(truth, each, task) for each in both)
    variance = image_covariance((influence_a - influence_b)[np.newaxis], image_strata(truth, task))[0, 0]
    return judge(ours - theirs, float(variance), None, level=level, method="DeLong")


def _advantages(truth: Int[np.ndarray, "b k"], both: Float[np.ndarray, "2 b c"], task: str) -> Int[np.ndarray, " b"]:
    """Return, for each image, how many more questions the first model answers correctly than the second."""
    right = [truth == decide(each, task).reshape(len(truth), -1) for each in both]
    return right[0].sum(axis=1) - right[1].sum(axis=1)


def mcnemar_test(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, task: str, *, mid: bool = True, level: float = 0.95
) -> Comparison:
    """Compare the accuracies of two given models on the same images, which are random.

    Of the images that only one model decides correctly, each model is expected to have half if they are equally good.
    With `mid` the observed outcome counts half (mid-p, Fagerland et al.), which keeps the level closely; without it the
    test is exact, and too rarely significant if few decisions differ. p is 1 if none do. The interval is Bonett and
    Price's: Wald's with one image added to each kind of disagreement.

    Labels and scores are as in `check_inputs`, of any task but multi-label, for which `permutation_test` serves. Raises
    MetricError for a multi-label task, as `check_inputs` does, for scores of different classes, and for a level outside
    (0, 1).
    Source: McNemar 1947; Fagerland et al. 2013 (10.1186/1471-2288-13-91); Bonett and Price 2012.
    """
    check_level(level)
    if task == "multi-label":
        raise MetricError(
            "McNemar's test needs one decision per image, but a multi-label image has several. Use permutation_test."
        )
    truth, both = _check_models(labels, scores_a, scores_b, task)
    advantages, images = _advantages(truth, both, task), len(truth)
    better, worse = int((advantages > 0).sum()), int((advantages < 0).sum())
    discordant = better + worse
    chances = _head_counts(np.array([1]), np.array([discordant]))
    extreme = np.abs(2 * np.arange(discordant + 1) - discordant)
    beyond = float(chances[extreme > abs(better - worse)].sum())
    as_far = float(chances[extreme == abs(better - worse)].sum())
    p = min(1.0, beyond + (0.5 if mid and discordant else 1.0) * as_far)
    up, down = (better + 1) / (images + 2), (worse + 1) / (images + 2)
    around = judge(up - down, (up + down - (up - down) ** 2) / (images + 2), None, level=level, method="")
    name = "McNemar, mid-p" if mid else "McNemar, exact"
    return Comparison((better - worse) / images, around.low, around.high, p, level, None, name)


def _head_counts(values: Int[np.ndarray, " v"], coins: Int[np.ndarray, " v"]) -> Float[np.ndarray, " total"]:
    """Return the distribution of the total value of heads, from 0 up, of `coins[i]` coins of value `values[i]` each."""
    from scipy.special import gammaln  # heavy, as in statistics

    chances = np.ones(1)
    for value, count in zip(values.tolist(), coins.tolist(), strict=True):
        heads = np.arange(count + 1)
        logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
        spread = np.zeros(value * count + 1)
        spread[::value] = np.exp(logs)
        chances = np.convolve(chances, spread)
    return chances / chances.sum()


def permutation_test(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, task: str, *, level: float = 0.95
) -> Comparison:
    """Compare the accuracies of two models on the same images by swapping the models image by image.

    p is the exact share of all 2ᴺ swaps whose difference is at least as large. It is not sampled: each image has a
    whole number of right answers, so the distribution is a convolution of binomial ones. With one question per image
    this is McNemar's exact test. The interval is normal, so it may disagree with p near the level. For multi-label
    tasks all answers for an image are swapped together, since they need not be independent.

    Labels and scores are as in `check_inputs`. Raises MetricError as that does, for scores of different classes, for
    fewer than two images, and for a level outside (0, 1).
    Source: Fisher 1935; Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, section 3.
    """
    check_level(level)
    truth, both = _check_models(labels, scores_a, scores_b, task)
    strata = image_strata(truth, task, metric="acc")
    advantages, questions = _advantages(truth, both, task), truth.shape[1]
    values, coins = np.unique(np.abs(advantages[advantages != 0]), return_counts=True)
    total = int(values @ coins)
    far = np.abs(2 * np.arange(total + 1) - total) >= abs(int(advantages.sum()))
    p = min(1.0, float(_head_counts(values, coins)[far].sum()))
    shares = advantages / (questions * len(truth))
    variance = float(image_covariance(shares[np.newaxis], strata)[0, 0])
    around = judge(float(shares.sum()), variance, None, level=level, method="")
    return Comparison(around.difference, around.low, around.high, p, level, None, "permutation")


# --- two arms, random seeds ---


def seeds_test(values_a: Sequence[float], values_b: Sequence[float], *, level: float = 0.95) -> Comparison:
    """Compare two arms by one value per seed, paired by seed, with Student's t; seeds are random, images given.

    The result holds for these test images only; `compare_arms` says how the arms would compare on others. If all
    differences are equal, p is 1 if they are 0, and otherwise 0. Raises MetricError for arms of different length, fewer
    than two seeds, values that are not finite, and a level outside (0, 1).
    Source: Student 1908.
    """
    check_level(level)
    check_values(values_a)
    check_values(values_b)
    if len(values_a) != len(values_b):
        raise MetricError(_unpaired([len(values_a), len(values_b)]))
    if len(values_a) < 2:
        raise MetricError("A comparison over seeds needs at least 2 of them, but came with 1. Train more seeds.")
    differences, seeds = [a - b for a, b in zip(values_a, values_b, strict=True)], len(values_a)
    variance = (deviation(differences) or 0.0) ** 2 / seeds
    return judge(math.fsum(differences) / seeds, variance, seeds - 1, level=level, method="seeds")


def _unpaired(seeds: Sequence[int]) -> str:
    counts = f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
    return f"Arms are paired by seed, but came with {counts} seeds. Give all of them the same seeds in the same order."


# --- arms, random seeds and random images ---


def _check_arms(
    labels: ArrayLike, scores: Sequence[ArrayLike], weights: Sequence[float], task: str
) -> tuple[Int[np.ndarray, "b k"], list[Float[np.ndarray, "s b c"]]]:
    if len(scores) != len(weights) or not all(math.isfinite(weight) for weight in weights):
        raise MetricError(f"Each of {len(scores)} arms needs a finite weight, but weights came as {list(weights)}.")
    largest = max((abs(weight) for weight in weights), default=0.0)
    if largest == 0 or abs(math.fsum(weights)) > 1e-9 * largest:
        raise MetricError(f"Weights must sum to 0 and not all be 0, as 1 and -1 do, but came as {list(weights)}.")
    checked = []
    for place, arm in enumerate(scores):
        try:
            truth, seeds = check_seeds(labels, arm, task)
        except MetricError as error:
            raise MetricError(f"Arm {place} (counted from 0) is not fit to compare. {error}") from error
        checked.append(seeds)
    if len({len(arm) for arm in checked}) > 1:
        raise MetricError(_unpaired([len(arm) for arm in checked]))
    if len({arm.shape for arm in checked}) > 1:
        shapes = ", ".join(str(arm.shape) for arm in checked)
        raise MetricError(f"All arms must score the same classes, but their scores came as {shapes}.")
    return truth, checked


def contrast(
    labels: ArrayLike,
    scores: Sequence[ArrayLike],
    weights: Sequence[float],
    task: str,
    *,
    metric: str = "auc",
    level: float = 0.95,
) -> Comparison:
    """Compare a weighted sum of the arms' mean metrics with 0; seeds and test images are both random.

    Weights 1, -1 compare two arms; 1, -1, -1, 1 ask whether the first gains more over the second than the third over
    the fourth. Labels are as in `check_inputs`; each arm has scores of the same S seeds, as in `check_seeds`. The
    metric is one of `METRICS`.

    This is the analysis of Obuchowski and Rockette, with seeds for readers, test images for cases, and arms for
    modalities. Each seed gives a weighted sum d; v is the variance of d over seeds, and c the mean covariance, over
    random images, of two seeds' d, from their `image_influence`. The mean of d then has the variance v/S + c, and its t
    has the degrees of freedom (v + S c)² / (v²/(S - 1)) of Hillis; c below 0 counts as 0. With S = 1 nothing is known
    about other seeds: the variance is that over images alone, as in `delong_test`, and the normal distribution replaces
    t, as it also does if v is 0. If v and c are both 0, p is 1 if the difference is 0, and otherwise 0.

    Raises MetricError as `check_seeds` does, naming the arm; if arms have different seeds or classes, if weights do not
    sum to 0, if there are too few images (see `too_few_images`), for another metric, and for a level outside (0, 1).
    Warns AbsentClassWarning as `auc` does, once.
    Source: Obuchowski and Rockette 1995; Hillis 2007, A Comparison of Denominator Degrees of Freedom Methods for
    Multiple Observer ROC Analysis (10.1002/sim.2532).
    """
    check_level(level)
    check_metric(metric, "compared")
    truth, arms = _check_arms(labels, scores, weights, task)
    METRICS[metric].value(truth, arms[0][0], task)  # refuses and warns
    check_images(truth, task, metric, classes=arms[0].shape[2])
    strata = image_strata(truth, task, metric=metric)
    seeds, images = arms[0].shape[:2]
    differences, influences = np.zeros(seeds), np.zeros((seeds, images))
    for weight, arm in zip(weights, arms, strict=True):
        for seed, each in enumerate(arm):
            value, influence = METRICS[metric].influence(truth, each, task)
            differences[seed] += weight * value
            influences[seed] += weight * influence
    covariance = image_covariance(influences, strata)
    difference = math.fsum(differences) / seeds
    if abs(difference) < ROUNDING:  # rounding error, whose variance may be as small and would make it significant
        difference = 0.0
    if seeds == 1:
        return judge(difference, float(covariance[0, 0]), None, level=level, method="images")
    own = (deviation(differences.tolist()) or 0.0) ** 2
    shared = max(0.0, float(covariance.sum() - covariance.trace()) / (seeds * (seeds - 1)))
    df = None if own == 0 else (seeds - 1) * (1 + seeds * shared / own) ** 2
    return judge(difference, own / seeds + shared, df, level=level, method="seeds and images")


def compare_arms(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    task: str,
    *,
    metric: str = "auc",
    level: float = 0.95,
) -> Comparison:
    """Compare two arms with seeds and test images both random: is A better than B, whatever the seed and the images?

    Scores are `(S, N, C)` of the same seeds in the same order, for binary also `(S, N)`. This is the `contrast` of the
    two with weights 1 and -1; see there for the method and the errors.
    """
    return contrast(labels, (scores_a, scores_b), (1.0, -1.0), task, metric=metric, level=level)


# --- many comparisons, and how large a difference is ---


def mean_comparison(comparisons: Sequence[Comparison]) -> Comparison:
    """Return the mean of independent differences, such as those of the same two arms on several datasets.

    All have the same weight. The variance is the sum of their variances divided by their number squared, the degrees of
    freedom are those of Welch and Satterthwaite. Raises MetricError for no comparisons, and for comparisons of several
    levels.
    Source: Satterthwaite 1946.
    """
    from scipy.special import ndtri, stdtrit  # heavy, as in statistics

    levels = {one.level for one in comparisons}
    if len(levels) != 1:
        told = f" of levels {', '.join(map(str, sorted(levels)))}" if levels else ""
        raise MetricError(f"A mean needs comparisons of one level, but {len(comparisons)} came{told}.")
    (level,), count = levels, len(comparisons)
    end = (1 + level) / 2
    variances = [
        (float((one.high - one.low) / 2 / (ndtri(end) if one.df is None else stdtrit(one.df, end))) / count) ** 2
        for one in comparisons
    ]
    spread = math.fsum(
        variance**2 / one.df for variance, one in zip(variances, comparisons, strict=True) if one.df is not None
    )
    variance = math.fsum(variances)
    difference = math.fsum(one.difference for one in comparisons) / count
    methods = dict.fromkeys(one.method for one in comparisons)
    return judge(
        difference, variance, variance**2 / spread if spread else None, level=level, method=" + ".join(methods)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's method, in the order given.

    If all values below α are called significant, the probability of any error is at most α. The smallest p is
    multiplied by their number, the next by one less, and so on; no value may be below the one before it or above 1.
    Raises MetricError for values outside [0, 1].
    Source: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise MetricError(f"p values must lie within [0, 1], but came as {list(p_values)}.")
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = so_far
    return adjusted


def hedges_g(values_a: Sequence[float], values_b: Sequence[float]) -> float | None:
    """Return how many standard deviations over seeds the mean of A exceeds that of B by, corrected for few seeds.

    The standard deviation is pooled, and the arms need not have the same seeds. The result is None if an arm has a
    single value, or if neither varies. Raises MetricError for no values, and values that are not finite.
    Source: Hedges 1981, Distribution Theory for Glass's Estimator of Effect Size.
    """
    spread_a, spread_b = deviation(values_a), deviation(values_b)
    if spread_a is None or spread_b is None or spread_a == spread_b == 0:
        return None
    rest_a, rest_b = len(values_a) - 1, len(values_b) - 1
    df = rest_a + rest_b
    pooled = math.sqrt((rest_a * spread_a**2 + rest_b * spread_b**2) / df)
    correction = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    return correction * (math.fsum(values_a) / len(values_a) - math.fsum(values_b) / len(values_b)) / pooled


def superiority(values_a: Sequence[float], values_b: Sequence[float]) -> float:
    """Return P(a value of A exceeds one of B), ties counting half: 1 where all do, 0.5 where neither is above.

    The arms need not have the same seeds. Raises MetricError for no values, and values that are not finite.
    Source: Vargha and Delaney 2000, A12.
    """
    check_values(values_a)
    check_values(values_b)
    wins = math.fsum((a > b) + (a == b) / 2 for a in values_a for b in values_b)
    return wins / (len(values_a) * len(values_b))
