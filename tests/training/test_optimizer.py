"""The lean AdamW against torch's, step by step, and its state in both directions."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from qvit.training.optimizer import AdamW


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    return [
        {"params": matrices, "weight_decay": 0.3},
        {"params": [parameter for parameter in model.parameters() if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def _ours(model: nn.Module) -> AdamW:
    return AdamW(_groups(model), lr=0.01)


def _theirs(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(_groups(model), lr=0.01, fused=True)


def _train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(11, 5)).square().mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimizer.step()


def _assert_same(one: nn.Module, other: nn.Module) -> None:
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_takes_the_steps_of_torch_to_the_last_bit() -> None:
    one, other = _model(), _model()
    _train(one, _ours(one), range(20))
    _train(other, _theirs(other), range(20))
    _assert_same(one, other)
    assert not torch.equal(next(one.parameters()), next(_model().parameters()))


@pytest.mark.parametrize("first", [_ours, _theirs])
@pytest.mark.parametrize("second", [_ours, _theirs])
def test_either_goes_on_from_the_state_of_the_other(first: Any, second: Any) -> None:
    whole = _model()
    _train(whole, _ours(whole), range(9))
    begun = _model()
    optimizer = first(begun)
    _train(begun, optimizer, range(4))
    ended = copy.deepcopy(begun)
    successor = second(ended)
    successor.load_state_dict(optimizer.state_dict())
    _train(ended, successor, range(4, 9))
    _assert_same(whole, ended)


def test_the_state_has_the_format_of_torch() -> None:
    one, other = _model(), _model()
    ours, theirs = _ours(one), _theirs(other)
    _train(one, ours, range(3))
    _train(other, theirs, range(3))
    found, expected = ours.state_dict(), theirs.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        assert found["state"][number].keys() == state.keys()
        assert all(torch.equal(found["state"][number][name], value) for name, value in state.items())


def test_the_state_is_a_copy_in_and_out() -> None:
    model = _model()
    optimizer = _ours(model)
    _train(model, optimizer, range(2))
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved)
    successor = _ours(model)
    successor.load_state_dict(saved)
    _train(model, optimizer, range(2, 4))
    _train(model, successor, range(2, 4))
    assert saved["param_groups"] == before["param_groups"]
    for number, state in before["state"].items():
        assert all(torch.equal(saved["state"][number][name], value) for name, value in state.items())


def test_parameters_without_a_gradient_stay_as_they_are() -> None:
    model = _model()
    optimizer = _ours(model)
    start = copy.deepcopy(model)
    model[0](torch.randn(4, 5)).square().mean().backward()
    optimizer.step()
    assert torch.equal(model[2].weight, start[2].weight)  # not even decayed
    assert not torch.equal(model[0].weight, start[0].weight)
    assert len(optimizer.state_dict()["state"]) == 2
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_state_of_other_parameters_is_refused() -> None:
    model = _model()
    optimizer = _ours(model)
    _train(model, optimizer, range(1))
    for name, value in (("exp_avg", torch.ones(2)), ("exp_avg_sq", torch.ones(7, 5, dtype=torch.float64))):
        saved = optimizer.state_dict()
        saved["state"][0][name] = value
        before = optimizer.state_dict()
        with pytest.raises(ValueError, match=rf"^{name} of parameter 0 has another shape or dtype than the parameter$"):
            optimizer.load_state_dict(saved)
        after = optimizer.state_dict()
        assert all(torch.equal(after["state"][0][key], kept) for key, kept in before["state"][0].items())
    saved = optimizer.state_dict()
    saved["param_groups"].pop()
    with pytest.raises(ValueError, match="shorter than"):
        optimizer.load_state_dict(saved)


def test_rate_and_decay_are_taken_from_the_state() -> None:
    optimizer = _ours(_model())
    saved = optimizer.state_dict()
    for number, group in enumerate(saved["param_groups"], 1):
        group.update(lr=0.5 * number, weight_decay=0.25 * number)
    optimizer.load_state_dict(saved)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.5, 0.25), (1.0, 0.5)]
