"""Predictions: probabilities, averaged over explicitly turned images, in evaluation mode."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qvit.data.arrays import Dataset, Split
from qvit.evaluation.metrics import accuracy, auc, log_loss
from qvit.models import create_model
from qvit.training.config import TrainConfig
from qvit.training.prediction import predict, predict_logits, probabilities
from qvit.training.records import Validation
from qvit.training.validation import validation_figures

MakeData = Callable[..., Dataset]


def build(data: Dataset, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model(
        "vit_4q1h", in_chans=data.info.channels, img_size=data.size, num_classes=data.info.num_classes, **options
    )


def _views(images: np.ndarray, group: str) -> list[np.ndarray]:
    """All symmetric versions of images (n, c, h, w), spelled out in numpy."""
    if group == "none":
        return [images]
    mirrored = images[..., ::-1]
    if group == "mirror":
        return [images, mirrored]
    return [np.rot90(part, turns, (2, 3)) for part in (images, mirrored) for turns in range(4)]


@pytest.mark.parametrize("group", ["none", "mirror", "d4"])
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_averages_the_probabilities_of_turned_images(make_data: MakeData, group: str, task: str) -> None:
    data = make_data(task)
    model = build(data).eval()
    expected = []
    for view in _views(data.test.images, group):
        with torch.no_grad():
            logits = model(torch.from_numpy(view.copy())).double().numpy()
        if task == "multi-label":
            expected.append(1 / (1 + np.exp(-logits)))
        else:
            raised = np.exp(logits - logits.max(axis=1, keepdims=True))
            expected.append(raised / raised.sum(axis=1, keepdims=True))
    found = predict(model, data.test, task, group=group)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=0, atol=1e-6)
    if group != "none":
        assert np.abs(found - expected[0]).max() > 1e-4


@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal"])
def test_rows_sum_to_one(make_data: MakeData, task: str) -> None:
    data = make_data(task)
    scores = predict(build(data), data.val, task, group="d4")
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_rows_sum_to_one_at_extreme_logits() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [88.0, 88.0, -200.0], [0.1, 0.2, 0.3]])
    np.testing.assert_allclose(probabilities(logits, "ordinal").sum(dim=1), 1.0, rtol=0, atol=1e-12)
    several = probabilities(logits, "multi-label")
    assert torch.isfinite(several).all()
    assert several[2].sum().item() == pytest.approx(sum(1 / (1 + np.exp(-x)) for x in (0.1, 0.2, 0.3)), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_predicts_in_evaluation_mode_and_restores_the_mode(make_data: MakeData, training: bool) -> None:
    data = make_data()
    model = build(data, dropout=0.9).train(training)
    first, second = predict(model, data.val, "multi-class"), predict(model, data.val, "multi-class")
    assert np.array_equal(first, second)
    assert all(part.training is training for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_restores_the_mode_after_an_error(make_data: MakeData) -> None:
    data = make_data()
    model = build(data).train()
    with pytest.raises(Exception, match="Expected images"):
        predict(model, Split(data.val.images[:, :2], data.val.labels), "multi-class")
    assert model.training


def test_batches_do_not_matter(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()
    model = build(data)
    whole = predict_logits(model, data.test, group="d4")
    assert whole.shape == (8, 23, 4)
    monkeypatch.setattr(import_module("qvit.training.prediction"), "BATCH", 7)  # 23 images: the last batch holds two
    torch.testing.assert_close(predict_logits(model, data.test, group="d4"), whole)


class Fixed(nn.Module):
    """Says of each image what its upper left and upper right corner say, each with a weight of its own."""

    def __init__(self, left: float, right: float, offset: float) -> None:
        super().__init__()
        self.left, self.right, self.offset = left, right, offset

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        left, right = images[:, 0, 0, 0] > 0, images[:, 0, 0, -1] > 0
        evidence = self.left * left.double() + self.right * right.double() + self.offset
        return torch.stack((-evidence, evidence), dim=1)


def _corners(data: Dataset, corners: np.ndarray, labels: np.ndarray) -> Dataset:
    """The dataset with black validation images but for the upper left and upper right corner `(n, 2)`."""
    images = np.zeros_like(data.val.images)
    images[:, :, 0, 0] = 255 * corners[:, :1]
    images[:, :, 0, -1] = 255 * corners[:, 1:]
    return replace(data, val=Split(images, labels.astype(np.int64)[:, None]))


ANY = np.random.default_rng(0).integers(0, 2, (21, 2))
MOSTLY_RIGHT = np.array([[0, 1]] * 10 + [[1, 0]] + [[1, 1]] * 5 + [[0, 0]] * 5)
LEANING_LEFT, OPPOSING = (4.0, 2.0, -3.0), (1.0, -0.5, 0.0)


@pytest.mark.parametrize(
    ("corners", "labels", "weights", "chosen", "auc_says", "loss_says"),
    [
        # left alone counts: averaging over mirrors blurs it
        (ANY, ANY[:, 0], LEANING_LEFT, "none", "none", "none"),
        # symmetric: averaging removes a bias, which leaves the order as it is and makes the loss smaller
        (ANY, ANY[:, 0] & ANY[:, 1], LEANING_LEFT, "mirror", "both", "mirror"),
        # averaging mends the order at the price of a larger loss: the AUC comes first
        (MOSTLY_RIGHT, MOSTLY_RIGHT[:, 0] & MOSTLY_RIGHT[:, 1], OPPOSING, "mirror", "mirror", "none"),
    ],
    ids=["left-alone", "symmetric", "auc-before-loss"],
)
def test_auto_takes_the_better_auc_then_the_lower_loss(
    make_data: MakeData,
    corners: np.ndarray,
    labels: np.ndarray,
    weights: tuple[float, float, float],
    chosen: str,
    auc_says: str,
    loss_says: str,
) -> None:
    data = _corners(make_data("binary"), corners, labels)
    model: Any = Fixed(*weights)
    figures = {}
    for group in ("none", "mirror"):
        scores = predict(model, data.val, "binary", group=group)
        figures[group] = Validation(
            val_loss=log_loss(data.val.labels, scores, "binary"),
            val_auc=auc(data.val.labels, scores, "binary"),
            val_acc=accuracy(data.val.labels, scores, "binary"),
            tta=group,
        )
    plain, averaged = figures["none"], figures["mirror"]
    better = {-1: "mirror", 0: "both", 1: "none"}
    assert better[int(np.sign(plain.val_auc - averaged.val_auc))] == auc_says, "the case is not what is meant"
    assert better[int(np.sign(averaged.val_loss - plain.val_loss))] == loss_says, "the case is not what is meant"
    config = TrainConfig(augment="mirror")
    assert validation_figures(model, data, config) == figures[chosen]
    assert validation_figures(model, data, replace(config, tta="always")) == averaged
    assert validation_figures(model, data, replace(config, tta="never")) == plain


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tta": "always"}, "d4"),
        ({"tta": "always", "augment": "mirror"}, "mirror"),
        ({"tta": "always", "augment": "none"}, "none"),
        ({"tta": "never"}, "none"),
        ({"tta": "never", "augment": "mirror"}, "none"),
        ({"tta": "auto", "augment": "none"}, "none"),
    ],
)
def test_always_and_never(make_data: MakeData, options: dict[str, Any], expected: str) -> None:
    data = make_data()
    assert validation_figures(build(data), data, TrainConfig(**options)).tta == expected
