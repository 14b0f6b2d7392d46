"""Layer normalisation of tokens-last memory, compiled: tokens in the lanes of vectors, features one row after another.

`tokens` are `(m, b, d, n)`, for m models with weights and biases `(m, d)`. A part is `per_part` images of one model,
whatever the number of models and threads. `kept` `(m, b, 2, stride)` takes each token's mean and 1/deviation for the
backward pass. Where n is smaller than a vector, an image is copied into rows of a vector's length in `room`.
`sums` `(m·parts, 2, d)` takes each part's gradients of weight and bias. The result, and its gradient, may be laid out
otherwise, with tokens last: an array of all numbers, and a `way`: how far models, images and features are apart.

The mean over tokens needs no normalised tokens: with their means `normals` `(m, b, d)` it is normals·weight + bias, and
a token's gradient depends on its image's only.
"""

from qvit.cpu.compiled import jit
from qvit.cpu.rows import count, fresh, load_at, root, start, store_at
from qvit.cpu.vectors import BYTES, like, splat, spread, total


@jit
def widen(target, place, source, at, step, d, n, lanes):
    """Copy the rows of one image, `step` apart, into rows of a vector's length, filled up with zeros."""
    for row in range(d):
        for k in range(lanes):
            target[place + row * lanes + k] = source[at + row * step + k] if k < n else 0


@jit
def narrow(target, at, step, source, place, d, n, lanes):
    """Copy rows of a vector's length back to those of an image, `step` apart."""
    for row in range(d):
        for k in range(n):
            target[at + row * step + k] = source[place + row * lanes + k]


@jit
def _moments(tokens, at, d, n, kept, kept_at, factor, eps):
    """Return mean and 1/deviation over d rows of one vector of tokens, and keep them."""
    mean = load_at(tokens, at)
    for c in range(1, d):
        mean = mean + load_at(tokens, at + c * n)
    mean = mean * factor
    moved = load_at(tokens, at) - mean
    squares = moved * moved
    for c in range(1, d):
        moved = load_at(tokens, at + c * n) - mean
        squares = squares + moved * moved
    share = like(mean, 1.0) / root(squares * factor + eps)
    store_at(kept, kept_at, mean)
    store_at(kept, kept_at + n, share)
    return mean, share


@jit
def _normalise(tokens, at, d, n, weight, bias, model, factor, eps, out, out_at, step, kept, kept_at):
    """Write the normalised tokens of one image, whose rows begin at `at`, to rows `step` apart."""
    for block in range(count(n, tokens.itemsize)):
        t = start(block, n, tokens.itemsize)
        mean, share = _moments(tokens, at + t, d, n, kept, kept_at + t, factor, eps)
        for c in range(d):
            normal = (load_at(tokens, at + c * n + t) - mean) * share
            value = normal * spread(weight, model * d + c) + spread(bias, model * d + c)
            store_at(out, out_at + c * step + t, value)


@jit
def forward(tokens, weight, bias, eps, share, room, out, way, kept, first, last, per_part):
    """Write normal·weight + bias for parts `first` to `last`; `share` is 1/d."""
    (_, b, d, n), stride, flat = tokens.shape, kept.shape[3], tokens.reshape(-1)
    parts, factor, least = (b + per_part - 1) // per_part, splat(share), splat(eps)
    of_model, of_image, step = way
    for part in range(first, last):
        model, begin = part // parts, (part % parts) * per_part
        for image in range(begin, min(begin + per_part, b)):
            kept_at, at = (model * b + image) * 2 * stride, (model * b + image) * d * n
            to = model * of_model + image * of_image
            if stride == n:
                _normalise(tokens, at, d, n, weight, bias, model, factor, least, out, to, step, kept, kept_at)
            else:
                widen(room, 0, flat, at, n, d, n, stride)
                _normalise(room, 0, d, stride, weight, bias, model, factor, least, room, 0, stride, kept, kept_at)
                narrow(out, to, step, room, 0, d, n, stride)


@jit
def _differentiate(tokens, at, given, given_at, step, d, n, weight, model, factor, kept, kept_at, found, sums):
    """Write the gradient of one image's tokens over that of its result's, and add to those of weight and bias."""
    lanes = BYTES // tokens.itemsize
    for block in range(count(n, tokens.itemsize)):
        t = start(block, n, tokens.itemsize)
        mean, share = load_at(kept, kept_at + t), load_at(kept, kept_at + n + t)
        new = fresh(mean, block * lanes - t)
        flat = mean - mean
        tilt = flat
        for c in range(d):
            slope = load_at(given, given_at + c * step + t)
            normal = (load_at(tokens, at + c * n + t) - mean) * share
            inner, slope = slope * spread(weight, model * d + c), slope * new
            flat = flat + inner
            tilt = tilt + inner * normal
            store_at(sums, c * lanes, load_at(sums, c * lanes) + slope * normal)
            store_at(sums, (d + c) * lanes, load_at(sums, (d + c) * lanes) + slope)
        flat, tilt = flat * factor, tilt * factor * share
        for c in range(d):
            inner = load_at(given, given_at + c * step + t) * spread(weight, model * d + c)
            moved = load_at(tokens, at + c * n + t) - mean
            store_at(found, at + c * n + t, (inner - flat - moved * tilt) * share)


@jit
def backward(tokens, given, way, weight, share, room, totals, kept, found, sums, first, last, per_part):
    """Write the gradients of tokens `found`, and `sums`, from that of the result `given`."""
    (_, b, d, n), stride, lanes = tokens.shape, kept.shape[3], BYTES // tokens.itemsize
    parts, factor, flat, made = (b + per_part - 1) // per_part, splat(share), tokens.reshape(-1), found.reshape(-1)
    zero, (of_model, of_image, step) = factor - factor, way
    for part in range(first, last):
        model, begin = part // parts, (part % parts) * per_part
        for row in range(2 * d):
            store_at(totals, row * lanes, zero)
        for image in range(begin, min(begin + per_part, b)):
            at, kept_at = (model * b + image) * d * n, (model * b + image) * 2 * stride
            of = model * of_model + image * of_image
            if stride == n:
                _differentiate(tokens, at, given, of, step, d, n, weight, model, factor, kept, kept_at, found, totals)
            else:
                other = d * stride
                widen(room, 0, flat, at, n, d, n, stride)
                widen(room, other, given, of, step, d, n, stride)
                _differentiate(
                    room, 0, room, other, stride, d, stride, weight, model, factor, kept, kept_at, room, totals
                )
                narrow(made, at, n, room, 0, d, n, stride)
        for row in range(2 * d):
            sums[part, row // d, row % d] = total(load_at(totals, row * lanes))


@jit
def _average(tokens, at, d, n, factor, eps, kept, kept_at, known, totals, normals, image):
    """Write the means over tokens of one image's normalised features; only `known` of n tokens are any."""
    lanes = BYTES // tokens.itemsize
    for block in range(count(n, tokens.itemsize)):
        t = start(block, n, tokens.itemsize)
        mean, share = _moments(tokens, at + t, d, n, kept, kept_at + t, factor, eps)
        new = share * fresh(mean, block * lanes - t)
        if known < n:
            new = new - new * fresh(mean, known)
        for c in range(d):
            normal = (load_at(tokens, at + c * n + t) - mean) * new
            if block > 0:
                normal = normal + load_at(totals, c * lanes)
            store_at(totals, c * lanes, normal)
    for c in range(d):
        normals[image * d + c] = total(load_at(totals, c * lanes)) / normals.dtype.type(known)


@jit
def forward_mean(tokens, weight, bias, eps, share, room, totals, out, normals, kept, first, last, per_part):
    """Write the mean over tokens `(m, b, d)` of normal·weight + bias."""
    (_, b, d, n), stride = tokens.shape, kept.shape[3]
    parts, factor, least = (b + per_part - 1) // per_part, splat(share), splat(eps)
    means, made, flat = normals.reshape(-1), out.reshape(-1), tokens.reshape(-1)
    for part in range(first, last):
        model, begin = part // parts, (part % parts) * per_part
        for image in range(model * b + begin, model * b + min(begin + per_part, b)):
            kept_at = image * 2 * stride
            if stride == n:
                at = image * d * n
                _average(tokens, at, d, n, factor, least, kept, kept_at, n, totals, means, image)
            else:
                widen(room, 0, flat, image * d * n, n, d, n, stride)
                _average(room, 0, d, stride, factor, least, kept, kept_at, n, totals, means, image)
            for c in range(d):
                made[image * d + c] = means[image * d + c] * weight[model, c] + bias[model, c]


@jit
def _spread(tokens, at, d, n, slopes, kept, kept_at, factor, found):
    """Write the gradient of one image's tokens from those of their normalised features, the same for all of them."""
    for block in range(count(n, tokens.itemsize)):
        t = start(block, n, tokens.itemsize)
        mean, share = load_at(kept, kept_at + t), load_at(kept, kept_at + n + t)
        flat = mean - mean
        tilt = flat
        for c in range(d):
            inner = spread(slopes, c)
            flat = flat + inner
            tilt = tilt + inner * (load_at(tokens, at + c * n + t) - mean)
        flat, tilt = flat * factor, tilt * factor * share * share
        for c in range(d):
            moved = load_at(tokens, at + c * n + t) - mean
            store_at(found, at + c * n + t, (spread(slopes, c) - flat - moved * tilt) * share)


@jit
def backward_mean(tokens, given, weight, share, room, slopes, normals, kept, found, sums, first, last, per_part):
    """Write the gradients of tokens `found`, and `sums`, from that of the mean `given` `(m, b, d)`."""
    (_, b, d, n), stride = tokens.shape, kept.shape[3]
    parts, factor = (b + per_part - 1) // per_part, splat(share)
    means, wanted, flat, made = normals.reshape(-1), given.reshape(-1), tokens.reshape(-1), found.reshape(-1)
    for part in range(first, last):
        model, begin = part // parts, (part % parts) * per_part
        for c in range(d):
            sums[part, 0, c] = 0
            sums[part, 1, c] = 0
        for image in range(model * b + begin, model * b + min(begin + per_part, b)):
            for c in range(d):
                slope = wanted[image * d + c]
                slopes[c] = slope * weight[model, c] / slopes.dtype.type(n)
                sums[part, 0, c] += slope * means[image * d + c]
                sums[part, 1, c] += slope
            at, kept_at = image * d * n, image * 2 * stride
            if stride == n:
                _spread(tokens, at, d, n, slopes, kept, kept_at, factor, found)
            else:
                widen(room, 0, flat, at, n, d, n, stride)
                _spread(room, 0, d, stride, slopes, kept, kept_at, factor, room)
                narrow(made, at, n, room, 0, d, n, stride)
