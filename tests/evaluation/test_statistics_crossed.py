"""Intervals over seeds and images at once: each side alone as the limit, coverage, and the edges."""

import math
import warnings
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evaluation.arms import Array, make_labels, make_scores
from qvit.errors import MetricError
from qvit.evaluation.influence import image_covariance, image_influence, image_strata
from qvit.evaluation.inputs import Task
from qvit.evaluation.metrics import AbsentClassWarning, accuracy, auc
from qvit.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    check_seeds,
    crossed_interval,
    deviation,
    mean_interval,
)

TASKS: tuple[Task, ...] = ("binary", "multi-class", "multi-label", "ordinal")


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def width(interval: Interval) -> float:
    low, high = ends(interval)
    return high - low


def make_case(task: Task, *, seed: int, images: int = 83, seeds: int = 4) -> tuple[Array, Array]:
    """Return labels and scores of several seeds with many ties."""
    rng = np.random.default_rng(seed)
    labels = make_labels(task, rng, images)
    return labels, make_scores(task, labels, rng, seeds=seeds)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", ["auc", "acc"])
def test_the_value_is_the_mean_over_seeds(task: Task, metric: str) -> None:
    labels, scores = make_case(task, seed=0)
    measure = auc if metric == "auc" else accuracy
    interval = crossed_interval(labels, scores, task, metric=metric, resamples=200)
    assert interval.value == pytest.approx(np.mean([measure(labels, each, task) for each in scores]), abs=1e-12)
    low, high = ends(interval)
    assert low < interval.value < high
    assert type(low) is type(high) is type(interval.value) is float


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", ["auc", "acc"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_seeds_that_are_one_model_leave_the_images(task: Task, metric: str, seeds: int) -> None:
    labels, scores = make_case(task, seed=1, seeds=1)
    options: dict[str, Any] = {"resamples": 100, "level": 0.9, "seed": 5}
    found = crossed_interval(labels, np.repeat(scores, seeds, axis=0), task, metric=metric, **options)
    expected = bootstrap_interval(labels, scores[0], task, metrics=(metric,), **options)[metric]
    assert (found.value, *ends(found)) == pytest.approx((expected.value, *ends(expected)), abs=1e-12)
    assert found.level == 0.9


@pytest.mark.long
def test_endless_images_leave_students_t_over_seeds() -> None:
    # Accuracies spread evenly enough over ten seeds for their resampled mean to be normal.
    labels = np.ones(2000, dtype=int)
    rights = [0.70, 0.72, 0.75, 0.76, 0.78, 0.79, 0.80, 0.83, 0.85, 0.86]
    rng = np.random.default_rng(2)
    scores = np.stack([rng.permutation(np.arange(2000) < right * 2000) * 0.9 for right in rights])
    found = crossed_interval(labels, scores, "binary", metric="acc", resamples=1500)
    expected = mean_interval(rights)
    assert found.value == pytest.approx(expected.value)
    assert width(found) == pytest.approx(width(expected), rel=0.06)
    five = crossed_interval(labels, scores[::2], "binary", metric="acc", resamples=1500)
    # The expansion is 1.58 with five seeds; discrete resamples of so few are the coarser.
    assert width(five) == pytest.approx(width(mean_interval(rights[::2])), rel=0.12)


@pytest.mark.usefixtures("few_will_do")
def test_the_expansion_by_hand() -> None:
    # Seeds err on different images, so that images do nothing to both alike. Half of the resamples of two seeds hold
    # one of them twice: their ends are the seeds themselves, 0.05 from the mean, times √2 · 12.7062 / 1.95996.
    scores = np.full((2, 10), 0.9)
    scores[0, 0] = scores[1, 1:3] = 0.1
    interval = crossed_interval(np.ones(10, dtype=int), scores, "binary", metric="acc", resamples=200)
    half = 0.05 * math.sqrt(2) * 12.7062 / 1.95996
    assert ends(interval) == pytest.approx((0.85 - half, 1.0), abs=1e-5)  # no accuracy is above 1


@pytest.mark.usefixtures("few_will_do")
def test_resamples_without_auc_do_not_hide_what_is_shared() -> None:
    # A third of the resamples lack the one negative. The seeds have one AUC, and rank different positives below it.
    scores = np.full((2, 8), 0.9)
    scores[:, 0] = 0.5
    scores[0, 1] = scores[1, 2] = 0.1
    interval = crossed_interval(np.arange(8) > 0, scores, "binary", resamples=400)
    assert ends(interval) == pytest.approx((6 / 7, 6 / 7), abs=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("metric", ["auc", "acc"])
def test_the_variance_is_of_seeds_once_and_of_images_once(metric: str) -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(300) % 2
    latent = (
        labels - 0.5 + rng.normal(0, 0.8, 300) + rng.normal(0, 0.7, (10, 300)) + rng.normal(0, 0.2, (10, 1)) * labels
    )
    scores = 1 / (1 + np.exp(-latent))
    values, influences = zip(*(image_influence(labels, each, "binary", metric=metric) for each in scores), strict=True)
    strata = np.zeros(300, dtype=np.int64)  # the bootstrap draws images as they come
    covariance = image_covariance(np.stack(influences), strata)
    shared = (covariance.sum() - covariance.trace()) / 90
    expansion = stats.t.ppf(0.975, 9) / stats.norm.ppf(0.975)
    expected = 2 * stats.norm.ppf(0.975) * math.sqrt(np.var(values, ddof=1) / 10 * expansion**2 + shared)
    found = crossed_interval(labels, scores, "binary", metric=metric, resamples=4000)
    assert width(found) == pytest.approx(expected, rel=0.05)
    if metric == "acc":
        assert image_strata(labels[:, np.newaxis], "binary", metric="acc").tolist() == strata.tolist()


@pytest.mark.long
def test_coverage_where_the_truth_is_known() -> None:
    # Latent scores one apart, seeds' thresholds shifted: accuracy is the mean of Φ(½ + shift) and Φ(½ - shift).
    normal, rng = NormalDist(), np.random.default_rng(4)
    # A shift of deviation 0.5 spreads the noise's 1 to sqrt 1.25.
    truth = normal.cdf(0.5 / math.sqrt(1.25))
    labels, hits = np.arange(90) % 2, 0
    for trial in range(80):
        image = rng.normal(0, math.sqrt(0.6), 90)
        latent = labels - 0.5 + image + rng.normal(0, math.sqrt(0.4), (4, 90)) + rng.normal(0, 0.5, (4, 1))
        scores = 1 / (1 + np.exp(-latent))
        options: dict[str, Any] = {"metric": "acc", "resamples": 80, "level": 0.9, "seed": trial}
        low, high = ends(crossed_interval(labels, scores, "binary", **options))
        hits += low <= truth <= high
    # The standard error of a coverage of 0.9 over 80 trials is 0.034.
    assert hits / 80 == pytest.approx(0.9, abs=0.07)


def test_knobs_bite_and_a_seed_gives_the_same_interval() -> None:
    labels, scores = make_case("ordinal", seed=5)

    def interval(**options: Any) -> Interval:
        return crossed_interval(labels, scores, "ordinal", **{"resamples": 200, **options})

    first = interval()
    assert first == interval(seed=0) == interval(metric="auc")
    assert first != interval(seed=1)
    assert first != interval(resamples=199)
    assert first.value != interval(metric="acc").value
    assert width(interval(level=0.99)) > width(first) > width(interval(level=0.5))
    assert width(crossed_interval(labels, scores[:2], "ordinal", resamples=200)) > width(first)


def test_binary_scores_come_in_three_shapes() -> None:
    labels, scores = make_case("binary", seed=6)
    shapes = scores, scores[..., np.newaxis], np.stack([1 - scores, scores], axis=2)
    found = [crossed_interval(labels, each, "binary", resamples=50) for each in shapes]
    assert found[0] == found[1] == found[2]
    assert found[0] == crossed_interval(labels[:, np.newaxis], scores, "binary", resamples=50)
    truth, checked = check_seeds(labels, scores, "binary")
    assert (truth.shape, checked.shape) == ((83, 1), (4, 83, 1))


def test_an_absent_class_warns_once() -> None:
    labels, scores = make_case("multi-class", seed=7)
    labels[labels == 2] = 0
    with pytest.warns(AbsentClassWarning, match="without class 2") as caught:
        crossed_interval(labels, scores, "multi-class", resamples=20)
    assert len(caught) == 1


@pytest.mark.usefixtures("few_will_do")
def test_resamples_without_auc_are_left_out() -> None:
    labels, scores = [0, 1, 1], np.array([[0.2, 0.7, 0.1], [0.3, 0.9, 0.4]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = crossed_interval(labels, scores, "binary", resamples=60)
        assert all(math.isfinite(end) for end in ends(interval))
        crossed_interval([0, 1], scores[:, :2], "binary", resamples=1, metric="acc")


@pytest.mark.parametrize(
    ("labels", "scores", "options", "message"),
    [
        ([0, 1], [[0.2, 0.7]], {"metric": "f1"}, "Only 'auc' and 'acc' can be bootstrapped, but 'f1'"),
        ([0, 1], [[0.2, 0.7]], {"level": 95}, "between 0 and 1"),
        ([0, 1], [[0.2, 0.7]], {"resamples": 0}, "at least 1 resample"),
        ([0, 1], [0.2, 0.7], {}, r"shape \(S, N\) or \(S, N, C\) with S of at least 1, but came as \(2,\)"),
        ([0, 1], np.zeros((0, 2)), {}, r"at least 1, but came as \(0, 2\)"),
        ([0, 1], [[0.2, 0.7], [0.2]], {}, "All seeds must score the same images"),
        ([0, 1], [[0.2, 0.7], [0.2, math.nan]], {}, "seed 1 .*finite, but row 1"),
        ([0, 1], [[0.2, 0.7, 0.1]], {}, "seed 0 .*same images, but came for 2 and 3"),
        ([1, 1], [[0.2, 0.7]], {}, "all 2 have the same labels"),
        ([1], [[0.2]], {}, "all 1 have the same labels"),
    ],
)
def test_wrong_input_is_refused(labels: Any, scores: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        crossed_interval(labels, scores, "binary", **options)


def test_wrong_shapes_of_other_tasks_are_refused() -> None:
    with pytest.raises(MetricError, match=r"multi-class tasks must have the shape \(S, N, C\) with"):
        crossed_interval([0, 1], np.eye(2), "multi-class")
    with pytest.raises(MetricError, match=r"Unknown task 'multi'"):
        crossed_interval([0, 1], np.eye(2)[np.newaxis], "multi")


def test_deviation_is_the_samples() -> None:
    assert deviation([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(math.sqrt(2.5))
    assert deviation([0.3]) is None
    assert deviation([0.25, 0.25]) == 0.0
    values = np.random.default_rng(8).normal(size=7).tolist()
    assert deviation(values) == pytest.approx(np.std(values, ddof=1))
    for wrong, message in (([], "no values"), ([0.1, math.nan], "finite")):
        with pytest.raises(MetricError, match=message):
            deviation(wrong)


def test_an_interval_stays_within_what_a_metric_can_be() -> None:
    labels = np.arange(40) % 2
    good = np.where(labels == 1, 0.9, 0.1)
    poor = np.where(np.arange(40) < 12, 1 - good, good)
    found = crossed_interval(labels, np.stack([good, poor]), "binary", metric="acc", resamples=400)
    assert found.low is not None
    assert found.high is not None
    assert 0.0 <= found.low < found.value < found.high == 1.0
    worse = crossed_interval(labels, 1 - np.stack([good, poor]), "binary", metric="acc", resamples=400)
    assert worse.low == 0.0
