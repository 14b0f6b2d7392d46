"""Angles θ = A·x + B·w + c for batches of inputs and groups of weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.quantum.circuit import Angle, affine


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
        a, b, c = affine(angles, n_inputs, n_weights)
        return cls(LinearMap.of(a), LinearMap.of(b), c if c.any() else None)

    def __call__(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups r"]:
        """Return the angles in radians; leading dimensions broadcast."""
        angles = self.inputs(inputs) + self.weights(weights)
        if self.constant is not None:
            angles = angles + torch.as_tensor(self.constant, dtype=angles.dtype, device=angles.device)
        return angles
