"""Expectation values of tensors as they come: types, devices, groups that are none or many; and engines by name."""

import math

import pytest
import torch

from qvit.errors import CircuitError
from qvit.quantum import ENGINES, Circuit, Gate, Pauli, Z, expectations, x
from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines import Plan, make_plan


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    circuit = build_circuit(get_ansatz("ry_ring"), 3, 1)
    inputs, weights = torch.randn(5, 3).to(dtype), torch.randn(3).to(dtype)
    found = expectations(circuit, inputs, weights)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expectations(circuit, inputs.float(), weights.float()).to(dtype))


def test_tensors_on_two_devices_are_refused() -> None:
    circuit = build_circuit(get_ansatz("ry_ring"), 2, 1)
    with pytest.raises(CircuitError, match="Inputs are on cpu and weights on meta"):
        expectations(circuit, torch.randn(2), torch.empty(2, device="meta"))


def test_no_groups_of_weights_give_no_outputs_and_empty_gradients() -> None:
    circuit = build_circuit(get_ansatz("ry_ring"), 2, 1)
    weights = torch.randn(0, 2, requires_grad=True)
    out = expectations(circuit, torch.randn(4, 1, 2), weights)
    assert out.shape == (4, 0, 2)
    out.sum().backward()
    assert weights.grad is not None
    assert weights.grad.shape == (0, 2)


def test_many_groups_of_one_token_each() -> None:
    circuit = build_circuit(get_ansatz("ry_ring"), 3, 2)
    inputs = torch.randn(500, 3, dtype=torch.float64)
    weights = torch.randn(500, 6, dtype=torch.float64, requires_grad=True)
    found = expectations(circuit, inputs, weights, engine="statevector")
    torch.testing.assert_close(found, expectations(circuit, inputs, weights, engine="unitary"), atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "subspace"])
def test_the_identity_has_the_value_one(engine: str) -> None:
    circuit = Circuit(1, 1, 0, (Gate("RY", (0,), x(0)),), (Pauli(0, 0), -Pauli(0, 0), Z(0)))
    found = expectations(circuit, torch.tensor([[0.3]]), torch.zeros(0), engine=engine)
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0, math.cos(0.3)]]))


def test_the_engines() -> None:
    assert set(ENGINES) == {"auto", "heisenberg", "unitary", "statevector", "subspace", "reference"}
    for engine in ENGINES:
        circuit = get_ansatz("pyramid" if engine == "subspace" else "ry_ring").build(3, 1)
        assert isinstance(make_plan(circuit, engine), Plan)
