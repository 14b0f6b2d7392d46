"""The second half of a transformer block, all that follows its projections, as one operation on the CPU.

For one model or, with an axis `m` before all others, a stack of models that each have their own images and weights.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qvit.models.block_call import Call, Plan, adjoining, planned
from qvit.torch_private import unwatched

Optional = tuple[Tensor | None, ...]


class MixWeights(NamedTuple):
    """Weights of a block after its projections: a dense layer for attention, norm, and two dense layers of the MLP.

    `scale`, more than 0, multiplies the scores of attention.
    """

    out_weight: Float[Tensor, "*m d c"]
    out_bias: Float[Tensor, "*m d"]
    norm_weight: Float[Tensor, "*m d"]
    norm_bias: Float[Tensor, "*m d"]
    up_weight: Float[Tensor, "*m f d"]
    up_bias: Float[Tensor, "*m f"]
    down_weight: Float[Tensor, "*m d f"]
    down_bias: Float[Tensor, "*m d"]
    eps: float = 1e-5
    scale: float = 1.0


def mix(
    tokens: Float[Tensor, "*m b n d"],
    queries: Float[Tensor, "*m b h n k"],
    keys: Float[Tensor, "*m b h n k"],
    values: Float[Tensor, "*m b h n q"],
    weights: MixWeights,
) -> Float[Tensor, "*m b n d"]:
    """Return t + MLP(norm(t)), where t is the tokens plus a dense layer of the attention of all heads.

    Where a compiled kernel may run (`may_mix`), it wants tokens next to each other in memory, and the result is so,
    too: that of a tensor `(*m, b, d, n)`. Otherwise it is `spelt_out`.
    """
    if may_mix(tokens, queries, keys, values, weights):
        return mix_by_kernel(tokens, queries, keys, values, weights)
    return spelt_out(tokens, queries, keys, values, weights)


def mix_by_kernel(tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: MixWeights) -> Tensor:
    """Return the same as `mix` for tensors of which `may_mix` has said that the kernel may run; others crash it."""
    given = (tokens, queries, keys, values, *weights[:8])
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return _Mix.apply(*given, *weights[8:])  # type: ignore[no-untyped-call]
    return _call(given, weights[8:]).forward(keep=False)[0]


def may_mix(tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: MixWeights) -> bool:
    """Return whether the kernel may run: plain tensors of float32 on the CPU that fit together, of sizes that suit it.

    Layers may have been replaced by others that do not fit, or have no bias.
    """
    given = (tokens, queries, keys, values, *weights[:8])
    return (
        all(tensor is not None for tensor in given)
        and unwatched(*given)
        and all(tensor.dtype == torch.float32 for tensor in given)
        and not torch.is_autocast_enabled("cpu")
        and min(weights[8:]) > 0.0
        and _fit(tokens, queries, keys, values, weights)
        and _plan(tokens, queries, values, weights.up_bias, weights.scale) is not None
    )


def _fit(tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: MixWeights) -> bool:
    *m, b, n, d = tokens.shape
    h, q, f = values.shape[-3], values.shape[-1], weights.up_bias.shape[-1]
    shapes = (d, h * q), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,)
    return (
        queries.shape == keys.shape
        and queries.shape[:-1] == values.shape[:-1] == (*m, b, h, n)
        and all(weight.shape == (*m, *shape) for weight, shape in zip(weights[:8], shapes, strict=True))
    )


def spelt_out(tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: MixWeights) -> Tensor:
    """Return the same as `mix` by operations that torch can transform and differentiate to any order."""
    shares = (queries @ keys.mT * (weights.scale / math.sqrt(queries.shape[-1]))).softmax(dim=-1)
    tokens = tokens + _dense((shares @ values).transpose(-3, -2).flatten(-2), weights.out_weight, weights.out_bias)
    moved = tokens - tokens.mean(dim=-1, keepdim=True)
    normal = moved * (moved.square().mean(dim=-1, keepdim=True) + weights.eps).rsqrt()
    normal = normal * weights.norm_weight[..., None, None, :] + weights.norm_bias[..., None, None, :]
    hidden = F.gelu(_dense(normal, weights.up_weight, weights.up_bias))
    return tokens + _dense(hidden, weights.down_weight, weights.down_bias)


def _dense(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return features @ weight.mT[..., None, :, :] + bias[..., None, None, :]


def _plan(tokens: Tensor, queries: Tensor, values: Tensor, up_bias: Tensor, scale: float) -> Plan | None:
    return planned(tokens.shape, queries.shape, values.shape, up_bias.shape[-1], scale)


def _call(tensors: Sequence[Tensor], numbers: Sequence[float]) -> Call:
    eps, scale = numbers
    plan = _plan(tensors[0], tensors[1], tensors[3], tensors[9], scale)
    assert plan is not None
    return Call(plan, [adjoining(tensor) for tensor in tensors[:4]], tensors[4:12], eps)


class _Mix(torch.autograd.Function):
    """The kernel as an operation that can be differentiated; twice by way of torch's operations."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Return the result for tokens, queries, keys, values, eight weights, ε and the scale."""
        tensors, ctx.numbers = arguments[:-2], arguments[-2:]
        out, kept = _call(tensors, ctx.numbers).forward(keep=True)
        ctx.save_for_backward(*tensors, kept)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Optional:
        """Return the gradients of all but ε and the scale."""
        *tensors, kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:12]
        if torch.is_grad_enabled() or not unwatched(gradient):  # a second derivative is wanted, or many at once
            return *_by_autograd(tensors, ctx.numbers, gradient, wanted), None, None
        through_attention, through_weights = any(wanted[1:4]), any(wanted[4:])
        to_tensors, to_weights = _call(tensors, ctx.numbers).backward(
            kept, adjoining(gradient), through_attention=through_attention, through_weights=through_weights
        )
        none: list[Tensor | None] = [None] * 8
        found = [*to_tensors, *none[: 4 - len(to_tensors)], *(to_weights or none)]
        return *(slope if want else None for slope, want in zip(found, wanted, strict=True)), None, None


def _by_autograd(
    tensors: list[Tensor], numbers: Sequence[float], gradient: Tensor, wanted: tuple[bool, ...]
) -> Optional:
    """Return gradients that can be differentiated again, if any is to be, or that stand for many."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        if not again:
            tensors = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
        weights: Any = (*tensors[4:], *numbers)
        out = spelt_out(tensors[0], tensors[1], tensors[2], tensors[3], MixWeights(*weights))
        leaves = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want]
        slopes = iter(torch.autograd.grad(out, leaves, gradient, create_graph=again))
    return tuple(next(slopes) if want else None for want in wanted)
