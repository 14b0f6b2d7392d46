"""Losses against loops written by hand, and at their limits."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.errors import ConfigError
from qvit.training.losses import (
    LOSSES_OF_TASK,
    balanced_weights,
    binary_cross_entropy,
    cross_entropy,
    cross_entropy_and_emd,
    make_loss,
    squared_emd,
)

B, C = 7, 5
WEIGHTS = [0.5, 2.0, 0.0, 1.5, 3.0]
Slow = Callable[[list[float], list[int], float, list[float]], float]


def _softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def slow_cross_entropy(row: list[float], label: list[int], smoothing: float, weights: list[float]) -> float:
    chances = _softmax(row)
    loss = 0.0
    for k in range(len(row)):
        target = (1 - smoothing if k == label[0] else 0.0) + smoothing / len(row)
        loss -= target * math.log(chances[k])
    return loss * weights[label[0]]


def slow_binary_cross_entropy(row: list[float], label: list[int], smoothing: float, weights: list[float]) -> float:
    loss = 0.0
    for k in range(len(row)):
        target = 1 - smoothing / 2 if label[k] else smoothing / 2
        chance = 1 / (1 + math.exp(-row[k]))
        loss -= weights[k] * target * math.log(chance) + (1 - target) * math.log(1 - chance)
    return loss / len(row)


def slow_squared_emd(row: list[float], label: list[int], smoothing: float, weights: list[float]) -> float:
    chances = _softmax(row)
    loss = 0.0
    for threshold in range(len(row) - 1):
        predicted = sum(chances[: threshold + 1])
        wanted = smoothing / len(row) * (threshold + 1) + (1 - smoothing if label[0] <= threshold else 0.0)
        loss += (predicted - wanted) ** 2
    return loss * weights[label[0]]


def slow_mean_of_both(row: list[float], label: list[int], smoothing: float, weights: list[float]) -> float:
    return sum(slow(row, label, smoothing, weights) for slow in (slow_cross_entropy, slow_squared_emd)) / 2


PAIRS: list[tuple[Callable[..., Tensor], Slow]] = [
    (cross_entropy, slow_cross_entropy),
    (binary_cross_entropy, slow_binary_cross_entropy),
    (squared_emd, slow_squared_emd),
    (cross_entropy_and_emd, slow_mean_of_both),
]


def _labels(loss: Callable[..., Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    if loss is binary_cross_entropy:
        return torch.randint(2, (B, C), generator=generator)
    return torch.randint(C, (B, 1), generator=generator)


@pytest.mark.parametrize(("loss", "slow"), PAIRS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_a_loop(loss: Callable[..., Tensor], slow: Slow, smoothing: float, weighted: bool) -> None:
    logits = 2 * torch.randn(B, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = _labels(loss)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64) if weighted else None
    found = loss(logits, labels, smoothing=smoothing, class_weights=weights)
    expected = [
        slow(row, label, smoothing, WEIGHTS if weighted else [1.0] * C)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert found.shape == (B,)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("loss", "slow"), PAIRS)
def test_each_model_of_a_stack_has_its_own(loss: Callable[..., Tensor], slow: Slow) -> None:
    logits, labels = torch.randn(3, B, C, generator=torch.Generator().manual_seed(1)), _labels(loss)
    options: dict[str, Any] = {"smoothing": 0.1, "class_weights": torch.tensor(WEIGHTS)}
    alone = torch.stack([loss(one, labels, **options) for one in logits])
    torch.testing.assert_close(loss(logits, labels, **options), alone)


@pytest.mark.parametrize(("loss", "slow"), PAIRS)
def test_options_bite(loss: Callable[..., Tensor], slow: Slow) -> None:
    logits, labels = torch.randn(B, C, generator=torch.Generator().manual_seed(1)), _labels(loss)
    plain = loss(logits, labels)
    assert not torch.allclose(plain, loss(logits, labels, smoothing=0.1))
    assert not torch.allclose(plain, loss(logits, labels, class_weights=torch.tensor(WEIGHTS)))


@pytest.mark.parametrize(("loss", "slow"), PAIRS)
@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_gradients_stay_finite(loss: Callable[..., Tensor], slow: Slow, scale: float) -> None:
    signs = torch.tensor([[1.0, -1.0, 0.0, 1.0, -1.0]]).expand(B, C)
    logits = (scale * signs).clone().requires_grad_()
    value = loss(logits, _labels(loss), smoothing=0.1)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_emd_is_zero_for_certainty_alone_and_grows_with_distance() -> None:
    logits = 200.0 * torch.eye(C, dtype=torch.float64)
    distances = torch.stack([squared_emd(logits, torch.full((C, 1), label)) for label in range(C)])
    for label in range(C):
        for predicted in range(C):
            # of certainties, the squared distance is the number of thresholds between them
            assert distances[label, predicted] == pytest.approx(abs(label - predicted), abs=1e-12)
    nearly = torch.zeros(1, C, dtype=torch.float64)
    nearly[0, 2] = 5.0
    assert squared_emd(nearly, torch.tensor([[2]])) > 1e-5


def test_pos_weight_multiplies_the_positive_part_alone() -> None:
    logits, weights = torch.tensor([[0.3, -0.7]]), torch.tensor([4.0, 9.0])
    negative = torch.zeros(1, 2, dtype=torch.long)
    torch.testing.assert_close(
        binary_cross_entropy(logits, negative, class_weights=weights), binary_cross_entropy(logits, negative)
    )
    first = torch.tensor([[1, 0]])
    gained = binary_cross_entropy(logits, first, class_weights=weights) - binary_cross_entropy(logits, first)
    expected = 3.0 * math.log1p(math.exp(-0.3)) / 2
    assert gained.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (task, name)
        for task, fit in LOSSES_OF_TASK.items()
        for name in ("ce", "bce", "emd", "ce+emd", "mse")
        if name not in fit
    ],
)
def test_refuses_a_loss_that_does_not_fit(task: str, name: str) -> None:
    fitting = " or ".join(LOSSES_OF_TASK[task])
    with pytest.raises(
        ConfigError, match=rf"loss='{re.escape(name)}' does not fit a {task} task; use {re.escape(fitting)}, or auto"
    ):
        make_loss(task, name=name)


@pytest.mark.parametrize(
    ("task", "name", "expected"),
    [
        ("binary", "auto", cross_entropy),
        ("multi-class", "auto", cross_entropy),
        ("ordinal", "auto", cross_entropy),
        ("ordinal", "emd", squared_emd),
        ("multi-label", "auto", binary_cross_entropy),
        ("multi-label", "bce", binary_cross_entropy),
    ],
)
def test_make_loss_chooses_and_passes_options_on(task: str, name: str, expected: Callable[..., Tensor]) -> None:
    logits, labels = torch.randn(B, C, generator=torch.Generator().manual_seed(1)), _labels(expected)
    options: dict[str, Any] = {"smoothing": 0.1, "class_weights": torch.tensor(WEIGHTS)}
    found = make_loss(task, name=name, **options)(logits, labels)
    torch.testing.assert_close(found, expected(logits, labels, **options), rtol=0, atol=0)


@pytest.mark.parametrize("classes", [2, 5, 11])
def test_an_undecided_model_loses_ln_c(classes: int) -> None:
    logits = torch.zeros(3, classes)
    assert make_loss("multi-class")(logits, torch.zeros(3, 1, dtype=torch.long)).tolist() == pytest.approx(
        [math.log(classes)] * 3, rel=1e-6
    )
    labels = torch.zeros(3, classes, dtype=torch.long)
    assert make_loss("multi-label")(logits, labels).tolist() == pytest.approx([math.log(2)] * 3, rel=1e-6)


def test_balanced_weights() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3])[:, None]
    weights = balanced_weights(labels, "multi-class", 5)
    np.testing.assert_allclose(weights.numpy(), [2 / 3, 2.0, 0.0, 1.0, 0.0], rtol=1e-6)
    assert weights[torch.from_numpy(labels[:, 0])].mean().item() == pytest.approx(1.0)
    several = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]])
    # negatives over positives; a label that never occurs has no positives to weigh
    np.testing.assert_allclose(balanced_weights(several, "multi-label", 3).numpy(), [1 / 3, 1.0, 4.0], rtol=1e-6)
