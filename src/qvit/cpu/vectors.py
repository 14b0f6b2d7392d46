"""A vector of 64 bytes as a Numba type: 16 floats or 8 doubles that are loaded, computed with and stored as one.

Loops over lanes written out in Python are vectorised by LLVM only when it can prove that rows do not overlap, and
then with guards that cost more than the arithmetic. With an explicit vector type it needs no proof. On processors
without 64-byte registers LLVM uses several smaller ones.
"""

import operator
from math import factorial
from typing import Any

from llvmlite import ir
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
def nearest(_typing: Any, vector: Any) -> Any:
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


@intrinsic
def is_double(_typing: Any, vector: Any) -> Any:
    """Return whether the lanes are doubles, known when the kernel is compiled."""

    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(vector.dtype.bitwidth == 64))

    return types.boolean(vector), generate


_EXP2 = tuple(0.6931471805599453**k / factorial(k) for k in range(14))


@jit
def power_of_two(exponent):
    """Return 2 to the power of each lane, for lanes up to 100; at least the smallest normal number."""
    double = is_double(exponent)
    lowest = like(exponent, -1022.0) if double else like(exponent, -126.0)
    exponent = larger(lowest, exponent)
    whole = nearest(exponent)
    rest = exponent - whole
    value = like(exponent, 0.0)
    if double:
        for k in range(13, -1, -1):
            value = value * rest + like(exponent, _EXP2[k])
    else:
        for k in range(7, -1, -1):
            value = value * rest + like(exponent, _EXP2[k])
    return _times_power(value, whole)
