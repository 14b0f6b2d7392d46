"""Wrong labels and scores, which every measure must refuse with a message that helps."""

from typing import Any

import numpy as np
import pytest

from evaluation.measures import MEASURES
from qvit.errors import MetricError
from qvit.evaluation.metrics import (
    auc,
    expected_calibration_error,
)


@pytest.mark.parametrize(
    ("task", "labels", "scores", "message"),
    [
        ("multiclass", [0, 1], [[0.5, 0.5]] * 2, r"Unknown task 'multiclass'.*Did you mean 'multi-class'"),
        ("binary", [], [], "no images"),
        ("multi-class", np.zeros((0, 1), int), np.zeros((0, 3)), "no images"),
        ("binary", [0, 1], [2.5, -1.0], r"within \[0, 1\], but range from -1 to 2.5.*never logits.*sigmoid"),
        ("ordinal", [0, 1], [[1.00001, 0], [0, 1]], r"never logits. Apply a softmax"),
        ("binary", [0, 1], [0.1, np.nan], r"finite, but row 1 holds \[nan\]"),
        ("multi-label", [[0, 1]], [[0.1, np.inf]], r"finite, but row 0 holds \[0\.1, inf\]"),
        (
            "binary",
            [0, 1],
            [[0.1, 0.2, 0.7]] * 2,
            r"shape \(N,\), \(N, 1\) or \(N, 2\), but came as \(2, 3\)",
        ),
        ("multi-class", [0, 1], [[1.0]] * 2, r"C of at least 2, but came as \(2, 1\)"),
        ("multi-class", [0, 1], [0.1, 0.9], r"C of at least 2, but came as \(2,\)"),
        ("multi-label", [0, 1], [0.1, 0.9], r"shape \(N, K\), but came as \(2,\)"),
        ("multi-label", [0, 1], [[0.1], [0.9]], r"shape \(N, 1\), as the scores, but came as \(2,\)"),
        ("multi-label", [[0, 1]], [[0.1, 0.2, 0.3]], r"shape \(N, 3\), as the scores, but came as \(1, 2\)"),
        ("binary", [[0, 1]], [0.1, 0.9], r"Labels.*\(N,\) or \(N, 1\), but came as \(1, 2\)"),
        ("binary", [0, 1, 1], [0.1, 0.9], r"same images, but came for 3 and 2"),
        ("binary", [0, 2], [0.1, 0.9], r"within 0 to 1, but range from 0 to 2"),
        ("ordinal", [-1, 2], np.eye(3)[:2], r"within 0 to 2, but range from -1 to 2"),
        ("multi-class", [1, 3], np.eye(3)[:2], r"within 0 to 2, but range from 1 to 3"),
        ("multi-label", [[0, 2]], [[0.1, 0.2]], r"within 0 to 1"),
        ("binary", [0.0, 1.0], [0.1, 0.9], r"Labels must be integers, but their type is float64"),
        ("binary", [0, 1], [0.1j, 0.9], r"Scores must be real numbers, but their type is complex128"),
        ("binary", [0, 1], ["0.1", "0.9"], r"Scores must be real numbers"),
    ],
)
def test_wrong_input_is_refused(task: Any, labels: Any, scores: Any, message: str) -> None:
    for measure in MEASURES:
        with pytest.raises(MetricError, match=message):
            measure(labels, scores, task)


def test_scores_may_stray_by_rounding() -> None:
    assert auc([0, 1], [-5e-7, 1 + 5e-7], "binary") == 1.0


def test_no_bins_are_refused() -> None:
    with pytest.raises(MetricError, match="at least 1 bin, but 0"):
        expected_calibration_error([0, 1], [0.1, 0.9], "binary", bins=0)
