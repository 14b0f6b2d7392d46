"""Gradients that can be differentiated again, of torch's kernels whose own cannot be."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]
Slopes = Callable[[Any, Gradients, Tensor], Gradients | None]


def differentiable(values: Tensor, slopes: Slopes) -> Tensor:
    """Return what a kernel of torch's returned; where its gradient may be differentiated again, `slopes` makes that.

    `slopes(node, found, gradient)` returns the gradients of the kernel's inputs, by operations with right derivatives
    of every order, from what torch's `node` has saved and what it `found`; or None, to leave it at that. A step of
    training, which differentiates once, runs torch's own kernel and nothing else. Under torch.compile, where second
    derivatives are refused, nothing is done.
    """
    if not torch.compiler.is_compiling() and values.grad_fn is not None:
        values.grad_fn.register_hook(partial(_replaced, slopes))
    return values


def _replaced(slopes: Slopes, found: Gradients, given: Gradients) -> Gradients | None:
    if not torch.is_grad_enabled() or given[0] is None:
        return None
    # The node itself in the closure would keep it, and all it has saved, for ever.
    made = slopes(torch._C._current_autograd_node(), found, given[0])
    if made is None:
        return None
    return tuple(None if old is None else new for old, new in zip(found, made, strict=False))
