"""The second half of a transformer block, all that follows its projections, as one operation on the CPU.

For one model or, with an axis `m` before all others, a stack of models that each have their own images and weights.
"""

import itertools
import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qvit.cpu.parts import in_parts
from qvit.torch_private import unwatched

MOST_WIDE = 8  # features of a head
MOST_FEATURES = 64  # d, f, and all heads together
MOST_TOKENS = 2**11
MOST_SCRATCH = 2**20  # bytes of a thread: beyond, it leaves the cache
FEWEST_SCORES = 2**12  # with fewer, torch's operations take as long
_LANES = 16
_IMAGES = 8  # in a part, as the kernel has it
_LOG2_E = math.log2(math.e)
Optional = tuple[Tensor | None, ...]


class MixWeights(NamedTuple):
    """Weights of a block after its projections: a dense layer for attention, norm, and two dense layers of the MLP."""

    out_weight: Float[Tensor, "*m d c"]
    out_bias: Float[Tensor, "*m d"]
    norm_weight: Float[Tensor, "*m d"]
    norm_bias: Float[Tensor, "*m d"]
    up_weight: Float[Tensor, "*m f d"]
    up_bias: Float[Tensor, "*m f"]
    down_weight: Float[Tensor, "*m d f"]
    down_bias: Float[Tensor, "*m d"]
    eps: float = 1e-5


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
    if may_mix(tokens, queries, values, weights) and unwatched(keys):
        return _Mix.apply(tokens, queries, keys, values, *weights)  # type: ignore[no-untyped-call]
    return spelt_out(tokens, queries, keys, values, weights)


def may_mix(tokens: Tensor, queries: Tensor, values: Tensor, weights: MixWeights) -> bool:
    """Return whether the kernel may run: plain tensors of float32 on the CPU, of sizes that suit it."""
    given = (tokens, queries, values, *weights[:8])
    return (
        all(tensor.dtype == torch.float32 for tensor in given)
        and unwatched(*given)
        and not torch.is_autocast_enabled("cpu")
        and weights.eps > 0.0
        and _Sizes.of(tokens, queries, values, weights.up_bias).suit()
    )


def spelt_out(tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: MixWeights) -> Tensor:
    """Return the same as `mix` by operations that torch can transform and differentiate to any order."""
    shares = (queries @ keys.mT / math.sqrt(queries.shape[-1])).softmax(dim=-1)
    tokens = tokens + _dense((shares @ values).transpose(-3, -2).flatten(-2), weights.out_weight, weights.out_bias)
    moved = tokens - tokens.mean(dim=-1, keepdim=True)
    normal = moved * (moved.square().mean(dim=-1, keepdim=True) + weights.eps).rsqrt()
    normal = normal * weights.norm_weight[..., None, None, :] + weights.norm_bias[..., None, None, :]
    hidden = F.gelu(_dense(normal, weights.up_weight, weights.up_bias))
    return tokens + _dense(hidden, weights.down_weight, weights.down_bias)


def _dense(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return features @ weight.mT[..., None, :, :] + bias[..., None, None, :]


class _Sizes(NamedTuple):
    """Of models, images of each, tokens, d, f, heads, and the widths of queries and values."""

    m: int
    b: int
    n: int
    d: int
    f: int
    h: int
    k: int
    q: int

    @classmethod
    def of(cls, tokens: Tensor, queries: Tensor, values: Tensor, up_bias: Tensor) -> "_Sizes":
        *m, b, n, d = tokens.shape
        h, _, k = queries.shape[-3:]
        return cls(m[0] if m else 1, b, n, d, up_bias.shape[-1], h, k, values.shape[-1])

    @property
    def w(self) -> int:
        """The rows of a head in the kernel."""
        return 4 if max(self.k, self.q) <= 4 else 8

    @property
    def blocks(self) -> int:
        return -(-self.n // _LANES)

    @property
    def kept(self) -> int:
        """The numbers that are kept of an image."""
        return self.blocks * self.h * (self.w + 1) * _LANES

    def room(self) -> tuple[int, ...]:
        """Return the sizes of scratch arrays: weights, rows, records, keys and values twice, tail, their gradients, sums."""
        d, f, c = -(-self.d // 4) * 4, -(-self.f // 4) * 4, self.h * self.w
        weights = 64 + 2 * (c * d + d * f + d * f) + 3 * max(d, f)
        rows = 4 * (4 * d + 3 * f)
        records = self.h * self.blocks * (3 * self.w + 2)
        numbers = 2 * self.w * self.blocks
        vectors = (rows, records, numbers, numbers, 3 + 2 * self.w, numbers, self.sums)
        return -(-weights // _LANES) * _LANES, *(_LANES * rows for rows in vectors)

    @property
    def sums(self) -> int:
        """The numbers summed over tokens for the gradients of weights, as many as the kernel lays out."""
        d, f, c = -(-self.d // 4) * 4, -(-self.f // 4) * 4, self.h * self.w
        return -(-(self.d * (c + 1) + self.f * (d + 1) + self.d * (f + 1)) // _LANES) * _LANES

    def suit(self) -> bool:
        return (
            min(self) > 0
            and max(self.k, self.q) <= MOST_WIDE
            and max(self.d, self.f, self.h * self.w) <= MOST_FEATURES
            and self.n <= MOST_TOKENS
            and self.m * self.b * self.h * self.n**2 >= FEWEST_SCORES
            and 4 * sum(self.room()) <= MOST_SCRATCH
        )


class _Mix(torch.autograd.Function):
    """The kernel as an operation that can be differentiated; twice by way of torch's operations."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, eps = arguments
        call = _Call([_adjoining(tensor) for tensor in tensors[:4]], tensors[4:], eps)
        out, kept = call.forward(keep=True)
        ctx.save_for_backward(*tensors, kept)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:12]
        if torch.is_grad_enabled() or not unwatched(gradient):  # a second derivative is wanted, or many at once
            return *_by_autograd(tensors, ctx.eps, gradient, wanted), None
        call = _Call([_adjoining(tensor) for tensor in tensors[:4]], tensors[4:], ctx.eps)
        through_attention, through_weights = any(wanted[1:4]), any(wanted[4:])
        to_tensors, to_weights = call.backward(
            kept, _adjoining(gradient), through_attention=through_attention, through_weights=through_weights
        )
        found = [*(to_tensors if through_attention else [*to_tensors, None, None, None])]
        found += to_weights if through_weights else [None] * 8
        return *(slope if want else None for slope, want in zip(found, wanted, strict=True)), None


def _by_autograd(tensors: list[Tensor], eps: float, gradient: Tensor, wanted: tuple[bool, ...]) -> Optional:
    """Return gradients that can be differentiated again, if any is to be, or that stand for many."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        if not again:
            tensors = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
        out = spelt_out(*tensors[:4], MixWeights(*tensors[4:], eps))
        leaves = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want]
        slopes = iter(torch.autograd.grad(out, leaves, gradient, create_graph=again))
    return tuple(next(slopes) if want else None for want in wanted)


class _Call:
    """One call of the kernel on tensors whose tokens are next to each other in memory."""

    def __init__(self, tensors: list[Tensor], weights: tuple[Tensor, ...], eps: float) -> None:
        self.sizes = _Sizes.of(tensors[0], tensors[1], tensors[3], weights[5])
        self.tensors = tensors
        self.steps = _of_tokens(tensors[0]), *(_of_heads(tensor) for tensor in tensors[1:])
        self.inputs = tuple(_flat(tensor) for tensor in tensors)
        self.weights = tuple(_flat(weight.contiguous()) for weight in weights)
        self.shapes = [weight.shape for weight in weights]
        self.shape = (0,) * self.sizes.w
        self.parts, self.numbers, self.work = _prepared(self.sizes)
        self.eps = np.float32(eps)
        self.scale, self.plain = (np.float32(unit / math.sqrt(self.sizes.k)) for unit in (_LOG2_E, 1.0))

    def forward(self, *, keep: bool) -> tuple[Tensor, Tensor]:
        """Return the result, and what the backward pass needs if it is to `keep` it."""
        from qvit.models import block_kernel

        sizes, tokens = self.sizes, self.tensors[0]
        out = _tokens_last(tokens.shape)
        kept = tokens.new_empty(sizes.m * sizes.b * sizes.kept if keep else 0)
        flat, whole, step = _flat(out), kept.numpy(), sizes.kept // _LANES if keep else 0
        given = self.shape, self.numbers, _strides(*self.steps, _of_tokens(out)), self.scale, self.eps

        def run(first: int, last: int) -> None:
            target = whole if keep else np.empty(sizes.kept, np.float32)
            room = _room(sizes)
            block_kernel.forward(
                *given, self.inputs, self.weights, flat, target, step, room, self.parts, first, last
            )

        in_parts(run, sizes.m * self.parts, self.work)
        return out, kept

    def backward(
        self, kept: Tensor, gradient: Tensor, *, through_attention: bool, through_weights: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients of tokens, queries, keys and values, and those of the weights.

        Without `through_attention` only that of the tokens, without `through_weights` none of the weights.
        """
        from qvit.models import block_kernel

        sizes = self.sizes
        found = [_tokens_last(self.tensors[0].shape)]
        if through_attention:
            found += [_like(tensor) for tensor in self.tensors[1:]]
        steps = _of_tokens(gradient), _of_tokens(found[0]), *(_of_heads(tensor) for tensor in found[1:])
        partial = kept.new_empty(sizes.m, self.parts, sizes.sums if through_weights else 0)
        given = self.shape, self.numbers, _strides(*self.steps, self.steps[0], *steps), self.scale, self.plain, self.eps, self.inputs, self.weights
        arrays = _flat(gradient), kept.numpy(), tuple(_flat(tensor) for tensor in (found * 4)[:4]), partial.view(-1).numpy()
        through = through_attention, through_weights

        def run(first: int, last: int) -> None:
            block_kernel.backward(*given, *arrays, *through, _room(sizes), self.parts, first, last)

        in_parts(run, sizes.m * self.parts, 3 * self.work)
        return found, self._of_weights(partial) if through_weights else []

    def _of_weights(self, partial: Tensor) -> list[Tensor]:
        from qvit.models import block_kernel

        sums = partial.sum(dim=1, dtype=torch.float64).numpy()
        found = tuple(np.empty_like(weight) for weight in self.weights)
        block_kernel.finish(self.numbers, self.sizes.w, self.weights, sums, found, self.sizes.m)
        return [torch.from_numpy(array).view(shape) for array, shape in zip(found, self.shapes, strict=True)]


def _room(sizes: _Sizes) -> tuple[np.ndarray, ...]:
    """Return scratch for one thread."""
    stops = [0, *itertools.accumulate(sizes.room())]
    whole = torch.empty(stops[-1], dtype=torch.float32).numpy()
    return tuple(whole[start:stop] for start, stop in itertools.pairwise(stops))


@lru_cache(maxsize=256)
def _prepared(sizes: _Sizes) -> tuple[int, np.ndarray, float]:
    """Return the parts of each model, sizes as an array, and the work as `in_parts` counts it."""
    work = sizes.m * sizes.b * sizes.blocks * _LANES * (sizes.h * sizes.n + sizes.d + sizes.f)
    numbers = np.array([sizes.b, sizes.n, sizes.d, sizes.f, sizes.h, sizes.k, sizes.q])
    return -(-sizes.b // _IMAGES), numbers, float(work)


Steps = tuple[int, ...]


@lru_cache(maxsize=256)
def _strides(*steps: Steps) -> np.ndarray:
    return np.array(steps)


def _of_tokens(tensor: Tensor) -> Steps:
    """Return how far models, images, heads and rows of tokens are apart in memory, 0 where there is no such axis."""
    *m, b, _, d = tensor.stride()
    return (m[0] if m else 0), b, 0, d


def _of_heads(tensor: Tensor) -> Steps:
    """Return the same of queries, keys or values."""
    *m, b, h, _, k = tensor.stride()
    return (m[0] if m else 0), b, h, k


def _tokens_last(shape: torch.Size) -> Tensor:
    """Return an empty tensor `(*m, b, n, d)` whose tokens come last in memory."""
    *_, n, d = shape
    steps = [d * n, 1, n] if len(shape) == 3 else [shape[1] * d * n, d * n, 1, n]
    return torch.empty_strided(shape, steps, dtype=torch.float32)


@lru_cache(maxsize=256)
def _order(shape: torch.Size, strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return strides without gaps in the order of others, with tokens last."""
    tokens = len(shape) - 2
    order = sorted((axis for axis in range(len(shape)) if axis != tokens), key=lambda axis: -strides[axis])
    found, step = [0] * len(shape), 1
    for axis in (tokens, *reversed(order)):
        found[axis], step = step, step * shape[axis]
    return tuple(found)


def _like(tensor: Tensor) -> Tensor:
    """Return an empty tensor of the same shape, its axes in the same order in memory but for tokens, which come last."""
    return torch.empty_strided(tensor.shape, _order(tensor.shape, tensor.stride()), dtype=tensor.dtype)


def _adjoining(tensor: Tensor) -> Tensor:
    """Return a tensor with its tokens, the last axis but one, next to each other in memory."""
    return tensor if tensor.stride(-2) == 1 else tensor.mT.contiguous().mT


def _flat(tensor: Tensor) -> np.ndarray:
    """Return the memory of a tensor from its first number to its last."""
    end = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.detach().as_strided((end,), (1,)).numpy()
