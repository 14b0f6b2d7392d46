"""Learning-rate schedules: pure functions from progress in [0, 1) to a factor of the peak rate."""

import math
from collections.abc import Callable

START = 1 / 25  # one-cycle's first factor, as in torch's OneCycleLR
FINAL = START * 1e-4


def constant(progress: float, warmup: float) -> float:
    """Rise linearly during `warmup`, then stay."""
    return min(1.0, progress / warmup) if warmup else 1.0


def warmup_cosine(progress: float, warmup: float) -> float:
    """Rise linearly during the fraction `warmup`, then fall to zero along a cosine."""
    if progress < warmup:
        return progress / warmup
    return _cosine(1.0, 0.0, (progress - warmup) / (1.0 - warmup))


def one_cycle(progress: float, warmup: float) -> float:
    """Rise along a cosine from 1/25 during the fraction `warmup`, then fall to 4e-6 (Smith & Topin 2018)."""
    if progress < warmup:
        return _cosine(START, 1.0, progress / warmup)
    return _cosine(1.0, FINAL, (progress - warmup) / (1.0 - warmup))


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * fraction)) / 2.0


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "one_cycle": one_cycle,
    "warmup_cosine": warmup_cosine,
    "constant": constant,
}
