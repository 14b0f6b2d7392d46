"""Pooled features: by hand, pixel by pixel."""

import math

import numpy as np
import pytest
import scipy.fft
import torch

from qvit.models.pooled_features import FREQUENCIES, cosines, number_of_features, patch_features, pooled_features


def of_patch(patch: np.ndarray) -> list[float]:
    """The numbers of one patch, by plain loops."""
    side, found = len(patch), []
    for v, u in FREQUENCIES:
        total = 0.0
        for y in range(side):
            for x in range(side):
                wave = math.cos(math.pi * (2 * y + 1) * v / (2 * side)) * math.cos(
                    math.pi * (2 * x + 1) * u / (2 * side)
                )
                total += patch[y, x] * wave
        scale = math.sqrt(1 / side if v == 0 else 2 / side) * math.sqrt(1 / side if u == 0 else 2 / side)
        found.append(scale * total)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        steps = [
            abs(patch[y + down, x + right] - patch[y, x])
            for y in range(side)
            for x in range(side)
            if y + down < side and 0 <= x + right < side
        ]
        found.append(sum(steps) / len(steps))
    mean = sum(patch.flat) / side**2
    return [*found, math.sqrt(sum((value - mean) ** 2 for value in patch.flat) / side**2)]


def test_features_of_an_image_by_plain_loops() -> None:
    image = np.random.default_rng(3).normal(size=(2, 28, 28))
    expected = []
    for channel in image:
        each = [of_patch(channel[y : y + 4, x : x + 4]) for y in range(0, 28, 4) for x in range(0, 28, 4)]
        columns = list(zip(*each, strict=True))
        for pool in (np.mean, np.std, max, min):
            expected += [pool(column) for column in columns]
        expected += [channel[y : y + 4, x : x + 4].mean() * 4 for y in range(0, 28, 4) for x in range(0, 28, 4)]
    found = pooled_features(torch.from_numpy(image[None]))
    assert found.shape == (1, number_of_features(2)) == (1, len(expected))
    assert found[0].numpy() == pytest.approx(np.array(expected), abs=1e-12)


def test_cosines_are_scipys() -> None:
    matrix = cosines(4).numpy()
    assert matrix == pytest.approx(scipy.fft.dct(np.eye(4), axis=0, norm="ortho"), abs=1e-15)


def test_images_of_other_sizes_are_averaged_first() -> None:
    small = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(pooled_features(large), pooled_features(small), atol=1e-9)
    assert pooled_features(torch.rand(2, 3, 5, 5)).shape == (2, number_of_features(3))
    assert pooled_features(torch.rand(0, 3, 28, 28)).shape == (0, number_of_features(3))


def test_a_mirrored_image_differs_in_the_sign_of_odd_waves_alone() -> None:
    patches = torch.rand(7, 4, 4, dtype=torch.float64)
    before, after = patch_features(patches), patch_features(patches.flip(-1))
    signs = torch.tensor([(-1.0) ** u for _, u in FREQUENCIES], dtype=torch.float64)
    waves = len(FREQUENCIES)
    assert torch.allclose(after[:, :waves], signs * before[:, :waves], atol=1e-12)
    turned = [0, 1, 3, 2]  # right, down, falling, rising
    assert torch.allclose(after[:, waves : waves + 4], before[:, waves : waves + 4][:, turned], atol=1e-12)
