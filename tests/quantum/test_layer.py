"""QuantumLinear as a function: shapes, groups, dtypes, weights."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.errors import CircuitError
from qvit.quantum import ANSATZE, Circuit, Gate, QuantumLinear, expectations, w, x
from qvit.quantum.ansatz import Ansatz

# Not those with weights that the layer warns of; their circuits have tests of their own.
QUIET = [name for name in ANSATZE if name not in ("strongly_entangling", "reupload")]
ENGINES = ["auto", "heisenberg", "statevector", "unitary"]


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_outputs_lie_between_minus_one_and_one(name: str, scale: float) -> None:
    layer = QuantumLinear(4, n_layers=2, ansatz=name)
    values = layer(scale * torch.randn(13, layer.n_inputs))
    assert values.shape == (13, layer.n_outputs)
    assert (values.abs() <= 1 + 1e-5).all()


@pytest.mark.parametrize("name", QUIET)
def test_a_layer_is_its_circuit(name: str) -> None:
    layer = QuantumLinear(4, n_layers=2, ansatz=name, dtype=torch.float64)
    inputs = torch.randn(7, layer.n_inputs, dtype=torch.float64)
    expected = expectations(layer.circuit, inputs, layer.weights.flatten(), engine="reference")
    torch.testing.assert_close(layer(inputs), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(layer(inputs), torch.stack([layer(row) for row in inputs]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lead", [(), (1,), (11, 13), (2, 3, 5, 7), (0,), (3, 0)])
def test_any_leading_dimensions(lead: tuple[int, ...], engine: str) -> None:
    layer = QuantumLinear(5, engine=engine)
    inputs = torch.randn(*lead, 5, requires_grad=True)
    values = layer(inputs)
    assert values.shape == (*lead, 5)
    torch.testing.assert_close(values.reshape(-1, 5), layer(inputs.reshape(-1, 5)))
    values.sum().backward()  # also for an empty batch
    assert inputs.grad is not None
    assert inputs.grad.shape == inputs.shape
    assert layer.weights.grad is not None
    assert bool(layer.weights.grad.any()) == (0 not in lead)


@pytest.mark.parametrize("engine", [*ENGINES, "subspace"])
@pytest.mark.parametrize("shape", [(0, 2), (0, 1), (5, 0, 2)])
def test_empty_batch_of_groups(shape: tuple[int, ...], engine: str) -> None:
    layer = QuantumLinear(3, groups=(2,), engine=engine, ansatz="pyramid" if engine == "subspace" else "ry_ring")
    inputs = torch.randn(*shape, 3, requires_grad=True)
    values = layer(inputs)
    assert values.shape == (*shape[:-1], 2, 3)
    values.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.shape == inputs.shape
    assert layer.weights.grad is not None
    assert not layer.weights.grad.any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "view",
    [
        lambda: torch.randn(3, 7, 5).permute(2, 1, 0),
        lambda: torch.randn(35, 6)[:, ::2].reshape(5, 7, 3).transpose(0, 1),
        lambda: torch.randn(1, 3).expand(7, 3),
        lambda: torch.randn(3).expand(5, 7, 3),
        lambda: torch.randn(20, 3)[::3],
    ],
)
def test_input_need_not_be_contiguous(view: Callable[[], Tensor], engine: str) -> None:
    layer = QuantumLinear(3, engine=engine, n_layers=2)
    inputs = view()
    before = inputs.clone()
    values = layer(inputs.requires_grad_() if inputs.is_leaf else inputs)
    torch.testing.assert_close(values, layer(inputs.contiguous()))
    values.sum().backward()
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("tokens", [5, 16])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_output_is_a_tensor_of_its_own(engine: str, tokens: int) -> None:
    """It can be written to, as that of nn.Linear, without a change to the inputs, another output or the gradient."""
    layer = QuantumLinear(4, engine=engine)
    inputs = torch.randn(tokens, 4, requires_grad=True)
    first, second = layer(inputs), layer(inputs)
    kept, before = second.detach().clone(), inputs.detach().clone()
    (expected,) = torch.autograd.grad(second.sum(), inputs)
    first += 7.0
    assert torch.equal(first, kept + 7.0)
    assert torch.equal(second, kept)
    assert torch.equal(inputs, before)
    torch.testing.assert_close(torch.autograd.grad(first.sum(), inputs)[0], expected)


@pytest.mark.parametrize(
    ("name", "shared"),
    [("ry_ring", (2, 3)), ("rx_ring", (1, 3)), ("pyramid", (2, 1)), ("unlu_qk", (1, 1)), ("amplitude_ring", (1, 3))],
)
def test_groups_are_separate_layers(name: str, shared: tuple[int, int]) -> None:
    groups, n = (2, 3), 2
    layer = QuantumLinear(n, n_layers=2, ansatz=name, groups=groups, dtype=torch.float64)
    inputs = torch.randn(7, *shared, layer.n_inputs, dtype=torch.float64)
    values = layer(inputs)
    assert values.shape == (7, *groups, layer.n_outputs)
    everyone = inputs.expand(7, *groups, layer.n_inputs)
    alone = QuantumLinear(n, n_layers=2, ansatz=name, dtype=torch.float64)
    for a, b in np.ndindex(*groups):
        alone.load_state_dict({"weights": layer.weights[a, b]})
        torch.testing.assert_close(values[:, a, b], alone(everyone[:, a, b]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("of", ["inputs", "weights", "neither"])
def test_gradients_only_where_they_are_asked_for(of: str, engine: str) -> None:
    layer = QuantumLinear(3, n_layers=2, engine=engine)
    inputs = torch.randn(5, 3, requires_grad=True)
    both = torch.autograd.grad(layer(inputs).sum(), (inputs, layer.weights))
    inputs.requires_grad_(of == "inputs")
    layer.requires_grad_(of == "weights")
    values = layer(inputs)
    assert values.requires_grad == (of != "neither")
    if of == "neither":
        return
    values.sum().backward()
    assert (inputs.grad is None) == (of == "weights")
    assert (layer.weights.grad is None) == (of == "inputs")
    found, expected = (inputs.grad, both[0]) if of == "inputs" else (layer.weights.grad, both[1])
    torch.testing.assert_close(found, expected)


def test_no_grad_and_inference_mode() -> None:
    layer = QuantumLinear(3, n_layers=2)
    inputs = torch.randn(5, 3)
    expected = layer(inputs)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            values = layer(inputs)
        assert not values.requires_grad
        assert torch.equal(values, expected)


# --- dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out_but_not_inside(dtype: torch.dtype, engine: str) -> None:
    layer = QuantumLinear(4, n_layers=2, engine=engine)
    inputs = torch.randn(50, 4).to(dtype).requires_grad_()
    values = layer(inputs)
    assert values.dtype == dtype
    assert torch.equal(values, layer(inputs.float()).to(dtype))
    values.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.dtype == dtype
    assert layer.weights.grad is not None
    assert layer.weights.grad.dtype == torch.float32


def test_half_precision_weights_are_computed_in_single() -> None:
    layer = QuantumLinear(4, n_layers=2)
    inputs = torch.randn(50, 4)
    half = copy.deepcopy(layer).bfloat16()
    values, half_values = half(inputs), half(inputs.bfloat16())
    assert (values.dtype, half_values.dtype) == (torch.float32, torch.bfloat16)
    single = half.float()
    assert torch.equal(values, single(inputs))
    assert torch.equal(half_values, single(inputs.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("engine", ENGINES)
def test_double_precision(engine: str) -> None:
    layer = QuantumLinear(4, n_layers=2, engine=engine, dtype=torch.float64)
    inputs = torch.randn(50, 4, dtype=torch.float64)
    assert layer(inputs).dtype == torch.float64
    assert 0 < (layer(inputs) - layer.float()(inputs.float())).abs().max() < 1e-5
    assert layer(inputs).dtype == torch.float64  # double input with single weights


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["ry_ring", "unlu_v"])
def test_autocast_does_not_reach_inside(name: str, engine: str) -> None:
    layer = QuantumLinear(3, n_layers=2, ansatz=name, engine=engine)
    inputs = torch.randn(50, 3)
    plain = layer(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, half = layer(inputs), layer(inputs.bfloat16())
    assert (cast.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(cast, plain)
    assert (half - plain).abs().max() < 0.06


# --- weights -----------------------------------------------------------------------------------------------


def test_weights_start_uniform_over_the_circle() -> None:
    weights = QuantumLinear(5, n_layers=2, groups=(3, 40)).weights.detach()
    assert weights.shape == (3, 40, 2, 5)
    assert 0 <= weights.min() < 0.1
    assert 2 * math.pi - 0.1 < weights.max() < 2 * math.pi
    assert abs(weights.mean().item() - math.pi) < 0.2


def test_a_seed_gives_the_same_weights() -> None:
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(QuantumLinear(5).weights)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_init_method_fills_the_weights_now_and_on_reset() -> None:
    layer = QuantumLinear(3, init_method=lambda weights: nn.init.constant_(weights, 0.25))
    assert (layer.weights == 0.25).all()
    nn.init.zeros_(layer.weights)
    layer.reset_parameters()
    assert (layer.weights == 0.25).all()


def test_reset_parameters_draws_fresh_weights() -> None:
    layer = QuantumLinear(3)
    before = layer.weights.detach().clone()
    layer.reset_parameters()
    assert (layer.weights != before).all()
    assert layer.weights.requires_grad


def test_device_and_dtype_are_those_asked_for() -> None:
    for layer in (QuantumLinear(3, device="meta", dtype=torch.float64), _on_meta()):
        assert (layer.weights.device.type, layer.weights.dtype) == ("meta", torch.float64)
    made = _on_meta().to_empty(device="cpu")
    made.reset_parameters()
    assert made(torch.zeros(2, 3, dtype=torch.float64)).shape == (2, 3)


def test_a_layer_says_what_it_is() -> None:
    layer = QuantumLinear(3, n_layers=2, ansatz="dense_ring")
    assert repr(layer) == "QuantumLinear(3, n_layers=2, ansatz='dense_ring')"
    assert repr(QuantumLinear(2, groups=(3, 4))) == "QuantumLinear(2, n_layers=1, ansatz='ry_ring', groups=(3, 4))"
    assert (layer.n_inputs, layer.n_outputs, layer.engine) == (6, 3, "auto")
    assert QuantumLinear(4, n_layers=2, ansatz="unlu_qk").n_outputs == 1


def _on_meta() -> QuantumLinear:
    with torch.device("meta"):
        return QuantumLinear(3, dtype=torch.float64)


# --- edges, each of which went wrong once --------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["heisenberg", "statevector"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_finite_inputs_stay_within_bounds_and_nan_stays_nan(engine: str, dtype: torch.dtype) -> None:
    layer = QuantumLinear(3, n_layers=2, engine=engine, dtype=dtype)
    for size in (1e4, 2e8, 1e15, 1e30):
        assert layer(size * torch.randn(64, 3, dtype=dtype)).abs().max() <= 1 + 1e-4
    assert layer(torch.full((2, 3), math.nan, dtype=dtype)).isnan().any()


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
