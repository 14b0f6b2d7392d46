"""Gradients that can be differentiated again, for kernels of torch's whose own gradients cannot."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qvit.torch_private import current_node

Gradients = tuple[Tensor | None, ...]
Slopes = Callable[[Any, Gradients, Tensor], Gradients | None]
Hook = Callable[[Gradients, Gradients], Gradients | None]


def replacing(slopes: Slopes) -> Hook:
    """Return a hook for `differentiable` that puts the gradients of `slopes` in place of the kernel's.

    `slopes(node, found, gradient)` returns the gradients of the kernel's inputs, by operations with correct derivatives
    of every order, from what torch's `node` has saved and the gradients it `found`; or None, to keep those.
    """
    return partial(_replaced, slopes)


def differentiable(values: Tensor, hook: Hook) -> Tensor:
    """Return the values of a kernel of torch's, with gradients by `hook` where these may be differentiated again.

    A step of training, which differentiates once, runs torch's own kernel and nothing else. Under torch.compile, where
    second derivatives are refused, nothing is done.
    """
    if not torch.compiler.is_compiling():
        node = values.grad_fn
        if node is not None:
            node.register_hook(hook)
    return values


def _replaced(slopes: Slopes, found: Gradients, given: Gradients) -> Gradients | None:
    if not torch.is_grad_enabled() or given[0] is None:
        return None
    # A closure over the node would keep it, and everything it has saved, for ever.
    made = slopes(current_node(), found, given[0])
    if made is None:
        return None
    return tuple(None if old is None else new for old, new in zip(found, made, strict=False))
