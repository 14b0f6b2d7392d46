"""Angles θ = A·x + B·w + c for batches of inputs and groups of weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.quantum.circuit import Angle
from qvit.quantum.engines.tracing import Constant

TURN = 2.0 * math.pi


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A constant matrix `(r, k)` for the last dimension; identity and zero are noticed and cost nothing."""

    matrix: Constant
    is_zero: bool
    is_identity: bool

    @classmethod
    def of(cls, matrix: np.ndarray) -> "LinearMap":
        """Recognise what a matrix is."""
        rows, columns = matrix.shape
        return cls(Constant(matrix), not matrix.any(), rows == columns and np.array_equal(matrix, np.eye(rows)))

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


def _without_turns(angles: Tensor) -> Tensor:
    wide = angles if angles.device.type == "mps" else angles.double()
    return (wide - TURN * (wide.detach() / TURN).round()).to(angles.dtype)


@dataclass(frozen=True, eq=False)
class LinearAngles:
    """The coefficients of r angles, apart for inputs, weights and constants (None if all are zero).

    `inputs` has a row for each of `dynamic`, the angles that depend on inputs; `weights` one for every angle.
    `columns` says for every angle which of the rows of `inputs` it takes, −1 for none.
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
        """Return A·x of the angles that depend on inputs."""
        return inputs if self.inputs.is_identity else self.inputs(inputs.transpose(1, 2)).transpose(1, 2)

    def inputs_from(self, slopes: Float[Tensor, "s d t"]) -> Float[Tensor, "s i t"]:
        """Return gradients of the inputs from those of `of_inputs`."""
        return slopes if self.inputs.is_identity else self.inputs.back(slopes.transpose(1, 2)).transpose(1, 2)

    def weights_from(self, slopes: Float[Tensor, "g r"]) -> Float[Tensor, "g k"]:
        """Return gradients of the weights from those of `of_weights`."""
        return self.weights.back(slopes)

    def of_weights(self, weights: Float[Tensor, "*groups k"]) -> Float[Tensor, "*groups r"]:
        """Return B·w + c; sums are taken in float64 and whole turns dropped, or float32 loses digits.

        A whole turn of a Pauli rotation is a global sign, which no expectation value sees.
        """
        plain = self.weights.is_identity or self.weights.is_zero or weights.device.type == "mps"  # no float64 there
        sums = self.weights(weights if plain else weights.double())
        if self.constant is not None:
            sums = sums + self.constant.tensor().to(dtype=sums.dtype, device=sums.device)
        return (sums if plain else _without_turns(sums)).to(weights.dtype)

    def __call__(self, inputs: Float[Tensor, "g i t"], weights: Float[Tensor, "g k"]) -> Float[Tensor, "g t r"]:
        """Return all angles in radians."""
        still, moving = self.of_weights(weights)[:, None, :], self.inputs(inputs.transpose(1, 2))
        still = _without_turns(still)  # a large weight would cost the sum its digits
        if len(self.dynamic) == self.weights.matrix.rows:
            return still + moving
        # Gathered, not added in place: inductor's `index_add` on what is expanded adds to all tokens (pytorch 183986).
        padded = torch.nn.functional.pad(moving, (0, 1))
        return still + padded[..., self.columns.tensor().to(still.device)]
