"""Patches times weights, compiled: pixels in the lanes of vectors, as they lie in memory, so that no patch is gathered.

A line is all that patches have of one row of theirs in one channel, patch after patch, each filled up with zeros to
`width` pixels, a power of two from 2 to a vector's length; longer rows of patches are several lines. As the width
divides a vector, one vector of weights does for a whole line, and the products of a patch end up side by side, to be
added in pairs; the backward pass repeats the gradient of a token for all of its pixels instead.

An image is worked on `rows` rows of patches at a time, which stay in the cache: `patches` `(lines, length)`, less the
channel's mean, `most` · `mean`; `most` is the largest pixel. Weights are divided by the deviation, `most` · `std`:
`filters` `(lines, features)`, a vector each, features filled up to a multiple of four. `sums` is `(features, length)`.
A part is `per_part` images of one model, whatever the number of models and threads.
"""

from qvit.cpu.compiled import jit
from qvit.cpu.rows import (
    count,
    doubled_first,
    doubled_second,
    load_at,
    load_first,
    load_pixels,
    paired,
    start,
    store_at,
)
from qvit.cpu.vectors import BYTES, load, splat, store


@jit
def _fill(filters, weight, std, most, model, width, features):
    """Write the weights of one model, as often as they go into a vector."""
    _, d, channels, patch, _ = weight.shape
    lanes, line = BYTES // filters.itemsize, 0
    filters[:] = 0
    for channel in range(channels):
        scale = 1 / (most * std[model, channel])
        for i in range(patch):
            for begin in range(0, patch, width):
                for f in range(d):
                    for j in range(min(width, patch - begin)):
                        number = weight[model, f, channel, i, begin + j] * scale
                        for k in range(j, lanes, width):
                            filters[(line * features + f) * lanes + k] = number
                line += 1


@jit
def _copy_pieces(patches, target, pixels, source, side, centre, patch, begin, width):
    """Copy pixels `begin` to `begin` + `width` of each patch of a row of an image."""
    for x in range(side // patch):
        for j in range(min(width, patch - begin)):
            pixel = patches.dtype.type(pixels[source + x * patch + begin + j])
            patches[target + x * width + j] = pixel - centre


@jit
def _gather(patches, length, pixels, at, side, mean, most, model, patch, width, rows):
    """Copy rows of patches of one image, whose channels begin at `at`, less the mean of their channel."""
    whole, across = width == patch and side * patches.itemsize >= BYTES, side // patch * width
    line = 0
    for channel in range(mean.shape[1]):
        centre = most * mean[model, channel]
        for i in range(patch):
            for begin in range(0, patch, width):
                for y in range(rows):
                    source, target = at + (channel * side + y * patch + i) * side, line * length + y * across
                    if whole:
                        for block in range(count(side, patches.itemsize)):
                            t = start(block, side, patches.itemsize)
                            store_at(patches, target + t, load_pixels(pixels, source + t) - splat(centre))
                    else:
                        _copy_pieces(patches, target, pixels, source, side, centre, patch, begin, width)
                line += 1


@jit
def _multiply(patches, filters, sums, lines, features, blocks):
    """Write Σ over lines of patches · filters, neighbouring lanes added: for each feature, half as many vectors."""
    for pair in range(blocks // 2):
        for f in range(0, features, 4):
            a, b = load(patches, 2 * pair), load(patches, 2 * pair + 1)
            w0, w1, w2, w3 = load(filters, f), load(filters, f + 1), load(filters, f + 2), load(filters, f + 3)
            a0, a1, a2, a3 = a * w0, a * w1, a * w2, a * w3
            b0, b1, b2, b3 = b * w0, b * w1, b * w2, b * w3
            for line in range(1, lines):
                place, row = line * blocks + 2 * pair, line * features + f
                a, b = load(patches, place), load(patches, place + 1)
                w0, w1 = load(filters, row), load(filters, row + 1)
                a0, a1, b0, b1 = a0 + a * w0, a1 + a * w1, b0 + b * w0, b1 + b * w1
                w2, w3 = load(filters, row + 2), load(filters, row + 3)
                a2, a3, b2, b3 = a2 + a * w2, a3 + a * w3, b2 + b * w2, b3 + b * w3
            store(sums, f * blocks + pair, paired(a0, b0))
            store(sums, (f + 1) * blocks + pair, paired(a1, b1))
            store(sums, (f + 2) * blocks + pair, paired(a2, b2))
            store(sums, (f + 3) * blocks + pair, paired(a3, b3))


@jit
def _fold(sums, d, width, blocks):
    """Add neighbouring lanes of half of `blocks` vectors until there is one lane for each patch."""
    given = blocks // 2
    while width > 2:
        left = (given + 1) // 2
        for f in range(d):
            for k in range(left):  # without a neighbour the last one takes itself: there are no patches in those lanes
                a, b = load(sums, f * blocks + 2 * k), load(sums, f * blocks + min(2 * k + 1, given - 1))
                store(sums, f * blocks + k, paired(a, b))
        width, given = width // 2, left


@jit
def forward(pixels, mean, std, most, weight, added, sizes, filters, patches, sums, out, first, last, per_part):
    """Write tokens `out` `(m, b, d, n)`: patches · weight + `added` `(m, d, n)`, for parts `first` to `last`.

    `sizes` are side of an image, width, rows at once, features filled up.
    """
    (_, b, d, n), (side, width, rows, features) = out.shape, sizes
    channels, patch, lanes = weight.shape[2], weight.shape[3], BYTES // patches.itemsize
    parts, tokens, lines = (b + per_part - 1) // per_part, rows * (side // patch), len(filters) // (features * lanes)
    length = len(patches) // lines
    blocks, made = length // lanes, out.reshape(-1)
    for part in range(first, last):
        model, begin = part // parts, (part % parts) * per_part
        if part == first or begin == 0:
            _fill(filters, weight, std, most, model, width, features)
        for image in range(model * b + begin, model * b + min(begin + per_part, b)):
            for y in range(0, side // patch, rows):
                at = image * channels * side * side + y * patch * side
                _gather(patches, length, pixels, at, side, mean, most, model, patch, width, rows)
                _multiply(patches, filters, sums, lines, features, blocks)
                _fold(sums, d, width, blocks)
                begin_at = y * (side // patch)
                for f in range(d):
                    target, other = (image * d + f) * n + begin_at, (model * d + f) * n + begin_at
                    for k in range(tokens // lanes):
                        value = load(sums, f * blocks + k) + load_at(added, other + k * lanes)
                        store_at(out, target + k * lanes, value)
                    for t in range(tokens // lanes * lanes, tokens):
                        made[target + t] = sums[f * length + t] + added[model, f, begin_at + t]


@jit
def _repeat(sums, given, image, begin, tokens, d, n, width, blocks):
    """Write the gradient of each token as often as a line has pixels of its patch."""
    lanes = BYTES // sums.itemsize
    for f in range(d):
        source, row = (image * d + f) * n + begin, f * blocks
        for k in range((blocks + width - 1) // width):
            store(sums, row + k, load_first(given, source + k * lanes, tokens - k * lanes))
        step = width
        while step > 1:
            step //= 2
            wanted = (blocks + step - 1) // step
            for k in range((wanted + 1) // 2 - 1, -1, -1):
                value = load(sums, row + k)
                if 2 * k + 1 < wanted:
                    store(sums, row + 2 * k + 1, doubled_second(value))
                store(sums, row + 2 * k, doubled_first(value))


@jit
def _correlate(patches, sums, slopes, lines, features, blocks):
    """Add Σ over pixels, each lane on its own, of gradient · patches to `slopes` `(lines, features)`."""
    for line in range(0, lines, 2):
        for f in range(0, features, 4):
            place, row = line * features + f, f * blocks
            a0, a1, a2, a3 = (
                load(slopes, place),
                load(slopes, place + 1),
                load(slopes, place + 2),
                load(slopes, place + 3),
            )
            place += features
            b0, b1, b2, b3 = (
                load(slopes, place),
                load(slopes, place + 1),
                load(slopes, place + 2),
                load(slopes, place + 3),
            )
            for k in range(blocks):
                a, b = load(patches, line * blocks + k), load(patches, (line + 1) * blocks + k)
                g0, g1 = load(sums, row + k), load(sums, row + blocks + k)
                a0, a1, b0, b1 = a0 + a * g0, a1 + a * g1, b0 + b * g0, b1 + b * g1
                g2, g3 = load(sums, row + 2 * blocks + k), load(sums, row + 3 * blocks + k)
                a2, a3, b2, b3 = a2 + a * g2, a3 + a * g3, b2 + b * g2, b3 + b * g3
            store(slopes, place, b0)
            store(slopes, place + 1, b1)
            store(slopes, place + 2, b2)
            store(slopes, place + 3, b3)
            place -= features
            store(slopes, place, a0)
            store(slopes, place + 1, a1)
            store(slopes, place + 2, a2)
            store(slopes, place + 3, a3)


@jit
def _collect(slopes, std, most, part, model, width, features, to_weight):
    """Write the gradient of the weights of one part: its lanes added, times the scale of the channel."""
    _, d, channels, patch, _ = to_weight.shape
    lanes, line = BYTES // slopes.itemsize, 0
    for channel in range(channels):
        scale = 1 / (most * std[model, channel])
        for i in range(patch):
            for begin in range(0, patch, width):
                for f in range(d):
                    for j in range(min(width, patch - begin)):
                        number = slopes.dtype.type(0)
                        for k in range(j, lanes, width):
                            number += slopes[(line * features + f) * lanes + k]
                        to_weight[part, f, channel, i, begin + j] = number * scale
                line += 1


@jit
def backward(pixels, mean, std, most, given, sizes, slopes, patches, sums, to_weight, to_added, first, last, per_part):
    """Write the gradients of weights `(parts, d, c, p, p)` and of `added` `(parts, d, n)`, a row per part."""
    (_, b, d, n), (side, width, rows, features) = given.shape, sizes
    channels, patch, lanes = to_weight.shape[2], to_weight.shape[3], BYTES // patches.itemsize
    parts, tokens, lines = (b + per_part - 1) // per_part, rows * (side // patch), len(slopes) // (features * lanes)
    length = len(patches) // lines
    blocks, numbers = length // lanes, given.reshape(-1)
    for part in range(first, last):
        model, begin = part // parts, (part % parts) * per_part
        slopes[:] = 0
        added = to_added[part].reshape(-1)
        added[:] = 0
        for image in range(model * b + begin, model * b + min(begin + per_part, b)):
            for k in range(d * n // lanes):
                store(added, k, load(added, k) + load_at(given, image * d * n + k * lanes))
            for k in range(d * n // lanes * lanes, d * n):
                added[k] += numbers[image * d * n + k]
            for y in range(0, side // patch, rows):
                at = image * channels * side * side + y * patch * side
                _gather(patches, length, pixels, at, side, mean, most, model, patch, width, rows)
                _repeat(sums, given, image, y * (side // patch), tokens, d, n, width, blocks)
                _correlate(patches, sums, slopes, lines, features, blocks)
        _collect(slopes, std, most, part, model, width, features, to_weight)
