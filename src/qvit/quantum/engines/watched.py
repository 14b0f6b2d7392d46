"""Who looks on while a kernel is called: what traces, transforms or batches a call sees torch's operations only.

A compiled kernel reads memory. It is for plain tensors on the CPU with nobody watching; for all others there is a
spelling of the same in torch operations.
"""

from torch import _C, Tensor, compiler, nn
from torch.autograd import forward_ad

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
