"""Ansätze, layer, explanation, plans, drawings: another value of every option changes what comes out."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from qvit.errors import CircuitError
from qvit.quantum import (
    ANSATZE,
    Angle,
    Ansatz,
    Circuit,
    CircuitBuilder,
    Gate,
    Pauli,
    QuantumLinear,
    X,
    expectations,
    explain,
    get_ansatz,
    register_ansatz,
    w,
    x,
)
from qvit.quantum.ansatz import _layers, angle_encoding, rotation_layer
from qvit.quantum.circuit import ring
from qvit.quantum.draw import as_figure, as_text
from qvit.quantum.engines import make_plan

RING = get_ansatz("ry_ring").build(3, 4)
PHASE = Gate("RY", (0,), x(0))


def of_layer(layer: QuantumLinear) -> tuple[Any, ...]:
    weights = layer.weights.detach()
    plan = type(layer._plan)
    zeros = weights.device.type != "meta" and bool((weights == 0).all())
    return layer.circuit, weights.shape, weights.dtype, weights.device, layer.engine, plan, layer.ansatz, zeros


def of_explanation(explanation: Any) -> tuple[Any, ...]:
    costs = [(row.predicted, row.measured is None) for row in explanation.engines]
    return explanation.circuit, explanation.tokens, explanation.groups, costs


def of_plan(plan: Any) -> tuple[Any, ...]:
    return type(plan), sorted(getattr(plan, "plans", {}))


def registered(**options: Any) -> Any:
    try:
        return register_ansatz(**options)
    except CircuitError as error:
        return str(error)


# What is called with which options, what each is then changed to, and what is looked at.
Knobs = tuple[Callable[..., Any], dict[str, Any], dict[str, Any], Callable[[Any], Any]]
KNOBS: list[Knobs] = [
    (angle_encoding, {"n": 2}, {"n": 3, "rotations": ("RX",), "hadamard": True}, tuple),
    (rotation_layer, {"n": 2, "rotations": ("RY",)}, {"n": 3, "rotations": ("RX",), "first": 1}, tuple),
    (ring, {"wires": (0, 1, 2)}, {"wires": (2, 1, 0), "reach": 2}, tuple),
    (
        _layers,
        {"encoding": ("RY",), "rotations": ("RY",)},
        {"encoding": ("RX",), "rotations": ("RX",), "entangled": False},
        lambda build: build(2, 1),
    ),
    (
        registered,
        {"ansatz": get_ansatz("ry_ring")},
        {"ansatz": get_ansatz("rx_ring"), "replace": True},
        lambda found: found.name if isinstance(found, Ansatz) else found,
    ),
    (
        Circuit,
        {"n_wires": 2, "n_inputs": 2, "n_weights": 1, "gates": (PHASE,)},
        {
            "n_wires": 3,
            "n_inputs": 3,
            "n_weights": 2,
            "gates": (),
            "observables": (X(0),),
            "amplitudes": (0, 1),
        },
        lambda circuit: (circuit, hash(circuit), repr(expectations(circuit, *batch_for(circuit)))),
    ),
    (Gate, {"name": "X", "wires": (0,)}, {"name": "Y", "wires": (1,), "angle": w(0), "word": "X"}, repr),
    (Angle, {}, {"inputs": ((0, 1.0),), "weights": ((0, 1.0),), "constant": 1.0}, str),
    (Pauli.of, {"word": "X"}, {"word": "Y", "wires": (1,)}, str),
    (
        CircuitBuilder(2).add,
        {"name": "PauliRot", "angle": 0.5, "word": "XY"},
        {"name": "RXX", "angle": 0.25, "word": "YX"},
        lambda builder: builder._gates[-1],
    ),
    (
        QuantumLinear,
        {"n_qubits": 2},
        {
            "n_qubits": 3,
            "n_layers": 2,
            "ansatz": "rx_ring",
            "groups": (2,),
            "engine": "statevector",
            "init_method": torch.nn.init.zeros_,
            "device": "meta",
            "dtype": torch.float64,
        },
        of_layer,
    ),
    (QuantumLinear(2).explain, {"tokens": 5, "measure": False}, {"tokens": 5000, "measure": True}, of_explanation),
    (
        explain,
        {"circuit": RING, "tokens": 5, "measure": False, "repeats": 1},
        {
            "circuit": get_ansatz("rx_ring").build(3, 2),
            "tokens": 5000,
            "groups": 3,
            "dtype": torch.float64,
            "device": "cuda",
            "measure": True,
        },
        of_explanation,
    ),
    (make_plan, {"circuit": RING}, {"circuit": get_ansatz("x").build(3, 1), "engine": "unitary"}, of_plan),
    (as_text, {"circuit": RING}, {"circuit": get_ansatz("rx_ring").build(3, 2), "width": 60}, str),
    (
        as_figure,
        {"circuit": RING},
        {"circuit": get_ansatz("unlu_v").build(3, 2), "ax": Figure(figsize=(3, 2)).subplots()},
        lambda figure: (tuple(figure.get_size_inches()), len(figure.axes[0].patches)),
    ),
]
ELSEWHERE = {"explain": {"repeats"}}  # how often a time is measured, which differs anyway


def batch_for(circuit: Circuit) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(0.3, 0.9, circuit.n_inputs), torch.zeros(circuit.n_weights)


def options_of(function: Callable[..., Any]) -> set[str]:
    """The names a function can be called with, of `register_ansatz` for what stands for it."""
    parameters = inspect.signature(register_ansatz if function is registered else function).parameters.values()
    return {one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}


@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: knobs[0].__qualname__)
def test_every_option_bites(knobs: Knobs, monkeypatch: pytest.MonkeyPatch) -> None:
    function, options, others, look = knobs
    monkeypatch.setattr("qvit.quantum.ansatz.ANSATZE", dict(ANSATZE))
    assert set(others) | ELSEWHERE.get(function.__qualname__, set()) == options_of(function)
    torch.manual_seed(0)
    before = look(function(**options))
    for name, other in others.items():
        torch.manual_seed(0)
        assert look(function(**{**options, name: other})) != before, name


def test_options_by_hand() -> None:
    assert angle_encoding(2, ("RX", "RZ"), hadamard=True) == (
        Gate("H", (0,)), Gate("H", (1,)), Gate("RX", (0,), x(0)), Gate("RX", (1,), x(1)),
        Gate("RZ", (0,), x(2)), Gate("RZ", (1,), x(3)),
    )  # fmt: skip
    assert angle_encoding(1) == (Gate("RY", (0,), x(0)),)
    assert rotation_layer(2, ("RX", "RY"), 5) == (
        Gate("RX", (0,), w(5)), Gate("RX", (1,), w(7)), Gate("RY", (0,), w(6)), Gate("RY", (1,), w(8)),
    )  # fmt: skip
    assert ring((4, 2, 7), reach=2) == (Gate("CNOT", (4, 7)), Gate("CNOT", (2, 4)), Gate("CNOT", (7, 2)))
    assert ring((4, 2)) == (Gate("CNOT", (4, 2)), Gate("CNOT", (2, 4)))
    assert ring((4,)) == ()


def test_defaults_of_a_layer() -> None:
    layer = QuantumLinear(3)
    assert layer.circuit == get_ansatz("ry_ring").build(3, 1)
    assert (layer.n_layers, layer.groups, layer.engine, layer.weights.dtype) == (1, (), "auto", torch.float32)
    assert layer.weights.device.type == "cpu"
