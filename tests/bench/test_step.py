"""Steps of training timed in turn, on a model that does train."""

from typing import Any

import pytest
import torch

from bench.medians import medians
from qvit.bench import step
from qvit.bench.step import bench_step, make_step
from qvit.quantum import QuantumLinear


def test_a_step_trains_the_model_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    create = step.create_model
    monkeypatch.setattr(step, "create_model", lambda *a, **k: built.append(create(*a, **k)) or built[-1])
    run = make_step("qvit_4q1h", 2, n_layers=2)
    before = [parameter.detach().clone() for parameter in built[0].parameters()]
    run()
    assert any(not torch.equal(a, b) for a, b in zip(before, built[0].parameters(), strict=True))
    circuits = [module for module in built[0].modules() if isinstance(module, QuantumLinear)]
    assert circuits[0].n_layers == 2


@pytest.mark.usefixtures("nobody_elses")
def test_both_steps_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(step, "median_milliseconds", medians(options))
    row = bench_step("qvit_4q1h", "vit_4q1h", batch=2, repeats=3, n_layers=2)
    assert row == step.StepRow("qvit_4q1h", 2, "vit_4q1h", 2, 2.0, 4.0)
    assert row.ratio == 0.5
    bench_step("vit_4q1h", "vit_4q1h", batch=2)
    assert options == [{"repeats": repeats, "warm_up": 20, "budget": 60.0} for repeats in (3, 200)]
