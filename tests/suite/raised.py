"""`--every-error`: fail where the code has an error that no test of the run raised.

An error's place is the line of the call that makes it. Only what tests do in their own process is seen. A run of part
of the tests, by file or name, is not judged.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "src/qvit"
raised: set[tuple[str, int]] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-error", action="store_true", help="fail if an error of the code is never raised")


@pytest.fixture(scope="session", autouse=True)
def _noted() -> Iterator[None]:
    error: Any = import_module("qvit.errors").QvitError
    original = error.__init__

    def noted(self: Any, *arguments: Any, **options: Any) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is self:
            frame = frame.f_back  # that of a subclass
        raised.add((frame.f_code.co_filename, frame.f_lineno))
        original(self, *arguments, **options)

    error.__init__ = noted
    yield
    error.__init__ = original


def pytest_sessionfinish(session: Any) -> None:
    if hasattr(session.config, "workerinput"):
        session.config.workeroutput["raised"] = sorted(raised)
    elif asked(session.config) and missing():
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    raised.update((path, line) for path, line in getattr(node, "workeroutput", {}).get("raised", ()))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if asked(config) and missing():
        terminalreporter.section("errors that no test raises")
        for path, line in missing():
            terminalreporter.write_line(f"{path.relative_to(SOURCE.parents[1])}:{line}")


def asked(config: pytest.Config) -> bool:
    """Return whether all errors have to be raised."""
    part = config.getoption("file_or_dir") or config.getoption("keyword")
    return bool(config.getoption("--every-error")) and not part


def missing() -> list[tuple[Path, int]]:
    """Return the places of errors that were never made."""
    return [(path, line) for path, line in places() if (str(path), line) not in raised]


@cache
def places() -> tuple[tuple[Path, int], ...]:
    """Return where the code makes errors of its own family: files and lines."""
    kinds = {node.name for node in ast.walk(_parsed(SOURCE / "errors.py")) if isinstance(node, ast.ClassDef)}
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                found.add((path, node.lineno))
    return tuple(sorted(found))


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())
