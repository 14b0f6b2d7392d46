"""Layer normalisation with correct derivatives of every order."""

from functools import lru_cache, partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from qvit.models.reverse import Hook, differentiable, replacing
from qvit.torch_private import transformed


class LayerNorm(nn.LayerNorm):
    """torch's layer normalisation over the last dimension, with third and higher derivatives corrected.

    torch (2.13) treats the mean and the deviation as constants in the gradient of its gradient, so that its third
    derivatives are silently wrong.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)  # with weights, and of one dimension: what `_slopes` is written for

    def forward(self, input: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:  # noqa: A002 - torch's name
        """Return (x − mean)/√(variance + eps)·weight + bias."""
        if self.weight.ndim > 1:
            return _centred(input, self.eps)[0] * self.weight[:, None, None] + self.bias[:, None, None]
        if transformed():
            return _centred(input, self.eps)[0] * self.weight + self.bias
        return differentiable(super().forward(input), _hook(self.eps))


@lru_cache
def _hook(eps: float) -> Hook:
    return replacing(partial(_slopes, eps))


def _centred(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the features with mean 0 and deviation 1, and what they were multiplied by."""
    moved = features - features.mean(dim=-1, keepdim=True)
    factor = (moved.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    return moved * factor, factor


def _slopes(eps: float, _node: Any, found: tuple[Tensor | None, ...], gradient: Tensor) -> tuple[Tensor, ...] | None:
    """Return the gradients of features, weight and bias; None where torch's are correct."""
    again = None if found[0] is None else found[0].grad_fn  # torch's gradient of its gradient
    if again is None:  # the gradient is linear in everything that requires one
        return None
    # From what this node has saved, not the first one: checkpointing gives each of those tensors back only once.
    normal, factor = _centred(again._saved_input, eps)  # type: ignore[attr-defined]
    weight = again._saved_weight  # type: ignore[attr-defined]
    inner = gradient * weight
    slope = inner - inner.mean(dim=-1, keepdim=True) - normal * (inner * normal).mean(dim=-1, keepdim=True)
    lead = tuple(range(gradient.ndim - 1))
    return slope * factor, (gradient * normal).sum(dim=lead), gradient.sum(dim=lead)
