"""Learning-rate schedules: pure functions from progress in [0, 1) to a factor of the peak rate."""

import math
from collections.abc import Callable

START = 1 / 25  # the factor that a warm-up begins with, as in torch's OneCycleLR: a first step of 0 would be lost
FINAL = START * 1e-4


def constant(progress: float, warmup: float) -> float:
    """Rise linearly from 1/25 during the fraction `warmup`, then stay at 1."""
    return _ramp(progress / warmup) if progress < warmup else 1.0


def warmup_cosine(progress: float, warmup: float) -> float:
    """Rise linearly from 1/25 during the fraction `warmup`, then fall to zero along a cosine."""
    if progress < warmup:
        return _ramp(progress / warmup)
    return _cosine(1.0, 0.0, (progress - warmup) / (1.0 - warmup))


def one_cycle(progress: float, warmup: float) -> float:
    """Rise along a cosine from 1/25 during the fraction `warmup`, then fall to 4e-6 (Smith & Topin 2018)."""
    if progress < warmup:
        return _cosine(START, 1.0, progress / warmup)
    return _cosine(1.0, FINAL, (progress - warmup) / (1.0 - warmup))


def _ramp(fraction: float) -> float:
    return START + (1.0 - START) * fraction


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * fraction)) / 2.0


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "one_cycle": one_cycle,
    "warmup_cosine": warmup_cosine,
    "constant": constant,
}
