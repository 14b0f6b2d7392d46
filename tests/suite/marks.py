"""The tests' marks: `trains`, `processes` and `slow`, seen to so that the quick part stays quick.

`trains` says that a test runs the training loop, `processes` that it starts one or more; one that does so without
saying it fails. `slow` says why a test has to take over two seconds. At the end of a run the slow ones are named with
their reasons, and so is what took as long without one.
"""

import multiprocessing.process
import platform
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

LONG = 2  # seconds
done: set[str] = set()  # of "trains" and "processes", by the test or fixture that runs
by_fixtures: dict[Any, set[str]] = {}


def _notice(owner: Any, name: str, mark: str) -> Callable[[], None]:
    """Have a function note down that it was called; return what puts it back."""
    original: Callable[..., Any] = getattr(owner, name)

    def noticed(*arguments: Any, **options: Any) -> Any:
        done.add(mark)
        return original(*arguments, **options)

    setattr(owner, name, noticed)
    return lambda: setattr(owner, name, original)


@pytest.fixture(scope="session", autouse=True)
def _noticed() -> Iterator[None]:
    platform.platform()  # asks a process, once, and remembers; a run's record has it
    undo = [
        _notice(import_module("qvit.training.loop"), "train_epoch", "trains"),
        _notice(subprocess.Popen, "__init__", "processes"),
        _notice(multiprocessing.process.BaseProcess, "start", "processes"),
    ]
    yield
    for put_back in undo:
        put_back()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    done.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Any:
    """Note what a fixture does: all tests that use it do so, not only the one that was first."""
    before = set(done)
    done.clear()
    try:
        return (yield)
    finally:
        by_fixtures[fixturedef] = set(done)
        done.update(before)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: Any) -> None:
    used = [by_fixtures.get(definitions[-1], set()) for definitions in item._fixtureinfo.name2fixturedefs.values()]
    missing = sorted(mark for mark in done.union(*used) if item.get_closest_marker(mark) is None)
    if missing:
        marks = " and ".join(f"@pytest.mark.{mark}" for mark in missing)
        pytest.fail(f"Mark this test as what it is: {marks}.", pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("slow")
        if mark is not None:
            if len(mark.args) != 1 or not isinstance(mark.args[0], str):
                raise pytest.UsageError(f"{item.nodeid}: say why it is slow, @pytest.mark.slow('why').")
            item.user_properties.append(("slow", mark.args[0]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    seconds: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for report in (one for kind in ("passed", "failed", "") for one in terminalreporter.getreports(kind)):
        seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration
        for name, why in report.user_properties:
            if name == "slow":
                reasons[report.nodeid] = why
    long = [test for test, time in seconds.items() if time > LONG and test not in reasons]
    for title, tests in (("slow tests", list(reasons)), (f"over {LONG} seconds, on this machine", long)):
        if tests:
            terminalreporter.section(title)
        for test in sorted(tests, key=lambda test: -seconds[test]):
            terminalreporter.write_line(f"{seconds[test]:6.1f} s  {test}  {reasons.get(test, '')}")
