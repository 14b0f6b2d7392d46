"""Functions of vectors against scipy's, over all that they may be given."""

import numpy as np
import pytest
from scipy.special import ndtr

from qvit.cpu.compiled import jit
from qvit.cpu.elementary import MOST, gelu, gelu_and_slope, largest_lane, small_power_of_two, square_root
from qvit.cpu.vectors import load, store


@jit
def _apply(given, out):
    for row in range(len(given) // 16):
        x = load(given, row)
        store(out[0], row, small_power_of_two(x))
        store(out[1], row, gelu(x))
        value, slope = gelu_and_slope(x)
        store(out[2], row, value)
        store(out[3], row, slope)
        store(out[4], row, square_root(x * x))


def _applied(given: np.ndarray) -> list[np.ndarray]:
    given = np.resize(given.astype(np.float32), -(-len(given) // 16) * 16)
    out = tuple(np.empty_like(given) for _ in range(5))
    _apply(given, out)
    return [given.astype(np.float64), *(each.astype(np.float64) for each in out)]


def test_powers_of_two_are_right_to_the_last_digits() -> None:
    x, powers, *_ = _applied(np.linspace(-MOST, MOST, 100_003))
    np.testing.assert_allclose(powers, 2.0**x, rtol=2.5e-7, atol=0)
    x, powers, *_ = _applied(np.arange(-MOST, MOST + 1))
    np.testing.assert_array_equal(powers, 2.0**x)


def test_gelu_is_exact_and_so_is_its_slope() -> None:
    x, _, *values, slopes, _ = _applied(np.concatenate([np.linspace(-9, 9, 100_003), np.logspace(-30, 18, 999)]))
    for found in values:
        np.testing.assert_allclose(found, x * ndtr(x), rtol=3e-7, atol=3e-7)
    density = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slopes, ndtr(x) + x * density, rtol=0, atol=4e-7)


def test_the_tail_of_gelu_keeps_its_digits() -> None:
    x, _, found, *_ = _applied(np.linspace(-6, -1, 10_007))
    np.testing.assert_allclose(found, x * ndtr(x), rtol=5e-6, atol=0)


@pytest.mark.parametrize("odd", [np.nan, -np.inf])
def test_what_is_no_number_stays_none(odd: float) -> None:
    _, _, *values, slopes, _ = _applied(np.array([odd]))
    assert not np.isfinite(values).any()
    assert not np.isfinite(slopes).any()


def test_far_from_zero_gelu_is_all_or_nothing() -> None:
    x, _, found, _, slopes, _ = _applied(np.array([-3e38, -1e20, -100.0, 100.0, 1e20, 3e38]))
    np.testing.assert_allclose(found, np.maximum(x, 0.0), atol=1e-18 * 3e38 * 1e-37)
    np.testing.assert_array_equal(slopes, np.where(x > 0, 1.0, 0.0))


@jit
def _largest(given):
    return largest_lane(load(given, 0))


def test_square_roots_and_the_largest_lane() -> None:
    x, *_, roots = _applied(np.linspace(-50, 3, 16))
    np.testing.assert_allclose(roots, np.abs(x), rtol=1e-7)
    assert _largest(np.roll(x.astype(np.float32), 5)) == 3.0
