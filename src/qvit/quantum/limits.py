"""How large a circuit may be: bounds far above what can be simulated, checked before anything is made.

A size beyond them is a mistake, or comes from a damaged file, and would take hours or all memory before anybody
noticed.
"""

from numbers import Integral
from typing import Any

from qvit.errors import CircuitError

MOST_WIRES = 4096
MOST_LAYERS = 256  # with these, the analysis of a circuit still takes seconds
MOST_GATES = 200_000
MOST_NUMBERS = 2**21  # of inputs, and of weights
MOST_OBSERVABLES = 10_000
MOST_GROUPS = 2**16  # circuits of a layer
MOST_STATES = 2**20  # basis states whose amplitudes are loaded


def whole(what: str, value: Any, *, least: int, most: int) -> int:
    """Return a whole number within bounds; raises `CircuitError` for any other value."""
    if type(value) is not int and (not isinstance(value, Integral) or isinstance(value, bool)):  # the first is quick
        raise CircuitError(f"{what} must be a whole number, got {value!r:.80}.")
    number = int(value)
    if not least <= number <= most:
        raise CircuitError(f"{what} must be from {least} to {most:,}, got {in_words(number)}.")
    return number


def in_words(number: int) -> str:
    """Return a whole number of any length as a message can show it."""
    return f"{number:,}" if number.bit_length() <= 64 else "a number of more than 64 bits"


def series(what: str, values: Any, *, most: int) -> tuple[Any, ...]:
    """Return a tuple or list as a tuple; raises `CircuitError` for anything else, and for more than `most` values."""
    if not isinstance(values, tuple | list):
        raise CircuitError(f"{what} must be a tuple or a list, got {values!r:.80}.")
    if len(values) > most:
        raise CircuitError(f"{what} must be at most {most:,}, got {len(values):,}.")
    return tuple(values)
