"""Comparisons of arms, models, seeds and effects that cannot be are refused, and say why."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qvit.errors import MetricError
from qvit.evaluation.influence import image_influence
from qvit.evaluation.paired import (
    Comparison,
    compare_arms,
    contrast,
    delong_test,
    hedges_g,
    holm,
    mcnemar_test,
    permutation_test,
    seeds_test,
    superiority,
)

Test = Callable[..., Comparison]
ONE = np.array([[0.2, 0.7, 0.6]])
LABELS = [0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((LABELS, ONE, np.repeat(ONE, 2, axis=0), "binary"), {}, "came with 1 and 2 seeds.*the same seeds in the same"),
        ((LABELS, ONE, ONE, "binary"), {"metric": "f1"}, "Only 'auc' and 'acc' can be compared, but 'f1'"),
        ((LABELS, ONE, ONE, "binary"), {"metric": "auk"}, "Did you mean 'auc'"),
        ((LABELS, ONE, ONE, "binary"), {"level": 95}, "between 0 and 1"),
        ((LABELS, ONE, ONE, "binry"), {}, "Did you mean 'binary'"),
        ((LABELS, ONE[0], ONE, "binary"), {}, r"Arm 0 .*shape \(S, N\) or \(S, N, C\).*came as \(3,\)"),
        ((LABELS, ONE, ONE[:, :2], "binary"), {}, "Arm 1 .*seed 0 .*same images, but came for 3 and 2"),
        ((LABELS, ONE, ONE * np.nan, "binary"), {}, "Arm 1 .*seed 0 .*finite"),
        ((LABELS, ONE * 9, ONE, "binary"), {}, "Arm 0 .*never logits"),
        ((LABELS, np.zeros((0, 3)), ONE, "binary"), {}, "S of at least 1"),
        (([1, 1, 1], ONE, ONE, "binary"), {}, "all 3 have the same labels"),
        (
            ([0, 1], ONE[:, :2], ONE[:, :2], "binary"),
            {},
            "AUC over random images .*: class 1 has 1 images, fewer than 10.*compare accuracies",
        ),
        (
            ([1], ONE[:, :1], ONE[:, :1], "binary"),
            {"metric": "acc"},
            "ACC over random images .*: there are 1 images, fewer than 30",
        ),
        (([0, 1], np.eye(2)[None], np.eye(3)[None, :2], "multi-class"), {"metric": "acc"}, "score the same classes"),
    ],
)
def test_wrong_arms_are_refused(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        compare_arms(*arguments, **options)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1, -1, 0), "Each of 2 arms needs a finite weight"),
        ((1, math.nan), "finite weight"),
        ((1, 1), r"sum to 0 .*came as \[1, 1\]"),
        ((0, 0), "not all be 0"),
    ],
)
def test_wrong_weights_are_refused(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        contrast(LABELS, [ONE, ONE], weights, "binary")


def test_ragged_seeds_are_refused() -> None:
    with pytest.raises(MetricError, match=r"Arm 0 .*All seeds must score the same images"):
        compare_arms(LABELS, [[0.1, 0.2, 0.3], [0.1, 0.2]], ONE, "binary")


@pytest.mark.parametrize("test", [delong_test, mcnemar_test, permutation_test])
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((LABELS, ONE[0], ONE[0, :2], "binary"), {}, "same images, but came for 3 and 2"),
        ((LABELS, ONE[0], ONE[0] * np.inf, "binary"), {}, "finite"),
        ((LABELS, ONE[0], ONE[0], "binary"), {"level": 0.0}, "between 0 and 1"),
        ((LABELS, ONE[0], ONE[0], "multi"), {}, "Unknown task 'multi'"),
        (([0, 1], np.eye(2), np.eye(3)[:2], "multi-class"), {}, r"same classes.*\(2, 2\) and \(2, 3\)"),
    ],
)
def test_wrong_models_are_refused(
    test: Test, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        test(*arguments, **options)


def test_what_single_tests_cannot_do() -> None:
    with pytest.raises(MetricError, match=r"multi-label image has several\. Use permutation_test"):
        mcnemar_test([[0, 1]], [[0.1, 0.9]], [[0.1, 0.9]], "multi-label")
    with pytest.raises(MetricError, match="all 2 have the same labels"):
        delong_test([1, 1], [0.1, 0.9], [0.1, 0.9], "binary")
    with pytest.raises(MetricError, match="class 1 has 1 images, fewer than 10"):
        delong_test([0, 1], [0.1, 0.9], [0.1, 0.9], "binary")
    with pytest.raises(MetricError, match="at least 2 images, but came with 1"):
        permutation_test([1], [0.1], [0.9], "binary")
    with pytest.raises(MetricError, match="can be traced to images, but 'f1'"):
        image_influence([0, 1], [0.1, 0.9], "binary", metric="f1")


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([0.1, 0.2], [0.1, 0.2, 0.3], "came with 2 and 3 seeds"),
        ([0.1], [0.2], "at least 2 of them, but came with 1"),
        ([], [], "no values"),
        ([0.1, math.nan], [0.1, 0.2], "finite"),
        ([0.1, 0.2], [0.1, math.inf], "finite"),
    ],
)
def test_wrong_seeds_are_refused(ours: list[float], theirs: list[float], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        seeds_test(ours, theirs)


def test_wrong_effects_are_refused() -> None:
    for size in (hedges_g, superiority):
        with pytest.raises(MetricError, match="no values"):
            size([], [0.1])
        with pytest.raises(MetricError, match="finite"):
            size([0.1, 0.2], [0.1, math.nan])
    for wrong in ([0.1, 1.1], [-0.1], [math.nan]):
        with pytest.raises(MetricError, match=r"within \[0, 1\]"):
            holm(wrong)
