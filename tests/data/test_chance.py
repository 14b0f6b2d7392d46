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
    assert few.reach == pytest.approx((1e-2 / 24) ** (1 / few.dimension), abs=1e-4)
    assert many.reach == pytest.approx((1e-5 / 24) ** (1 / many.dimension), abs=1e-4)


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


@pytest.mark.parametrize(
    ("near", "groups", "expected"),
    [
        ([], [], 4),
        ([40, 39, 38, 0], [0, 0, 0, 1], 4),  # one large group: a rare kind
        ([9, 9, 9, 9], [0, 1, 2, 3], 4),  # as many as a dataset may have
        ([9, 9, 8, 9, 5, 5], [0, 1, 2, 3, 4, 4], 6),  # of five, the smallest is none
        ([9, 9, 9, 9, 5, 2], [0, 0, 0, 0, 1, 2], 4),  # most images of one group
        ([9, 9, 9, 9, 2], [0, 1, 2, 3, 4], 4),
        ([22, 22, 22, 22, 22], [0, 1, 2, 3, 4], 23),
        ([23, 23, 23, 23, 23], [0, 1, 2, 3, 4], None),
    ],
)
def test_how_many_near_images_are_a_kind(near: list[int], groups: list[int], expected: int | None) -> None:
    assert chance.fewest(np.array(near, np.int64), np.array(groups, np.int64)) == expected


def nearest(apart: np.ndarray, g: int) -> np.ndarray:
    return np.sort(apart, axis=1)[:, : 2 * g].astype(np.float64)


def everyone(count: int) -> np.ndarray:
    return np.argwhere(np.triu(np.ones((count, count), bool), 1))


@pytest.mark.parametrize(("dimension", "g"), [(2, 4), (3, 4), (3, 9), (4, 6)])
def test_the_cut_of_a_kind_is_where_few_are_expected(dimension: int, g: int) -> None:
    """Of uniform points, with the dimension averaged over all."""
    apart = on_a_torus(300, dimension)
    ordered = nearest(apart, g)
    cuts, expected = chance.own_cuts(ordered, everyone(300))
    assert cuts / ordered[:, g - 1] == pytest.approx(np.full(300, (0.05 / g) ** (1 / dimension)), rel=0.2)
    assert expected == pytest.approx(np.full(300, 0.05), rel=1e-6)
    assert 0.01 < (apart.min(axis=1) <= cuts).mean() < 0.1


def test_the_cut_of_a_kind_is_half_the_distance_at_most() -> None:
    """Of twenty dimensions, a twentieth is expected within four fifths."""
    ordered = nearest(between(np.random.default_rng(0).normal(size=(300, 20))), 4)
    cuts, expected = chance.own_cuts(ordered, everyone(300))
    assert cuts == pytest.approx(ordered[:, 3] / 2)
    assert expected.max() < 0.01


def test_a_gap_and_missing_images_tell_nothing_of_the_dimension() -> None:
    """The first has four others of its kind, the second no more at all; the third's distances grow by a fifth."""
    inf = np.inf
    ordered = np.array([[1, 1, 1, 1, 1, 1, 1, 2.1], [1, 1, 1, 1, 1, 1, 1, inf], [1, 1, 1, 2, 2, 2, 2, 2.4], [inf] * 8])
    alone, unsure = chance.own_cuts(ordered, np.empty((0, 2), np.int64))
    dimension = (1 / 4 + 1 / 5 + 1 / 6 + 1 / 7) / np.log(1.2)
    share = (0.05 / 4) ** (1 / dimension)
    assert alone == pytest.approx([0.5, 0.5, 2 * share, inf])
    assert unsure == pytest.approx([0.05] * 4)
    together, _ = chance.own_cuts(ordered, np.array([[0, 2], [1, 2]]))
    assert together == pytest.approx([share, share, 2 * share, inf])


def test_images_at_no_distance_leave_no_room_for_copies() -> None:
    cuts, _ = chance.own_cuts(np.zeros((2, 8)), np.array([[0, 1]]))
    assert cuts == pytest.approx([0, 0], abs=1e-12)
