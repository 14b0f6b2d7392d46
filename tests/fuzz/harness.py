"""What every fuzzer shares: inputs made from seeds, tried one by one, with their errors, time and memory watched.

A kind of input is two functions that make and change bytes, and one that tries them. An input is bytes so that one
which was found to break something can be kept as a file, in `corpus/KIND/`, and tried again by `make test` for ever.
"""

import faulthandler
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from qvit.errors import QvitError

CORPUS = Path(__file__).parent / "corpus"
VALID = 100  # valid inputs whose median time and largest memory the others are measured by
SLOWER = 100  # times that median
MORE_MEMORY = 300 << 20  # bytes above that memory
HUNG = 60  # seconds after which an input is given up, whatever the median


@dataclass(frozen=True)
class Kind:
    """Inputs of one kind: `valid` makes one, `mutate` damages it, `attempt` uses it as a user would.

    `attempt` gets the bytes and an empty folder for files. It returns for a success, raises `QvitError` for a refusal,
    and whatever else it raises is a defect. `warm` prepares what is prepared once a process, such as kernels.
    `inputs` is how many the long part tries.
    """

    name: str
    inputs: int
    valid: Callable[[Random], bytes]
    mutate: Callable[[Random, bytes], bytes]
    attempt: Callable[[bytes, Path], object]
    warm: Callable[[], object] = lambda: None


@dataclass
class Report:
    """What came of a number of inputs."""

    kind: str
    tried: int = 0
    refused: int = 0
    median: float = 0.0  # seconds of a valid input
    slowest: float = 0.0
    memory: int = 0  # bytes, the largest growth by an input above that by the largest valid one
    defects: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return the report on one line."""
        return (
            f"{self.kind}: {self.tried:,} inputs, {self.refused:,} refused, {len(self.defects)} defects, "
            f"valid {1e3 * self.median:.2f} ms, slowest {self.slowest / max(self.median, 1e-9):.0f}x, "
            f"memory {self.memory / 2**20:+.0f} MiB"
        )


def fuzz(kind: Kind, *, inputs: int, seed: int = 0, first: int = 0, keep: Path | None = None, **how: Any) -> Report:
    """Try `inputs` damaged inputs, numbers `first` and on; those that break something are written to `keep`.

    `how` are arguments of `prepared`.
    """
    with prepared(kind, seed=seed, **how) as scene:
        return scene.fuzz(inputs, seed=seed, first=first, keep=keep)


@contextmanager
def prepared(
    kind: Kind, *, seed: int = 0, valid: int = VALID, clock: Callable[[], float] = time.perf_counter
) -> Iterator["Scene"]:
    """Have what takes inputs of a kind ready: warm, and measured by so many valid ones on a clock of seconds."""
    with tempfile.TemporaryDirectory(prefix="qvit-fuzz-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = Scene(kind, Path(name), clock)
        kind.warm()
        scene.calibrate(Random(f"{kind.name} {seed} valid {n}") for n in range(valid))
        yield scene


class _TooSlow(BaseException):
    """Raised by the alarm; no `Exception`, so that nothing swallows it."""


@dataclass
class Scene:
    """A folder to try inputs in, and what valid ones take."""

    kind: Kind
    folder: Path
    clock: Callable[[], float]
    median: float = 0.0  # seconds of a valid input
    usual: int = 0  # bytes a valid input takes

    def calibrate(self, randoms: Iterator[Random]) -> None:
        """Measure valid inputs, all of which have to succeed."""
        seconds = []
        contents = [self.kind.valid(random) for random in randoms]
        for content in (*contents[:3], *contents):  # the first ones warm up
            outcome = self._once(content)
            if outcome.error is not None:
                raise AssertionError(
                    f"a valid input of kind {self.kind.name} failed: {content[:500]!r}"
                ) from outcome.error
            seconds.append(outcome.seconds)
            self.usual = max(self.usual, outcome.memory)
        self.median = statistics.median(seconds[-len(contents) :])

    def replay(self) -> Report:
        """Try what is in the kind's corpus."""
        report = Report(self.kind.name, median=self.median)
        for path in sorted((CORPUS / self.kind.name).glob("*")):
            self.attempt(path.read_bytes(), path.name, report)
        return report

    def fuzz(self, inputs: int, *, seed: int = 0, first: int = 0, keep: Path | None = None) -> Report:
        """Try damaged inputs, as the function of this name."""
        report = Report(self.kind.name, median=self.median)
        for n in range(first, first + inputs):
            random = Random(f"{self.kind.name} {seed} {n}")
            self.attempt(self.kind.mutate(random, self.kind.valid(random)), f"seed {seed} input {n}", report, keep)
        return report

    def attempt(self, content: bytes, label: str, report: Report, keep: Path | None = None) -> None:
        """Try one input, three times more if it seems slow, and report on it."""
        (self.folder / "current").write_bytes(content)  # what a crash of the process leaves to be looked at
        outcome = self._once(content)
        limit = SLOWER * self.median
        for _ in range(3):
            if outcome.seconds <= limit or isinstance(outcome.error, _TooSlow):
                break
            again = self._once(content)  # a pause of the machine does not come back
            outcome = again if again.seconds < outcome.seconds else outcome
        report.tried += 1
        report.slowest = max(report.slowest, outcome.seconds)
        report.memory = max(report.memory, outcome.memory - self.usual)
        report.refused += isinstance(outcome.error, QvitError)
        found = list(self._complaints(outcome, limit))
        report.defects += [f"{self.kind.name}, {label}: {what}" for what in found]
        if found and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{self.kind.name}-{label.replace(' ', '-')}").write_bytes(content)

    def _complaints(self, outcome: "_Outcome", limit: float) -> Iterator[str]:
        error, text = outcome.error, str(outcome.error)
        if isinstance(error, QvitError):
            if not text.strip() or "\n" in text:
                yield f"a message that is not one line: {text!r:.200}"
        elif error is not None:
            yield f"{type(error).__name__}: {' '.join(text.split()):.300}"
        if outcome.seconds > limit:
            yield f"{outcome.seconds:.3f} s, over {SLOWER} x {self.median:.6f} s"
        if outcome.memory - self.usual > MORE_MEMORY:
            yield f"{outcome.memory >> 20} MiB, a valid input takes {self.usual >> 20}"

    def _once(self, content: bytes) -> "_Outcome":
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            before = _memory("VmRSS", fresh=True)
            error: BaseException | None = None
            start = self.clock()
            try:
                with _alarm(HUNG):
                    self.kind.attempt(content, Path(name))
            except KeyboardInterrupt:
                raise
            except BaseException as caught:  # a panic of a library in Rust is no Exception either
                error = caught
            seconds = self.clock() - start
            return _Outcome(error, seconds, _memory("VmHWM") - before)


@dataclass(frozen=True)
class _Outcome:
    error: BaseException | None
    seconds: float
    memory: int


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `_TooSlow` inside the block after a time; end the process, with its traceback, if it does not listen."""

    def ring(*_: object) -> None:
        raise _TooSlow(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(4 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def _memory(field: str, *, fresh: bool = False) -> int:
    """Return a figure of /proc in bytes, the peak begun anew if `fresh`; 0 where there is no such thing."""
    try:
        if fresh:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(field)), 0)
