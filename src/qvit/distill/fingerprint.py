"""Digests that identify modules: the same in every process for the same module."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qvit.errors import ConfigError

_SAID_BY_REPR = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.qscheme)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in a `repr`: an object's address in this process's memory
_NAMED = (type, FunctionType, BuiltinFunctionType)


def digest_of(modules: Sequence[nn.Module]) -> str:
    """Return the SHA-256 of modules: of their `repr`, and of the names, types, shapes and bytes of all they save.

    The `config` of our own models is included, since neither `repr` nor weights show the number of heads, or a resizing
    before a CNN. What quantised parts and `get_extra_state` save besides tensors counts by its contents; raises
    `ConfigError` for objects that cannot be taken apart.
    """
    digest = hashlib.sha256()
    for module in modules:
        told = f"{type(module).__module__}.{module!r} {_told(getattr(module, 'config', None))}"
        digest.update(_ADDRESS.sub("", told).encode())
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            for part in _parts(value, name, ()):
                digest.update(part)
    return digest.hexdigest()


def _told(value: Any) -> str:
    """Return a configuration as text that is the same in every process: the elements of sets are sorted."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(map(_told, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_told(key)}: {_told(one)}' for key, one in value.items())}}}"
    if type(value) in (list, tuple):
        return f"{type(value).__name__}({', '.join(map(_told, value))})"
    if is_dataclass(value) and not isinstance(value, type):
        inner = (f"{one.name}={_told(getattr(value, one.name))}" for one in fields(value) if one.repr)
        return f"{type(value).__qualname__}({', '.join(inner)})"
    return repr(value)


def _parts(value: Any, name: str, within: tuple[int, ...]) -> Iterator[Any]:
    """Yield bytes that distinguish a value from every other; `within` are the objects that contain it."""
    if isinstance(value, Tensor):
        yield from _of_tensor(value)
    elif type(value) in _SAID_BY_REPR:
        yield f" {value!r}".encode()
    elif isinstance(value, _NAMED) and "<lambda>" not in value.__qualname__:
        yield f" {value.__module__}.{value.__qualname__}".encode()
    elif id(value) in within:  # a cycle, written as the number of levels that it leads up
        yield f" ^{len(within) - within.index(id(value))}".encode()
    else:
        yield f" {type(value).__module__}.{type(value).__qualname__}(".encode()
        for part in _contents(value, name):
            yield from _parts(part, name, (*within, id(value)))
        yield b")"


def _contents(value: Any, name: str) -> Sequence[Any]:
    """Return what a container or an object consists of, in an order that is the same in every process."""
    match value:
        case set() | frozenset():
            return sorted(_digest_of_value(part, name) for part in value)
        case dict():
            return [part for pair in value.items() for part in pair]
        case list() | tuple():
            return value
        case np.ndarray() if value.dtype != object:
            return [value.dtype.str, value.shape, value.tobytes()]
    try:
        made_of = value.__reduce_ex__(4)  # as pickle takes it apart
    except Exception as error:  # an object can raise anything
        raise ConfigError(
            f"The teacher cannot be recognised by what it saves as '{name}': it holds a {type(value).__name__}, which "
            "cannot be taken apart. Have its get_extra_state return tensors, numbers and text."
        ) from error
    return [list(part) if isinstance(part, Iterator) else part for part in made_of]


def _digest_of_value(value: Any, name: str) -> bytes:
    """Return the SHA-256 of one value that a module saves as `name`."""
    digest = hashlib.sha256()
    for part in _parts(value, name, ()):
        digest.update(part)
    return digest.digest()


def _of_tensor(value: Tensor) -> Iterator[Any]:
    value = value.detach().cpu()
    if value.is_quantized:
        yield f" {value.qscheme()}".encode()
        if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            yield f" {value.q_scale()!r} {value.q_zero_point()}".encode()
        else:
            yield f" {value.q_per_channel_axis()}".encode()
            yield from _of_tensor(value.q_per_channel_scales())
            yield from _of_tensor(value.q_per_channel_zero_points())
        value = value.int_repr()
    elif value.layout != torch.strided:
        yield f" {value.layout}".encode()
        value = value.to_dense()
    value = value.resolve_conj().resolve_neg().contiguous()
    yield f" {value.dtype} {tuple(value.shape)}".encode()
    yield value.flatten().view(torch.uint8).numpy() if value.numel() else b""
