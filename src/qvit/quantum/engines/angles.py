"""Angles θ = A·x + B·w + c for batches of inputs and groups of weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.quantum.circuit import Angle

TURN = 2.0 * math.pi


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A constant matrix `(r, k)` for the last dimension; identity and zero are noticed and cost nothing."""

    matrix: np.ndarray
    is_zero: bool
    is_identity: bool

    @classmethod
    def of(cls, matrix: np.ndarray) -> "LinearMap":
        """Recognise what a matrix is."""
        rows, columns = matrix.shape
        return cls(matrix, not matrix.any(), rows == columns and np.array_equal(matrix, np.eye(rows)))

    def __call__(self, values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch r"]:
        """Return values · matrixᵀ."""
        if self.is_identity:
            return values
        if self.is_zero:
            return values.new_zeros(*values.shape[:-1], len(self.matrix))
        return values @ torch.as_tensor(self.matrix.T, dtype=values.dtype, device=values.device)


@dataclass(frozen=True, eq=False)
class LinearAngles:
    """The coefficients of r angles; no constants are None."""

    inputs: LinearMap
    weights: LinearMap
    constant: np.ndarray | None

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
        return cls(LinearMap.of(a), LinearMap.of(b), c if c.any() else None)

    def _of_weights(self, weights: Float[Tensor, "*groups k"]) -> Float[Tensor, "*groups r"]:
        """Return the weights' share; sums are taken in float64 and whole turns dropped, or float32 loses digits.

        A whole turn of an uncontrolled rotation is a global sign, which no expectation value sees.
        """
        if self.weights.is_identity or self.weights.is_zero or weights.device.type == "mps":  # which has no float64
            return self.weights(weights)
        sums = self.weights(weights.double())
        return (sums - TURN * (sums.detach() / TURN).round()).to(weights.dtype)

    def __call__(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups r"]:
        """Return the angles in radians; leading dimensions broadcast."""
        angles = self.inputs(inputs) + self._of_weights(weights)
        if self.constant is not None:
            angles = angles + torch.as_tensor(self.constant, dtype=angles.dtype, device=angles.device)
        return angles
