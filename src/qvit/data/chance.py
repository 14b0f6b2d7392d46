"""How near two images lie by chance, learnt from training images among which there may be copies.

The number of images within a distance r of one is taken to grow as r to the power of m, the dimension that images fill
locally (Levina and Bickel, 2004), so that with the k-th nearest at a distance s, λ = k·(r/s)^m are expected within r. A
distance is therefore measured in units of s, which is larger where images are sparse. Copies count neither for s nor
for m: both are estimated, copies are told, and that is repeated with the other images until there are none.

A rare kind of image, with fewer than k in the sample, lies within s as a whole, as a group of copies does. So if many
images are near one, they are taken for a kind, and only those for copies that are nearer than most of the kind
(`own_cuts`); unless there are many such groups: a dataset has few rare kinds, but may have many patients.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray

FEWEST = 64  # training images that chance can be learnt from
_NEIGHBOURS = 24  # k
_TINY = 1e-12  # in place of a distance of 0
_LOW = 0.1  # share of the images that the tail is taken from
_STRANGE = 0.01  # images: where fewer are expected, those found are of the same kind
_FEW = 4  # images near one that are taken for a kind of image, not for its copies
_KINDS = 4  # rare kinds that a dataset may have
_HALF = 0.5  # of the distance to the last of a few: the most for copies in a kind of their own
_OWN = 0.05  # images expected within the cut of a kind's own
_GAP = 2.0  # times as far are twice as many images in one dimension: further, they are of another kind
DIGITS = 4  # of distances and cuts: what rounding in another order leaves alone


@dataclass(frozen=True, eq=False)
class Chance:
    """What the training images say: the cut and the reach of a kind in units of s, and m as `dimension`.

    `kept` are those images that are no copies of others, `scales` their usual distances s, and `false_share` is the
    estimated share of images without a copy that have another one within the cut. Images within the reach of one are of
    its kind.
    """

    kept: NDArray[np.int64]
    scales: NDArray[np.float64]
    cut: float
    reach: float
    dimension: float
    false_share: float


def neighbours(images: int) -> int:
    """Return k for a number of training images."""
    return min(_NEIGHBOURS, images // 8)


def learn(distances: Float[np.ndarray, "r r"], images: int, accepted: float) -> Chance | None:
    """Learn chance from the distances between r training images, infinite on the diagonal.

    The cut is where, of `images` images, λ = `accepted` are expected around one. Returns None if fewer than 64 are
    left without copies, as they tell too little.
    """
    kept = np.arange(len(distances))
    k = len(kept) // 8  # far at first, beyond any group of copies: among the nearest, copies would hide themselves
    while len(kept) >= FEWEST:
        left = distances[np.ix_(kept, kept)]
        nearest = np.sort(np.partition(left, k - 1, axis=1)[:, :k], axis=1).astype(np.float64)
        scales, dimension = nearest[:, -1], _dimension(nearest)
        sampled = (len(kept) - 1) / (images - 1)
        cut, reach = (round(float((some * sampled / k) ** (1 / dimension)), DIGITS) for some in (accepted, _STRANGE))
        units = left / np.maximum(np.sqrt(scales[:, None] * scales), _TINY)
        copies = np.tril(units <= cut).any(axis=1)  # of an earlier one
        if k == neighbours(len(kept)) and not copies.any():
            share = _tail(units.min(axis=1), cut) / sampled
            return Chance(kept, scales, cut, reach, dimension, min(1.0, share))
        kept = kept[~copies]
        k = neighbours(len(kept))
    return None


def _dimension(nearest: NDArray[np.float64]) -> float:
    """Return m by the distances (r, k) to the nearest in order: E log(s_k/s_j) = (1/j + … + 1/(k − 1))/m.

    The nearer half is left out, as there may be copies.
    """
    k = nearest.shape[1]
    ratios = np.log(nearest[:, -1:] / np.maximum(nearest[:, k // 2 - 1 : -1], _TINY))
    expected = np.mean([sum(1 / i for i in range(j, k)) for j in range(k // 2, k)])
    return float(expected / max(ratios.mean(), _TINY))


def _tail(nearest: NDArray[np.float64], cut: float) -> float:
    """Return the share below the cut, extrapolated as a power from the lowest tenth of the distances (Hill, 1975)."""
    low = np.sort(nearest)[: max(10, int(_LOW * len(nearest)))]
    power = 1 / max(np.log(low[-1] / np.maximum(low, _TINY)).mean(), _TINY)
    return float(len(low) / len(nearest) * (cut / low[-1]) ** power)


def scales(distances: Float[np.ndarray, "n r"], chance: Chance) -> Float64[np.ndarray, " n"]:
    """Return the usual distance of any images by theirs to the images kept, without those that are copies."""
    k = neighbours(len(chance.kept))
    left = distances.astype(np.float64)
    while True:
        found = np.partition(left, k - 1, axis=1)[:, k - 1]
        copies = left <= chance.cut * np.sqrt(found[:, None] * chance.scales)
        if not copies.any():
            return found
        left[copies] = np.inf


def fewest(near: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]) -> int | None:
    """Return g: an image is taken for one of a kind if g or more are near it, else they may all be its copies.

    `near` is how many are near each image, and `groups` the number of the group that it is in with them. It is 4, or
    more if there are over four groups with so many: the fifth is no kind. Returns None if it were k.
    """
    most = np.zeros(len(groups) + _KINDS + 1, np.int64)
    np.maximum.at(most, groups, near)
    g = max(_FEW, int(np.sort(most)[-1 - _KINDS]) + 1)
    return g if g < _NEIGHBOURS else None


def own_cuts(
    nearest: Float64[np.ndarray, "n g2"], pairs: Int64[np.ndarray, "m 2"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return within which distance of an image those of its own kind are copies, and how many others are expected.

    `nearest` are the distances to the 2g nearest images in order, infinite if there are fewer. With the g-th at a
    distance t, the cut is where g·(r/t)^m = 0.05 are expected, but t/2 at most. Here m is by how distances grow from
    the g-th to the last, on average over the image and those in `pairs` with it, without any for which they jump: some
    are of another kind then. If they jump for all, m is not known; the cut is t/2, and 0.05 are said to be expected.
    """
    g, count = nearest.shape[1] // 2, len(nearest)
    own, last = np.maximum(nearest[:, [g - 1, -1]], _TINY).T
    steady = np.isfinite(last) & (last <= _GAP * own)
    growth = np.zeros(count)
    growth[steady] = np.log(last[steady] / own[steady])
    sums, terms = growth.copy(), steady.astype(np.float64)
    for here, there in (pairs.T, pairs.T[::-1]):
        sums += np.bincount(here, growth[there], count)
        terms += np.bincount(here, steady[there], count)
    known = terms > 0
    dimension = sum(1 / i for i in range(g, 2 * g)) * terms[known] / np.maximum(sums[known], _TINY)
    share, expected = np.full(count, _HALF), np.full(count, _OWN)
    share[known] = np.minimum(_HALF, (_OWN / g) ** (1 / dimension))
    expected[known] = g * share[known] ** dimension
    return share * own, expected
