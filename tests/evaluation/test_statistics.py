"""Intervals: every resample against scikit-learn, coverage on a case whose truth is known, and the edges."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from evaluation.arms import Array, make_labels, make_scores
from qvit.errors import MetricError
from qvit.evaluation.inputs import Task
from qvit.evaluation.metrics import AbsentClassWarning, accuracy, auc
from qvit.evaluation.sampled import METRICS
from qvit.evaluation.statistics import (
    BLOCK_ELEMENTS,
    Interval,
    bootstrap_interval,
    draw_counts,
    folds_interval,
    mean_interval,
    resampled_metrics,
)


def width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


def make_case(task: Task, *, seed: int, images: int) -> tuple[Array, Array]:
    """Return labels and informative scores with many ties."""
    rng = np.random.default_rng(seed)
    labels = make_labels(task, rng, images)
    return labels, make_scores(task, labels, rng, seeds=1)[0]


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label", "ordinal"])
def test_each_resample_is_measured_as_if_it_were_the_data(task: Task) -> None:
    labels, scores = make_case(task, seed=2, images=61)
    samples = resampled_metrics(labels, scores, task, metrics=("auc", "acc"), resamples=30, seed=3)
    counts = np.concatenate(list(draw_counts(61, resamples=30, seed=3)))
    for place, row in enumerate(counts):
        drawn = np.repeat(np.arange(61), row)
        assert samples["auc"][place] == pytest.approx(auc(labels[drawn], scores[drawn], task), abs=1e-12)
        assert samples["acc"][place] == pytest.approx(accuracy(labels[drawn], scores[drawn], task), abs=1e-12)


def test_draws_fill_every_resample_in_blocks() -> None:
    images = BLOCK_ELEMENTS // 3
    blocks = list(draw_counts(images, resamples=7, seed=4))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert all((block.sum(axis=1) == images).all() for block in blocks)
    assert not np.array_equal(blocks[0][0], blocks[0][1])
    assert not np.array_equal(blocks[0][0], blocks[1][0])
    assert len(next(draw_counts(BLOCK_ELEMENTS * 2, resamples=2, seed=0))) == 1


def test_draws_are_uniform_over_images() -> None:
    counts = np.concatenate(list(draw_counts(13, resamples=4000, seed=5)))
    assert counts.mean(axis=0) == pytest.approx(np.ones(13), abs=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 13, abs=0.05)


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label", "ordinal"])
def test_the_value_is_that_of_all_images(task: Task) -> None:
    labels, scores = make_case(task, seed=6, images=150)
    intervals = bootstrap_interval(labels, scores, task, resamples=100)
    assert list(intervals) == list(METRICS)
    assert intervals["auc"].value == auc(labels, scores, task)
    assert intervals["acc"].value == accuracy(labels, scores, task)
    for name, interval in intervals.items():
        assert interval.value == METRICS[name].value(labels, scores, task)
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < interval.value < interval.high
        assert type(interval.low) is type(interval.high) is float


def test_the_ends_are_percentiles_of_the_resamples() -> None:
    labels, scores = make_case("ordinal", seed=6, images=90)
    found = bootstrap_interval(labels, scores, "ordinal", resamples=100, level=0.9, seed=2)
    samples = resampled_metrics(labels, scores, "ordinal", metrics=tuple(METRICS), resamples=100, seed=2)
    for name, interval in found.items():
        expected = np.percentile(samples[name], [5, 95])
        assert [interval.low, interval.high] == pytest.approx(list(expected), abs=1e-12)


def test_knobs_bite_and_a_seed_gives_the_same_interval() -> None:
    labels, scores = make_case("multi-class", seed=7, images=80)
    scores += np.random.default_rng(0).random(scores.shape) * 1e-3 * (scores < 0.9)

    def interval(**options: Any) -> Interval:
        return bootstrap_interval(labels, scores, "multi-class", **{"resamples": 200, **options})["auc"]

    first = interval()
    assert first == interval(seed=0) == interval(metrics=("auc",))
    assert first != interval(seed=1)
    assert first != interval(resamples=199)
    assert interval(level=0.99).level == 0.99
    assert width(interval(level=0.99)) > width(first) > width(interval(level=0.5))
    assert list(bootstrap_interval(labels, scores, "multi-class", metrics=("acc",), resamples=9)) == ["acc"]


@pytest.mark.long
def test_coverage_where_the_truth_is_known() -> None:
    # Scores of the two classes are normal, one standard deviation apart: AUC is Phi(1 / sqrt 2).
    normal = NormalDist()
    true_auc, true_accuracy = normal.cdf(1 / math.sqrt(2)), normal.cdf(0.5)
    rng = np.random.default_rng(8)
    labels = np.arange(150) % 2
    hits = np.zeros(2)
    for seed in range(100):
        shifted = rng.normal(labels - 0.5)
        scores = 1 / (1 + np.exp(-shifted))
        found = bootstrap_interval(labels, scores, "binary", resamples=100, level=0.9, seed=seed)
        for place, (interval, truth) in enumerate(zip(found.values(), (true_auc, true_accuracy), strict=True)):
            assert interval.low is not None
            assert interval.high is not None
            hits[place] += interval.low <= truth <= interval.high
    # The standard error of a coverage of 0.9 over 100 trials is 0.03.
    assert hits / 100 == pytest.approx([0.9, 0.9], abs=0.07)


def test_a_class_that_resamples_lack_is_left_out_without_warning() -> None:
    # One image alone has class 2, so more than a third of the resamples lack it.
    labels, scores = make_case("multi-class", seed=9, images=40)
    labels[labels == 2] = 1
    labels[0] = 2
    counts = np.concatenate(list(draw_counts(40, resamples=50, seed=0)))
    lacking = counts[:, 0] == 0
    assert 5 < lacking.sum() < 45
    samples = resampled_metrics(labels, scores, "multi-class", metrics=("auc",), resamples=50, seed=0)["auc"]
    assert np.isfinite(samples).all()
    for place in np.flatnonzero(lacking):
        drawn = np.repeat(np.arange(40), counts[place])
        with pytest.warns(AbsentClassWarning, match="without class 2"):
            expected = auc(labels[drawn], scores[drawn], "multi-class")
        assert samples[place] == pytest.approx(expected, abs=1e-12)
    bootstrap_interval(labels, scores, "multi-class", resamples=50)


def test_a_class_that_all_images_lack_warns_once_for_the_value() -> None:
    labels, scores = make_case("multi-class", seed=10, images=40)
    labels[labels == 2] = 1
    with pytest.warns(AbsentClassWarning, match="without class 2") as caught:
        interval = bootstrap_interval(labels, scores, "multi-class", metrics=("auc",), resamples=50)["auc"]
    assert len(caught) == 1
    assert interval.low is not None
    assert interval.low < interval.value


@pytest.mark.usefixtures("few_will_do")
def test_resamples_of_one_class_are_left_out_of_the_interval() -> None:
    interval = bootstrap_interval([0, 1], [0.2, 0.7], "binary", resamples=100)["auc"]
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    only_one = next(seed for seed in range(20) if next(draw_counts(2, resamples=1, seed=seed)).tolist() != [[1, 1]])
    with pytest.raises(MetricError, match=r"None of 1 resamples.*Take more resamples"):
        bootstrap_interval([0, 1], [0.2, 0.7], "binary", resamples=1, seed=only_one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("auc", "f1")}, "Only 'auc' and 'acc' can be bootstrapped, but 'f1'"),
        ({"metrics": ("auk",)}, "Did you mean 'auc'"),
        ({"resamples": 0}, "at least 1 resample, but 0"),
        ({"level": 1.0}, "between 0 and 1"),
        ({"level": 95.0}, "between 0 and 1, such as 0.95, but came as 95"),
        ({"level": math.nan}, "between 0 and 1"),
    ],
)
def test_wrong_bootstrap_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        bootstrap_interval([0, 1], [0.2, 0.7], "binary", **options)


def test_bootstrap_checks_its_arrays() -> None:
    with pytest.raises(MetricError, match="never logits"):
        bootstrap_interval([0, 1], [0.2, 1.7], "binary")
    with pytest.raises(MetricError, match="all 2 have the same labels"):
        bootstrap_interval([1, 1], [0.2, 0.7], "binary", metrics=("acc", "auc"), resamples=3)


def test_mean_interval_by_hand() -> None:
    # Mean 3, standard deviation sqrt 2.5, t = 2.776445 at four degrees of freedom.
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5 / 5)
    assert (interval.value, interval.level) == (3.0, 0.95)
    assert interval.low == pytest.approx(3 - half, abs=1e-6)
    assert interval.high == pytest.approx(3 + half, abs=1e-6)


def test_folds_interval_by_hand() -> None:
    """Five folds: a fifth for five values, and a quarter for the images that they share."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    interval = folds_interval(values, 5)
    half = 2.7764451 * math.sqrt(2.5 * (1 / 5 + 1 / 4))
    assert (interval.value, interval.level) == (3.0, 0.95)
    assert (interval.low, interval.high) == pytest.approx((3 - half, 3 + half), abs=1e-6)
    assert folds_interval([0.7], 5, level=0.9) == Interval(0.7, None, None, 0.9)


def test_repeated_folds_gain_less_than_other_images_would() -> None:
    """However often folds are drawn anew, what they share remains."""
    once, often = ([0.6, 0.8] * times for times in (5, 5000))
    t, deviation = 1.9602, 0.1
    assert folds_interval(often, 2).high == pytest.approx(0.7 + t * deviation, abs=1e-4)
    narrow, wide = mean_interval(once).high, folds_interval(once, 10).high
    assert narrow is not None
    assert wide is not None
    assert wide - 0.7 == pytest.approx((narrow - 0.7) * math.sqrt(1 + 10 / 9))


def test_mean_of_one_value_has_no_interval() -> None:
    assert mean_interval([0.7], level=0.9) == Interval(0.7, None, None, 0.9)


def test_mean_of_equal_values_has_no_width() -> None:
    assert mean_interval([0.25, 0.25, 0.25]) == Interval(0.25, 0.25, 0.25, 0.95)


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([], 0.95, "no values"),
        ([0.5, math.nan], 0.95, "finite.*Leave failed runs out"),
        ([0.5, math.inf], 0.95, "finite"),
        ([0.5, 0.6], 0.0, "between 0 and 1"),
    ],
)
def test_wrong_means_are_refused(values: list[float], level: float, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        mean_interval(values, level=level)
