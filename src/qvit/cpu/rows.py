"""Vectors at any place of an array, not only at multiples of their length, and sums of lanes that lie side by side.

A row of n ≥ `lanes` numbers is covered by whole vectors of which the last ends where the row does: `start` says where
each begins, `fresh` which of its lanes no vector before it has covered.
"""

from typing import Any

from llvmlite import ir
from numba import float32
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from qvit.cpu.compiled import jit
from qvit.cpu.vectors import BYTES, Vector, llvm_type


def _at(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: ir.VectorType) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), vector.as_pointer())


@intrinsic
def load_at(_typing: Any, array: Any, place: Any) -> Any:
    """Return the vector that begins with number `place` of a contiguous array, counted from its start."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_at(context, builder, signature.args[0], *arguments, llvm_type(array.dtype)))
        value.align = array.dtype.bitwidth // 8
        return value

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def entry(_typing: Any, array: Any, place: Any) -> Any:
    """Return number `place` of a contiguous array, from its start: quicker, as no place counts from the end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.intp), generate


@intrinsic
def store_at(_typing: Any, array: Any, place: Any, vector: Any) -> Any:
    """Write a vector to number `place` of a contiguous array and those after it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _at(context, builder, signature.args[0], *arguments[:2], llvm_type(array.dtype))
        builder.store(arguments[2], pointer).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def load_pixels(_typing: Any, array: Any, place: Any) -> Any:
    """Return the vector of floats that begins with number `place` of an array of bytes or floats."""
    size = array.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = llvm_type(float32)
        stored = kind if size == 4 else ir.VectorType(ir.IntType(8), kind.count)
        value = builder.load(_at(context, builder, signature.args[0], *arguments, stored))
        value.align = size
        return value if size == 4 else builder.uitofp(value, kind)

    return Vector(float32)(array, types.intp), generate


@intrinsic
def root(_typing: Any, vector: Any) -> Any:
    """Return the square root of every lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        name = f"llvm.sqrt.v{kind.count}f{vector.dtype.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
        return builder.call(function, arguments)

    return vector(vector), generate


def _indices(numbers: Any) -> ir.Constant:
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)


@intrinsic
def paired(_typing: Any, left: Any, right: Any) -> Any:
    """Return the sums of lanes 0 and 1, 2 and 3, … of two vectors, those of the left one first."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        count = llvm_type(left.dtype).count
        even, odd = (builder.shuffle_vector(*arguments, _indices(range(k, 2 * count, 2))) for k in (0, 1))
        return builder.fadd(even, odd)

    return left(left, right), generate


def _doubling(first: int) -> Any:
    @intrinsic
    def doubled(_typing: Any, vector: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            count = llvm_type(vector.dtype).count
            lanes = _indices(first * count // 2 + k // 2 for k in range(count))
            return builder.shuffle_vector(arguments[0], ir.Constant(llvm_type(vector.dtype), ir.Undefined), lanes)

        return vector(vector), generate

    return doubled


# The first or second half of a vector's lanes, each of them twice: the transpose of `paired`.
doubled_first, doubled_second = _doubling(0), _doubling(1)


def _before(builder: Any, lanes: int, bound: Any) -> Any:
    """Return which lanes come before lane `bound`."""
    whole = ir.VectorType(ir.IntType(32), lanes)
    number = builder.trunc(bound, ir.IntType(32))
    first = builder.insert_element(ir.Constant(whole, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    bounds = builder.shuffle_vector(first, ir.Constant(whole, ir.Undefined), _indices([0] * lanes))
    return builder.icmp_signed("<", _indices(range(lanes)), bounds)


@intrinsic
def fresh(_typing: Any, vector: Any, covered: Any) -> Any:
    """Return a vector of the same type as another: 0 in the first `covered` lanes, 1 in the others."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        beyond = builder.not_(_before(builder, kind.count, arguments[1]))
        return builder.uitofp(beyond, kind)

    return vector(vector, types.intp), generate


@intrinsic
def _first(_typing: Any, vector: Any, known: Any) -> Any:
    """Return a vector with zeros in all lanes but the first `known`, whatever was there."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        return builder.select(_before(builder, kind.count, arguments[1]), arguments[0], ir.Constant(kind, None))

    return vector(vector, types.intp), generate


@intrinsic
def _moved(_typing: Any, vector: Any, places: Any) -> Any:
    """Return the lanes from number `places` on, up to all, then zeros."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        room = builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(kind, 2)), kind.as_pointer())
        builder.store(arguments[0], room)
        builder.store(ir.Constant(kind, None), builder.gep(room, [ir.Constant(ir.IntType(32), 1)]))
        numbers = builder.gep(builder.bitcast(room, kind.element.as_pointer()), [arguments[1]])
        value = builder.load(builder.bitcast(numbers, kind.as_pointer()))
        value.align = vector.dtype.bitwidth // 8
        return value

    return vector(vector, types.intp), generate


@jit
def load_first(array, place, known):
    """Return the `known` numbers of a contiguous array from number `place` on, then zeros."""
    lanes = BYTES // array.itemsize
    if place + lanes <= array.size:
        return _first(load_at(array, place), known)
    end = array.size - lanes  # a vector that begins at `place` would reach beyond the array
    return _first(_moved(load_at(array, end), place - end), known)


@jit
def start(block, n, itemsize):
    """Return where vector `block` of a row of n numbers begins."""
    return min(block * (BYTES // itemsize), n - BYTES // itemsize)


@jit
def count(n, itemsize):
    """Return how many vectors cover a row of n numbers."""
    return (n * itemsize + BYTES - 1) // BYTES
