"""One call of `block_kernel`: the sizes it suits, where its numbers lie in memory, its parts and scratch."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qvit.cpu.parts import in_parts

MOST_WIDE = 8  # features of a head
MOST_FEATURES = 64  # d, f, and all heads together
MOST_TOKENS = 2**11
MOST_SCRATCH = 2**20  # bytes of a thread: beyond, it leaves the cache
_LANES = 16
_IMAGES = 8  # in a part, as the kernel has it
_LOG2_E = math.log2(math.e)
Steps = tuple[int, ...]


class Sizes(NamedTuple):
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
    def of(cls, tokens: Tensor, queries: Tensor, values: Tensor, up_bias: Tensor) -> "Sizes":
        """Return the sizes of a call."""
        *m, b, n, d = tokens.shape
        h, _, k = queries.shape[-3:]
        return cls(m[0] if m else 1, b, n, d, up_bias.shape[-1], h, k, values.shape[-1])

    @property
    def w(self) -> int:
        """The rows of a head in the kernel."""
        return 4 if max(self.k, self.q) <= 4 else 8

    @property
    def blocks(self) -> int:
        """The vectors in a row of tokens."""
        return -(-self.n // _LANES)

    @property
    def kept(self) -> int:
        """The numbers that are kept of an image."""
        return self.blocks * self.h * (self.w + 1) * _LANES

    def room(self) -> tuple[int, ...]:
        """Return the sizes of scratch arrays, as the kernel unpacks them."""
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
        """Return whether the kernel suits these sizes."""
        return (
            min(self) > 0
            and max(self.k, self.q) <= MOST_WIDE
            and max(self.d, self.f, self.h * self.w) <= MOST_FEATURES
            and self.n <= MOST_TOKENS
            and 4 * sum(self.room()) <= MOST_SCRATCH
        )


class Call:
    """One call of the kernel on tensors whose tokens are next to each other in memory."""

    def __init__(self, tensors: list[Tensor], weights: Sequence[Tensor], eps: float) -> None:
        self.sizes = Sizes.of(tensors[0], tensors[1], tensors[3], weights[5])
        self.tensors = tensors
        self.steps = _of_tokens(tensors[0]), *(_of_heads(tensor) for tensor in tensors[1:])
        self.inputs = tuple(_flat(tensor) for tensor in tensors)
        self.weights = tuple(_flat(weight.contiguous()) for weight in weights)
        self.shapes = [weight.shape for weight in weights]
        self.shape = (0,) * self.sizes.w
        self.parts, self.numbers, self.work = _prepared(self.sizes)
        self.eps = np.float32(eps)
        self.scales = tuple(np.float32(unit / math.sqrt(self.sizes.k)) for unit in (_LOG2_E, 1.0))

    def forward(self, *, keep: bool) -> tuple[Tensor, Tensor]:
        """Return the result, and what the backward pass needs if it is to `keep` it."""
        from qvit.models import block_kernel

        sizes, tokens = self.sizes, self.tensors[0]
        out = _tokens_last(tokens.shape)
        kept = tokens.new_empty(sizes.m * sizes.b * sizes.kept if keep else 0)
        flat, whole, step = _flat(out), kept.numpy(), sizes.kept // _LANES if keep else 0
        given = self.shape, self.numbers, _strides(*self.steps, _of_tokens(out)), self.scales[0], self.eps

        def run(first: int, last: int) -> None:
            target = whole if keep else np.empty(sizes.kept, np.float32)
            room = _room(sizes)
            block_kernel.forward(*given, self.inputs, self.weights, flat, target, step, room, self.parts, first, last)

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
        strides = _strides(*self.steps, self.steps[0], *steps)
        partial = kept.new_empty(sizes.m, self.parts, sizes.sums if through_weights else 0)
        given = self.shape, self.numbers, strides, self.scales, self.eps, self.inputs, self.weights
        outputs = tuple(_flat(tensor) for tensor in (found * 4)[:4])
        arrays = _flat(gradient), kept.numpy(), outputs, partial.view(-1).numpy()
        through = through_attention, through_weights

        def run(first: int, last: int) -> None:
            block_kernel.backward(*given, *arrays, through, _room(sizes), self.parts, first, last)

        in_parts(run, sizes.m * self.parts, 3 * self.work)
        return found, self._of_weights(partial) if through_weights else []

    def _of_weights(self, partial: Tensor) -> list[Tensor]:
        from qvit.models import block_kernel

        sums = partial.sum(dim=1, dtype=torch.float64).numpy()
        found = tuple(np.empty_like(weight) for weight in self.weights)
        block_kernel.finish(self.numbers, self.sizes.w, self.weights, sums, found, self.sizes.m)
        return [torch.from_numpy(array).view(shape) for array, shape in zip(found, self.shapes, strict=True)]


def _room(sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Return scratch for one thread."""
    stops = [0, *itertools.accumulate(sizes.room())]
    whole = torch.empty(stops[-1], dtype=torch.float32).numpy()
    return tuple(whole[start:stop] for start, stop in itertools.pairwise(stops))


@lru_cache(maxsize=256)
def _prepared(sizes: Sizes) -> tuple[int, np.ndarray, float]:
    """Return the parts of each model, sizes as an array, and the work as `in_parts` counts it."""
    work = sizes.m * sizes.b * sizes.blocks * _LANES * (sizes.h * sizes.n + sizes.d + sizes.f)
    numbers = np.array([sizes.b, sizes.n, sizes.d, sizes.f, sizes.h, sizes.k, sizes.q])
    return -(-sizes.b // _IMAGES), numbers, float(work)


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
    """Return an empty tensor of the same shape, its axes in the same order in memory, but tokens last."""
    return torch.empty_strided(tensor.shape, _order(tensor.shape, tensor.stride()), dtype=tensor.dtype)


def adjoining(tensor: Tensor) -> Tensor:
    """Return a tensor with its tokens, the last axis but one, next to each other in memory."""
    return tensor if tensor.stride(-2) == 1 else tensor.mT.contiguous().mT


def _flat(tensor: Tensor) -> np.ndarray:
    """Return the memory of a tensor from its first number to its last."""
    end = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.detach().as_strided((end,), (1,)).numpy()
