"""What a circuit cannot do: dead inputs and weights, cones, idle entanglers; claims are checked in numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qvit.quantum import ANSATZE, Circuit, CircuitBuilder, Gate, X, Y, Z, analyse, expectations, get_ansatz, w, x
from qvit.quantum.ansatz import angle_encoding, rotation_layer
from qvit.quantum.circuit import ring

RandomCircuit = Callable[..., Circuit]


def largest_gradients(circuit: Circuit, points: int = 4) -> tuple[Tensor, Tensor]:
    """Return, by the reference, the largest derivative of any output by each input and each weight."""
    inputs = torch.randn(points, circuit.n_inputs, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(points, circuit.n_weights, dtype=torch.float64, requires_grad=True)
    values = expectations(circuit, inputs, weights, engine="reference").sum(0)
    found = [torch.zeros(circuit.n_inputs), torch.zeros(circuit.n_weights)]
    for value in values if values.requires_grad else []:
        slopes = torch.autograd.grad(
            value, (inputs, weights), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        found = [torch.maximum(a, b.abs().amax(0)) for a, b in zip(found, slopes, strict=True)]
    return found[0], found[1]


def assert_dead_in_numbers(circuit: Circuit) -> tuple[int, int, int]:
    """Return how many inputs and weights are called dead, how many are not, and how many of these do something."""
    by_input, by_weight = largest_gradients(circuit)
    analysis = analyse(circuit)
    assert (by_input[list(analysis.dead_inputs)] < 1e-12).all()
    assert (by_weight[list(analysis.dead_weights)] < 1e-12).all()
    dead = len(analysis.dead_inputs) + len(analysis.dead_weights)
    works = int((by_input > 1e-9).sum()) + int((by_weight > 1e-9).sum())
    return dead, circuit.n_inputs + circuit.n_weights - dead, works


# --- circuits as published -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
def test_hadamards_before_rx_make_every_input_dead(n: int) -> None:
    gates = angle_encoding(n, ("RX",), hadamard=True) + rotation_layer(n, ("RY",)) + ring(range(n))
    circuit = Circuit(n, n, n, gates)
    assert analyse(circuit).dead_inputs == tuple(range(n))
    assert analyse(circuit).dead_weights == ()
    named = {1: "0", 3: "0, 1, 2"}[n]
    assert analyse(circuit).complaints() == [f"{n} input(s) cannot influence any output: {named}."]
    assert_dead_in_numbers(circuit)
    seen = Circuit(n, n, n, angle_encoding(n, ("RX",)) + gates[2 * n :])
    assert analyse(seen).dead_inputs == ()


@pytest.mark.parametrize("n", [2, 4])
def test_cz_right_before_z_does_nothing(n: int) -> None:
    phases = tuple(Gate("CZ", (i, i + 1)) for i in range(n - 1))
    gates = angle_encoding(n) + rotation_layer(n, ("RY", "RZ")) + phases
    circuit = Circuit(n, n, 2 * n, gates)
    analysis = analyse(circuit)
    assert not analysis.entangling_matters
    assert analysis.dead_weights == tuple(range(1, 2 * n, 2))  # those of the RZ
    assert analysis.cones == tuple((i,) for i in range(n))
    assert_dead_in_numbers(circuit)
    followed = Circuit(n, n, 3 * n, gates + rotation_layer(n, ("RX",), 2 * n))
    assert analyse(followed).entangling_matters
    assert analyse(followed).dead_weights == ()


@pytest.mark.parametrize(("n", "n_layers"), [(1, 1), (3, 1), (2, 3)])
@pytest.mark.parametrize(("name", "size"), [("strongly_entangling", 3), ("reupload", 2)])
def test_the_last_rz_is_dead(name: str, size: int, n: int, n_layers: int) -> None:
    circuit = get_ansatz(name).build(n, n_layers)
    last = (n_layers - 1) * size * n
    assert analyse(circuit).dead_weights == tuple(last + size * i + size - 1 for i in range(n))
    assert analyse(circuit).dead_inputs == ()
    assert_dead_in_numbers(circuit)


@pytest.mark.parametrize("name", [name for name in ANSATZE if name not in ("strongly_entangling", "reupload")])
def test_nothing_is_dead_in_the_other_ansatze(name: str) -> None:
    for n, n_layers in ((4, 1), (2, 2)):
        circuit = get_ansatz(name).build(n, n_layers)
        by_input, by_weight = largest_gradients(circuit)
        analysis = analyse(circuit)
        assert (by_input > 1e-9).all()
        assert (by_weight > 1e-9).all()
        assert not analysis.dead_inputs + analysis.dead_weights


@pytest.mark.parametrize(
    ("name", "n", "matters"),
    [
        ("ry_ring", 1, False),
        ("ry_ring", 2, True),
        ("ry_ring", 3, True),
        ("rx_ring", 3, True),
        ("no_entangler", 3, False),
    ],
)
@pytest.mark.parametrize("n_layers", [1, 2])
def test_whether_entangling_matters(name: str, n: int, matters: bool, n_layers: int) -> None:
    assert analyse(get_ansatz(name).build(n, n_layers)).entangling_matters is matters


def test_a_single_reason_for_entangling_to_matter() -> None:
    """A gate on two wires of each kind: a fixed one, and a rotation."""
    for gate in (Gate("CNOT", (0, 1)), Gate("RXX", (0, 1), w(0))):
        assert analyse(Circuit(2, 2, 1, (*angle_encoding(2), gate))).entangling_matters
    assert not analyse(Circuit(2, 2, 1, (*angle_encoding(2), Gate("RZZ", (0, 1), w(0))))).entangling_matters


def test_cones_of_one_ring_layer() -> None:
    assert analyse(get_ansatz("ry_ring").build(4, 1)).cones == ((1, 2, 3), (0, 1), (0, 1, 2), (0, 1, 2, 3))
    assert analyse(get_ansatz("no_entangler").build(3, 2)).cones == ((0,), (1,), (2,))
    assert analyse(CircuitBuilder(2).add("CNOT", 0, 1).build()).cones == ((0,), (0, 1))  # without any rotation


def test_which_ansatze_are_real() -> None:
    real = {name for name, row in ANSATZE.items() if analyse(row.build(4, 2)).real}
    assert real == {"ry_ring", "no_entangler", "amplitude_ring", "pyramid", "butterfly", "x"}
    assert analyse(get_ansatz("rx_ring").build(4, 1)).real  # as RY, with an S on every wire


def test_complaints_stop_after_a_dozen() -> None:
    dozen = "cannot influence any output: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    for count, end in ((12, "."), (13, ", ….")):
        gates = [Gate("RZ", (0,), x(i) + w(i)) for i in range(count)]
        complaints = analyse(Circuit(1, count, count, tuple(gates))).complaints()
        assert complaints == [f"{count} input(s) {dozen}{end}", f"{count} weight(s) {dozen}{end}"]


def test_loaded_amplitudes_are_alive() -> None:
    circuit = CircuitBuilder(2).load_amplitudes(0, 3).add("RX", 0, angle=x(2)).measure(Y(0), Z(1)).build()
    assert analyse(circuit).dead_inputs == ()
    assert analyse(CircuitBuilder(1).add("RX", 0, angle=x(0)).measure(X(0)).build()).dead_inputs == (0,)


def test_an_input_multiplied_by_zero_is_dead() -> None:
    circuit = Circuit(1, 1, 1, (Gate("RY", (0,), 0 * x(0) + w(0)),))
    assert analyse(circuit).dead_inputs == (0,)


# --- random circuits -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_random_circuits_in_numbers(random_circuit: RandomCircuit) -> None:
    """What is called dead is; of what is not, more than nine in ten do influence an output."""
    sizes = [(600 + k, 2 + k % 3, k % 4 == 0) for k in range(18)]
    counts = [assert_dead_in_numbers(random_circuit(seed, n=n, loaded=loaded)) for seed, n, loaded in sizes]
    dead, alive, works = map(sum, zip(*counts, strict=True))
    assert dead > 5
    assert works / alive > 0.9
