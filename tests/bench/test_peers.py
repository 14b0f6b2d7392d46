"""Peers compute what we compute, and are asked for no more than they have."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from qvit.bench.peers import angle_value, installed, pennylane_layer, pennylane_node, tensorcircuit_layer
from qvit.errors import ConfigError
from qvit.quantum import Circuit, Gate, X, Y, Z, expectations, get_ansatz, w, x
from qvit.quantum.circuit import Angle

GATES = (
    *(Gate("RY", (0,), x(3) + 0.5 * w(0)), Gate("H", (1,)), Gate("CNOT", (1, 2)), Gate("RZZ", (0, 2), w(1) + 0.25)),
    *(Gate("PauliRot", (0, 2), -1 * w(2), "YX"), Gate("RX", (2,), Angle(constant=0.7)), Gate("RZ", (1,), x(4) - x(3))),
)
PLAIN = Circuit(3, 5, 3, GATES, (Z(0), -Y(1), X(2) @ Z(0)))
LOADED = Circuit(3, 5, 3, (*GATES, Gate("RBS", (2, 0), w(1))), (-Z(0), X(1) @ Y(2)), (1, 6, 4))


@pytest.mark.parametrize("circuit", [PLAIN, LOADED], ids=["plain", "loaded"])
def test_the_peer_computes_what_we_compute_and_its_gradients(circuit: Circuit) -> None:
    given = torch.randn(5, circuit.n_inputs, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(circuit.n_weights, dtype=torch.float64, requires_grad=True)
    ours, theirs = expectations(circuit, given, weights), torch.stack(pennylane_node(circuit)(given, weights), dim=-1)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    slopes = [torch.autograd.grad(values.sin().sum(), (given, weights)) for values in (ours, theirs)]
    torch.testing.assert_close(*slopes, atol=1e-12, rtol=0)


def test_the_peer_is_timed_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    given, weights, factors = torch.randn(5, 5), torch.randn(3), torch.randn(5, 3)
    run, values = pennylane_layer(PLAIN, given, weights, factors)
    torch.testing.assert_close(values.double(), expectations(PLAIN, given, weights).double(), atol=1e-5, rtol=0)
    found: list[tuple[Tensor, ...]] = []
    differentiate = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: found.append(differentiate(*a, **k)))
    assert run() is None
    monkeypatch.undo()
    leaves = given.requires_grad_(), weights.requires_grad_()
    expected = torch.autograd.grad(expectations(PLAIN, *leaves), leaves, factors)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)


def test_an_angle_of_any_library() -> None:
    angle = 2.0 * x(1) - w(0) + 0.5
    assert angle_value(angle, torch.tensor([[9.0, 3.0]]), torch.tensor([4.0])).tolist() == [2 * 3.0 - 4.0 + 0.5]
    assert angle_value(Angle(), torch.zeros(1, 2), torch.zeros(1)) == 0.0


def test_whether_a_package_is_there() -> None:
    assert installed("pennylane")
    assert not installed("no_such_package")


@pytest.mark.parametrize("name", ["pyramid", "amplitude_ring", "unlu_v"])
def test_tensorcircuit_is_not_asked_for_what_it_has_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("jax", "tensorcircuit"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    circuit = get_ansatz("ry_ring").build(2, 1) if name == "unlu_v" else get_ansatz(name).build(2, 1)
    if name == "unlu_v":
        circuit = Circuit(2, 2, 2, circuit.gates, (-Z(0),))
    with pytest.raises(ConfigError) as caught:
        tensorcircuit_layer(circuit, torch.zeros(1, circuit.n_inputs), torch.zeros(circuit.n_weights), torch.zeros(1))
    assert str(caught.value) == (
        "tensorcircuit is compared on circuits of one-wire gates, CNOT, CZ and SWAP with plain Pauli strings; "
        "leave it out of --peers for this ansatz."
    )
