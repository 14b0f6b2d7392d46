"""What tokens are told of their place: a vector for each, or fewer that places share.

Each kind is a table of vectors, and says which of them each patch adds up. Sharing is a statement about images: "row"
that columns do not matter, "mirror" that left and right do not, "d4" that no turn or mirror image does, "factored" that
rows and columns act apart. "sincos" has nothing to learn.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from qvit.errors import ModelError

Positions = Literal["learned", "factored", "row", "mirror", "d4", "sincos"]
PERIOD = 10_000.0  # the longest wave of "sincos", in patches, over 2π


def check_positions(kind: str) -> None:
    """Raise `ModelError` for an unknown kind."""
    if kind not in get_args(Positions):
        *others, last = (f"'{name}'" for name in get_args(Positions))
        raise ModelError(f"positions must be {', '.join(others)} or {last}, got '{kind}'.")


@lru_cache(maxsize=256)
def places(kind: str, side: int) -> tuple[tuple[int, ...], ...]:
    """Return which vectors of the table each of side × side patches adds up, row by row; of "sincos" none."""
    grid = [(y, x) for y in range(side) for x in range(side)]
    if kind == "factored":
        return tuple((y, side + x) for y, x in grid)
    if kind == "row":
        return tuple((y,) for y, _ in grid)
    if kind == "sincos":
        return tuple(() for _ in grid)
    alike: dict[tuple[int, ...], int] = {}
    return tuple((alike.setdefault(_NAMES[kind](y, x, side - 1), len(alike)),) for y, x in grid)


# Names of places, by row, column and the last of them; places with one name share a vector.
_NAMES: dict[str, Callable[[int, int, int], tuple[int, ...]]] = {
    "learned": lambda y, x, _: (y, x),
    "mirror": lambda y, x, last: (y, min(x, last - x)),
    "d4": lambda y, x, last: tuple(sorted((min(y, last - y), min(x, last - x)))),
}


def table_size(kind: str, side: int) -> int:
    """Return the number of vectors in the table, 0 of "sincos"."""
    return 1 + max((place for each in places(kind, side) for place in each), default=-1)


def gathered(table: Float[Tensor, "*m 1 k d"], kind: str, side: int) -> Float[Tensor, "*m 1 n d"]:
    """Return what is added to the tokens of side × side patches."""
    if kind == "learned":
        return table
    first, *others = (table.index_select(-2, index) for index in _indices(kind, side, table.device))
    return first if not others else first + others[0]


@lru_cache(maxsize=64)
def _indices(kind: str, side: int, device: torch.device) -> tuple[Int64[Tensor, " n"], ...]:
    with torch.inference_mode(False):  # kept beyond this call
        return tuple(torch.tensor(column, device=device) for column in zip(*places(kind, side), strict=True))


def waves(side: int, dim: int) -> Float[Tensor, "1 n d"]:
    """Return sines and cosines of the row in the first half of the features, and of the column in the others.

    Source: Vaswani et al. 2017, for two axes as in Chen et al. 2021 (arXiv:2104.02057).
    """
    rows = dim - dim // 2
    grid = torch.arange(side, dtype=torch.float64)
    down = [_wave(grid, place, rows)[:, None].expand(side, side) for place in range(rows)]
    right = [_wave(grid, place, dim - rows).expand(side, side) for place in range(dim - rows)]
    return torch.stack(down + right, dim=-1).reshape(1, side**2, dim).float()


def _wave(grid: Float[Tensor, " s"], place: int, width: int) -> Float[Tensor, " s"]:
    angles = grid * PERIOD ** -(2 * (place // 2) / width)
    return angles.cos() if place % 2 else angles.sin()
