"""Search of pairs of images whose numbers are close, compiled: sixteen images at a time, four against them.

`rows` has all numbers of each image, `width` vectors of 16. `columns` has the first vector's numbers of sixteen images
in a vector each, and `halves` half of their squared lengths. Images are filled up to a multiple of 16.
"""

from qvit.cpu.compiled import jit
from qvit.cpu.vectors import larger, like, load, spread, store, total

LANES = 16
TILE = 256  # images of a tile of the search
_WIDE = 128  # vectors of images that stay in the cache


@jit
def _within(rows, i, j, width, bounds, so_far):
    """Return whether the squared distance of two rows, known for the first vector, keeps within all bounds."""
    for k in range(1, width):
        difference = load(rows, i * width + k) - load(rows, j * width + k)
        so_far += total(difference * difference)
        if so_far > bounds[k]:
            return False
    return True


@jit
def search(columns, halves, rows, room, found, counts, bounds, images, tiles, first, last):
    """Write pairs i < j to `found` (parts, places, 2) whose squared distances keep within `bounds`.

    There is one bound for each vector of a row: of the distance by the numbers up to it. A part takes one tile of
    images and compares it with all later ones; `tiles` has the tile of each. `counts` has the pairs of each part, also
    those for which there was no place. `room` has 64 numbers for each part.
    """
    width, places, end = bounds.shape[0], found.shape[1], (images + LANES - 1) // LANES
    limit = bounds[0] * 0.5
    for part in range(first, last):
        count, begin, stop = 0, tiles[part] * TILE, min(images, (tiles[part] + 1) * TILE)
        for wide in range(begin // LANES, end, _WIDE):
            for i in range(begin, stop, 4):
                place = i // LANES * LANES * LANES + i % LANES
                for block in range(max(wide, i // LANES), min(end, wide + _WIDE)):
                    half = load(halves, block)
                    zero = half - half
                    a0 = like(zero, limit - halves[i]) - half
                    a1 = like(zero, limit - halves[i + 1]) - half
                    a2 = like(zero, limit - halves[i + 2]) - half
                    a3 = like(zero, limit - halves[i + 3]) - half
                    for k in range(LANES):
                        other, at = load(columns, block * LANES + k), place + k * LANES
                        a0 = a0 + other * spread(columns, at)
                        a1 = a1 + other * spread(columns, at + 1)
                        a2 = a2 + other * spread(columns, at + 2)
                        a3 = a3 + other * spread(columns, at + 3)
                    if total(larger(larger(larger(a0, a1), larger(a2, a3)), zero)) <= 0:
                        continue
                    store(room, part * 4, a0)
                    store(room, part * 4 + 1, a1)
                    store(room, part * 4 + 2, a2)
                    store(room, part * 4 + 3, a3)
                    for left in range(i, i + 4):
                        line = part * 4 + left - i
                        if total(larger(load(room, line), zero)) <= 0:
                            continue
                        for lane in range(LANES):
                            right, score = block * LANES + lane, room[line * LANES + lane]
                            if score <= 0 or left >= right or right >= images:
                                continue
                            if _within(rows, left, right, width, bounds, bounds[0] - 2 * score):
                                if count < places:
                                    found[part, count, 0] = left
                                    found[part, count, 1] = right
                                count += 1
        counts[part] = count
