"""Metrics against medmnist (AUC, accuracy) and scikit-learn (the rest), and what happens at the edges."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medmnist.evaluator import getACC, getAUC
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, recall_score

from evaluation.measures import MEASURES
from qvit.errors import MetricError
from qvit.evaluation.agreement import agreement, divergence
from qvit.evaluation.inputs import Task
from qvit.evaluation.medmnist_files import write_result
from qvit.evaluation.metrics import (
    AbsentClassWarning,
    accuracy,
    auc,
    balanced_accuracy,
    cohen_kappa,
    decide,
    evaluate,
    expected_calibration_error,
    f1,
    log_loss,
    sensitivity,
    specificity,
)
from qvit.evaluation.paired import compare_arms
from qvit.evaluation.statistics import crossed_interval

Array = np.ndarray[Any, Any]

MEDMNIST_TASK: dict[Task, str] = {
    "binary": "binary-class",
    "multi-class": "multi-class",
    "multi-label": "multi-label, binary-class",
    "ordinal": "ordinal-regression",
}
TASKS = tuple(MEDMNIST_TASK)
EXACT = 1e-12


def make_case(task: Task, *, seed: int, images: int = 53, classes: int = 5) -> tuple[Array, Array]:
    """Return labels in which every class occurs (and, a label, both values), and scores in [0, 1]."""
    rng = np.random.default_rng(seed)
    if task == "binary":
        return rng.permutation(np.arange(images) % 2)[:, None], rng.random((images, 2))
    scores = rng.random((images, classes))
    if task == "multi-label":
        labels = (rng.random((images, classes)) < 0.3).astype(np.uint8)
        labels[0], labels[-1] = 0, 1
        return labels, scores
    return rng.permutation(np.arange(images) % classes)[:, None].astype(np.uint8), scores


def tied(scores: Array, *, steps: int = 4) -> Array:
    return np.round(scores * steps) / steps


def perfect(labels: Array, scores: Array, task: Task) -> Array:
    if task == "multi-label":
        return labels.astype(float)
    return (labels == np.arange(scores.shape[1])).astype(float)


def check_against_medmnist(labels: Array, scores: Array, task: Task) -> None:
    assert auc(labels, scores, task) == pytest.approx(getAUC(labels, scores, MEDMNIST_TASK[task]), abs=EXACT)
    assert accuracy(labels, scores, task) == pytest.approx(getACC(labels, scores, MEDMNIST_TASK[task]), abs=EXACT)


@pytest.mark.long
@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(7, 61),
    classes=st.integers(2, 7),
    steps=st.sampled_from([0, 1, 2, 4, 10]),
    single=st.booleans(),
)
def test_auc_and_accuracy_are_medmnists(
    task: Task, seed: int, images: int, classes: int, steps: int, single: bool
) -> None:
    labels, scores = make_case(task, seed=seed, images=images, classes=classes)
    if steps:
        scores = tied(scores, steps=steps)
    check_against_medmnist(labels, scores.astype(np.float32) if single else scores, task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("constant", [0.0, 0.3, 0.5, 1.0])
def test_constant_scores_are_medmnists(task: Task, constant: float) -> None:
    labels, scores = make_case(task, seed=1)
    check_against_medmnist(labels, np.full_like(scores, constant), task)
    assert auc(labels, np.full_like(scores, constant), task) == 0.5


@pytest.mark.parametrize("task", TASKS)
def test_perfect_scores_are_medmnists_and_get_full_marks(task: Task) -> None:
    labels, scores = make_case(task, seed=2)
    scores = perfect(labels, scores, task)
    check_against_medmnist(labels, scores, task)
    result = evaluate(labels, scores, task)
    assert result.pop("ece") == result.pop("log_loss") == 0.0
    assert result == dict.fromkeys(result, 1.0)
    if task == "multi-label":
        assert auc(labels, 1 - scores, task) == accuracy(labels, 1 - scores, task) == 0.0


@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal"])
def test_flat_labels_are_medmnists(task: Task) -> None:
    labels, scores = make_case(task, seed=3)
    check_against_medmnist(labels[:, 0], scores, task)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_column_binary_is_medmnists(shape: tuple[int, ...]) -> None:
    labels, scores = make_case("binary", seed=4)
    for column in (scores[:, 1], tied(scores[:, 1])):
        check_against_medmnist(labels, column.reshape(shape), "binary")


def test_one_and_two_column_binary_agree_on_everything() -> None:
    labels, scores = make_case("binary", seed=5)
    positive = scores[:, 1]
    both = evaluate(labels, np.stack([1 - positive, positive], axis=1), "binary")
    assert both == evaluate(labels, positive, "binary") == evaluate(labels[:, 0], positive[:, None], "binary")
    assert both == evaluate(labels, positive[:, None], "multi-label")


def test_decisions_on_ties_follow_medmnist() -> None:
    assert decide([0.5, 0.5 + 1e-9], "binary").tolist() == [0, 1]
    assert decide([[0.4, 0.6], [0.5, 0.5]], "binary").tolist() == [1, 0]
    assert decide([[0.5, 0.6, 0.1]], "multi-label").tolist() == [[0, 1, 0]]
    assert decide([[0.2, 0.4, 0.4], [0.5, 0.0, 0.5]], "ordinal").tolist() == [1, 0]


def decided_and_true(task: Task, seed: int) -> tuple[Array, Array, Array, Array]:
    labels, scores = make_case(task, seed=seed, images=101)
    return labels, scores, labels if task == "multi-label" else labels[:, 0], decide(scores, task)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal"])
def test_single_label_measures_are_scikit_learns(task: Task, seed: int) -> None:
    labels, scores, true, said = decided_and_true(task, seed)
    average = "binary" if task == "binary" else "macro"
    weights = "quadratic" if task == "ordinal" else None
    assert balanced_accuracy(labels, scores, task) == pytest.approx(balanced_accuracy_score(true, said))
    assert f1(labels, scores, task) == pytest.approx(f1_score(true, said, average=average))
    assert cohen_kappa(labels, scores, task) == pytest.approx(cohen_kappa_score(true, said, weights=weights))
    assert sensitivity(labels, scores, task) == pytest.approx(recall_score(true, said, average=average))
    questions = [1] if task == "binary" else range(5)
    expected = np.mean([recall_score(true == q, said == q, pos_label=False) for q in questions])
    assert specificity(labels, scores, task) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_multi_label_measures_are_means_over_labels(seed: int) -> None:
    labels, scores, true, said = decided_and_true("multi-label", seed)
    pairs = list(zip(true.T, said.T, strict=True))
    for ours, theirs in [
        (balanced_accuracy, balanced_accuracy_score),
        (f1, f1_score),
        (cohen_kappa, cohen_kappa_score),
        (sensitivity, recall_score),
        (specificity, lambda t, s: recall_score(t, s, pos_label=0)),
    ]:
        expected = np.mean([theirs(t, s) for t, s in pairs])
        assert ours(labels, scores, "multi-label") == pytest.approx(expected)


def test_ordinal_kappa_weighs_distance_on_the_full_scale() -> None:
    # Class 2 of 0..3 never occurs; on a scale of only the classes seen, 1 and 3 would be neighbours.
    true, said = np.array([0, 1, 3, 3, 0, 1]), np.array([0, 3, 3, 1, 1, 1])
    scores = np.eye(4)[said]
    expected = cohen_kappa_score(true, said, weights="quadratic", labels=range(4))
    assert cohen_kappa(true, scores, "ordinal") == pytest.approx(expected)
    assert expected != pytest.approx(cohen_kappa_score(true, said, weights="quadratic"))
    assert cohen_kappa(true, scores, "multi-class") == pytest.approx(cohen_kappa_score(true, said))


def test_calibration_error_by_hand() -> None:
    # Two bins, (0, 0.5] and (0.5, 1]: 0.4 right and 0.5 wrong below; 0.8 right and 0.6 wrong above.
    scores = [[0.4, 0.3, 0.3], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]]
    below, above = abs(1 - (0.4 + 0.5)), abs(1 - (0.8 + 0.6))
    error = expected_calibration_error([0, 1, 1, 0], scores, "multi-class", bins=2)
    assert error == pytest.approx((below + above) / 4)


def test_binary_calibration_error_by_hand() -> None:
    # Confidences 0.9 right, 0.9 wrong, 0.7 right; fifteen bins keep 0.9 and 0.7 apart.
    expected = (abs(1 - 1.8) + abs(1 - 0.7)) / 3
    assert expected_calibration_error([1, 1, 0], [0.9, 0.1, 0.3], "binary") == pytest.approx(expected)
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    scores = np.array([[0.9, 0.0], [0.1, 1.0], [0.3, 0.0]])
    assert expected_calibration_error(labels, scores, "multi-label") == pytest.approx(expected / 2)


def test_calibration_errors_of_two_labels_do_not_cancel() -> None:
    # The same confidence, 0.8, right for one label and wrong for the other.
    error = expected_calibration_error([[1, 0]], [[0.8, 0.8]], "multi-label")
    assert error == pytest.approx((0.2 + 0.8) / 2)


def test_the_number_of_bins_bites() -> None:
    labels, scores = make_case("multi-class", seed=6)
    one = expected_calibration_error(labels, scores, "multi-class", bins=1)
    assert one == pytest.approx(abs(accuracy(labels, scores, "multi-class") - scores.max(axis=1).mean()))
    assert one < expected_calibration_error(labels, scores, "multi-class", bins=15)


@pytest.mark.parametrize("task", ["multi-class", "ordinal"])
def test_a_class_that_no_image_has_is_left_out(task: Task) -> None:
    labels, scores = make_case(task, seed=7)
    labels[labels == 3] = 1
    with pytest.warns(AbsentClassWarning, match=r"mean over 4 of 5, without class 3, which no image has"):
        value = auc(labels, scores, task)
    others = [0, 1, 2, 4]
    expected = np.mean([getAUC(labels == c, scores[:, c], "binary-class") for c in others])
    assert value == pytest.approx(expected, abs=EXACT)
    assert accuracy(labels, scores, task) == getACC(labels, scores, MEDMNIST_TASK[task])
    said = decide(scores, task)
    recalls = [np.mean(said[labels[:, 0] == c] == c) for c in others]
    rejections = [np.mean(said[labels[:, 0] != c] != c) for c in others]
    assert sensitivity(labels, scores, task) == pytest.approx(np.mean(recalls))
    assert balanced_accuracy(labels, scores, task) == pytest.approx(np.mean(recalls))
    assert specificity(labels, scores, task) == pytest.approx(np.mean(rejections))


def test_a_class_that_one_image_has_counts() -> None:
    labels, scores = np.array([0, 0, 0, 1]), np.eye(2)[[0, 1, 0, 1]]
    assert sensitivity(labels, scores, "multi-class") == pytest.approx((2 / 3 + 1) / 2)
    assert specificity(labels, scores, "multi-class") == pytest.approx((1 + 2 / 3) / 2)


def test_labels_that_no_image_or_every_image_has_are_left_out() -> None:
    labels, scores = make_case("multi-label", seed=8)
    labels[:, 1], labels[:, 4] = 0, 1
    with pytest.warns(AbsentClassWarning, match=r"over 3 of 5, without label 1, 4, which"):
        value = auc(labels, scores, "multi-label")
    kept = [0, 2, 3]
    assert value == pytest.approx(auc(labels[:, kept], scores[:, kept], "multi-label"))
    assert sensitivity(labels, scores, "multi-label") == pytest.approx(
        sensitivity(labels[:, [0, 2, 3, 4]], scores[:, [0, 2, 3, 4]], "multi-label")
    )
    assert specificity(labels, scores, "multi-label") == pytest.approx(
        specificity(labels[:, [0, 1, 2, 3]], scores[:, [0, 1, 2, 3]], "multi-label")
    )


def test_f1_of_an_absent_class_is_zero_if_predicted_and_left_out_if_not() -> None:
    assert f1([0, 1, 0], np.eye(3)[[0, 1, 0]], "multi-class") == 1.0
    assert f1([0, 1, 0], np.eye(3)[[0, 1, 2]], "multi-class") == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize("task", TASKS)
def test_one_image_has_no_auc_but_all_else(task: Task) -> None:
    labels, scores = make_case(task, seed=9, images=1)
    labels[0] = 0
    scores = perfect(labels, scores, task)
    for function in (auc, evaluate):
        with pytest.raises(MetricError, match=r"all 1 have the same labels"):
            function(labels, scores, task)
    assert accuracy(labels, scores, task) == balanced_accuracy(labels, scores, task) == 1.0
    assert expected_calibration_error(labels, scores, task) == 0.0
    # Labels and decisions are the same constant: kappa is 0/0, and so is one of the rates.
    assert cohen_kappa(labels, scores, task) == 0.0
    if task in ("binary", "multi-label"):
        assert (sensitivity(labels, scores, task), specificity(labels, scores, task)) == (0.0, 1.0)
        assert f1(labels, scores, task) == 0.0
    else:
        assert (sensitivity(labels, scores, task), specificity(labels, scores, task)) == (1.0, 0.0)
        assert f1(labels, scores, task) == 1.0


@pytest.mark.parametrize("task", TASKS)
def test_labels_all_the_same_have_no_auc(task: Task) -> None:
    labels, scores = make_case(task, seed=10)
    with pytest.raises(MetricError, match=r"all 53 have the same labels \(\[1"):
        auc(np.ones_like(labels), scores, task)


def test_one_label_keeps_its_axis() -> None:
    labels, scores = make_case("binary", seed=11)
    one = scores[:, 1:]
    expected = getAUC(labels, one, "binary-class"), getACC(labels, one, "binary-class")
    assert (auc(labels, one, "multi-label"), accuracy(labels, one, "multi-label")) == pytest.approx(expected)
    assert decide(one, "multi-label").shape == one.shape


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_measure_is_a_number_in_its_range(task: Task, data: st.DataObject) -> None:
    images, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 4))
    columns = {"binary": 1, "multi-label": classes}.get(task, classes)
    top = 1 if task in ("binary", "multi-label") else classes - 1
    wide = classes if task == "multi-label" else 1
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels, scores = draw.integers(0, top + 1, (images, wide)), tied(draw.random((images, columns)), steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsentClassWarning)
        for measure in MEASURES[1:-1]:
            value = measure(labels, scores, task)
            assert type(value) is float
            assert (-1 if measure is cohen_kappa else 0) <= value <= (35 if measure is log_loss else 1)
        try:
            assert 0 <= auc(labels, scores, task) <= 1
        except MetricError:
            assert (labels == labels[0]).all()


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_gathers_the_measures_by_name(task: Task) -> None:
    labels, scores = make_case(task, seed=12)
    if task != "multi-label":
        scores = scores / scores.sum(axis=1, keepdims=True)
    names = ("auc", "acc", "balanced_acc", "f1", "kappa", "sensitivity", "specificity", "ece", "log_loss")
    expected = {name: f(labels, scores, task) for name, f in zip(names, MEASURES, strict=False)}
    result = evaluate(labels, scores, task)
    assert result == expected
    assert list(result) == list(names)
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal"])
def test_evaluate_wants_rows_that_sum_to_one(task: Task) -> None:
    labels, scores = make_case(task, seed=13)
    scores = scores / scores.sum(axis=1, keepdims=True)
    scores[3, 0] += 0.0009
    evaluate(labels, scores, task)
    near = scores.copy()
    near[3] *= 0.97
    with pytest.raises(
        MetricError, match=r"must sum to 1, but row 3 sums to 0\.97.* rounded too much, or lack a class"
    ):
        evaluate(labels, near, task)
    scores[3] *= 0.5
    with pytest.raises(MetricError, match=r"must sum to 1, but row 3 sums to 0\.50.* Apply a softmax"):
        evaluate(labels, scores, task)


@pytest.mark.parametrize(
    ("dtype", "classes"),
    [
        (torch.bfloat16, 2),
        (torch.bfloat16, 9),
        (torch.bfloat16, 100),
        (torch.float16, 3),
        (torch.float32, 9),
        (torch.float64, 2),
    ],
)
def test_evaluate_takes_a_softmax_of_any_precision(dtype: torch.dtype, classes: int) -> None:
    """Each rounds its probabilities; the sum of a row is off by as much. Bfloat16 has to be widened for NumPy."""
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1000, classes, generator=random, dtype=torch.float64)
    for of in (logits, logits.to(dtype)):
        scores = of.softmax(dim=1).to(dtype)
        scores = scores.float().numpy() if dtype == torch.bfloat16 else scores.numpy()
        labels = np.arange(1000) % classes
        assert 0 < evaluate(labels, scores, "multi-class")["log_loss"] < np.inf
        assert agreement(scores, scores, "multi-class") == 1
        assert divergence(scores, scores, "multi-class") == pytest.approx(0, abs=1e-12)
    if dtype == torch.bfloat16:
        assert np.abs(scores.sum(axis=1) - 1).max() > 1e-3  # which float32 is not allowed
        with pytest.raises(MetricError, match="rounded too much"):
            evaluate(labels, scores + np.float32(1e-7), "multi-class")


def test_scores_that_are_no_array() -> None:
    for scores in (torch.ones(3, 2, dtype=torch.bfloat16), torch.ones(3, 2, requires_grad=True), [[0.5, 0.5], [1.0]]):
        with pytest.raises(MetricError, match=r"Scores must be an array of numbers, .*detach\(\)\.cpu\(\)\.float\(\)"):
            evaluate([0, 1, 0], scores, "multi-class")


@pytest.mark.parametrize("scores", [torch.ones(3, 2, dtype=torch.bfloat16), torch.ones(3, 2, requires_grad=True)])
def test_nor_are_they_for_seeds_and_files(scores: torch.Tensor, tmp_path: Path) -> None:
    told = r"Scores must be an array of numbers, .*detach\(\)\.cpu\(\)\.float\(\)"
    with pytest.raises(MetricError, match=told):
        crossed_interval([0, 1, 0], scores[None], "multi-class", metric="acc")
    with pytest.raises(MetricError, match=told):
        compare_arms([0, 1, 0], scores[None], scores[None], "multi-class")
    with pytest.raises(MetricError, match=told):
        write_result(tmp_path, "retinamnist", 28, "test", scores, 0.5, 0.5, "run")


@pytest.mark.parametrize("task", TASKS)
def test_log_loss_is_scikit_learns(task: Task) -> None:
    labels, scores = make_case(task, seed=21)
    if task != "multi-label":
        scores = scores / scores.sum(axis=1, keepdims=True)
        expected = sklearn_metrics.log_loss(labels[:, 0], scores)
    else:
        columns = range(labels.shape[1])
        expected = np.mean([sklearn_metrics.log_loss(labels[:, k], scores[:, k]) for k in columns])
    assert log_loss(labels, scores, task) == pytest.approx(expected, abs=EXACT)


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    assert log_loss([1, 1], [0.0, 1.0], "binary") == pytest.approx(-np.log(1e-15) / 2)
