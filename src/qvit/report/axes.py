"""Logarithmic axes for numbers of parameters, with readable tick labels whatever range they span."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST, MOST = 3, 6  # ticks
MARGIN = 0.06  # at either end, as a share of the range of the values
NARROW = 1.1  # the smallest ratio between the ends of an axis
# The divisions of a decade, the coarsest first.
DIVISIONS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


def log_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis that leaves some room around all values, which must be positive."""
    low, high = min(values), max(values)
    room = max(high / low, NARROW) ** MARGIN * (NARROW if low == high else 1.0)
    return low / room, high * room


def log_ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers between the ends of a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for stride in (5, 4, 3, 2):
        coarse = [10.0**exponent for exponent in decades if exponent % stride == 0 and low <= 10.0**exponent <= high]
        if LEAST <= len(coarse) <= MOST and len(decades) > MOST:
            return coarse
    for division in DIVISIONS:
        ticks = [one * 10.0**exponent for exponent in decades for one in division]
        found = [tick for tick in ticks if low <= tick <= high]
        if LEAST <= len(found) <= MOST:
            return found
    return _even_ticks(low, high)


def _even_ticks(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten: on such a short axis a logarithm is almost linear."""
    size = 10.0 ** math.floor(math.log10(high - low))
    for step in (size, size / 2, size / 5, size / 10):
        found = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(found) >= LEAST:
            return found[:: math.ceil(len(found) / MOST)]
    raise AssertionError("a tenth of the size of a range goes into it ten times")


def plain(value: float) -> str:
    """Return a number as people write it: 800, 1,000, 12,500, 1.5M."""
    value = float(f"{value:.10g}")
    if value >= 1e6:
        return f"{value / 1e6:,.10g}M"
    return f"{value:,.0f}" if value == round(value) else f"{value:.6g}"


def number_parameters(axes: "Axes", values: Sequence[float]) -> None:
    """Give the horizontal axis of a chart a logarithmic scale that covers these numbers."""
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = log_limits(values)
    ticks = log_ticks(low, high)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([plain(tick) for tick in ticks])
