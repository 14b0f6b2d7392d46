"""Convolutions of one pixel that skip pixels, computed without their stride.

The oneDNN of torch 2.13.0 writes outside its memory in the backward pass of a 1 × 1 convolution with a stride, in
channels_last layout, whose input channels are no multiple of 8, on processors with AVX2 and without AVX-512
(`benchmarks/convolutions.py` shows it). It is the same function to leave the other pixels out first and to convolve
those that remain. That is done on every processor, in every layout and for any number of channels; forward passes
without gradients, such as a teacher's, never have the defect.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qvit.models.vit import Classifier

_MODULES: dict[Any, Callable[..., Tensor]] = {nn.Conv1d: torch.conv1d, nn.Conv2d: torch.conv2d, nn.Conv3d: torch.conv3d}
_FUNCTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


class Unstrided(TorchFunctionMode):
    """Inside this block all convolutions of one pixel are computed without their stride, whoever calls them.

    It has to be held while gradients are computed as well, by `differentiate`, for checkpointing calls forward again
    there. It costs about a microsecond for every function of torch's.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch's, or what is equal to it."""
        if func in _FUNCTIONS:
            return _convolve(func, *args, **kwargs or {})
        return func(*args, **kwargs or {})


def _convolve(
    func: Callable[..., Tensor],
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    steps = _steps(_FUNCTIONS[func], weight.shape[2:], stride, padding)
    if steps is None:
        return func(input, weight, bias, stride, padding, dilation, groups)
    return func(_every(input, steps), weight, bias, 1, 0, 1, groups)


def _steps(
    dims: int, kernel: Sequence[int], stride: int | Sequence[int], padding: str | int | Sequence[int]
) -> tuple[int, ...] | None:
    """Return the steps of a convolution that reads one pixel, with a stride and no padding; None for all others."""
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
    """What a convolution becomes by `unstride`: a subclass of its own class, by the same name."""

    def forward(self: Any, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return the convolution of the pixels that the stride reads."""
        function, steps = _MODULES.get(_was(self)), _steps_of(self)
        if function is not None and steps is not None:
            return function(_every(input, steps), self.weight, self.bias, 1, 0, 1, self.groups)
        with Unstrided():  # a forward of its own, which may standardise the weights, say
            return super().forward(input)  # type: ignore[misc]

    def __reduce_ex__(self: Any, protocol: Any) -> tuple[Any, ...]:
        """Have copies and pickles find the class, which no module has by its name."""
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


def _steps_of(module: Any) -> tuple[int, ...] | None:
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):  # and none is transposed
        return None
    return _steps(len(module.kernel_size), module.kernel_size, module.stride, module.padding)


def strided_pixels(module: nn.Module) -> list[nn.Module]:
    """Return the convolutions of one pixel with a stride, inside a module, that are computed with it."""
    return [part for part in module.modules() if not isinstance(part, _Unstrided) and _steps_of(part) is not None]


def unstride(module: nn.Module) -> None:
    """Have the convolutions of one pixel inside a module computed without their stride from now on.

    All else stays: outputs and gradients up to rounding, parameters, the names of its state, hooks, how it prints.
    """
    for convolution in strided_pixels(module):
        kind: Any = type(convolution)
        convolution.__class__ = _unstrided(kind)


def unstrided(model: nn.Module, objective: nn.Module) -> AbstractContextManager[Any]:
    """Return the block to train a model and its objective in: `Unstrided`, unless nothing here needs it.

    Of our own networks it is known what they call. A stranger's is not changed, so that it can be quantised or pickled
    as ever.
    """
    safe = isinstance(model, Classifier) and not strided_pixels(model) and not strided_pixels(objective)
    return nullcontext() if safe else Unstrided()


def differentiate(loss: Tensor) -> None:
    """Add the gradients of a scalar to its parameters', as `loss.backward()` does, without leaving any block.

    While torch's own `backward` runs, a function of torch's like all others, blocks like `Unstrided` are suspended; it
    ends in this call.
    """
    engine: Any = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )
