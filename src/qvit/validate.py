"""Check values against a configuration's types at the border, with errors fit for a user."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from qvit.errors import ConfigError

T = TypeVar("T")


def validated(kind: type[T], values: dict[str, Any]) -> T:
    """Return the dataclass `kind` made from `values`, converted where the meaning is clear ("2" → 2).

    Raises `ConfigError` that names the option, what was given and what is wrong with it; errors raised by the
    dataclass itself pass through.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        option = next((str(part) for part in reversed(problem["loc"]) if isinstance(part, str)), kind.__name__)
        raise ConfigError(f"Option {option}={problem['input']!r}: {problem['msg']}.") from error
