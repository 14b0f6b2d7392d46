"""State dictionaries of modules: tensors, and what quantised parts and `get_extra_state` add to them."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qvit.errors import ModelError

VERSIONS = "_metadata"


def copied(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a module's state dictionary that shares nothing with it."""
    return _with_tensors(saved, lambda tensor: tensor.detach().clone())


def on_cpu(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a module's state dictionary with all tensors on the CPU."""
    return _with_tensors(saved, lambda tensor: tensor.detach().cpu())


def running_mean(mean: dict[str, Any], latest: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the mean of `count` state dictionaries, from that of all but the latest; it shares nothing with them.

    What is not made of plain tensors of real numbers, such as counters, is that of the latest.
    """
    found = copied(latest)
    for name, value in found.items():
        if is_plain(value) and value.is_floating_point():
            before = mean[name].to(value.device)
            found[name] = before + (value - before) / count
    return found


def is_plain(value: Any) -> bool:
    """Return whether a value is a tensor that is nothing but its numbers: neither sparse nor quantised."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def check_tensors(saved: dict[str, Any]) -> None:
    """Raise `ModelError` unless a state dictionary holds only plain tensors, as files of weights do."""
    for name, value in saved.items():
        if not is_plain(value):
            kind = "quantised or sparse tensor" if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"A run's weights are kept as plain tensors, and this model saves '{name}' as a {kind}. Train it with "
                "`fit` and save it yourself, or use it as a teacher, by Teacher.of_module."
            )


def _with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with its tensors changed, and all else copied.

    A state dictionary has an attribute with versions, without which quantised parts cannot load it.
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
