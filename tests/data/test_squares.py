"""Squares against slow, independent computations: exact fractions for areas, Keys' formula for enlarging."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.data import squares
from qvit.data.squares import to_square
from qvit.errors import ConfigError

FITS = ("crop", "pad")
SIDES = st.integers(2, 23)


def framed(pixels: np.ndarray, fit: str) -> np.ndarray:
    """The square that is to be resized, row by row, in floating point."""
    height, width, channels = pixels.shape
    side = min(height, width) if fit == "crop" else max(height, width)
    square = np.zeros((side, side, channels))
    above, before = (side - height) // 2, (side - width) // 2  # towards −∞ where pixels are cut off
    if fit == "crop":
        above, before = -((height - side) // 2), -((width - side) // 2)
    for row in range(side):
        for column in range(side):
            if 0 <= row - above < height and 0 <= column - before < width:
                square[row, column] = pixels[row - above, column - before]
    return square


def shares(side: int, size: int) -> np.ndarray:
    """What each pixel shares with each area, in 1/size pixel."""
    rows = [[min((i + 1) * size, (j + 1) * side) - max(i * size, j * side) for i in range(side)] for j in range(size)]
    return np.array(rows).clip(0)


def exact_areas(square: np.ndarray, size: int) -> np.ndarray:
    """Means of areas as fractions, rounded half to even."""
    side = len(square)
    weights = shares(side, size)
    totals = np.einsum("ai,bk,ikc->abc", weights, weights, square.astype(np.int64))
    return np.vectorize(lambda total: round(Fraction(int(total), side**2)))(totals)


def keys(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def cubic(square: np.ndarray, size: int) -> np.ndarray:
    side = len(square)
    centres = (np.arange(size) + 0.5) * side / size
    weights = keys(np.arange(side)[None] + 0.5 - centres[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ai,bk,ikc->abc", weights, weights, square)


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@settings(deadline=None)
@given(SIDES, SIDES, st.sampled_from([1, 3]), st.data(), st.sampled_from(FITS), st.integers(0, 99))
def test_bytes_are_averaged_exactly(height: int, width: int, channels: int, data: Any, fit: Any, seed: int) -> None:
    pixels = drawn(seed, height, width, channels)
    square = framed(pixels, fit)
    size = data.draw(st.integers(1, len(square)))
    result = to_square(pixels, size, fit=fit)
    assert result.shape == (size, size, channels)
    assert np.array_equal(result, exact_areas(square, size))


def test_half_is_rounded_to_even() -> None:
    pixels = np.array([[[0, 1], [2, 3]], [[1, 2], [3, 4]]], np.uint8)  # of 2 channels: means of 1.5 and 2.5
    three = np.concatenate([pixels, pixels[:, :, :1]], axis=2)
    assert to_square(three, 1).tolist() == [[[2, 2, 2]]]


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, st.data(), st.sampled_from(FITS), st.integers(0, 99))
def test_numbers_are_averaged_and_rounded_once(height: int, width: int, data: Any, fit: Any, seed: int) -> None:
    pixels = (np.random.default_rng(seed).random((height, width, 1)) * 255).astype(np.float32)
    square = framed(pixels, fit)
    size = data.draw(st.integers(1, len(square)))
    weights = shares(len(square), size) / len(square)
    expected = np.einsum("ai,bk,ikc->abc", weights, weights, square)
    assert np.abs(to_square(pixels, size, fit=fit) - expected).max() < 0.5 + 1e-9


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, st.integers(1, 30), st.sampled_from([1, 3]), st.sampled_from(FITS), st.integers(0, 99))
def test_smaller_squares_are_enlarged(h: int, w: int, more: int, channels: int, fit: Any, seed: int) -> None:
    pixels = drawn(seed, h, w, channels)
    square = framed(pixels, fit)
    result = to_square(pixels, len(square) + more, fit=fit)
    assert np.abs(result - cubic(square, len(square) + more).clip(0, 255)).max() < 0.5 + 1e-3


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 30), st.sampled_from(FITS), st.integers(0, 99))
def test_bytes_and_the_same_numbers_make_the_same_square(h: int, w: int, size: int, fit: Any, seed: int) -> None:
    pixels = drawn(seed, h, w, 3)
    assert np.array_equal(to_square(pixels, size, fit=fit), to_square(pixels.astype(np.float32), size, fit=fit))


def test_a_square_of_the_right_size_is_kept() -> None:
    pixels = drawn(0, 28, 28, 3)
    assert np.array_equal(to_square(pixels, 28), pixels)


def test_the_extra_pixel_goes_at_the_far_end() -> None:
    row = np.arange(2 * 5, dtype=np.uint8).reshape(2, 5, 1)
    assert to_square(row, 2)[:, :, 0].tolist() == [[1, 2], [6, 7]]
    assert to_square(row.swapaxes(0, 1), 2)[:, :, 0].tolist() == [[1, 6], [2, 7]]
    bright = np.full((2, 5, 1), 9, np.uint8)
    assert to_square(bright, 5, fit="pad")[:, 0, 0].tolist() == [0, 9, 9, 0, 0]
    assert to_square(bright.swapaxes(0, 1), 5, fit="pad")[0, :, 0].tolist() == [0, 9, 9, 0, 0]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("fit", FITS)
def test_blocks_make_no_difference(kind: Any, fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = drawn(1, 37, 53, 3).astype(kind)
    whole = to_square(pixels, 11, fit=fit)
    monkeypatch.setattr(squares, "_COLUMNS", 7)
    assert np.array_equal(to_square(pixels, 11, fit=fit), whole)


def test_sums_beyond_float32_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = drawn(2, 2, 70_001, 1)  # 255 · 70001 > 2^24
    total = int(pixels.astype(np.int64).sum())
    expected = round(Fraction(total, 70_001**2))
    assert to_square(pixels, 1, fit="pad").item() == expected
    bright = np.full((2, 70_001, 1), 255, np.uint8)
    assert to_square(bright, 7, fit="pad")[:, :, 0].max() == round(Fraction(255 * 2 * 7, 70_001))


def test_padding_a_strip_takes_no_square_of_memory() -> None:
    strip = np.full((2, 2_000_000, 1), 255, np.uint8)  # its square would hold 4 · 10^12 pixels
    assert to_square(strip, 5, fit="pad").shape == (5, 5, 1)


def test_overshoots_are_clipped() -> None:
    steps = np.tile(np.array([0, 0, 255, 255], np.uint8)[:, None, None], (1, 4, 1))
    assert cubic(steps, 12).min() < -1  # it would wrap around
    result = to_square(steps, 12)[:, 0, 0].astype(int)
    assert result[:4].max() < 128
    assert result[-4:].min() > 128


def test_no_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^Expected a size of at least 1 pixel, got 0\.$"):
        to_square(drawn(0, 4, 4, 1), 0)


@pytest.mark.parametrize("side", [255, 256, 257, 258, 1000])
def test_sums_of_many_white_rows_do_not_overflow(side: int) -> None:
    """Of rows in one cell, 257 fit into the narrow sums."""
    white = np.full((side, side, 1), 255, np.uint8)
    assert to_square(white, 1).tolist() == [[[255]]]
    white[0] = 0
    assert to_square(white, 1)[0, 0, 0] == round(255 * (side - 1) / side)
