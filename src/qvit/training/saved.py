"""What a module saves: tensors, and whatever its quantised parts and its `get_extra_state` have to say besides."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qvit.errors import ModelError

VERSIONS = "_metadata"


def copied(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of what a module saves that shares nothing with it."""
    return _with_tensors(saved, lambda tensor: tensor.detach().clone())


def on_cpu(saved: dict[str, Any]) -> dict[str, Any]:
    """Return what a module saves, with all tensors on the CPU."""
    return _with_tensors(saved, lambda tensor: tensor.detach().cpu())


def check_tensors(saved: dict[str, Any]) -> None:
    """Raise `ModelError` unless all that a module saves are plain tensors, which files of weights hold alone."""
    for name, value in saved.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
        if not plain:
            kind = "quantised or sparse tensor" if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"A run's weights are kept as plain tensors, and this model saves '{name}' as a {kind}. Train it with "
                "`fit` and save it yourself, or use it as a teacher, by Teacher.of_module."
            )


def _with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with its tensors changed, and all else copied.

    What a module saves has an attribute that says by which versions, without which quantised parts cannot read it.
    """
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_with_tensors(part, change) for part in value)
    if type(value) in (dict, OrderedDict):
        changed = type(value)((key, _with_tensors(part, change)) for key, part in value.items())
        if hasattr(value, VERSIONS):
            setattr(changed, VERSIONS, copy.deepcopy(getattr(value, VERSIONS)))
        return changed
    return copy.deepcopy(value)
