"""Attention of one narrow head of one image, in float32, for `block_kernel`.

A head is filled up with rows of zeros to w = 4 or 8, the length of `shape`, so that loops over its rows are written
out. Tokens lie along the lanes of *blocks* of 16. `numbers` holds w keys, then w values, of one token after another.
A *record* `(blocks, step)` starts with w rows of queries for each block, in units in which scores are powers of two;
for a backward pass w rows of gradients and w of the queries' gradients follow, then two rows of a number per query.

Weights are 2 to the power of the scores themselves where these are small whatever the tokens (`exact` is None), or
of what they are below the largest of a query (otherwise).
"""

from qvit.cpu.bundles import (
    add_dot,
    add_products,
    add_scaled,
    dot,
    load_at,
    load_rows,
    repeated,
    scaled,
    store_at,
    store_rows,
    store_totals,
    sum_of_products,
    turned,
    turned_back,
)
from qvit.cpu.compiled import jit
from qvit.cpu.elementary import largest_lane, small_power_of_two
from qvit.cpu.vectors import larger, like, load, power_of_two, splat, store, total

LANES = 16
LN2 = 0.6931471805599453
# Scores from −30 to 30 change sums of weights and gradients by 2^±41 at most, which float32 has to spare for values
# within 2^±40.
_SCORES = 30.0
_VALUES = 2.0**40


@jit
def take(target, row, source, place, step, rows, padded, count):
    """Copy the first 16 of `count` numbers of rows `step` apart to rows of a vector, filled up with zeros."""
    full = rows if count >= LANES else 0
    for r in range(full):
        store(target, row + r, load_at(source, place + r * step))
    for r in range(full, padded):
        store(target, row + r, splat(target.dtype.type(0)))
    for r in range(full, rows):
        for i in range(count):
            target[(row + r) * LANES + i] = source[place + r * step + i]


@jit
def give(target, place, step, source, row, rows, count):
    """Copy the first `count` lanes of rows, 16 at most, to rows `step` apart."""
    if count >= LANES:
        for r in range(rows):
            store_at(target, place + r * step, load(source, row + r))
    else:
        for r in range(rows):
            for i in range(count):
                target[place + r * step + i] = source[(row + r) * LANES + i]


@jit
def take_head(shape, record, at, step, numbers, lines, inputs, places, steps, n, k, q, factor):
    """Fill the queries of a record, and `numbers`; return whether all scores and values are small."""
    w, zero = len(shape), splat(record.dtype.type(0))
    most_q, most_k, most_v, least, every = zero, zero, zero, zero, zero
    for block in range((n + LANES - 1) // LANES):
        first, row = block * LANES, at + block * step
        take(record, row, inputs[1], places[0] + first, steps[0], k, w, n - first)
        take(lines, 0, inputs[2], places[1] + first, steps[1], k, w, n - first)
        take(lines, w, inputs[3], places[2] + first, steps[2], q, w, n - first)
        queries = scaled(load_rows(shape, record, row), splat(factor))
        store_rows(record, row, queries)
        store_rows(numbers, 2 * w * block, turned(load_rows(shape + shape, lines, 0)))
        size_q = sum_of_products(queries, queries)
        size_k = sum_of_products(load_rows(shape, lines, 0), load_rows(shape, lines, 0))
        size_v = sum_of_products(load_rows(shape, lines, w), load_rows(shape, lines, w))
        most_q, most_k, most_v = larger(size_q, most_q), larger(size_k, most_k), larger(size_v, most_v)
        every = every + (size_q + size_k + size_v) * zero  # not 0 if any is infinite or no number
    scores, values = largest_lane(most_q) * largest_lane(most_k), largest_lane(most_v)
    fitting = values == 0.0 or (values >= _VALUES**-2 and values <= _VALUES**2)
    return scores <= _SCORES**2 and fitting and total(every) == 0.0


@jit
def _largest(queries, numbers, w, n):
    """Return each query's largest score."""
    largest = dot(queries, numbers, 0)
    for j in range(1, n):
        largest = larger(largest, dot(queries, numbers, 2 * w * j))
    return largest


@jit
def _weight(score, shift, exact):
    if exact is None:
        return small_power_of_two(score)
    # A score rounded differently than when the largest was found may exceed it by a last digit.
    return power_of_two(-larger(like(score, 0.0), shift - score))


@jit
def attend(shape, record, at, step, numbers, kept, row, per, share, n, exact):
    """Write the results of attention to w rows of `kept` for each block, `per` rows apart; 1/Σ weights to `share`."""
    w, zero = len(shape), splat(record.dtype.type(0))
    for block in range((n + LANES - 1) // LANES):
        queries = load_rows(shape, record, at + block * step)
        found, sums, shift = repeated(shape, zero), zero, zero
        if exact is not None:
            shift = _largest(queries, numbers, w, n)
        for j in range(n):
            weight = _weight(dot(queries, numbers, 2 * w * j), shift, exact)
            sums = sums + weight
            found = add_scaled(found, weight, numbers, 2 * w * j + w)
        sums = like(sums, 1.0) / sums
        store_rows(kept, row + block * per, scaled(found, sums))
        store(kept, share + block * per, sums)


@jit
def _take_gradient(shape, record, row, numbers, results, share, n, exact):
    """Turn the gradients of a record's block into what its slopes are made of, with those of queries 0 so far."""
    w = len(shape)
    gradient = scaled(load_rows(shape, record, row + w), share)  # the factor that makes weights sum to 1
    store_rows(record, row + w, gradient)
    store_rows(record, row + 2 * w, repeated(shape, share - share))
    # Through the softmax: p·(∂p − Σ p·∂p), where the sum is that of gradient · result.
    store(record, row + 3 * w, -sum_of_products(gradient, results))
    if exact is not None:
        store(record, row + 3 * w + 1, _largest(load_rows(shape, record, row), numbers, w, n))


@jit
def _back(shape, record, row, numbers, place, to_key, to_value, exact):
    """Add what one block of queries does to one key and its value, and that key to the queries' gradients."""
    w = len(shape)
    queries, gradient = load_rows(shape, record, row), load_rows(shape, record, row + w)
    weight = _weight(dot(queries, numbers, place), load(record, row + 3 * w + 1), exact)
    slope = weight * add_dot(load(record, row + 3 * w), gradient, numbers, place + w)
    store_rows(record, row + 2 * w, add_scaled(load_rows(shape, record, row + 2 * w), slope, numbers, place))
    return add_products(to_key, slope, queries), add_products(to_value, weight, gradient)


@jit
def attend_back(shape, record, at, step, numbers, to_numbers, kept, kept_row, per, share, n, exact):
    """Fill the queries' gradients in a record, and those of keys and values; scores are still in powers of two."""
    w, zero = len(shape), splat(record.dtype.type(0))
    blocks = (n + LANES - 1) // LANES
    for block in range(blocks):
        results, shares = load_rows(shape, kept, kept_row + block * per), load(kept, share + block * per)
        _take_gradient(shape, record, at + block * step, numbers, results, shares, n, exact)
    none = repeated(shape, zero)
    if w == 4:  # sixteen sums, a vector, are those of two keys
        for pair in range((n + 1) // 2):
            key, value, next_key, next_value = none, none, none, none
            for block in range(blocks):
                row = at + block * step
                key, value = _back(shape, record, row, numbers, 16 * pair, key, value, exact)
                next_key, next_value = _back(shape, record, row, numbers, 16 * pair + 8, next_key, next_value, exact)
            store_totals(to_numbers, pair, key + value + next_key + next_value)
    else:
        for j in range(n):
            key, value = none, none
            for block in range(blocks):
                key, value = _back(shape, record, at + block * step, numbers, 16 * j, key, value, exact)
            store_totals(to_numbers, j, key + value)


@jit
def give_head(shape, record, at, step, to_numbers, lines, outputs, places, steps, n, k, q, plain):
    """Write the gradients of queries, keys and values; `plain` is what scores are multiplied by."""
    w = len(shape)
    for block in range((n + LANES - 1) // LANES):
        first, row = block * LANES, at + block * step + 2 * w
        store_rows(record, row, scaled(load_rows(shape, record, row), splat(plain)))
        give(outputs[1], places[0] + first, steps[0], record, row, k, n - first)
        store_rows(lines, 0, turned_back(load_rows(shape + shape, to_numbers, 2 * w * block)))
        # Their queries were multiplied by log₂ e besides.
        keys = load_rows(shape, lines, 0)
        store_rows(lines, 0, scaled(keys, like(keys[0], LN2)))
        give(outputs[2], places[1] + first, steps[1], lines, 0, k, n - first)
        give(outputs[3], places[2] + first, steps[2], lines, w, q, n - first)
