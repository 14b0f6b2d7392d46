"""Several vectors as one value: a tuple of them, for code that is written out for each when it is compiled.

Loops over a tuple whose length is known leave its vectors in registers; loops that count to a number known only at run
time load and store them each time. Lengths are given by a tuple of as many numbers, `shape`.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic
from numba.np.arrayobj import populate_array

from qvit.cpu.vectors import CONTRACT, Vector, broadcast, lanes, llvm_type, pointer

Values = list[Any]


def _kind(vector: Vector, count: int) -> types.UniTuple:
    return types.UniTuple(vector, count)


def _unpacked(builder: Any, bundle: Any, count: int) -> Values:
    return [builder.extract_value(bundle, k) for k in range(count)]


def _numbers(context: Any, builder: Any, array: Any, data: Any, place: Any, count: int) -> Values:
    """Return `count` vectors that each have one number of an array in every lane, starting with number `place`."""
    start = builder.gep(cgutils.create_struct_proxy(array)(context, builder, data).data, [place])
    kind = llvm_type(array.dtype)
    places = [builder.gep(start, [ir.Constant(ir.IntType(64), k)]) for k in range(count)]
    return [broadcast(builder, kind, builder.load(where)) for where in places]


def _plus(builder: Any, start: Any, left: Any, right: Any) -> Any:
    return builder.fadd(start, builder.fmul(left, right, flags=CONTRACT), flags=CONTRACT)


def _address(context: Any, builder: Any, array: Any, data: Any, place: Any) -> Any:
    start = builder.gep(cgutils.create_struct_proxy(array)(context, builder, data).data, [place])
    return builder.bitcast(start, llvm_type(array.dtype).as_pointer())


@intrinsic
def singles_at(_typing: Any, address: Any, length: Any) -> Any:
    """Return an array of float32 numbers from an address, which someone else keeps alive."""
    kind = types.Array(types.float32, 1, "C")

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        array = context.make_array(kind)(context, builder)
        data, item = builder.inttoptr(arguments[0], array.data.type), ir.Constant(ir.IntType(64), 4)
        populate_array(array, data=data, shape=[arguments[1]], strides=[item], itemsize=item, meminfo=None)
        return array._getvalue()

    return kind(types.intp, types.intp), generate


@intrinsic
def load_at(_typing: Any, array: Any, place: Any) -> Any:
    """Return the vector that starts with number `place` of a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_address(context, builder, signature.args[0], *arguments))
        value.align = array.dtype.bitwidth // 8
        return value

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store_at(_typing: Any, array: Any, place: Any, vector: Any) -> Any:
    """Write a vector to a contiguous array, its first lane to number `place`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        written = builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def first_lanes(_typing: Any, vector: Any, count: Any) -> Any:
    """Return the first `count` lanes of a vector, and zeros."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        whole = ir.VectorType(ir.IntType(64), kind.count)
        places = ir.Constant(whole, list(range(kind.count)))
        known = builder.icmp_signed("<", places, broadcast(builder, whole, arguments[1]))
        return builder.select(known, arguments[0], ir.Constant(kind, None))

    return vector(vector, types.intp), generate


@intrinsic
def copy_number(_typing: Any, target: Any, to: Any, source: Any, place: Any) -> Any:
    """Copy one number.

    The store is one that LLVM may not join with others: a loop of vectors, and its checks, take longer than a few
    numbers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = ((signature.args[k], arguments[k], arguments[k + 1]) for k in (0, 2))
        there, here = (
            builder.gep(cgutils.create_struct_proxy(kind)(context, builder, array).data, [where])
            for kind, array, where in arrays
        )
        builder.store_atomic(builder.load(here), there, "monotonic", target.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


@intrinsic
def repeated(_typing: Any, shape: Any, vector: Any) -> Any:
    """Return a bundle of as many equal vectors as `shape` has numbers."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return cgutils.pack_array(builder, [arguments[1]] * shape.count)

    return _kind(vector, shape.count)(shape, vector), generate


@intrinsic
def load_rows(_typing: Any, shape: Any, array: Any, row: Any) -> Any:
    """Return the vectors of a contiguous array from `row` on, counted in rows of 64 bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = pointer(context, builder, signature.args[1], *arguments[1:])
        values = []
        for k in range(shape.count):
            values.append(builder.load(builder.gep(start, [ir.Constant(ir.IntType(64), k)])))
            values[-1].align = array.dtype.bitwidth // 8
        return cgutils.pack_array(builder, values)

    return _kind(Vector(array.dtype), shape.count)(shape, array, types.intp), generate


def _written(context: Any, builder: Any, kind: Any, array: Any, row: Any, values: Values) -> Any:
    start = pointer(context, builder, kind, array, row)
    for k, value in enumerate(values):
        written = builder.store(value, builder.gep(start, [ir.Constant(ir.IntType(64), k)]))
        written.align = kind.dtype.bitwidth // 8
    return context.get_dummy_value()


@intrinsic
def store_rows(_typing: Any, array: Any, row: Any, bundle: Any) -> Any:
    """Write the vectors of a bundle to a contiguous array from `row` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _unpacked(builder, arguments[2], bundle.count)
        return _written(context, builder, signature.args[0], *arguments[:2], values)

    return types.void(array, types.intp, bundle), generate


@intrinsic
def dot(_typing: Any, bundle: Any, array: Any, place: Any) -> Any:
    """Return Σ_c bundle[c] · array[place + c]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = _numbers(context, builder, signature.args[1], *arguments[1:], bundle.count)
        first, *rest = zip(_unpacked(builder, arguments[0], bundle.count), numbers, strict=True)
        sums = builder.fmul(*first, flags=CONTRACT)
        for left, right in rest:
            sums = _plus(builder, sums, left, right)
        return sums

    return bundle.dtype(bundle, array, types.intp), generate


@intrinsic
def add_dot(_typing: Any, start: Any, bundle: Any, array: Any, place: Any) -> Any:
    """Return start + Σ_c bundle[c] · array[place + c]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = _numbers(context, builder, signature.args[2], *arguments[2:], bundle.count)
        sums = arguments[0]
        for left, right in zip(_unpacked(builder, arguments[1], bundle.count), numbers, strict=True):
            sums = _plus(builder, sums, left, right)
        return sums

    return bundle.dtype(start, bundle, array, types.intp), generate


@intrinsic
def add_scaled(_typing: Any, bundle: Any, vector: Any, array: Any, place: Any) -> Any:
    """Return bundle[c] + vector · array[place + c] for every c."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = _numbers(context, builder, signature.args[2], *arguments[2:], bundle.count)
        pairs = zip(_unpacked(builder, arguments[0], bundle.count), numbers, strict=True)
        return cgutils.pack_array(builder, [_plus(builder, start, arguments[1], number) for start, number in pairs])

    return bundle(bundle, vector, array, types.intp), generate


@intrinsic
def add_products(_typing: Any, bundle: Any, vector: Any, other: Any) -> Any:
    """Return bundle[c] + vector · other[c] for every c."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        starts, others = (_unpacked(builder, arguments[k], bundle.count) for k in (0, 2))
        pairs = zip(starts, others, strict=True)
        return cgutils.pack_array(builder, [_plus(builder, start, arguments[1], each) for start, each in pairs])

    return bundle(bundle, vector, other), generate


@intrinsic
def scaled(_typing: Any, bundle: Any, vector: Any) -> Any:
    """Return bundle[c] · vector for every c."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        values = _unpacked(builder, arguments[0], bundle.count)
        return cgutils.pack_array(builder, [builder.fmul(value, arguments[1], flags=CONTRACT) for value in values])

    return bundle(bundle, vector), generate


@intrinsic
def sum_of_products(_typing: Any, left: Any, right: Any) -> Any:
    """Return Σ_c left[c] · right[c], lane by lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pairs = [_unpacked(builder, argument, left.count) for argument in arguments]
        first, *rest = zip(*pairs, strict=True)
        sums = builder.fmul(*first, flags=CONTRACT)
        for one, other in rest:
            sums = _plus(builder, sums, one, other)
        return sums

    return left.dtype(left, right), generate


def _picked(builder: Any, left: Any, right: Any, places: list[int]) -> Any:
    """Return a vector of lanes of two vectors, those of the right one counted on."""
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))


def _rearranging(rearrange: Callable[[Any, Values], Values]) -> Any:
    @intrinsic
    def apply(_typing: Any, bundle: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return cgutils.pack_array(builder, rearrange(builder, _unpacked(builder, arguments[0], bundle.count)))

        return bundle(bundle), generate

    return apply


def _turned(builder: Any, rows: Values) -> Values:
    if len(rows) == 1:
        return rows
    even, odd = _turned(builder, rows[::2]), _turned(builder, rows[1::2])
    found, n = [], rows[0].type.count
    for left, right in zip(even, odd, strict=True):
        order = [place for k in range(n) for place in (k, n + k)]
        found += [_picked(builder, left, right, order[:n]), _picked(builder, left, right, order[n:])]
    return found


def _turned_back(builder: Any, columns: Values) -> Values:
    if len(columns) == 1:
        return columns
    n, found = columns[0].type.count, [None] * len(columns)
    for start in (0, 1):
        places = list(range(start, 2 * n, 2))
        pairs = zip(columns[::2], columns[1::2], strict=True)
        found[start::2] = _turned_back(builder, [_picked(builder, left, right, places) for left, right in pairs])
    return found


# The numbers of a bundle whose count is a power of two, column by column instead of row by row; and the way back.
turned, turned_back = _rearranging(_turned), _rearranging(_turned_back)


def _totals(builder: Any, rows: Values) -> Any:
    """Return a vector with the sum over the lanes of one of the rows in each lane; as many rows as lanes."""
    n = segment = rows[0].type.count
    while len(rows) > 1:
        half, following = segment // 2, []
        for left, right in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True):
            # In place what is, of each segment, in the left row's first half and the right row's second; then the rest.
            first = [k % segment < half for k in range(n)]
            parts = (
                [k if low else n + k for k, low in enumerate(first)],
                [k + half if low else n + k - half for k, low in enumerate(first)],
            )
            following.append(builder.fadd(*(_picked(builder, left, right, places) for places in parts)))
        rows, segment = following, half
    return rows[0]


@intrinsic
def store_totals(_typing: Any, array: Any, row: Any, bundle: Any) -> Any:
    """Write the sums over the lanes of each vector of a bundle to a contiguous array from `row` on.

    Where they do not fill the last vector, zeros do.
    """
    width = lanes(bundle.dtype.dtype.bitwidth // 8)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _unpacked(builder, arguments[2], bundle.count)
        values += [ir.Constant(values[0].type, [0.0] * width)] * (-bundle.count % width)
        sums = [_totals(builder, values[k : k + width]) for k in range(0, len(values), width)]
        return _written(context, builder, signature.args[0], *arguments[:2], sums)

    return types.void(array, types.intp, bundle), generate
