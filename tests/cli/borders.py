"""The border of the command line: all commands there are, and what each asks of the floors below.

`told` calls a command with everything that takes long replaced by something that notes down its arguments.
"""

import contextlib
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from qvit.cli import main
from qvit.cli.app import app


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all commands and groups of the application, with the words that call them."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(get_command(app)))


def parameters(path: tuple[str, ...]) -> dict[str, Any]:
    """Return a command's arguments and options by name, but for the --help that all have."""
    return {parameter.name: parameter for parameter in COMMANDS[path].params if parameter.name != "help"}


class Reached(BaseException):
    """A command has come to what takes long."""


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and plain values; those of a dataclass or a dictionary by their own names, paths as text."""
    if is_dataclass(value):
        for field in fields(value):
            yield from flat(f"{name}.{field.name}", getattr(value, field.name))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(f"{name}.{key}", inner)
    elif hasattr(value, "folder"):
        yield name, str(value.folder)
    elif callable(value):
        yield name, "a callback"
    else:
        yield name, str(value) if isinstance(value, Path) else value


class Border:
    """Functions of the floors below that note down what they are given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.seen: dict[str, Any] = {}

    def at(self, place: str, *, gives: Any = Reached, passes: bool | Callable[..., bool] = False) -> None:
        """Replace a function, by its module and name; the first call's arguments are kept.

        It ends the command, or gives something, or passes on what it was given; `passes` may say this of its arguments.
        """
        module, _, name = place.rpartition(".")
        real: Callable[..., Any] = getattr(importlib.import_module(module), name)

        def instead(*given: Any, **named: Any) -> Any:
            bound = inspect.signature(real).bind(*given, **named)
            bound.apply_defaults()
            if place not in self.seen:
                self.seen[place] = True
                for argument, value in bound.arguments.items():
                    self.seen.update(flat(argument, value))
            if passes is True or (passes and passes(bound.arguments)):
                return real(*given, **named)
            if gives is Reached:
                raise Reached
            return gives

        self.patch.setattr(place, instead)


def told(border: Border, capsys: pytest.CaptureFixture[str], words: list[str]) -> dict[str, Any]:
    """Run a command; returns what the border saw, and what came out."""
    border.seen.clear()
    capsys.readouterr()
    code: object = 0
    try:
        main(words)
    except Reached:
        pass
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert code in (0, None), err
    is_json = False
    with contextlib.suppress(ValueError):
        is_json = bool(json.loads(out))
    made = "there" if Path("there").exists() else None
    return border.seen | {"json": is_json, "title": out.partition("\n")[0].strip(), "made": made}
