"""The Heisenberg engine's kernel: nodes evaluated for two blocks of tokens at a time, then differentiated in reverse.

Two blocks share the reading of the circuit, and one computes while the other waits. Places in `values` are two rows
each: place 0 is 0, place 1 is 1, place k + 2 is node k. The inputs' share of the angles comes as in
`statevector_kernel.py`, the weights' as cosines and sines of the whole angles.
"""

from qvit.cpu.compiled import jit
from qvit.cpu.rows import entry
from qvit.cpu.trigonometry import cos_sin, is_far, mend_far
from qvit.cpu.vectors import BYTES, like, load, splat, spread, store


@jit
def _fill_trig(trig, inputs, row, columns, blocks):
    """Write cos and sin of the inputs' share of the angles of two blocks: for a column, one block after the other."""
    for column in range(columns):
        for k in range(2):
            share, place = load(inputs, row + column * blocks + k), 4 * column + 2 * k
            a, b = cos_sin(share * like(share, 0.5))
            store(trig, place, a * a - b * b)
            store(trig, place + 1, a * b + a * b)
            if is_far(share):
                mend_far(trig, place, share, 1.0)


@jit
def _has_sines(code):
    """Return whether the values depend on sines: those of one layer of a ring are products of cosines."""
    most = 0
    for k in range((code[2] - code[1]) // 4):
        most = max(most, code[code[1] + 4 * k + 2])
    return most > 0


@jit
def _turn(code, trig, cw, sw, group, cos, sin, sines):
    """Fill `cos` and, if wanted, `sin`, two rows per rotation."""
    start, rotations = entry(code, 0), cw.shape[1]
    for r in range(rotations):
        c, s, column = spread(cw, group * rotations + r), spread(sw, group * rotations + r), entry(code, start + r)
        if column < 0:
            store(cos, 2 * r, c)
            store(cos, 2 * r + 1, c)
            store(sin, 2 * r, s)
            store(sin, 2 * r + 1, s)
            continue
        a, b = load(trig, 4 * column), load(trig, 4 * column + 1)
        p, q = load(trig, 4 * column + 2), load(trig, 4 * column + 3)
        store(cos, 2 * r, a * c - b * s)
        store(cos, 2 * r + 1, p * c - q * s)
        if sines:
            store(sin, 2 * r, b * c + a * s)
            store(sin, 2 * r + 1, q * c + p * s)


@jit
def _evaluate(code, cos, sin, values):
    """Fill `values`."""
    for k in range(2):
        store(values, k, splat(values.dtype.type(0)))
        store(values, k + 2, splat(values.dtype.type(1)))
    start = entry(code, 1)
    for k in range((entry(code, 2) - start) // 4):
        place = start + 4 * k
        r, along, across = 2 * entry(code, place), 2 * entry(code, place + 1), 2 * entry(code, place + 2)
        a, b = load(cos, r) * load(values, along), load(cos, r + 1) * load(values, along + 1)
        if across > 0:
            p, q = load(sin, r) * load(values, across), load(sin, r + 1) * load(values, across + 1)
            if entry(code, place + 3) > 0:
                a, b = a + p, b + q
            else:
                a, b = a - p, b - q
        store(values, 2 * k + 4, a)
        store(values, 2 * k + 5, b)


@jit
def forward(code, inputs, cw, sw, order, starts, trig, cos, sin, values, out, first, last, per_part):
    """Write expectation values `out` (group, observable, token) for parts `first` to `last`."""
    blocks, columns, outputs = out.shape[2] * out.itemsize // BYTES, inputs.shape[1], out.shape[1]
    parts, sines = (blocks + per_part - 1) // per_part, _has_sines(code)
    for part in range(first, last):
        origin, begin = part // parts, (part % parts) * per_part
        for block in range(begin, min(begin + per_part, blocks), 2):
            _fill_trig(trig, inputs, origin * columns * blocks + block, columns, blocks)
            for k in range(starts[origin], starts[origin + 1]):
                group = entry(order, k)
                _turn(code, trig, cw, sw, group, cos, sin, sines)
                _evaluate(code, cos, sin, values)
                for o in range(outputs):
                    place, row = entry(code, 2) + 2 * o, (group * outputs + o) * blocks + block
                    a, b = load(values, 2 * entry(code, place)), load(values, 2 * entry(code, place) + 1)
                    if entry(code, place + 1) < 0:
                        a, b = -a, -b
                    store(out, row, a)
                    store(out, row + 1, b)


@jit
def _seed(code, group, block, blocks, grad, adjoint, nodes):
    """Fill `adjoint` with the gradient of the outputs."""
    zero = splat(adjoint.dtype.type(0))
    for k in range(2 * nodes + 4):
        store(adjoint, k, zero)
    for o in range(grad.shape[1]):
        place, row = entry(code, 2) + 2 * o, (group * grad.shape[1] + o) * blocks + block
        a, b, at = load(grad, row), load(grad, row + 1), 2 * entry(code, place)
        if entry(code, place + 1) < 0:
            a, b = -a, -b
        store(adjoint, at, load(adjoint, at) + a)
        store(adjoint, at + 1, load(adjoint, at + 1) + b)


@jit
def _differentiate(code, cos, sin, values, slopes, adjoint, nodes):
    """Fill `slopes`, two rows per rotation, from the `adjoint` of the outputs."""
    zero = splat(values.dtype.type(0))
    for r in range(2 * (entry(code, 1) - entry(code, 0))):
        store(slopes, r, zero)
    for k in range(nodes - 1, -1, -1):
        place = entry(code, 1) + 4 * k
        r, along, across = 2 * entry(code, place), 2 * entry(code, place + 1), 2 * entry(code, place + 2)
        a, c, s = load(adjoint, 2 * k + 4), load(cos, r), load(sin, r)
        b, d, t = load(adjoint, 2 * k + 5), load(cos, r + 1), load(sin, r + 1)
        store(adjoint, along, load(adjoint, along) + a * c)
        store(adjoint, along + 1, load(adjoint, along + 1) + b * d)
        slope, other = s * load(values, along), t * load(values, along + 1)
        if across > 0:
            p, q = c * load(values, across), d * load(values, across + 1)
            push, tug = a * s, b * t
            if entry(code, place + 3) > 0:
                slope, other = slope - p, other - q
            else:
                slope, other, push, tug = slope + p, other + q, -push, -tug
            store(adjoint, across, load(adjoint, across) + push)
            store(adjoint, across + 1, load(adjoint, across + 1) + tug)
        store(slopes, r, load(slopes, r) - a * slope)
        store(slopes, r + 1, load(slopes, r + 1) - b * other)


@jit
def _clear(grad_x, grad_w, origin, part, begin, end, order, starts, columns, blocks):
    """Write zeros where a part adds its gradients."""
    zero = splat(grad_x.dtype.type(0))
    for column in range(columns):
        for block in range(begin, end):
            store(grad_x, (origin * columns + column) * blocks + block, zero)
    for k in range(starts[origin], starts[origin + 1]):
        for r in range(grad_w.shape[2]):
            store(grad_w, (order[k] * grad_w.shape[1] + part) * grad_w.shape[2] + r, zero)


@jit
def backward(
    code,
    inputs,
    cw,
    sw,
    order,
    starts,
    trig,
    cos,
    sin,
    slopes,
    values,
    adjoint,
    grad,
    grad_x,
    grad_w,
    first,
    last,
    per_part,
):
    """Write the gradients of the inputs' angles and of the weights' angles, a row per part."""
    blocks, columns, rotations = grad.shape[2] * grad.itemsize // BYTES, inputs.shape[1], cw.shape[1]
    parts, nodes = (blocks + per_part - 1) // per_part, (code[2] - code[1]) // 4
    for part in range(first, last):
        origin, begin = part // parts, (part % parts) * per_part
        end = min(begin + per_part, blocks)
        _clear(grad_x, grad_w, origin, part % parts, begin, end, order, starts, columns, blocks)
        for block in range(begin, end, 2):
            row = origin * columns * blocks + block
            _fill_trig(trig, inputs, row, columns, blocks)
            for k in range(starts[origin], starts[origin + 1]):
                group = entry(order, k)
                _turn(code, trig, cw, sw, group, cos, sin, True)
                _evaluate(code, cos, sin, values)
                _seed(code, group, block, blocks, grad, adjoint, nodes)
                _differentiate(code, cos, sin, values, slopes, adjoint, nodes)
                for r in range(rotations):
                    a, b = load(slopes, 2 * r), load(slopes, 2 * r + 1)
                    place, column = (group * grad_w.shape[1] + part % parts) * rotations + r, entry(code, code[0] + r)
                    store(grad_w, place, load(grad_w, place) + (a + b))
                    if column >= 0:
                        place = row + column * blocks
                        store(grad_x, place, load(grad_x, place) + a)
                        store(grad_x, place + 1, load(grad_x, place + 1) + b)
