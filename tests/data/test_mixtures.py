"""Mixtures: new images of the old ones' kind, whose parts are what they are said to be."""

import numpy as np
import pytest
import torch

from qvit.data import mixtures
from qvit.data.arrays import Split
from qvit.data.mixtures import mix_images
from qvit.errors import ConfigError


def make_split(n: int, channels: int = 1, side: int = 12, seed: int = 0) -> Split:
    images = np.random.default_rng(seed).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    return Split(images, np.arange(n, dtype=np.int64)[:, None] % 3)


def flat_split(values: list[int], side: int = 8) -> Split:
    images = np.full((len(values), 1, side, side), 0, np.uint8) + np.array(values, np.uint8)[:, None, None, None]
    return Split(images, np.zeros((len(values), 1), np.int64))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_comes_out(channels: int) -> None:
    made = mix_images(make_split(7, channels), 23)
    assert made.images.images.shape == (23, channels, 12, 12)
    assert made.images.images.dtype == np.uint8
    assert (made.images.labels == -1).all()
    assert made.sources.shape == (23, 2)
    assert 0 <= int(made.sources.min()) <= int(made.sources.max()) < 7


def test_labels_are_not_looked_at() -> None:
    split = make_split(7)
    other = Split(split.images, 2 - split.labels)
    assert mix_images(split, 11).digest == mix_images(other, 11).digest


def test_the_seed_and_the_images_determine_all() -> None:
    split = make_split(7)
    first, again = mix_images(split, 11, seed=3), mix_images(split, 11, seed=3)
    np.testing.assert_array_equal(first.images.images, again.images.images)
    assert first.digest == again.digest
    assert first.digest != mix_images(split, 11, seed=4).digest
    assert first.digest != mix_images(make_split(7, seed=1), 11, seed=3).digest
    assert first.digest != mix_images(split, 12, seed=3).digest


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    mix_images(make_split(3), 5)
    assert torch.equal(before, torch.get_rng_state())


def test_a_blend_is_the_share_of_one_and_the_rest_of_another() -> None:
    # Images of one value each cannot be moved, so the blend alone is left.
    values = [10, 90, 250]
    made = mix_images(flat_split(values), 500)
    one, other = (torch.tensor(values)[made.sources[:, place]].float() for place in (0, 1))
    expected = (made.shares * one + (1 - made.shares) * other).round()
    for pixel in (made.images.images[:, 0, 0, 0], made.images.images[:, 0, 5, 3]):
        torch.testing.assert_close(torch.from_numpy(pixel.astype(np.float32)), expected, atol=1.0, rtol=0)


def test_half_are_blends_with_every_share() -> None:
    shares = mix_images(make_split(5), 4000).shares
    blends = shares[shares < 1]
    assert abs(len(blends) / 4000 - mixtures.BLENDED) < 0.03
    assert abs(float(blends.mean()) - 0.5) < 0.03
    assert float(blends.min()) < 0.02
    assert float(blends.max()) > 0.98


def test_images_are_moved_but_not_far() -> None:
    # A bright square in the middle: its centre of mass moves by up to SHIFT of the side, whatever turn and zoom do.
    side = 40
    image = np.zeros((1, 1, side, side), np.uint8)
    image[:, :, 17:23, 17:23] = 200
    made = mix_images(Split(image, np.zeros((1, 1), np.int64)), 400)
    pure = made.images.images[made.shares.numpy() == 1, 0].astype(float)
    places = np.arange(side) + 0.5 - side / 2
    mass = pure.sum(axis=(1, 2))
    across = (pure.sum(axis=1) * places).sum(axis=1) / mass
    down = (pure.sum(axis=2) * places).sum(axis=1) / mass
    for moved in (across, down):
        farthest = np.abs(moved).max()
        assert 0.6 * mixtures.SHIFT * side < farthest < mixtures.ZOOM * 1.3 * mixtures.SHIFT * side
        assert abs(moved.mean()) < 0.6
    areas = mass / (200 * 36)
    assert 1.2 < areas.max() < mixtures.ZOOM**2 * 1.1
    assert 0.9 / mixtures.ZOOM**2 < areas.min() < 0.8


def test_more_than_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures, "_PART", 4)
    made = mix_images(flat_split([0, 200]), 11)
    one, other = (torch.tensor([0, 200])[made.sources[:, place]].float() for place in (0, 1))
    expected = (made.shares * one + (1 - made.shares) * other).round()
    torch.testing.assert_close(
        torch.from_numpy(made.images.images[:, 0, 2, 2].astype(np.float32)), expected, atol=1.0, rtol=0
    )


@pytest.mark.parametrize("count", [0, -3])
def test_none_at_all_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"Expected at least 1 image to make, got {count}"):
        mix_images(make_split(3), count)
