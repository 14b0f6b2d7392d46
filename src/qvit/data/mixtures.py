"""New images made from a dataset's own, for a teacher to judge: with few images, its answers to these say more."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from qvit.data.arrays import Split
from qvit.data.transfer import UNLABELLED
from qvit.errors import ConfigError

SHIFT = 0.15  # of the side: the farthest an image is moved
ZOOM = 1.25  # the most it is enlarged or shrunk
TURN = math.pi / 12  # radians: the farthest it is turned
BLENDED = 0.5  # share of images that are blends of two
_PART = 4096  # images at a time


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Unlabelled images, the digest of their bytes, and the images that each was made from.

    Image i is `shares[i]` · image `sources[i, 0]` + (1 − `shares[i]`) · image `sources[i, 1]`, both moved.
    """

    images: Split
    digest: str
    sources: Int64[Tensor, "b 2"]
    shares: Float[Tensor, " b"]


def mix_images(split: Split, count: int, *, seed: int = 0) -> Mixtures:
    """Return `count` new images: each is one image of `split`, moved a little, or a blend of two such images.

    Images are shifted, zoomed and turned by random amounts, mirrored at their edges; half are λ·one + (1 − λ)·another
    with λ uniform (mixup, Zhang et al. 2018, arXiv:1710.09412, without the labels). Labels are not used. The same seed
    gives the same images. Raises `ConfigError` for a count below 1.
    """
    if count < 1:
        raise ConfigError(f"Expected at least 1 image to make, got {count}.")
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randint(len(split), (count, 2), generator=generator)
    shares = torch.rand(count, generator=generator)
    shares[torch.rand(count, generator=generator) >= BLENDED] = 1.0
    made = np.empty((count, *split.images.shape[1:]), np.uint8)
    for part in torch.arange(count).split(_PART):
        one, other = (_moved(split, sources[part, place], generator) for place in (0, 1))
        mixed = torch.lerp(other, one, shares[part, None, None, None])
        made[part.numpy()] = mixed.round_().clamp_(0, 255).byte().numpy()
    digest = hashlib.md5(made.tobytes(), usedforsecurity=False).hexdigest()
    return Mixtures(Split(made, np.full((count, 1), UNLABELLED, np.int64)), digest, sources, shares)


def _moved(split: Split, index: Int64[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b c y x"]:
    images = split.batch(index)[0].float()
    draw = 2.0 * torch.rand(4, len(index), generator=generator) - 1.0
    angle, scale, shift = TURN * draw[0], ZOOM ** draw[1], 2.0 * SHIFT * draw[2:]
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack([torch.stack([cosine, -sine, shift[0]], 1), torch.stack([sine, cosine, shift[1]], 1)], 1)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
