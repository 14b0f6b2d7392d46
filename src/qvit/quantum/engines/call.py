"""Call an engine's operator with tensors of any leading dimensions, by the shortest path that is allowed.

In eager mode on the CPU everything around the kernel is one autograd function; a chain of torch operations for
layouts would take longer than the kernel itself. Where something traces or transforms the call (torch.compile,
torch.export, torch.func, FLOP counters), or on other devices, torch operations do the same.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qvit.quantum.engines.layout import Batching, Constant, LinearAngles
from qvit.quantum.engines.operator import Operator, Traceable
from qvit.torch_private import batched, transformed, unwatched


@dataclass(frozen=True, eq=False)
class KernelCall:
    """An operator and the encoded circuit that it runs; `n_loads` inputs are loaded as amplitudes."""

    operator: Operator
    traceable: Traceable
    angles: LinearAngles
    code: Constant
    n_wires: int
    n_outputs: int
    n_loads: int = 0

    def __call__(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Return expectation values; leading dimensions of inputs and weights broadcast against each other."""
        if self.n_loads == 0 and unwatched(inputs, weights):
            return _Eager.apply(inputs, weights, self)  # type: ignore[no-untyped-call]
        return self.spelt_out(inputs, weights)

    def spelt_out(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the same by operations that torch can trace, transform and differentiate to any order."""
        batching = Batching.of(inputs, weights)
        arguments = self.arguments(batching, batching.split_inputs(inputs), weights)
        if transformed():  # torch.func wraps every tensor, but the code has to be read
            return batching.join(self.operator.in_torch(*arguments[:4], self.code.array, self.n_wires, self.n_outputs))
        return batching.join(self.traceable.forward(*arguments))

    def arguments(self, batching: Batching, features: Tensor, weights: Tensor) -> tuple[Any, ...]:
        """Return the operator's arguments for features `(s, i, t)`."""
        return (
            self.angles.of_inputs(features),
            self.angles.of_weights(batching.split_weights(weights)),
            loaded(features, self.n_loads),
            batching.source(),
            self.code.tensor(),
            self.n_wires,
            self.n_outputs,
        )


class _Eager(torch.autograd.Function):
    """The kernel and everything around it, for a circuit without loaded amplitudes."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: Tensor, call: KernelCall) -> Tensor:
        batching = Batching.of(inputs, weights)
        ready = call.operator.prepare(*call.arguments(batching, batching.split_inputs(inputs), weights))
        values = ready.forward()
        # Everything that grows with the batch is saved like this. As an attribute of `ctx`, no hook or checkpoint
        # would see it, and the end of the backward pass would not free it.
        ctx.save_for_backward(inputs, weights, *ready.put_down())
        ctx.call, ctx.batching, ctx.ready = call, batching, ready
        view = batching.join(values)
        # The same memory in a tensor that is not a view, so that the caller may change it in place.
        return values.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, weights, *tensors = ctx.saved_tensors
        call, batching = ctx.call, ctx.batching
        if torch.is_grad_enabled():  # a second derivative is wanted
            wanted = [t for t in (inputs, weights) if t.requires_grad]
            values = call.spelt_out(inputs, weights)
            slopes = iter(torch.autograd.grad(values, wanted, gradient, create_graph=True, materialize_grads=True))
            return *(next(slopes) if t.requires_grad else None for t in (inputs, weights)), None  # type: ignore[return-value]
        split = batching.split_outputs(gradient)
        if batched(gradient):  # such a tensor has no memory that a kernel can read
            by_angle, by_weight, _ = call.traceable.backward(
                split, *call.arguments(batching, batching.split_inputs(inputs), weights)
            )
        else:
            by_angle, by_weight, _ = ctx.ready.taken_up(tensors).backward(split)
        to_inputs = to_weights = None
        if ctx.needs_input_grad[0]:
            to_inputs = batching.join_inputs(call.angles.inputs_from(by_angle)).reshape(inputs.shape)
        if ctx.needs_input_grad[1]:
            to_weights = call.angles.weights_from(by_weight)
            if to_weights.shape != weights.shape:
                to_weights = to_weights.reshape(*batching.groups, weights.shape[-1]).sum_to_size(weights.shape)
        return to_inputs, to_weights, None


def loaded(features: Float[Tensor, "s i t"], n: int) -> Float[Tensor, "s n t"]:
    """Return the first n features divided by their norm; zeros where all are zero."""
    if n == 0:
        return features.new_empty(features.shape[0], 0, features.shape[2])
    taken = features[:, :n]
    zero = taken.detach().norm(dim=1, keepdim=True) == 0
    # The norm of zeros is never taken: its second derivative is NaN, which a `where` afterwards would not undo.
    return taken / torch.where(zero, 1.0, torch.where(zero, 1.0, taken).norm(dim=1, keepdim=True))
