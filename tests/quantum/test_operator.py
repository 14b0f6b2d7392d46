"""Kernels as operators: blocks of tokens, threads, memory, and the same in torch operations, which a GPU runs."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qvit.cpu import parts as parts_module
from qvit.quantum import ENGINES, Circuit, expectations, get_ansatz
from qvit.quantum.engines import heisenberg, operator, statevector

RandomCircuit = Callable[..., Circuit]
RandomBatch = Callable[..., tuple[Tensor, Tensor]]
KERNELS = {"heisenberg": heisenberg, "statevector": statevector}
assert set(KERNELS) == {engine for engine in ENGINES if hasattr(torch.ops.qvit, engine)}


def values_and_gradients(circuit: Circuit, x: Tensor, w: Tensor, engine: str) -> list[Tensor]:
    values = expectations(circuit, x, w, engine=engine)
    factors = torch.linspace(0.3, 1.7, values.numel(), dtype=values.dtype).reshape(values.shape)
    return [values, *torch.autograd.grad(values, (x, w), factors)]


def batch(circuit: Circuit, tokens: int, dtype: torch.dtype = torch.float64, groups: int = 2) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(tokens, 1, circuit.n_inputs, dtype=dtype, requires_grad=True)
    return inputs, torch.randn(groups, circuit.n_weights, dtype=dtype, requires_grad=True)


# --- blocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("engine", KERNELS)
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 15, 16, 17, 127, 128, 131, 257])
def test_any_number_of_tokens(tokens: int, engine: str, dtype: torch.dtype) -> None:
    """Blocks are of 8 or 16 tokens, parts of 8 blocks; the rest must neither be lost nor leak."""
    circuit = get_ansatz("reupload").build(2, 2)
    x, w = batch(circuit, tokens, dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    expected = values_and_gradients(circuit, *(t.detach().double().requires_grad_() for t in (x, w)), "reference")
    for a, b in zip(values_and_gradients(circuit, x, w, engine), expected, strict=True):
        scale = max(1.0, b.abs().max().item())
        assert (a - b).abs().max() < scale * tolerance


@pytest.mark.parametrize("engine", KERNELS)
def test_no_tokens(engine: str) -> None:
    circuit = get_ansatz("reupload").build(2, 2)
    values, by_input, by_weight = values_and_gradients(circuit, *batch(circuit, 0), engine)
    assert (values.shape, by_input.shape) == ((0, 2, 2), (0, 1, 2))
    assert (by_weight == 0).all()
    assert by_weight.shape == (2, 8)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("name", ["reupload", "pyramid", "amplitude_ring"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_token_sees_another(name: str, bad: float, dtype: torch.dtype, engines_for: Callable[..., Any]) -> None:
    """In no engine does what is wrong with one token or group change a bit of another's values and gradients.

    Though up to 16 tokens share a vector, all share a matrix product, and the product of zero and NaN is NaN.
    """
    circuit = get_ansatz(name).build(3, 2)
    for engine in [*engines_for(circuit), "reference"]:
        x, w = torch.randn(37, 2, circuit.n_inputs, dtype=dtype), torch.randn(2, circuit.n_weights, dtype=dtype)
        wrong = x.clone()
        wrong[4, 1, 0] = bad
        pairs = [values_and_gradients(circuit, t.requires_grad_(), w.requires_grad_(), engine) for t in (x, wrong)]
        others = torch.ones(37, 2, dtype=torch.bool)
        others[4, 1] = False
        for clean, found in zip(pairs[0][:2], pairs[1][:2], strict=True):
            assert torch.equal(clean[others], found[others]), engine
        if bad != 1e30:
            assert pairs[1][0][4, 1].isnan().any(), engine


# --- threads -----------------------------------------------------------------------------------------------


@pytest.fixture
def two_threads() -> Any:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("engine", KERNELS)
@pytest.mark.usefixtures("two_threads")
def test_threads_do_not_change_a_bit(engine: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = get_ansatz("reupload").build(5, 2)
    x, w = batch(circuit, 1511, dtype, groups=3)
    divided = []
    monkeypatch.setattr(parts_module, "_pool", lambda n, pool=parts_module._pool: divided.append(n) or pool(n))
    together = values_and_gradients(circuit, x, w, engine)
    assert divided == [1, 1]  # forward and backward both took a second thread
    torch.set_num_threads(1)
    for a, b in zip(together, values_and_gradients(circuit, x, w, engine), strict=True):
        assert torch.equal(a, b)
    assert divided == [1, 1]


# --- the same in torch operations ----------------------------------------------------------------------------


class _Recorder(TorchDispatchMode):
    """Keeps the arguments of every call of one operator."""

    def __init__(self, engine: str) -> None:
        super().__init__()
        self.operator, self.seen = getattr(torch.ops.qvit, engine).default, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is self.operator:
            self.seen.append(args)
        return func(*args, **(kwargs or {}))


def arguments_of(engine: str, circuit: Circuit, x: Tensor, w: Tensor) -> tuple[Any, ...]:
    """Return what the plan hands to the engine's operator."""
    with torch.no_grad(), _Recorder(engine) as recorder:
        expectations(circuit, x, w, engine=engine)
    (arguments,) = recorder.seen
    return tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)


def assert_torch_is_kernel(engine: str, circuit: Circuit, x: Tensor, w: Tensor) -> None:
    module = KERNELS[engine]
    arguments = arguments_of(engine, circuit, x, w)
    forward = getattr(torch.ops.qvit, engine)
    backward = getattr(torch.ops.qvit, f"{engine}_backward")
    values = forward(*arguments)
    torch.testing.assert_close(module.run_in_torch(*arguments), values, atol=1e-12, rtol=0)
    grad = torch.randn_like(values)
    expected = backward(grad, *arguments)
    others = [operator._by_autograd(module.run_in_torch, grad, *arguments)]
    if engine == "statevector":
        others.append(statevector.adjoint_in_torch(grad, *arguments))
    for found in others:
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


@pytest.mark.parametrize("engine", KERNELS)
@pytest.mark.parametrize("seed", range(800, 808))
def test_in_torch_as_in_the_kernel(
    seed: int, engine: str, random_circuit: RandomCircuit, random_batch: RandomBatch
) -> None:
    loaded = engine == "statevector" and seed % 3 == 0
    names = ("RX", "RY", "RZ", "RZZ", "CRX", "RBS", "CNOT", "H")
    circuit = random_circuit(seed, n=2 + seed % 4, loaded=loaded, names=names)
    assert_torch_is_kernel(engine, circuit, *random_batch(circuit, seed, tokens=5))


@pytest.mark.parametrize("device", ["CUDA", "XPU", "MPS"])
@pytest.mark.parametrize("engine", KERNELS)
def test_torch_operations_are_what_other_devices_run(engine: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by their dispatch key, as there may be no such device here; no kernel is prepared."""
    circuit, keys = get_ansatz("reupload").build(3, 2), torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, device))
    arguments = arguments_of(engine, circuit, *batch(circuit, 5))
    forward = getattr(torch.ops.qvit, engine).default
    backward = getattr(torch.ops.qvit, f"{engine}_backward").default
    expected = forward(*arguments)
    grad = torch.randn_like(expected)
    gradients = backward(grad, *arguments)
    monkeypatch.setattr(operator, "in_blocks", lambda *_: pytest.fail("a kernel was prepared"))
    torch.testing.assert_close(forward.redispatch(keys, *arguments), expected, atol=1e-12, rtol=0)
    for a, b in zip(backward.redispatch(keys, grad, *arguments), gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)
    with pytest.raises(pytest.fail.Exception, match="a kernel was prepared"):
        forward(*arguments)


@pytest.mark.parametrize("name", ["ry_ring", "reupload", "amplitude_ring", "pyramid", "strongly_entangling"])
def test_ansatze_in_torch_as_in_the_kernel(name: str) -> None:
    circuit = get_ansatz(name).build(3, 2)
    assert_torch_is_kernel("statevector", circuit, *batch(circuit, 11))


@pytest.mark.long
@pytest.mark.parametrize("engine", KERNELS)
def test_the_operators_are_registered_in_full(engine: str) -> None:
    """Schema, fake tensors and tracing, by torch's own check."""
    circuit = get_ansatz("ry_ring").build(3, 2)
    x, w = batch(circuit, 5)
    arguments = arguments_of(engine, circuit, x, w)
    traced = tuple(a.clone().requires_grad_() if k < 2 else a for k, a in enumerate(arguments))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(getattr(torch.ops.qvit, engine).default, traced, test_utils=tests)


# --- memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", KERNELS)
def test_what_is_saved_for_backward_does_not_grow_with_depth(engine: str) -> None:
    """Numbers per token; the encoded circuit and the weights do grow, but are there once."""

    def saved(tokens: int, n_layers: int) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        circuit = get_ansatz("ry_ring").build(4 if engine == "statevector" else 3, n_layers)
        x, w = batch(circuit, tokens)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = expectations(circuit, x, w, engine=engine)
        assert kept.requires_grad
        return sum(sizes.values())

    per_token = {layers: (saved(300, layers) - saved(100, layers)) / 200 for layers in (1, 2, 4)}
    assert per_token[1] == per_token[2] == per_token[4] <= 2 * 4


def most_at_once(n_layers: int) -> int:
    """Bytes that torch holds at most in a forward and backward pass, besides inputs and weights."""
    circuit = get_ansatz("ry_ring").build(6, n_layers)
    x, w = batch(circuit, 512, torch.float32, groups=1)
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        expectations(circuit, x, w, engine="statevector").sum().backward()
    taken = [event.nbytes() for event in profile.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(taken))


def test_peak_memory_does_not_grow_with_depth() -> None:
    most_at_once(1)  # what is made once
    few, many = most_at_once(2), most_at_once(12)
    assert few > 512 * 6 * 4  # the inputs' gradients at least: the profiler saw what there was
    assert many - few < 512 * 6 * 4 * 4  # autograd would keep ten states of 128 KiB
