"""All engines: gradients against finite differences and the parameter-shift rule, second derivatives, float32."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qvit.quantum import ANSATZE, Angle, Circuit, Gate, QuantumLinear, expectations, get_ansatz, w
from qvit.quantum.engines import make_plan
from qvit.quantum.engines.reference import ReferencePlan

Batch = tuple[Tensor, Tensor]
RandomCircuit = Callable[..., Circuit]
RandomBatch = Callable[..., Batch]
EnginesFor = Callable[[Circuit], list[str]]

ROTATIONS = ("RX", "RY", "RZ", "RXX", "RYY", "RZZ", "PauliRot")


def batch_for(circuit: Circuit, tokens: int = 2, groups: int = 2) -> Batch:
    inputs = torch.randn(tokens, 1, circuit.n_inputs, dtype=torch.float64, requires_grad=True)
    return inputs, torch.randn(groups, circuit.n_weights, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("engine", ["heisenberg", "statevector", "unitary", "reference"])
@pytest.mark.parametrize(("name", "tokens"), [("ry_ring", 5), ("reupload", 5), ("dense_ring", 2), ("unlu_qk", 2)])
def test_gradcheck(name: str, engine: str, tokens: int) -> None:
    """With fewer and more tokens than 2²: both paths of the unitary engine."""
    circuit = get_ansatz(name).build(2, 2 if name != "unlu_qk" else 1)
    batch = batch_for(circuit, tokens)
    assert torch.autograd.gradcheck(lambda x, w: expectations(circuit, x, w, engine=engine), batch, fast_mode=True)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        *(("x", engine) for engine in ("subspace", "statevector", "unitary", "reference")),
        *(("amplitude_ring", engine) for engine in ("auto", "statevector", "unitary", "reference")),
        ("pyramid", "subspace"),
        ("butterfly", "subspace"),
    ],
)
def test_gradcheck_of_loaded_amplitudes(name: str, engine: str) -> None:
    circuit = get_ansatz(name).build(2 if name == "amplitude_ring" else 4, 1)
    batch = batch_for(circuit)
    assert torch.autograd.gradcheck(lambda x, w: expectations(circuit, x, w, engine=engine), batch, fast_mode=True)


@pytest.mark.parametrize(
    ("name", "engine"),
    [("ry_ring", "heisenberg"), ("reupload", "heisenberg"), ("reupload", "statevector"), ("pyramid", "statevector")],
)
def test_second_derivatives(name: str, engine: str) -> None:
    circuit = get_ansatz(name).build(2 if name == "reupload" else 3, 1)
    batch = batch_for(circuit, tokens=2)

    def run(x: Tensor, w: Tensor) -> Tensor:
        return expectations(circuit, x, w, engine=engine)

    assert torch.autograd.gradgradcheck(run, batch, fast_mode=True)
    hessians = [
        torch.autograd.functional.hessian(lambda x, w, e=e: expectations(circuit, x, w, engine=e).sum(), batch)
        for e in (engine, "reference")
    ]
    for row, expected in zip(*hessians, strict=True):
        for a, b in zip(row, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


@pytest.mark.parametrize("engine", ["auto", "statevector", "unitary", "reference"])
@pytest.mark.parametrize("name", ["amplitude_ring", "pyramid"])
def test_a_token_of_zeros_has_second_derivatives(name: str, engine: str) -> None:
    layer = QuantumLinear(3, ansatz=name, engine=engine).double()
    inputs = torch.zeros(2, layer.n_inputs, dtype=torch.float64)
    inputs[1] = 0.3
    leaves = inputs.requires_grad_(), layer.weights
    first = torch.autograd.grad(layer(inputs).sin().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(slope.sin().sum() for slope in first), leaves)
    assert all(slope.isfinite().all() for slope in (*first, *second))
    assert second[0][1].abs().max() > 1e-6


def test_a_gradient_penalty_trains() -> None:
    """Double backward as it is used: the norm of an input gradient as part of the loss."""
    layer = QuantumLinear(3, n_layers=2, engine="statevector", dtype=torch.float64)
    inputs = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(inputs).sum(), inputs, create_graph=True)
    slope.square().sum().backward()
    assert layer.weights.grad is not None
    assert layer.weights.grad.abs().max() > 1e-3


@pytest.mark.parametrize("engine", ["heisenberg", "statevector"])
@pytest.mark.parametrize("n_inputs", [0, 2])
def test_second_derivatives_bear_operands_that_do_not_matter(engine: str, n_inputs: int) -> None:
    gates = (Gate("RY", (0,), w(0)), Gate("CNOT", (0, 1)))
    plan = make_plan(Circuit(2, n_inputs, 1, gates), engine)
    inputs = torch.randn(3, n_inputs, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    out = plan.expectations(inputs, weights)[:, 0].sum()
    to_inputs, to_weights = torch.autograd.grad(out, (inputs, weights), create_graph=True)
    assert not to_inputs.any()
    (second,) = torch.autograd.grad(to_weights.sum(), weights)
    torch.testing.assert_close(second, -3 * weights.detach().cos())


# --- the parameter-shift rule ----------------------------------------------------------------------------------


def parameter_shift(circuit: Circuit, x: Tensor, w: Tensor) -> Batch:
    """Jacobians `(o, i)` and `(o, k)`: every gate on its own is shifted by ±π/2 (Schuld et al. 2019, eq. 10)."""
    by_input = torch.zeros(len(circuit.observables), circuit.n_inputs, dtype=torch.float64)
    by_weight = torch.zeros(len(circuit.observables), circuit.n_weights, dtype=torch.float64)
    for place, gate in enumerate(circuit.gates):
        if gate.angle is None:
            continue
        values = []
        for shift in (math.pi / 2, -math.pi / 2):
            shifted = replace(gate, angle=gate.angle + Angle(constant=shift))
            gates = (*circuit.gates[:place], shifted, *circuit.gates[place + 1 :])
            values.append(ReferencePlan(replace(circuit, gates=gates)).expectations(x, w))
        slope = (values[0] - values[1]) / 2
        for found, terms in ((by_input, gate.angle.inputs), (by_weight, gate.angle.weights)):
            for index, coefficient in terms:
                found[:, index] += coefficient * slope
    return by_input, by_weight


def assert_shift_rule(circuit: Circuit, engines: list[str]) -> None:
    x, w = (torch.randn(n, dtype=torch.float64) for n in (circuit.n_inputs, circuit.n_weights))
    expected = parameter_shift(circuit, x, w)
    for engine in engines:
        ours = torch.autograd.functional.jacobian(lambda x, w, e=engine: expectations(circuit, x, w, engine=e), (x, w))
        for mine, shifted in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, shifted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [name for name in ANSATZE if name not in ("pyramid", "butterfly", "x")])
def test_autograd_is_the_parameter_shift_rule(name: str, engines_for: EnginesFor) -> None:
    circuit = get_ansatz(name).build(2, 2)
    if name == "amplitude_ring":  # amplitudes are no angles
        circuit = replace(circuit, amplitudes=())
    assert_shift_rule(circuit, engines_for(circuit))


@pytest.mark.long
@pytest.mark.parametrize(("seed", "n"), [(700, 2), (701, 3), (702, 3)])
def test_parameter_shift_on_random_circuits(
    seed: int, n: int, random_circuit: RandomCircuit, engines_for: EnginesFor
) -> None:
    circuit = random_circuit(seed, n=n, names=(*ROTATIONS, "CNOT", "H", "T"))
    assert_shift_rule(circuit, engines_for(circuit))


# --- float32 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["heisenberg", "statevector", "unitary"])
@pytest.mark.parametrize("name", ["ry_ring", "reupload"])
def test_whole_turns_cost_no_digits(name: str, engine: str) -> None:
    """Weights of many turns in float32: as exact as small ones that stand for the same angle."""
    circuit = get_ansatz(name).build(3, 1)
    inputs = torch.randn(50, circuit.n_inputs)
    weights = torch.randn(circuit.n_weights) * 300  # merged angles are sums of these
    single = [t.clone().requires_grad_() for t in (inputs, weights)]
    double = [t.double().requires_grad_() for t in (inputs, weights)]
    values, expected = expectations(circuit, *single, engine=engine), expectations(circuit, *double, engine="reference")
    assert (values - expected).abs().max() < 3e-6
    for a, b in zip(
        torch.autograd.grad(values.sum(), single), torch.autograd.grad(expected.sum(), double), strict=True
    ):
        assert (a - b).abs().max() < 2e-5


def test_sums_of_large_weights_keep_their_digits() -> None:
    """500.1 + 600.2 as float32 would lose four digits of what is left after the whole turns."""
    circuit = get_ansatz("no_entangler").build(2, 2)
    weights = torch.tensor([500.1, -3000.7, 600.2, 2999.9])
    inputs = torch.tensor([0.3, -0.4])
    expected = (inputs.double() + weights.double()[:2] + weights.double()[2:]).cos()
    for engine in ("heisenberg", "statevector", "unitary"):
        assert (expectations(circuit, inputs, weights, engine=engine) - expected).abs().max() < 3e-7


# --- broadcasting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["heisenberg", "statevector", "unitary"])
@pytest.mark.parametrize("shared", [(3, 5), (1, 5), (3, 1), (1, 1)])
def test_shared_sources_collect_the_gradients_of_all_groups(shared: tuple[int, int], engine: str) -> None:
    circuit = get_ansatz("reupload").build(2, 1)
    inputs = torch.randn(7, *shared, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, circuit.n_weights, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(7, 3, 5, 2, dtype=torch.float64)
    values = expectations(circuit, inputs, weights, engine=engine)
    expected = expectations(circuit, inputs, weights, engine="reference")
    torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)
    for a, b in zip(
        torch.autograd.grad(values, (inputs, weights), factors),
        torch.autograd.grad(expected, (inputs, weights), factors),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", ["heisenberg", "statevector", "unitary"])
@pytest.mark.parametrize(("lead", "groups"), [((4,), (3, 5)), ((5,), (3, 5)), ((3, 5), (5,)), ((), (2,)), ((2, 3), ())])
def test_leading_dimensions_broadcast_as_everywhere(
    lead: tuple[int, ...], groups: tuple[int, ...], engine: str
) -> None:
    circuit = get_ansatz("ry_ring").build(3, 2)
    inputs = torch.randn(*lead, *(() if lead != (4,) else (1, 1)), 3, dtype=torch.float64)
    weights = torch.randn(*groups, circuit.n_weights, dtype=torch.float64)
    values = expectations(circuit, inputs, weights, engine=engine)
    expected = expectations(circuit, inputs, weights, engine="reference")
    torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)
