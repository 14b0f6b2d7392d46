"""Measurements made up."""

from collections.abc import Callable
from typing import Any


def medians(found: list[dict[str, Any]]) -> Callable[..., list[float]]:
    """Stand for measurements: 6 ms for one function; 2 ms and 4 ms for two, which are called."""

    def measure(functions: list[Callable[[], Any]], **options: Any) -> list[float]:
        found.append(options)
        for function in functions:
            function()
        return [6.0] if len(functions) == 1 else [2.0, 4.0]

    return measure
