"""Rounded tables: every cell and every sum is one of the two nearest whole numbers, by the right chances."""

import numpy as np
import pytest

from qvit.data.rounding import round_table


@pytest.mark.parametrize("columns", [2, 3, 5, 7])
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_every_sum_is_rounded(rows: int, columns: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng([rows, columns, seed])
        table = rng.integers(1, 900, (rows, 1)) * rng.dirichlet(np.ones(columns), rows)
        rounded = round_table(table, rng)
        np.testing.assert_array_equal(rounded.sum(axis=1), table.sum(axis=1).round())
        assert (abs(rounded - table) < 1).all()
        assert (abs((rounded - table).sum(axis=0)) < 1).all()


def test_whole_tables_stay() -> None:
    table = np.array([[3, 0, 1], [0, 0, 0], [10**6, 1, 2]])
    for shift in (0.0, 1e-10, -1e-10):  # as sums of shares have it
        np.testing.assert_array_equal(round_table(table + shift, np.random.default_rng(0)), table)


@pytest.mark.long
def test_cells_keep_their_values_on_average() -> None:
    table = np.array([[0.7, 0.1, 0.2], [1.4, 0.2, 0.4], [2.1, 0.3, 0.6], [0.35, 0.6, 0.05]])
    draws = 500
    rng = np.random.default_rng(0)
    mean = sum(round_table(table, rng) for _ in range(draws)) / draws
    part = table % 1
    assert (abs(mean - table) <= 4.5 * np.sqrt(part * (1 - part) / draws)).all()
