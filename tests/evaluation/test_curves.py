"""Curves and counts against loops over images and thresholds that are slow and plain."""

from itertools import pairwise

import numpy as np
import pytest

from qvit.evaluation.calibration import decided
from qvit.evaluation.curves import confusion, curves, outcomes, reliability
from qvit.evaluation.metrics import auc, expected_calibration_error, rates_by_class

Array = np.ndarray


def made(task: str, n: int = 37, classes: int = 3, *, levels: int = 8) -> tuple[Array, Array]:
    """Labels, and scores of few levels, so that many are equal."""
    rng = np.random.default_rng(classes)
    raw = rng.integers(1, levels, (n, 2 if task == "binary" else classes))
    if task == "multi-label":
        return rng.integers(0, 2, (n, classes)), raw / levels
    return rng.integers(0, raw.shape[1], (n, 1)), raw / raw.sum(axis=1, keepdims=True)


def questions(labels: Array, scores: Array, task: str) -> list[tuple[list[bool], list[float]]]:
    if task == "binary":
        return [((labels[:, 0] == 1).tolist(), scores[:, 1].tolist())]
    truth = labels == 1 if task == "multi-label" else labels == np.arange(scores.shape[1])
    return [(truth[:, k].tolist(), scores[:, k].tolist()) for k in range(scores.shape[1])]


def counted(truth: list[bool], scores: list[float], threshold: float) -> tuple[int, int, int, int]:
    """True and false positives, negatives and positives in all, one image after the other."""
    found = alarms = 0
    for positive, score in zip(truth, scores, strict=True):
        if score >= threshold:
            found, alarms = found + positive, alarms + (not positive)
    return found, alarms, truth.count(False), truth.count(True)


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_curves_are_those_of_a_slow_count(task: str) -> None:
    labels, scores = made(task)
    found = curves(labels, scores, task)
    rows = questions(labels, scores, task)
    assert len(found) == len(rows) == (1 if task == "binary" else 3)
    for curve, (truth, told) in zip(found, rows, strict=True):
        assert curve is not None
        points, area, average, last = {(0.0, 0.0)}, 0.0, 0.0, (0.0, 0.0)
        precise = set()
        for threshold in sorted(set(told), reverse=True):
            positives, alarms, no, yes = counted(truth, told, threshold)
            point = alarms / no, positives / yes
            area += (point[0] - last[0]) * (point[1] + last[1]) / 2
            average += (point[1] - last[1]) * positives / (positives + alarms)
            precise.add((point[1], positives / (positives + alarms)))
            points.add(point)
            last = point
        assert set(zip(curve.fpr.tolist(), curve.tpr.tolist(), strict=True)) <= points
        assert set(zip(curve.recall.tolist()[:-1], curve.precision.tolist()[:-1], strict=True)) <= precise
        assert (curve.recall[-1], curve.precision[-1]) == (0, 1)
        assert curve.recall[0] == 1
        assert curve.auc == pytest.approx(area)
        assert curve.average_precision == pytest.approx(average)
        assert curve.prevalence == pytest.approx(sum(truth) / len(truth))
        pairs = [(r, p) for r, p in zip(curve.recall, curve.precision, strict=True)]
        assert sum((a[0] - b[0]) * a[1] for a, b in pairwise(pairs)) == pytest.approx(average), "the area under steps"
    assert np.mean([curve.auc for curve in found if curve]) == pytest.approx(auc(labels, scores, task))


def test_equal_scores_tell_nothing() -> None:
    [curve] = curves(np.array([0, 1, 1, 0, 0]), np.full(5, 0.3), "binary")
    assert curve is not None
    assert (curve.auc, curve.average_precision, curve.prevalence) == (0.5, 0.4, 0.4)
    assert (curve.fpr.tolist(), curve.tpr.tolist()) == ([0, 1], [0, 1])


def test_a_class_without_images_or_without_others_has_no_curve() -> None:
    labels, scores = made("multi-class", classes=4)
    some = labels[:, 0] < 2
    assert [curve is None for curve in curves(labels[some], scores[some], "multi-class")] == [False, False, True, True]
    several = np.array([[1, 0, 1], [1, 0, 0]])
    found = curves(several, np.full((2, 3), 0.5), "multi-label")
    assert [curve is None for curve in found] == [True, True, False]


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_outcomes_are_counted_one_by_one(task: str) -> None:
    labels, scores = made(task)
    answers = decided(scores, task)
    found = outcomes(labels, answers, task)
    for counts, (truth, _), said in zip(
        found, questions(labels, scores, task), answers.T[-len(found) :].tolist(), strict=True
    ):
        expected = [[0, 0], [0, 0]]
        for positive, answer in zip(truth, said, strict=True):
            expected[int(positive)][int(answer)] += 1
        assert counts.tolist() == expected
    sensitivity, specificity = rates_by_class(labels, scores, task)
    assert (found[:, 1, 1] / found[:, 1].sum(axis=1)).tolist() == pytest.approx(sensitivity.tolist())
    assert (found[:, 0, 0] / found[:, 0].sum(axis=1)).tolist() == pytest.approx(specificity.tolist())


def test_a_confusion_matrix_has_a_row_for_each_class() -> None:
    labels = np.array([[0], [2], [2], [2]])
    answers = np.eye(4, dtype=bool)[[0, 2, 1, 1]]
    assert confusion(labels, answers).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]
    everywhere = outcomes(labels, answers, "multi-class")
    assert everywhere[3].tolist() == [[4, 0], [0, 0]], "no image has it, none is said to"


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_reliability_is_counted_one_by_one(task: str) -> None:
    labels, scores = made(task, 200)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for truth, row in zip(labels.tolist(), scores.tolist(), strict=True):
        decisions = [(max(row), row.index(max(row)) == truth[0])]
        if task != "multi-class":
            yes = row[1:] if task == "binary" else row
            decisions = [(max(p, 1 - p), (p > 0.5) == t) for p, t in zip(yes, truth, strict=True)]
        for confidence, right in decisions:
            place = next(k for k in range(15) if confidence <= np.linspace(0, 1, 16)[k + 1])
            bins.setdefault(place, []).append((confidence, right))
    found = reliability(labels, scores, task)
    expected = [bins[place] for place in sorted(bins)]
    assert found.counts.tolist() == [len(each) for each in expected]
    assert found.confidence == pytest.approx([np.mean([c for c, _ in each]) for each in expected])
    assert found.accuracy == pytest.approx([np.mean([r for _, r in each]) for each in expected])
    if task != "multi-label":
        gap = np.abs(found.accuracy - found.confidence) @ found.counts / found.counts.sum()
        assert gap == pytest.approx(expected_calibration_error(labels, scores, task))
