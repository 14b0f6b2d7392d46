"""Fixed features of patches (`models.features`), compiled: an image's plane stays in the cache while it is described.

A plane lies in `room` row by row, filled up to whole vectors and one more, so that a vector may begin at any pixel. The
numbers beyond a row's end are never read for a patch.
"""

import numpy as np

from qvit.cpu.compiled import jit
from qvit.cpu.rows import entry, load_at, store_at
from qvit.cpu.vectors import larger, spread

LANES = 16


@jit
def _mirrored(place, side):
    """Return which pixel stands at a place that may lie beyond an edge."""
    while place < 0 or place >= side:
        place = -1 - place if place < 0 else 2 * side - 1 - place
    return place


@jit
def _blur_off(room, plane, sharp, line, side, stride, taps, reach):
    """Write the plane less its blur to `sharp`, row by row; beyond its edges the plane is mirrored."""
    for y in range(side):
        for x in range(0, stride - LANES, LANES):
            blurred = load_at(room, plane + y * stride + x) * spread(taps, reach)
            for k in range(1, reach + 1):
                above, below = _mirrored(y - k, side), _mirrored(y + k, side)
                both = load_at(room, plane + above * stride + x) + load_at(room, plane + below * stride + x)
                blurred = blurred + both * spread(taps, reach + k)
            store_at(room, line + reach + x, blurred)
        for x in range(reach):
            room[line + x] = room[line + reach + _mirrored(x - reach, side)]
            room[line + reach + side + x] = room[line + reach + _mirrored(side + x, side)]
        for x in range(0, stride - LANES, LANES):
            left = load_at(room, plane + y * stride + x) - load_at(room, line + reach + x) * spread(taps, reach)
            for k in range(1, reach + 1):
                both = load_at(room, line + reach + x - k) + load_at(room, line + reach + x + k)
                left = left - both * spread(taps, reach + k)
            store_at(room, sharp + y * stride + x, left)


@jit
def _sums(room, plane, sharp, sums, stride, patch, waves):
    """Add up a row of patches down their columns: three waves of their pixels, and four differences of the sharp ones.

    `plane` and `sharp` are where the row of patches begins, `sums` where the seven rows of results do.
    """
    for x in range(0, stride - LANES, LANES):
        pixel = load_at(room, plane + x)
        zero = pixel - pixel
        first, second, third, right, down, along, across = zero, zero, zero, zero, zero, zero, zero
        for i in range(patch):
            pixel, edge = load_at(room, plane + i * stride + x), load_at(room, sharp + i * stride + x)
            first = first + pixel * spread(waves, i)
            second = second + pixel * spread(waves, patch + i)
            third = third + pixel * spread(waves, 2 * patch + i)
            beside = load_at(room, sharp + i * stride + x + 1)
            right = right + larger(beside - edge, edge - beside)
            if i + 1 < patch:
                below = load_at(room, sharp + (i + 1) * stride + x)
                corner = load_at(room, sharp + (i + 1) * stride + x + 1)
                down = down + larger(below - edge, edge - below)
                along = along + larger(corner - edge, edge - corner)
                across = across + larger(below - beside, beside - below)
        store_at(room, sums + x, first)
        store_at(room, sums + stride + x, second)
        store_at(room, sums + 2 * stride + x, third)
        store_at(room, sums + 3 * stride + x, right)
        store_at(room, sums + 4 * stride + x, down)
        store_at(room, sums + 5 * stride + x, along)
        store_at(room, sums + 6 * stride + x, across)


@jit
def _squares(room, plane, means, squares, stride, patch):
    """Add up the squared distances of a row of patches from their means, down their columns."""
    for x in range(0, stride - LANES, LANES):
        mean = load_at(room, means + x)
        total = mean - mean
        for i in range(patch):
            moved = load_at(room, plane + i * stride + x) - mean
            total = total + moved * moved
        store_at(room, squares + x, total)


@jit
def _along(room, place, count):
    total = np.float32(0)
    for j in range(count):
        total += entry(room, place + j)
    return total


@jit
def describe(images, scale, sizes, degrees, waves, taps, least, room, out, first, last):
    """Write the features of planes `first` to `last` to `out` (planes, features, patches, patches), flat as `images`.

    `sizes` has side, patch, the number of coefficients, and how far a blur reaches, 0 without one: then there is no
    deviation. `degrees` are the waves down and along of each coefficient, `waves` (3, patch) their values. `room` has
    2·side + 11 rows of side numbers, filled up to whole vectors and one more, and twice the reach; zeros at first.
    """
    side, patch, count, reach = sizes[0], sizes[1], sizes[2], sizes[3]
    across, inner, stride = side // patch, patch - 1, (side + LANES - 1) // LANES * LANES + LANES
    features = count + 4 + (1 if reach > 0 else 0)
    sharp, sums = side * stride if reach > 0 else 0, 2 * side * stride
    means, squares, line = sums + 7 * stride, sums + 8 * stride, sums + 9 * stride
    straight, slanted, cells = np.float32(patch * inner), np.float32(inner * inner), across * across
    for number in range(first, last):
        for y in range(side):
            for x in range(side):
                room[y * stride + x] = np.float32(entry(images, (number * side + y) * side + x)) * scale
        if reach > 0:
            _blur_off(room, 0, sharp, line, side, stride, taps, reach)
        for r in range(across):
            top = r * patch * stride
            _sums(room, top, sharp + top, sums, stride, patch, waves)
            for c in range(across):
                target, left = (number * features * across + r) * across + c, c * patch
                for k in range(count):
                    row, wave, total = sums + degrees[2 * k] * stride + left, degrees[2 * k + 1] * patch, np.float32(0)
                    for j in range(patch):
                        total += entry(room, row + j) * entry(waves, wave + j)
                    out[target + k * cells] = total
                for k in range(4):
                    total = _along(room, sums + (3 + k) * stride + left, patch if k == 1 else inner)
                    out[target + (count + k) * cells] = total / (straight if k < 2 else slanted)
                for j in range(patch):
                    room[means + left + j] = out[target]
            if reach > 0:
                _squares(room, top, means, squares, stride, patch)
                for c in range(across):
                    variance = _along(room, squares + c * patch, patch) / np.float32(patch * patch)
                    target = ((number * features + features - 1) * across + r) * across + c
                    out[target] = np.sqrt(max(variance, least))
