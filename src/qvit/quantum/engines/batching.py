"""From tensors with any leading dimensions to (source, token) and (group), and back.

Inputs `(*batch, *groups or 1, i)` and weights `(*groups, k)`: a source is one row of inputs per token, shared by all
groups along dimensions where the inputs have size 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qvit.quantum.engines.tracing import sizes


@dataclass(frozen=True, eq=False)
class Batching:
    """How leading dimensions are laid out: `lead` of the result, `groups` its last, `sources` those of the inputs."""

    lead: tuple[int, ...]
    groups: tuple[int, ...]
    sources: tuple[int, ...]

    @classmethod
    def of(cls, inputs: Tensor, weights: Tensor) -> "Batching":
        """Read the layout off two tensors that broadcast."""
        if torch.compiler.is_compiling():  # a trace complains of caches, and its shapes are symbols
            return cls._of(inputs.shape, weights.shape, torch.broadcast_shapes)
        if torch._C._get_tracing_state() is None:
            return _kept_layout(inputs.shape, weights.shape)
        layout = _kept_layout(sizes(inputs), sizes(weights))
        tokens = tuple(inputs.shape)[: len(layout.batch)]  # only these may differ in another call
        return cls(tokens + layout.groups, layout.groups, layout.sources)

    @classmethod
    def _of(cls, inputs: tuple[int, ...], weights: tuple[int, ...], broadcast: Callable[..., Any]) -> "Batching":
        tokens = max(0, len(inputs) - len(weights))  # dimensions of the inputs alone are never compared to anything
        groups = tuple(broadcast(inputs[tokens:-1], weights[:-1]))
        own = (1,) * (len(groups) - len(inputs) + 1 + tokens) + tuple(inputs[tokens:-1])
        return cls(tuple(inputs[:tokens]) + groups, groups, own)

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading dimensions that are tokens."""
        return self.lead[: len(self.lead) - len(self.groups)]

    @property
    def tokens(self) -> int:
        """The number of tokens per group."""
        return prod(self.batch)

    def split_inputs(self, inputs: Float[Tensor, "*batch i"]) -> Float[Tensor, "s i t"]:
        """Return inputs by source, tokens last."""
        return self._tokens_last(inputs.reshape(*self.batch, *self.sources, inputs.shape[-1]), prod(self.sources))

    def split_weights(self, weights: Float[Tensor, "*groups k"]) -> Float[Tensor, "g k"]:
        """Return weights by group."""
        if weights.ndim == 2 and sizes(weights)[0] == self.groups[0]:
            return weights
        return weights.expand(*self.groups, -1).reshape(prod(self.groups), weights.shape[-1])

    def source(self) -> Int[Tensor, " g"]:
        """Return the source of each group."""
        if torch.compiler.is_compiling():  # a trace complains of caches and must read no array; sizes may be symbols
            index = torch.arange(prod(self.sources), dtype=torch.int32, device="cpu")
            return index.reshape(self.sources).expand(self.groups).reshape(-1)
        return torch.from_numpy(_kept_source(self.sources, self.groups))

    def split_outputs(self, values: Float[Tensor, "*lead o"]) -> Float[Tensor, "g o t"]:
        """Return values by group, tokens last: the inverse of `join`."""
        return self._tokens_last(values, prod(self.groups))

    def join(self, values: Float[Tensor, "g o t"]) -> Float[Tensor, "*lead o"]:
        """Return values with the leading dimensions of the call; a view."""
        return self._tokens_first(values, self.groups)

    def join_inputs(self, values: Float[Tensor, "s i t"]) -> Float[Tensor, "*batch i"]:
        """Return values in the layout of the inputs: the inverse of `split_inputs`."""
        return self._tokens_first(values, self.sources)

    def _tokens_last(self, values: Tensor, rows: int) -> Tensor:
        # One permutation, so that at most one copy is made whatever the strides.
        n = len(self.batch)
        moved = values.permute(*range(n, values.ndim), *range(n))
        return moved.reshape(rows, values.shape[-1], self.tokens)

    def _tokens_first(self, values: Tensor, rows: tuple[int, ...]) -> Tensor:
        n, inner = len(self.batch), len(rows) + 1
        split = values.reshape(*rows, values.shape[1], *self.batch)
        return split.permute(*range(inner, inner + n), *range(inner))


@lru_cache(maxsize=256)
def _kept_source(sources: tuple[int, ...], groups: tuple[int, ...]) -> np.ndarray:
    index = np.arange(prod(sources), dtype=np.int32).reshape(sources)
    return np.broadcast_to(index, groups).flatten()


@lru_cache(maxsize=256)
def _kept_layout(inputs: tuple[int, ...], weights: tuple[int, ...]) -> Batching:
    return Batching._of(inputs, weights, np.broadcast_shapes)  # numpy's is quicker; torch's would import sympy
