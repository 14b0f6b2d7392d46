"""Every engine against the slow reference, PennyLane, and the closed form written out by hand."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product as product_of

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qvit.quantum import ANSATZE, Angle, Circuit, Gate, QuantumLinear, expectations, get_ansatz
from qvit.quantum.circuit import GATE_WIRES
from qvit.quantum.engines import dense, product, reference

Reference = Callable[[Circuit, Tensor, Tensor], Tensor]
RandomCircuit = Callable[..., Circuit]

SEEDS = range(16)
PRECISIONS = {torch.float64: 1e-12, torch.float32: 1e-6}


def draw(circuit: Circuit, seed: int, *, groups: int = 2, tokens: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs `(t, 1, i)` and weights `(g, k)`, float64 numbers that float32 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(tokens, 1, circuit.n_inputs, generator=generator)
    return inputs.double(), torch.randn(groups, circuit.n_weights, generator=generator).double()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max().item() <= tolerance


# --- against the reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ANSATZE)
def test_every_ansatz_on_every_engine(name: str, n: int, n_layers: int, by_reference: Reference) -> None:
    circuit = get_ansatz(name).build(n, n_layers)
    inputs, weights = draw(circuit, 7 * n + n_layers, tokens=2)
    expected = by_reference(circuit, inputs, weights)
    engines = ["auto", "dense"] + ["product"] * (product.product_plan(circuit) is not None)
    for engine, (dtype, tolerance) in product_of(engines, PRECISIONS.items()):
        values = expectations(circuit, inputs.to(dtype), weights.to(dtype), engine=engine)
        assert values.dtype == dtype
        assert_close(values, expected, tolerance)


def test_which_ansatze_have_the_closed_form() -> None:
    """Without this the product engine could refuse everything, and `auto` would still be right."""
    one = {name for name, row in ANSATZE.items() if product.product_plan(row.build(3, 1))}
    two = {name for name, row in ANSATZE.items() if product.product_plan(row.build(3, 2))}
    assert one == {"ry_ring", "rx_ring", "no_entangler"}
    assert two == {"no_entangler"}


def test_random_circuits_contain_every_gate(random_circuit: RandomCircuit) -> None:
    circuits = [random_circuit(seed) for seed in SEEDS]
    assert {gate.name for circuit in circuits for gate in circuit.gates} == set(GATE_WIRES)
    assert {circuit.n_wires for circuit in circuits} == {2, 3, 4, 5, 6}
    assert 0 in {circuit.n_inputs for circuit in circuits}
    assert 0 in {circuit.n_weights for circuit in circuits}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_circuits(seed: int, random_circuit: RandomCircuit, by_reference: Reference) -> None:
    circuit = random_circuit(seed)
    inputs, weights = draw(circuit, seed)
    expected = by_reference(circuit, inputs, weights)
    for dtype, tolerance in PRECISIONS.items():
        assert_close(expectations(circuit, inputs.to(dtype), weights.to(dtype)), expected, tolerance)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(100, 2**32 - 1))
def test_more_random_circuits(seed: int, random_circuit: RandomCircuit, by_reference: Reference) -> None:
    circuit = random_circuit(seed, n_gates=12)
    inputs, weights = draw(circuit, seed, groups=1)
    expected = by_reference(circuit, inputs, weights)
    assert_close(expectations(circuit, inputs, weights, engine="dense"), expected, 1e-12)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_product_circuits(seed: int, random_circuit: RandomCircuit, by_reference: Reference) -> None:
    circuit = random_circuit(seed, product=True)
    inputs, weights = draw(circuit, seed)
    expected = by_reference(circuit, inputs, weights)
    for engine in ("product", "dense"):
        assert_close(expectations(circuit, inputs, weights, engine=engine), expected, 1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_many_tokens_take_the_matrix_path_to_the_same_values(seed: int, random_circuit: RandomCircuit) -> None:
    """The dense engine multiplies a stretch out once there are more tokens than amplitudes."""
    circuit = random_circuit(seed)
    inputs, weights = draw(circuit, seed, tokens=2**circuit.n_wires + 3)
    together = expectations(circuit, inputs, weights, engine="dense")
    apart = torch.cat([expectations(circuit, part, weights, engine="dense") for part in inputs.split(2)])
    assert_close(together, apart, 1e-12)


def test_the_matrix_path_is_taken_and_agrees_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, by_reference: Reference
) -> None:
    circuit = get_ansatz("strongly_entangling").build(3, 2)
    inputs, weights = draw(circuit, 5, tokens=11)
    shapes = []
    evolve = dense._evolve

    def spy(gates: Sequence[Gate], state: Tensor, angles: Tensor, n: int) -> Tensor:
        shapes.append(tuple(state.shape))
        return evolve(gates, state, angles, n)

    monkeypatch.setattr(dense, "_evolve", spy)
    values = expectations(circuit, inputs, weights)
    assert (2, 8, 8) in shapes
    assert (2, 11, 8) not in shapes
    assert_close(values, by_reference(circuit, inputs, weights), 1e-12)


# --- against PennyLane -------------------------------------------------------------------------------------


def run_pennylane(operations: Callable[[], object], n: int, observables: tuple[tuple[int, ...], ...]) -> Tensor:
    @qml.qnode(qml.device("default.qubit", wires=n))
    def node() -> list[object]:
        operations()
        return [qml.expval(reduce(lambda a, b: a @ b, [qml.PauliZ(wire) for wire in wires])) for wires in observables]

    return torch.tensor([float(value) for value in node()], dtype=torch.float64)


def apply_in_pennylane(circuit: Circuit, x: np.ndarray, w: np.ndarray) -> None:
    plain = {"H": qml.Hadamard, "X": qml.PauliX, "Y": qml.PauliY, "Z": qml.PauliZ}
    for gate in circuit.gates:
        operation = plain.get(gate.name) or getattr(qml, gate.name)
        if gate.angle is None:
            operation(wires=gate.wires)
            continue
        theta = gate.angle.constant
        for index, coefficient in gate.angle.inputs:
            theta += coefficient * x[index]
        for index, coefficient in gate.angle.weights:
            theta += coefficient * w[index]
        operation(theta, wires=gate.wires)


@pytest.mark.parametrize("seed", range(15))
def test_random_circuits_against_pennylane(seed: int, random_circuit: RandomCircuit) -> None:
    circuit = random_circuit(seed)
    inputs, weights = draw(circuit, seed, groups=1)
    x, w = inputs[0, 0].numpy(), weights[0].numpy()
    theirs = run_pennylane(lambda: apply_in_pennylane(circuit, x, w), circuit.n_wires, circuit.observables)
    assert_close(torch.from_numpy(reference.expectations(circuit, x, w)), theirs, 1e-12)
    for dtype, tolerance in PRECISIONS.items():
        assert_close(expectations(circuit, inputs.to(dtype), weights.to(dtype))[0, 0], theirs, tolerance)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("name", ANSATZE)
def test_ansatze_against_pennylane_templates(name: str, n: int, n_layers: int) -> None:
    """From three wires on; on two PennyLane's BasicEntanglerLayers has a single CNOT instead of a ring."""
    layer = QuantumLinear(n, n_layers=n_layers, ansatz=name)
    x, weights = torch.randn(n), layer.weights.detach().double().numpy()
    wires = range(n)

    def load() -> None:
        qml.AngleEmbedding(x.double().numpy(), wires=wires, rotation="X" if name == "rx_ring" else "Y")

    def strongly_entangling() -> None:
        load()
        qml.StronglyEntanglingLayers(weights, wires=wires)

    def reupload() -> None:
        for layer_weights in weights:
            load()
            qml.AngleEmbedding(layer_weights[:, 0], wires=wires, rotation="Y")
            qml.AngleEmbedding(layer_weights[:, 1], wires=wires, rotation="Z")
            for wire in wires:
                qml.CNOT(wires=[wire, (wire + 1) % n])

    def no_entangler() -> None:
        load()
        qml.AngleEmbedding(weights.sum(0), wires=wires, rotation="Y")

    def ring() -> None:
        load()
        qml.BasicEntanglerLayers(weights, wires=wires, rotation=qml.RY if name == "ry_ring" else qml.RX)

    others = {"strongly_entangling": strongly_entangling, "reupload": reupload, "no_entangler": no_entangler}
    theirs = run_pennylane(others.get(name, ring), n, tuple((wire,) for wire in wires))
    assert_close(layer(x), theirs, 1e-6)
    assert_close(layer.double()(x.double()), theirs, 1e-12)


# --- closed forms ------------------------------------------------------------------------------------------


def prefix_products(angles: Tensor) -> Tensor:
    """⟨Zᵢ⟩ = ∏_{j≤i} cos θⱼ, and ∏_{j≥1} cos θⱼ for i = 0 (a single wire has no ring)."""
    cosines = angles.cos()
    if angles.shape[-1] == 1:
        return cosines
    return torch.cat((cosines[..., 1:].prod(-1, keepdim=True), cosines.cumprod(-1)[..., 1:]), dim=-1)


@pytest.mark.parametrize("engine", ["auto", "product", "dense"])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["ry_ring", "rx_ring"])
def test_one_ring_layer_is_prefix_products(name: str, n: int, engine: str) -> None:
    layer = QuantumLinear(n, ansatz=name, engine=engine, dtype=torch.float64)
    x = torch.randn(11, n, dtype=torch.float64)
    assert_close(layer(x), prefix_products(x + layer.weights[0]), 1e-12)


def test_without_entangler_each_output_is_one_cosine() -> None:
    layer = QuantumLinear(3, n_layers=2, ansatz="no_entangler", dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)
    assert_close(layer(x), (x + layer.weights.sum(0)).cos(), 1e-12)


def test_a_thousand_qubits_in_closed_form() -> None:
    layer = QuantumLinear(1000, init_method=torch.nn.init.zeros_, dtype=torch.float64)
    x = torch.randn(2, 1000, dtype=torch.float64) / 30
    values = layer(x)
    assert_close(values, prefix_products(x), 1e-12)
    assert values.abs().min() > 1e-3  # the products do not just vanish


@pytest.mark.parametrize("engine", ["auto", "dense"])
def test_single_gates_by_hand(engine: str) -> None:
    """Conventions, without any reference: which wire is which, control before target, sign and half-angle."""
    t, no_weights = 0.3, torch.zeros(0, dtype=torch.float64)
    ry, cnot = Gate("RY", (0,), Angle(inputs=((0, 2.0),), constant=0.1)), Gate("CNOT", (0, 1))
    flipped = (Gate("X", (1,)), Gate("CNOT", (1, 2)))
    cases = [
        (2, (ry,), [math.cos(2 * t + 0.1), 1.0]),
        (2, (ry, cnot), [math.cos(2 * t + 0.1), math.cos(2 * t + 0.1)]),
        (3, flipped, [1.0, -1.0, -1.0]),
        (3, (*flipped, Gate("SWAP", (0, 2))), [-1.0, -1.0, 1.0]),
        # H·T·H turns T's phase of π/4 into ⟨Z⟩ = cos π/4; S of π/2 into 0
        (1, (Gate("H", (0,)), Gate("T", (0,)), Gate("H", (0,))), [math.cos(math.pi / 4)]),
        (1, (Gate("H", (0,)), Gate("S", (0,)), Gate("H", (0,))), [0.0]),
        # S then RX(π/2) tells S from its inverse: ⟨Y⟩ is read as ⟨Z⟩
        (1, (Gate("H", (0,)), Gate("S", (0,)), Gate("RX", (0,), Angle(constant=math.pi / 2))), [1.0]),
    ]
    for n, gates, expected in cases:
        circuit = Circuit(n, 1, 0, gates)
        values = expectations(circuit, torch.tensor([t], dtype=torch.float64), no_weights, engine=engine)
        assert_close(values, torch.tensor(expected, dtype=torch.float64), 1e-12)
