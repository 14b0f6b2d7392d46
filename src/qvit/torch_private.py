"""Questions that torch answers only by private names, such as whether a call is traced, transformed or batched.

All private names of torch that circuits and attention use are here; `docs/architecture.md` says why each is needed.

A compiled kernel reads memory, so it runs only on plain tensors on the CPU. Where something traces, transforms or
batches a call, torch operations compute the same.
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
    """Return a tensor without what a subclass such as MONAI's MetaTensor adds to it; gradients still flow back.

    Subclasses with a dispatch of their own (fake, distributed, quantised) stay as they are; in torch.compile, all do.
    """
    kind = type(tensor)
    if kind in _PLAIN or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ or compiler.is_compiling():
        return tensor
    return tensor.as_subclass(Tensor)


def transformed() -> bool:
    """Return whether torch.func or forward-mode differentiation is at work."""
    if compiler.is_compiling():  # its own transforms do not count
        return False
    return _C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def unwatched(*tensors: Tensor) -> bool:
    """Return whether a kernel may read these tensors' memory: plain, on the CPU, not traced, transformed or batched."""
    if compiler.is_compiling():  # first, as torch.compile cannot trace some of the questions below
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


def unhooked(*modules: nn.Module) -> bool:
    """Return whether modules do what their class says and nobody watches: no hooks, neither their own nor of all."""
    hooks = (
        *nn.modules.module._global_forward_hooks,
        *nn.modules.module._global_forward_pre_hooks,
        *nn.modules.module._global_backward_hooks,
        *nn.modules.module._global_backward_pre_hooks,
    )
    return not hooks and not any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in modules
    )


def traced() -> bool:
    """Return whether this call is traced into a program that may run with other batch sizes."""
    return compiler.is_compiling() or _C._get_tracing_state() is not None


def sizes(tensor: Tensor) -> tuple[int, ...]:
    """Return a shape to compare and compute with; in torch.jit.trace, using `tensor.shape` warns and is recorded."""
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
    """Return whether a gradient stands for many: `is_grads_batched`, or `vmap` over a call of autograd."""
    return _C._functorch.is_legacy_batchedtensor(gradient) or _C._functorch.is_functorch_wrapped_tensor(gradient)


@contextmanager
def outside() -> Iterator[None]:
    """Hide the tensors made inside the block from modes, traces and inference mode, as they outlive this call."""
    with _disable_current_modes(), torch.inference_mode(mode=False):
        yield


def saved_elsewhere() -> bool:
    """Return whether hooks take saved tensors, as checkpointing does, which gives each of them back only once."""
    top = getattr(_C._autograd, "_top_saved_tensors_default_hooks", None)  # torch 2.7 does not have it
    return top is not None and top(True) is not None


def current_node() -> Any:
    """Return the node of the graph whose backward pass is being run."""
    return _C._current_autograd_node()


def run_backward(loss: Tensor) -> None:
    """Add gradients as `loss.backward()` does for a scalar, without calling a function that torch's modes would see."""
    engine: Any = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


@contextmanager
def without_onednn() -> Iterator[None]:
    """Let torch use its own convolutions, not oneDNN's, inside the block; the flag's public name may warn or refuse."""
    was = _C._get_mkldnn_enabled()
    _C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        _C._set_mkldnn_enabled(was)
