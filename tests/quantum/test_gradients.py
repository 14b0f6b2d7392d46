"""Gradients: autograd against finite differences and against the parameter-shift rule on the reference."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.quantum import ANSATZE, Angle, Circuit, QuantumLinear, expectations, get_ansatz
from qvit.quantum.engines import product, reference

CASES = [
    (name, n_layers, engine)
    for name, row in ANSATZE.items()
    for n_layers in (1, 2)
    for engine in ("dense", "product")
    if engine == "dense" or product.product_plan(row.build(3, n_layers))
]


@pytest.mark.parametrize("tokens", [2, 9])  # fewer and more than 2³: both paths of the dense engine
@pytest.mark.parametrize(("name", "n_layers", "engine"), CASES)
def test_gradcheck(name: str, n_layers: int, engine: str, tokens: int) -> None:
    circuit = get_ansatz(name).build(3, n_layers)
    inputs = torch.randn(tokens, 1, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, circuit.n_weights, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: expectations(circuit, x, w, engine=engine), (inputs, weights), fast_mode=True
    )


def test_second_derivatives() -> None:
    circuit = get_ansatz("reupload").build(2, 1)
    inputs = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(circuit.n_weights, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, w: expectations(circuit, x, w), (inputs, weights))


def parameter_shift(circuit: Circuit, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Jacobians `(o, i)` and `(o, k)`: every gate on its own is shifted by ±π/2 (Schuld et al. 2019, eq. 10)."""
    by_input = np.zeros((len(circuit.observables), circuit.n_inputs))
    by_weight = np.zeros((len(circuit.observables), circuit.n_weights))
    for place, gate in enumerate(circuit.gates):
        if gate.angle is None:
            continue
        plus, minus = (
            reference.expectations(
                replace(
                    circuit,
                    gates=(
                        *circuit.gates[:place],
                        replace(gate, angle=gate.angle + Angle(constant=shift)),
                        *circuit.gates[place + 1 :],
                    ),
                ),
                x,
                w,
            )
            for shift in (math.pi / 2, -math.pi / 2)
        )
        for index, coefficient in gate.angle.inputs:
            by_input[:, index] += coefficient * (plus - minus) / 2
        for index, coefficient in gate.angle.weights:
            by_weight[:, index] += coefficient * (plus - minus) / 2
    return by_input, by_weight


def assert_shift_rule(circuit: Circuit, engine: str = "auto") -> None:
    x = torch.randn(circuit.n_inputs, dtype=torch.float64)
    w = torch.randn(circuit.n_weights, dtype=torch.float64)

    def run(x: Tensor, w: Tensor) -> Tensor:
        return expectations(circuit, x, w, engine=engine)

    ours = torch.autograd.functional.jacobian(run, (x, w))
    for mine, shifted in zip(ours, parameter_shift(circuit, x.numpy(), w.numpy()), strict=True):
        np.testing.assert_allclose(mine.numpy(), shifted, atol=1e-12)


@pytest.mark.parametrize(("name", "n_layers", "engine"), CASES)
def test_autograd_is_the_parameter_shift_rule(name: str, n_layers: int, engine: str) -> None:
    assert_shift_rule(get_ansatz(name).build(3, n_layers), engine)


@pytest.mark.parametrize("seed", [1, 4, 10])
def test_parameter_shift_on_random_circuits(seed: int, random_circuit: Callable[..., Circuit]) -> None:
    assert_shift_rule(random_circuit(seed, n_gates=12))


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("name", ANSATZE)
def test_inputs_and_weights_of_every_ansatz_matter(name: str, n_layers: int) -> None:
    """No data-blind encoder, no dead weight, save where a rotation about Z commutes with all that follows."""
    layer = QuantumLinear(3, n_layers=n_layers, ansatz=name, dtype=torch.float64)
    inputs = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    (layer(inputs) * torch.randn(5, 3, dtype=torch.float64)).sum().backward()
    assert inputs.grad is not None
    assert layer.weights.grad is not None
    assert (inputs.grad.abs() > 1e-6).all()
    expected_dead = torch.zeros_like(layer.weights, dtype=torch.bool)
    if name == "strongly_entangling":
        expected_dead[-1, :, 2] = True  # the last RZ: diagonal, then only CNOTs, then ⟨Z⟩
    if name == "reupload":
        expected_dead[-1, :, 1] = True  # likewise
    torch.testing.assert_close(layer.weights.grad.abs() < 1e-12, expected_dead)
