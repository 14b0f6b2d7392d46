"""Layers of a stack of models: those of torch, with an axis for the models in front of all that they have."""

from jaxtyping import Float
from torch import Tensor, nn


def products(left: Float[Tensor, "m a b"], right: Float[Tensor, "m b c"]) -> Float[Tensor, "m a c"]:
    """Return each model's product of two matrices.

    torch computes one product by another function than several, which rounds differently, in the backward pass as well.
    So one is computed as if there were another.
    """
    if left.shape[0] > 1:
        return left @ right
    return (left.expand(2, -1, -1) @ right.expand(2, -1, -1))[:1]


class StackedLinear(nn.Linear):
    """The dense layers of m models: weight `(m, o, i)`, bias `(m, o)`, made from `nn.Linear` by `stacked`."""

    def forward(self, input: Float[Tensor, "m *lead i"]) -> Float[Tensor, "m *lead o"]:  # noqa: A002 - torch's name
        """Return W·x + b of each model."""
        out = products(input.flatten(1, -2), self.weight.mT)
        out = out if self.bias is None else out + self.bias[:, None]
        return out.unflatten(1, input.shape[1:-1])


class StackedPatches(nn.Conv2d):
    """The patch embeddings of m models: weight `(m, d, c, p, p)`, made from `nn.Conv2d` by `stacked`."""

    def forward(self, input: Float[Tensor, "m b c y x"]) -> Float[Tensor, "m b d v u"]:  # noqa: A002 - torch's name
        """Return each patch's embedding."""
        patch, (y, x) = self.weight.shape[-1], (size // self.weight.shape[-1] for size in input.shape[-2:])
        m, b, c = input.shape[:3]
        cut = input.reshape(m, b, c, y, patch, x, patch).permute(0, 1, 3, 5, 2, 4, 6).reshape(m, b * y * x, -1)
        assert self.bias is not None
        out = products(cut, self.weight.flatten(2).mT) + self.bias[:, None]
        return out.unflatten(1, (b, y, x)).permute(0, 1, 4, 2, 3)
