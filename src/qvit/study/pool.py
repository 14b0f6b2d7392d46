"""Who does the runs: processes on this machine, each one run at a time.

A worker ends as soon as its driver does, however that came about: it waits for the driver's next word in a thread of
its own, and a connection whose other end is gone says so at once. Until it has ended it holds a lock in the study's
folder, so that a new driver does not begin before all workers of the old one are gone.
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
GOODBYE = 5.0  # seconds in which an idle worker should have ended by itself
GUARD = 'A script that runs a study must do so under `if __name__ == "__main__":`, because every worker imports it.'
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Event:
    """What a worker has to say of a run: "epoch", "finished", "failed" by an error of its own, or "lost" with it."""

    kind: str
    identity: str
    worker: str
    told: Any = None


@runtime_checkable
class Pool(Protocol):
    """Something that does runs, some at a time."""

    @property
    def idle(self) -> int:
        """How many more runs it would take now."""

    def submit(self, work: Any) -> str:
        """Begin a run; returns the name of who does it."""

    def events(self, timeout: float) -> list[Event]:
        """Return what has happened since, waiting up to `timeout` seconds for something."""

    def close(self) -> None:
        """End all workers, whatever they are doing."""


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalPool:
    """Processes on this machine; `threads` is how many each of them computes with."""

    def __init__(self, workers: int, folder: Path, *, threads: int = 1) -> None:
        self._folder, self._threads = folder, threads
        self._workers = [_Worker(f"worker {number}", folder, threads) for number in range(1, workers + 1)]

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return sum(worker.work is None for worker in self._workers)

    def submit(self, work: Any) -> str:
        """Have an idle worker begin a run; returns its name."""
        worker = next(worker for worker in self._workers if worker.work is None)
        worker.begin(work)
        return worker.name

    def events(self, timeout: float) -> list[Event]:
        """Return news of all workers; one that died is replaced, and its run is lost."""
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
    """One process and what it is doing, as its driver sees it."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name, self._folder, self._threads = name, folder, threads
        self.work: Any = None
        self._start()

    def _start(self) -> None:
        self._ready = False
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, self._folder, self._threads), name=f"qvit {self.name}", daemon=True
        )
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(self._threads))):
            self.process.start()
        theirs.close()

    def begin(self, work: Any) -> None:
        self.work = work
        with contextlib.suppress(OSError):  # it has died, which `news` will find
            self.connection.send(work)

    def news(self) -> list[Event]:
        """Return what the worker has said; if it has died, a new one takes its place.

        Raises `RunError` if it could not even begin, as none will.
        """
        found = []
        try:
            while self.connection.poll():
                kind, told = self.connection.recv()
                if kind == "ready":
                    self._ready = True
                    continue
                found.append(Event(kind, self.work.identity, self.name, told))
                if kind != "epoch":
                    self.work = None
        except (EOFError, OSError):
            self.process.join()
            how = _ending(self.process.exitcode)
            if not self._ready and self.process.exitcode == 1:  # an error before it could listen
                raise RunError(f"A worker cannot begin: {how}, and said why above. {GUARD}") from None
            if self.work is not None:
                found.append(Event("lost", self.work.identity, self.name, how))
                self.work = None
            self.connection.close()
            self._start()
        return found

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.close()  # which it takes for the end
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


def _serve(connection: Connection, folder: Path, threads: int) -> None:
    """Be a worker: do what comes in, until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to hear
    _share(folder)
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, todo), daemon=True).start()
    import torch

    from qvit.study.work import execute

    torch.set_num_threads(threads)
    connection.send(("ready", None))

    def tell(*told: Any) -> None:
        connection.send(("epoch", told))

    while True:
        connection.send(attempt(execute, todo.get(), tell))


def attempt(what: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Return ("finished", what it returned), or ("failed", (one line, the whole traceback))."""
    try:
        return "finished", what(*arguments)
    except QvitError as error:
        return "failed", (f"{type(error).__name__}: {error}", traceback.format_exc())
    except Exception as error:  # a bug, or memory that ran out: this run's misfortune, not the study's
        line = " ".join(str(error).split())
        return "failed", (f"{type(error).__name__}: {line}", traceback.format_exc())


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
    """Wait until no worker of an earlier driver is left; raises `RunError` after `patience` seconds."""
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
