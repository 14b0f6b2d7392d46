"""Temperatures, risk against coverage, and thresholds, by hand and against SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import roc_curve

from qvit.errors import MetricError
from qvit.evaluation.calibration import (
    FEWEST,
    HOTTEST,
    confidence,
    decided,
    fit_temperature,
    of_truth,
    operating_threshold,
    risk_coverage,
    tempered,
    threshold_for_coverage,
    threshold_for_error,
    wrong,
)


def drawn(count: int, classes: int = 3, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn by their softmax."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, classes))
    chance = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (rng.random((count, 1)) > chance).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_tempered_scores_are_those_of_divided_logits(temperature: float) -> None:
    logits = np.random.default_rng(1).normal(scale=5, size=(40, 4))
    several = tempered(softmax(logits, axis=1), temperature, "multi-class")
    assert np.allclose(several, softmax(logits / temperature, axis=1))
    assert np.allclose(tempered(expit(logits), temperature, "multi-label"), expit(logits / temperature))


def test_certain_scores_stay_finite() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    for task in ("binary", "multi-label"):
        for temperature in (0.05, 2.0, 20.0):
            assert tempered(certain, temperature, task) == pytest.approx(certain, abs=1e-12)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_undoes_a_factor(factor: float) -> None:
    logits, labels = drawn(20_000)
    found = fit_temperature(labels, softmax(factor * logits, axis=1), "multi-class")
    assert found == pytest.approx(factor, rel=0.05)

    def loss(temperature: float) -> float:
        return -np.take_along_axis(log_softmax(factor * logits / temperature, axis=1), labels, axis=1).mean()

    assert loss(found) <= min(loss(1.001 * found), loss(found / 1.001)) + 1e-12


def test_the_temperature_of_labels() -> None:
    logits = 3 * np.random.default_rng(2).normal(size=(9000, 2))
    labels = (np.random.default_rng(3).random(logits.shape) < expit(logits)).astype(np.int64)
    assert fit_temperature(labels, expit(2 * logits), "multi-label") == pytest.approx(2, rel=0.05)


def test_a_temperature_has_bounds() -> None:
    labels = np.zeros((FEWEST, 1), np.int64)
    assert fit_temperature(labels, np.tile([0.6, 0.4], (FEWEST, 1)), "binary") == pytest.approx(1 / HOTTEST, rel=0.01)
    assert fit_temperature(labels, np.tile([0.4, 0.6], (FEWEST, 1)), "binary") == pytest.approx(HOTTEST, rel=0.01)


def test_few_images_have_no_temperature() -> None:
    with pytest.raises(MetricError, match=r"^A temperature needs at least 30 images, but there are 29\.$"):
        fit_temperature(np.zeros((29, 1), np.int64), np.full((29, 2), 0.5), "binary")


def test_what_is_told_of_an_answer() -> None:
    scores, labels = np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([[1], [1]])
    answers = decided(scores, "binary")
    assert answers.tolist() == [[False, True], [True, False]]
    assert confidence(scores, answers, "binary").tolist() == [0.8, 0.6]
    assert wrong(labels, answers, "binary").tolist() == [0, 1]
    assert of_truth(labels, scores, "binary").tolist() == [[0.8], [0.4]]
    several = np.array([[1, 0], [1, 1]])
    assert decided(scores, "multi-label").tolist() == [[False, True], [True, False]]
    assert confidence(scores, answers, "multi-label") == pytest.approx([0.8, 0.6])
    assert wrong(several, answers, "multi-label").tolist() == [1, 0.5]
    assert of_truth(several, scores, "multi-label") == pytest.approx(np.array([[0.2, 0.2], [0.6, 0.4]]))


def test_answers_at_an_operating_point_have_their_own_confidence() -> None:
    scores = np.array([[0.7, 0.3], [0.9, 0.1]])
    answers = decided(scores, "binary", np.array([0.3]))
    assert answers.tolist() == [[False, True], [True, False]]
    assert confidence(scores, answers, "binary").tolist() == [0.3, 0.9]
    labels = decided(scores, "multi-label", np.array([0.8, 0.3]))
    assert labels.tolist() == [[False, True], [True, False]]
    assert confidence(scores, labels, "multi-label") == pytest.approx([0.3, 0.9])


def test_risk_against_coverage_by_hand() -> None:
    curve = risk_coverage(np.array([0.9, 0.6, 0.8, 0.8]), np.array([0.0, 1.0, 1.0, 0.0]))
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0], "equal confidences come together"
    assert curve.risk == pytest.approx([0, 1 / 3, 0.5])
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.6]
    assert curve.area == pytest.approx(0.25 * 0 + 0.5 / 3 + 0.25 * 0.5)
    assert threshold_for_coverage(curve, 1.0) == 0.6
    assert threshold_for_coverage(curve, 0.75) == 0.8
    assert threshold_for_coverage(curve, 0.3) == 0.8, "at least that many"
    assert threshold_for_error(curve, 0.4) == 0.8
    assert threshold_for_error(curve, 1.0) == 0.6
    assert threshold_for_error(risk_coverage(np.array([0.9]), np.array([1.0])), 0.5) == np.inf


def test_an_error_that_rises_and_falls_again() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 0.0, 0.0]))
    assert threshold_for_error(curve, 0.25) == 0.6, "the most answers, though the first alone are worse"


@pytest.mark.parametrize("asked", [0.0, 1.1, np.nan])
def test_shares_are_checked(asked: float) -> None:
    curve = risk_coverage(np.array([0.9]), np.array([0.0]))
    with pytest.raises(MetricError, match="The coverage must be above 0"):
        threshold_for_coverage(curve, asked)
    with pytest.raises(MetricError, match="The error must be above 0"):
        threshold_for_error(curve, asked)


def test_no_answers_have_no_risk() -> None:
    with pytest.raises(MetricError, match=r"^Risk against coverage needs at least one image\.$"):
        risk_coverage(np.empty(0), np.empty(0))


@pytest.mark.parametrize("asked", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_operating_points_are_those_of_the_roc_curve(asked: float, ties: bool) -> None:
    rng = np.random.default_rng(4)
    positive = rng.random(200) < 0.4
    scores = np.clip(0.3 * positive + rng.normal(0.4, 0.2, 200), 0, 1)
    if ties:
        scores = scores.round(1)
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    at = operating_threshold(positive, scores, sensitivity=asked)
    assert (scores[positive] >= at).mean() >= asked
    assert (scores[~positive] >= at).mean() == pytest.approx(false[true >= asked - 1e-12].min())
    at = operating_threshold(positive, scores, specificity=asked)
    assert (scores[~positive] < at).mean() >= asked
    assert (scores[positive] >= at).mean() == pytest.approx(true[1 - false >= asked - 1e-12].max())


def test_operating_points_that_there_are_not() -> None:
    positive, scores = np.array([True, True]), np.array([0.1, 0.9])
    with pytest.raises(MetricError, match=r"^An operating point needs at least one negative image\.$"):
        operating_threshold(positive, scores, specificity=0.9)
    with pytest.raises(MetricError, match=r"^An operating point needs at least one positive image\.$"):
        operating_threshold(~positive, scores, sensitivity=0.9)
    for both in ({}, {"sensitivity": 0.9, "specificity": 0.9}):
        with pytest.raises(MetricError, match=r"^Give a sensitivity or a specificity, not both\.$"):
            operating_threshold(positive, scores, **both)
    with pytest.raises(MetricError, match=r"^The specificity must be above 0 and at most 1, but came as 0\.$"):
        operating_threshold(positive, scores, specificity=0)
