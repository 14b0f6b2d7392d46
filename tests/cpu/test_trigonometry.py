"""Cosines and sines of a vector's lanes, by a kernel that takes them one vector after another."""

import numpy as np
import pytest

from qvit.cpu.compiled import jit
from qvit.cpu.trigonometry import FAR, NEAR, cos_sin, is_far, mend_far
from qvit.cpu.vectors import BYTES, like, load, store

SIZES = (0.5, 3.0, 100.0, NEAR, 1e4, 1e6, FAR)


@jit
def of_halves(angles, trig):  # type: ignore[no-untyped-def]
    for k in range(angles.size * angles.itemsize // BYTES):
        angle = load(angles, k)
        cos, sin = cos_sin(angle * like(angle, 0.5))
        store(trig, 2 * k, cos)
        store(trig, 2 * k + 1, sin)
        if is_far(angle):
            mend_far(trig, 2 * k, angle, 0.5)


def found(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of half the angles."""
    lanes = BYTES // angles.itemsize
    trig = np.empty((angles.size // lanes, 2, lanes), angles.dtype)
    of_halves(angles, trig.reshape(-1))
    return trig[:, 0].reshape(-1), trig[:, 1].reshape(-1)


@pytest.mark.parametrize(("kind", "most"), [(np.float32, 1.6e-7), (np.float64, 4e-16)])
@pytest.mark.parametrize("size", SIZES)
def test_angles_of_any_size_lose_nothing(size: float, kind: type, most: float) -> None:
    """Reduced in float32 where that is exact, in float64 beyond; errors are the same on both sides of the border."""
    angles = np.random.default_rng(0).uniform(-2 * size, 2 * size, 2**16).clip(-FAR, FAR).astype(kind)
    half = 0.5 * angles.astype(np.longdouble)
    cos, sin = found(angles)
    sign = np.where(cos * np.cos(half) + sin * np.sin(half) > 0, 1, -1)
    assert np.abs(sign * cos - np.cos(half)).max() <= most
    assert np.abs(sign * sin - np.sin(half)).max() <= most


def test_small_sines_keep_their_digits() -> None:
    """Near multiples of π what is left is small, and its error relative to that."""
    angles = (2 * np.pi * np.arange(-240, 240)).astype(np.float32)
    cos, sin = found(angles)
    half = 0.5 * angles.astype(np.longdouble)
    wanted = np.sin(half) * np.sign(cos * np.cos(half))
    assert np.all(np.abs(sin - wanted) <= 2e-7 * np.abs(wanted) + 1e-12)


@pytest.mark.parametrize("other", [3.0 * NEAR, 3e7, 1e12, np.inf, np.nan])
def test_no_lane_depends_on_another(other: float) -> None:
    angles = np.linspace(-5.0, 2.1 * NEAR, 16, dtype=np.float32)
    beside = angles.copy()
    beside[5] = other
    for one, two in zip(found(angles), found(beside), strict=True):
        assert np.array_equal(np.delete(one, 5), np.delete(two, 5))
