"""How long something takes: medians after warm-up."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def median_milliseconds(
    functions: Sequence[Callable[[], Any]],
    *,
    repeats: int = 30,
    warm_up: int = 3,
    budget: float = 10.0,
    least: int = 3,
) -> list[float]:
    """Return the median time of each function, in milliseconds.

    The functions take turns, so that other work on the machine slows all of them alike. Timing stops early, after
    at least `least` rounds, once `budget` seconds have been spent.
    """
    for function in functions:
        for _ in range(warm_up):
            function()
    times: list[list[float]] = [[] for _ in functions]
    begin = time.perf_counter()
    for repeat in range(1, repeats + 1):
        for series, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            function()
            series.append(1e3 * (time.perf_counter() - start))
        if repeat >= least and time.perf_counter() - begin > budget:
            break
    return [statistics.median(series) for series in times]
