"""Check shapes and types of annotations while the tests run, keep torch to one core, and see to the tests' marks.

`trains` says that a test runs the training loop, `processes` that it starts one or more, `slow` why it has to take
over two seconds. A test that does the first or second without saying so fails, so that the quick part stays quick.
"""

import multiprocessing.process
import platform
import subprocess
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook

# Matrices are tiny here: a second thread only waits, and with several test processes it costs minutes.
torch.set_num_threads(1)

# Before any import of qvit. An int may stand for a float, as for mypy. The command line is left out: typer reads its
# annotations itself.
install_import_hook(
    [f"qvit.{floor}" for floor in ("quantum", "data", "models", "evaluation", "training", "study", "distill")],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

LONG = 2  # seconds, after which a test is named at the end of a run unless it says why
done: set[str] = set()  # of "trains" and "processes", by the test or fixture that runs
by_fixtures: dict[Any, set[str]] = {}


def _notice(owner: Any, name: str, mark: str) -> None:
    """Have a function note down that it was called."""
    original: Callable[..., Any] = getattr(owner, name)

    def noticed(*arguments: Any, **options: Any) -> Any:
        done.add(mark)
        return original(*arguments, **options)

    setattr(owner, name, noticed)


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput") and session.config.getoption("numprocesses", None):
        return  # this process runs no tests, its workers do
    platform.platform()  # asks the system once, by a process of its own, which is no test's
    _notice(import_module("qvit.training.loop"), "train_epoch", "trains")
    _notice(subprocess.Popen, "__init__", "processes")
    _notice(multiprocessing.process.BaseProcess, "start", "processes")


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
        pytest.fail(
            f"Mark this test as what it is: {', '.join(f'@pytest.mark.{mark}' for mark in missing)}.", pytrace=False
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("slow")
        if mark is not None:
            if len(mark.args) != 1 or not isinstance(mark.args[0], str):
                raise pytest.UsageError(f"{item.nodeid}: say why it is slow, @pytest.mark.slow('why').")
            item.user_properties.append(("slow", mark.args[0]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the slow tests, with their reasons, and those that are long without any."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    seconds: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for report in reports:
        seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration
        for name, why in report.user_properties:
            if name == "slow":
                reasons[report.nodeid] = why
    for title, tests in (
        ("slow tests", {test: seconds[test] for test in reasons}),
        (
            f"took over {LONG} seconds here",
            {test: time for test, time in seconds.items() if time > LONG and test not in reasons},
        ),
    ):
        if tests:
            terminalreporter.section(title)
        for test, time in sorted(tests.items(), key=lambda pair: -pair[1]):
            terminalreporter.write_line(f"{time:6.1f} s  {test}  {reasons.get(test, '')}")
