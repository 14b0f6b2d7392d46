"""Wrong circuits, layers and inputs are refused with a message that helps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qvit.errors import CircuitError, QvitError
from qvit.quantum import Angle, Circuit, CircuitBuilder, Gate, QuantumLinear, Z, expectations, get_ansatz, w, x

HALF = Angle(constant=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0, ()), r"must be from 1 to 4,096, got 0"),
        ((-1, 0, 0, ()), r"must be from 1 to 4,096, got -1"),
        ((2, 0, 0, (Gate("RYX", (0,), HALF),)), r"no gate 'RYX'\. Did you mean 'R\w+'\?.*Known gates: RX"),
        ((2, 0, 0, (Gate("?", (0,)),)), r"no gate '\?'\. Known gates"),
        ((2, 0, 0, (Gate("X", (2,)),)), r"X acts on wires \(2,\); expected distinct wires from 0 to 1"),
        ((2, 0, 0, (Gate("X", (-1,)),)), r"X acts on wires \(-1,\)"),
        ((2, 0, 0, (Gate("CNOT", (1, 1)),)), r"CNOT acts on wires \(1, 1\); expected distinct"),
        ((2, 0, 0, (Gate("CNOT", (0,)),)), r"CNOT acts on 2 wire\(s\), got \(0,\)"),
        ((2, 0, 0, (Gate("RX", (0, 1), HALF),)), r"RX acts on 1 wire\(s\), got \(0, 1\)"),
        ((2, 0, 0, (Gate("RBS", (0,), HALF),)), r"RBS acts on 2 wire\(s\)"),
        ((2, 0, 0, (Gate("RX", (0,)),)), r"RX needs an angle"),
        ((2, 0, 0, (Gate("CZ", (0, 1), HALF),)), r"CZ takes no angle"),
        ((2, 0, 0, (Gate("PauliRot", (0, 1), HALF, ""),)), r"PauliRot needs a Pauli word with a letter a wire"),
        ((2, 0, 0, (Gate("PauliRot", (0, 1), HALF, "II"),)), r"at least one of them X, Y or Z"),
        ((2, 0, 0, (Gate("PauliRot", (0, 1), HALF, "X"),)), r"'X' needs 1 distinct wire\(s\), got \(0, 1\)"),
        ((2, 0, 0, (Gate("PauliRot", (0,), HALF, "Q"),)), r"'Q' .* is none of I, X, Y, Z"),
        ((2, 0, 0, (Gate("PauliRot", (0,), None, "X"),)), r"PauliRot needs an angle"),
        ((2, 0, 0, (Gate("RX", (0,), HALF, "X"),)), r"RX takes no Pauli word; PauliRot does"),
        ((2, 1, 0, (Gate("RX", (0,), x(1)),)), r"uses input 1; .* has 1 input\(s\)"),
        ((2, 1, 0, (Gate("RX", (0,), x(-1)),)), r"uses input -1"),
        ((2, 0, 3, (Gate("RX", (0,), w(3)),)), r"uses weight 3; .* has 3 weight\(s\)"),
        ((2, 0, 0, (), (Z(0), Z(2))), r"An observable acts on wires \(2,\)"),
        ((2, 1, 0, (), (), (0, 1)), r"names 2 basis states, 2 of them distinct, for 1 input\(s\)"),
        ((2, 2, 0, (), (), (1, 1)), r"names 2 basis states, 1 of them distinct"),
        ((2, 1, 0, (), (), (4,)), r"Basis states of 2 wire\(s\) go from 0 to 3"),
        ((2, 1, 0, (), (), (-1,)), r"go from 0 to 3"),
    ],
)
def test_circuits(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        Circuit(*arguments)


def test_a_builder_refuses_as_its_circuit() -> None:
    with pytest.raises(CircuitError, match=r"no gate 'CNOTT'\. Did you mean 'CNOT'\?"):
        CircuitBuilder(2).add("CNOTT", 0, 1).build()


def test_a_builder_counts() -> None:
    circuit = CircuitBuilder(2).load_amplitudes(0, 1, 2).add("RX", 0, angle=x(1) + w(4)).add("RZ", 1, angle=0.5).build()
    assert (circuit.n_inputs, circuit.n_weights, circuit.observables) == (3, 5, (Z(0), Z(1)))
    assert circuit.gates[1].angle == Angle(constant=0.5)


def test_angles_are_sums() -> None:
    angle = 2 * x(1) + x(0) - w(2) * 0.5 - 1 + x(1) - 3 * x(1)
    assert angle == Angle(((0, 1.0),), ((2, -0.5),), -1.0)
    assert str(angle) == "x0 - 0.5·w2 - 1"
    assert str(-angle) == "-x0 + 0.5·w2 + 1"
    assert str(Angle()) == "0"
    assert 1 + x(0) == x(0) + 1


@pytest.mark.parametrize(
    ("n_qubits", "options", "message"),
    [
        (0, {}, r"n_qubits must be from 1 to 4,096, got 0"),
        (-3, {}, r"n_qubits must be .* got -3"),
        (2.5, {}, r"n_qubits must be a whole number, got 2\.5"),
        ("4", {}, r"n_qubits must be .* got '4'"),
        (2, {"n_layers": 0}, r"n_layers must be .* got 0"),
        (2, {"n_layers": 1.0}, r"n_layers must be .* got 1\.0"),
        (2, {"groups": 3}, r"groups must be a tuple such as \(3, 2\), got 3"),
        (2, {"groups": (3, 0)}, r"groups must be .* got 0"),
        (2, {"ansatz": "ry_rings"}, r"no ansatz 'ry_rings'\. Did you mean 'ry_ring'\? Known ansätze: ry_ring, "),
        (2, {"engine": "heisenburg"}, r"no engine 'heisenburg'\. Did you mean 'heisenberg'\? Known engines: auto, "),
        (3, {"ansatz": "butterfly"}, r"needs 2, 4, 8, … wires, got 3; pyramid and x take any number"),
        (1, {"ansatz": "butterfly"}, r"needs 2, 4, 8, … wires, got 1"),
        (1, {"ansatz": "pyramid"}, r"at least two wires, got 1"),
        (1, {"ansatz": "x"}, r"at least two wires, got 1"),
        (3, {"engine": "subspace"}, r"The subspace engine takes unary amplitude encoding"),
        (3, {"engine": "heisenberg", "ansatz": "pyramid"}, r"heisenberg engine starts in \|0…0⟩"),
        (21, {"engine": "statevector", "n_layers": 2}, r"n up to 20; this circuit needs n=21"),
    ],
)
def test_layers(n_qubits: Any, options: dict[str, Any], message: str) -> None:
    """Without the checks of annotations that tests turn on, which would come first."""
    make = QuantumLinear.__init__
    while hasattr(make, "__wrapped__"):
        make = make.__wrapped__
    with pytest.raises(CircuitError, match=message):
        make(QuantumLinear.__new__(QuantumLinear), n_qubits, **options)


@pytest.mark.parametrize(
    ("groups", "inputs", "message"),
    [
        ((), torch.zeros(5, 4), r"Expected inputs \(…, 3\), got \(5, 4\)"),
        ((), torch.zeros(5, 1), r"Expected inputs \(…, 3\), got \(5, 1\)"),
        ((), torch.tensor(1.0), r"Expected inputs \(…, 3\), got \(\)"),
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
@pytest.mark.parametrize("engine", ["auto", "heisenberg", "statevector", "unitary", "reference"])
def test_tensors_given_to_expectations(engine: str, inputs: torch.Tensor, weights: torch.Tensor, message: str) -> None:
    """A width of 1 would otherwise broadcast silently."""
    with pytest.raises(CircuitError, match=message):
        expectations(get_ansatz("ry_ring").build(3, 1), inputs, weights, engine=engine)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_ansatz("strongly"), r"no ansatz 'strongly'\. Did you mean 'strongly_entangling'\?"),
        (
            lambda: expectations(Circuit(1, 0, 0, ()), torch.zeros(0), torch.zeros(0), engine="dense"),
            r"no engine 'dense'\..* Known engines: auto, heisenberg, unitary, statevector, subspace, reference",
        ),
    ],
)
def test_names(call: Callable[[], object], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        call()


def test_the_family() -> None:
    assert issubclass(CircuitError, QvitError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Circuit(10**12, 0, 0, ()), "number of wires of a circuit must be from 1 to 4,096"),
        (lambda: Circuit(2, 10**30, 0, ()), "n_inputs of a circuit .* more than 64 bits"),
        (lambda: Circuit(2, 0, 10**9, ()), "n_weights of a circuit must be"),
        (lambda: QuantumLinear(10**9), "n_qubits must be from 1 to 4,096"),
        (lambda: QuantumLinear(2, n_layers=10**9), "n_layers must be from 1 to 256"),
        (lambda: QuantumLinear(2, groups=(10**6, 10**6)), "groups must be from 1 to 65,536"),
        (lambda: QuantumLinear(2, groups=(60_000, 60_000)), "number of circuits in groups must be"),
        (lambda: QuantumLinear(4096, ansatz="pyramid"), "would have .* weights on 4096 wires"),
        (lambda: Z(10**12), "A wire must be from"),
        (lambda: Gate("RY", (10**12,), x(0)), "A wire must be from"),
        (lambda: Angle(inputs=((10**12, 1.0),)), "index of an angle must be"),
        (lambda: Angle(constant=10**400), "finite numbers"),
    ],
)
def test_sizes_have_limits(make: Callable[[], object], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        make()


def test_the_oracle_takes_what_its_matrices_leave_room_for() -> None:
    circuit = Circuit(12, 0, 0, (Gate("H", (0,)),))
    with pytest.raises(CircuitError, match="for n up to 11"):
        expectations(circuit, torch.zeros(0), torch.zeros(0), engine="reference")
