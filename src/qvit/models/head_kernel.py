"""Attention of one narrow head of one image, in float32, for `block_kernel`.

A head is filled up with rows of zeros to w = 4 or 8, the length of `shape`, so that loops over its rows are written
out. Tokens lie along the lanes of *blocks* of 16. `numbers` holds w keys, then w values, of one token after another.
A *record* `(blocks, step)` starts with w rows of queries for each block, in units in which scores are powers of two;
for a backward pass w rows of gradients and w of the queries' gradients follow, then two rows of a number per query.

Weights are 2 to the power of the scores themselves where these are small whatever the tokens (`exact` is None), or
of what they are below the largest of a query (otherwise). `lines` holds, for each block, w rows of keys and w of
values; `tail` is scratch of 3 + 2·w rows.
"""

from qvit.cpu.bundles import (
    add_dot,
    add_products,
    add_scaled,
    copy_number,
    dot,
    first_lanes,
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
from qvit.cpu.vectors import larger, like, load, power_of_two, splat, spread, store, total

LANES = 16
FEW = 8  # queries that are not worth a block
LN2 = 0.6931471805599453
# Scores from −30 to 30 change sums of weights and gradients by 2^±41 at most, which float32 has to spare for values
# within 2^±40.
_SCORES = 30.0
_VALUES = 2.0**40


@jit
def take(target, row, source, place, step, rows, padded, count):
    """Copy the first 16 of `count` numbers of rows `step` apart to rows of a vector, filled up with zeros."""
    if count >= LANES:
        for r in range(rows):
            store(target, row + r, load_at(source, place + r * step))
    else:
        for r in range(rows):
            at = place + r * step
            if at + LANES <= len(source):
                store(target, row + r, first_lanes(load_at(source, at), count))
            else:
                store(target, row + r, splat(target.dtype.type(0)))
                for i in range(count):
                    copy_number(target, (row + r) * LANES + i, source, at + i)
    for r in range(rows, padded):
        store(target, row + r, splat(target.dtype.type(0)))


@jit
def give(target, place, step, source, row, rows, count):
    """Copy the first `count` lanes of rows, 16 at most, to rows `step` apart."""
    if count >= LANES:
        for r in range(rows):
            store_at(target, place + r * step, load(source, row + r))
    else:
        for r in range(rows):
            for i in range(count):
                copy_number(target, place + r * step + i, source, (row + r) * LANES + i)


@jit
def take_head(shape, record, at, step, numbers, lines, inputs, places, steps, n, k, q, factor):
    """Fill the queries of a record, and `numbers`; return whether all scores and values are small."""
    w, zero = len(shape), splat(record.dtype.type(0))
    most_q, most_k, most_v, every = zero, zero, zero, zero
    for block in range((n + LANES - 1) // LANES):
        first, row = block * LANES, at + block * step
        take(record, row, inputs[1], places[0] + first, steps[0], k, w, n - first)
        line = 2 * w * block
        take(lines, line, inputs[2], places[1] + first, steps[1], k, w, n - first)
        take(lines, line + w, inputs[3], places[2] + first, steps[2], q, w, n - first)
        keys, values = load_rows(shape, lines, line), load_rows(shape, lines, line + w)
        queries = scaled(load_rows(shape, record, row), splat(factor))
        store_rows(record, row, queries)
        store_rows(numbers, line, turned(keys + values))
        size_q, size_k, size_v = (
            sum_of_products(queries, queries),
            sum_of_products(keys, keys),
            sum_of_products(values, values),
        )
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
def _along_lanes(n, exact):
    """Return how many blocks of queries lie along the lanes; for the few queries after them, the keys do."""
    few = exact is None and n % LANES <= FEW
    return n // LANES if few else (n + LANES - 1) // LANES


@jit
def _take_rest(shape, record, at, step, tail, n, full):
    """Lay out queries and gradients that are not along the lanes; return their number, and where in `tail` they are."""
    w, last = len(shape), n // LANES
    rest, row = n - full * LANES, at + last * step
    if rest > 0:
        store(tail, 0, splat(record.dtype.type(0)))
        for i in range(rest):
            tail[i] = 1
        store_rows(tail, 3, turned(load_rows(shape, record, row)))
        if step > w:
            store_rows(tail, 3 + w, turned(load_rows(shape, record, row + w)))
    return max(rest, 0)


@jit
def _weight_of_keys(keys, tail, place, block, last):
    """Return the weights of a block of keys for one query, those after the last key 0."""
    weight = small_power_of_two(dot(keys, tail, place))
    return weight * load(tail, 0) if block == last else weight


@jit
def attend(shape, record, numbers, lines, tail, kept, row, per, share, n, exact):
    """Write the results of attention to w rows of `kept` for each block, `per` rows apart; 1/Σ weights to `share`."""
    w, zero = len(shape), splat(record.dtype.type(0))
    full, last = _along_lanes(n, exact), n // LANES
    for block in range(full):
        queries = load_rows(shape, record, block * w)
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
    rest = _take_rest(shape, record, 0, w, tail, n, full)
    if rest > 0:
        store_rows(kept, row + last * per, repeated(shape, zero))
        store(kept, share + last * per, zero)
    for i in range(rest):
        found, sums = repeated(shape, zero), zero
        for block in range(last + 1):
            keys, values = load_rows(shape, lines, 2 * w * block), load_rows(shape, lines, 2 * w * block + w)
            weight = _weight_of_keys(keys, tail, 3 * LANES + w * i, block, last)
            sums = sums + weight
            found = add_products(found, weight, values)
        store_totals(tail, 1, found + (sums,))  # noqa: RUF005 - Numba knows no other way
        factor = tail.dtype.type(1) / tail[LANES + w]
        for c in range(w):
            kept[(row + last * per + c) * LANES + i] = tail[LANES + c] * factor
        kept[(share + last * per) * LANES + i] = factor


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
def _weight_and_slope(queries, gradient, record, row, numbers, place, exact):
    """Return the weights that a block of queries gives to a key, and the slopes of their scores."""
    w = len(queries)
    weight = _weight(dot(queries, numbers, place), load(record, row + 3 * w + 1), exact)
    return weight, weight * add_dot(load(record, row + 3 * w), gradient, numbers, place + w)


@jit
def _back_of_key(shape, record, at, step, numbers, place, full, exact):
    """Add a key to the gradients of queries along the lanes; return what they do to it and its value, lane by lane."""
    w, none = len(shape), repeated(shape, splat(record.dtype.type(0)))
    key, value = none, none
    for block in range(full):
        row = at + block * step
        queries, gradient = load_rows(shape, record, row), load_rows(shape, record, row + w)
        weight, slope = _weight_and_slope(queries, gradient, record, row, numbers, place, exact)
        to_queries = add_scaled(load_rows(shape, record, row + 2 * w), slope, numbers, place)
        store_rows(record, row + 2 * w, to_queries)
        key, value = add_products(key, slope, queries), add_products(value, weight, gradient)
    return key, value


@jit
def _back_along_lanes(shape, record, at, step, numbers, to_lines, n, full, exact):
    """Do this for all keys, so many at once that their sums fill a vector."""
    if len(shape) == 4:
        for pair in range((n + 1) // 2):
            key, value = _back_of_key(shape, record, at, step, numbers, LANES * pair, full, exact)
            other = _back_of_key(shape, record, at, step, numbers, LANES * pair + 8, full, exact)
            store_totals(to_lines, pair, key + value + other[0] + other[1])
    else:
        for j in range(n):
            key, value = _back_of_key(shape, record, at, step, numbers, LANES * j, full, exact)
            store_totals(to_lines, j, key + value)


@jit
def _back_of_rest(shape, record, at, step, lines, tail, to_lines, n, full):
    """Do the same for the queries that are not along the lanes."""
    w, last = len(shape), n // LANES
    query = 3 * LANES
    row = (at + last * step) * LANES
    for i in range(_take_rest(shape, record, at, step, tail, n, full)):
        gradient = query + w * LANES + w * i
        found = repeated(shape, splat(record.dtype.type(0)))
        for block in range(last + 1):
            line = 2 * w * block
            keys = load_rows(shape, lines, line)
            weight = _weight_of_keys(keys, tail, query + w * i, block, last)
            low = spread(record, row + 3 * w * LANES + i)
            slope = weight * add_dot(low, load_rows(shape, lines, line + w), tail, gradient)
            found = add_products(found, slope, keys)
            store_rows(to_lines, line, add_scaled(load_rows(shape, to_lines, line), slope, tail, query + w * i))
            line += w
            store_rows(to_lines, line, add_scaled(load_rows(shape, to_lines, line), weight, tail, gradient))
        store_totals(tail, 1, found)
        for c in range(w):
            record[row + (2 * w + c) * LANES + i] = tail[LANES + c]


@jit
def attend_back(shape, record, at, step, numbers, lines, tail, to_lines, kept, kept_row, per, share, n, exact):
    """Fill the queries' gradients in a record, and those of keys and values; scores are still in powers of two."""
    w = len(shape)
    blocks, full = (n + LANES - 1) // LANES, _along_lanes(n, exact)
    for block in range(blocks):
        results, shares = load_rows(shape, kept, kept_row + block * per), load(kept, share + block * per)
        _take_gradient(shape, record, at + block * step, numbers, results, shares, n, exact)
    _back_along_lanes(shape, record, at, step, numbers, to_lines, n, full, exact)
    for block in range(blocks):
        store_rows(to_lines, 2 * w * block, turned_back(load_rows(shape + shape, to_lines, 2 * w * block)))
    if exact is None:
        _back_of_rest(shape, record, at, step, lines, tail, to_lines, n, full)


@jit
def give_head(shape, record, at, step, to_lines, outputs, places, steps, n, k, q, plain):
    """Write the gradients of queries, keys and values; `plain` is what scores are multiplied by."""
    w = len(shape)
    for block in range((n + LANES - 1) // LANES):
        first, row, line = block * LANES, at + block * step + 2 * w, 2 * w * block
        store_rows(record, row, scaled(load_rows(shape, record, row), splat(plain)))
        give(outputs[1], places[0] + first, steps[0], record, row, k, n - first)
        # The queries that keys are multiplied by were multiplied by log₂ e besides.
        keys = load_rows(shape, to_lines, line)
        store_rows(to_lines, line, scaled(keys, like(keys[0], LN2)))
        give(outputs[2], places[1] + first, steps[1], to_lines, line, k, n - first)
        give(outputs[3], places[2] + first, steps[2], to_lines, line + w, q, n - first)
