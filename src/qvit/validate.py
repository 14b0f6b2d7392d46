"""Check values against a configuration's types at the border, with errors fit for a user."""

from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from qvit.errors import ConfigError

T = TypeVar("T")


def validated(kind: type[T], values: dict[str, Any]) -> T:
    """Return the dataclass `kind` made from `values`, converted where the meaning is clear ("2" → 2, not yes → 1).

    Raises `ConfigError` that names the option, what was given and what is wrong with it; errors raised by the
    dataclass itself pass through.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if isinstance(value, bool) and {int, float} & {hints.get(name), *get_args(hints.get(name))}:
            raise ConfigError(f"Option {name}={value!r}: Input should be a number.")
    try:
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]
        return adapter.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        option = next((str(part) for part in reversed(problem["loc"]) if isinstance(part, str)), kind.__name__)
        raise ConfigError(f"Option {option}={problem['input']!r}: {problem['msg']}.") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what checks a type; making one takes milliseconds, and a study asks for thousands."""
    return TypeAdapter(kind)
