"""Every option of a layer, of `explain` and of `expectations` does what it says; a new one has to be added here."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from qvit.quantum import ENGINES, QuantumLinear, expectations, explain, get_ansatz
from qvit.quantum.engines.choose import auto_plan


def options_of(function: Callable[..., Any], *left_out: str) -> dict[str, Any]:
    """The options of a function with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.name not in ("self", *left_out)}


@dataclass
class Knob:
    """A value that is not the default, and what is seen of it in a layer: with the default, and with the value."""

    value: Any
    seen: Callable[[QuantumLinear], Any]
    before: Any
    after: Any


def circuit_of(layer: QuantumLinear) -> Any:
    return layer.circuit


KNOBS = {
    "n_qubits": Knob(
        3, lambda layer: (layer.n_inputs, layer.n_outputs, *layer.weights.shape), (2, 2, 1, 2), (3, 3, 1, 3)
    ),
    "n_layers": Knob(3, lambda layer: (layer.n_inputs, *layer.weights.shape), (2, 1, 2), (2, 3, 2)),
    "ansatz": Knob("rx_ring", circuit_of, get_ansatz("ry_ring").build(2, 1), get_ansatz("rx_ring").build(2, 1)),
    "groups": Knob(
        (3, 2),
        lambda layer: (layer.groups, tuple(layer.weights.shape), tuple(layer(torch.zeros(5, 1, 1, 2)).shape)),
        ((), (1, 2), (5, 1, 1, 2)),
        ((3, 2), (3, 2, 1, 2), (5, 3, 2, 2)),
    ),
    "engine": Knob("unitary", lambda layer: type(layer._plan).__name__, "AutoPlan", "UnitaryPlan"),
    "init_method": Knob(
        lambda weights: nn.init.constant_(weights, 9.0), lambda layer: layer.weights.max().item() == 9.0, False, True
    ),
    "device": Knob("meta", lambda layer: layer.weights.device.type, "cpu", "meta"),
    "dtype": Knob(torch.float64, lambda layer: layer.weights.dtype, torch.float32, torch.float64),
}


@pytest.mark.parametrize("name", options_of(QuantumLinear.__init__))
def test_every_option_of_a_layer(name: str) -> None:
    knob = KNOBS[name]
    options = {"n_qubits": 2, name: knob.value}
    assert knob.seen(QuantumLinear(2)) == knob.before
    assert knob.seen(QuantumLinear(**options)) == knob.after


def test_no_option_of_a_layer_that_it_has_not() -> None:
    assert set(KNOBS) == set(options_of(QuantumLinear.__init__))


def test_an_ansatz_may_be_given_itself() -> None:
    row = get_ansatz("rx_ring")
    layer = QuantumLinear(3, ansatz=row)
    assert layer.ansatz == "rx_ring"
    assert layer.circuit == row.build(3, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_runs_a_layer(engine: str) -> None:
    """By the plan of its name, to the values of the reference."""
    ansatz = "pyramid" if engine == "subspace" else "ry_ring"
    layer = QuantumLinear(2, n_layers=2, ansatz=ansatz, engine=engine, dtype=torch.float64)
    assert type(layer._plan).__name__ == f"{engine.capitalize()}Plan"
    inputs = torch.randn(5, layer.n_inputs, dtype=torch.float64)
    expected = expectations(layer.circuit, inputs, layer.weights.flatten(), engine="reference")
    torch.testing.assert_close(layer(inputs), expected, atol=1e-12, rtol=0)


# --- explain ---------------------------------------------------------------------------------------------------

CIRCUIT = get_ansatz("ry_ring").build(3, 2)
EXPLAINED: dict[str, Any] = {
    "tokens": 20, "groups": 3, "dtype": torch.float64, "device": "cuda", "measure": False, "repeats": 2,
}  # fmt: skip


USUAL = {"tokens": 1568, "groups": 1, "dtype": torch.float32, "device": "cpu", "measure": True, "repeats": 15}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be measured."""
    asked: list[tuple[Any, ...]] = []
    module = inspect.getmodule(inspect.unwrap(explain))

    def measure(plan: Any, circuit: Any, *given: Any) -> float:
        asked.append(given)
        return 1.5

    monkeypatch.setattr(module, "milliseconds", measure)
    return asked


@pytest.mark.parametrize("name", options_of(explain, "circuit"))
def test_every_option_of_explain(name: str, measured: list[tuple[Any, ...]]) -> None:
    value = EXPLAINED[name]
    usual = options_of(explain, "circuit")
    assert usual == {
        "tokens": 1568,
        "groups": 1,
        "dtype": torch.float32,
        "device": "cpu",
        "measure": True,
        "repeats": 15,
    }
    chosen = usual | {name: value}
    found = explain(CIRCUIT, **{name: value})
    assert (found.tokens, found.groups) == (chosen["tokens"], chosen["groups"])
    itemsize = 8 if chosen["dtype"] == torch.float64 else 4
    predicted = auto_plan(CIRCUIT).predicted(chosen["tokens"], chosen["groups"], itemsize, chosen["device"])
    assert {row.engine: row.predicted for row in found.engines} == {key: 1e3 * s for key, s in predicted.items()}
    assert found.chosen == min(predicted, key=predicted.__getitem__)
    asked = tuple(chosen[key] for key in ("tokens", "groups", "dtype", "device", "repeats"))
    assert set(measured) == ({asked} if chosen["measure"] else set())
    assert {row.measured for row in found.engines} <= {1.5, None}


def test_a_layer_is_explained_as_it_is(measured: list[tuple[Any, ...]]) -> None:
    layer = QuantumLinear(3, n_layers=2, groups=(2, 3), dtype=torch.float64)
    assert options_of(layer.explain) == {"tokens": 1568, "measure": True}
    assert layer.explain().circuit == layer.circuit
    assert set(measured) == {(1568, 6, torch.float64, "cpu", 15)}
    measured.clear()
    assert layer.explain(tokens=7, measure=False) == explain(
        CIRCUIT, tokens=7, groups=6, dtype=torch.float64, measure=False
    )
    assert measured == []
