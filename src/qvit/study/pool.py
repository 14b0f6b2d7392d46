"""Worker processes on this machine, each of which does one run at a time.

A worker ends as soon as its driver does, for whatever reason: a thread waits for the driver's messages, and notices at
once when the connection is closed. Until then a worker holds a lock in the study's folder, so that a new driver does
not begin before all workers of the old one are gone.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from qvit.errors import QvitError, RunError

LOCK = ".workers"
PATIENCE = 60.0  # seconds that a new driver waits for the workers of an old one
GOODBYE = 5.0  # seconds after which an idle worker that has not ended is killed
GUARD = 'A script that runs a study must do so under `if __name__ == "__main__":`, because every worker imports it.'
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Event:
    """A worker's news of a run: "epoch", "finished", "failed" with an error, or "lost" because the worker died."""

    kind: str
    identity: str
    worker: str
    told: Any = None


@runtime_checkable
class Pool(Protocol):
    """The interface of a pool of workers, which does several runs at a time."""

    stacks: bool  # whether it takes runs that are trained together

    @property
    def idle(self) -> int:
        """The number of runs, or stacks of them, that it could begin now."""

    def submit(self, work: Any) -> str:
        """Begin a run, and the others that are trained together with it; return the name of its worker."""

    def events(self, timeout: float) -> list[Event]:
        """Return what has happened since the last call, waiting up to `timeout` seconds for something."""

    def close(self) -> None:
        """End all workers, whatever they are doing."""


Message = tuple[str, str, Any]  # kind, identity, and what is told, as in an Event
Does = Callable[[Any, Connection], list[Message]]
Begin = Callable[[], Does]


def cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalPool:
    """Worker processes on this machine, each with `threads` threads.

    `begin`, called once in each process, gives what does the work there: runs of a study, unless told otherwise.
    """

    stacks = True

    def __init__(self, workers: int, folder: Path, *, threads: int = 1, begin: Begin | None = None) -> None:
        self._folder, self._threads = folder, threads
        how = folder, threads, begin or _runs
        self._workers = [_Worker(f"worker {number}", *how) for number in range(1, workers + 1)]

    @property
    def idle(self) -> int:
        """The number of idle workers."""
        return sum(worker.work is None for worker in self._workers)

    def submit(self, work: Any) -> str:
        """Let an idle worker begin a run and return the worker's name."""
        worker = next(worker for worker in self._workers if worker.work is None)
        worker.begin(work)
        return worker.name

    def events(self, timeout: float) -> list[Event]:
        """Return the news of all workers; a worker that died is replaced, and its run is reported as lost."""
        wait([worker.connection for worker in self._workers], timeout)
        found: list[Event] = []
        for worker in self._workers:
            found += worker.news()
        return found

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """The driver's view of one process and its current run."""

    def __init__(self, name: str, folder: Path, threads: int, begin: Begin) -> None:
        self.name, self._folder, self._threads, self._begin = name, folder, threads, begin
        self.work: Any = None
        self._left: list[str] = []  # identities of runs whose end it has not told
        self._start()

    def _start(self) -> None:
        self._ready = False
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve,
            args=(theirs, self._folder, self._threads, self._begin),
            name=f"qvit {self.name}",
            daemon=True,
        )
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(self._threads))):
            self.process.start()
        theirs.close()

    def begin(self, work: Any) -> None:
        self.work, self._left = work, [one.identity for one in work.all]
        with contextlib.suppress(OSError):  # it has died, which `news` will notice
            self.connection.send(work)

    def news(self) -> list[Event]:
        """Return the worker's news; if it has died, a new process replaces it.

        Raises `RunError` if it could not start at all, since then no other will.
        """
        found = []
        try:
            while self.connection.poll():
                kind, identity, told = self.connection.recv()
                if kind == "ready":
                    self._ready = True
                    continue
                found.append(Event(kind, identity, self.name, told))
                if kind != "epoch":
                    self._left.remove(identity)
                    if not self._left:
                        self.work = None
        except (EOFError, OSError):
            self.process.join()
            how = _ending(self.process.exitcode)
            if not self._ready and self.process.exitcode == 1:  # an error before it could listen
                raise RunError(f"A worker cannot begin: {how}, and said why above. {GUARD}") from None
            found += [Event("lost", identity, self.name, how) for identity in self._left]
            self.work, self._left = None, []
            self.connection.close()
            self._start()
        return found

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.close()  # which tells it to end
        self.process.join(GOODBYE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes started inside the block."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _serve(connection: Connection, folder: Path, threads: int, begin: Begin) -> None:
    """Run as a worker: do all work received, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the driver handles Ctrl-C
    _share(folder)
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, todo), daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    does = begin()
    connection.send(("ready", "", None))
    while True:
        for message in does(todo.get(), connection):
            connection.send(message)


def _runs() -> Does:
    return _done


def _done(work: Any, connection: Connection) -> list[tuple[str, str, Any]]:
    """Do a run, and those that are trained together with it; return what became of each, as messages."""
    from qvit.study.work import execute, execute_together

    if work.others:
        return attempt_together(execute_together, work, lambda name, *told: connection.send(("epoch", name, told)))
    kind, outcome = attempt(execute, work, lambda *told: connection.send(("epoch", work.identity, told)))
    return [(kind, work.identity, outcome)]


def attempt(what: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Call a function; return ("finished", its result), or ("failed", (one line, the whole traceback))."""
    try:
        return "finished", what(*arguments)
    except QvitError as error:
        return "failed", (f"{type(error).__name__}: {error}", traceback.format_exc())
    except Exception as error:  # a bug, or no memory left: only this run fails
        line = " ".join(str(error).split())
        return "failed", (f"{type(error).__name__}: {line}", traceback.format_exc())


def attempt_together(what: Callable[..., Any], work: Any, *arguments: Any) -> list[tuple[str, str, Any]]:
    """Call a function that does several runs; return what `attempt` would of each alone, with its identity."""
    kind, told = attempt(what, work, *arguments)
    if kind == "failed":  # all of them, by what has nothing to do with any
        return [(kind, one.identity, told) for one in work.all]
    ended = {identity: attempt(_given, outcome) for identity, outcome in told}
    return [(how, identity, outcome) for identity, (how, outcome) in ended.items()]


def _given(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _listen(connection: Connection, todo: "queue.SimpleQueue[Any]") -> None:
    try:
        while True:
            todo.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)


def _share(folder: Path) -> None:
    """Hold the workers' lock together with the other workers, until this process ends."""
    if sys.platform == "win32":
        return
    import fcntl

    with contextlib.suppress(OSError):  # a file system without locks
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def await_workers(folder: Path, *, patience: float = PATIENCE) -> None:
    """Wait until all workers of an earlier driver have ended; raises `RunError` after `patience` seconds."""
    if sys.platform == "win32":
        return
    import fcntl

    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"Workers of an earlier `qvit study run` are still at work in {folder}; end them first."
                    ) from None
                time.sleep(0.05)
            except OSError:
                return
    finally:
        os.close(descriptor)
