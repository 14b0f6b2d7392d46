"""The layout that kernels take, by source, token and group, of a call's tensors and angles θ = A·x + B·w + c.

Inputs `(*batch, *groups or 1, i)` and weights `(*groups, k)`: a source is one row of inputs per token, shared by all
groups along dimensions where the inputs have size 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qvit.quantum.circuit import Angle
from qvit.torch_private import jit_traced, outside, sizes

TURN = 2.0 * math.pi


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that never changes, its tensor, and its number of rows, so that a trace need not read the array."""

    array: np.ndarray
    rows: int = field(init=False)
    _made_before: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", len(self.array))
        with outside():
            object.__setattr__(self, "_made_before", torch.from_numpy(self.array))

    def tensor(self) -> Tensor:
        """Return a tensor on the CPU that shares the array's memory."""
        return self._made_before if torch.compiler.is_dynamo_compiling() else torch.from_numpy(self.array)


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A constant matrix `(r, k)` for the last dimension; identity and zero are recognised and cost nothing.

    `is_exact` says that every row has at most one entry, ± a power of two, so that no digit is lost in any precision.
    """

    matrix: Constant
    is_zero: bool
    is_identity: bool
    is_exact: bool

    @classmethod
    def of(cls, matrix: np.ndarray) -> "LinearMap":
        """Return the map of a matrix, recognised as zero, identity or exact."""
        rows, columns = matrix.shape
        powers = bool(np.isin(np.frexp(matrix)[0], (0.0, 0.5, -0.5)).all())
        exact = powers and bool(((matrix != 0).sum(axis=1) <= 1).all())
        identity = rows == columns and np.array_equal(matrix, np.eye(rows))
        return cls(Constant(matrix), not matrix.any(), identity, exact)

    def __call__(self, values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch r"]:
        """Return values · matrixᵀ."""
        if self.is_identity:
            return values
        if self.is_zero:
            return values.new_zeros(*values.shape[:-1], self.matrix.rows)
        return values @ self.matrix.tensor().T.to(dtype=values.dtype, device=values.device)

    def back(self, slopes: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch k"]:
        """Return slopes · matrix, the gradient of the values."""
        if self.is_identity:
            return slopes
        return slopes @ self.matrix.tensor().to(dtype=slopes.dtype, device=slopes.device)


def _wide(values: Tensor) -> Tensor:
    return values if values.device.type == "mps" else values.double()  # MPS has no float64


def without_turns(angles: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return angles minus their whole turns, in float64.

    A whole turn of a Pauli rotation is a global sign, which no expectation value sees; in a float32 sum, whole turns
    would cost the other angle digits.
    """
    wide = _wide(angles)
    return wide - TURN * (wide.detach() / TURN).round()


@dataclass(frozen=True, eq=False)
class LinearAngles:
    """The coefficients of r angles for inputs, weights and constants (None if all constants are zero).

    `inputs` has a row for each of `dynamic`, the angles that depend on inputs; `weights` one for every angle.
    `columns` says for every angle which of the rows of `inputs` it takes, −1 for none.
    Sums are taken in float64 and lose their whole turns before they become float32, which is then exact to its last
    digits for angles up to 1e8 and beyond.
    """

    inputs: LinearMap
    weights: LinearMap
    constant: Constant | None
    dynamic: tuple[int, ...]
    columns: Constant

    @classmethod
    def of(cls, angles: Sequence[Angle], n_inputs: int, n_weights: int) -> "LinearAngles":
        """Collect the coefficients of `angles`."""
        a, b = np.zeros((len(angles), n_inputs)), np.zeros((len(angles), n_weights))
        for row, angle in enumerate(angles):
            for index, coefficient in angle.inputs:
                a[row, index] += coefficient
            for index, coefficient in angle.weights:
                b[row, index] += coefficient
        c = np.array([angle.constant for angle in angles])
        dynamic = [row for row, angle in enumerate(angles) if angle.inputs]
        columns = np.full(len(angles), -1)
        columns[dynamic] = np.arange(len(dynamic))
        constant = Constant(c) if c.any() else None
        return cls(LinearMap.of(a[dynamic]), LinearMap.of(b), constant, tuple(dynamic), Constant(columns))

    def of_inputs(self, inputs: Float[Tensor, "s i t"]) -> Float[Tensor, "s d t"]:
        """Return A·x for the angles that depend on inputs."""
        if self.inputs.is_identity:
            return inputs
        if self.inputs.is_exact:
            return self.inputs(inputs.transpose(1, 2)).transpose(1, 2)
        return without_turns(self.inputs(_wide(inputs).transpose(1, 2)).transpose(1, 2)).to(inputs.dtype)

    def inputs_from(self, slopes: Float[Tensor, "s d t"]) -> Float[Tensor, "s i t"]:
        """Return gradients of the inputs from those of `of_inputs`."""
        return slopes if self.inputs.is_identity else self.inputs.back(slopes.transpose(1, 2)).transpose(1, 2)

    def weights_from(self, slopes: Float[Tensor, "g r"]) -> Float[Tensor, "g k"]:
        """Return gradients of the weights from those of `of_weights`."""
        return self.weights.back(slopes)

    def of_weights(self, weights: Float[Tensor, "*groups k"]) -> Float[Tensor, "*groups r"]:
        """Return B·w + c."""
        if self.constant is None and self.weights.is_exact:
            return self.weights(weights)
        return without_turns(self._sums(weights)).to(weights.dtype)

    def _sums(self, weights: Float[Tensor, "*groups k"]) -> Float[Tensor, "*groups r"]:
        """Return B·w + c in float64."""
        sums = self.weights(_wide(weights))
        if self.constant is not None:
            sums = sums + self.constant.tensor().to(dtype=sums.dtype, device=sums.device)
        return sums

    def __call__(self, inputs: Float[Tensor, "g i t"], weights: Float[Tensor, "g k"]) -> Float[Tensor, "g t r"]:
        """Return all angles in radians."""
        still, moving = self._sums(weights)[:, None, :], self.inputs(_wide(inputs).transpose(1, 2))
        if len(self.dynamic) != self.weights.matrix.rows:
            # Gathered, not added in place: inductor's `index_add` to an expanded tensor adds to all tokens (183986).
            moving = torch.nn.functional.pad(moving, (0, 1))[..., self.columns.tensor().to(still.device)]
        return without_turns(still + moving).to(inputs.dtype)


@dataclass(frozen=True, eq=False)
class Batching:
    """The layout of leading dimensions: `batch` are tokens, `groups` follow.

    `sources` are the inputs' dimensions along `groups`, and `tokens` is the number of tokens per group.
    """

    batch: tuple[int, ...]
    groups: tuple[int, ...]
    sources: tuple[int, ...]
    tokens: int

    @classmethod
    def of(cls, inputs: Tensor, weights: Tensor) -> "Batching":
        """Return the layout of two tensors that broadcast."""
        if torch.compiler.is_compiling():  # a trace complains of caches, and its shapes are symbols
            return cls._of(inputs.shape, weights.shape, torch.broadcast_shapes)
        if not jit_traced():
            return _kept_layout(inputs.shape, weights.shape)
        layout = _kept_layout(sizes(inputs), sizes(weights))
        batch = tuple(inputs.shape)[: len(layout.batch)]  # only these may differ in another call
        return cls(batch, layout.groups, layout.sources, prod(batch))

    @classmethod
    def _of(cls, inputs: tuple[int, ...], weights: tuple[int, ...], broadcast: Callable[..., Any]) -> "Batching":
        tokens = max(0, len(inputs) - len(weights))  # dimensions of the inputs alone are never compared to anything
        groups = tuple(broadcast(inputs[tokens:-1], weights[:-1]))
        own = (1,) * (len(groups) - len(inputs) + 1 + tokens) + tuple(inputs[tokens:-1])
        batch = tuple(inputs[:tokens])
        return cls(batch, groups, own, prod(batch))

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
