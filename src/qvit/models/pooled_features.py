"""About a hundred fixed numbers a channel that describe an image, for plain baselines. Nothing is learnt.

Of each patch there are the lowest coefficients of its cosine transform, the mean differences of neighbouring pixels in
four directions, and its deviation; all pooled over the image, and the first, its mean, also as it is.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

SIDE = 28  # pixels of the images that are described; others are averaged, or repeated, to that many
PATCH = 4
# Frequencies along y and x of the coefficients that are kept.
FREQUENCIES = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
PER_PATCH = len(FREQUENCIES) + 5
POOLS = 4  # mean, deviation, largest, smallest


def number_of_features(in_chans: int) -> int:
    """Return how many numbers describe an image of so many channels."""
    return in_chans * (PER_PATCH * POOLS + (SIDE // PATCH) ** 2)


def pooled_features(pixels: Float[Tensor, "b c y x"]) -> Float[Tensor, "b f"]:
    """Return the numbers `(b, f)` that describe normalised images, channel after channel.

    First those of patches, pooled: by pool, then by feature; then the mean of each patch, times its side.
    """
    if pixels.shape[-1] != SIDE:
        pixels = F.adaptive_avg_pool2d(pixels, SIDE)
    each = patch_features(rearrange(pixels, "b c (h p) (w q) -> b c (h w) p q", p=PATCH, q=PATCH))
    pooled = torch.stack([each.mean(dim=2), _deviation(each, 2), each.amax(dim=2), each.amin(dim=2)], dim=2)
    return torch.cat([pooled.flatten(start_dim=2), each[..., 0]], dim=-1).flatten(start_dim=1)


def patch_features(patches: Float[Tensor, "*n p p"]) -> Float[Tensor, "*n k"]:
    """Return the numbers that describe each patch: cosine coefficients, mean differences, deviation."""
    side = patches.shape[-1]
    waves = cosines(side).to(patches)
    spectrum = waves @ patches @ waves.T
    right = patches[..., :, 1:] - patches[..., :, :-1]
    down = patches[..., 1:, :] - patches[..., :-1, :]
    falling = patches[..., 1:, 1:] - patches[..., :-1, :-1]
    rising = patches[..., 1:, :-1] - patches[..., :-1, 1:]
    differences = [one.abs().mean(dim=(-2, -1)) for one in (right, down, falling, rising)]
    lowest = [spectrum[..., y, x] for y, x in FREQUENCIES]
    return torch.stack([*lowest, *differences, _deviation(patches.flatten(start_dim=-2), -1)], dim=-1)


def _deviation(values: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
    """Return standard deviations along an axis; torch's own warns where there is no image."""
    return (values - values.mean(dim=dim, keepdim=True)).square().mean(dim=dim).sqrt()


def cosines(side: int) -> Float[Tensor, "u x"]:
    """Return the orthonormal matrix of the cosine transform (DCT-II) of so many points, in float64."""
    place, wave = torch.arange(side, dtype=torch.float64), torch.arange(side, dtype=torch.float64)[:, None]
    matrix = torch.cos(math.pi * (2 * place + 1) * wave / (2 * side)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix
