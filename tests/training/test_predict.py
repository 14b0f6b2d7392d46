"""Predictions: probabilities, averaged over explicitly turned images, in evaluation mode."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qvit.data.arrays import Dataset, Split
from qvit.evaluation.metrics import log_loss
from qvit.models import create_model
from qvit.training.loop import TrainConfig
from qvit.training.prediction import predict, predict_logits, probabilities
from qvit.training.run import choose_tta

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
    """Says of each image what its first pixel's column says: right as it stands, or only on average."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        left, right = images[:, 0, 0, 0] > 0, images[:, 0, 0, -1] > 0
        evidence = self.logit * (2.0 * left + right.double() - 1.5)
        return torch.stack((-evidence, evidence), dim=1)


def _corners(make_data: MakeData, label_of: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    from dataclasses import replace

    data = make_data("binary")
    rng = np.random.default_rng(0)
    images = np.zeros_like(data.val.images)
    images[:, :, 0, 0] = 255 * rng.integers(0, 2, len(images))[:, None]
    images[:, :, 0, -1] = 255 * rng.integers(0, 2, len(images))[:, None]
    labels = label_of(images[:, 0, 0, [0, -1]] > 0).astype(np.int64)[:, None]
    return replace(data, val=Split(images, labels))


@pytest.mark.parametrize(
    ("label_of", "chosen"),
    [
        (lambda corners: corners[:, 0], "none"),  # left alone counts: averaging over mirrors blurs it
        (lambda corners: corners[:, 0] & corners[:, 1], "mirror"),  # symmetric: averaging removes a bias
    ],
)
def test_auto_chooses_by_the_validation_loss(
    make_data: MakeData, label_of: Callable[[np.ndarray], np.ndarray], chosen: str
) -> None:
    data = _corners(make_data, label_of)
    model: Any = Fixed(2.0)
    config = TrainConfig(augment="mirror")
    losses = {
        group: log_loss(data.val.labels, predict(model, data.val, "binary", group=group), "binary")
        for group in ("none", "mirror")
    }
    assert min(losses, key=lambda group: losses[group]) == chosen, "the case is not what it is meant to be"
    assert choose_tta(model, data, config) == chosen


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tta": "always"}, "d4"),
        ({"tta": "always", "augment": "mirror"}, "mirror"),
        ({"tta": "always", "augment": "none"}, "none"),
        ({"tta": "never"}, "none"),
        ({"tta": "auto", "augment": "none"}, "none"),
    ],
)
def test_on_and_off(make_data: MakeData, options: dict[str, Any], expected: str) -> None:
    data = make_data()
    assert choose_tta(build(data), data, TrainConfig(**options)) == expected
