"""Which engine runs a circuit, and what is said about it."""

import sys
from collections.abc import Callable
from itertools import product

import pytest
import torch

from qvit.quantum import (
    ANSATZE,
    Circuit,
    QuantumLinear,
    expectations,
    explain,
    get_ansatz,
)
from qvit.quantum.engines.choose import AutoPlan, auto_plan

EnginesFor = Callable[[Circuit], list[str]]


@pytest.mark.parametrize("name", ANSATZE)
def test_only_what_can_run_is_chosen(name: str, engines_for: EnginesFor) -> None:
    circuit = get_ansatz(name).build(4, 2)
    plan = auto_plan(circuit)
    can = engines_for(circuit)
    for tokens, groups, itemsize in product((0, 1, 100_000), (1, 24), (4, 8)):
        for device in ("cpu", "cuda"):
            chosen = plan.choose(tokens, groups, itemsize, device)
            assert chosen in can
            predicted = plan.predicted(tokens, groups, itemsize, device)
            assert predicted[chosen] == min(predicted.values())
            assert all(seconds >= 0 for seconds in predicted.values())


def test_small_circuits_go_to_a_kernel() -> None:
    assert auto_plan(get_ansatz("ry_ring").build(12, 1)).choose(1568) == "heisenberg"
    assert auto_plan(get_ansatz("ry_ring").build(70, 1)).choose(1568) == "heisenberg"
    assert auto_plan(get_ansatz("strongly_entangling").build(6, 3)).choose(1568) == "statevector"
    assert auto_plan(get_ansatz("pyramid").build(8, 1)).choose(1568) == "subspace"
    for name, n, n_layers in (("ry_ring", 4, 2), ("reupload", 3, 2), ("unlu_v", 2, 1)):
        assert auto_plan(get_ansatz(name).build(n, n_layers)).choose(1568) in ("heisenberg", "statevector")


def test_auto_gives_what_its_choice_gives() -> None:
    circuit = get_ansatz("reupload").build(3, 2)
    inputs, weights = torch.randn(7, 3), torch.randn(circuit.n_weights)
    plan = auto_plan(circuit)
    assert len(plan.plans) > 1
    for name in plan.plans:
        forced = AutoPlan(circuit, plan.plans, name, {(7, 1, 4, "cpu"): name})
        assert torch.equal(forced.expectations(inputs, weights), expectations(circuit, inputs, weights, engine=name))


def test_explained() -> None:
    circuit = get_ansatz("strongly_entangling").build(3, 2)
    explanation = explain(circuit, tokens=20, groups=2, repeats=1)
    rows = {row.engine: row for row in explanation.engines}
    assert set(rows) == set(auto_plan(circuit).plans) >= {"statevector", "unitary"}
    assert explanation.chosen == auto_plan(circuit).choose(20, 2)
    assert all(row.predicted > 0 and row.measured and row.measured > 0 for row in rows.values())
    text = str(explanation)
    assert "3 wires, 27 gates" in text
    assert "3 weight(s) cannot influence any output: 11, 14, 17." in text
    assert "20 tokens × 2 group(s)" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert set(lines) == {"engine", *rows}
    assert [engine for engine, line in lines.items() if "← chosen" in line] == [explanation.chosen]
    assert "complex, as real arithmetic on one wire more" in text
    assert "; real" in str(explain(get_ansatz("ry_ring").build(3, 1), measure=False))


def test_nothing_runs_unless_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> float:
        raise AssertionError("an engine was run")

    monkeypatch.setattr(sys.modules[explain.__module__], "milliseconds", run)
    explanation = explain(get_ansatz("ry_ring").build(3, 2), measure=False)
    assert all(row.measured is None for row in explanation.engines)
    assert str(explanation).count("not run") == len(explanation.engines)
    with pytest.raises(AssertionError, match="an engine was run"):
        explain(get_ansatz("ry_ring").build(3, 2))


def test_a_layer_runs_by_the_engine_it_was_given() -> None:
    for engine, plan in (
        ("heisenberg", "HeisenbergPlan"),
        ("unitary", "UnitaryPlan"),
        ("statevector", "StatevectorPlan"),
    ):
        layer = QuantumLinear(3, n_layers=2, engine=engine)
        assert type(layer._plan).__name__ == plan
        assert layer.engine == engine
