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
from qvit.models.triples import AXIS, restacked

MOST_WIDE = 8  # features of a head
MOST_FEATURES = 64  # d, f, and all heads together
MOST_TOKENS = 2**11
MOST_SCRATCH = 2**20  # bytes of a thread: beyond, it leaves the cache
_LANES = 16
_IMAGES = 8  # in a part, as the kernel has it
_LOG2_E = math.log2(math.e)
_WORK = 3.0  # in units of `in_parts`, of one score
Way = tuple[int, int, int, int, int]


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


class Plan(NamedTuple):
    """What calls of the same sizes share: parts of each model, sizes as an array, where scratch arrays are, scales."""

    sizes: Sizes
    shape: tuple[int, ...]
    parts: int
    numbers: np.ndarray
    room: np.ndarray
    scratch: int
    scales: tuple[np.float32, np.float32]
    work: float  # as `in_parts` counts it


@lru_cache(maxsize=256)
def planned(tokens: torch.Size, queries: torch.Size, values: torch.Size, f: int, scale: float) -> Plan | None:
    """Return a plan for tensors of these shapes, a hidden layer of `f` and a scale of scores, or None if none suits."""
    *m, b, n, d = tokens
    sizes = Sizes(m[0] if m else 1, b, n, d, f, queries[-3], queries[-1], values[-1])
    if not sizes.suit():
        return None
    work = _WORK * sizes.m * b * sizes.blocks * _LANES * (sizes.h * n + sizes.d + sizes.f)
    numbers = np.array([b, n, d, f, sizes.h, sizes.k, sizes.q])
    stops = [0, *itertools.accumulate(sizes.room())]
    log2, plain = (np.float32(scale * unit / math.sqrt(sizes.k)) for unit in (_LOG2_E, 1.0))
    parts = -(-b // _IMAGES)
    return Plan(sizes, (0,) * sizes.w, parts, numbers, np.array(stops), stops[-1], (log2, plain), work)


class Call:
    """One call of the kernel on tensors whose tokens are next to each other in memory."""

    def __init__(self, plan: Plan, tensors: Sequence[Tensor], weights: Sequence[Tensor], eps: float) -> None:
        self.plan, self.eps = plan, np.float32(eps)
        self.tensors, self.weights = tensors, [weight.contiguous() for weight in weights]
        self.ways = [_of_tokens(tensors[0]), *(_of_heads(tensor) for tensor in tensors[1:])]
        self.memory: list[int] = []
        for tensor, way in zip(tensors, self.ways, strict=True):
            self.memory += tensor.data_ptr(), way[4]
        self.memory += _addresses(self.weights)

    def forward(self, *, keep: bool) -> tuple[Tensor, Tensor]:
        """Return the result, and what the backward pass needs if it is to `keep` it."""
        from qvit.models import block_kernel

        plan, sizes, tokens = self.plan, self.plan.sizes, self.tensors[0]
        out = _tokens_last(tokens.shape)
        length = sizes.kept * (sizes.m * sizes.b if keep else 1)
        kept = _empty(length if keep else 0)
        step = sizes.kept // _LANES if keep else 0
        memory = np.array([*self.memory, *_addresses((out, kept))]).reshape(-1, 2)
        memory[13, 1] = length
        given = plan.shape, plan.numbers, _ways(*self.ways, _of_tokens(out)), memory

        def run(first: int, last: int) -> None:
            room = _empty(plan.scratch)
            target = kept if keep else _empty(length)
            whole = target.data_ptr(), step, room.data_ptr(), plan.room
            block_kernel.forward(*given, plan.scales, self.eps, *whole, plan.parts, first, last)

        in_parts(run, sizes.m * plan.parts, plan.work)
        return out, kept

    def backward(
        self, kept: Tensor, gradient: Tensor, *, through_attention: bool, through_weights: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients of tokens, queries, keys and values, and those of the weights.

        Without `through_attention` only that of the tokens, without `through_weights` none of the weights.
        """
        from qvit.models import block_kernel

        plan, sizes = self.plan, self.plan.sizes
        found = [_tokens_last(self.tensors[0].shape)]
        if through_attention:
            found += _like(self.tensors[1:])
        partial = _empty(sizes.m * plan.parts * sizes.sums if through_weights else 0)
        ways = [_of_tokens(gradient), _of_tokens(found[0]), *(_of_heads(tensor) for tensor in found[1:])]
        outputs = _addresses((found * 4)[:4])
        addresses = [gradient.data_ptr(), ways[0][4], *_addresses((kept,)), *outputs, *_addresses((partial,))]
        memory = np.array([*self.memory, *addresses]).reshape(-1, 2)
        given = plan.shape, plan.numbers, _ways(*self.ways, self.ways[0], *ways), memory, plan.scales, self.eps
        through = through_attention, through_weights

        def run(first: int, last: int) -> None:
            room = _empty(plan.scratch)
            block_kernel.backward(*given, through, room.data_ptr(), plan.room, plan.parts, first, last)

        in_parts(run, sizes.m * plan.parts, 3 * plan.work)
        to_weights = [torch.empty_like(weight) for weight in self.weights] if through_weights else []
        if through_weights:
            where, sums = np.array(_addresses(to_weights)).reshape(-1, 2), np.empty(sizes.sums)
            block_kernel.finish(plan.numbers, sizes.w, memory, where, plan.parts, sizes.m, sums)
        return found, to_weights


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    """Return address and length of tensors without gaps."""
    return [number for tensor in tensors for number in (tensor.data_ptr(), tensor.numel())]


@lru_cache(maxsize=256)
def _way(shape: torch.Size, strides: tuple[int, ...], heads: bool) -> Way:
    """Return how far models, images, heads and rows are apart in memory, 0 where there is no such axis, and its length.

    The axes are `(*m, b, n, d)`, or with `heads` `(*m, b, h, n, k)`.
    """
    *lead, _, row = strides
    if not heads:
        lead.append(0)
    model, image, head = lead if len(lead) == 3 else (0, *lead)
    length = 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    return model, image, head, row, length


def _of_tokens(tensor: Tensor) -> Way:
    return _way(tensor.shape, tensor.stride(), False)


def _of_heads(tensor: Tensor) -> Way:
    return _way(tensor.shape, tensor.stride(), True)


@lru_cache(maxsize=256)
def _ways(*ways: Way) -> np.ndarray:
    return np.array(ways)


def _empty(length: int) -> Tensor:
    return torch.empty(length, dtype=torch.float32, device="cpu")


def _tokens_last(shape: torch.Size) -> Tensor:
    """Return an empty tensor `(*m, b, n, d)` whose tokens come last in memory."""
    *_, n, d = shape
    steps = [d * n, 1, n] if len(shape) == 3 else [shape[1] * d * n, d * n, 1, n]
    return torch.empty_strided(shape, steps, dtype=torch.float32, device="cpu")


@lru_cache(maxsize=256)
def _order(shape: torch.Size, strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return strides without gaps in the order of others, with tokens last."""
    tokens = len(shape) - 2
    order = sorted((axis for axis in range(len(shape)) if axis != tokens), key=lambda axis: -strides[axis])
    found, step = [0] * len(shape), 1
    for axis in (tokens, *reversed(order)):
        found[axis], step = step, step * shape[axis]
    return tuple(found)


def _like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return empty tensors of the same shapes, axes in the same order in memory, but tokens last.

    They are slices of one if those given are, which can then be put together without a copy.
    """
    whole = restacked(tensors)
    if whole is not None:
        return list(_like_one(whole).unbind(AXIS))
    return [_like_one(tensor) for tensor in tensors]


def _like_one(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, _order(tensor.shape, tensor.stride()), dtype=tensor.dtype, device="cpu")


def adjoining(tensor: Tensor) -> Tensor:
    """Return a tensor with its tokens, the last axis but one, next to each other in memory."""
    return tensor if tensor.stride(-2) == 1 else tensor.mT.contiguous().mT
