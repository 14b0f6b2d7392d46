"""All engines: angles of any size keep the digits of the float32 numbers that they are made of."""

from itertools import product

import pytest
import torch
from torch import Tensor

from qvit.errors import CircuitError
from qvit.quantum import Circuit, Gate, expectations, w, x
from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines import ENGINES, make_plan

# One rotation adds an input, another input times a number that is no power of two, a weight and a constant.
SUMS = Circuit(
    2,
    2,
    2,
    (
        Gate("RY", (0,), x(0) + w(0)),
        Gate("RX", (1,), 0.7 * x(1) + x(0) + w(1) + 0.3),
        Gate("CNOT", (0, 1)),
        Gate("RY", (1,), w(0) + 0.5),
        Gate("RZ", (0,), 3 * x(1) - w(1)),
        Gate("RX", (0,), x(0)),
    ),
)
# Of two inputs digits are lost though neither is multiplied.
TWO_INPUTS = Circuit(2, 2, 1, (Gate("RY", (0,), x(0) + x(1)), Gate("RX", (1,), x(0)), Gate("RY", (1,), w(0))))
CIRCUITS = {"sums": SUMS, "two inputs": TWO_INPUTS, "ring": build_circuit(get_ansatz("ry_ring"), 4, 2)}
CIRCUITS |= {"beam splitters": build_circuit(get_ansatz("pyramid"), 3, 1)}
SIZES = (1e4, 1e6, 1e8)
# Of loaded amplitudes heisenberg knows nothing, of all else subspace.
REFUSED = {("beam splitters", "heisenberg"), *product(("sums", "two inputs", "ring"), ("subspace",))}
TAKEN = sorted(set(product(CIRCUITS, set(ENGINES) - {"reference"})) - REFUSED)


@pytest.mark.parametrize(("name", "engine"), sorted(REFUSED))
def test_what_an_engine_does_not_take_it_refuses(name: str, engine: str) -> None:
    with pytest.raises(CircuitError):
        make_plan(CIRCUITS[name], engine)


def numbers(circuit: Circuit, size: float) -> tuple[Tensor, Tensor]:
    """Return inputs and weights in float32, some of them large and some not, so that small ones have much to lose."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(37, circuit.n_inputs, generator=generator)
    weights = torch.randn(circuit.n_weights, generator=generator)
    inputs[::2] *= size
    weights[::2] *= size
    return inputs, weights


def found_by(circuit: Circuit, engine: str, given: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Return values, and the gradients of a mean that depends on all of them."""
    operands = tuple(tensor.clone().requires_grad_() for tensor in given)
    values = expectations(circuit, *operands, engine=engine)
    factors = torch.linspace(-1, 1, values.numel(), dtype=values.dtype).reshape(values.shape)
    slopes = torch.autograd.grad((values * factors).mean(0).sum(), operands)
    return [values.detach(), *slopes]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "engine"), TAKEN)
def test_every_engine_agrees_with_float64_of_the_same_numbers(name: str, engine: str, size: float) -> None:
    circuit = CIRCUITS[name]
    given = numbers(circuit, size)
    expected = found_by(circuit, "reference", (given[0].double(), given[1].double()))
    for have, want in zip(found_by(circuit, engine, given), expected, strict=True):
        torch.testing.assert_close(have.double(), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("engine", ["heisenberg", "statevector", "unitary"])
def test_so_do_the_operations_that_are_traced_and_transformed(engine: str, size: float) -> None:
    inputs, weights = numbers(SUMS, size)
    values = torch.func.vmap(lambda row: expectations(SUMS, row, weights, engine=engine))(inputs)
    expected = expectations(SUMS, inputs.double(), weights.double(), engine="reference")
    torch.testing.assert_close(values.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("engine", ["heisenberg", "statevector"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_beyond_any_reduction_are_those_of_the_mathematical_library(engine: str, dtype: torch.dtype) -> None:
    circuit = Circuit(1, 1, 0, (Gate("RY", (0,), x(0)),))
    inputs = torch.tensor([[2.0], [3e8], [-1e12], [7e18], [1e30]], dtype=dtype)
    values = expectations(circuit, inputs, torch.zeros(0, dtype=dtype), engine=engine)
    torch.testing.assert_close(
        values.double(), inputs.double().cos(), atol=3e-7 if dtype == torch.float32 else 1e-14, rtol=0
    )


@pytest.mark.parametrize("engine", ["heisenberg", "statevector", "unitary"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_angle_leaves_the_others_in_its_vector_as_they_are(engine: str, dtype: torch.dtype) -> None:
    inputs, weights = torch.randn(16, 2, dtype=dtype), torch.randn(2, dtype=dtype)
    alone = expectations(SUMS, inputs, weights, engine=engine)
    inputs[3] = 1e12
    beside = expectations(SUMS, inputs, weights, engine=engine)
    others = torch.arange(16) != 3
    assert torch.equal(alone[others], beside[others])
    assert not torch.equal(alone[3], beside[3])
