"""Descriptions of images: what turning does to them, what they ignore, and the search for those that are close."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn

from qvit.data import likeness
from qvit.data.augment import apply_element

ELEMENTS = range(8)


def smooth(count: int, channels: int, side: int, seed: int = 0) -> np.ndarray:
    """Images whose low frequencies are strong, as those of real ones are."""
    rng = np.random.default_rng(seed)
    rough = rng.random((count, channels, side, side))
    for axis in (2, 3):
        for _ in range(2 if side > 4 else 0):
            rough = rough + np.roll(rough, 1, axis)
    rough -= rough.min(axis=(1, 2, 3), keepdims=True)
    return (rough / rough.max() * 255).astype(np.uint8)


def turned(images: np.ndarray, element: int) -> np.ndarray:
    return apply_element(torch.from_numpy(images), element, "d4").numpy()


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 28), (1, 7), (3, 40)])
def test_frequencies_are_those_of_scipy(channels: int, side: int) -> None:
    images = smooth(5, channels, side)
    most = min(16, side)
    expected = dctn(images.astype(np.float64), axes=(2, 3), norm="ortho")[:, :, :most, :most]
    expected[..., 0, 0] = 0
    expected = expected.reshape(5, -1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert likeness.frequencies(images).numpy() == pytest.approx(expected, abs=1e-5)


def test_many_images_are_converted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = smooth(7, 3, 8)
    whole = likeness.frequencies(images)
    monkeypatch.setattr(likeness, "_CHUNK", 3 * 3 * 64)
    assert torch.equal(likeness.frequencies(images), whole)


def test_brightness_and_contrast_do_not_count() -> None:
    images = smooth(4, 3, 28) // 2
    assert likeness.frequencies(images + 100) == pytest.approx(likeness.frequencies(images), abs=1e-5)
    assert likeness.frequencies(images * 2) == pytest.approx(likeness.frequencies(images), abs=1e-5)


def test_constant_images_have_no_frequencies_and_one_grey_level_has() -> None:
    images = np.full((3, 3, 28, 28), 200, np.uint8)
    images[1] = np.array([10, 20, 30], np.uint8)[:, None, None]
    images[2, 1, 14, 3] += 1
    found = likeness.frequencies(images)
    assert not found[:2].any()
    assert float(found[2].norm()) == pytest.approx(1, abs=1e-5)
    metric = likeness.fit(likeness.frequencies(smooth(40, 3, 28)), 3)
    described = likeness.describe(metric, found)
    assert not described[:2].any()
    assert float(described[2].norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 9), (1, 5), (3, 2), (1, 33)])
def test_turning_an_image_turns_its_description(channels: int, side: int) -> None:
    """The exact pixels' symmetries are the oracle for signs and exchanges."""
    images = smooth(60, channels, side)
    found = likeness.frequencies(images)
    metric = likeness.fit(found, channels)
    described = likeness.describe(metric, found)
    folded = likeness.folded(metric, described)
    for element in ELEMENTS:
        expected = likeness.describe(metric, likeness.frequencies(turned(images, element)))
        assert likeness.turned(metric, described, element).numpy() == pytest.approx(expected.numpy(), abs=1e-4)
        assert likeness.folded(metric, expected).numpy() == pytest.approx(folded.numpy(), abs=1e-4)
    assert not torch.allclose(likeness.turned(metric, described, 1), described, atol=1e-2)


def test_descriptions_are_short_and_of_length_one() -> None:
    found = likeness.frequencies(smooth(300, 3, 9))
    metric = likeness.fit(found, 3)
    described = likeness.describe(metric, found)
    assert described.shape[1] == sum(metric.kinds) == metric.weights.shape[1]
    assert 120 < described.shape[1] <= 128
    assert metric.kinds[4] == metric.kinds[5]
    assert described.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)


def test_what_all_images_share_hardly_counts() -> None:
    """A strong pattern in all images, in one position: two strangers with it are as far apart as those without it."""
    rng = np.random.default_rng(5)
    details = rng.normal(size=(200, 1, 28, 28)) * 10
    pattern = 100 * np.sign(np.linspace(-1, 1, 28))[:, None]
    images = np.clip(128 + pattern + details, 0, 255).astype(np.uint8)
    found = likeness.frequencies(images)
    metric = likeness.fit(found, 1)
    described = likeness.describe(metric, found)
    between = (described[:1] - described[1:]).norm(dim=1)
    assert float((found[:1] - found[1:]).norm(dim=1).mean()) < 0.2
    assert float(between.mean()) > 0.6


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.integers(2, 12))
def test_folded_numbers_are_no_further_apart_than_the_nearest_positions(seed: int, channels: int, side: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (40, channels, side, side)).astype(np.uint8)
    found = likeness.frequencies(images)
    metric = likeness.fit(found, channels)
    described = likeness.describe(metric, found)
    apart, _ = likeness.apart(metric, described[:20], described[20:])
    folded = likeness.folded(metric, described)
    assert bool(((folded[:20] - folded[20:]).norm(dim=1) <= apart + 1e-5).all())


def test_distances_are_those_to_the_nearest_of_eight_positions() -> None:
    images = smooth(30, 1, 12)
    found = likeness.frequencies(images)
    metric = likeness.fit(found, 1)
    described = likeness.describe(metric, found)
    positions = [likeness.describe(metric, likeness.frequencies(turned(images[9:], e))) for e in ELEMENTS]
    expected = torch.stack([torch.cdist(described.double(), other.double()) for other in positions]).min(dim=0).values
    between = likeness.distances(metric, described, described[9:])
    assert between.numpy() == pytest.approx(expected.numpy(), abs=2e-3)  # float32 near zero
    apart, element = likeness.apart(metric, described[:21], described[9:])
    assert apart.numpy() == pytest.approx(expected[torch.arange(21), torch.arange(21)].numpy(), abs=1e-5)
    assert element.shape == (21,)


@pytest.mark.parametrize("element", ELEMENTS)
def test_the_position_of_a_copy_is_found(element: int) -> None:
    images = smooth(70, 3, 9)
    found = likeness.frequencies(images)
    metric = likeness.fit(found, 3)
    originals = likeness.describe(metric, likeness.frequencies(turned(images, element)))
    apart, elements = likeness.apart(metric, originals, likeness.describe(metric, found))
    assert float(apart.max()) < 1e-4
    assert elements.tolist() == [element] * 70


def pairs_of(metric: likeness.Likeness, described: torch.Tensor, radius: float) -> set[tuple[int, int]]:
    parts = list(likeness.close_pairs(metric, described, radius))
    pairs = [tuple(pair) for part in parts for pair in part.tolist()]
    assert len(set(pairs)) == len(pairs)
    assert all(i < j for i, j in pairs)
    return set(pairs)


def within(distances: torch.Tensor, radius: float) -> set[tuple[int, int]]:
    return {(i, j) for i, j in (distances <= radius).nonzero().tolist() if i < j}


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 255, 256, 257, 700])
def test_all_close_pairs_are_found(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few images exactly those; of many, if all numbers may hold all of the distance, those close when folded."""
    found = likeness.frequencies(smooth(max(count, 100), 1, 10))
    metric = likeness.fit(found, 1)
    described = likeness.describe(metric, found)[:count]
    positions = [likeness.turned(metric, described, element).double() for element in ELEMENTS]
    apart = torch.stack([torch.cdist(described.double(), other) for other in positions]).min(dim=0).values
    folded = likeness.folded(metric, described).double()
    radii = (0.3, 0.6, 0.9)
    for radius in radii:
        assert within(apart, radius) <= pairs_of(metric, described, radius) <= within(apart, radius + 2e-3)
    monkeypatch.setattr(likeness, "_ALL_PAIRS", 0)
    monkeypatch.setattr(likeness, "_LEADING", 4)
    for radius in radii:
        pairs = pairs_of(metric, described, radius)
        assert within(torch.cdist(folded, folded), radius) <= pairs
        assert pairs <= within(torch.cdist(folded, folded), radius * 1.001 + 1e-4)


def test_more_pairs_than_there_was_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = likeness.frequencies(smooth(600, 1, 10))
    metric = likeness.fit(found, 1)
    described = likeness.describe(metric, found)
    monkeypatch.setattr(likeness, "_ALL_PAIRS", 0)
    whole = pairs_of(metric, described, 0.8)
    assert len(whole) > 3
    monkeypatch.setattr(likeness, "_PLACES", 1)
    monkeypatch.setattr(likeness, "_AT_ONCE", 1)
    assert pairs_of(metric, described, 0.8) == whole


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "_ALL_PAIRS", 0)
    found = likeness.frequencies(smooth(2500, 1, 10))
    metric = likeness.fit(found, 1)
    described = likeness.describe(metric, found)
    alone = list(likeness.close_pairs(metric, described, 0.7))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        several = list(likeness.close_pairs(metric, described, 0.7))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, several, strict=True))


def test_of_many_images_those_that_differ_in_details_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noisy copies are found where not all pairs are looked at; pairs of strangers are passed over."""
    images = smooth(400, 1, 28)
    noise = np.random.default_rng(1).normal(scale=6, size=images.shape)
    copies = np.clip(images + noise, 0, 255).astype(np.uint8)
    found = likeness.frequencies(np.concatenate([images, turned(copies, 5)]))
    metric = likeness.fit(found, 1)
    described = likeness.describe(metric, found)
    monkeypatch.setattr(likeness, "_ALL_PAIRS", 100)
    pairs = pairs_of(metric, described, 0.6)
    assert {(k, 400 + k) for k in range(400)} <= pairs
    assert len(pairs) < 800
