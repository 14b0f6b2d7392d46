"""Vectors at any place of an array: what is read, written and added, by kernels of a line or two."""

import numpy as np
import pytest

from qvit.cpu.compiled import jit
from qvit.cpu.rows import (
    count,
    doubled_first,
    doubled_second,
    fresh,
    load_at,
    load_first,
    load_pixels,
    paired,
    root,
    start,
    store_at,
)
from qvit.cpu.vectors import BYTES, lanes

NUMBERS = pytest.mark.parametrize("kind", ["float32", "float64"])


@jit
def copy_row(target, source, at, n):  # type: ignore[no-untyped-def]
    for block in range(count(n, source.itemsize)):
        t = start(block, n, source.itemsize)
        store_at(target, t, load_at(source, at + t))


@jit
def count_new(target, n):  # type: ignore[no-untyped-def]
    step = BYTES // target.itemsize
    for block in range(count(n, target.itemsize)):
        t = start(block, n, target.itemsize)
        row = load_at(target, t)
        store_at(target, t, row + fresh(row, block * step - t))


@jit
def add_pairs(target, source):  # type: ignore[no-untyped-def]
    store_at(target, 0, paired(load_at(source, 0), load_at(source, BYTES // source.itemsize)))


@jit
def double(target, source):  # type: ignore[no-untyped-def]
    store_at(target, 0, doubled_first(load_at(source, 0)))
    store_at(target, BYTES // source.itemsize, doubled_second(load_at(source, 0)))


@jit
def take_root(target, source):  # type: ignore[no-untyped-def]
    store_at(target, 0, root(load_at(source, 0)))


@jit
def take_first(target, source, place, known):  # type: ignore[no-untyped-def]
    store_at(target, 0, load_first(source, place, known))


@jit
def take_pixels(target, source, place):  # type: ignore[no-untyped-def]
    store_at(target, 0, load_pixels(source, place))


def numbers(n: int, kind: str) -> np.ndarray:
    return np.arange(1, n + 1).astype(kind)


@NUMBERS
@pytest.mark.parametrize("n", [16, 17, 31, 32, 49])
def test_a_row_is_covered_once(kind: str, n: int) -> None:
    target, source = np.zeros(n, kind), numbers(n + 5, kind)
    copy_row(target, source, 3, n)
    assert np.array_equal(target, source[3 : n + 3])
    seen = np.zeros(n, kind)
    count_new(seen, n)
    assert np.array_equal(seen, np.ones(n))


@NUMBERS
def test_lanes_side_by_side(kind: str) -> None:
    n = lanes(np.dtype(kind).itemsize)
    source, sums, twice = numbers(2 * n, kind), np.zeros(n, kind), np.zeros(2 * n, kind)
    add_pairs(sums, source)
    assert np.array_equal(sums, source.reshape(-1, 2).sum(axis=1))
    double(twice, source)
    assert np.array_equal(twice, np.repeat(source[:n], 2))
    take_root(sums, source)
    assert np.array_equal(sums, np.sqrt(source[:n]))


@NUMBERS
@pytest.mark.parametrize("known", [-3, 0, 1, 5, 40])
def test_nothing_is_read_beyond_what_is_known_or_the_end(kind: str, known: int) -> None:
    n = lanes(np.dtype(kind).itemsize)
    source = numbers(3 * n, kind)
    for place in (0, 7, 2 * n, 2 * n + 1, 3 * n - 1):
        found = np.full(n, np.nan, kind)
        take_first(found, source, place, known)
        wanted = np.zeros(n, kind)
        there = source[place : place + max(0, min(known, n))]
        wanted[: len(there)] = there
        assert np.array_equal(found, wanted)
    source[:] = np.nan
    found = np.ones(n, kind)
    take_first(found, source, 2, 0)
    assert not found.any(), "nor is it multiplied by zero"


def test_pixels_become_floats() -> None:
    found, source = np.zeros(16, np.float32), np.array([*range(250), *range(6)], np.uint8)
    for given in (source, source.astype(np.float32)):
        take_pixels(found, given, 237)
        assert np.array_equal(found, [*range(237, 250), 0, 1, 2])
