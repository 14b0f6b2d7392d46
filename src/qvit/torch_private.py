"""What torch tells by names of its own only: who looks on while a call is made, and how a trace may be seen by it.

All private names of torch that circuits and attention use are here; `docs/architecture.md` says why each is needed.

A compiled kernel reads memory. It is for plain tensors on the CPU with nobody watching: what traces, transforms or
batches a call is given a spelling of the same in torch operations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import _C, Tensor, compiler, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

_PLAIN = (Tensor, nn.Parameter)


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor without what a subclass such as MONAI's MetaTensor adds to it; gradients flow back to it.

    Subclasses that are something else inside (fake, distributed, quantised) stay as they are, as all do in a trace.
    """
    kind = type(tensor)
    if kind in _PLAIN or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ or compiler.is_compiling():
        return tensor
    return tensor.as_subclass(Tensor)


def transformed() -> bool:
    """Return whether torch.func is at work, or forward-mode differentiation."""
    if compiler.is_compiling():  # which has transforms of its own below
        return False
    return _C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def unwatched(*tensors: Tensor) -> bool:
    """Return whether memory of these may be read: plain tensors on the CPU, no trace, no transform, no batching."""
    if compiler.is_compiling():  # first: it cannot trace some of the questions below
        return False
    return (
        all(
            type(tensor) in _PLAIN
            and tensor.device.type == "cpu"
            and not _C._functorch.is_legacy_batchedtensor(tensor)  # `is_grads_batched`, vectorised Jacobians
            for tensor in tensors
        )
        and _C._get_tracing_state() is None
        and not transformed()
        and _C._len_torch_dispatch_stack() == 0
    )


def traced() -> bool:
    """Return whether this call becomes a program for other batch sizes too."""
    return compiler.is_compiling() or _C._get_tracing_state() is not None


def sizes(tensor: Tensor) -> tuple[int, ...]:
    """Return a shape that may be compared and computed with; torch.jit.trace would warn, and record each step."""
    state = None if compiler.is_compiling() else _C._get_tracing_state()
    if state is None:
        return tensor.shape
    _C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        return tuple(tensor.shape)
    finally:
        _C._set_tracing_state(state)  # type: ignore[attr-defined]


def jit_traced() -> bool:
    """Return whether torch.jit.trace records this call."""
    return _C._get_tracing_state() is not None


def batched(gradient: Tensor) -> bool:
    """Return whether this stands for many gradients: `is_grads_batched`, or `vmap` over a call of autograd."""
    return _C._functorch.is_legacy_batchedtensor(gradient) or _C._functorch.is_functorch_wrapped_tensor(gradient)


@contextmanager
def outside() -> Iterator[None]:
    """Make tensors that outlive what is going on now: no mode, no trace and no inference mode knows of them."""
    with _disable_current_modes(), torch.inference_mode(mode=False):
        yield


def saved_elsewhere() -> bool:
    """Return whether saved tensors are handed to hooks: checkpointing gives each of them back once only."""
    top = getattr(_C._autograd, "_top_saved_tensors_default_hooks", None)  # torch 2.7 has no such question
    return top is not None and top(True) is not None


def current_node() -> Any:
    """Return the node of the graph whose backward pass is being run."""
    return _C._current_autograd_node()


def run_backward(loss: Tensor) -> None:
    """Do what `loss.backward()` does of a scalar, without a function of torch's that blocks like modes would see."""
    engine: Any = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


@contextmanager
def without_onednn() -> Iterator[None]:
    """Have torch take its own convolutions; unlike the flag's public name, this may be asked while others look on."""
    was = _C._get_mkldnn_enabled()
    _C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        _C._set_mkldnn_enabled(was)
