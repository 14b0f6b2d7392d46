"""Cases at the edge of what circuits and engines take, each of which went wrong once."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from qvit.errors import CircuitError
from qvit.quantum import (
    ENGINES,
    Angle,
    Circuit,
    CircuitBuilder,
    Gate,
    Pauli,
    QuantumLinear,
    Z,
    analyse,
    expectations,
    w,
    x,
)
from qvit.quantum.ansatz import Ansatz, build_circuit, get_ansatz
from qvit.quantum.engines import make_plan
from qvit.quantum.engines.heisenberg import heisenberg_plan
from qvit.quantum.program import compile_circuit, light_cones

KERNELS = ("heisenberg", "statevector")


@pytest.mark.long
def test_a_hopeless_heisenberg_plan_is_given_up_soon(work: Callable[..., int]) -> None:
    """What is done before giving up follows the limit, not the size of what there would be to do."""
    program = compile_circuit(build_circuit(get_ansatz("strongly_entangling"), 20, 3))

    def give_up(limit: int) -> None:
        with pytest.raises(CircuitError, match=f"more than {limit} products"):
            heisenberg_plan(program, limit)

    assert work(lambda: give_up(80)) < 4 * work(lambda: give_up(40))


@pytest.mark.parametrize("constant", [math.pi / 2 + 1e-9, 1001 * math.pi / 2 + 1e-6, 1e9, 37 * math.pi / 2, 1e-12])
def test_a_constant_near_a_quarter_turn_is_not_taken_for_one(constant: float) -> None:
    gates = (Gate("RY", (0,), x(0)), Gate("RX", (0,), Angle(constant=0.7)), Gate("RY", (0,), Angle(constant=constant)))
    circuit = Circuit(1, 1, 0, gates)
    inputs, none = torch.tensor([[0.4]], dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    expected = expectations(circuit, inputs, none, engine="reference")
    torch.testing.assert_close(expectations(circuit, inputs, none), expected, atol=1e-13 * max(1, constant), rtol=0)


@pytest.mark.parametrize("engine", KERNELS)
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


@pytest.mark.parametrize("engine", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_finite_inputs_stay_within_bounds_and_nan_stays_nan(engine: str, dtype: torch.dtype) -> None:
    layer = QuantumLinear(3, n_layers=2, engine=engine, dtype=dtype)
    for size in (1e4, 2e8, 1e15, 1e30):
        assert layer(size * torch.randn(64, 3, dtype=dtype)).abs().max() <= 1 + 1e-4
    assert layer(torch.full((2, 3), math.nan, dtype=dtype)).isnan().any()


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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_angles_are_finite(bad: float) -> None:
    with pytest.raises(CircuitError, match="finite"):
        Angle(constant=bad)
    with pytest.raises(CircuitError, match="finite"):
        Angle(inputs=((0, bad),))


def test_angles_behave_like_numbers() -> None:
    assert 1.0 - x(0) == Angle(inputs=((0, -1.0),), constant=1.0)
    assert x(0) / 2 == 0.5 * x(0)
    assert x(0) - x(0) == Angle()
    assert Angle(weights=((1, 2.0), (0, 1.0), (1, -2.0))) == w(0)


def test_an_input_multiplied_by_zero_is_dead() -> None:
    circuit = Circuit(1, 1, 1, (Gate("RY", (0,), 0 * x(0) + w(0)),))
    assert analyse(circuit).dead_inputs == (0,)


@pytest.mark.usefixtures("unchecked")
def test_lists_stand_for_tuples_and_plain_numbers_are_refused_as_angles() -> None:
    circuit = Circuit(2, 1, 0, [Gate("RY", [0], x(0)), Gate("CNOT", [0, 1])], [Z(1)])  # type: ignore[arg-type]
    assert circuit == CircuitBuilder(2).add("RY", 0, angle=x(0)).add("CNOT", 0, 1).measure(Z(1)).build()
    assert hash(circuit) == hash(Circuit(2, 1, 0, circuit.gates, (Z(1),)))
    with pytest.raises(CircuitError, match="must be an Angle"):
        Gate("RY", (0,), 0.3)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "subspace"])
def test_the_identity_has_the_value_one(engine: str) -> None:
    circuit = Circuit(1, 1, 0, (Gate("RY", (0,), x(0)),), (Pauli(0, 0), -Pauli(0, 0), Z(0)))
    found = expectations(circuit, torch.tensor([[0.3]]), torch.zeros(0), engine=engine)
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0, math.cos(0.3)]]))


def test_an_ansatz_with_a_single_weight_works_in_groups() -> None:
    single = Ansatz(
        "single", lambda n, layers: (), lambda n, layers: Circuit(n, n, 1, (Gate("RY", (0,), x(0) + w(0)),))
    )
    with pytest.warns(match="cannot influence"):
        layer = QuantumLinear(2, ansatz=single, groups=(3,))
    values = torch.randn(5, 3, 2)
    torch.testing.assert_close(layer(values)[..., 0], (values[..., 0] + layer.weights).cos())


@pytest.mark.long
def test_too_many_qubits_are_refused_with_advice() -> None:
    with pytest.raises(CircuitError, match=r"statevector engine holds .* Use fewer qubits"):
        QuantumLinear(21, n_layers=2)
    with pytest.raises(CircuitError, match="n_layers must be a whole number"):
        QuantumLinear(2, n_layers=True)


@pytest.mark.long
def test_light_cones_in_blocks_are_those_of_one_block() -> None:
    """More than 1,024 rotations are compared in several blocks; here each matters on its own wire and on no other."""
    gates = tuple(Gate(("RX", "RY")[k // 3 % 2], (k % 3,), w(k)) for k in range(1100))
    program = compile_circuit(Circuit(3, 0, 1100, gates))
    assert len(program.rotations) == 1100
    expected = [[k % 3 == wire for k in range(1100)] for wire in range(3)]
    assert light_cones(program).tolist() == expected


def test_explain_of_a_layer_is_that_of_its_circuit() -> None:
    layer = QuantumLinear(3, groups=(2,))
    text = str(layer.explain(tokens=5, measure=False))
    assert "5 tokens × 2 group(s)" in text
    assert "← chosen" in text


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_are_whole_numbers_too() -> None:
    """They overflow in 2ⁿ, and have no `bit_length`."""
    wide = Circuit(np.int64(64), np.int64(2), np.int64(1), (Gate("RX", (0,), w(0)),), (), tuple(np.array([1, 2])))
    assert wide == Circuit(64, 2, 1, (Gate("RX", (0,), w(0)),), (), (1, 2))
    assert {type(number) for number in (wide.n_wires, wide.n_inputs, wide.n_weights, *wide.amplitudes)} == {int}
    layer = QuantumLinear(np.int64(4), n_layers=np.int64(2), groups=tuple(np.array([3])))
    assert (layer.n_qubits, layer.n_layers, layer.groups) == (4, 2, (3,))
    assert {type(number) for number in (layer.n_qubits, layer.n_layers, *layer.groups)} == {int}
    assert layer(torch.ones(5, 3, 4)).shape == (5, 3, 4)
