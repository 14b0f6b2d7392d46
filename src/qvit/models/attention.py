"""Multi-head self-attention whose projections are a value handed in."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# `NarrowAttention` takes, of the time of torch's kernel, forward and backward on one CPU thread with 64 images, 49
# tokens and two heads: 0.53 at width 4, 0.61 at 8, but 0.94 at 12 and 1.13 at 16. With few scores (4,802: 1.6)
# its more calls show; with many (4.9 million: 0.67) it still leads, but takes memory that torch's does not.
NARROW = 8
SCORES = range(2**14, 2**23)
LARGEST_SCORE = 40.0  # e⁸⁰ is still far from the ends of float32


class Attention(nn.Module):
    """softmax(QKᵀ/√k)·V over all tokens in each head, then a dense output projection (Vaswani et al. 2017).

    `project` maps `(b, n, d)` to queries, keys `(b, h, n, k)` and values `(b, h, n, q)`; see `models.projections`.
    """

    def __init__(self, project: nn.Module, dim: int) -> None:
        super().__init__()
        self.project = project
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return what every token gathers from all tokens."""
        queries, keys, values = self.project(tokens)
        return self.out(rearrange(attend(queries, keys, values), "b h n q -> b n (h q)"))


def attend(
    queries: Float[Tensor, "b h n k"], keys: Float[Tensor, "b h n k"], values: Float[Tensor, "b h n q"]
) -> Float[Tensor, "b h n q"]:
    """Return softmax(QKᵀ/√k)·V, by the kernel that is fastest for these tensors."""
    if _is_narrow(queries, values):
        across = queries.mT.contiguous(), keys.mT.contiguous(), values.mT.contiguous()
        if _is_tame(across[0], across[1]):
            return NarrowAttention.apply(*across).mT  # type: ignore[no-untyped-call]
    return F.scaled_dot_product_attention(queries, keys, values)


def _is_narrow(queries: Tensor, values: Tensor) -> bool:
    # `_is_tame` looks at values, which neither torch.compile, torch.export nor torch.func can trace.
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    b, h, n, k = queries.shape
    return (
        values.device.type == "cpu"
        and values.dtype in (torch.float32, torch.float64)
        and max(k, values.shape[3]) <= NARROW
        and b * h * n * n in SCORES
        and not torch.is_autocast_enabled("cpu")
    )


def _is_tame(queries: Float[Tensor, "b h k n"], keys: Float[Tensor, "b h k n"]) -> bool:
    """Return whether no score of these queries and keys can be large; NaN is not tame."""
    largest = queries.detach().abs().amax() * keys.detach().abs().amax()
    return largest.item() * math.sqrt(queries.shape[2]) < LARGEST_SCORE


class NarrowAttention(torch.autograd.Function):
    """Attention for heads a few features wide, where time goes into passes over the n × n scores.

    Scores are kept transposed: a column is one query's scores of all keys, so that sums and products run along
    memory. Powers of 2 replace those of e (four times as fast in torch on CPUs), and what is normalised is the
    q × n result, not the n × n weights. No maximum is subtracted first, so scores must not exceed `LARGEST_SCORE`.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Float[Tensor, "b h k n"], keys: Float[Tensor, "b h k n"], values: Float[Tensor, "b h q n"]
    ) -> Float[Tensor, "b h q n"]:
        """Return softmax(QKᵀ/√k)·V, all tensors with tokens last."""
        shape = values.shape
        queries, keys, values = queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
        weights = torch.bmm((keys * (math.log2(math.e) / math.sqrt(keys.shape[1]))).mT, queries).exp2_()
        norm = weights.sum(1, keepdim=True).reciprocal_()
        gathered = torch.bmm(values, weights).mul_(norm)
        ctx.save_for_backward(queries, keys, values, weights, norm, gathered)
        return gathered.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "b h q n"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of queries, keys and values."""
        queries, keys, values, weights, norm, gathered = ctx.saved_tensors
        heads, scale = gradient.shape[:2], 1.0 / math.sqrt(keys.shape[1])
        gradient = gradient.flatten(0, 1) * norm
        # Through the softmax: p·(∂p − Σ p·∂p), where the sum over keys is that of gradient · result over features.
        mean = (gradient * gathered).sum(1, keepdim=True)
        scores = torch.bmm(values.mT, gradient).sub_(mean).mul_(weights)
        to_queries = torch.bmm(keys, scores).mul_(scale).unflatten(0, heads)
        to_keys = torch.bmm(queries, scores.mT).mul_(scale).unflatten(0, heads)
        return to_queries, to_keys, torch.bmm(gradient, weights.mT).unflatten(0, heads)
