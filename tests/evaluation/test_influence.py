"""The influence of images: naive double loops, DeLong's covariance and a bootstrap as oracles."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.arms import Array, make_arms, measure, naive_components, naive_delong
from qvit.evaluation.influence import image_covariance, image_influence, image_strata
from qvit.evaluation.metrics import auc, decide
from qvit.evaluation.paired import delong_test

TASKS = ("binary", "multi-class", "multi-label", "ordinal")
METRICS = ("auc", "acc")
SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize("seed", range(5))
def test_the_covariance_of_binary_aucs_is_delongs(seed: int) -> None:
    labels, (arm,) = make_arms("binary", seed=seed, arms=1, seeds=3, images=31 + seed)
    areas, expected = naive_delong(labels, list(arm))
    traced = [image_influence(labels, scores, "binary") for scores in arm]
    assert [value for value, _ in traced] == pytest.approx(areas.tolist(), abs=1e-12)
    strata = image_strata(labels[:, np.newaxis], "binary")
    found = image_covariance(np.stack([influence for _, influence in traced]), strata)
    assert found == pytest.approx(expected, abs=1e-14)
    difference = float(areas[0] - areas[1])
    error = math.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
    comparison = delong_test(labels, arm[0], arm[1], "binary")
    assert comparison.difference == pytest.approx(difference, abs=1e-12)
    assert comparison.p == pytest.approx(2 * stats.norm.sf(abs(difference) / error), abs=1e-10)
    ends = stats.norm.interval(0.95, difference, error)
    assert (comparison.low, comparison.high) == pytest.approx(ends, abs=1e-10)
    assert (comparison.df, comparison.level, comparison.method) == (None, 0.95, "DeLong")


@pytest.mark.parametrize("task", ["multi-class", "ordinal", "multi-label"])
def test_influence_of_many_classes_is_the_mean_of_double_loops(task: str) -> None:
    labels, (arm,) = make_arms(task, seed=3, seeds=1, arms=1)
    answers = labels == 1 if task == "multi-label" else labels[:, np.newaxis] == np.arange(3)
    expected = np.zeros(len(labels))
    for column in range(3):
        positive = answers[:, column]
        tens, ones = naive_components(positive, arm[0][:, column])
        expected[positive] += (tens - tens.mean()) / len(tens) / 3
        expected[~positive] += (ones - ones.mean()) / len(ones) / 3
    value, influence = image_influence(labels, arm[0], task)
    assert value == pytest.approx(auc(labels, arm[0], task), abs=1e-12)
    assert influence == pytest.approx(expected, abs=1e-14)


def as_columns(arm: Array) -> Array:
    return arm[:, :, np.newaxis] if arm.ndim == 2 else arm


def pairwise_wins(scores: Array) -> Array:
    """Return, for each two images, whether the first scores more, or a half where they tie."""
    first, second = scores[:, np.newaxis], scores[np.newaxis]
    return (first > second) + (first == second) / 2


def area(count: Array, yes: Array, wins: Array) -> float:
    """Return the AUC of a resample that holds each image so many times, by its definition."""
    positive, negative = count * yes, count * ~yes
    return float(positive @ wins @ negative / (positive.sum() * negative.sum()))


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
@pytest.mark.parametrize("metric", METRICS)
def test_the_covariance_is_that_of_a_bootstrap(task: str, metric: str) -> None:
    labels, (arm,) = make_arms(task, seed=5, seeds=2, arms=1, images=240)
    traced = [image_influence(labels, scores, task, metric=metric) for scores in arm]
    strata = image_strata(labels.reshape(len(labels), -1), task, metric=metric)
    found = image_covariance(np.stack([influence for _, influence in traced]), strata)
    rng, drawn = np.random.default_rng(6), []
    wins = [[pairwise_wins(scores[:, column]) for column in range(scores.shape[1])] for scores in as_columns(arm)]
    right = [(decide(scores, task) == labels).reshape(len(labels), -1).mean(axis=1) for scores in arm]
    answers = labels[:, np.newaxis] == (1 if task == "binary" else np.arange(3)) if labels.ndim == 1 else labels == 1
    for _ in range(600):
        rows = np.concatenate([rng.choice(np.flatnonzero(strata == k), (strata == k).sum()) for k in np.unique(strata)])
        count = np.bincount(rows, minlength=len(labels)).astype(float)
        if metric == "acc":
            drawn.append([count @ share / len(labels) for share in right])
        else:
            drawn.append(
                [np.mean([area(count, yes, w) for yes, w in zip(answers.T, each, strict=True)]) for each in wins]
            )
    # A variance of 600 draws is known to 6 %.
    expected = np.cov(np.array(drawn).T)
    assert np.diagonal(found) == pytest.approx(np.diagonal(expected), rel=0.2)
    scale = float(np.sqrt(expected[0, 0] * expected[1, 1]))
    assert found[0, 1] == pytest.approx(expected[0, 1], abs=0.1 * scale)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, images=st.integers(13, 37))
def test_influences_sum_to_nothing_and_follow_their_images(task: str, metric: str, seed: int, images: int) -> None:
    labels, (arm,) = make_arms(task, seed=seed, seeds=1, arms=1, images=images)
    value, influence = image_influence(labels, arm[0], task, metric=metric)
    assert value == pytest.approx(measure(metric)(labels, arm[0], task), abs=1e-12)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    order = np.random.default_rng(seed).permutation(images)
    moved = image_influence(labels[order], arm[0][order], task, metric=metric)
    assert moved[0] == pytest.approx(value, abs=1e-12)
    assert moved[1] == pytest.approx(influence[order], abs=1e-12)


def test_an_image_alone_in_its_class_adds_no_variance() -> None:
    influences = np.array([[0.5, 0.1, 0.3]])
    assert image_covariance(influences, np.array([0, 1, 1]))[0, 0] == pytest.approx(2 * 2 * 0.1**2)
    assert image_covariance(influences, np.array([0, 1, 2]))[0, 0] == 0
