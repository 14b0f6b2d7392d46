"""What a distillation measures: against scikit-learn and loops, by hand, and where there is nothing to measure."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from qvit.data.arrays import Dataset, Split
from qvit.distill import Teacher
from qvit.distill.measures import measures
from qvit.models.cost import count_flops
from qvit.training.config import TrainConfig
from qvit.training.folder import Run

MakeData = Callable[..., Dataset]
CLASSES = {"binary": 2, "multi-class": 4, "ordinal": 5, "multi-label": 3}


@dataclass(frozen=True, eq=False)
class Saying(Teacher):
    """A teacher with given scores of the test images."""

    said: Any = None

    def scores(self, data: Dataset, split: str, config: TrainConfig) -> np.ndarray:
        assert (split, config) == ("test", TrainConfig(tta="never"))
        return self.said


@dataclass(frozen=True)
class Told(Run):
    """A run with given predictions of the test images."""

    told: Any = None

    def predictions(self, split: str) -> np.ndarray:
        assert split == "test"
        return self.told


@pytest.fixture
def measured(make_run: Callable[..., Run], uncounted: None) -> Callable[..., dict[str, Any]]:
    """The measures of a teacher and of stages by their scores."""

    def measure(data: Dataset, taught: np.ndarray, **stages: np.ndarray) -> dict[str, Any]:
        folder = make_run().folder
        teacher = Saying("some", (nn.Linear(432, 4),), "", said=taught)
        runs: Any = {stage: Told(folder, told=scores) for stage, scores in stages.items()}
        return measures(teacher, runs, data, TrainConfig(tta="never")).as_json()

    return measure


# --- recomputed ---


def yes_or_no(scores: np.ndarray, labels: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """The probability and the truth of each answer, (n, questions)."""
    if task == "multi-label":
        return scores, labels
    return (scores[:, 1:], labels) if task == "binary" else (scores, labels == np.arange(scores.shape[1]))


def decided(scores: np.ndarray, task: str) -> np.ndarray:
    return (scores > 0.5).astype(int) if task == "multi-label" else scores.argmax(axis=1)[:, None]


def calibration_error(scores: np.ndarray, labels: np.ndarray, task: str) -> float:
    """Guo et al.'s equation 3, bin by bin."""
    decisions = decided(scores, task)
    right = decisions == labels
    sure = np.maximum(scores, 1 - scores) if task == "multi-label" else scores.max(axis=1)[:, None]
    total = 0.0
    for right_one, sure_one in zip(right.T, sure.T, strict=True):
        for low in range(15):
            inside = (sure_one > low / 15) & (sure_one <= (low + 1) / 15)
            if inside.any():
                total += inside.sum() * abs(right_one[inside].mean() - sure_one[inside].mean())
    return float(total / right.size)


def surprise(student: np.ndarray, teacher: np.ndarray, task: str) -> float:
    """KL(teacher ‖ student), image by image."""
    if task == "multi-label":
        parts = [
            p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
            for q, p in zip(student.ravel(), teacher.ravel(), strict=True)
        ]
    else:
        parts = [
            sum(p * np.log(p / q) for q, p in zip(ours, theirs, strict=True))
            for ours, theirs in zip(student, teacher, strict=True)
        ]
    return float(np.mean(parts))


def figures(scores: np.ndarray, labels: np.ndarray, task: str) -> dict[str, float]:
    probability, truth = yes_or_no(scores, labels, task)
    areas = [roc_auc_score(truth[:, k], probability[:, k]) for k in range(truth.shape[1])]
    said = np.where(truth == 1, probability, 1 - probability)
    losses = scores[np.arange(len(labels)), labels[:, 0]] if task != "multi-label" else said
    return {
        "auc": float(np.mean(areas)),
        "acc": float(np.mean(decided(scores, task) == labels)),
        "ece": calibration_error(scores, labels, task),
        "log_loss": float(-np.log(losses).mean()),
    }


def guesses(rng: np.random.Generator, labels: np.ndarray, task: str, better: float) -> np.ndarray:
    """Scores that are the better, the surer of the labels."""
    hot = labels if task == "multi-label" else labels == np.arange(CLASSES[task])
    logits = rng.standard_normal(hot.shape) + better * hot
    chances = np.exp(logits) / (1 + np.exp(logits))
    return chances if task == "multi-label" else np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("task", CLASSES)
def test_the_measures_recomputed(measured: Any, make_data: MakeData, task: str) -> None:
    data, rng = make_data(task), np.random.default_rng(0)
    labels = data.test.labels
    taught = guesses(rng, labels, task, 2.0)
    told = {stage: guesses(rng, labels, task, better) for stage, better in (("scratch", 0.0), ("finetune", 1.0))}
    found = measured(data, taught, **told)
    assert {name: found["teacher"][name] for name in figures(taught, labels, task)} == pytest.approx(
        figures(taught, labels, task)
    )
    assert found["teacher"]["name"] == "some"
    ahead = figures(taught, labels, task), figures(told["scratch"], labels, task)
    for stage, scores in told.items():
        own = figures(scores, labels, task)
        gaps = {f"{name}_gap_closed": (own[name] - ahead[1][name]) / (ahead[0][name] - ahead[1][name]) for name in own}
        expected = own | {
            "agreement": float(np.mean(decided(scores, task) == decided(taught, task))),
            "divergence": surprise(scores, taught, task),
            "auc_gap_closed": gaps["auc_gap_closed"],
            "acc_gap_closed": gaps["acc_gap_closed"],
        }
        assert found["test"][stage] == pytest.approx(expected)
        assert list(found["test"][stage]) == list(expected)
    assert ahead[0]["auc"] > ahead[1]["auc"], "the case is of no use unless the teacher is ahead"


# --- by hand ---


def four(data: Dataset) -> Dataset:
    """Test images of the classes 0, 0, 1 and 1."""
    return replace(data, test=Split(data.test.images[:4], np.array([[0], [0], [1], [1]])))


def sure_of_one(*chances: float) -> np.ndarray:
    return np.array([[1 - chance, chance] for chance in chances])


def test_gaps_by_hand(measured: Any, make_data: MakeData) -> None:
    """Of the four pairs of an image of either class, who has how many in order; of four images, how many right."""
    found = measured(
        four(make_data("binary")),
        sure_of_one(0.1, 0.2, 0.8, 0.9),  # 4 pairs, 4 right
        scratch=sure_of_one(0.9, 0.4, 0.6, 0.3),  # 1 pair, 2 right
        pretrain=sure_of_one(0.1, 0.7, 0.6, 0.9),  # 3 pairs, 3 right
        finetune=sure_of_one(0.8, 0.9, 0.2, 0.1),  # none
    )
    by_stage = {
        stage: [round(told[name], 6) for name in ("auc", "acc", "auc_gap_closed", "acc_gap_closed", "agreement")]
        for stage, told in found["test"].items()
    }
    assert by_stage == {
        "scratch": [0.25, 0.5, 0.0, 0.0, 0.5],
        "pretrain": [0.75, 0.75, 0.666667, 0.5, 0.75],
        "finetune": [0.0, 0.0, -0.333333, -1.0, 0.0],
    }


def test_no_gap_is_closed_where_the_teacher_is_not_ahead(measured: Any, make_data: MakeData) -> None:
    """And a teacher may be as bad as it likes."""
    good, poor = sure_of_one(0.1, 0.2, 0.8, 0.9), sure_of_one(0.5, 0.5, 0.5, 0.5)
    found = measured(four(make_data("binary")), poor, scratch=good, joint=poor)
    for told in found["test"].values():
        assert (told["auc_gap_closed"], told["acc_gap_closed"]) == (None, None)
    assert "NaN" not in json.dumps(found)


def test_without_a_run_from_scratch_there_are_no_gaps(measured: Any, make_data: MakeData) -> None:
    good = sure_of_one(0.1, 0.2, 0.8, 0.9)
    found = measured(four(make_data("binary")), good, pretrain=good, finetune=good)
    assert {stage: list(told) for stage, told in found["test"].items()} == {
        stage: ["auc", "acc", "ece", "log_loss", "agreement", "divergence"] for stage in ("pretrain", "finetune")
    }
    assert found["test"]["finetune"]["agreement"] == 1.0
    assert found["test"]["finetune"]["divergence"] == 0.0


# --- what each costs ---


def test_costs(make_data: MakeData, make_run: Callable[..., Run], build: Callable[..., Any]) -> None:
    """A linear map of 432 values to 4 has 432 · 4 + 4 parameters and as many multiplications, twice."""
    data, linear = make_data(), nn.Sequential(Floats(), nn.Linear(432, 4))
    teacher = Saying("two", (linear, linear), "", said=make_run().predictions("test"))
    found = measures(teacher, {"joint": make_run()}, data, TrainConfig(tta="never")).as_json()
    student = build(data)
    assert (found["teacher"]["parameters"], found["teacher"]["flops"]) == (2 * 1732, 2 * 2 * 432 * 4)
    assert found["student"] == {
        "name": "vit_4q1h",
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "flops": count_flops(student, 3, 12),
    }
    assert found["student"]["flops"] > 1000
    assert list(found) == ["teacher", "student", "test"]
    assert list(found["teacher"]) == ["name", "parameters", "flops", "auc", "acc", "ece", "log_loss"]


class Floats(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().flatten(1)


class Curious(nn.Module):
    """A network that looks at values, so that its operations cannot be counted."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = images.float().flatten(1)[:, :4]
        return values if float(values.sum()) >= 0 else -values


@pytest.mark.long
def test_what_defies_counting_is_not_counted(make_data: MakeData, make_run: Callable[..., Run]) -> None:
    said = make_run().predictions("test")
    for members in ((Curious(),), (nn.Sequential(Floats(), nn.Linear(432, 4)), Curious())):
        teacher = Saying("curious", members, "", said=said)
        found = measures(teacher, {"joint": make_run()}, make_data(), TrainConfig(tta="never"))
        assert found.teacher.flops is None
        assert found.teacher.parameters == (0 if len(members) == 1 else 1732)
