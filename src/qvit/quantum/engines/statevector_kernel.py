"""The statevector kernel: forward and adjoint passes over blocks of tokens that stay in cache.

A block is as many tokens as a vector register has lanes; amplitude i of all of them is row i of the state. Nothing of
size 2ⁿ outlives a block: the backward pass runs the circuit again and then undoes it, rotation by rotation, on the
state ψ and on λ = Oψ together (the adjoint method of Jones and Gacon 2020, arXiv:2009.02823), so memory does not
depend on depth.

The inputs' share of the angles comes as it is (`inputs`: source, column, token), the weights' as cosines and sines of
half angles (`cw`, `sw`: group, rotation); the kernel adds them by the addition theorem. A source is a row of inputs
that one or several groups of weights share: the groups of source s are `order[starts[s] : starts[s + 1]]`. The tokens
of every array come in whole blocks.
"""

# The functions are for Numba: plain loops, no annotations, every array contiguous. `load(state, i)` is amplitude i.

from qvit.cpu.compiled import jit
from qvit.cpu.rows import entry
from qvit.cpu.trigonometry import cos_sin, is_far, mend_far
from qvit.cpu.vectors import BYTES, like, load, splat, spread, store
from qvit.quantum.engines.tables import FIRST, MIDDLE, SECOND, SIGN1, SIGN2, START, STEP, STOP, X1, X2


@jit
def _fill_trig(trig, inputs, row, columns, blocks):
    """Write cos and sin of half the inputs' share of the angles of one block: rows 2·column and 2·column + 1."""
    for column in range(columns):
        share = load(inputs, row + column * blocks)
        cos, sin = cos_sin(share * like(share, 0.5))
        store(trig, 2 * column, cos)
        store(trig, 2 * column + 1, sin)
        if is_far(share):
            mend_far(trig, 2 * column, share, 0.5)


@jit
def _half_angle(r, group, angles):
    """Return cos and sin of half the angle of rotation r."""
    trig, cw, sw, rotations = angles
    place, column = group * cw.shape[1] + r, entry(rotations, 3 * r + 2)
    cos, sin = spread(cw, place), spread(sw, place)
    if column >= 0:
        a, b = load(trig, 2 * column), load(trig, 2 * column + 1)
        cos, sin = a * cos - b * sin, b * cos + a * sin
    return cos, sin


@jit
def _start(psi, size, group, angles, n_prefix, prefix, loads, amplitudes, amplitude_row, blocks):
    """Fill ψ with the loaded amplitudes, or with the product state that the first rotations make."""
    one = psi.dtype.type(1)
    if len(loads) > 0 or len(prefix) < size:
        for i in range(size):
            store(psi, i, splat(one - one))
    if len(loads) > 0:
        for k in range(len(loads)):
            store(psi, loads[k], load(amplitudes, amplitude_row + k * blocks))
        return
    store(psi, 0, splat(one))
    for k in range(n_prefix):
        cos, sin = _half_angle(k, group, angles)
        half = 1 << k
        for t in range(half):
            a = load(psi, entry(prefix, t))
            store(psi, entry(prefix, t), a * cos)
            store(psi, entry(prefix, t + half), a * sin)


@jit
def _rotate_one(psi, cos, sin, x, bases, start, stop):
    """Apply one rotation."""
    for t in range(start, stop):
        e = entry(bases, t)
        a, b = load(psi, e), load(psi, e ^ x)
        store(psi, e, a * cos - b * sin)
        store(psi, e ^ x, b * cos + a * sin)


@jit
def _rotate_two(psi, c1, s1, t1, c2, s2, t2, x1, x2, bases, start, stop):
    """Apply two rotations; t1 is the first's sine at e^x₂, t2 the second's at e^x₁."""
    for t in range(start, stop):
        e = entry(bases, t)
        a, b, c, d = load(psi, e), load(psi, e ^ x1), load(psi, e ^ x2), load(psi, e ^ x1 ^ x2)
        a, b = a * c1 - b * s1, b * c1 + a * s1
        c, d = c * c1 - d * t1, d * c1 + c * t1
        store(psi, e, a * c2 - c * s2)
        store(psi, e ^ x2, c * c2 + a * s2)
        store(psi, e ^ x1, b * c2 - d * t2)
        store(psi, e ^ x1 ^ x2, d * c2 + b * t2)


@jit
def _signed(vector, sign):
    return vector if sign > 0 else -vector


@jit
def _evolve(psi, group, angles, steps, bases):
    """Apply all rotations after the prefix."""
    for step in range(0, len(steps), STEP):
        c1, s1 = _half_angle(entry(steps, step + FIRST), group, angles)
        if entry(steps, step + SECOND) < 0:
            _rotate_one(
                psi, c1, s1, entry(steps, step + X1), bases, entry(steps, step + START), entry(steps, step + STOP)
            )
            continue
        c2, s2 = _half_angle(entry(steps, step + SECOND), group, angles)
        t1, t2 = _signed(s1, entry(steps, step + SIGN1)), _signed(s2, entry(steps, step + SIGN2))
        x1, x2 = entry(steps, step + X1), entry(steps, step + X2)
        _rotate_two(psi, c1, s1, t1, c2, s2, t2, x1, x2, bases, entry(steps, step + START), entry(steps, step + MIDDLE))
        _rotate_two(
            psi, c1, s1, t1, c2, -s2, -t2, x1, x2, bases, entry(steps, step + MIDDLE), entry(steps, step + STOP)
        )


@jit
def _undo_one(psi, lam, cos, sin, x, bases, start, stop):
    """Undo one rotation on ψ and λ; return 2⟨λ|∂ψ/∂θ⟩ for its angle θ."""
    slope = cos - cos
    for t in range(start, stop):
        e = entry(bases, t)
        a, b, p, q = load(psi, e), load(psi, e ^ x), load(lam, e), load(lam, e ^ x)
        slope = slope + q * a
        slope = slope - p * b
        store(psi, e, a * cos + b * sin)
        store(psi, e ^ x, b * cos - a * sin)
        store(lam, e, p * cos + q * sin)
        store(lam, e ^ x, q * cos - p * sin)
    return slope


@jit
def _undo_two(psi, lam, c1, s1, t1, c2, s2, t2, x1, x2, bases, start, stop):
    """Undo two rotations; return the four slopes: first at e and e^x₂, second at e and e^x₁."""
    g1 = c1 - c1
    h1, g2, h2 = g1, g1, g1
    for t in range(start, stop):
        e = entry(bases, t)
        a, b, c, d = load(psi, e), load(psi, e ^ x1), load(psi, e ^ x2), load(psi, e ^ x1 ^ x2)
        p, q, r, u = load(lam, e), load(lam, e ^ x1), load(lam, e ^ x2), load(lam, e ^ x1 ^ x2)
        g2 = g2 + r * a
        g2 = g2 - p * c
        h2 = h2 + u * b
        h2 = h2 - q * d
        a, c = a * c2 + c * s2, c * c2 - a * s2
        b, d = b * c2 + d * t2, d * c2 - b * t2
        p, r = p * c2 + r * s2, r * c2 - p * s2
        q, u = q * c2 + u * t2, u * c2 - q * t2
        g1 = g1 + q * a
        g1 = g1 - p * b
        h1 = h1 + u * c
        h1 = h1 - r * d
        store(psi, e, a * c1 + b * s1)
        store(psi, e ^ x1, b * c1 - a * s1)
        store(psi, e ^ x2, c * c1 + d * t1)
        store(psi, e ^ x1 ^ x2, d * c1 - c * t1)
        store(lam, e, p * c1 + q * s1)
        store(lam, e ^ x1, q * c1 - p * s1)
        store(lam, e ^ x2, r * c1 + u * t1)
        store(lam, e ^ x1 ^ x2, u * c1 - r * t1)
    return g1, h1, g2, h2


@jit
def _credit(slope, r, group, row, part, rotations, blocks, grad_x, grad_w):
    """Add the slope of a rotation to the gradients of its angle."""
    place, column = (group * grad_w.shape[1] + part) * grad_w.shape[2] + r, entry(rotations, 3 * r + 2)
    store(grad_w, place, load(grad_w, place) + slope)
    if column >= 0:
        place = row + column * blocks
        store(grad_x, place, load(grad_x, place) + slope)


@jit
def _undo(psi, lam, group, row, part, angles, steps, bases, grad_x, grad_w, blocks):
    """Undo all rotations after the prefix and collect the gradients of their angles."""
    rotations = angles[3]
    for step in range(len(steps) - STEP, -1, -STEP):
        first, second, x1, x2 = (
            entry(steps, step + FIRST),
            entry(steps, step + SECOND),
            entry(steps, step + X1),
            entry(steps, step + X2),
        )
        c1, s1 = _half_angle(first, group, angles)
        if second < 0:
            slope = _undo_one(psi, lam, c1, s1, x1, bases, entry(steps, step + START), entry(steps, step + STOP))
            _credit(slope, first, group, row, part, rotations, blocks, grad_x, grad_w)
            continue
        c2, s2 = _half_angle(second, group, angles)
        t1, t2 = _signed(s1, entry(steps, step + SIGN1)), _signed(s2, entry(steps, step + SIGN2))
        g1, h1, g2, h2 = _undo_two(
            psi, lam, c1, s1, t1, c2, s2, t2, x1, x2, bases, entry(steps, step + START), entry(steps, step + MIDDLE)
        )
        slope1, slope2 = g1 + _signed(h1, entry(steps, step + SIGN1)), g2 + _signed(h2, entry(steps, step + SIGN2))
        if entry(steps, step + STOP) > entry(steps, step + MIDDLE):
            g1, h1, g2, h2 = _undo_two(
                psi,
                lam,
                c1,
                s1,
                t1,
                c2,
                -s2,
                -t2,
                x1,
                x2,
                bases,
                entry(steps, step + MIDDLE),
                entry(steps, step + STOP),
            )
            slope1, slope2 = (
                slope1 + (g1 + _signed(h1, entry(steps, step + SIGN1))),
                slope2 - (g2 + _signed(h2, entry(steps, step + SIGN2))),
            )
        _credit(slope1, first, group, row, part, rotations, blocks, grad_x, grad_w)
        _credit(slope2, second, group, row, part, rotations, blocks, grad_x, grad_w)


@jit
def _undo_start(
    psi, lam, group, row, part, angles, n_prefix, prefix, loads, grad_x, grad_w, grad_a, amplitude_row, blocks
):
    """Collect the gradients of the product state's angles, or of the loaded amplitudes."""
    rotations = angles[3]
    for k in range(len(loads)):
        place = amplitude_row + k * blocks
        slope = load(lam, loads[k])
        store(grad_a, place, load(grad_a, place) + (slope + slope))
    for k in range(n_prefix - 1, -1, -1):
        cos, sin = _half_angle(k, group, angles)
        along_cos = cos - cos
        along_sin = along_cos
        half = 1 << k
        for t in range(half):
            i, j = entry(prefix, t), entry(prefix, t + half)
            p, q = load(lam, i), load(lam, j)
            a = load(psi, i) * cos + load(psi, j) * sin
            along_cos = along_cos + a * p
            along_sin = along_sin + a * q
            store(psi, i, a)
            store(lam, i, p * cos + q * sin)
        _credit(along_sin * cos - along_cos * sin, k, group, row, part, rotations, blocks, grad_x, grad_w)


@jit
def _parity(mask):
    count = 0
    while mask:
        mask &= mask - 1
        count ^= 1
    return count


@jit
def _log2(size):
    """Return the number of wires of 2ⁿ amplitudes."""
    n = 0
    while size > 1:
        size >>= 1
        n += 1
    return n


@jit
def _read(psi, scratch, size, group, block, blocks, fold, folded, direct, observables, out):
    """Write the expectation values: a tree of sums for the folded observables, one sum each for the others."""
    zero = splat(out.dtype.type(0))
    base = group * len(observables) * blocks + block
    half = size
    first = True
    for k in range(_log2(size) - 1, -1, -1):
        half >>= 1
        value = zero
        for t in range(half):
            if first:
                a, b = load(psi, entry(fold, t)), load(psi, entry(fold, t + half))
                a, b = a * a, b * b
            else:
                a, b = load(scratch, t), load(scratch, t + half)
            value = value + (a - b)
            store(scratch, t, a + b)
        first = False
        if k < len(folded):
            o = folded[k]
            store(out, base + o * blocks, value * splat(out.dtype.type(observables[o, 2])))
    for o in direct:
        x, z, sign = observables[o]
        value = zero
        if sign != 0:
            for i in range(size):
                term = load(psi, i) * load(psi, i ^ x)
                value = value - term if _parity(i & z) else value + term
        store(out, base + o * blocks, value * splat(out.dtype.type(sign)))


@jit
def _seed(psi, lam, scratch, size, group, block, blocks, fold, folded, direct, observables, grad):
    """Fill λ with Σ_o g_o · O_o ψ."""
    zero = splat(grad.dtype.type(0))
    base = group * len(observables) * blocks + block
    store(scratch, 0, zero)
    for k in range(len(folded)):
        o = folded[k]
        g = load(grad, base + o * blocks) * splat(grad.dtype.type(observables[o, 2]))
        half = 1 << k
        for t in range(half):
            d = load(scratch, t)
            store(scratch, t, d + g)
            store(scratch, t + half, d - g)
    mask = (1 << len(folded)) - 1
    for t in range(size):
        e = entry(fold, t)
        store(lam, e, load(psi, e) * load(scratch, t & mask))
    for o in direct:
        x, z, sign = observables[o]
        if sign == 0:
            continue
        g = load(grad, base + o * blocks) * splat(grad.dtype.type(sign))
        for i in range(size):
            term = load(psi, i ^ x) * g
            if _parity(i & z):  # (−1)^|i & z| is the same at i and i^x, for strings with an even number of Y
                store(lam, i, load(lam, i) - term)
            else:
                store(lam, i, load(lam, i) + term)


@jit
def _unpack(code):
    """Return the rotations and the other sections of an encoded program; see `tables.encode`."""
    circuit = (
        1 << code[0], code[1], code[code[7] : code[8]], code[code[4] : code[5]],
        code[code[5] : code[6]], code[code[6] : code[7]], code[code[8] : code[9]],
        code[code[9] : code[10]], code[code[10] : code[11]], code[code[3] : code[4]].reshape(-1, 3),
    )  # fmt: skip
    return code[code[2] : code[3]], circuit


@jit
def forward(code, inputs, cw, sw, amplitudes, order, starts, trig, scratch, out, first, last, per_part):
    """Write expectation values `out` (group, observable, token) for parts `first` to `last`.

    A part is `per_part` blocks of one source. `scratch` holds two states, `trig` two rows per column.
    """
    blocks, columns = out.shape[2] * out.itemsize // BYTES, inputs.shape[1]
    rotations, circuit = _unpack(code)
    angles = (trig, cw, sw, rotations)
    size, n_prefix, prefix, loads, steps, bases, fold, folded, direct, observables = circuit
    psi, work = scratch[0], scratch[1]
    parts = (blocks + per_part - 1) // per_part
    for part in range(first, last):
        origin, begin = part // parts, (part % parts) * per_part
        for block in range(begin, min(begin + per_part, blocks)):
            row, amplitude_row = origin * columns * blocks + block, origin * len(loads) * blocks + block
            _fill_trig(trig, inputs, row, columns, blocks)
            for group in order[starts[origin] : starts[origin + 1]]:
                _start(psi, size, group, angles, n_prefix, prefix, loads, amplitudes, amplitude_row, blocks)
                _evolve(psi, group, angles, steps, bases)
                _read(psi, work, size, group, block, blocks, fold, folded, direct, observables, out)


@jit
def _clear(grad_x, grad_w, grad_a, origin, part, begin, end, order, starts, columns, blocks):
    """Write zeros where a part adds its gradients."""
    zero, loads = splat(grad_x.dtype.type(0)), grad_a.shape[1]
    for block in range(begin, end):
        for column in range(columns):
            store(grad_x, (origin * columns + column) * blocks + block, zero)
        for k in range(loads):
            store(grad_a, (origin * loads + k) * blocks + block, zero)
    for k in range(starts[origin], starts[origin + 1]):
        for r in range(grad_w.shape[2]):
            store(grad_w, (order[k] * grad_w.shape[1] + part) * grad_w.shape[2] + r, zero)


@jit
def backward(
    code, inputs, cw, sw, amplitudes, order, starts, trig, scratch, grad, grad_x, grad_w, grad_a, first, last, per_part
):
    """Write the gradients of the inputs' angles, the weights' angles (a row per part) and the amplitudes."""
    blocks, columns = grad.shape[2] * grad.itemsize // BYTES, inputs.shape[1]
    rotations, circuit = _unpack(code)
    angles = (trig, cw, sw, rotations)
    size, n_prefix, prefix, loads, steps, bases, fold, folded, direct, observables = circuit
    psi, lam, work = scratch[0], scratch[1], scratch[2]
    parts = (blocks + per_part - 1) // per_part
    for part in range(first, last):
        origin, begin = part // parts, (part % parts) * per_part
        end = min(begin + per_part, blocks)
        _clear(grad_x, grad_w, grad_a, origin, part % parts, begin, end, order, starts, columns, blocks)
        for block in range(begin, end):
            row, amplitude_row = origin * columns * blocks + block, origin * len(loads) * blocks + block
            _fill_trig(trig, inputs, row, columns, blocks)
            for group in order[starts[origin] : starts[origin + 1]]:
                _start(psi, size, group, angles, n_prefix, prefix, loads, amplitudes, amplitude_row, blocks)
                _evolve(psi, group, angles, steps, bases)
                _seed(psi, lam, work, size, group, block, blocks, fold, folded, direct, observables, grad)
                _undo(psi, lam, group, row, part % parts, angles, steps, bases, grad_x, grad_w, blocks)
                _undo_start(
                    psi, lam, group, row, part % parts, angles, n_prefix, prefix, loads,
                    grad_x, grad_w, grad_a, amplitude_row, blocks,
                )  # fmt: skip
