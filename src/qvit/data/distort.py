"""Distortion of training images: small turns, zooms and shifts, and changes of contrast, drawn for each image.

Unlike the symmetries of `data.augment`, these interpolate between pixels; images stay bytes.
"""

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from qvit.cpu.parts import in_parts

MOST = 5.0  # strength


def random_distortions(b: int, strength: float, generator: torch.Generator | None = None) -> Float64[Tensor, "b 5"]:
    """Draw how each of `b` images is distorted, image after image; strength 0 draws nothing and changes no image.

    Columns: angle, anticlockwise; factor of size; shifts to the right and down; factor of contrast. Each is uniform
    from −strength to strength, and counted in units of the most that happens at strength 1: 8°, 1.1 (on a logarithmic
    scale), 7 % of the side, 10 %.
    """
    if strength == 0.0:
        return torch.zeros(b, 5, dtype=torch.float64)
    return torch.empty(b, 5, dtype=torch.float64).uniform_(-strength, strength, generator=generator)


def distort(images: UInt8[Tensor, "b c h w"], distortions: Float64[Tensor, "b 5"]) -> UInt8[Tensor, "b c h w"]:
    """Return each image turned and zoomed about its centre, then shifted, and with other contrast, as its row says.

    Images are on the CPU, rows are those of `random_distortions`. What comes from outside an image has the colour of
    its nearest edge; values are interpolated linearly and rounded to bytes. Contrast is changed about the mean of the
    image as it was given. No bit of an image depends on the others.
    """
    from qvit.data.distort_kernel import distort_images

    b, c, h, w = images.shape
    given, by = images.contiguous().view(-1).numpy(), distortions.contiguous().numpy()
    out = torch.empty(b, c, h, w, dtype=torch.uint8)

    def run(first: int, last: int) -> None:
        room = [np.empty(h * w, kind) for kind in (np.uint32, np.uint32, np.int32, np.float32, np.float32)]
        distort_images(given, by, c, h, w, out.view(-1).numpy(), *room, first, last)

    in_parts(run, b, images.numel())
    return out
