"""Multi-head self-attention with the projections that it is given."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from qvit.cpu.parts import VECTOR_BYTES, in_parts
from qvit.models.reverse import differentiable, replacing
from qvit.models.triples import QueriesKeysValues
from qvit.torch_private import plain, saved_elsewhere, transformed, unwatched

# `NarrowAttention` is used for heads up to this wide, from this many scores on: with fewer its call costs too much.
NARROW = 8
FEWEST_SCORES = 2**14
LARGEST = 2**11  # tokens: beyond, the scores of a block of queries leave the cache
LOG2_E = math.log2(math.e)
Gradients = tuple[Tensor, Tensor, Tensor]


class Attention(nn.Module):
    """softmax(QKᵀ/√k)·V over all tokens in each head, then a dense output projection (Vaswani et al. 2017).

    `project` maps `(*m, b, n, d)` to queries, keys `(*m, b, h, n, k)` and values `(*m, b, h, n, q)`; see
    `models.projections`. There are `values` h·q, d if None. Scores are multiplied by `scale`, where softmax is flat
    if queries and keys are short; with a number of `learned` heads each begins there and learns its own, `(h,)`.
    """

    def __init__(
        self,
        project: nn.Module,
        dim: int,
        *,
        values: int | None = None,
        scale: float = 1.0,
        learned: int | None = None,
    ) -> None:
        super().__init__()
        self.project = project
        self.out = nn.Linear(dim if values is None else values, dim)
        self.scale = scale if learned is None else 1.0
        self.scales = None if learned is None else nn.Parameter(torch.full((learned,), float(scale)))

    def forward(self, tokens: Float[Tensor, "*m b n d"]) -> Float[Tensor, "*m b n d"]:
        """Return what every token gathers from all tokens."""
        return self.gather(*self.prepared(tokens))

    def prepared(self, tokens: Float[Tensor, "*m b n d"], *, scaled: bool = True) -> QueriesKeysValues:
        """Return queries, keys and values; a learned scale of scores is part of the queries, another if `scaled`."""
        queries, keys, values = self.project(tokens)
        if self.scales is not None:
            queries = queries * self.scales[..., None, :, None, None]
        elif scaled and self.scale != 1.0:
            queries = queries * self.scale
        return queries, keys, values

    def gather(
        self,
        queries: Float[Tensor, "*m b h n k"],
        keys: Float[Tensor, "*m b h n k"],
        values: Float[Tensor, "*m b h n q"],
    ) -> Float[Tensor, "*m b n d"]:
        """Return what every token gathers from all tokens, from what they were projected to."""
        return self.out(rearrange(attend(queries, keys, values), "... h n q -> ... n (h q)"))

    def weights(self, tokens: Float[Tensor, "*m b n d"]) -> Float[Tensor, "*m b h n n"]:
        """Return how much each token (third axis) gathers from every token (last axis); rows sum to 1."""
        queries, keys, _ = self.prepared(tokens)
        return (queries @ keys.mT / math.sqrt(queries.shape[-1])).softmax(dim=-1)


def attend(
    queries: Float[Tensor, "*m b h n k"], keys: Float[Tensor, "*m b h n k"], values: Float[Tensor, "*m b h n q"]
) -> Float[Tensor, "*m b h n q"]:
    """Return softmax(QKᵀ/√k)·V, by the kernel that is fastest for these tensors; those of a stack are more images.

    It has derivatives of every order, backward and forward. But torch refuses second derivatives under torch.compile,
    and those of its fused kernels (for wide heads and other devices) under activation checkpointing.
    """
    if torch.compiler.is_compiling():  # sizes may be symbols
        return F.scaled_dot_product_attention(queries, keys, values)
    queries, keys, values = plain(queries), plain(keys), plain(values)
    many = _are_many_scores(queries)  # of one model: which kernel it takes may not depend on the others of a stack
    if values.ndim > 4:
        flat = (tensor.flatten(0, 1) for tensor in (queries, keys, values))
        return _attend(*flat, many=many).unflatten(0, values.shape[:2])
    return _attend(queries, keys, values, many=many)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, *, many: bool) -> Tensor:
    elsewhere = saved_elsewhere()
    if transformed() or (elsewhere and not many):
        return _spelt_out(queries, keys, values)
    if many and _is_narrow(queries, values) and unwatched(queries, keys, values):
        across = queries.mT.contiguous(), keys.mT.contiguous(), values.mT.contiguous()
        return NarrowAttention.apply(*across).mT  # type: ignore[no-untyped-call]
    found = F.scaled_dot_product_attention(queries, keys, values)
    if "ScaledDotProduct" not in type(found.grad_fn).__name__ or elsewhere:
        return found
    return differentiable(found, _FUSED)


def _is_narrow(queries: Tensor, values: Tensor) -> bool:
    n, k = queries.shape[2:]
    return (
        values.dtype in (torch.float32, torch.float64)
        and max(k, values.shape[3]) <= NARROW
        and n <= LARGEST
        and not torch.is_autocast_enabled("cpu")
    )


def _are_many_scores(queries: Tensor) -> bool:
    b, h, n, _ = queries.shape[-4:]
    return b * h * n * n >= FEWEST_SCORES


def _spelt_out(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return attention by operations that torch can transform and differentiate to any order."""
    return (queries @ keys.mT / math.sqrt(queries.shape[-1])).softmax(dim=-1) @ values


def _slopes(queries: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> Gradients:
    """Return the gradients of queries, keys and values by operations that can be differentiated and batched."""
    scale = 1.0 / math.sqrt(queries.shape[-1])
    weights = (queries @ keys.mT * scale).softmax(dim=-1)
    to_weights = gradient @ values.mT
    to_scores = weights * (to_weights - (weights * to_weights).sum(dim=-1, keepdim=True)) * scale
    return to_scores @ keys, to_scores.mT @ queries, weights.mT @ gradient


def _of_fused(node: Any, _found: Any, gradient: Tensor) -> Gradients:
    """Return the gradients of a fused kernel of torch's from what it has saved."""
    return _slopes(node._saved_query, node._saved_key, node._saved_value, gradient)


_FUSED = replacing(_of_fused)


class NarrowAttention(torch.autograd.Function):
    """Attention for heads a few features wide on the CPU, by a compiled kernel whose scores never leave the cache."""

    @staticmethod
    def forward(
        ctx: Any, queries: Float[Tensor, "b h k n"], keys: Float[Tensor, "b h k n"], values: Float[Tensor, "b h q n"]
    ) -> Float[Tensor, "b h q n"]:
        """Return softmax(QKᵀ/√k)·V, all tensors with tokens last."""
        from qvit.models import attention_kernel

        work = _Work(queries.shape, values.shape, queries.element_size())
        tensors = [tensor.detach().flatten(0, 1) for tensor in (queries, keys, values)]
        out = values.new_empty(values.shape)
        most, inverse = (values.new_empty(work.heads, work.stride) for _ in range(2))
        arrays, results = _arrays(*tensors), _arrays(out.flatten(0, 1), most, inverse)

        def run(first: int, last: int) -> None:
            attention_kernel.forward(*arrays, work.room(values), *results, work.scale(LOG2_E, out), first, last)

        in_parts(run, work.heads, work.updates)
        ctx.save_for_backward(queries, keys, values, out, most, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "b h q n"]) -> Gradients:
        """Return the gradients of queries, keys and values."""
        from qvit.models import attention_kernel

        *saved, most, inverse = ctx.saved_tensors
        queries, keys, values, _ = saved
        if torch.is_grad_enabled() or not unwatched(gradient):  # a second derivative is wanted, or many at once
            to_queries, to_keys, to_values = _slopes(queries.mT, keys.mT, values.mT, gradient.mT)
            return to_queries.mT, to_keys.mT, to_values.mT
        work = _Work(queries.shape, values.shape, queries.element_size())
        arrays = _arrays(*(tensor.detach().flatten(0, 1) for tensor in saved[:3]))
        given = _arrays(saved[3].flatten(0, 1), gradient.flatten(0, 1).contiguous(), most, inverse)
        found = [tensor.new_empty(tensor.shape) for tensor in saved[:3]]
        results = _arrays(*(tensor.flatten(0, 1) for tensor in found))
        scales = work.scale(LOG2_E, values), work.scale(1.0, values)

        def run(first: int, last: int) -> None:
            attention_kernel.backward(*arrays, work.room(values), *given, *results, *scales, first, last)

        in_parts(run, work.heads, 3 * work.updates)
        return found[0], found[1], found[2]


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in tensors]


class _Work:
    """Sizes of a call of the kernel, from `(b, h, k, n)` of the queries and `(b, h, q, n)` of the values."""

    def __init__(self, queries: torch.Size, values: torch.Size, itemsize: int) -> None:
        lanes = VECTOR_BYTES // itemsize
        self.heads, self.width, self.n = queries[0] * queries[1], queries[2], queries[3]
        self.stride = -(-self.n // lanes) * lanes
        self.rows = -(-max(self.width, values[2]) // 4) * 4
        self.updates = float(self.heads * self.n * self.stride)

    def scale(self, unit: float, like: Tensor) -> Any:
        """Return unit/√k as a number of the tensors' type."""
        return like.new_tensor(unit / math.sqrt(self.width)).numpy()[()]

    def room(self, like: Tensor) -> tuple[np.ndarray, ...]:
        """Return scratch for one head: rows of numbers, and of scores."""
        sizes = [self.rows] * 4 + [self.n, self.rows, self.n]
        return tuple(like.new_empty(size * self.stride).numpy() for size in sizes)
