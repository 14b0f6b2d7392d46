"""Positions: which places share a vector, and what a model that shares them cannot tell apart."""

import math

import pytest
import torch

from qvit.errors import ModelError
from qvit.models.positions import check_positions, gathered, places, table_size, waves


@pytest.mark.parametrize(
    ("kind", "side", "size"),
    [
        *(("learned", 7, 49), ("factored", 7, 14), ("row", 7, 7), ("sincos", 7, 0)),
        *(("mirror", 7, 28), ("mirror", 4, 8), ("d4", 7, 10), ("d4", 4, 3)),
    ],
)
def test_tables_have_as_many_vectors_as_places_that_differ(kind: str, side: int, size: int) -> None:
    assert table_size(kind, side) == size
    used = {place for each in places(kind, side) for place in each}
    assert used == set(range(size))


SYMMETRIES = {
    "row": lambda grid: grid.roll(1, 1),
    "mirror": lambda grid: grid.flip(1),
    "d4": lambda grid: grid.rot90(1, (0, 1)).flip(1),
}


@pytest.mark.parametrize("kind", SYMMETRIES)
def test_shared_vectors_are_where_they_should_be(kind: str) -> None:
    side = 5
    table = torch.randn(1, table_size(kind, side), 3)
    grid = gathered(table, kind, side).reshape(side, side, 3)
    assert torch.equal(SYMMETRIES[kind](grid), grid)
    assert not torch.equal(grid[0, 0], grid[1, 1])
    others = {"row": "d4", "mirror": "row", "d4": "row"}
    assert not torch.equal(SYMMETRIES[others[kind]](grid), grid)


def test_rows_and_columns_add_up() -> None:
    table = torch.randn(2, 1, 8, 3)
    grid = gathered(table, "factored", 4).reshape(2, 4, 4, 3)
    for y in range(4):
        for x in range(4):
            torch.testing.assert_close(grid[:, y, x], table[:, 0, y] + table[:, 0, 4 + x])
    assert gathered(table, "learned", 4) is table


@pytest.mark.parametrize("dim", [1, 5, 8])
def test_waves_are_those_of_row_and_column(dim: int) -> None:
    found = waves(4, dim)[0].reshape(4, 4, dim)
    rows = dim - dim // 2
    for y, x, place in [(0, 0, 0), (3, 1, 0), (2, 3, dim - 1), (1, 2, dim // 2)]:
        index, width, where = (place, rows, y) if place < rows else (place - rows, dim // 2, x)
        angle = where / 10_000 ** (2 * (index // 2) / width)
        assert found[y, x, place].item() == pytest.approx([math.sin, math.cos][index % 2](angle), abs=1e-6)


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"must be 'learned', 'factored', 'row', 'mirror', 'd4' or 'sincos', got 'rope'"
    ):
        check_positions("rope")
