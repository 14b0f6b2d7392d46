"""Rules: what stored arrays say, by plain loops; and arrays that lead nowhere are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.errors import ModelError
from qvit.models.rules import DEEPEST, Constant, Linear, Nearest, Trees, squares

FEATURES, CLASSES = 5, 3
# Two trees: one asks feature 4, then feature 0; the other is a leaf alone.
TREES = {
    "roots": [0, 5],
    "feature": [4, -1, 0, -1, -1, -1],
    "threshold": [0.5, 0.0, -1.0, 0.0, 0.0, 0.0],
    "other": [2, 0, 4, 1, 2, 3],
    "leaves": [[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]],
}


def trees(**changes: Any) -> Trees:
    rule = Trees(FEATURES, CLASSES)
    rule.fitted({name: torch.tensor(value) for name, value in (TREES | changes).items()})
    return rule


def nearest(**changes: Any) -> Nearest:
    rng = np.random.default_rng(1)
    arrays = {
        "reference": rng.normal(size=(11, FEATURES)),
        "labels": rng.integers(0, CLASSES, (11, 1)),
        "center": rng.normal(size=FEATURES),
        "spread": rng.uniform(0.5, 2, FEATURES),
        "count": np.array(4),
    }
    rule = Nearest(FEATURES, CLASSES)
    rule.fitted({name: torch.as_tensor(value) for name, value in (arrays | changes).items()})
    return rule


def test_trees_by_hand() -> None:
    points = torch.zeros(4, FEATURES)
    points[:, 4] = torch.tensor([0.5, 0.6, 0.6, 0.4])  # no more than the threshold goes left
    points[:, 0] = torch.tensor([9.0, -1.0, -0.9, -5.0])
    leaves = torch.tensor(TREES["leaves"])
    expected = (leaves[[0, 1, 2, 0]] + leaves[3]) / 2
    assert torch.allclose(trees()(points).softmax(dim=1), expected, atol=1e-5)
    odds = trees(several=True)(points).sigmoid()
    assert torch.allclose(odds, expected, atol=1e-5)
    assert trees()(points[:0]).shape == (0, CLASSES)
    assert trees().flops == 0


@pytest.mark.parametrize("several", [False, True])
def test_nearest_by_a_plain_loop(several: bool) -> None:
    rng = np.random.default_rng(2)
    rule = nearest(**({"labels": rng.integers(0, 2, (11, CLASSES))} if several else {}))
    points, told = rng.normal(size=(7, FEATURES)), rule.labels.numpy()
    if not several:
        told = np.array([[float(label == k) for k in range(CLASSES)] for (label,) in told])
    for point, found in zip(points, rule(torch.from_numpy(points).float()), strict=True):
        scaled = [(point[f] - float(rule.center[f])) / float(rule.spread[f]) for f in range(FEATURES)]
        apart = [sum((a - b) ** 2 for a, b in zip(scaled, row, strict=True)) for row in rule.reference.tolist()]
        four = sorted(range(11), key=apart.__getitem__)[:4]
        shares = [(sum(told[i][k] for i in four) + told[:, k].mean()) / 5 for k in range(CLASSES)]
        said = found.sigmoid() if several else found.softmax(dim=0)
        assert said.numpy() == pytest.approx(shares, abs=1e-5)
    assert rule.flops == 2 * 11 * FEATURES


def test_squares_are_distances_less_what_all_have_in_common() -> None:
    some, others = torch.rand(4, 3), torch.rand(6, 3)
    exact = torch.cdist(some, others).square()
    assert torch.allclose(squares(some, others) - squares(some, others)[:, :1], exact - exact[:, :1], atol=1e-5)


def test_sums_and_constants() -> None:
    linear, constant = Linear(FEATURES, CLASSES), Constant(FEATURES, CLASSES)
    weight, bias, points = torch.rand(CLASSES, FEATURES), torch.rand(CLASSES), torch.rand(4, FEATURES)
    linear.fitted({"weight": weight, "bias": bias})
    constant.fitted({"logits": bias})
    assert torch.allclose(linear(points), points @ weight.T + bias)
    assert torch.equal(constant(points), bias.expand(4, CLASSES))
    assert (linear.numbers, constant.numbers) == (CLASSES * (FEATURES + 1), CLASSES)
    assert (linear.flops, constant.flops) == (2 * CLASSES * FEATURES, 0)


@pytest.mark.parametrize("rule", [Constant, Linear, Trees, Nearest])
def test_a_fresh_rule_is_sound(rule: type[Any]) -> None:
    fresh = rule(FEATURES, CLASSES)
    fresh.check()
    assert fresh(torch.rand(4, FEATURES)).shape == (4, CLASSES)
    assert torch.isfinite(fresh(torch.rand(4, FEATURES))).all()


@pytest.mark.parametrize("make", [trees, nearest])
def test_arrays_of_any_length_are_loaded(make: Callable[[], Any]) -> None:
    rule, points = make(), torch.rand(6, FEATURES)
    other = type(rule)(FEATURES, CLASSES)
    other.load_state_dict(rule.state_dict())
    assert torch.equal(other(points), rule(points))
    assert other.numbers == rule.numbers == sum(array.numel() for array in rule.state_dict().values())


def deep(steps: int) -> dict[str, Tensor]:
    """A tree whose every left child is a node, so many steps down."""
    count = 2 * steps + 1
    feature = torch.tensor([0] * steps + [-1] * (steps + 1))
    other = torch.tensor([count - 1 - place for place in range(steps)] + [*range(steps + 1)])
    arrays = {"roots": torch.tensor([0]), "feature": feature, "threshold": torch.zeros(count), "other": other}
    return arrays | {"leaves": torch.full((steps + 1, CLASSES), 1 / 3)}


def test_trees_as_deep_as_may_be() -> None:
    rule = Trees(FEATURES, CLASSES)
    rule.fitted(deep(DEEPEST))
    assert torch.isfinite(rule(torch.zeros(2, FEATURES))).all()
    with pytest.raises(ModelError, match="trees without an end"):
        rule.fitted(deep(DEEPEST + 1))


@pytest.mark.parametrize(
    ("make", "changes", "found"),
    [
        (trees, {"threshold": [0.0]}, "nodes of trees without a threshold"),
        (trees, {"feature": [5, -1, 0, -1, -1, -1]}, "features that are not there"),
        (trees, {"other": [3, 0, 4, 1, 2, 3]}, "nodes of trees that are not there, or reached twice"),
        (trees, {"other": [-2, 0, 4, 1, 2, 3]}, "nodes of trees that are not there, or reached twice"),
        (trees, {"other": [600, 0, 4, 1, 2, 3]}, "nodes of trees that are not there, or reached twice"),
        (trees, {"roots": [0]}, "nodes of trees that are not there, or reached twice"),
        (trees, {"feature": [4, -1, 0, -1, -1, 1]}, "nodes of trees that are not there, or reached twice"),
        (trees, {"other": [2, 0, 4, 1, 2, 4]}, "leaves of trees that are not there"),
        (trees, {"other": [2, 0, 4, -1, 2, 3]}, "leaves of trees that are not there"),
        (nearest, {"labels": np.zeros((10, 1))}, "labels and features of different images"),
        (nearest, {"labels": np.zeros((11, 2))}, "labels of another number of classes"),
        (nearest, {"count": np.array(12)}, "more nearest images than there are"),
        (nearest, {"count": np.array(0)}, "more nearest images than there are"),
        (nearest, {"labels": np.full((11, 1), 3)}, "labels of classes that are not there"),
        (nearest, {"labels": np.full((11, 1), -1)}, "labels of classes that are not there"),
        (nearest, {"labels": np.full((11, 3), 2)}, "labels of classes that are not there"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_arrays_that_lead_nowhere(make: Callable[..., Any], changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ModelError) as caught:
        make(**changes)
    assert str(caught.value) == f"Expected the arrays of a fitted baseline, found {found}. Fit it again."


def test_nodes_that_go_round_do_no_harm() -> None:
    """Nodes 1 and 2 are each other's children: each is reached once, so no way from a root can lead to them."""
    rule = Trees(FEATURES, CLASSES)
    arrays = {"roots": [0], "feature": [-1, 0, 0, -1, -1], "threshold": [0.0] * 5, "other": [0, 4, 1, 1, 2]}
    leaves = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rule.fitted({name: torch.tensor(value) for name, value in arrays.items()} | {"leaves": leaves})
    assert torch.allclose(rule(torch.zeros(2, FEATURES)).softmax(dim=1), leaves[0], atol=1e-6)
