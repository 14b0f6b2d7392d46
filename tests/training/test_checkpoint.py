"""States and weights on disk: read as they were written, and nothing else taken for them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qvit.errors import RunError
from qvit.models import model_config
from qvit.models.zoo import build
from qvit.training.checkpoint import check_weights, load_state, load_weights, save_state, save_weights
from qvit.training.records import Best
from qvit.training.state import TrainState

LINE = {"lr": 0.1, "train_loss": 1.0, "val_loss": 1.0, "val_auc": 0.5, "val_acc": 0.5, "tta": "none"}


def test_a_state_is_read_as_it_was_written(state: TrainState, tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", state)
    found = load_state(tmp_path / "state.pt")
    for name in ("epoch", "history", "seconds", "optimizer"):
        assert getattr(found, name) == getattr(state, name)
    assert found.model["weight"].tolist() == [1.0, 2.0]
    assert found.objective["map"].tolist() == [5.0]
    assert found.best is not None
    assert found.best.model["weight"].tolist() == [3.0, 4.0]
    assert found.best.record == state.history[0]


def test_tensors_of_all_types_and_shapes_come_back(state: TrainState, tmp_path: Path) -> None:
    assert state.best is not None
    weights: dict[str, Any] = {
        "bytes": torch.tensor([[1, 2], [3, 250]], dtype=torch.uint8),
        "count": torch.tensor(2**40 + 1),
        "turned": torch.arange(12.0).reshape(3, 4).mT,
        "none": torch.empty(0, 3),
        "double": torch.tensor([torch.pi], dtype=torch.float64),
        "halves": torch.tensor([0.5, -1.5], dtype=torch.bfloat16),
    }
    slopes = {3: {"step": torch.tensor(7.0), "exp_avg": weights["turned"] + 0.5}}
    state.model, state.optimizer = weights, {"state": slopes, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}
    for best in (state.best.model, weights):
        state.best = Best(state.history[0], best)
        save_state(tmp_path / "state.pt", state)
        found = load_state(tmp_path / "state.pt")
        assert found.best is not None
        assert found.optimizer["param_groups"] == state.optimizer["param_groups"]
        pairs = ((found.model, weights), (found.best.model, best), (found.optimizer["state"][3], slopes[3]))
        for ours, theirs in pairs:
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                assert ours[name].dtype == value.dtype
                assert torch.equal(ours[name], value)


def test_numbers_that_are_missing_are_damage(state: TrainState, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, state)
    sound = torch.load(path, weights_only=True)
    for numbers in ({}, {"float32": torch.ones(2)}):
        torch.save(sound | {"numbers": numbers}, path)
        assert "cannot be read as a training state" in refusal(lambda: load_state(path))


@pytest.mark.parametrize(
    "part",
    [
        {"epoch": "2"},
        {"epoch": 2.0},
        {"epoch": 5},
        {"epoch": 0, "history": [], "seconds": []},
        {"seconds": ["a", "b"]},
        {"seconds": [0.5]},
        {"seconds": [0.5, -1.0]},
        {"seconds": [0.5, float("inf")]},
        {"seconds": [0.5, float("nan")]},
        {"history": [{"epoch": 1}, {"epoch": 2}]},
        {"history": [{"epoch": 2, **LINE}, {"epoch": 1, **LINE}]},
        {"model": {"a": 1}},
        {"model": {1: torch.ones(1)}},
        {"objective": {"a": 1}},
        {"best": {}},
        {"best": {"epoch": 1, **LINE}},
        {"best": {"epoch": 1, **LINE, "model": {"a": 1}}},
        {"best": {"epoch": 1, **LINE, "val_auc": 2.0, "model": {}}},
        {"more": 1},
    ],
)
def test_a_state_of_something_else(state: TrainState, tmp_path: Path, part: dict[str, Any]) -> None:
    path = tmp_path / "state.pt"
    assert state.best is not None
    best = {"epoch": 1, **LINE, "model": state.best.model}
    sound = vars(state) | {"history": [{"epoch": epoch, **LINE} for epoch in (1, 2)], "best": best}
    torch.save(sound, path)
    assert load_state(path).history == state.history
    torch.save(sound | part, path)
    with pytest.raises(RunError) as caught:
        load_state(path)
    assert re.fullmatch(
        rf"{path} cannot be read as a training state \(.+\)\. It is left untouched; delete it to start this run again "
        r"from its first epoch\.",
        str(caught.value),
    )


def refusal(attempt: Callable[[], Any], kind: type[Exception] = RunError) -> str:
    with pytest.raises(kind) as caught:
        attempt()
    return str(caught.value)


def test_weights_are_counted_before_a_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (model_config("vit_4q1h", img_size=12, num_classes=4, depth=depth) for depth in (1, 2))
    weights = build(small).state_dict()
    check_weights(weights, small)
    other = {name: value.double() for name, value in weights.items()}
    assert refusal(lambda: check_weights(other, small), RuntimeError) == "other weights than such a model has"
    monkeypatch.setattr("qvit.training.checkpoint.build_without_numbers", lambda _: pytest.fail("it was built"))
    assert refusal(lambda: check_weights(weights, large), RuntimeError) == "fewer weights than such a model has"
    assert small.weights_without_circuits <= sum(value.numel() for value in weights.values())


def test_tied_weights_are_written_each_for_itself(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    weights = dict(net.state_dict()) | {"part": net[0].weight.detach()[:, 1:]}
    save_weights(tmp_path / "weights", weights)
    found = load_weights(tmp_path / "weights")
    assert found.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in found.items())
