"""The reference gate by gate, and all engines on whole circuits, against PennyLane's default.qubit."""

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import Tensor

from qvit.quantum import Angle, Circuit, Gate, Pauli, expectations, get_ansatz, x
from qvit.quantum.circuit import FIXED, GATE_WIRES
from qvit.quantum.engines.reference import gate_matrix

RandomCircuit = Callable[..., Circuit]
RandomBatch = Callable[..., tuple[Tensor, Tensor]]
EnginesFor = Callable[[Circuit], list[str]]

FIXED_GATES = {"H": qml.Hadamard, "X": qml.PauliX, "Y": qml.PauliY, "Z": qml.PauliZ}
TURNED_GATES = {"RXX": qml.IsingXX, "RYY": qml.IsingYY, "RZZ": qml.IsingZZ}


def theirs(gate: Gate, theta: Tensor | float) -> qml.operation.Operator:
    """The same gate in PennyLane."""
    if gate.angle is None:
        return (FIXED_GATES.get(gate.name) or getattr(qml, gate.name))(wires=gate.wires)
    if gate.name == "RBS":
        return qml.SingleExcitation(-2 * theta, wires=gate.wires)
    if gate.name == "PauliRot":
        return qml.PauliRot(theta, gate.word, wires=gate.wires)
    return (TURNED_GATES.get(gate.name) or getattr(qml, gate.name))(theta, wires=gate.wires)


def angle_of(angle: Angle, x: Tensor, w: Tensor) -> Tensor:
    theta = torch.tensor(angle.constant, dtype=torch.float64)
    for values, terms in ((x, angle.inputs), (w, angle.weights)):
        for index, coefficient in terms:
            theta = theta + coefficient * values[index]
    return theta


def observable_of(pauli: Pauli) -> qml.operation.Operator:
    letters = {"X": qml.PauliX, "Y": qml.PauliY, "Z": qml.PauliZ}
    factors = [letters[letter](wire) for wire, letter in zip(pauli.wires, pauli.word, strict=True)]
    return qml.s_prod(pauli.sign, qml.prod(*factors))


def run(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """Evaluate a circuit for one row of inputs and of weights in PennyLane."""
    n = circuit.n_wires

    @qml.qnode(qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    def node() -> list[Tensor]:
        if circuit.amplitudes:
            features = x[: len(circuit.amplitudes)]
            state = torch.zeros(2**n, dtype=torch.float64)
            place = torch.tensor(circuit.amplitudes)
            qml.StatePrep(state.index_copy(0, place, features / features.norm()).to(torch.complex128), wires=range(n))
        for gate in circuit.gates:
            theirs(gate, angle_of(gate.angle, x, w) if gate.angle else 0.0)
        return [qml.expval(observable_of(pauli)) for pauli in circuit.observables]

    return torch.stack([value.to(torch.float64) for value in node()])


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


GATES = [
    *(Gate(name, (wire,)) for name in FIXED for wire in (0, 2)),
    *(Gate(name, wires) for name in ("CNOT", "CZ", "SWAP") for wires in permutations(range(3), 2)),
    *(Gate(name, (1,), x(0)) for name in ("RX", "RY", "RZ")),
    *(
        Gate(name, wires, x(0))
        for name in ("RXX", "RYY", "RZZ", "CRX", "CRY", "CRZ", "RBS")
        for wires in permutations(range(3), 2)
    ),
    *(
        Gate("PauliRot", wires, x(0), word)
        for word, wires in [("X", (2,)), ("ZY", (0, 2)), ("IX", (1, 0)), ("XYZ", (2, 0, 1)), ("YIY", (0, 1, 2))]
    ),
]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: f"{gate.name}{gate.word}{gate.wires}")
def test_the_reference_gate_by_gate(gate: Gate) -> None:
    for theta in (0.7, -2.9):
        ours = gate_matrix(gate, 3, torch.tensor([theta], dtype=torch.float64), torch.zeros(0))
        expected = qml.matrix(theirs(gate, theta), wire_order=range(3))
        np.testing.assert_allclose(ours.numpy().reshape(8, 8), expected, atol=1e-14)


def test_every_gate_is_compared() -> None:
    assert {gate.name for gate in GATES} == set(GATE_WIRES)


def test_a_beam_splitter_by_hand() -> None:
    """RBS(θ): |10⟩ ↦ cos θ|10⟩ + sin θ|01⟩, |01⟩ ↦ cos θ|01⟩ − sin θ|10⟩; |00⟩ and |11⟩ stay (Cherrat et al. 2024)."""
    c, s = math.cos(0.7), math.sin(0.7)
    expected = [[1, 0, 0, 0], [0, c, s, 0], [0, -s, c, 0], [0, 0, 0, 1]]  # columns are |00⟩, |01⟩, |10⟩, |11⟩
    matrix = gate_matrix(Gate("RBS", (0, 1), x(0)), 2, torch.tensor([0.7], dtype=torch.float64), torch.zeros(0))
    np.testing.assert_allclose(matrix.reshape(4, 4).numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("seed", range(300, 308))
def test_random_circuits(
    seed: int, random_circuit: RandomCircuit, random_batch: RandomBatch, engines_for: EnginesFor
) -> None:
    """Values and gradients; an odd seed loads amplitudes."""
    circuit = random_circuit(seed, loaded=bool(seed % 2), n=2 + seed % 4)
    inputs, weights = random_batch(circuit, seed, tokens=1, groups=1)
    one, other = inputs.reshape(-1), weights.reshape(-1)
    expected = run(circuit, one, other)
    factors = torch.linspace(0.3, 1.7, len(expected), dtype=torch.float64)
    gradients = torch.autograd.grad(expected, (inputs, weights), factors, allow_unused=True, materialize_grads=True)
    for engine in (*engines_for(circuit), "reference"):
        values = expectations(circuit, inputs, weights, engine=engine).reshape(-1)
        assert_close(values, expected)
        found = torch.autograd.grad(values, (inputs, weights), factors, allow_unused=True, materialize_grads=True)
        for a, b in zip(found, gradients, strict=True):
            assert_close(a, b, 1e-10)


def template(name: str, x: Tensor, weights: Tensor) -> Callable[[], None]:
    """The named ansatz put together from PennyLane's templates."""
    n = len(x)

    def load(axis: str = "Y") -> None:
        qml.AngleEmbedding(x, wires=range(n), rotation=axis)

    def ring(axis: type, loaded: str) -> None:
        load(loaded)
        qml.BasicEntanglerLayers(weights, wires=range(n), rotation=axis)

    def strongly_entangling() -> None:
        load()
        qml.StronglyEntanglingLayers(weights, wires=range(n))

    def reupload() -> None:
        for layer in weights:
            load()
            qml.AngleEmbedding(layer[:, 0], wires=range(n), rotation="Y")
            qml.AngleEmbedding(layer[:, 1], wires=range(n), rotation="Z")
            for wire in range(n):
                qml.CNOT(wires=[wire, (wire + 1) % n])

    return {
        "ry_ring": lambda: ring(qml.RY, "Y"),
        "rx_ring": lambda: ring(qml.RX, "X"),
        "basic_entangler": lambda: ring(qml.RX, "Y"),
        "strongly_entangling": strongly_entangling,
        "reupload": reupload,
    }[name]


@pytest.mark.parametrize(("n", "n_layers"), [(3, 3), (5, 2)])
@pytest.mark.parametrize("name", ["ry_ring", "rx_ring", "basic_entangler", "strongly_entangling", "reupload"])
def test_ansatze_against_templates(name: str, n: int, n_layers: int) -> None:
    """From three wires on; on two PennyLane's BasicEntanglerLayers has a single CNOT instead of a ring."""
    row = get_ansatz(name)
    circuit = row.build(n, n_layers)
    inputs = torch.randn(n, dtype=torch.float64)
    weights = torch.randn(row.weight_shape(n, n_layers), dtype=torch.float64)

    @qml.qnode(qml.device("default.qubit", wires=n), interface="torch")
    def node() -> list[Tensor]:
        template(name, inputs, weights)()
        return [qml.expval(qml.PauliZ(wire)) for wire in range(n)]

    assert_close(expectations(circuit, inputs, weights.flatten()), torch.stack(node()))
