"""Cosines and sines of the lanes of a vector, of angles of any size."""

from math import cos, factorial, pi, sin
from typing import Any

from llvmlite import ir
from numba import float64
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from qvit.cpu.compiled import jit
from qvit.cpu.vectors import BYTES, CONTRACT, is_double, lane, larger, like, llvm_type, nearest

# π in parts for exact reduction, and Taylor coefficients that are exact to the last digit within ±π/2.
_PI_NEAR = (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7)  # the first two have 8 and 11 bits
NEAR = 800.0  # some 2⁸ times π: products with these parts of π are exact in float32
_PI_SINGLE = (3.1415926218032837, 3.178650954705639e-8)  # the first has 25 bits: exact times 2²⁸ in float64
_PI_DOUBLE = (3.141592651605606, 1.9841871479187034e-9, 1.1442377452219664e-17)
FAR = 1e8  # 2²⁴ times π: the products with the first parts of π are exact up to there, and a little beyond
_SIN = tuple((-1.0) ** k / factorial(2 * k + 1) for k in range(11))
_COS = tuple((-1.0) ** k / factorial(2 * k) for k in range(12))


@intrinsic
def _beyond(_typing: Any, vector: Any, limit: Any) -> Any:
    """Return 1 in lanes that are larger than `limit`, or smaller than its negative, as bits of one number."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        beyond = builder.fcmp_ordered(">", _size(builder, kind, arguments[0]), arguments[1])
        return builder.zext(builder.bitcast(beyond, ir.IntType(kind.count)), ir.IntType(64))

    return types.int64(vector, vector), generate


@intrinsic
def _where_beyond(_typing: Any, vector: Any, limit: Any, far: Any, near: Any) -> Any:
    """Return the lanes of `far` where those of a vector are beyond the limit, of `near` elsewhere."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        size = _size(builder, llvm_type(vector.dtype), arguments[0])
        return builder.select(builder.fcmp_ordered(">", size, arguments[1]), *arguments[2:])

    return vector(vector, vector, vector, vector), generate


def _size(builder: Any, kind: ir.VectorType, vector: Any) -> Any:
    name = f"llvm.fabs.v{kind.count}f{32 if kind.element == ir.FloatType() else 64}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
    return builder.call(function, [vector])


@intrinsic
def _less_multiples_of_pi(_typing: Any, vector: Any) -> Any:
    """Return float32 lanes minus the nearest multiple of π, in float64, as float32 loses digits of large angles."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        wide = ir.VectorType(ir.DoubleType(), kind.count)

        def number(value: float) -> Any:
            return ir.Constant(wide, [value] * kind.count)

        rint = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(wide, [wide]), f"llvm.rint.v{kind.count}f64"
        )
        rest = builder.fpext(arguments[0], wide)
        turns = builder.call(rint, [builder.fmul(rest, number(1.0 / pi))])
        for part in _PI_SINGLE:
            rest = builder.fsub(rest, builder.fmul(turns, number(part), flags=CONTRACT), flags=CONTRACT)
        return builder.fptrunc(rest, kind)

    return vector(vector), generate


@jit
def _less(half, parts):
    """Return the lanes minus the nearest multiple of π, which comes in parts."""
    turns = nearest(half * like(half, 0.3183098861837907))
    for part in parts:
        half = half - turns * like(half, part)
    return half


@jit
def _clamped(half):
    """Return the lanes within ±π/2, where they would be but for lost digits."""
    half = larger(like(half, -1.5707963267948966), half)
    return -larger(like(half, -1.5707963267948966), -half)


@jit
def cos_sin(half):
    """Return cos and sin of the lanes, both with their sign changed if an odd multiple of π was taken off first.

    For half an angle, π is a whole turn: a sign of the state, which no expectation value sees. Beyond the limit of
    `is_far`, digits are lost; results stay in [−1, 1].
    """
    double = is_double(half)
    if double:
        half = _clamped(_less(half, _PI_DOUBLE))
    else:
        near = _less(half, _PI_NEAR)
        if _beyond(half, like(half, NEAR)):
            # Lane by lane, so that no lane's result depends on the others.
            half = _where_beyond(half, like(half, NEAR), _clamped(_less_multiples_of_pi(half)), near)
        else:
            half = near
    square = half * half
    sin, cos = like(half, 0.0), like(half, 0.0)
    if double:
        for k in range(10, -1, -1):
            sin = sin * square + like(half, _SIN[k])
        for k in range(11, -1, -1):
            cos = cos * square + like(half, _COS[k])
    else:
        for k in range(6, -1, -1):
            sin = sin * square + like(half, _SIN[k])
            cos = cos * square + like(half, _COS[k])
    return cos, sin * half


@jit
def is_far(angles):
    """Return whether the size of any lane is beyond `FAR`, where `cos_sin` loses digits."""
    return _beyond(angles, like(angles, FAR)) != 0


@jit
def mend_far(trig, row, angles, factor):
    """Overwrite rows `row` and `row` + 1 of `trig` with exact cos and sin of factor · angle, in lanes beyond `FAR`.

    All other lanes stay as they are, so that no lane's result depends on the others.
    """
    n = BYTES // trig.itemsize
    for k in range(n):
        angle = float64(lane(angles, k))
        if abs(angle) > FAR:
            trig[row * n + k] = cos(factor * angle)
            trig[(row + 1) * n + k] = sin(factor * angle)
