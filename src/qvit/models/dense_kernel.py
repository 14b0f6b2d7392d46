"""A dense layer on features laid out one after another, compiled: tokens of all images in the lanes of vectors.

`x` holds `(m, d, t)` numbers for m models, results `(m, o, t)`, t at least a vector's length. `laid` holds weights
for each model: rows that a feature is multiplied by, each filled up to a multiple of four. A part is `per_part` vectors
of columns of one model, whatever the number of models and threads. The last vector of a row ends where the row does.
Every column is computed by the same operations in the same order, wherever it is.
"""

from qvit.cpu.bundles import add_products, add_scaled, repeated, scaled, store_totals
from qvit.cpu.compiled import jit
from qvit.cpu.rows import count, fresh, load_at, start, store_at
from qvit.cpu.vectors import BYTES, splat

_FOUR = (0, 0, 0, 0)


@jit
def _store_four(target, at, step, known, sums):
    """Write the first `known` of four vectors, `step` numbers apart."""
    store_at(target, at, sums[0])
    if known > 1:
        store_at(target, at + step, sums[1])
    if known > 2:
        store_at(target, at + 2 * step, sums[2])
    if known > 3:
        store_at(target, at + 3 * step, sums[3])


@jit
def multiply(source, ins, laid, place, outs, padded, target, model, t, first, end):
    """Write laid rows · `ins` features, plus the row before them, for the vectors `first` to `end` of columns."""
    one, size = splat(source.dtype.type(1)), source.itemsize
    at, to = model * ins * t, model * outs * t
    for block in range(first, end, 2):
        a, b = start(block, t, size), start(min(block + 1, end - 1), t, size)
        for r in range(0, outs, 4):
            left = add_scaled(repeated(_FOUR, one - one), one, laid, place + r)
            right = left
            for c in range(ins):
                row = place + (c + 1) * padded + r
                left = add_scaled(left, load_at(source, at + c * t + a), laid, row)
                right = add_scaled(right, load_at(source, at + c * t + b), laid, row)
            _store_four(target, to + r * t + a, t, outs - r, left)
            _store_four(target, to + r * t + b, t, outs - r, right)


@jit
def forward(x, d, laid, o, padded, y, t, first, last, per_part):
    """Write weights · x + bias for parts `first` to `last`; `laid` is `(m, 1 + d, padded)`, the biases first."""
    blocks = count(t, x.itemsize)
    parts = (blocks + per_part - 1) // per_part
    for part in range(first, last):
        model, begin = part // parts, part % parts * per_part
        end = min(begin + per_part, blocks)
        multiply(x, d, laid, model * (1 + d) * padded, o, padded, y, model, t, begin, end)


@jit
def _four(array, at, step, last):
    """Return rows of four features; those after the last one are that one."""
    return (
        load_at(array, at),
        load_at(array, at + min(1, last) * step),
        load_at(array, at + min(2, last) * step),
        load_at(array, at + min(3, last) * step),
    )


@jit
def _outer(x, d, g, o, sums, row, model, t, begin, end):
    """Write Σ over columns of gradients · features and of gradients, from `row` of `sums` on.

    For four gradients at a time: a row for every four features, then one of their own sums.
    """
    lanes, zero = BYTES // x.itemsize, splat(x.dtype.type(0))
    none = repeated(_FOUR, zero)
    for r in range(0, o, 4):
        own = none
        for c in range(0, d, 4):
            s0, s1, s2, s3, own = none, none, none, none, none
            for block in range(begin, end):
                at = start(block, t, x.itemsize)
                new = fresh(zero, block * lanes - at)
                slopes = scaled(_four(g, (model * o + r) * t + at, t, o - 1 - r), new)
                features = _four(x, (model * d + c) * t + at, t, d - 1 - c)
                s0, s1 = add_products(s0, slopes[0], features), add_products(s1, slopes[1], features)
                s2, s3 = add_products(s2, slopes[2], features), add_products(s3, slopes[3], features)
                own = add_products(own, new, slopes)
            store_totals(sums, row, s0 + s1 + s2 + s3)
            row += 1
        store_totals(sums, row, own)
        row += 1


@jit
def backward(x, d, laid, g, o, padded, found, sums, t, first, last, per_part):
    """Write the gradients of `x`, and those of weights and biases: `sums`, rows of a vector's length for each part.

    `laid` is `(m, 1 + o, padded)`, the first row zeros.
    """
    blocks, rows = count(t, x.itemsize), (o + 3) // 4 * ((d + 3) // 4 + 1)
    parts = (blocks + per_part - 1) // per_part
    for part in range(first, last):
        model, begin = part // parts, part % parts * per_part
        end = min(begin + per_part, blocks)
        multiply(g, o, laid, model * (1 + o) * padded, d, padded, found, model, t, begin, end)
        _outer(x, d, g, o, sums, part * rows, model, t, begin, end)
