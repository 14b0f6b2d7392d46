"""Workers: what they are told, what they tell, and how they end, with threads in the place of processes.

Real processes, killed in earnest, are in test_killed.py.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qvit.errors import ConfigError, RunError
from qvit.study import pool as module
from qvit.study.pool import (
    LOCK,
    THREAD_VARIABLES,
    Event,
    LocalPool,
    _ending,
    _environment,
    _share,
    attempt,
    await_workers,
    cores,
)

TOO_LONG = 60.0  # seconds: ends what hangs, on any machine
END = SimpleNamespace(does="leave", others=())


class Process:
    """A thread that looks like a process to its pool."""

    def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...], name: str, daemon: bool) -> None:
        theirs, *rest = args
        self.connection = Connection(
            os.dup(theirs.fileno())
        )  # a process has a copy, so that the pool may close its own
        self.said = {"name": name, "daemon": daemon, "rest": tuple(rest)}
        self.exitcode: int | None = None
        self.killed = False
        self._target, self._thread = target, threading.Thread(target=self._run, args=tuple(rest), daemon=True)

    def _run(self, *rest: Any) -> None:
        with suppress(SystemExit, OSError):  # the latter once it has been killed
            self._target(self.connection, *rest)
        self.hang_up()

    def hang_up(self) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def start(self) -> None:
        self.environment = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        if not self.killed:
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self.killed

    def kill(self) -> None:
        self.killed, self.exitcode = True, -signal.SIGKILL
        self.hang_up()


@dataclass
class Workers:
    """What the threads did that stand for processes."""

    processes: list[Process] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    signals: list[Any] = field(default_factory=list)
    cores: list[int] = field(default_factory=list)
    shared: list[Path] = field(default_factory=list)
    stuck: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Have pools start threads, whose runs do as their work says."""
    seen = Workers()

    def process(**options: Any) -> Process:
        seen.processes.append(Process(**options))
        return seen.processes[-1]

    def leave(code: int) -> None:
        """End the worker whose thread calls: the one that waits for work, and this one by itself after this."""
        seen.exits.append(code)
        sys._getframe(1).f_locals["todo"].put(END)

    def execute(work: Any, tell: Callable[..., None]) -> str:
        if work.does == "leave":
            raise SystemExit
        if work.does == "die":
            seen.processes[work.number].exitcode = -signal.SIGKILL
            raise SystemExit
        if work.does == "fail":
            raise ConfigError("There is no model 'vit_5q3'.")
        if work.does == "hang":
            tell("train", 1, 9)
            seen.stuck.wait(TOO_LONG)
        for epoch in (1, 2):
            tell("train", epoch, 2)
        return f"result of {work.identity}"

    context = SimpleNamespace(Pipe=Pipe, Process=process)
    monkeypatch.setattr(module.multiprocessing, "get_context", {"spawn": context}.__getitem__)
    monkeypatch.setattr(module.os, "_exit", leave)
    monkeypatch.setattr(module.signal, "signal", lambda *said: seen.signals.append(said))
    monkeypatch.setattr(torch, "set_num_threads", seen.cores.append)
    monkeypatch.setattr(module, "_share", seen.shared.append)

    def execute_together(work: Any, tell: Callable[..., None]) -> list[tuple[str, Any]]:
        for one in work.all:
            tell(one.identity, "train", 1, 1)
        if work.does == "die":
            execute(work, tell)
        if work.does == "fail":
            raise ConfigError("Nothing of this can be.")
        return [(one.identity, ConfigError("no") if one.identity == "y" else f"of {one.identity}") for one in work.all]

    monkeypatch.setattr("qvit.study.work.execute", execute)
    monkeypatch.setattr("qvit.study.work.execute_together", execute_together)
    yield seen
    seen.stuck.set()
    for one in seen.processes:
        one.hang_up()
    deadline = time.monotonic() + TOO_LONG
    while len(seen.exits) < len(seen.processes):  # or what still listens would end this process in earnest
        assert time.monotonic() < deadline
        time.sleep(0.001)


def work(identity: str, does: str = "its work", **more: Any) -> SimpleNamespace:
    return SimpleNamespace(identity=identity, does=does, others=(), all=(SimpleNamespace(identity=identity),), **more)


def until(pool: LocalPool, done: Callable[[list[Event]], bool]) -> list[Event]:
    """Collect events until there is enough of them."""
    events: list[Event] = []
    deadline = time.monotonic() + TOO_LONG
    while not done(events):
        assert time.monotonic() < deadline, events
        events += pool.events(0.05)
    return events


def over(events: list[Event]) -> bool:
    return bool(events) and events[-1].kind != "epoch"


def test_a_worker_does_one_run_after_another_whatever_becomes_of_them(workers: Workers, tmp_path: Path) -> None:
    pool = LocalPool(1, tmp_path)
    assert pool.idle == 1
    assert pool.events(0.0) == []
    assert pool.submit(work("a")) == "worker 1"
    assert pool.idle == 0
    assert until(pool, over) == [
        Event("epoch", "a", "worker 1", ("train", 1, 2)),
        Event("epoch", "a", "worker 1", ("train", 2, 2)),
        Event("finished", "a", "worker 1", "result of a"),
    ]
    assert pool.idle == 1
    pool.submit(work("b", "fail"))
    [event] = until(pool, over)
    line, trace = event.told
    assert (event.kind, event.identity, line) == ("failed", "b", "ConfigError: There is no model 'vit_5q3'.")
    assert trace.startswith("Traceback")
    pool.submit(work("c"))
    assert until(pool, over)[-1].told == "result of c"
    assert len(workers.processes) == 1
    pool.close()


def test_workers_do_as_many_runs_at_a_time_as_there_are_of_them(workers: Workers, tmp_path: Path) -> None:
    pool = LocalPool(3, tmp_path)
    assert [pool.submit(work(name, "hang")) for name in "ab"] == ["worker 1", "worker 2"]
    assert pool.idle == 1
    assert {(event.identity, event.worker) for event in until(pool, lambda found: len(found) == 2)} == {
        ("a", "worker 1"),
        ("b", "worker 2"),
    }
    workers.stuck.set()
    ended = [event.identity for event in until(pool, lambda found: len(found) == 6) if event.kind == "finished"]
    assert sorted(ended) == ["a", "b"]
    assert pool.idle == 3
    pool.close()


def test_a_worker_that_dies_is_replaced_and_its_run_is_lost(workers: Workers, tmp_path: Path) -> None:
    pool = LocalPool(1, tmp_path)
    pool.submit(work("a", "die", number=0))
    assert until(pool, bool) == [Event("lost", "a", "worker 1", "its process was killed by SIGKILL")]
    assert (pool.idle, len(workers.processes)) == (1, 2)
    pool.submit(work("b"))
    assert until(pool, over)[-1] == Event("finished", "b", "worker 1", "result of b")
    pool.close()


def test_a_worker_that_dies_idle_is_replaced_without_a_word(workers: Workers, tmp_path: Path) -> None:
    pool = LocalPool(1, tmp_path)
    workers.processes[0].kill()
    deadline = time.monotonic() + TOO_LONG
    while len(workers.processes) == 1:
        assert time.monotonic() < deadline
        assert pool.events(0.05) == []
    pool.submit(work("b"))
    assert until(pool, over)[-1].kind == "finished"
    pool.close()


def test_a_worker_that_cannot_begin_ends_the_study_and_says_what_is_missing(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first does of a script that runs a study whenever it is imported: it is imported by the worker."""

    def serve(*_: Any) -> None:
        workers.processes[0].exitcode = 1
        workers.exits.append(1)

    monkeypatch.setattr(module, "_serve", serve)
    pool = LocalPool(1, tmp_path)
    pool.submit(work("a"))
    with pytest.raises(RunError) as caught:
        until(pool, bool)
    assert str(caught.value) == (
        "A worker cannot begin: its process ended with code 1, and said why above. A script that runs a study must do "
        'so under `if __name__ == "__main__":`, because every worker imports it.'
    )


def test_work_for_a_worker_that_has_just_died_is_lost_and_no_error(workers: Workers, tmp_path: Path) -> None:
    pool = LocalPool(1, tmp_path)
    pool._workers[0].connection.close()
    pool.submit(work("a"))
    [event] = pool._workers[0].news()
    assert (event.kind, event.identity) == ("lost", "a")
    pool.close()


def test_close_ends_idle_workers_by_a_word_and_others_by_force(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GOODBYE", 0.2)
    pool = LocalPool(2, tmp_path)
    pool.submit(work("a", "hang"))
    until(pool, bool)
    pool.close()
    assert [process.killed for process in workers.processes] == [True, False]
    assert not any(process.is_alive() for process in workers.processes)
    assert 1 in workers.exits


def test_a_worker_knows_its_threads_and_folder_and_leaves_ctrl_c_to_the_driver(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    pool = LocalPool(1, tmp_path, threads=3)
    pool.submit(work("a"))
    until(pool, over)
    [process] = workers.processes
    assert process.said == {"name": "qvit worker 1", "daemon": True, "rest": (tmp_path, 3, module._runs)}
    assert process.environment == {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert not set(THREAD_VARIABLES) & set(os.environ), "the driver's own are as they were"
    assert workers.cores == [3]
    assert workers.shared == [tmp_path]
    assert workers.signals == [(signal.SIGINT, signal.SIG_IGN)]
    pool.close()
    assert LocalPool(1, tmp_path)._threads == 1


def test_a_pool_may_do_other_work_than_a_studys(workers: Workers, tmp_path: Path) -> None:
    begun: list[str] = []

    def begin() -> Callable[..., list[tuple[str, str, Any]]]:
        begun.append("once")

        def does(given: Any, connection: Connection) -> list[tuple[str, str, Any]]:
            if given.does == "leave":
                raise SystemExit
            return [("finished", given.identity, f"{given.does} done")]

        return does

    pool = LocalPool(1, tmp_path, begin=begin)
    for name in "ab":
        pool.submit(work(name, "something"))
        assert until(pool, over) == [Event("finished", name, "worker 1", "something done")]
    assert begun == ["once"]
    pool.close()


def test_variables_are_set_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QVIT_ONE", "before")
    monkeypatch.delenv("QVIT_OTHER", raising=False)
    with suppress(KeyError), _environment({"QVIT_ONE": "1", "QVIT_OTHER": "2"}):
        assert (os.environ["QVIT_ONE"], os.environ["QVIT_OTHER"]) == ("1", "2")
        raise KeyError
    assert os.environ["QVIT_ONE"] == "before"
    assert "QVIT_OTHER" not in os.environ


# --- the workers' lock ---


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Descriptors of the lock, which a worker keeps until it ends."""
    found: list[int] = []
    real = os.open

    def note(path: Any, *how: Any) -> int:
        found.append(real(path, *how))
        return found[-1]

    monkeypatch.setattr(module.os, "open", note)
    yield found
    for descriptor in found:
        with suppress(OSError):
            os.close(descriptor)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_a_new_driver_waits_until_all_workers_of_the_old_one_are_gone(tmp_path: Path, opened: list[int]) -> None:
    await_workers(tmp_path, patience=0.0)
    _share(tmp_path)
    _share(tmp_path)  # together with others
    for left in opened[1:3]:
        with pytest.raises(RunError) as caught:
            await_workers(tmp_path, patience=0.06)
        assert str(caught.value) == (
            f"Workers of an earlier `qvit study run` are still at work in {tmp_path}; end them first."
        )
        os.close(left)
    await_workers(tmp_path, patience=0.0)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert (tmp_path / LOCK).stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_a_file_system_without_locks_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    await_workers(tmp_path, patience=0.0)
    _share(tmp_path)
    _share(tmp_path / "nowhere")


def test_windows_has_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    _share(tmp_path)
    await_workers(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- attempts, endings, cores ---


def test_attempt_tells_what_went_wrong() -> None:
    assert attempt(lambda a, b: a + b, 1, 2) == ("finished", 3)

    def fail(error: BaseException) -> None:
        raise error

    for error, told in (
        (IndexError("list index\n  out of range"), "IndexError: list index out of range"),
        (RunError("two\nlines of ours"), "RunError: two lines of ours"),
        (MemoryError(), "MemoryError: "),
    ):
        kind, (line, trace) = attempt(fail, error)
        assert (kind, line) == ("failed", told)
        assert trace.startswith("Traceback (most recent call last):\n")
        assert "in fail\n" in trace
    with pytest.raises(KeyboardInterrupt):
        attempt(fail, KeyboardInterrupt())


def test_endings_are_named() -> None:
    assert _ending(-9) == "its process was killed by SIGKILL"
    assert _ending(0) == "its process ended with code 0"
    assert _ending(1) == "its process ended with code 1"
    assert _ending(None) == "its process ended with code None"


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: 64)
    if sys.platform == "linux":
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {pid, 5, 9})
        assert cores() == 3
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cores() == 64
    monkeypatch.setattr(module.os, "cpu_count", lambda: None)
    assert cores() == 1


def several(does: str, names: str = "xyz", **more: Any) -> SimpleNamespace:
    named = tuple(SimpleNamespace(identity=name) for name in names)
    return SimpleNamespace(identity=names[0], does=does, others=named[1:], all=named, **more)


def test_the_end_of_each_run_of_a_stack_is_told(workers: Workers, tmp_path: Path) -> None:
    pool = LocalPool(1, tmp_path)
    assert pool.stacks
    pool.submit(several("its work"))
    found = until(pool, lambda events: len(events) == 6)
    assert [(event.kind, event.identity) for event in found] == [
        *(("epoch", name) for name in "xyz"),
        ("finished", "x"),
        ("failed", "y"),
        ("finished", "z"),
    ]
    assert (found[0].told, found[3].told, found[4].told[0]) == (("train", 1, 1), "of x", "ConfigError: no")
    assert pool.idle == 1
    pool.submit(several("fail"))
    found = until(pool, lambda events: len(events) == 6)[3:]
    assert [(event.kind, event.identity, event.told[0]) for event in found] == [
        ("failed", name, "ConfigError: Nothing of this can be.") for name in "xyz"
    ]
    pool.submit(several("die", number=0))
    found = until(pool, lambda events: len(events) == 6)[3:]
    assert [(event.kind, event.identity) for event in found] == [("lost", name) for name in "xyz"]
    assert pool.idle == 1
    pool.close()
