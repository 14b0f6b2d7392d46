"""How the tokens of an image become one vector."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import ModelError

_LEAST = 1e-12  # a variance: the root of 0 has no slope


class Pool(NamedTuple):
    """A pooling: a function from tokens `(…, n, d)` to `(…, vectors·d)`, or None for one that has a module or token."""

    vectors: int
    function: Callable[[Tensor], Tensor] | None


def _most(tokens: Tensor) -> Tensor:
    return tokens.max(dim=-2).values  # of equal ones the first has the gradient, which is quicker than to divide it


def _all(tokens: Tensor) -> Tensor:
    variance, mean = torch.var_mean(tokens, dim=-2, correction=0)
    spread = variance.clamp_min(_LEAST).sqrt()
    return torch.cat((mean, spread, _most(tokens), tokens.min(dim=-2).values), dim=-1)


POOLS: dict[str, Pool] = {
    "mean": Pool(1, lambda tokens: tokens.mean(dim=-2)),
    "max": Pool(1, _most),
    "meanmax": Pool(2, lambda tokens: torch.cat((tokens.mean(dim=-2), _most(tokens)), dim=-1)),
    "all": Pool(4, _all),  # mean, standard deviation, maximum, minimum
    "cls": Pool(1, lambda tokens: tokens[..., 0, :]),  # a token of its own, which comes first
    "attention": Pool(1, None),
}
if TYPE_CHECKING:  # mypy cannot make a type of a table; pydantic can, and checks what is given
    PoolName = str
else:
    PoolName = Literal[tuple(POOLS)]


def check_pool(name: str) -> None:
    """Raise `ModelError` for an unknown name."""
    if name not in tuple(POOLS):  # which takes values of any type
        *others, last = (f"'{known}'" for known in POOLS)
        raise ModelError(f"pool must be {', '.join(others)} or {last}, got '{name}'.")


class AttentionPool(nn.Module):
    """The mean of all tokens, weighted by the softmax of their products with a learned query `(d,)`, over √d.

    The query starts at 0, where this is the plain mean. Of a stack it is `(m, d)`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Float[Tensor, "*m b n d"]) -> Float[Tensor, "*m b d"]:
        """Return the weighted mean."""
        query = self.query[..., None, None, :] * self.query.shape[-1] ** -0.5
        shares = (tokens * query).sum(dim=-1, keepdim=True).softmax(dim=-2)
        return (tokens * shares).sum(dim=-2)
