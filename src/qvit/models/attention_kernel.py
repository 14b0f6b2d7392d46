"""Attention of narrow heads, compiled: one head at a time, its scores never leave the cache.

A vector holds as many queries as a register has lanes. Rows of a head are copied into rows of `stride` numbers, a
whole number of vectors, and their count is filled up to a multiple of four, both with zeros. Scores are in units of
log 2. `room` holds seven scratch arrays.
"""

from qvit.cpu.compiled import jit
from qvit.cpu.vectors import BYTES, larger, like, load, power_of_two, splat, spread, store, total


@jit
def _gather(target, source, head, n, stride):
    """Copy the rows `(width, n)` of a head; return their number, filled up to a multiple of four."""
    width = source.shape[1]
    rows = (width + 3) // 4 * 4
    for row in range(rows):
        line = target[row * stride : (row + 1) * stride]
        known = n if row < width else 0
        if known:
            given = source[head, row]
            for i in range(n):
                line[i] = given[i]
        for i in range(known, stride):
            line[i] = 0
    return rows


@jit
def _scatter(target, source, head, n, stride):
    """Copy rows back to a head."""
    for row in range(target.shape[1]):
        line, given = target[head, row], source[row * stride : (row + 1) * stride]
        for i in range(n):
            line[i] = given[i]


@jit
def _combine(vectors, numbers, rows, stride, blocks, block, j):
    """Return Σ over rows of vectors[row, block] · numbers[row, j]."""
    a = load(vectors, block) * spread(numbers, j)
    b = load(vectors, blocks + block) * spread(numbers, stride + j)
    for c in range(2, rows, 2):
        a = a + load(vectors, c * blocks + block) * spread(numbers, c * stride + j)
        b = b + load(vectors, (c + 1) * blocks + block) * spread(numbers, (c + 1) * stride + j)
    return a + b


@jit
def _accumulate(target, weights, numbers, rows, n, stride, blocks, block, factor):
    """Write factor · Σ_j weights[j, block] · numbers[row, j] to the rows of `target`."""
    zero = factor - factor
    for c in range(0, rows, 4):
        a0, a1, a2, a3 = zero, zero, zero, zero
        for j in range(n):
            p, place = load(weights, j * blocks + block), c * stride + j
            a0 = a0 + p * spread(numbers, place)
            a1 = a1 + p * spread(numbers, place + stride)
            a2 = a2 + p * spread(numbers, place + 2 * stride)
            a3 = a3 + p * spread(numbers, place + 3 * stride)
        store(target, c * blocks + block, a0 * factor)
        store(target, (c + 1) * blocks + block, a1 * factor)
        store(target, (c + 2) * blocks + block, a2 * factor)
        store(target, (c + 3) * blocks + block, a3 * factor)


@jit
def _reduce(target, head, vectors, weights, n, blocks, scale):
    """Write scale · Σ over queries of vectors[row] · weights[j] to target[head, row, j]."""
    for j in range(n):
        for c in range(target.shape[1]):
            sums = load(vectors, c * blocks) * load(weights, j * blocks)
            for block in range(1, blocks):
                sums = sums + load(vectors, c * blocks + block) * load(weights, j * blocks + block)
            target[head, c, j] = total(sums) * scale


@jit
def forward(queries, keys, values, room, out, most, inverse, scale, first, last):
    """Write results `(head, q, n)` for heads `first` to `last`; scores are scaled by `scale`, log₂ e included.

    `most` and `inverse` `(head, stride)` keep each query's largest score and 1/Σ 2^(score − largest), for `backward`.
    """
    n, stride = queries.shape[2], most.shape[1]
    q, k, v, o, scores = room[0], room[1], room[2], room[3], room[4]
    blocks = stride * queries.itemsize // BYTES
    for head in range(first, last):
        rows = _gather(q, queries, head, n, stride)
        _gather(k, keys, head, n, stride)
        wide = _gather(v, values, head, n, stride)
        for block in range(blocks):
            factor = splat(scale)
            largest = _combine(q, k, rows, stride, blocks, block, 0) * factor
            store(scores, block, largest)
            for j in range(1, n):
                score = _combine(q, k, rows, stride, blocks, block, j) * factor
                store(scores, j * blocks + block, score)
                largest = larger(largest, score)
            sums = factor - factor
            for j in range(n):
                weight = power_of_two(load(scores, j * blocks + block) - largest)
                store(scores, j * blocks + block, weight)
                sums = sums + weight
            share = like(sums, 1.0) / sums
            _accumulate(o, scores, v, wide, n, stride, blocks, block, share)
            store(most, head * blocks + block, largest)
            store(inverse, head * blocks + block, share)
        _scatter(out, o, head, n, stride)


@jit
def backward(
    queries, keys, values, room, out, gradient, most, inverse, to_queries, to_keys, to_values, scale, plain, first, last
):
    """Write the gradients of queries, keys and values; `plain` is the scale without log₂ e."""
    n, stride = queries.shape[2], most.shape[1]
    q, k, v, o, weights, g, slopes = room[0], room[1], room[2], room[3], room[4], room[5], room[6]
    blocks = stride * queries.itemsize // BYTES
    for head in range(first, last):
        rows = _gather(q, queries, head, n, stride)
        _gather(k, keys, head, n, stride)
        wide = _gather(v, values, head, n, stride)
        _gather(o, out, head, n, stride)
        _gather(g, gradient, head, n, stride)
        for block in range(blocks):
            factor = splat(scale)
            largest, share = load(most, head * blocks + block), load(inverse, head * blocks + block)
            mean = factor - factor
            for c in range(wide):
                mean = mean + load(g, c * blocks + block) * load(o, c * blocks + block)
            for j in range(n):  # through the softmax: p·(∂p − Σ p·∂p), where the sum is that of gradient · result
                score = _combine(q, k, rows, stride, blocks, block, j) * factor
                # A score rounded differently than in the forward pass may exceed the largest by a last digit.
                weight = power_of_two(-larger(factor - factor, largest - score)) * share
                slope = weight * (_combine(g, v, wide, stride, blocks, block, j) - mean)
                store(weights, j * blocks + block, weight)
                store(slopes, j * blocks + block, slope)
            _accumulate(o, slopes, k, rows, n, stride, blocks, block, splat(plain))
        _scatter(to_queries, o, head, n, stride)
        _reduce(to_keys, head, q, slopes, n, blocks, plain)
        _reduce(to_values, head, g, weights, n, blocks, plain / plain)
