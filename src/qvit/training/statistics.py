"""Means and deviations of the training images, by which models normalise what they see; labels are not looked at."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from qvit.data.arrays import Split
from qvit.models.preprocess import PatchFeatures, Preprocess

STATISTICS_BYTES = 2**25  # of images at a time
_FEATURE_BYTES = STATISTICS_BYTES // 16  # of which features are taken in numbers of four bytes, with copies


def normalise_by(preprocess: Preprocess, split: Split) -> None:
    """Give the first layer of a model the statistics of a split's images, and of their features if it takes any."""
    preprocess.set_statistics(*channel_statistics(split))
    if isinstance(preprocess, PatchFeatures):
        preprocess.set_feature_statistics(*feature_statistics(preprocess, split))


def channel_statistics(split: Split) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Return mean and standard deviation of each channel `(c,)` on the 0–1 scale, reading the images in parts."""
    shape = split.shape
    pixels = math.prod(shape[2:])
    total = square = torch.zeros(shape[1], dtype=torch.int64)
    for images in _parts(split, STATISTICS_BYTES):
        total = total + images.sum((0, 2, 3), dtype=torch.int64)
        square = square + images.int().square().sum((0, 2, 3), dtype=torch.int64)
    mean = total.double() / (255.0 * pixels * len(split))
    variance = square.double() / (255.0**2 * pixels * len(split)) - mean**2
    return mean.float(), variance.clamp_min(0).sqrt().float()


def feature_statistics(preprocess: PatchFeatures, split: Split) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Return mean and standard deviation of each feature `(k,)` over all patches, reading the images in parts."""
    total = square = torch.zeros(preprocess.count, dtype=torch.float64)
    count = 0
    for images in _parts(split, _FEATURE_BYTES):
        maps = preprocess.features(images).double()
        total, square = total + maps.sum((0, 2, 3)), square + maps.square().sum((0, 2, 3))
        count += maps.numel() // preprocess.count
    mean = total / count
    return mean.float(), (square / count - mean**2).clamp_min(0).sqrt().float()


def _parts(split: Split, most: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
    for part in np.array_split(np.arange(len(split)), 1 + math.prod(split.shape) // most):
        yield split.batch(part)[0]
