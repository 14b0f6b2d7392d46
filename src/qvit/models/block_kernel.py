"""All of a transformer block after its projections, one image at a time: attention, dense layers, norm and MLP.

Tokens lie along the lanes, 16 at a time, a *block*. Heads are filled up with zeros to w rows, see `head_kernel`; d and
f to d4 and f4, multiples of four. `sizes`: images of a model, tokens, d, f, heads, widths of queries and of values.
A row of `strides` says how far models, images, heads and rows are apart, while tokens follow each other: tokens,
queries, keys, values, the result, then its gradient and those of the first four. A *part* is a few images of one model,
and each model has `parts` of them.

`memory` holds address and length of what a call is given, in this order: tokens, queries, keys and values; eight
weights; the result, or its gradient; `kept`; and for a backward pass the gradients of the first four, and `partial`.
`room` is the address of scratch, and `places` where its arrays start in it.

In `kept`, a forward pass leaves for each block the results of attention, h·w rows, and 1/Σ of each head's weights.
"""

from qvit.cpu.bundles import add_products, add_scaled, load_rows, repeated, singles_at, store_rows, store_totals
from qvit.cpu.compiled import jit
from qvit.cpu.elementary import gelu, gelu_and_slope, square_root
from qvit.cpu.vectors import like, load, splat, store
from qvit.models.head_kernel import LANES, attend, attend_back, give, give_head, take, take_head

IMAGES = 8  # in a part
CHUNK = 4  # blocks between additions to the sums for the gradients of weights
NONE = 64  # zeros before the weights in scratch: no bias
_FOUR = (0, 0, 0, 0)
_SIXTEEN = (0,) * 16


@jit
def _fours(size):
    return (size + 3) // 4 * 4


@jit
def places_of_weights(d, f, c):
    """Return where in scratch the weights are: three dense layers and biases, the layers transposed, and their end.

    `c` is h·w.
    """
    d4, f4 = _fours(d), _fours(f)
    out, up, down = NONE, NONE + (c + 1) * d4, NONE + (c + 1) * d4 + (d + 1) * f4
    back = down + (f + 1) * d4
    return out, up, down, back, back + d * c, back + d * c + f * d4, back + d * c + f * d4 + d * f4


@jit
def places_of_sums(d, f, c):
    """Return where the sums for the gradients are: weights and biases of three dense layers, and their end."""
    d4, f4 = _fours(d), _fours(f)
    up = d * c + d
    down = up + f * d4 + f
    end = down + d * f4 + d
    return up, down, (end + LANES - 1) // LANES * LANES


@jit
def _lay(laid, weights, model, sizes, w):
    """Lay out the weights of a model, those of the norm included in the layer that follows it."""
    _, _, d, f, heads, _, q = sizes
    d4, f4, c = _fours(d), _fours(f), heads * w
    out, up, down, out_back, up_back, down_back, end = places_of_weights(d, f, c)
    for i in range(end):
        laid[i] = 0
    for r in range(d):
        for column in range(heads * q):
            number, place = weights[0][(model * d + r) * heads * q + column], column // q * w + column % q
            laid[out + place * d4 + r] = number
            laid[out_back + r * c + place] = number
        laid[out + c * d4 + r] = weights[1][model * d + r]
        for column in range(f):
            number = weights[6][(model * d + r) * f + column]
            laid[down + column * d4 + r] = number
            laid[down_back + r * f4 + column] = number
        laid[down + f * d4 + r] = weights[7][model * d + r]
    for r in range(f):
        bias = weights[5][model * f + r]
        for column in range(d):
            number = weights[4][(model * f + r) * d + column]
            bias += number * weights[3][model * d + column]
            number *= weights[2][model * d + column]
            laid[up + column * f4 + r] = number
            laid[up_back + r * d4 + column] = number
        laid[up + d * f4 + r] = bias


@jit
def _dense(target, row, adds, source, at, ins, outs, laid, place, step, bias):
    """Write weights · rows of `source` + bias to `outs` rows, a multiple of four, or add it to them."""
    one = splat(target.dtype.type(1))
    for r in range(0, outs, 4):
        sums = load_rows(_FOUR, target, row + r) if adds else repeated(_FOUR, one - one)
        sums = add_scaled(sums, one, laid, bias + r)
        for c in range(ins):
            sums = add_scaled(sums, load(source, at + c), laid, place + c * step + r)
        store_rows(target, row + r, sums)


@jit
def _normalise(rows, t, z, d, d4, eps):
    """Write rows with mean 0 and deviation 1 to rows `z`; return what they were multiplied by."""
    zero = splat(rows.dtype.type(0))
    share = like(zero, 1.0 / d)
    mean = zero
    for r in range(d):
        mean = mean + load(rows, t + r)
    mean, variance = mean * share, zero
    for r in range(d):
        moved = load(rows, t + r) - mean
        variance = variance + moved * moved
        store(rows, z + r, moved)
    factor = like(zero, 1.0) / square_root(variance * share + splat(eps))
    for r in range(d):
        store(rows, z + r, load(rows, z + r) * factor)
    for r in range(d, d4):
        store(rows, z + r, zero)
    return factor


@jit
def _normalise_back(rows, g, through, z, factor, d):
    """Write g + the gradient of what was normalised to rows `through`, where that of the normal is."""
    mean = factor - factor
    slope = mean
    for r in range(d):
        mean = mean + load(rows, through + r)
        slope = slope + load(rows, through + r) * load(rows, z + r)
    share = like(factor, 1.0 / d)
    mean, slope = mean * share, slope * share
    for r in range(d):
        inner = load(rows, through + r) - mean - load(rows, z + r) * slope
        store(rows, through + r, load(rows, g + r) + inner * factor)


@jit
def _place(strides, tensor, model, image, head):
    return model * strides[tensor, 0] + image * strides[tensor, 1] + head * strides[tensor, 2]


@jit
def _places(strides, first, model, image, head):
    """Return where a head's queries, keys and values are, and how far their rows are apart."""
    q, k, v = first, first + 1, first + 2
    at = _place(strides, q, model, image, head), _place(strides, k, model, image, head)
    steps = strides[q, 3], strides[k, 3], strides[v, 3]
    return (at[0], at[1], _place(strides, v, model, image, head)), steps


@jit
def _four(memory, k):
    a, b, c, d = memory[k], memory[k + 1], memory[k + 2], memory[k + 3]
    return singles_at(a[0], a[1]), singles_at(b[0], b[1]), singles_at(c[0], c[1]), singles_at(d[0], d[1])


@jit
def _rooms(room, places):
    """Return the arrays in scratch."""
    a, b, c, d, e, f, g, h, end = places
    return (
        singles_at(room + 4 * a, b - a),
        singles_at(room + 4 * b, c - b),
        singles_at(room + 4 * c, d - c),
        singles_at(room + 4 * d, e - d),
        singles_at(room + 4 * e, f - e),
        singles_at(room + 4 * f, g - f),
        singles_at(room + 4 * g, h - g),
        singles_at(room + 4 * h, end - h),
    )


@jit
def forward(shape, sizes, strides, memory, scales, eps, kept, kept_step, room, places_in_room, parts, first, last):
    """Write the results of parts `first` to `last`, and what the backward pass needs, `kept_step` rows an image."""
    images, n, d, f, heads, k, q = sizes
    laid, rows, record, numbers, lines, tail, _, _ = _rooms(room, places_in_room)
    inputs, weights, out = (
        _four(memory, 0),
        _four(memory, 4) + _four(memory, 8),
        singles_at(memory[12, 0], memory[12, 1]),
    )
    kept, factor = singles_at(kept, memory[13, 1]), scales[0]
    w, blocks = len(shape), (n + LANES - 1) // LANES
    d4, f4, c = _fours(d), _fours(f), heads * w
    at_out, at_up, at_down, _, _, _, _ = places_of_weights(d, f, c)
    known = -1
    for part in range(first, last):
        model, begin = part // parts, part % parts * IMAGES
        if model != known:
            _lay(laid, weights, model, sizes, w)
            known = model
        for image in range(begin, min(begin + IMAGES, images)):
            base = (model * images + image) * kept_step
            for head in range(heads):
                places, steps = _places(strides, 1, model, image, head)
                small = take_head(shape, record, 0, w, numbers, lines, inputs, places, steps, n, k, q, factor)
                row, share = base + head * w, base + c + head
                if small:
                    attend(shape, record, numbers, lines, tail, kept, row, c + heads, share, n, None)
                else:
                    attend(shape, record, numbers, lines, tail, kept, row, c + heads, share, n, True)
            for block in range(blocks):
                left, z, a = n - block * LANES, d4, 2 * d4
                place = _place(strides, 0, model, image, 0) + block * LANES
                take(rows, 0, inputs[0], place, strides[0, 3], d, d4, left)
                _dense(rows, 0, True, kept, base + block * (c + heads), c, d4, laid, at_out, d4, at_out + c * d4)
                _normalise(rows, 0, z, d, d4, eps)
                _dense(rows, a, False, rows, z, d, f4, laid, at_up, f4, at_up + d * f4)
                for r in range(f):
                    store(rows, a + r, gelu(load(rows, a + r)))
                _dense(rows, 0, True, rows, a, f, d4, laid, at_down, d4, at_down + f * d4)
                place = _place(strides, 4, model, image, 0) + block * LANES
                give(out, place, strides[4, 3], rows, 0, d, left)


@jit
def _outer(sums, at, left, start, left_step, rights, right, right_step, ins, outs, count):
    """Add left rows × right rows, `ins` a multiple of four, of some blocks to the sums; and after them left rows."""
    for r in range(outs):
        for c in range(0, ins, 4):
            place = at + r * ins + c
            found = load_rows(_FOUR, sums, place)
            for b in range(count):
                g = load(left, start + b * left_step + r)
                found = add_products(found, g, load_rows(_FOUR, rights, right + b * right_step + c))
            store_rows(sums, place, found)
        total = load(sums, at + outs * ins + r)
        for b in range(count):
            total = total + load(left, start + b * left_step + r)
        store(sums, at + outs * ins + r, total)


@jit
def _tokens_back(block, at, sizes, strides, eps, model, image, arrays, base, laid, rows, record, w, through_attention):
    """Write the gradient of a block's tokens, and that of each head's results to its record.

    From `at` on, `rows` holds t and normal tokens, two gradients, of the result and of t, then f4 rows for the hidden
    layer and for its gradient.
    """
    _, n, d, f, heads, _, _ = sizes
    tokens, gradient, kept, out = arrays
    blocks, d4, f4, c = (n + LANES - 1) // LANES, _fours(d), _fours(f), heads * w
    at_out, at_up, _, out_back, up_back, down_back, _ = places_of_weights(d, f, c)
    z, g, t, a = at + d4, at + 2 * d4, at + 3 * d4, at + 4 * d4
    s, e = a + f4, a + 2 * f4
    first, left = block * LANES, n - block * LANES
    take(rows, at, tokens, _place(strides, 0, model, image, 0) + first, strides[0, 3], d, d4, left)
    _dense(rows, at, True, kept, base, c, d4, laid, at_out, d4, at_out + c * d4)
    factor = _normalise(rows, at, z, d, d4, eps)
    _dense(rows, a, False, rows, z, d, f4, laid, at_up, f4, at_up + d * f4)
    take(rows, g, gradient, _place(strides, 5, model, image, 0) + first, strides[5, 3], d, d4, left)
    _dense(rows, e, False, rows, g, d, f4, laid, down_back, f4, 0)
    for r in range(f4):
        value, slope = gelu_and_slope(load(rows, a + r))
        store(rows, a + r, value)
        store(rows, s + r, slope * load(rows, e + r))
    _dense(rows, t, False, rows, s, f, d4, laid, up_back, d4, 0)
    _normalise_back(rows, g, t, z, factor, d)
    give(out, _place(strides, 6, model, image, 0) + first, strides[6, 3], rows, t, d, left)
    if through_attention:
        for head in range(heads):
            row = (head * blocks + block) * (3 * w + 2) + w
            _dense(record, row, False, rows, t, d, w, laid, out_back + head * w, c, 0)


@jit
def _weights_back(sums, rows, kept, base, d, f, c, heads, count):
    """Add a chunk's share of the gradients of weights and biases to the sums."""
    d4, f4 = _fours(d), _fours(f)
    sum_up, sum_down, _ = places_of_sums(d, f, c)
    length = 4 * d4 + 3 * f4
    z, g, t, a, s = d4, 2 * d4, 3 * d4, 4 * d4, 4 * d4 + f4
    _outer(sums, 0, rows, t, length, kept, base, c + heads, c, d, count)
    _outer(sums, sum_up, rows, s, length, rows, z, length, d4, f, count)
    _outer(sums, sum_down, rows, g, length, rows, a, length, f4, d, count)


@jit
def _head_back(shape, sizes, strides, scales, inputs, kept, outputs, model, image, head, base, room):
    """Write the gradients of the queries, keys and values of a head, from that of its results in its record."""
    _, n, _, _, heads, k, q = sizes
    _, _, record, numbers, lines, tail, to_lines, _ = room
    w, factor, plain = len(shape), scales[0], scales[1]
    step, c, row = 3 * w + 2, heads * w, base + head * w
    at, per, share = head * ((n + LANES - 1) // LANES) * step, c + heads, base + c + head
    places, steps = _places(strides, 1, model, image, head)
    if take_head(shape, record, at, step, numbers, lines, inputs, places, steps, n, k, q, factor):
        attend_back(shape, record, at, step, numbers, lines, tail, to_lines, kept, row, per, share, n, None)
    else:
        attend_back(shape, record, at, step, numbers, lines, tail, to_lines, kept, row, per, share, n, True)
    places, steps = _places(strides, 7, model, image, head)
    give_head(shape, record, at, step, to_lines, outputs, places, steps, n, k, q, plain)


@jit
def backward(shape, sizes, strides, memory, scales, eps, through, room, places_in_room, parts, first, last):
    """Write the gradients of tokens, queries, keys and values, and a row of `partial` with each part's of the weights.

    `through`: whether to go through attention, and whether to the weights; `scales`: of scores, in units of log 2 and
    as they are.
    """
    inputs, weights, outputs = _four(memory, 0), _four(memory, 4) + _four(memory, 8), _four(memory, 14)
    gradient, kept, partial = (
        singles_at(memory[12, 0], memory[12, 1]),
        singles_at(memory[13, 0], memory[13, 1]),
        singles_at(memory[18, 0], memory[18, 1]),
    )
    arrays_in_room = _rooms(room, places_in_room)
    images, n, d, f, heads, _, _ = sizes
    laid, rows, record, _, _, _, _, sums = arrays_in_room
    w, blocks = len(shape), (n + LANES - 1) // LANES
    c, length = heads * w, 4 * _fours(d) + 3 * _fours(f)
    per, (_, _, end) = c + heads, places_of_sums(d, f, c)
    arrays, zero, known = (inputs[0], gradient, kept, outputs[0]), splat(rows.dtype.type(0)), -1
    for part in range(first, last):
        model, begin = part // parts, part % parts * IMAGES
        if model != known:
            _lay(laid, weights, model, sizes, w)
            known = model
        for i in range(end if through[1] else 0):
            store(sums, i, zero)
        for image in range(begin, min(begin + IMAGES, images)):
            base = (model * images + image) * blocks * per
            for chunk in range(0, blocks, CHUNK):
                count = min(CHUNK, blocks - chunk)
                for b in range(count):
                    place = base + (chunk + b) * per
                    _tokens_back(
                        chunk + b, b * length, sizes, strides, eps, model, image, arrays, place, laid, rows, record, w,
                        through[0],
                    )  # fmt: skip
                if through[1]:
                    _weights_back(sums, rows, kept, base + chunk * per, d, f, c, heads, count)
            for head in range(heads if through[0] else 0):
                _head_back(
                    shape, sizes, strides, scales, inputs, kept, outputs, model, image, head, base, arrays_in_room
                )
        for i in range(0, end if through[1] else 0, LANES):
            store_totals(partial, (part * end + i) // LANES, load_rows(_SIXTEEN, sums, i))


@jit
def finish(sizes, w, memory, found, parts, models, sums):
    """Write the gradients of the weights: those of all parts added, in float64; `sums` is scratch.

    `found` holds the addresses and lengths of eight tensors.
    """
    weights, partial = _four(memory, 4) + _four(memory, 8), singles_at(memory[18, 0], memory[18, 1])
    to_out, to_out_bias, to_scale, to_shift = _four(found, 0)
    to_up, to_up_bias, to_down, to_down_bias = _four(found, 4)
    _, _, d, f, heads, _, q = sizes
    d4, f4, c = _fours(d), _fours(f), heads * w
    at_up, at_down, end = places_of_sums(d, f, c)
    for model in range(models):
        for i in range(end):
            sums[i] = 0.0
        for part in range(model * parts, (model + 1) * parts):
            for i in range(end):
                sums[i] += partial[part * end + i]
        for r in range(d):
            for column in range(heads * q):
                place = r * c + column // q * w + column % q
                to_out[(model * d + r) * heads * q + column] = sums[place]
            to_out_bias[model * d + r] = sums[d * c + r]
            for column in range(f):
                to_down[(model * d + r) * f + column] = sums[at_down + r * f4 + column]
            to_down_bias[model * d + r] = sums[at_down + d * f4 + r]
        for r in range(f):
            to_up_bias[model * f + r] = sums[at_up + f * d4 + r]
        for column in range(d):  # the norm's weights and bias were included in the layer after it
            scale, shift, m = 0.0, 0.0, model * d + column
            for r in range(f):
                place = (model * f + r) * d + column
                slope, bias = sums[at_up + r * d4 + column], sums[at_up + f * d4 + r]
                scale += weights[4][place] * slope
                shift += weights[4][place] * bias
                to_up[place] = slope * weights[2][m] + bias * weights[3][m]
            to_scale[m], to_shift[m] = scale, shift
