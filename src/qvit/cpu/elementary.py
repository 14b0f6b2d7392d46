"""Functions of float32 vectors: square roots, powers of two within bounds, the exact GELU.

The coefficients are minimax fits of our own.
"""

from math import log2, pi, sqrt
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.extending import intrinsic

from qvit.cpu.compiled import jit
from qvit.cpu.vectors import larger, like, llvm_type

MOST = 120.0  # exponents of `small_power_of_two`


@intrinsic
def square_root(_typing: Any, vector: Any) -> Any:
    """Return the square root of every lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        name = f"llvm.sqrt.v{kind.count}f{vector.dtype.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name), arguments
        )

    return vector(vector), generate


@intrinsic
def if_positive(_typing: Any, vector: Any, yes: Any, no: Any) -> Any:
    """Return the lanes of `yes` where those of a vector are above 0, else those of `no`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(llvm_type(vector.dtype), None)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), *arguments[1:])

    return vector(vector, yes, no), generate


@intrinsic
def largest_lane(_typing: Any, vector: Any) -> Any:
    """Return the largest number of all lanes that are numbers."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        name = f"llvm.vector.reduce.fmax.v{kind.count}f{vector.dtype.bitwidth}"
        function = ir.FunctionType(kind.element, [kind])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)

    return vector.dtype(vector), generate


@intrinsic
def _raised(_typing: Any, vector: Any, shifted: Any) -> Any:
    """Return every lane times 2ⁿ, where `shifted` holds n in its lowest bits: 12582912 + n."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = llvm_type(vector.dtype)
        whole = ir.VectorType(ir.IntType(32), kind.count)
        value, power = (builder.bitcast(argument, whole) for argument in arguments)
        return builder.bitcast(builder.add(value, builder.shl(power, ir.Constant(whole, [23] * kind.count))), kind)

    return vector(vector, shifted), generate


# (2ʳ − 1)/r within ±½, to 9e-8 of 2ʳ, by powers of r.
_POWER = (0.693146977598471, 0.24022242084919157, 0.05550733744244471, 0.009671512660568734, 0.0013264726899145326)
_SHIFT = 12582912.0  # 1.5 · 2²³: what is added to it is rounded to a whole number


@jit
def small_power_of_two(exponent):
    """Return 2 to the power of each float32 lane to 2e-7 of itself, for lanes from −`MOST` to `MOST`."""
    shift = like(exponent, _SHIFT)
    shifted = exponent + shift
    rest = exponent - (shifted - shift)
    value = like(exponent, _POWER[4])
    for k in range(3, -1, -1):
        value = value * rest + like(exponent, _POWER[k])
    return _raised(value * rest + like(exponent, 1.0), shifted)


# exp(a²/2)·Φ(−a) for a ≥ 0, to 1.4e-7 of itself, by powers 1 to 8 of t = 1/(1 + _SLOPE·a).
_SLOPE = 0.3
_TAIL = (
    0.11962789860453676,
    0.12077539577665353,
    0.09977987155434914,
    0.12900197950923498,
    -0.05451492682755706,
    0.2072555757057097,
    -0.15772599845330895,
    0.03580013548934028,
)
_HALF_LOG2_E = -log2(2.718281828459045) / 2
_DENSITY = 1 / sqrt(2 * pi)


@jit
def _bell_and_tail(size):
    """Return exp(−a²/2) and Φ(−a), the normal distribution, for each lane a ≥ 0."""
    one = like(size, 1.0)
    exponent = size * size * like(size, _HALF_LOG2_E)
    bell = small_power_of_two(larger(like(size, -MOST), exponent))
    bell = if_positive(exponent + like(size, MOST), bell, like(size, 0.0))
    t = one / (size * like(size, _SLOPE) + one)
    ratio = like(size, _TAIL[7])
    for k in range(6, -1, -1):
        ratio = ratio * t + like(size, _TAIL[k])
    return bell, bell * (ratio * t)


@jit
def gelu(u):
    """Return u·Φ(u), where Φ is the normal distribution, for float32 lanes."""
    size = larger(u, -u)
    _, tail = _bell_and_tail(size)
    return larger(like(u, 0.0), u) - size * tail


@jit
def gelu_and_slope(u):
    """Return u·Φ(u), and its derivative Φ(u) + u·φ(u)."""
    size = larger(u, -u)
    bell, tail = _bell_and_tail(size)
    below = if_positive(u, like(u, 1.0) - tail, tail)
    return larger(like(u, 0.0), u) - size * tail, below + u * bell * like(u, _DENSITY)
