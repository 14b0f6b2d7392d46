"""Layer and engines: what autograd does around a circuit, in batches, with what it keeps, with other tensors."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.utils.checkpoint import checkpoint

from qvit.quantum import ENGINES, QuantumLinear, expectations

USED = [engine for engine in ENGINES if engine != "reference"]  # which is for tests
CASES = [  # loaded amplitudes take another path
    *(("heisenberg", "ry_ring"), ("statevector", "ry_ring"), ("unitary", "ry_ring")),
    *(("statevector", "pyramid"), ("unitary", "pyramid"), ("subspace", "pyramid")),
]
assert {engine for engine, _ in CASES} == {*USED} - {"auto"}


def layer_of(engine: str, groups: tuple[int, ...] = (), ansatz: str = "") -> QuantumLinear:
    ansatz = ansatz or ("pyramid" if engine == "subspace" else "ry_ring")
    return QuantumLinear(3, n_layers=2, ansatz=ansatz, groups=groups, engine=engine, dtype=torch.float64)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def by_row(values: Tensor, leaves: list[Tensor], rows: Tensor) -> list[Tensor]:
    """The gradients of each row, one call after another."""
    found = [torch.autograd.grad(values, leaves, row, retain_graph=True) for row in rows]
    return [torch.stack(each) for each in zip(*found, strict=True)]


# --- gradients in batches --------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, in forward mode
@pytest.mark.parametrize("engine", USED)
def test_vectorised_jacobians_and_hessians(engine: str) -> None:
    layer = layer_of(engine)
    for x in (draw(2, layer.n_inputs), draw(layer.n_inputs)):
        rows = jacobian(layer, x)
        torch.testing.assert_close(jacobian(layer, x, vectorize=True), rows)
        torch.testing.assert_close(jacobian(layer, x, vectorize=True, strategy="forward-mode"), rows)
        bend = [hessian(lambda y: layer(y).sin().sum(), x, vectorize=all_) for all_ in (True, False)]
        torch.testing.assert_close(*bend)


def test_a_vectorised_jacobian_of_a_fresh_layer() -> None:
    layer = QuantumLinear(4)
    found = jacobian(layer, torch.zeros(4), vectorize=True)
    torch.testing.assert_close(found, jacobian(layer, torch.zeros(4)))
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize(("engine", "ansatz"), CASES)
def test_gradients_in_batches(engine: str, ansatz: str) -> None:
    layer = layer_of(engine, (2, 2), ansatz)
    x = draw(5, 1, 2, layer.n_inputs).requires_grad_()
    values = layer(x)
    rows, leaves = draw(3, *values.shape), [x, layer.weights]
    expected = by_row(values, leaves, rows)
    batched = torch.autograd.grad(values, leaves, rows, is_grads_batched=True, retain_graph=True)
    mapped = torch.func.vmap(lambda row: torch.autograd.grad(values, leaves, row, retain_graph=True))(rows)
    for found in (batched, mapped):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("which", ["none", "inputs", "weights", "all"])
def test_an_operator_maps_over_any_of_its_tensors(which: str) -> None:
    """A batch of calls runs as one call of more sources and groups."""
    call = layer_of("statevector", (2, 2), "pyramid")._plan.call
    inputs, weights, amplitudes = (
        draw(4, 0, 6),
        draw(4, 2, call.angles.weights.matrix.rows),
        draw(4, call.n_loads, 2, 6),
    )
    source = torch.tensor([0, 0, 1, 1], dtype=torch.int32)
    tensors, dims = [inputs[:2], weights[:, 0], amplitudes[:2, :, 0], source], [None, None, None, None]
    if which in ("inputs", "all"):
        tensors[2], dims[2] = amplitudes[:2], 2
    if which in ("weights", "all"):
        tensors[1], dims[1] = weights, 1
    if which == "all":
        tensors[3], dims[3] = torch.stack((source, 1 - source)), 0
    grad = draw(3 if which == "none" else 2, 4, call.n_outputs, 6)

    def back(grad: Tensor, *given: Tensor) -> Any:
        return call.traceable.backward(grad, *given, call.code.tensor(), call.n_wires, call.n_outputs)

    def one(k: int) -> list[Tensor]:
        return [t if dim is None else t.select(dim, k) for t, dim in zip(tensors, dims, strict=True)]

    found = torch.func.vmap(back, in_dims=(0, *dims))(grad, *tensors)
    expected = [torch.stack(each) for each in zip(*(back(g, *one(k)) for k, g in enumerate(grad)), strict=True)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    if which != "none":
        code = call.code.tensor(), call.n_wires, call.n_outputs
        values = torch.func.vmap(lambda *given: call.traceable.forward(*given, *code), in_dims=tuple(dims))(*tensors)
        torch.testing.assert_close(values, torch.stack([call.traceable.forward(*one(k), *code) for k in range(2)]))


# --- what is kept ----------------------------------------------------------------------------------------------


def bytes_out_of_sight(values: Tensor) -> int:
    """Arrays and tensors that hang on the graph but not in what autograd saved."""
    nodes, todo = {}, [values.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and id(node) not in nodes:
            nodes[id(node)] = node
            todo += [before for before, _ in node.next_functions]
    seen, total = set(nodes), 0
    found: list[Any] = [node.__dict__ for node in nodes.values() if hasattr(node, "__dict__")]
    while found:
        thing = found.pop()
        if id(thing) in seen or isinstance(thing, type) or callable(thing):
            continue
        seen.add(id(thing))
        total += thing.nbytes if isinstance(thing, Tensor | np.ndarray) else 0
        found += gc.get_referents(thing)
    return total


@pytest.mark.parametrize(("engine", "ansatz"), CASES)
def test_nothing_that_grows_is_kept_out_of_autograds_sight(engine: str, ansatz: str) -> None:
    layer = layer_of(engine, (), ansatz)
    out_of_sight, saved = [], []
    for tokens in (8, 80):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
            values = layer(draw(tokens, layer.n_inputs).requires_grad_())
        out_of_sight.append(bytes_out_of_sight(values))
    assert out_of_sight[0] == out_of_sight[1]
    assert sum(saved) >= 88 * 8 * layer.n_inputs  # the inputs at least: the hooks saw what there was


def _strided(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(-1).repeat_interleave(2, -1)[..., 0]


@pytest.mark.parametrize(
    "keep",
    [
        lambda run, x: checkpoint(run, x, use_reentrant=False),
        lambda run, x: checkpoint(run, x, use_reentrant=True),
        lambda run, x: _within(torch.autograd.graph.save_on_cpu(), run, x),
        lambda run, x: _within(torch.autograd.graph.saved_tensors_hooks(_strided, lambda t: t), run, x),
    ],
    ids=["checkpoint", "reentrant", "save_on_cpu", "other strides"],
)
@pytest.mark.parametrize("engine", USED)
def test_what_is_kept_may_be_moved_or_made_again(engine: str, keep: Callable[..., Tensor]) -> None:
    layer = layer_of(engine, (2,))
    x = draw(9, 2, layer.n_inputs).requires_grad_()
    results = []
    for values in (layer(x), keep(layer, x)):
        values.sin().sum().backward()
        results.append((values.detach(), x.grad, layer.weights.grad))
        x.grad = layer.weights.grad = None
    for plain, kept in zip(*results, strict=True):
        torch.testing.assert_close(
            plain, kept, atol=1e-14, rtol=0
        )  # a product of matrices adds in the order of strides


def _within(context: Any, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with context:
        return run(x)


@pytest.mark.parametrize("engine", ["heisenberg", "statevector"])
def test_a_graph_may_be_used_twice_and_not_after_it_was_freed(engine: str) -> None:
    layer = layer_of(engine)
    x = draw(9, 3).requires_grad_()
    values = layer(x).sum()
    first, second = (torch.autograd.grad(values, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    values.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        values.backward()


# --- tensors of other types ------------------------------------------------------------------------------------


class Tagged(Tensor):
    """A subclass that leaves everything to torch."""


class Counting(Tensor):
    """A subclass that is asked first."""

    asked: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.asked.append(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


def _meta(x: Tensor) -> Tensor:
    return MetaTensor(x, meta={"patient": 7})


@pytest.mark.filterwarnings("ignore:.*TypedStorage:UserWarning")
@pytest.mark.parametrize("wrap", [lambda x: x.as_subclass(Tagged), _meta], ids=["plain", "monai"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_subclass_goes_in_and_comes_out(engine: str, wrap: Callable[[Tensor], Tensor]) -> None:
    layer = layer_of(engine, (2,))
    x = draw(5, 2, layer.n_inputs)
    plain, other = x.clone().requires_grad_(), wrap(x).requires_grad_()
    weights = layer.weights.detach().reshape(2, -1)
    expected = layer(plain)
    assert type(expected) is Tensor
    for values in (layer(other), expectations(layer.circuit, other, weights, engine=engine)):
        assert type(values) is type(torch.nn.functional.relu(other))
        assert torch.equal(values.as_subclass(Tensor), expected)
    if isinstance(other, MetaTensor):
        assert layer(other).meta["patient"] == 7
    (ours,), (theirs,) = (torch.autograd.grad(layer(each).sin().sum(), each) for each in (other, plain))
    assert torch.equal(ours.as_subclass(Tensor), theirs)


def test_a_subclass_as_weights() -> None:
    layer = layer_of("statevector")
    x, weights = draw(5, 3), layer.weights.detach().flatten()
    values = expectations(layer.circuit, x, weights.as_subclass(Tagged), engine=layer.engine)
    assert type(values) is Tagged
    assert torch.equal(values.as_subclass(Tensor), layer(x))


def test_a_subclass_is_asked_once() -> None:
    layer = layer_of("statevector")
    x = draw(5, 3).as_subclass(Counting)
    Counting.asked.clear()
    layer(x)
    assert Counting.asked.count("evaluate") == 1


def test_a_mode_sees_the_call_and_changes_nothing() -> None:
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return function(*args, **(kwargs or {}))

    layer = layer_of("auto")
    x = draw(5, 3)
    with Mode():
        values = layer(x)
    assert torch.equal(values, layer(x))


@pytest.mark.parametrize("engine", ["heisenberg", "statevector", "unitary"])
def test_autocast_does_not_reach_into_expectations(engine: str) -> None:
    layer = QuantumLinear(3, n_layers=2, engine=engine)
    x, weights = torch.randn(50, 3), layer.weights.detach().flatten()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = expectations(layer.circuit, x, weights, engine=engine)
    assert torch.equal(values, expectations(layer.circuit, x, weights, engine=engine))
