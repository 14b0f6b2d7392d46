"""Try mutants on tests: in forks of one process that has imported and collected everything, or from a copy of the tree.

A mutant is caught when a test fails that does not fail without it, cannot be collected, or hangs: takes twenty times
as long as it should and a minute at least.
"""

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from mutants.covered import Tests
from mutants.places import Mutant
from mutants.swap import functions, swap

HANGS = 20  # times as long as a test should take
AT_LEAST = 60  # seconds
NOT_SWAPPED = 77  # exit code of a fork that could not be given the mutant
OURS = 78  # of one in which something here is wrong


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant: which tests failed, and how; how many there were that run its statement."""

    how: str  # "failed", "hung", "died", "not collected"; or "survived", "not run"
    failed: tuple[str, ...]
    tests: int
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether a test told."""
        return self.how not in ("survived", "not run")


@dataclass(frozen=True)
class Try:
    """A mutant, the tests to try it on, and the function whose cases they are, where they are of one."""

    mutant: Mutant
    tests: Tests
    function: str = ""


class Loop:
    """Pytest's loop over the tests it collected, for one try after the other; a plugin of one run of pytest.

    `told` is given what comes of each before more of `tries` are asked for than `jobs`. Without `copies` only forks are
    made, and what they cannot judge counts as not run.
    """

    def __init__(
        self,
        tree: Path,
        tries: Iterable[Try],
        told: Callable[[Try, Outcome], None],
        *,
        costs: dict[str, float],
        jobs: int,
        copies: bool = True,
    ) -> None:
        self.tree, self.told, self.costs, self.jobs, self.copies = tree, told, costs, jobs, copies
        self._tries = iter(tries)
        self._known: set[str] = set()  # tests that were collected
        self._broken: set[str] = set()  # those found to fail without a mutant
        self._sound: set[tuple[str, type]] = set()  # those found not to, in a fork or a copy

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._known = {item.nodeid for item in session.items}
        functions()
        gc.freeze()  # forks share what is there already
        with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
            self.scratch = Path(scratch)
            running: list[_Running] = []
            while True:
                more = islice(self._tries, self.jobs - len(running))
                running += [_Running(one, self._fork(session, one.mutant, self._usable(one.tests))) for one in more]
                if not running:
                    return True
                for one in [one for one in running if one.trial.ended(self.costs)]:
                    running.remove(one)
                    running += self._judged(session, one) if one.doubted else self._ended(session, one.asked, one.trial)
                time.sleep(0.05)

    def _usable(self, tests: Tests) -> Tests:
        """Return those of the tests that were collected, and pass without a mutant as far as is known."""
        usable = self._known - self._broken
        return Tests(*([test for test in kind if test in usable] for kind in (tests.here, tests.there)))

    def _fork(self, session: pytest.Session, mutant: Mutant | None, tests: Tests) -> "_Fork":
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=self._run, args=(session, mutant, tests, folder))
        process.start()
        return _Fork(mutant, tests, folder, process, time.monotonic())

    def _run(self, session: pytest.Session, mutant: Mutant | None, tests: Tests, folder: Path) -> None:
        """In the fork: take on the mutant, run the tests, one after the other."""
        os.setsid()
        with (folder / "output").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        try:
            if mutant is not None and swap(self.tree, mutant) == 0:
                _end(NOT_SWAPPED)
            noted = Noted(folder)
            session.config.pluginmanager.register(noted)
            session.config.pluginmanager.unregister(name="terminalreporter")
            chosen = {item.nodeid: item for item in session.items}
            items = [chosen[test] for test in tests.here]
            for item, following in zip(items, [*items, None][1:], strict=True):
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if noted.any:
                    break
            _end(int(noted.any))
        except BaseException:
            (folder / "error").write_text(traceback.format_exc())
            _end(OURS)

    def _copy(self, mutant: Mutant | None, tests: Tests) -> "_Copy":
        return _Copy(self.tree, mutant, tests, Path(tempfile.mkdtemp(dir=self.scratch)))

    def _ended(self, session: pytest.Session, asked: Try, trial: "_Fork | _Copy") -> "list[_Running]":
        """Say what came of a try, or return what has to be run first.

        That is the try on a copy of the tree where a fork cannot judge the mutant; or the test that told, without the
        mutant and in the same kind of trial, unless it is known to pass.
        """
        outcome = trial.outcome()
        if isinstance(trial, _Fork):
            code = trial.process.exitcode
            if code == OURS:
                raise SystemExit(_read(trial.folder / "error"))
            tests = trial.tests if code == NOT_SWAPPED else Tests([], trial.tests.there)
            if not outcome.caught and self.copies and (tests.here or tests.there):
                trial.done()
                return [_Running(asked, self._copy(asked.mutant, tests))]
        trial.done()
        for test in outcome.failed[:1]:
            if test in self._known and (test, type(trial)) not in self._sound:
                alone = Tests([test], [])
                again = self._fork(session, None, alone) if isinstance(trial, _Fork) else self._copy(None, alone)
                return [_Running(asked, again, (outcome, trial))]
        self.told(asked, outcome)
        return []

    def _judged(self, session: pytest.Session, one: "_Running") -> "list[_Running]":
        """Say what came of a try whose telling test passes without the mutant, or return the try without that test."""
        assert one.doubted is not None
        outcome, trial = one.doubted
        (test, *_), passed = outcome.failed, one.trial.outcome().how == "survived"
        one.trial.done()
        if passed:
            self._sound.add((test, type(trial)))
            self.told(one.asked, outcome)
            return []
        self._broken.add(test)
        return [_Running(one.asked, self._fork(session, one.asked.mutant, self._usable(trial.tests)))]


class Noted:
    """Write down which test began last, and those that failed."""

    def __init__(self, folder: Path) -> None:
        self.began, self.failed, self.any = folder / "began", folder / "failed", False

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.began.write_text(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.any = True
            with self.failed.open("a") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_collectreport(self, report: Any) -> None:
        self.pytest_runtest_logreport(report)


@dataclass
class _Fork:
    mutant: Mutant | None
    tests: Tests
    folder: Path
    process: BaseProcess
    began: float
    hung: bool = False

    def ended(self, costs: dict[str, float]) -> bool:
        if not self.process.is_alive():
            self.process.join()
            return True
        if _hangs(self.folder, costs, self.began):
            self.hung = True
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid or 0, signal.SIGKILL)
            self.process.join()
            return True
        return False

    def outcome(self) -> Outcome:
        codes = {0: "survived", 1: "failed", NOT_SWAPPED: "not run"}
        how = "hung" if self.hung else codes.get(self.process.exitcode or 0, "died")
        if not self.tests.here and not self.tests.there:
            how = "not run"
        tests = len(self.tests.here) + len(self.tests.there)
        return Outcome(how, _failed(self.folder, how), tests, round(time.monotonic() - self.began, 1))

    def done(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class _Copy:
    """A mutant in a copy of the tree, tried by a pytest of its own."""

    def __init__(self, tree: Path, mutant: Mutant | None, tests: Tests, folder: Path) -> None:
        self.mutant, self.tests, self.folder, self.hung = mutant, tests, folder, False
        left_out = shutil.ignore_patterns(".git", ".venv", "runs", ".hypothesis", ".*_cache")
        copied = Path(shutil.copytree(tree, folder / "tree", ignore=left_out, symlinks=True))
        if mutant is not None:
            (copied / mutant.path).write_text(mutant.source)
        chosen = [*tests.here, *tests.there]
        (folder / "tests").write_text("\n".join(chosen))
        (folder / "temporary").mkdir()
        paths = os.pathsep.join(map(str, (copied / "src", copied / "tests", Path(__file__).parents[1])))
        files = list(dict.fromkeys(test.split("::")[0] for test in chosen))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "mutants.plugin"]
        self.began = time.monotonic()
        with (folder / "output").open("w") as output:
            self.process = subprocess.Popen(
                [*command, f"--chosen={folder}", *files],
                cwd=copied,
                env=os.environ | {"PYTHONPATH": paths, "TMPDIR": str(folder / "temporary")},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def ended(self, costs: dict[str, float]) -> bool:
        if self.process.poll() is None and not _hangs(self.folder, costs, self.began):
            return False
        self.hung = self.process.poll() is None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # and what tests leave behind
        self.process.wait()
        return True

    def outcome(self) -> Outcome:
        names = {0: "survived", 1: "failed", 2: "not collected", 4: "not collected", 5: "not run"}
        how = "hung" if self.hung else names.get(self.process.returncode, "died")
        tests = len(self.tests.here) + len(self.tests.there)
        return Outcome(how, _failed(self.folder, how), tests, round(time.monotonic() - self.began, 1))

    def done(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(eq=False)
class _Running:
    """A trial for a try; or of the test that told, without the mutant, which decides on an outcome and its trial."""

    asked: Try
    trial: _Fork | _Copy
    doubted: tuple[Outcome, _Fork | _Copy] | None = None


def _failed(folder: Path, how: str) -> tuple[str, ...]:
    named = _read(folder / "failed").splitlines() or ([_read(folder / "began")] if how in ("hung", "died") else [])
    return tuple(dict.fromkeys(named))


def _hangs(folder: Path, costs: dict[str, float], began: float) -> bool:
    if not (folder / "began").exists():
        return time.monotonic() - began > 5 * AT_LEAST
    test = _read(folder / "began")  # nothing, for a moment, while the next one is written
    since = (folder / "began").stat().st_mtime
    return time.time() - since > max(AT_LEAST, HANGS * costs.get(test, 0))


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _end(code: int) -> None:
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(OSError):
        os.killpg(0, signal.SIGTERM)  # what tests leave behind
    os._exit(code)
