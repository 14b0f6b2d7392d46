"""The Heisenberg engine's kernel: nodes evaluated for a block of tokens at a time, then differentiated in reverse.

Row 0 of `values` is 0, row 1 is 1, row k + 2 is node k. The inputs' share of the angles comes as in
`statevector_kernel.py`, the weights' as cosines and sines of the whole angles.
"""

from qvit.cpu.compiled import jit
from qvit.cpu.vectors import BYTES, cos_sin, is_far, like, load, mend_far, splat, store


@jit
def _fill_trig(trig, inputs, row, columns, blocks):
    """Write cos and sin of the inputs' share of the angles of one block: rows 2·column and 2·column + 1."""
    for column in range(columns):
        share = load(inputs, row + column * blocks)
        a, b = cos_sin(share * like(share, 0.5))
        store(trig, 2 * column, a * a - b * b)
        store(trig, 2 * column + 1, a * b + a * b)
        if is_far(share):
            mend_far(trig, 2 * column, share, 1.0)


@jit
def _evaluate(code, trig, cw, sw, group, cos, sin, values):
    """Fill `cos` and `sin`, one row per rotation, and `values`."""
    columns = code[code[0] : code[1]]
    for r in range(len(columns)):
        c, s = splat(cw[group, r]), splat(sw[group, r])
        if columns[r] >= 0:
            a, b = load(trig, 2 * columns[r]), load(trig, 2 * columns[r] + 1)
            c, s = a * c - b * s, b * c + a * s
        store(cos, r, c)
        store(sin, r, s)
    store(values, 0, splat(values.dtype.type(0)))
    store(values, 1, splat(values.dtype.type(1)))
    for k in range((code[2] - code[1]) // 4):
        r, along, across, sign = code[code[1] + 4 * k : code[1] + 4 * k + 4]
        value = load(cos, r) * load(values, along)
        if across > 0:
            term = load(sin, r) * load(values, across)
            value = value + term if sign > 0 else value - term
        store(values, k + 2, value)


@jit
def forward(code, inputs, cw, sw, order, starts, trig, cos, sin, values, out, first, last, per_part):
    """Write expectation values `out` (group, observable, token) for parts `first` to `last`."""
    blocks, columns = out.shape[2] * out.itemsize // BYTES, inputs.shape[1]
    parts = (blocks + per_part - 1) // per_part
    for part in range(first, last):
        origin, begin = part // parts, (part % parts) * per_part
        for block in range(begin, min(begin + per_part, blocks)):
            row = origin * columns * blocks + block
            _fill_trig(trig, inputs, row, columns, blocks)
            for group in order[starts[origin] : starts[origin + 1]]:
                _evaluate(code, trig, cw, sw, group, cos, sin, values)
                for o in range(out.shape[1]):
                    value = load(values, code[code[2] + 2 * o])
                    if code[code[2] + 2 * o + 1] < 0:
                        value = -value
                    store(out, (group * out.shape[1] + o) * blocks + block, value)


@jit
def _differentiate(code, group, block, blocks, cos, sin, values, slopes, grad, adjoint):
    """Fill `slopes`, one row per rotation, from the gradient of the outputs."""
    zero = splat(values.dtype.type(0))
    nodes = (code[2] - code[1]) // 4
    for k in range(nodes + 2):
        store(adjoint, k, zero)
    for r in range(code[1] - code[0]):
        store(slopes, r, zero)
    for o in range(grad.shape[1]):
        g, place = load(grad, (group * grad.shape[1] + o) * blocks + block), code[code[2] + 2 * o]
        if code[code[2] + 2 * o + 1] < 0:
            g = -g
        store(adjoint, place, load(adjoint, place) + g)
    for k in range(nodes - 1, -1, -1):
        r, along, across, sign = code[code[1] + 4 * k : code[1] + 4 * k + 4]
        a, c, s = load(adjoint, k + 2), load(cos, r), load(sin, r)
        store(adjoint, along, load(adjoint, along) + a * c)
        slope = s * load(values, along)
        if across > 0:
            term, push = c * load(values, across), a * s
            slope = slope - term if sign > 0 else slope + term
            store(adjoint, across, load(adjoint, across) + push if sign > 0 else load(adjoint, across) - push)
        store(slopes, r, load(slopes, r) - a * slope)


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
    """Add to the gradients of the inputs' angles and of the weights' angles, a row per part."""
    blocks, columns = grad.shape[2] * grad.itemsize // BYTES, inputs.shape[1]
    parts = (blocks + per_part - 1) // per_part
    for part in range(first, last):
        origin, begin = part // parts, (part % parts) * per_part
        for block in range(begin, min(begin + per_part, blocks)):
            row = origin * columns * blocks + block
            _fill_trig(trig, inputs, row, columns, blocks)
            for group in order[starts[origin] : starts[origin + 1]]:
                _evaluate(code, trig, cw, sw, group, cos, sin, values)
                _differentiate(code, group, block, blocks, cos, sin, values, slopes, grad, adjoint)
                for r in range(cw.shape[1]):
                    place = (group * grad_w.shape[1] + part % parts) * cw.shape[1] + r
                    store(grad_w, place, load(grad_w, place) + load(slopes, r))
                    if code[code[0] + r] >= 0:
                        place = row + code[code[0] + r] * blocks
                        store(grad_x, place, load(grad_x, place) + load(slopes, r))
