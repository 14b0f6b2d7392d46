"""Medians after warm-up, and what they were taken on."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from qvit.training.record import processor


def median_milliseconds(
    functions: Sequence[Callable[[], Any]], *, repeats: int = 30, warm_up: int = 3, budget: float = 10.0
) -> list[float]:
    """Return the median time of each function.

    The functions take turns, so that whatever else happens on the machine hits all alike. It stops early, after at
    least three rounds, once `budget` seconds have been spent.
    """
    for function in functions:
        for _ in range(warm_up):
            function()
    times: list[list[float]] = [[] for _ in functions]
    begin = time.perf_counter()
    for repeat in range(repeats):
        for series, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            function()
            series.append(1e3 * (time.perf_counter() - start))
        if repeat >= 2 and time.perf_counter() - begin > budget:
            break
    return [statistics.median(series) for series in times]


def machine() -> dict[str, Any]:
    """Return what a figure was measured on."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
