"""Short descriptions of images, in which the eight symmetries of the square only change signs and places.

An image's lowest cosine frequencies, without the mean and scaled to length 1, so that brightness and contrast do not
count, are divided into parts that no turn and no mirroring mixes: even or odd along both axes and symmetric or
antisymmetric in exchanging them, and pairs of an even and an odd one. Within each part, the principal directions of
training images are scaled by 1/√(λ + λ̄), where λ is the variance along a direction and λ̄ its mean over all of them:
what all images share counts no more than what tells them apart, and directions that hold little but noise count less.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from qvit.cpu.parts import in_parts
from qvit.data.likeness_kernel import LANES, TILE, search

MOST = 16  # frequencies along each axis
TURNS = 8
_LONGEST = 128  # numbers in a description
_CHUNK = 1 << 21  # pixels converted at a time
_LEAST = 0.01  # length of the frequencies of an image with contrast, in grey levels
_TINY = 1e-12  # in place of a length or variance of 0
_ALL_PAIRS = 8192  # images of which no pair is passed over
_LEADING = 0.85  # see `close_pairs`
_SAMPLE = 4096  # images that say how much a number varies
_ROWS = 512  # images compared with all others at a time
_ROUNDING = 1e-3  # of a distance of unit vectors by their product
_AT_ONCE = 128  # tiles searched before pairs are handed on
_PLACES = 4096  # pairs of a tile, at first

# By kind of number, then by element of "d4" (see `qvit.data.augment`): what the element multiplies it by.
_SIGNS = (
    (1, 1, 1, 1, 1, 1, 1, 1),
    (1, -1, 1, -1, 1, -1, 1, -1),
    (1, -1, 1, -1, -1, 1, -1, 1),
    (1, 1, 1, 1, -1, -1, -1, -1),
)


@dataclass(frozen=True, eq=False)
class Likeness:
    """A linear map from frequencies to descriptions; `kinds` says how many numbers of each kind are in one, in order.

    Kind 0 is the same after all symmetries, kinds 1 to 3 change signs under some, and kinds 4 and 5, as many of each,
    are the two halves of pairs, which also change places.
    """

    mean: Float32[Tensor, " f"]
    weights: Float32[Tensor, "f d"]
    kinds: tuple[int, ...]


def frequencies(images: UInt8[np.ndarray, "n c s s"]) -> Float32[Tensor, "n f"]:
    """Return the lowest cosine frequencies of each image, without the means of its channels, scaled to length 1.

    They are up to 16 x 16 for each channel, f numbers in all; those of a constant image are zeros.
    """
    n, c, side, _ = images.shape
    most = min(MOST, side)
    waves = _waves(side, most).mT.contiguous()
    out = torch.empty(n, c, most, most)
    step = max(1, _CHUNK // (c * side * side))
    for start in range(0, n, step):
        # Rows, turned, and rows again: two large products are faster than many small ones.
        part = torch.from_numpy(images[start : start + step].astype(np.float32))
        rows = (part.reshape(-1, side) @ waves).reshape(-1, side, most).mT.reshape(-1, side)
        out[start : start + step] = (rows @ waves).reshape(-1, c, most, most).mT
    out[..., 0, 0] = 0
    out = out.reshape(n, -1)
    length = out.norm(dim=1, keepdim=True)
    # Rounding leaves a trace of what is none; one grey level in one pixel leaves far more.
    return out.mul_(torch.where(length > _LEAST, 1 / length, 0))


@lru_cache(maxsize=8)
def _waves(side: int, most: int) -> Float32[Tensor, "k s"]:
    """Return the rows of the orthonormal cosine transform (DCT-II)."""
    with torch.inference_mode(False):
        k, x = torch.arange(most, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64)
        rows = torch.cos(torch.pi * k * (x + 0.5) / side) * (2 / side) ** 0.5
        rows[0] = side**-0.5
        return rows.float()


@lru_cache(maxsize=8)
def _parts(channels: int, most: int) -> tuple[Float64[Tensor, "f m"], ...]:
    """Return an orthonormal basis of each kind's frequencies."""
    with torch.inference_mode(False):
        u, v = (index.reshape(-1) for index in torch.meshgrid(torch.arange(most), torch.arange(most), indexing="ij"))
        unit = torch.eye(most * most, dtype=torch.float64)
        swapped = unit[:, v * most + u]
        sums = torch.where(u == v, unit, (unit + swapped) / 2**0.5)
        differences = (unit - swapped) / 2**0.5
        even, odd = (u % 2 == 0) & (v % 2 == 0) & (u + v > 0), (u % 2 == 1) & (v % 2 == 1)
        mixed = (u % 2 == 0) & (v % 2 == 1)
        chosen = [(sums, even & (u <= v)), (differences, even & (u < v))]
        chosen += [(sums, odd & (u <= v)), (differences, odd & (u < v)), (unit, mixed), (swapped, mixed)]
        colours = torch.eye(channels, dtype=torch.float64)
        return tuple(torch.kron(colours, basis[:, which].contiguous()) for basis, which in chosen)


def fit(found: Float32[Tensor, "n f"], channels: int) -> Likeness:
    """Find how to describe images, by the frequencies of training images."""
    values, count = found.double(), max(1, len(found))
    parts = _parts(channels, round((values.shape[1] / channels) ** 0.5))
    mean = parts[0] @ (parts[0].mT @ values.sum(dim=0)) / count  # that of the images in all eight positions
    scores = [(values - mean) @ part for part in parts]
    spreads = [score.mT @ score / count for score in scores]
    spreads[4] = spreads[5] = (spreads[4] + spreads[5]) / 2  # one map for both halves, or turns would mix them
    solved = [map(torch.from_numpy, np.linalg.eigh(spread.numpy())) for spread in spreads]
    variances, directions = zip(*((variance.clamp(min=0), columns) for variance, columns in solved), strict=True)
    typical = torch.cat(variances).mean().clamp(min=_TINY)
    # The scaled variance, λ/(λ + λ̄), grows with λ: the directions of the largest are kept.
    every = torch.cat(variances).sort(descending=True).values
    least = every[_LONGEST] if len(every) > _LONGEST else -1
    kept = [(variance > least).nonzero()[:, 0].flip(0) for variance in variances]
    maps = [
        part @ (columns[:, keep] / (variance[keep] + typical).sqrt())
        for part, keep, variance, columns in zip(parts, kept, variances, directions, strict=True)
    ]
    return Likeness(mean.float(), torch.cat(maps, dim=1).float(), tuple(len(keep) for keep in kept))


def describe(likeness: Likeness, found: Float32[Tensor, "n f"]) -> Float32[Tensor, "n d"]:
    """Return descriptions of length 1 by frequencies; those of constant images are zeros."""
    values = torch.addmm(-(likeness.mean @ likeness.weights), found, likeness.weights)
    scale = values.norm(dim=1, keepdim=True).clamp(min=_TINY)
    return values.mul_((found.norm(dim=1, keepdim=True) > 0) / scale)


def turned(likeness: Likeness, described: Float32[Tensor, "n d"], element: int) -> Float32[Tensor, "n d"]:
    """Return the descriptions of the images that `augment.apply_element` makes with an element of "d4"."""
    *single, first, second = described.split(likeness.kinds, dim=1)
    out = [part * signs[element] for part, signs in zip(single, _SIGNS, strict=True)]
    if element >= 4:
        first = -first
    for _ in range(element % 4):
        first, second = second, -first
    return torch.cat([*out, first, second], dim=1)


def folded(likeness: Likeness, described: Float32[Tensor, "n d"]) -> Float32[Tensor, "n d"]:
    """Return numbers that are the same for all eight positions; two images' are no further apart than their nearest."""
    fixed, *signed, first, second = described.split(likeness.kinds, dim=1)
    first, second = first.abs(), second.abs()
    return torch.cat([fixed, *(p.abs() for p in signed), torch.maximum(first, second), torch.minimum(first, second)], 1)


def apart(likeness: Likeness, first: Float32[Tensor, "n d"], second: Float32[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Return the distances between images, the second ones in their nearest position, and which element that is."""
    turns = torch.stack([(first - turned(likeness, second, e)).norm(dim=1) for e in range(TURNS)])
    # Rounded, as an image with a symmetry of its own is as near in several positions: the first of these is returned.
    element = turns.mul(1e4).round().argmin(dim=0)
    return turns.gather(0, element[None])[0], element


def distances(
    likeness: Likeness, some: Float32[Tensor, "n d"], others: Float32[Tensor, "r d"]
) -> Float32[Tensor, "n r"]:
    """Return the distances between all of some images and all of others, in their nearest positions."""
    most = torch.full((len(some), len(others)), -1.0)
    for element in range(TURNS):
        torch.maximum(most, some @ turned(likeness, others, element).mT, out=most)
    return most.mul_(-2).add_(2).clamp_(min=0).sqrt_()


def close_pairs(likeness: Likeness, described: Float32[Tensor, "n d"], radius: float) -> Iterator[Int64[Tensor, "m 2"]]:
    """Yield pairs i < j of images, some at a time, among them those no further apart than `radius`; others as well.

    Of up to 8192 images, all of them. Of more, those whose leading numbers, those that vary most, hold no more of the
    squared distance than their share, times 0.85²: copies differ in details, strangers in everything.
    """
    if len(described) > _ALL_PAIRS:
        yield from _search(likeness, described, radius)
        return
    for start in range(0, len(described), _ROWS):
        between = distances(likeness, described[start : start + _ROWS], described[start:])
        pairs = (between <= radius + _ROUNDING).triu(diagonal=1).nonzero()
        yield pairs + start


def _search(likeness: Likeness, described: Float32[Tensor, "n d"], radius: float) -> Iterator[Int64[Tensor, "m 2"]]:
    numbers = folded(likeness, described)
    # First what no turn changes: it tells strangers apart better than sizes without their signs.
    sample = slice(None, None, -(-len(numbers) // _SAMPLE))
    varied = numbers[sample].var(dim=0, correction=0)
    varied[: likeness.kinds[0]] += 1
    order = varied.argsort(descending=True)
    count, width = len(numbers), -(-numbers.shape[1] // LANES)
    rows = pad(numbers[:, order], (0, -numbers.shape[1] % LANES, 0, -count % LANES)).contiguous()
    columns = rows[:, :LANES].reshape(-1, LANES, LANES).mT.contiguous()
    halves = rows[:, :LANES].square().sum(dim=1) / 2
    bounds = torch.full((width,), radius * radius)
    shares = pad(described[sample].square().mean(dim=0)[order], (0, -numbers.shape[1] % LANES)).reshape(width, LANES)
    bounds[:-1] *= _LEADING**2 * shares.sum(dim=1).cumsum(0)[:-1]
    bounds = bounds * 1.0001 + 1e-6  # what rounding may add
    tiles = -(-count // TILE)
    given = [array.reshape(-1).numpy() for array in (columns, halves, rows)]
    # Early tiles have more images after them than late ones: taken in turns, threads have the same work.
    turns = np.array([k // 2 if k % 2 == 0 else tiles - 1 - k // 2 for k in range(tiles)])

    def find(some: NDArray[np.int64], places: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        found, counts = np.empty((len(some), places, 2), np.int32), np.zeros(len(some), np.int64)
        room = np.empty(len(some) * 4 * LANES, np.float32)
        fixed = (*given, room, found, counts, bounds.numpy(), count, some)
        in_parts(lambda first, last: search(*fixed, first, last), len(some), len(some) * TILE * count)
        return found, counts

    for start in range(0, tiles, _AT_ONCE):
        some = turns[start : start + _AT_ONCE]
        found, counts = find(some, _PLACES)
        full = counts > _PLACES
        parts = [found[k, : counts[k]] for k in np.flatnonzero(~full)]
        parts += [find(some[k : k + 1], int(counts[k]))[0][0] for k in np.flatnonzero(full)]
        yield torch.from_numpy(np.concatenate(parts).astype(np.int64))
