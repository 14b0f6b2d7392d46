"""Check values against a configuration's types at the border, with errors fit for a user."""

import re
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from qvit.errors import ConfigError

T = TypeVar("T")

MOST_BITS = 64
_PLAIN = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|true|false")


def validated(kind: type[T], values: dict[str, Any]) -> T:
    """Return the dataclass `kind` made from `values`, converted where the meaning is clear ("2" → 2, not yes → 1).

    Text stands for a number only where it is a plain decimal one: `1_000`, `1:30`, `inf` and `yes` stay text.
    Raises `ConfigError` that names the option, what was given and what is wrong with it; errors raised by the
    dataclass itself pass through.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if isinstance(value, bool) and {int, float} & {hints.get(name), *get_args(hints.get(name))}:
            raise ConfigError(f"Option {name}={value!r}: Input should be a number.")
        if isinstance(value, int) and value.bit_length() > MOST_BITS:  # too long to be repeated
            raise ConfigError(
                f"Option {name}: Input should be a number of at most {MOST_BITS} bits, found a larger one."
            )
    try:
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]
        made = adapter.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        option = next((str(part) for part in reversed(problem["loc"]) if isinstance(part, str)), kind.__name__)
        raise ConfigError(f"Option {option}={problem['input']!r:.200}: {problem['msg']}.") from error
    _check_conversions(values, made)
    return made


def _check_conversions(given: dict[str, Any], made: Any) -> None:
    """Refuse text that pydantic accepts as a number or a truth value and we do not: "1_000", "inf", "on"."""
    for name, value in given.items():
        became = getattr(made, name)
        if isinstance(value, dict) and is_dataclass(became):
            _check_conversions(value, became)
        elif isinstance(value, str) and isinstance(became, (int, float)) and not _PLAIN.fullmatch(value):
            wanted = "true or false" if isinstance(became, bool) else "a plain number, such as 100 or 0.5"
            raise ConfigError(f"Option {name}={value!r:.200}: Input should be {wanted}, found text.")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return the adapter that checks a type; making one takes milliseconds, and a study asks for thousands."""
    return TypeAdapter(kind)


def require(holds: bool, name: str, expected: str, value: object) -> None:
    """Raise `ConfigError`, which names an option, what it must be and its value, unless `holds` is true."""
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {value}.")
