"""Layer and engines in torch.compile, torch.export, torch.jit.trace: one graph, no noise, the same at any batch size.

Without the checks of annotations: symbolic sizes are no `int`, and a compiler would look into the checks.
"""

import io
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.quantum import ENGINES, Circuit, Gate, QuantumLinear, w, x
from qvit.quantum.ansatz import Ansatz
from qvit.quantum.engines import choose, heisenberg, layout, statevector, subspace, unitary

TRACED = [engine for engine in ENGINES if engine != "reference"]  # the oracle is for tests alone
SHAPES = ({0: torch.export.Dim("batch", min=1, max=100_000)},)
close = torch.testing.assert_close


def _written(found: Any) -> Any:
    """What is called without checks: a function, method or property as it stands in the source."""
    if isinstance(found, classmethod | staticmethod):
        return type(found)(_written(found.__func__))
    if isinstance(found, property):
        return property(_written(found.fget))
    while isinstance(found, FunctionType) and "jaxtyping" in found.__code__.co_filename:
        found = found.__wrapped__  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module", autouse=True)
def _unchecked() -> Iterator[None]:
    mine = [module for name, module in sys.modules.items() if name.startswith("qvit.quantum")]
    owners: set[ModuleType | type] = set(mine)
    owners |= {value for module in mine for value in vars(module).values() if _is_ours(value)}
    with pytest.MonkeyPatch.context() as patch:
        for owner in owners:
            for name, found in list(vars(owner).items()):
                if isinstance(found, FunctionType | classmethod | staticmethod | property):
                    patch.setattr(owner, name, _written(found))
        yield


def _is_ours(value: object) -> bool:
    return isinstance(value, type) and value.__module__.startswith("qvit.quantum")


@pytest.fixture(autouse=True)
def _nothing_prepared() -> None:
    """What an earlier call has made and kept would hide that it cannot be made within a trace."""
    torch._dynamo.reset()
    torch._dynamo.utils.warn_once_cache.clear()
    for kept in (
        *(layout._kept_layout, layout._kept_source, choose.auto_plan, heisenberg.heisenberg_plan),
        *(statevector.statevector_plan, unitary.unitary_plan, subspace.subspace_plan),
    ):
        kept.cache_clear()


# As small as a circuit can be that has a product state to begin with, a rotation by a weight and one by an input.
GATES = (Gate("RY", (0,), x(0) + w(0)), Gate("CNOT", (0, 1)), Gate("RY", (0,), w(1)), Gate("RY", (1,), x(1) + 0.5))
SMALL = Ansatz("small", lambda n, layers: (2,), lambda n, layers: Circuit(2, 2, 2, (*GATES, Gate("CNOT", (1, 0)))))


def layer_of(engine: str) -> QuantumLinear:
    return QuantumLinear(2, ansatz="pyramid" if engine == "subspace" else SMALL, groups=(2,), engine=engine)


def inputs_of(layer: QuantumLinear, tokens: int) -> Tensor:
    return torch.randn(tokens, *layer.groups, layer.n_inputs)


def same(run: Callable[[Tensor], Tensor], layer: QuantumLinear, tokens: int) -> None:
    """Values and gradients."""
    given = inputs_of(layer, tokens).requires_grad_()
    ours, theirs = run(given), layer(given)
    close(ours, theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    slopes = [torch.autograd.grad(values.square().sum(), (given, layer.weights)) for values in (ours, theirs)]
    for a, b in zip(*slopes, strict=True):
        close(a, b)


def agrees(run: Callable[[Tensor], Tensor], layer: QuantumLinear) -> None:
    for tokens in (2, 5, 131):
        given = inputs_of(layer, tokens)
        close(run(given), layer(given))


def counting() -> Any:
    """Return a backend that counts graphs; the compiler takes seconds to import, and not all who collect run it."""
    return import_module("torch._dynamo.testing").CompileCounterWithBackend("aot_eager")


@pytest.mark.long
@pytest.mark.parametrize("engine", TRACED)
def test_compiled_in_one_graph_for_any_batch(engine: str) -> None:
    layer = layer_of(engine)
    graphs = counting()
    run = torch.compile(layer, backend=graphs, fullgraph=True, dynamic=True)
    for tokens in (5, 16):
        same(run, layer, tokens)
    assert graphs.frame_count == 1


@pytest.mark.long
def test_compiled_for_a_size_and_then_for_any() -> None:
    layer = layer_of("auto")
    graphs = counting()
    run = torch.compile(layer, backend=graphs, fullgraph=True)
    for tokens in (5, 16, 21):
        same(run, layer, tokens)
    assert graphs.frame_count == 2


# Not strict, torch runs the call on tensors without memory; strictly, it reads it as `torch.compile` does.
STRICT = {"auto": False, "heisenberg": True, "statevector": False, "unitary": True, "subspace": False}


@pytest.mark.long
@pytest.mark.parametrize("engine", TRACED)
def test_exported_for_any_batch(engine: str) -> None:
    layer, strict = layer_of(engine), STRICT[engine]
    program = torch.export.export(layer, (inputs_of(layer, 5),), dynamic_shapes=SHAPES, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    agrees(torch.export.load(file).module(), layer)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.* registered as constants in the trace:torch.jit.TracerWarning")  # so they are
@pytest.mark.parametrize("engine", TRACED)
def test_traced_for_any_batch(engine: str) -> None:
    layer = layer_of(engine)
    run = torch.jit.trace(layer, inputs_of(layer, 5))
    same(run, layer, 7)
    file = io.BytesIO()
    torch.jit.save(run, file)
    file.seek(0)
    agrees(torch.jit.load(file), layer)


# Inductor has a mind of its own. It got an `index_add` on an expanded tensor wrong that aot_eager gets right, and read
# too early what a chain of indexed additions adds into place.


@pytest.fixture
def inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # its own may hold code of another version of ours


@pytest.mark.slow("a C++ compiler makes two programs")
@pytest.mark.processes
@pytest.mark.filterwarnings("ignore")  # torch's own, and of weights that do nothing
@pytest.mark.usefixtures("inductor")
def test_inductor_gets_values_and_gradients_right() -> None:
    layer = QuantumLinear(4, n_layers=2, engine="unitary")
    same(torch.compile(layer, fullgraph=True), layer, 5)


@pytest.mark.slow("a C++ compiler makes a program")
@pytest.mark.processes
@pytest.mark.filterwarnings("ignore")  # torch's own, and of weights that do nothing
@pytest.mark.usefixtures("inductor")
def test_compiled_ahead_of_time_for_any_batch(tmp_path: Path) -> None:
    layer = layer_of("unitary").requires_grad_(False)
    program = torch.export.export(layer, (inputs_of(layer, 5),), dynamic_shapes=SHAPES)
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "layer.pt2"))
    agrees(torch._inductor.aoti_load_package(package), layer)
