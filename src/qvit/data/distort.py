"""Distortion of training images: small turns, zooms and shifts, and changes of contrast, drawn for each image.

Unlike the symmetries of `data.augment`, these interpolate between pixels; images stay bytes.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from qvit.cpu.parts import in_parts

# The most that happens to an image at strength 1.
TURN = math.radians(8)
ZOOM = 1.1  # the most it is enlarged or shrunk
SHIFT = 0.07  # of the side
CONTRAST = 0.1
MOST = 5.0  # strength

NOTHING = (0.0, 1.0, 0.0, 0.0, 1.0)  # the distortion that changes no image


def random_distortions(b: int, strength: float, generator: torch.Generator | None = None) -> Float[Tensor, "b 5"]:
    """Draw how each of `b` images is distorted, image after image; strength 0 draws nothing and changes no image.

    Columns: angle in radians, anticlockwise; factor of size; shifts to the right and down, as shares of the sides;
    factor of contrast. Each is uniform between the ends for this strength, the factor of size on a logarithmic scale.
    """
    if strength == 0.0:
        return torch.tensor(NOTHING, dtype=torch.float64).repeat(b, 1)
    drawn = strength * (2.0 * torch.rand(b, 5, generator=generator, dtype=torch.float64) - 1.0)
    angle, size, right, down, contrast = drawn.unbind(1)
    return torch.stack([TURN * angle, ZOOM**size, SHIFT * right, SHIFT * down, 1.0 + CONTRAST * contrast], dim=1)


def distort(images: UInt8[Tensor, "b c h w"], distortions: Float[Tensor, "b 5"]) -> UInt8[Tensor, "b c h w"]:
    """Return each image turned and zoomed about its centre, then shifted, and with other contrast, as its row says.

    Images are on the CPU, rows are those of `random_distortions`. What comes from outside an image has the colour of
    its nearest edge; values are interpolated linearly and rounded to bytes. Contrast is changed about the mean of the
    image as it was given. No bit of an image depends on the others.
    """
    from qvit.data.distort_kernel import distort_images

    b, c, h, w = images.shape
    given, maps, out = (
        images.contiguous().view(-1).numpy(),
        _maps(distortions, h, w).numpy(),
        torch.empty(b, c, h, w, dtype=torch.uint8),
    )

    def run(first: int, last: int) -> None:
        room = [np.empty(h * w, kind) for kind in (np.uint32, np.uint32, np.int32, np.float32, np.float32)]
        distort_images(given, maps, c, h, w, out.view(-1).numpy(), *room, first, last)

    in_parts(run, b, images.numel())
    return out


def _maps(distortions: Float[Tensor, "b 5"], h: int, w: int) -> Float64[Tensor, "b 7"]:
    """Return which place of the image each pixel of the result shows, and the factor of contrast, for the kernel."""
    angle, size, right, down, contrast = distortions.double().unbind(1)
    cosine, sine = angle.cos() / size, angle.sin() / size
    middle_x, middle_y = (w - 1) / 2, (h - 1) / 2
    from_x, from_y = middle_x + w * right, middle_y + h * down  # what shows the middle of the image
    across, along = middle_x - cosine * from_x + sine * from_y, middle_y - sine * from_x - cosine * from_y
    return torch.stack([cosine, -sine, across, sine, cosine, along, contrast], dim=1)
