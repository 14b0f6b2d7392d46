"""Rounding of a table that keeps its sums: how many images of each class go to each side."""

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

_WHOLE = 1e-6  # parts this small are none


def round_table(table: Float[np.ndarray, "r c"], rng: np.random.Generator) -> Int64[np.ndarray, "r c"]:
    """Round a table whose rows have whole sums, at random: each cell up or down, and each column's sum likewise.

    Rows keep their sums, and cells their values on average. Cells along a closed path change by the same amount, up
    and down in turn, until one is whole; then the next path. Source: Cox 1987, A constructive procedure for unbiased
    controlled rounding.
    """
    total = table.sum(axis=0)
    cells = np.vstack([table, np.ceil(total - _WHOLE) - total])  # one more row, and columns have whole sums, too
    whole = np.floor(cells + _WHOLE)
    part = np.asfortranarray(cells - whole)
    loose = part > _WHOLE
    for row in range(len(part)):
        while loose[row].any():
            rows, columns = _cycle(loose, row)
            up, down = (rows, columns), (rows, columns[1:] + columns[:1])
            rise = min(1 - part[up].max(), part[down].min())
            fall = min(part[up].min(), 1 - part[down].max())
            change = rise if rng.random() * (rise + fall) < fall else -fall
            for place, by in ((up, change), (down, -change)):
                part[place] += by
                loose[place] = (part[place] > _WHOLE) & (part[place] < 1 - _WHOLE)
    return (whole + np.rint(part))[:-1].astype(np.int64)


def _cycle(loose: NDArray[np.bool_], row: int) -> tuple[list[int], list[int]]:
    """Return rows and columns of a closed path: cells (row i, column i) and (row i, column i + 1) are all loose."""
    rows, columns = [row], [int(loose[row].argmax())]
    while True:
        column = _another(loose[row], columns[-1])
        if column in columns:
            start = columns.index(column)
            return rows[start:], columns[start:]
        columns.append(column)
        row = _another(loose[:, column], row)
        rows.append(row)


def _another(loose: NDArray[np.bool_], place: int) -> int:
    """Return a loose place other than a given one; there is one, as what is loose has a whole sum."""
    first = int(loose.argmax())
    return first if first != place else place + 1 + int(loose[place + 1 :].argmax())
