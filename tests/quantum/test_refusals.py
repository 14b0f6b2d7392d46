"""Wrong circuits, layers and inputs are refused with a message that helps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qvit.errors import CircuitError, QvitError
from qvit.quantum import Angle, Circuit, Gate, QuantumLinear, expectations, get_ansatz

HALF = Angle(constant=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0, ()), r"at least one wire, got 0"),
        ((-1, 0, 0, ()), r"at least one wire, got -1"),
        ((2, 0, 0, (Gate("RYY", (0,), HALF),)), r"no gate 'RYY'\. Did you mean 'RY'\?.*Known gates: RX"),
        ((2, 0, 0, (Gate("?", (0,)),)), r"no gate '\?'\. Known gates"),
        ((2, 0, 0, (Gate("X", (2,)),)), r"X acts on wires \(2,\); expected distinct wires from 0 to 1"),
        ((2, 0, 0, (Gate("X", (-1,)),)), r"X acts on wires \(-1,\)"),
        ((2, 0, 0, (Gate("CNOT", (1, 1)),)), r"CNOT acts on wires \(1, 1\); expected distinct"),
        ((2, 0, 0, (Gate("CNOT", (0,)),)), r"CNOT acts on 2 wire\(s\), got \(0,\)"),
        ((2, 0, 0, (Gate("RX", (0, 1), HALF),)), r"RX acts on 1 wire\(s\), got \(0, 1\)"),
        ((2, 0, 0, (Gate("RX", (0,)),)), r"RX needs an angle"),
        ((2, 0, 0, (Gate("CZ", (0, 1), HALF),)), r"CZ takes no angle"),
        ((2, 1, 0, (Gate("RX", (0,), Angle(inputs=((1, 1.0),))),)), r"uses input 1; .* has 1 input\(s\)"),
        ((2, 1, 0, (Gate("RX", (0,), Angle(inputs=((-1, 1.0),))),)), r"uses input -1"),
        ((2, 0, 3, (Gate("RX", (0,), Angle(weights=((3, 1.0),))),)), r"uses weight 3; .* has 3 weight\(s\)"),
        ((2, 0, 0, (), ((),)), r"An observable acts on wires \(\)"),
        ((2, 0, 0, (), ((0, 0),)), r"An observable acts on wires \(0, 0\); expected distinct"),
        ((2, 0, 0, (), ((0,), (2,))), r"An observable acts on wires \(2,\)"),
    ],
)
def test_circuits(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        Circuit(*arguments)


@pytest.mark.parametrize(
    ("n_qubits", "options", "message"),
    [
        (0, {}, r"n_qubits must be at least 1, got 0"),
        (-3, {}, r"n_qubits must be at least 1, got -3"),
        (2, {"n_layers": 0}, r"n_layers must be at least 1, got 0"),
        (2, {"groups": (3, 0)}, r"groups must be at least 1, got 0"),
        (2, {"ansatz": "ry_rings"}, r"no ansatz 'ry_rings'\. Did you mean 'ry_ring'\? Known ansätze: ry_ring, "),
        (2, {"engine": "dens"}, r"no engine 'dens'\. Did you mean 'dense'\?"),
    ],
)
def test_layers(n_qubits: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        QuantumLinear(n_qubits, **options)


@pytest.mark.parametrize(
    ("groups", "inputs", "message"),
    [
        ((), torch.zeros(5, 4), r"Expected inputs \(…, 3\), one feature per qubit, got \(5, 4\)"),
        ((), torch.zeros(5, 1), r"Expected inputs \(…, 3\), .* got \(5, 1\)"),
        ((), torch.tensor(1.0), r"Expected inputs \(…, 3\), .* got \(\)"),
        ((), torch.zeros(5, 3, dtype=torch.int64), r"floating-point angles in radians, got torch\.int64"),
        ((), torch.zeros(5, 3, dtype=torch.bool), r"floating-point angles in radians, got torch\.bool"),
        ((), torch.zeros(5, 3, dtype=torch.complex64), r"floating-point .* got torch\.complex64"),
        ((2,), torch.zeros(3), r"\(…, 2, 3\) for groups \(2,\) \(1 where .*\), got \(3,\)"),
        ((2,), torch.zeros(4, 3), r"for groups \(2,\) .* got \(4, 3\)"),
        ((3, 2), torch.zeros(5, 3, 3, 3), r"\(…, 3, 2, 3\) for groups \(3, 2\) .* got \(5, 3, 3, 3\)"),
        ((3, 2), torch.zeros(5, 2, 2, 3), r"for groups \(3, 2\) .* got \(5, 2, 2, 3\)"),
        ((3, 2), torch.zeros(2, 3), r"for groups \(3, 2\) .* got \(2, 3\)"),
    ],
)
def test_inputs_of_a_layer(groups: tuple[int, ...], inputs: torch.Tensor, message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        QuantumLinear(3, groups=groups)(inputs)


@pytest.mark.parametrize(
    ("inputs", "weights", "message"),
    [
        (torch.zeros(5, 1), torch.zeros(3), r"Expected inputs \(…, 3\) for this circuit, got \(5, 1\)"),
        (torch.zeros(5, 3), torch.zeros(1), r"Expected weights \(…, 3\) for this circuit, got \(1,\)"),
        (torch.tensor(0.0), torch.zeros(3), r"Expected inputs \(…, 3\) for this circuit, got \(\)"),
        (torch.zeros(5, 3, dtype=torch.int64), torch.zeros(3), r"one floating-point dtype, got torch\.int64"),
        (torch.zeros(3).double(), torch.zeros(3), r"one .* dtype, got torch\.float64 and torch\.float32"),
        (torch.zeros(5, 2, 3), torch.zeros(4, 3), r"Inputs \(5, 2, 3\) and weights \(4, 3\) do not broadcast"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "dense", "product"])
def test_tensors_given_to_expectations(engine: str, inputs: torch.Tensor, weights: torch.Tensor, message: str) -> None:
    """A width of 1 would otherwise broadcast silently."""
    with pytest.raises(CircuitError, match=message):
        expectations(get_ansatz("ry_ring").build(3, 1), inputs, weights, engine=engine)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_ansatz("strongly"), r"no ansatz 'strongly'\. Did you mean 'strongly_entangling'\?"),
        (
            lambda: expectations(Circuit(1, 0, 0, ()), torch.zeros(0), torch.zeros(0), engine="densee"),
            r"no engine 'densee'\. Did you mean 'dense'\? Known engines: auto, product, dense",
        ),
        (
            lambda: QuantumLinear(3, n_layers=2, engine="product")(torch.zeros(3)),
            r"not a product of cosines; use engine='dense' or 'auto'",
        ),
        (
            lambda: QuantumLinear(3, ansatz="basic_entangler", engine="product")(torch.zeros(3)),
            r"not a product of cosines",
        ),
        (lambda: QuantumLinear(15, engine="dense")(torch.zeros(15)), r"up to 14 wires, got 15"),
        (lambda: QuantumLinear(15, n_layers=2)(torch.zeros(15)), r"up to 14 wires, got 15\. Use fewer qubits"),
    ],
)
def test_names_and_engines(call: Callable[[], object], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        call()


@pytest.mark.parametrize("gate", ["RZ", "H", "X", "CZ", "SWAP"])
def test_the_product_engine_takes_nothing_but_its_form(gate: str) -> None:
    wires = (0, 1) if gate in ("CZ", "SWAP") else (0,)
    gates = (Gate(gate, wires, HALF if gate == "RZ" else None),)
    for before in (True, False):
        cnot = (Gate("CNOT", (0, 1)),)
        circuit = Circuit(2, 0, 0, gates + cnot if before else cnot + gates)
        with pytest.raises(CircuitError, match="not a product of cosines"):
            expectations(circuit, torch.zeros(0), torch.zeros(0), engine="product")


def test_the_family() -> None:
    assert issubclass(CircuitError, QvitError)
