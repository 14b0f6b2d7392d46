"""How near two images lie by chance, learnt from training images among which there may be copies.

The number of images within a distance r of one is taken to grow as r to the power of m, the dimension that images fill
locally (Levina and Bickel, 2004), so that with the k-th nearest at a distance s, λ = k·(r/s)^m are expected within r. A
distance is therefore measured in units of s, which is larger where images are sparse. Copies count neither for s nor
for m: both are estimated, copies are told, and that is repeated with the other images until there are none.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

_FEWEST = 64  # images
_NEIGHBOURS = 24  # k
_TINY = 1e-12  # in place of a distance of 0
_LOW = 0.1  # share of the images that the tail is taken from
DIGITS = 4  # of distances and cuts: what rounding in another order leaves alone


@dataclass(frozen=True, eq=False)
class Chance:
    """What the training images say: the cut in units of s, and m as `dimension`.

    `kept` are those images that are no copies of others, `scales` their usual distances s, and `false_share` is the
    estimated share of images without a copy that have another one within the cut.
    """

    kept: NDArray[np.int64]
    scales: NDArray[np.float64]
    cut: float
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
    while len(kept) >= _FEWEST:
        left = distances[np.ix_(kept, kept)]
        nearest = np.sort(np.partition(left, k - 1, axis=1)[:, :k], axis=1).astype(np.float64)
        scales, dimension = nearest[:, -1], _dimension(nearest)
        expected = accepted * (len(kept) - 1) / (images - 1)
        cut = round(float((expected / k) ** (1 / dimension)), DIGITS)
        units = left / np.maximum(np.sqrt(scales[:, None] * scales), _TINY)
        copies = np.tril(units <= cut).any(axis=1)  # of an earlier one
        if k == neighbours(len(kept)) and not copies.any():
            share = _tail(units.min(axis=1), cut) * (images - 1) / (len(kept) - 1)
            return Chance(kept, scales, cut, dimension, min(1.0, share))
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
