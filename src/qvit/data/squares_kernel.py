"""Sums of the pixels of a picture over the cells of a coarser grid, compiled: they read every pixel once.

A picture has `rows` rows from `top`, each `columns` numbers wide from `left`. The first row is number `first` of `side`
rows, which `size` cells share: a row counts by what it has of a cell, in 1/size row. So do columns.
"""

import numpy as np

from qvit.cpu.compiled import jit


@jit
def sum_rows(pixels, top, rows, left, columns, first, side, size, sums):
    """Add the rows of `pixels` (h, w) to the cells (size, w) they meet; `sums` is (size, columns), contiguous."""
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


@jit
def sum_bytes(pixels, top, rows, left, columns, first, side, size, whole, sums):
    """Do as `sum_rows` with bytes, exactly: rows that lie in one cell are added first, to `whole` (size, columns).

    `whole` and `sums`, unsigned and zero at the beginning, have to hold 255 · side / size and 255 · side.
    """
    narrow, wide = whole.dtype.type, sums.dtype.type
    begin = np.uint64(left)  # an index that may be negative is looked at, one by one
    for row in range(rows):
        start = (first + row) * size
        cell = start // side
        inside = min((cell + 1) * side - start, size)
        if inside == size:
            for column in range(np.uint64(columns)):
                whole[cell, column] += narrow(pixels[top + row, begin + column])
        else:
            share, rest = wide(inside), wide(size - inside)
            for column in range(np.uint64(columns)):
                sums[cell, column] += share * wide(pixels[top + row, begin + column])
            for column in range(np.uint64(columns)):
                sums[cell + 1, column] += rest * wide(pixels[top + row, begin + column])
    for cell in range(size):
        for column in range(columns):
            sums[cell, column] += wide(size) * wide(whole[cell, column])


@jit
def sum_columns(sums, channels, first, side, size, total):
    """Add `sums` (size, columns · channels) to the cells they meet: `total` (size, size, channels), float64.

    The first column is number `first` of `side`. Whole numbers below 2^53 are added exactly.
    """
    for column in range(sums.shape[1] // channels):
        start = (first + column) * size
        cell = start // side
        inside = min((cell + 1) * side - start, size)
        for row in range(size):
            for channel in range(channels):
                value = float(sums[row, column * channels + channel])
                total[row, cell, channel] += inside * value
                if inside < size:
                    total[row, cell + 1, channel] += (size - inside) * value
