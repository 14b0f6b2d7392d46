"""Sums of the rows of a picture over the cells of a coarser grid, compiled: it reads every pixel once."""

from qvit.cpu.compiled import jit


@jit
def sum_rows(pixels, top, rows, left, columns, first, side, size, sums):
    """Add `rows` rows of `pixels` (h, w) from `top`, each `columns` wide from `left`, to the cells (size, w) they meet.

    The first row is number `first` of `side` rows, which `size` cells share: a row counts by what it has of a cell, in
    1/size row. `sums` is (size, columns), contiguous.
    """
    for row in range(rows):
        start = (first + row) * size
        cell = start // side
        inside = min((cell + 1) * side - start, size)
        share = sums.dtype.type(inside)
        for column in range(columns):
            sums[cell, column] += share * pixels[top + row, left + column]
        if inside < size:
            rest = sums.dtype.type(size - inside)
            for column in range(columns):
                sums[cell + 1, column] += rest * pixels[top + row, left + column]
