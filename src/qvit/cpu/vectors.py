"""A vector of 64 bytes as a Numba type: 16 floats or 8 doubles that are loaded, computed with and stored as one.

Loops over lanes written out in Python are vectorised by LLVM only when it can prove that rows do not overlap, and
then with guards that cost more than the arithmetic. With an explicit vector type it needs no proof. On processors
without 64-byte registers LLVM uses several smaller ones.
"""

import operator
from math import cos, factorial, pi, sin
from typing import Any

from llvmlite import ir
from numba import float64
from numba.core import cgutils, types
from numba.core.extending import intrinsic, models, overload, register_model

from qvit.cpu.compiled import jit

BYTES = 64
CONTRACT = ("contract",)  # a·b + c may become one fused operation


def lanes(itemsize: int) -> int:
    """Return how many numbers of `itemsize` bytes a vector holds."""
    return BYTES // itemsize


class Vector(types.Type):
    """The type of a vector of `dtype`."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


def llvm_type(dtype: types.Float) -> ir.VectorType:
    """Return LLVM's type of a vector of `dtype`."""
    element = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(element, lanes(dtype.bitwidth // 8))


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, llvm_type(vector.dtype))


def pointer(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    """Return the address of a row of 64 bytes of an array of type `kind`."""
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, llvm_type(kind.dtype).as_pointer()), [row])


def broadcast(builder: Any, kind: ir.VectorType, number: Any) -> Any:
    """Return a vector with one number in every lane."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


@intrinsic
def load(_typing: Any, array: Any, row: Any) -> Any:
    """Return vector `row` of a contiguous array, counted in rows of 64 bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(pointer(context, builder, signature.args[0], *arguments))
        value.align = array.dtype.bitwidth // 8
        return value

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(_typing: Any, array: Any, row: Any, vector: Any) -> Any:
    """Write a vector to `row` of a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        written = builder.store(arguments[2], pointer(context, builder, signature.args[0], *arguments[:2]))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(_typing: Any, number: Any) -> Any:
    """Return a vector with one number in every lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return broadcast(builder, llvm_type(number), arguments[0])

    return Vector(number)(number), generate


@intrinsic
def spread(_typing: Any, array: Any, place: Any) -> Any:
    """Return a vector with number `place` of a contiguous array, counted from its start, in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        return broadcast(builder, llvm_type(array.dtype), builder.load(builder.gep(data, [arguments[1]])))

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def like(_typing: Any, vector: Any, number: Any) -> Any:
    """Return a vector of the same type as another, with one double in every lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        value = arguments[1] if vector.dtype.bitwidth == 64 else builder.fptrunc(arguments[1], kind.element)
        return broadcast(builder, kind, value)

    return vector(vector, types.float64), generate


@intrinsic
def _nearest(_typing: Any, vector: Any) -> Any:
    """Return every lane rounded to a whole number."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        name = f"llvm.rint.v{kind.count}f{vector.dtype.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name), arguments
        )

    return vector(vector), generate


@intrinsic
def larger(_typing: Any, left: Any, right: Any) -> Any:
    """Return the larger number in each lane of two vectors, or that of the right one if either is NaN."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return left(left, right), generate


@intrinsic
def lane(_typing: Any, vector: Any, place: Any) -> Any:
    """Return the number in one lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.extract_element(*arguments)

    return vector.dtype(vector, types.intp), generate


@intrinsic
def _any_beyond(_typing: Any, vector: Any, limit: Any) -> Any:
    """Return whether any lane is larger than `limit`, or smaller than its negative."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        name = f"llvm.fabs.v{kind.count}f{vector.dtype.bitwidth}"
        size = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
        beyond = builder.fcmp_ordered(">", builder.call(size, arguments[:1]), arguments[1])
        bits = ir.IntType(kind.count)
        return builder.icmp_unsigned("!=", builder.bitcast(beyond, bits), ir.Constant(bits, 0))

    return types.boolean(vector, vector), generate


@intrinsic
def total(_typing: Any, vector: Any) -> Any:
    """Return the sum over the lanes."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        name = f"llvm.vector.reduce.fadd.v{kind.count}f{vector.dtype.bitwidth}"
        function = ir.FunctionType(kind.element, [kind.element, kind])
        reduce = cgutils.get_or_insert_function(builder.module, function, name)
        return builder.call(reduce, [ir.Constant(kind.element, 0.0), arguments[0]], fastmath=("reassoc",))

    return vector.dtype(vector), generate


@intrinsic
def _times_power(_typing: Any, vector: Any, exponent: Any) -> Any:
    """Return every lane times 2 to the power of `exponent`: whole numbers for which that power is a normal number."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind, bits = llvm_type(vector.dtype), vector.dtype.bitwidth
        whole = ir.VectorType(ir.IntType(bits), kind.count)
        bias, mantissa = (127, 23) if bits == 32 else (1023, 52)
        shifted = builder.add(builder.fptosi(arguments[1], whole), ir.Constant(whole, [bias] * kind.count))
        power = builder.bitcast(builder.shl(shifted, ir.Constant(whole, [mantissa] * kind.count)), kind)
        return builder.fmul(arguments[0], power)

    return vector(vector, vector), generate


def _binary(instruction: str) -> Any:
    @intrinsic
    def apply(_typing: Any, left: Any, right: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=CONTRACT)

        return left(left, right), generate

    return apply


_add, _subtract, _multiply, _divide = map(_binary, ("fadd", "fsub", "fmul", "fdiv"))


@intrinsic
def _negate(_typing: Any, vector: Any) -> Any:
    return vector(vector), lambda _context, builder, _signature, arguments: builder.fneg(arguments[0])


@overload(operator.add)
def _overload_add(left, right):  # type: ignore[no-untyped-def]  # numba compares signatures, annotations and all
    return (lambda left, right: _add(left, right)) if isinstance(left, Vector) and left == right else None


@overload(operator.sub)
def _overload_sub(left, right):  # type: ignore[no-untyped-def]  # numba compares signatures, annotations and all
    return (lambda left, right: _subtract(left, right)) if isinstance(left, Vector) and left == right else None


@overload(operator.mul)
def _overload_mul(left, right):  # type: ignore[no-untyped-def]  # numba compares signatures, annotations and all
    return (lambda left, right: _multiply(left, right)) if isinstance(left, Vector) and left == right else None


@overload(operator.truediv)
def _overload_div(left, right):  # type: ignore[no-untyped-def]
    return (lambda left, right: _divide(left, right)) if isinstance(left, Vector) and left == right else None


@overload(operator.neg)
def _overload_neg(vector):  # type: ignore[no-untyped-def]
    return (lambda vector: _negate(vector)) if isinstance(vector, Vector) else None


# π in parts for exact reduction, and Taylor coefficients that are exact to the last digit within ±π/2.
_PI_SINGLE = (3.1415926218032837, 3.178650954705639e-8)  # the first has 25 bits: exact times 2²⁸ in float64
_PI_DOUBLE = (3.141592651605606, 1.9841871479187034e-9, 1.1442377452219664e-17)
FAR = 1e8  # 2²⁴ times π: the products with the first parts of π are exact up to there, and a little beyond
_SIN = tuple((-1.0) ** k / factorial(2 * k + 1) for k in range(11))
_COS = tuple((-1.0) ** k / factorial(2 * k) for k in range(12))


@intrinsic
def _is_double(_typing: Any, vector: Any) -> Any:
    """Return whether the lanes are doubles, known when the kernel is compiled."""

    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(vector.dtype.bitwidth == 64))

    return types.boolean(vector), generate


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
def cos_sin(half):
    """Return cos and sin of the lanes, both with their sign changed if an odd multiple of π was taken off first.

    For half an angle, π is a whole turn: a sign of the state, which no expectation value sees. Beyond the limit of
    `is_far`, digits are lost; results stay in [−1, 1].
    """
    double = _is_double(half)
    if double:
        turns = _nearest(half * like(half, 0.3183098861837907))
        for part in _PI_DOUBLE:
            half = half - turns * like(half, part)
    else:
        half = _less_multiples_of_pi(half)
    half = larger(like(half, -1.5707963267948966), half)
    half = -larger(like(half, -1.5707963267948966), -half)
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
    return _any_beyond(angles, like(angles, FAR))


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


_EXP2 = tuple(0.6931471805599453**k / factorial(k) for k in range(14))


@jit
def power_of_two(exponent):
    """Return 2 to the power of each lane, for lanes up to 100; at least the smallest normal number."""
    double = _is_double(exponent)
    lowest = like(exponent, -1022.0) if double else like(exponent, -126.0)
    exponent = larger(lowest, exponent)
    whole = _nearest(exponent)
    rest = exponent - whole
    value = like(exponent, 0.0)
    if double:
        for k in range(13, -1, -1):
            value = value * rest + like(exponent, _EXP2[k])
    else:
        for k in range(7, -1, -1):
            value = value * rest + like(exponent, _EXP2[k])
    return _times_power(value, whole)
