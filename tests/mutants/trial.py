"""Try mutants: each in a process of its own, forked from one that has imported what takes long, on a copy of the tree.

A mutant is caught when a test fails, cannot be collected, or hangs: takes twenty times as long as it should and a
minute at least.
"""

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from mutants.places import Mutant
from mutants.plugin import Chosen

SLOW = ("torch", "numba", "scipy.stats", "monai.networks.nets", "sklearn.metrics", "matplotlib.pyplot", "pennylane")
QUICK = (
    "hypothesis",
    "beartype",
    "jaxtyping",
    "pydantic",
    "typer.testing",
    "jinja2",
    "safetensors.torch",
    "pooch",
    "medmnist",
)
HANGS = 20  # times as long as a test should take
AT_LEAST = 60  # seconds


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant: the first test that failed and how, or that nothing did."""

    caught: bool
    how: str  # "failed", "hung", "not collected", "died"; "survived" or "not run" where it wasn't caught
    test: str
    tests: int  # that run its line
    seconds: float


@dataclass
class _Running:
    mutant: Mutant
    tests: list[str]
    folder: Path
    process: BaseProcess
    began: float


class Trials:
    """Try mutants of a tree, some at once."""

    def __init__(self, tree: Path, costs: dict[str, float], *, jobs: int = 2, marks: str = "") -> None:
        self.tree, self.costs, self.jobs, self.marks = tree, costs, jobs, marks
        for module in (*SLOW, *QUICK):
            with suppress(ImportError):
                importlib.import_module(module)

    def outcomes(self, chosen: Iterable[tuple[Mutant, list[str]]]) -> Iterator[tuple[Mutant, Outcome]]:
        """Yield what comes of each mutant that some tests run, in the order in which they end."""
        waiting, running = list(chosen)[::-1], list[_Running]()
        with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    mutant, tests = waiting.pop()
                    if tests:
                        running.append(self._start(mutant, tests, Path(tempfile.mkdtemp(dir=scratch))))
                    else:
                        yield mutant, Outcome(False, "not run", "", 0, 0)
                for trial in list(running):
                    outcome = self._ended(trial)
                    if outcome:
                        running.remove(trial)
                        shutil.rmtree(trial.folder, ignore_errors=True)
                        yield trial.mutant, outcome
                time.sleep(0.05)

    def _start(self, mutant: Mutant, tests: list[str], folder: Path) -> _Running:
        tree = copy(self.tree, folder / "tree")
        (tree / mutant.path).write_text(mutant.source)
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=_run, args=(tree, tests, folder, self.marks))
        process.start()
        return _Running(mutant, tests, folder, process, time.monotonic())

    def _ended(self, trial: _Running) -> Outcome | None:
        alive, now = trial.process.is_alive(), time.monotonic()
        test, since = _last(trial.folder / "began")
        failed, _ = _last(trial.folder / "failed")
        hung = (
            alive and time.time() - max(since, 0) > max(AT_LEAST, HANGS * self.costs.get(test, 0))
            if test
            else (alive and now - trial.began > 5 * AT_LEAST)
        )
        if alive and not hung:
            return None
        if alive:
            _kill(trial.process)
        trial.process.join()
        code = trial.process.exitcode
        how = "hung" if hung else {0: "survived", 1: "failed", 2: "not collected", 5: "not run"}.get(code or 0, "died")
        caught = how not in ("survived", "not run")
        return Outcome(caught, how, failed or (test if caught else ""), len(trial.tests), round(now - trial.began, 1))


def copy(tree: Path, to: Path) -> Path:
    """Copy what the tests of a tree need, compiled kernels too."""
    left_out = shutil.ignore_patterns(".git", ".venv", "runs", ".hypothesis", ".*_cache")
    shutil.copytree(tree, to, ignore=left_out, symlinks=True)
    return to


def _last(path: Path) -> tuple[str, float]:
    """Return what a file says, on its first line, and when it was written; nothing if there is none."""
    try:
        return path.read_text().partition("\n")[0], path.stat().st_mtime
    except OSError:
        return "", 0.0


def _kill(process: BaseProcess) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)


def _run(tree: Path, tests: list[str], folder: Path, marks: str) -> None:
    """In the new process: run the tests on the mutated tree, stop at the first that fails."""
    os.setsid()
    with (folder / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(tree)
    paths = [str(tree / "src"), str(tree / "tests")]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    (folder / "temporary").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "temporary")
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    options = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", *(["-m", marks] if marks else [])]
    code = pytest.main([*options, *files], plugins=[Chosen(tests, folder)])
    sys.stdout.flush()
    with suppress(ProcessLookupError, PermissionError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)  # what tests leave behind
    os._exit(int(code))
