"""QuantumLinear behaves like any other layer: shapes, dtypes, groups, copies."""

import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qvit.quantum import ANSATZE, QuantumLinear, get_ansatz

ENGINES = ["auto", "dense"]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(ANSATZE)),
    n=st.integers(1, 5),
    n_layers=st.integers(1, 3),
    engine=st.sampled_from(ENGINES),
    scale=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_outputs_lie_between_minus_one_and_one(name: str, n: int, n_layers: int, engine: str, scale: float) -> None:
    layer = QuantumLinear(n, n_layers=n_layers, ansatz=name, engine=engine)
    values = layer(scale * torch.randn(13, n))
    assert values.shape == (13, n)
    assert (values.abs() <= 1 + 1e-5).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ANSATZE)
def test_a_batch_is_its_singles(name: str, engine: str) -> None:
    layer = QuantumLinear(3, n_layers=2, ansatz=name, engine=engine, dtype=torch.float64)
    inputs = torch.randn(17, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(inputs), torch.stack([layer(x) for x in inputs]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lead", [(), (1,), (7,), (11, 13), (2, 3, 5, 7), (0,), (3, 0), (0, 5)])
def test_any_leading_dimensions(lead: tuple[int, ...], engine: str) -> None:
    layer = QuantumLinear(5, engine=engine)
    inputs = torch.randn(*lead, 5, requires_grad=True)
    values = layer(inputs)
    assert values.shape == (*lead, 5)
    torch.testing.assert_close(values.reshape(-1, 5), layer(inputs.reshape(-1, 5)))
    values.sum().backward()  # also for an empty batch
    assert inputs.grad is not None
    assert inputs.grad.shape == inputs.shape


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(0, 2, 3), (0, 1, 3), (5, 0, 2, 3)])
def test_empty_batch_of_groups(shape: tuple[int, ...], engine: str) -> None:
    layer = QuantumLinear(3, groups=(2,), engine=engine)
    assert layer(torch.randn(shape)).shape == (*shape[:-2], 2, 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_input_need_not_be_contiguous(engine: str) -> None:
    layer = QuantumLinear(3, engine=engine, n_layers=2)
    inputs = torch.randn(3, 7, 5).permute(2, 1, 0)
    assert not inputs.is_contiguous()
    torch.testing.assert_close(layer(inputs), layer(inputs.contiguous()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shared", [(3, 5), (1, 5), (3, 1), (1, 1)])
@pytest.mark.parametrize("name", ANSATZE)
def test_groups_are_separate_layers(name: str, shared: tuple[int, int], engine: str) -> None:
    groups, n = (3, 5), 2
    layer = QuantumLinear(n, n_layers=2, ansatz=name, groups=groups, engine=engine, dtype=torch.float64)
    inputs = torch.randn(7, *shared, n, dtype=torch.float64)
    values = layer(inputs)
    assert values.shape == (7, *groups, n)
    everyone = inputs.expand(7, *groups, n)
    for a in range(3):
        for b in range(5):
            alone = QuantumLinear(n, n_layers=2, ansatz=name, engine=engine, dtype=torch.float64)
            alone.load_state_dict({"weights": layer.weights[a, b]})
            torch.testing.assert_close(values[:, a, b], alone(everyone[:, a, b]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out_but_not_inside(dtype: torch.dtype, engine: str) -> None:
    layer = QuantumLinear(4, n_layers=2, ansatz="reupload", engine=engine)
    inputs = torch.randn(50, 4).to(dtype)
    values = layer(inputs)
    assert values.dtype == dtype
    assert torch.equal(values, layer(inputs.float()).to(dtype))


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
@pytest.mark.parametrize("name", ANSATZE)
def test_autocast_does_not_reach_inside(name: str, engine: str) -> None:
    layer = QuantumLinear(4, n_layers=2, ansatz=name, engine=engine)
    inputs = torch.randn(50, 4)
    plain = layer(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = layer(inputs)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)


# --- weights -----------------------------------------------------------------------------------------------


def test_weights_start_uniform_over_the_circle() -> None:
    weights = QuantumLinear(5, n_layers=7, groups=(3, 11)).weights.detach()
    assert weights.shape == (3, 11, 7, 5)
    assert 0 <= weights.min() < 0.1
    assert 2 * math.pi - 0.1 < weights.max() < 2 * math.pi
    assert abs(weights.mean().item() - math.pi) < 0.2


WEIGHT_SHAPES: dict[str, tuple[int, ...]] = {
    "ry_ring": (2, 3),
    "rx_ring": (2, 3),
    "basic_entangler": (2, 3),
    "no_entangler": (2, 3),
    "strongly_entangling": (2, 3, 3),
    "reupload": (2, 3, 2),
}


@pytest.mark.parametrize("name", ANSATZE)
def test_weight_shapes(name: str) -> None:
    layer = QuantumLinear(3, n_layers=2, ansatz=name, groups=(5,))
    shape = WEIGHT_SHAPES[name]
    assert {key: tuple(value.shape) for key, value in layer.named_parameters()} == {"weights": (5, *shape)}
    assert layer.circuit.n_weights == math.prod(shape)


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
    layer = QuantumLinear(3, device="meta", dtype=torch.float64)
    assert (layer.weights.device.type, layer.weights.dtype) == ("meta", torch.float64)


# --- like any other module ---------------------------------------------------------------------------------


@pytest.fixture
def layer() -> QuantumLinear:
    return QuantumLinear(3, n_layers=2, ansatz="reupload", groups=(2,))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(5, 2, 3)


@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_roundtrip(layer: QuantumLinear, inputs: Tensor, assign: bool) -> None:
    other = QuantumLinear(3, n_layers=2, ansatz="reupload", groups=(2,))
    assert not torch.equal(other(inputs), layer(inputs))
    other.load_state_dict(layer.state_dict(), assign=assign)
    assert torch.equal(other(inputs), layer(inputs))


def test_deepcopy_is_independent(layer: QuantumLinear, inputs: Tensor) -> None:
    other = copy.deepcopy(layer)
    expected = layer(inputs)
    nn.init.zeros_(layer.weights)
    assert torch.equal(other(inputs), expected)
    assert not torch.equal(layer(inputs), expected)


def test_torch_save_whole(layer: QuantumLinear, inputs: Tensor, tmp_path: Path) -> None:
    torch.save(layer, tmp_path / "layer.pt")
    assert torch.equal(torch.load(tmp_path / "layer.pt", weights_only=False)(inputs), layer(inputs))


def test_functional_call(layer: QuantumLinear, inputs: Tensor) -> None:
    values = torch.func.functional_call(layer, {"weights": torch.zeros_like(layer.weights)}, inputs)
    nn.init.zeros_(layer.weights)
    assert torch.equal(values, layer(inputs))


def test_pickle_in_another_process_with_other_string_hashes(
    layer: QuantumLinear, inputs: Tensor, tmp_path: Path
) -> None:
    """A circuit caches its hash, and Python salts the hashes of strings anew in every process."""
    expected = layer(inputs)  # fills the cache
    assert "_hash" in vars(layer.circuit)
    (tmp_path / "layer.pickle").write_bytes(pickle.dumps((layer, inputs, expected)))
    script = """
import pickle, sys, torch
from pathlib import Path
from qvit.quantum import get_ansatz
layer, inputs, expected = pickle.loads(Path(sys.argv[1]).read_bytes())
fresh = get_ansatz("reupload").build(3, 2)
assert layer.circuit == fresh and hash(layer.circuit) == hash(fresh)
torch.testing.assert_close(layer(inputs), expected)
print(hash("RY"))
"""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "layer.pickle")],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) != hash("RY")


def test_equal_circuits_are_one_key() -> None:
    one, other = (get_ansatz("ry_ring").build(3, 1) for _ in range(2))
    assert one is not other
    assert len({one, other, copy.deepcopy(one), pickle.loads(pickle.dumps(one))}) == 1
    assert get_ansatz("rx_ring").build(3, 1) != one


def test_repr_says_what_it_is(layer: QuantumLinear) -> None:
    assert repr(layer) == "QuantumLinear(3, n_layers=2, ansatz='reupload', groups=(2,))"
