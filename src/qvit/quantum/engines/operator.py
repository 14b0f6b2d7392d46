"""Operators that torch knows: how an engine's kernel becomes a differentiable, traceable operation.

Every engine with a kernel of its own takes angles, not inputs: `inputs` `(s, d, t)`, the inputs' share of the angles
of the d rotations that have one, for s sources of t tokens; `weights` `(g, r)`, the weights' share of all angles;
`amplitudes` `(s, m, t)` to load; `source` `(g,)`, the source of each group; `code`, the encoded circuit. It returns
expectation values `(g, o, t)`.
`define` registers it with autograd to any order, shapes for tracing, and a count of its FLOPs.
"""

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from qvit.cpu.parts import VECTOR_BYTES, in_blocks, in_parts
from qvit.quantum.engines.layout import without_turns

_ARGUMENTS = "Tensor inputs, Tensor weights, Tensor amplitudes, Tensor source, Tensor code, int n_wires, int n_outputs"
_ELSEWHERE = "CompositeExplicitAutograd"  # torch's name for every device without an implementation of its own
InTorch = Callable[..., Tensor]
Gradients = tuple[Tensor, Tensor, Tensor]


library = torch.library.Library("qvit", "DEF")


@dataclass(frozen=True)
class Operator:
    """The implementations of one engine's operator.

    `prepare` makes a call of the CPU kernel from the operator's arguments; `in_torch` returns what its `forward` does,
    on any device, by differentiable operations; `adjoint` gives the gradients there if there is a better way than
    autograd. `flops(g, t, code, n_wires, n_outputs)` counts a forward pass; a backward pass takes `backward_flops`
    times as many.
    """

    name: str
    prepare: Callable[..., "Prepared"]
    in_torch: InTorch
    flops: Callable[[int, int, Tensor, int, int], float]
    backward_flops: float
    adjoint: Callable[..., Gradients] | None = None


@dataclass(frozen=True)
class Traceable:
    """An operator registered with torch as `torch.ops.qvit.<name>`, and the one that returns its gradients."""

    forward: Callable[..., Tensor]
    backward: Callable[..., Gradients]


def define(operator: Operator) -> Traceable:
    """Register an operator with torch."""
    name = operator.name
    library.define(f"{name}({_ARGUMENTS}) -> Tensor")
    library.define(f"{name}_backward(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")

    adjoint = operator.adjoint or functools.partial(_by_autograd, operator.in_torch)

    def contiguous(found: Gradients) -> Gradients:  # as `_fake_backward` says
        to_inputs, to_weights, to_amplitudes = found
        return to_inputs.contiguous(), to_weights.contiguous(), to_amplitudes.contiguous()

    library.impl(name, lambda *arguments: operator.prepare(*arguments).forward().contiguous(), "CPU")
    library.impl(name, lambda *arguments: operator.in_torch(*arguments).contiguous(), _ELSEWHERE)
    library.impl(
        f"{name}_backward", lambda grad, *arguments: contiguous(operator.prepare(*arguments).backward(grad)), "CPU"
    )
    library.impl(f"{name}_backward", lambda grad, *arguments: contiguous(adjoint(grad, *arguments)), _ELSEWHERE)
    torch.library.register_fake(f"qvit::{name}", _fake, lib=library)
    torch.library.register_fake(f"qvit::{name}_backward", _fake_backward, lib=library)
    op, back = getattr(torch.ops.qvit, name).default, getattr(torch.ops.qvit, f"{name}_backward").default
    gradient = functools.partial(_gradient, operator.in_torch, back)
    torch.library.register_autograd(f"qvit::{name}", gradient, setup_context=_setup, lib=library)
    register_flop_formula(op.overloadpacket, get_raw=True)(functools.partial(_flops, operator, 1.0, 0))
    register_flop_formula(back.overloadpacket, get_raw=True)(
        functools.partial(_flops, operator, operator.backward_flops, 1)
    )
    torch.library.register_vmap(op, functools.partial(_in_one_call, op, 0), lib=library)
    torch.library.register_vmap(back, functools.partial(_in_one_call, back, 1), lib=library)
    return Traceable(op, back)


def _in_one_call(op: Any, skip: int, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
    """Return the results of n calls as one call with n times the sources and groups, and their batch dimension.

    `skip` arguments come before those of the operator.
    """
    n = info.batch_size

    def joined(tensor: Tensor, dim: int | None) -> Tensor:
        each = tensor.expand(n, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return each.flatten(0, 1)

    *tensors, source, code, n_wires, n_outputs = arguments
    if in_dims[-3] is not None:
        raise NotImplementedError("The encoded circuit of a qvit operator cannot be batched.")
    sources = arguments[skip].shape[0 if in_dims[skip] is None else 1 if in_dims[skip] == 0 else 0]
    each = source.expand(n, -1) if in_dims[-4] is None else source.movedim(in_dims[-4], 0)
    shift = sources * torch.arange(n, dtype=source.dtype, device=source.device)
    moved = [joined(tensor, dim) for tensor, dim in zip(tensors, in_dims, strict=False)]
    out = op(*moved, (each + shift[:, None]).flatten(), code, n_wires, n_outputs)
    if skip:
        return tuple(one.unflatten(0, (n, -1)) for one in out), (0, 0, 0)
    return out.unflatten(0, (n, -1)), 0


def _flops(operator: Operator, factor: float, skip: int, *arguments: Any, out_val: Any = None, **_: Any) -> int:
    inputs, weights, _amplitudes, _source, code, n_wires, n_outputs = arguments[skip:]
    return int(factor * operator.flops(len(weights), inputs.shape[-1], code, n_wires, n_outputs))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.n_wires, ctx.n_outputs = inputs
    ctx.save_for_backward(*tensors)


def _gradient(in_torch: InTorch, back: Any, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved, sizes = ctx.saved_tensors, (ctx.n_wires, ctx.n_outputs)
    if torch.is_grad_enabled():  # a second derivative is wanted: memory grows with depth, but any order is right
        wanted = [place for place in range(3) if saved[place].requires_grad]
        found: list[Tensor | None] = [None, None, None]
        slopes = torch.autograd.grad(
            in_torch(*saved, *sizes), [saved[k] for k in wanted], grad, create_graph=True, allow_unused=True
        )
        for place, slope in zip(wanted, slopes, strict=True):
            found[place] = slope
    else:
        found = list(back(grad, *saved, *sizes))
    return (*found, None, None, None, None)


def _by_autograd(in_torch: InTorch, grad: Tensor, *arguments: Any) -> Gradients:
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in arguments[:3]]
        values = in_torch(*leaves, *arguments[3:])
        found = torch.autograd.grad(values, leaves, grad, allow_unused=True)
    x, w, a = (torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True))
    return x, w, a


def _fake(
    inputs: Tensor, weights: Tensor, amplitudes: Tensor, source: Tensor, code: Tensor, n_wires: int, n_outputs: int
) -> Tensor:
    return inputs.new_empty(weights.shape[0], n_outputs, inputs.shape[-1])


def _fake_backward(grad: Tensor, inputs: Tensor, weights: Tensor, amplitudes: Tensor, *rest: Any) -> Gradients:
    return inputs.new_empty(inputs.shape), weights.new_empty(weights.shape), amplitudes.new_empty(amplitudes.shape)


Arrays = tuple[np.ndarray, ...]


class Prepared(ABC):
    """One call of a kernel on the CPU, forward and backward, with tokens in blocks and these in parts.

    `tensors` are the prepared arguments: inputs in blocks, cosines and sines of the weights. Unless amplitudes are
    loaded, nothing else grows with the call, so whoever keeps it until the backward pass can give them to autograd
    (`put_down`, `taken_up`), which knows when to free or to move them. `work` is the number of amplitude updates of a
    forward pass.
    """

    work: float

    def __init__(
        self,
        inputs: Tensor,
        weights: Tensor,
        amplitudes: Tensor,
        n_outputs: int,
        blocks_a_part: int,
        blocks_at_once: int = 1,
    ):
        self.lanes = VECTOR_BYTES // inputs.element_size()
        (self.sources, self.columns, self.tokens), (self.groups, self.rotations) = inputs.shape, weights.shape
        self.loads, self.n_outputs, self.per_part = amplitudes.shape[1], n_outputs, blocks_a_part
        self.at_once = blocks_at_once
        moving = in_blocks(inputs.detach(), blocks_at_once)
        self.padded = moving.shape[-1]
        self.parts_a_source = -(-(self.padded // self.lanes) // self.per_part)
        self.parts = self.sources * self.parts_a_source
        self.tensors: tuple[Tensor, ...] = (moving,)

    def put_down(self) -> tuple[Tensor, ...]:
        """Return the tensors, and no longer hold them."""
        tensors, self.tensors = self.tensors, ()
        return tensors

    def taken_up(self, tensors: Sequence[Tensor]) -> "Prepared":
        """Return a call like this with the tensors that were put down."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, tensors=tuple(tensors))
        return other

    @abstractmethod
    def run_forward(self, arrays: Arrays, out: np.ndarray, first: int, last: int) -> None:
        """Write the expectation values of some parts; `arrays` are inputs, cosines and sines."""

    @abstractmethod
    def run_backward(
        self,
        arrays: Arrays,
        grad: np.ndarray,
        grad_x: np.ndarray,
        grad_w: np.ndarray,
        grad_a: np.ndarray,
        first: int,
        last: int,
    ) -> None:
        """Write the gradients of inputs, weights (by group and part of a source) and amplitudes."""

    def forward(self) -> Tensor:
        """Return the expectation values `(g, o, t)`."""
        out = self.tensors[0].new_empty(self.groups, self.n_outputs, self.padded)
        in_parts(functools.partial(self.run_forward, self._arrays(), out.numpy()), self.parts, self.work)
        return out[..., : self.tokens]

    def backward(self, grad: Tensor) -> Gradients:
        """Return the gradients of inputs, weights and amplitudes."""
        empty = self.tensors[0].new_empty
        grad_x = empty(self.sources, self.columns, self.padded)
        grad_a = empty(self.sources, self.loads, self.padded)
        grad_w = empty(self.groups, self.parts_a_source, self.rotations, self.lanes)
        given = in_blocks(grad.detach(), self.at_once).numpy()
        made = grad_x.numpy(), grad_w.numpy(), grad_a.numpy()
        in_parts(functools.partial(self.run_backward, self._arrays(), given, *made), self.parts, 4 * self.work)
        total = grad_w.sum(dim=(1, -1), dtype=torch.float64).to(grad_w.dtype)
        return grad_x[..., : self.tokens], total, grad_a[..., : self.tokens]

    def room(self, *rows: int) -> Arrays:
        """Return one scratch array for each number of `rows`, a row as long as a vector, for use by one thread."""
        whole = self.tensors[0].new_empty(sum(rows) * self.lanes).numpy()
        stops = [self.lanes * stop for stop in itertools.accumulate(rows)]
        return tuple(whole[start:stop] for start, stop in zip([0, *stops], stops, strict=False))

    def _arrays(self) -> Arrays:
        moving, (cos, sin) = (tensor.contiguous().numpy() for tensor in self.tensors)
        return moving, cos, sin


def cos_sin(angles: Tensor) -> Tensor:
    """Return the cosines and sines `(2, g, r)`, as one tensor, since autograd takes time for each that it keeps."""
    array = angles.numpy()
    out = np.empty((2, *array.shape), array.dtype)
    np.cos(array, out=out[0])
    np.sin(array, out=out[1])
    return torch.from_numpy(out)


def by_source(source: Tensor, sources: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups in the order of their sources, and where the groups of each source start in it."""
    return _by_source(source.numpy().tobytes(), sources)


@functools.lru_cache(maxsize=256)
def _by_source(source: bytes, sources: int) -> tuple[np.ndarray, np.ndarray]:
    array = np.frombuffer(source, dtype=np.int32)
    order = np.argsort(array, kind="stable")
    return order, np.searchsorted(array[order], np.arange(sources + 1))


def per_group(inputs: Tensor, weights: Tensor, source: Tensor, columns: list[int]) -> list[Tensor]:
    """Return each rotation's angle `(g, t or 1)`; `columns` says which column of the inputs it takes, −1 for none."""
    shared = without_turns(inputs)[source.long().to(inputs.device)]
    still = without_turns(weights)[..., None]
    sums = [still[:, r] + (shared[:, column] if column >= 0 else 0.0) for r, column in enumerate(columns)]
    return [angle.to(inputs.dtype) for angle in sums]
