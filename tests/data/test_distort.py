"""Distortions against slices, turns and another library's interpolation; what is drawn, and what it depends on."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from qvit.data.augment import apply_element
from qvit.data.distort import distort, random_distortions


def images_of(b: int, c: int = 3, h: int = 28, w: int = 28, *, seed: int = 0) -> Tensor:
    """Noise without any smoothness, so that half a pixel would show."""
    return torch.randint(256, (b, c, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# The most that happens at strength 1.
TURN, ZOOM, SHIFT, CONTRAST = math.radians(8), 1.1, 0.07, 0.1


def row(
    *, angle: float = 0.0, size: float = 1.0, right: float = 0.0, down: float = 0.0, contrast: float = 1.0
) -> Tensor:
    """The distortion of one image by radians, factors, and shares of the sides."""
    said = [angle / TURN, math.log(size) / math.log(ZOOM), right / SHIFT, down / SHIFT, (contrast - 1.0) / CONTRAST]
    return torch.tensor([said], dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 3, 28, 28), (4, 1, 29, 31), (1, 3, 224, 224), (2, 1, 1, 1), (0, 3, 28, 28)])
def test_nothing_changes_no_byte(shape: tuple[int, ...]) -> None:
    images = images_of(*shape)
    assert torch.equal(distort(images, random_distortions(len(images), 0.0)), images)


@pytest.mark.parametrize("size", [(28, 28), (9, 14)])
def test_a_shift_by_whole_pixels_is_a_slice(size: tuple[int, int]) -> None:
    """What comes in from outside repeats the edge."""
    images = images_of(3, 3, *size)
    h, w = size
    for right, down in ((2, 0), (0, -3), (-1, 2)):
        moved = distort(images, row(right=right / w, down=down / h).repeat(3, 1))
        padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="edge")
        assert np.array_equal(moved.numpy(), padded[..., 4 - down : 4 - down + h, 4 - right : 4 - right + w])


def test_a_quarter_turn_is_the_symmetry() -> None:
    """Anticlockwise, as `data.augment` turns."""
    images = images_of(2)
    for quarters in range(4):
        turned = distort(images, row(angle=quarters * math.pi / 2).repeat(2, 1))
        assert torch.equal(turned, apply_element(images, quarters, "d4"))


def test_twice_the_size_shows_the_middle() -> None:
    """Of two pixels each: where their centres are, a quarter and three quarters between those of the image."""
    image = torch.tensor([0, 40, 80, 120], dtype=torch.uint8).expand(1, 1, 4, 4)
    assert distort(image, row(size=2.0))[0, 0, 1].tolist() == [30, 50, 70, 90]


@pytest.mark.parametrize("size", [(28, 28), (17, 30)])
@pytest.mark.parametrize("strength", [1.0, 5.0])
def test_all_at_once_is_what_another_library_computes(size: tuple[int, int], strength: float) -> None:
    images = images_of(6, 3, *size)
    drawn = random_distortions(6, strength, torch.Generator().manual_seed(1))
    assert drawn[:, 4].abs().max() > 0.5 * strength, "or contrast is not tried"
    found = distort(images, drawn).numpy()
    h, w = size
    centre = (np.array(size) - 1) / 2  # rows first
    for image, result, (turned, zoomed, across, along, changed) in zip(
        images.numpy(), found, drawn.numpy(), strict=True
    ):
        angle, zoom, right, down, contrast = (
            TURN * turned,
            ZOOM**zoomed,
            SHIFT * across,
            SHIFT * along,
            1.0 + CONTRAST * changed,
        )
        # Of each place of the result, where it comes from: back by the shift, then by the turn, then by the size.
        cosine, sine = math.cos(angle), math.sin(angle)
        back = np.array([[cosine, sine], [-sine, cosine]]) / zoom
        offset = centre - back @ (centre + np.array([down * h, right * w]))
        mean = image.astype(float).mean()
        for channel, told in zip(image, result, strict=True):
            moved = ndimage.affine_transform(channel.astype(float), back, offset, order=1, mode="nearest")
            wanted = (mean + contrast * (moved - mean)).clip(0, 255)
            np.testing.assert_allclose(told, wanted, atol=0.51)


def test_contrast_is_about_the_mean_of_the_image() -> None:
    """Large images, whose sum float32 could not hold, too."""
    for side in (28, 300):
        images = images_of(2, 3, side, side) // 2
        found = distort(images, row(contrast=0.6).repeat(2, 1)).numpy()
        values = images.numpy().astype(float)
        mean = values.mean((1, 2, 3), keepdims=True)
        np.testing.assert_allclose(found, mean + 0.6 * (values - mean), atol=0.501)
    bright = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert distort(bright, row(contrast=1.5)).tolist() == bright.tolist(), "bytes have ends"


def test_no_bit_depends_on_the_other_images() -> None:
    """Nor on the number of threads."""
    images, drawn = images_of(37, 3, 13, 13), random_distortions(37, 3.0, torch.Generator().manual_seed(0))
    together = distort(images, drawn)
    assert (together != images).float().mean() > 0.9
    for place in range(37):
        assert torch.equal(distort(images[place : place + 1], drawn[place : place + 1])[0], together[place])
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    assert torch.equal(distort(images[order], drawn[order]), together[order])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        many = [values.repeat(400, *[1] * (values.ndim - 1)) for values in (images, drawn)]
        assert torch.equal(distort(*many), together.repeat(400, 1, 1, 1))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("strength", [0.5, 1.0, 5.0])
def test_draws_are_uniform_between_their_ends(strength: float) -> None:
    drawn = random_distortions(4000, strength, torch.Generator().manual_seed(7)).numpy()
    for values in drawn.T:
        assert stats.kstest(values / strength, stats.uniform(-1.0, 2.0).cdf).pvalue > 0.01
        assert np.abs(values).max() < strength
    correlations = np.corrcoef(drawn.T) - np.eye(5)
    assert np.abs(correlations).max() < 4.0 / math.sqrt(4000)
    assert np.abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 4.0 / math.sqrt(4000), "image by image anew"


def test_images_draw_one_after_the_other() -> None:
    """So that the first ones have the same whatever follows; strength 0 draws nothing."""
    few, many = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    first = random_distortions(3, 1.0, few)
    assert torch.equal(random_distortions(40, 1.0, many)[:3], first)
    before = few.get_state()
    random_distortions(5, 0.0, few)
    assert torch.equal(few.get_state(), before)
