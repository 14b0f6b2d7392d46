"""Metrics over random images: AUC of a resample, and few images, which are refused by name or have no interval."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from qvit.errors import MetricError
from qvit.evaluation import sampled
from qvit.evaluation.paired import compare_arms, contrast, delong_test, mcnemar_test, permutation_test
from qvit.evaluation.sampled import rank_class, too_few_images, weighted_auc
from qvit.evaluation.statistics import bootstrap_interval, crossed_interval, draw_counts


@pytest.mark.parametrize("steps", [1, 3, 10**6])
def test_each_weighted_auc_is_scikit_learns_on_the_resample_itself(steps: int) -> None:
    rng = np.random.default_rng(0)
    positive = rng.integers(0, 2, 47) == 1
    scores = np.round((positive * 0.3 + rng.random(47) * 0.7) * steps) / steps
    counts = np.concatenate(list(draw_counts(47, resamples=40, seed=1)))
    for row, value in zip(counts, weighted_auc(rank_class(positive, scores), counts), strict=True):
        drawn = np.repeat(np.arange(47), row)
        assert value == pytest.approx(roc_auc_score(positive[drawn], scores[drawn]), abs=1e-12)


# --- few images ---


def made(task: str, counts: tuple[int, ...], seeds: int = 3) -> tuple[Any, Any, Any]:
    """Return labels with so many images of each class, or on each label, and scores of two arms."""
    rng = np.random.default_rng(0)
    classes = len(counts)
    if task == "multi-label":
        labels = np.zeros((60, classes), dtype=int)
        for place, count in enumerate(counts):
            labels[:count, place] = 1
    else:
        labels = np.repeat(np.arange(classes), counts)
    shape = (2, seeds, len(labels)) if task == "binary" else (2, seeds, len(labels), classes)
    scores = rng.uniform(0.1, 0.9, shape)
    if task in ("multi-class", "ordinal"):
        scores /= scores.sum(axis=-1, keepdims=True)
    return labels, scores[0], scores[1]


CASES = [
    ("binary", (40, 9), "class 1 has 9 images"),
    ("binary", (9, 40), "9 images are without class 1"),
    ("ordinal", (60, 30, 20, 10, 1), "class 4 has 1 images"),
    ("multi-class", (60, 2, 20), "class 1 has 2 images"),
    ("multi-label", (30, 5), "label 1 has 5 images"),
    ("multi-label", (57, 30), "3 images are without label 0"),
]
OF_AUC: dict[str, Callable[..., object]] = {
    "DeLong": lambda labels, ours, theirs, task: delong_test(labels, ours[0], theirs[0], task),
    "arms": lambda labels, ours, theirs, task: compare_arms(labels, ours, theirs, task),
    "contrast": lambda labels, ours, theirs, task: contrast(labels, (ours, theirs), (0.5, -0.5), task),
}


@pytest.mark.parametrize("name", OF_AUC)
@pytest.mark.parametrize(("task", "counts", "why"), CASES)
def test_comparisons_of_auc_name_the_class_that_is_too_rare(
    name: str, task: str, counts: tuple[int, ...], why: str
) -> None:
    labels, ours, theirs = made(task, counts)
    with pytest.raises(MetricError, match=f"{why}, fewer than 10.*seeds_test"):
        OF_AUC[name](labels, ours, theirs, task)


@pytest.mark.parametrize(("task", "counts", "why"), CASES)
def test_intervals_of_auc_have_no_ends_and_say_why(task: str, counts: tuple[int, ...], why: str) -> None:
    labels, ours, _ = made(task, counts)
    for found in (
        bootstrap_interval(labels, ours[0], task, resamples=20)["auc"],
        crossed_interval(labels, ours, task, resamples=20),
    ):
        assert (found.low, found.high) == (None, None)
        assert found.why.startswith(why)
        assert 0 <= found.value <= 1


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        ("binary", (10, 40)),
        ("ordinal", (60, 30, 20, 10, 0)),  # a class that no image has is left out
        ("multi-label", (30, 10, 0, 60)),  # labels that no image has, or all have, are, too
    ],
)
@pytest.mark.filterwarnings("ignore::qvit.evaluation.metrics.AbsentClassWarning")
def test_enough_is_enough(task: str, counts: tuple[int, ...]) -> None:
    labels, ours, theirs = made(task, counts)
    for test in OF_AUC.values():
        test(labels, ours, theirs, task)
    found = bootstrap_interval(labels, ours[0], task, resamples=20)
    assert all(one.low is not None and one.why == "" for one in found.values())
    assert crossed_interval(labels, ours, task, resamples=20).low is not None


@pytest.mark.parametrize("images", [29, 30])
def test_accuracy_needs_images_in_all(images: int) -> None:
    labels, ours, theirs = made("binary", (images - 5, 5))
    interval = bootstrap_interval(labels, ours[0], "binary", metrics=("acc",), resamples=20)["acc"]
    crossed = crossed_interval(labels, ours, "binary", metric="acc", resamples=20)
    if images < sampled.FEWEST_IN_ALL:
        with pytest.raises(MetricError, match="there are 29 images, fewer than 30"):
            compare_arms(labels, ours, theirs, "binary", metric="acc")
        assert interval.low is crossed.low is None
        assert interval.why == crossed.why == "there are 29 images, fewer than 30"
    else:
        compare_arms(labels, ours, theirs, "binary", metric="acc")
        assert interval.low is not None
        assert crossed.low is not None


def test_exact_tests_take_any_number_of_images() -> None:
    labels, ours, theirs = made("binary", (2, 1))
    assert mcnemar_test(labels, ours[0], theirs[0], "binary").p > 0.05
    assert permutation_test(labels, ours[0], theirs[0], "binary").p > 0.05


def test_nothing_is_said_of_enough_images() -> None:
    truth = np.repeat(np.arange(2), (10, 20))[:, np.newaxis]
    assert too_few_images(truth, "binary", "auc", classes=1) == ""
    assert too_few_images(truth, "binary", "acc", classes=1) == ""
