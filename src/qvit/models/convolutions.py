"""Convolutions of one pixel with a stride, computed without the stride.

The oneDNN of torch 2.13.0 writes outside its memory in the backward pass of a 1 × 1 convolution with a stride, in
channels_last layout, if the number of input channels is not a multiple of 8, on processors with AVX2 and without
AVX-512 (`benchmarks/convolutions.py` shows it). Taking the pixels that the stride reads first, and convolving only
these, gives the same. That is done on every processor, in every layout and for any number of channels; forward passes
without gradients, such as a teacher's, never have the defect.

The gradient of a transposed convolution is such a convolution, and has the defect where `output_padding` makes its
stride divide the size of its output; padding the output afterwards gives the same.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qvit.models.vit import Classifier
from qvit.torch_private import run_backward, without_onednn

_LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d
_TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_MODULES: dict[Any, Callable[..., Tensor]] = {nn.Conv1d: torch.conv1d, nn.Conv2d: torch.conv2d, nn.Conv3d: torch.conv3d}
_PLAIN = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}  # by their dimensions
_PLAIN_TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}
_KNOWN = ("qvit.", "torch.nn.", "monai.", "timm.")  # packages whose networks are known to convolve by modules alone


def _called(name: str) -> list[Any]:
    """Return all forms in which a function of torch's may be called; exported programs call overloads of operators."""
    operator = getattr(torch.ops.aten, name)
    return [getattr(torch, name), operator, *(getattr(operator, overload) for overload in operator.overloads())]


_FUNCTIONS = {function: dims for dims in _PLAIN for function in _called(f"conv{dims}d")}
_TRANSPOSING = {function: dims for dims in _PLAIN for function in _called(f"conv_transpose{dims}d")}
_ANY = {torch.convolution, torch.ops.aten.convolution, torch.ops.aten.convolution.default}


class Unstrided(TorchFunctionMode):
    """A block in which all convolutions of one pixel are computed without their stride, whatever code calls them.

    Gradients have to be computed inside it as well, by `differentiate`, since checkpointing calls forward again then.
    It costs about a microsecond per call of a function of torch's.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch's, or an equal one without the stride."""
        if func in _FUNCTIONS:
            return _convolve(_FUNCTIONS[func], *args, **kwargs or {})
        if func in _TRANSPOSING:
            return _transpose(_TRANSPOSING[func], *args, **kwargs or {})
        if func in _ANY:
            return _convolve_any(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def _convolve(
    dims: int,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    steps = _steps(dims, weight.shape[2:], stride, padding)
    if steps is None:
        return _PLAIN[dims](input, weight, bias, stride, padding, dilation, groups)
    return _PLAIN[dims](_every(input, steps), weight, bias, 1, 0, 1, groups)


def _transpose(
    dims: int,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    function, more = _PLAIN_TRANSPOSED[dims], _each(output_padding, dims)
    if not any(more) or _steps(dims, weight.shape[2:], stride, padding) is None:
        return function(input, weight, bias, stride, padding, output_padding, groups, dilation)
    out = function(input, weight, None, stride, padding, 0, groups, dilation)
    out = nn.functional.pad(out, [size for extra in reversed(more) for size in (0, extra)])
    return out if bias is None else out + bias.to(out.dtype).reshape(-1, *(1,) * dims)


def _convolve_any(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    dims = weight.ndim - 2
    if transposed:
        return _transpose(dims, input, weight, bias, stride, padding, output_padding, groups, dilation)
    return _convolve(dims, input, weight, bias, stride, padding, dilation, groups)


def _steps(
    dims: int, kernel: Sequence[int], stride: int | Sequence[int], padding: str | int | Sequence[int]
) -> tuple[int, ...] | None:
    """Return the strides of a convolution of one pixel that has some and no padding; None for all others."""
    steps = _each(stride, dims)
    if max(steps) == 1 or any(size != 1 for size in kernel):
        return None
    padded = padding != "valid" if isinstance(padding, str) else any(_each(padding, dims))
    return None if padded else steps


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims // len(value))


def _every(pixels: Tensor, steps: tuple[int, ...]) -> Tensor:
    where: list[Any] = [slice(None, None, step) for step in steps]
    return pixels[..., *where]


class _Unstrided:
    """The base class that `unstride` adds to a convolution, in a subclass of its class with the same name."""

    def forward(self: Any, input: Tensor, *more: Any, **named: Any) -> Tensor:  # noqa: A002 - torch's name
        """Return the convolution of the pixels that the stride reads."""
        function, steps = _MODULES.get(_was(self)), _steps_of(self, self.padding)
        if function is not None and steps is not None:
            return function(_every(input, steps), self.weight, self.bias, 1, 0, 1, self.groups)
        with Unstrided():  # its class has another forward, which may, say, pad first or standardise the weights
            return super().forward(input, *more, **named)  # type: ignore[misc]

    def __reduce_ex__(self: Any, protocol: Any) -> tuple[Any, ...]:
        """Let copies and pickles find the class, which no module has under its name."""
        return _blank, (_was(self),), self.__dict__.copy()


@functools.cache
def _unstrided(kind: Any) -> Any:
    return type(kind.__name__, (_Unstrided, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _was(module: nn.Module) -> type[nn.Module]:
    """Return the class of a convolution before `unstride`."""
    classes = type(module).__mro__
    return classes[classes.index(_Unstrided) + 1]


def _blank(kind: Any) -> nn.Module:
    return nn.Module.__new__(_unstrided(kind))


def _steps_of(module: Any, padding: Any) -> tuple[int, ...] | None:
    return _steps(len(module.kernel_size), module.kernel_size, module.stride, padding)


def _has_stride(module: Any) -> bool:
    """Return whether a module is a convolution of one pixel, transposed or not, that is computed with a stride."""
    if isinstance(module, _Unstrided) or not isinstance(module, _LAYERS | _TRANSPOSED):
        return False
    # In any other mode a layer pads by itself first, and then convolves without padding.
    return _steps_of(module, module.padding if module.padding_mode == "zeros" else 0) is not None


def strided_pixels(module: nn.Module) -> list[nn.Module]:
    """Return the convolutions of one pixel inside a module that are computed with a stride."""
    return [part for part in module.modules() if _has_stride(part)]


def unstride(module: nn.Module) -> None:
    """Change a module so that its convolutions of one pixel are computed without their stride from now on.

    Nothing else changes: outputs and gradients up to rounding, parameters, names in its state, hooks, how it prints.
    """
    for convolution in strided_pixels(module):
        kind: Any = type(convolution)
        convolution.__class__ = _unstrided(kind)


def unstrided(model: nn.Module, objective: Callable[..., Any]) -> AbstractContextManager[Any]:
    """Return the block to train a model and its objective in: `Unstrided`, unless nothing here needs it.

    Our own networks are known not to need it. Those of others are not changed, so that they can still be quantised
    and pickled. Calls of TorchScript cannot be seen: if there is any, oneDNN is switched off for everything.
    """
    parts = [part for root in (model, objective) if isinstance(root, nn.Module) for part in root.modules()]
    if any(isinstance(part, torch.jit.ScriptModule) for part in parts):
        return _without_onednn()
    known = isinstance(model, Classifier) and all(map(_is_known, (*map(type, parts), objective)))
    return nullcontext() if known and not any(map(_has_stride, parts)) else Unstrided()


def _is_known(maker: Any) -> bool:
    """Return whether a class or function comes from a package whose convolutions are all modules."""
    return str(getattr(maker, "__module__", None)).startswith(_KNOWN)


@contextmanager
def _without_onednn() -> Iterator[None]:
    with without_onednn(), Unstrided():
        yield


def differentiate(loss: Tensor) -> None:
    """Add the gradients of a scalar to its parameters', as `loss.backward()` does, without suspending any block.

    torch's own `backward` is a function like all others, which suspends blocks like `Unstrided` while it runs, and
    then makes this same call.
    """
    run_backward(loss)
