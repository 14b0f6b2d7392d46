"""How near images lie by chance: learnt from points whose law is known, with copies among them."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from qvit.data import chance


def learn(apart: np.ndarray, images: int, accepted: float) -> chance.Chance:
    found = chance.learn(apart, images, accepted)
    assert found is not None
    return found


def between(points: np.ndarray) -> np.ndarray:
    apart = cdist(points, points).astype(np.float32)
    np.fill_diagonal(apart, np.inf)
    return apart


def on_a_torus(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Distances of uniform points without a border, so that the law holds for each."""
    points = np.random.default_rng(seed).random((count, dimension))
    steps = np.abs(points[:, None] - points)
    apart = np.sqrt((np.minimum(steps, 1 - steps) ** 2).sum(axis=-1)).astype(np.float32)
    np.fill_diagonal(apart, np.inf)
    return apart


@pytest.mark.parametrize("dimension", [2, 5])
def test_the_dimension_of_uniform_points_is_theirs(dimension: int) -> None:
    assert learn(on_a_torus(600, dimension), 600, 1e-5).dimension == pytest.approx(dimension, rel=0.06)


@pytest.mark.parametrize("accepted", [0.3, 0.1, 0.03])
def test_as_many_are_called_copies_by_chance_as_accepted(accepted: float) -> None:
    """Of Poisson points, 1 − exp(−accepted) have another one within the cut."""
    shares = []
    for seed in range(6):
        apart = on_a_torus(500, 3, seed)
        found = learn(apart, 500, 1e-9)  # nothing is left out as a copy
        cut = (accepted / chance.neighbours(500)) ** (1 / found.dimension)
        shares.append((apart <= cut * np.sqrt(found.scales[:, None] * found.scales)).any(axis=1).mean())
    assert np.mean(shares) == pytest.approx(1 - np.exp(-accepted), rel=0.2)


def test_the_cut_falls_with_the_number_of_images() -> None:
    """A thousand times as many images: the same number within the cut if it has a thousandth of the volume."""
    apart = on_a_torus(300, 3)
    few, many = (learn(apart, images, 1e-4) for images in (300, 299_001))
    assert many.cut == pytest.approx(few.cut * 1000 ** (-1 / few.dimension), abs=1e-4)
    assert few.cut == pytest.approx((1e-4 / 24) ** (1 / few.dimension), abs=1e-4)


@pytest.mark.parametrize("copies", [1, 6, 20])
def test_copies_among_the_training_images_change_nothing(copies: int) -> None:
    """Half of the images have one near-copy, six, or twenty: the cut is that of the images without them."""
    rng = np.random.default_rng(1)
    points = rng.random((400, 6))
    alone = learn(between(points), 400, 1e-5)
    near = np.repeat(points[:200], copies, axis=0)
    mixed = np.concatenate([points, near + rng.normal(scale=1e-4, size=near.shape)])
    found = learn(between(mixed), 400, 1e-5)
    assert found.kept.tolist() == list(range(400))
    assert found.cut == pytest.approx(alone.cut, abs=1e-4)
    assert found.scales == pytest.approx(alone.scales, rel=1e-3)


def test_the_false_share_is_what_is_seen() -> None:
    """Learnt from some points with a lax cut, and counted among many others from the same law."""
    rng = np.random.default_rng(2)
    points = rng.random((1000, 3))
    found = learn(between(points[:500]), 500, 0.01)
    more = between(points)
    scales = chance.scales(more[:, :500], found)
    seen = [
        (more[k : k + 500, k : k + 500] <= found.cut * scales[k : k + 500].mean()).any(axis=1).mean() for k in (0, 500)
    ]
    assert 0.2 < found.false_share / np.mean(seen) < 5


def test_fewer_than_64_images_without_copies_tell_nothing() -> None:
    points = np.random.default_rng(3).random((64, 3))
    assert chance.learn(between(points), 64, 1e-5) is not None
    assert chance.learn(between(points[:63]), 63, 1e-5) is None
    assert chance.learn(between(points[[*range(63), *range(63)]]), 126, 1e-5) is None


def test_scales_leave_out_copies_and_the_image_itself() -> None:
    points = np.random.default_rng(4).random((300, 4))
    apart = between(points)
    found = learn(apart, 300, 1e-5)
    assert chance.scales(cdist(points, points).astype(np.float32), found) == pytest.approx(found.scales, rel=1e-6)


@pytest.mark.parametrize(("images", "expected"), [(64, 8), (191, 23), (192, 24), (1500, 24)])
def test_neighbours(images: int, expected: int) -> None:
    assert chance.neighbours(images) == expected
