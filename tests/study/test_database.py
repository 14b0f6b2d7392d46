"""A study's file that is busy, or cannot be written: waited for, told, and read all the same."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from qvit.errors import RunError
from qvit.study import database
from qvit.study.store import FILE, Store
from study.stores import RESULT, fill, jobs_of, read

pytestmark = pytest.mark.usefixtures("options_are_not_the_point")


HOLDING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN " + sys.argv[2])
connection.execute("SELECT * FROM study").fetchall()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Another process that is in the midst of a transaction until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-S", "-c", HOLDING, str(tmp_path / FILE), how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.communicate()


@pytest.mark.processes
@pytest.mark.parametrize(("how", "reading"), [("DEFERRED", False), ("EXCLUSIVE", False), ("EXCLUSIVE", True)])
def test_whoever_finds_it_busy_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Callable[..., Any], how: str, reading: bool
) -> None:
    """For a reader as for a writer, however long that takes; nothing is said of damage."""
    with Store.open(tmp_path) as store:
        one, *_ = fill(store, jobs_of())
    process, heard = hold(how), []
    monkeypatch.setattr(database, "QUIET", 0.0)

    def hear(news: str) -> None:
        heard.append(news)
        process.communicate()

    way = Store.read if reading else Store.open
    with way(tmp_path, on_wait=hear) as store:
        if not reading:
            store.begin(one, "worker 1")
            store.finish(one, RESULT, 1.0)
        [found] = [job for job in store.jobs() if job.identity == one]
        assert found.status == ("waiting" if reading else "finished")
        assert len(store.attempts()) == (0 if reading else 1)
    [news] = heard
    assert news.startswith(f"Waiting for {tmp_path / FILE}: another process")
    if sys.platform == "linux":
        assert str(process.pid) in news


@pytest.mark.processes
def test_a_short_wait_is_not_worth_a_word(
    tmp_path: Path, hold: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "QUIET", 600.0)  # shorter than that on any machine
    with Store.open(tmp_path) as store:
        store.put(title="x")
    process = hold("EXCLUSIVE")
    timer = threading.Timer(0.3, process.communicate)
    timer.start()
    with Store.read(tmp_path, on_wait=lambda news: pytest.fail(news)) as store:
        assert store.get("title") == "x"
    timer.join()


HALF_WRITING = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that a part is in the file already
connection.execute("BEGIN")
connection.execute("UPDATE runs SET status = 'failed'")
for _ in range(3000):
    connection.execute("INSERT INTO attempts VALUES ('x', ?, 1.0, NULL, NULL)", ("w" * 100,))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("left", ["whole", pytest.param("half written", marks=pytest.mark.processes)])
def test_a_study_that_cannot_be_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    """Also one whose driver was killed, which has to be taken back before it can be read."""
    with Store.open(tmp_path) as store:
        one, *_ = fill(store, jobs_of())
        store.finish(one, RESULT, 1.0)
    if left == "half written":
        subprocess.run([sys.executable, "-S", "-c", HALF_WRITING, str(tmp_path / FILE)], check=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == (2 if left == "half written" else 1)
    monkeypatch.setattr(database.os, "access", lambda *_: False)
    real, opened = sqlite3.connect, []

    def connect(place: str, **options: Any) -> sqlite3.Connection:
        """As where nothing can be written: a journal cannot be taken back."""
        opened.append(place)
        if "mode=ro" in place and left == "half written":
            error = sqlite3.OperationalError("attempt to write a readonly database")
            error.sqlite_errorcode = sqlite3.SQLITE_READONLY_ROLLBACK
            connection = MagicMock()
            connection.execute.side_effect = error
            return connection
        return real(place, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    assert [job.status for job in read(tmp_path)] == ["finished"] + ["waiting"] * 17
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "mode=ro" in opened[0]
    with pytest.raises(RunError, match="read-only"), Store.read(tmp_path) as store:
        store.put(title="x")


ADVICE = {
    "writable": "File or folder may be read-only: change that, or choose another folder with --out.",
    "room": "Free some space and run the study again; nothing was lost.",
    "disk": "Check the disk, and run the study again; finished runs are kept.",
    "delete": "It is damaged: delete it and run the study again: finished runs in its folder are found and kept.",
    "": "",
}
CODES = {
    sqlite3.SQLITE_READONLY: "writable",
    sqlite3.SQLITE_READONLY_DIRECTORY: "writable",
    sqlite3.SQLITE_CANTOPEN: "writable",
    sqlite3.SQLITE_PERM: "writable",
    sqlite3.SQLITE_AUTH: "writable",
    sqlite3.SQLITE_FULL: "room",
    sqlite3.SQLITE_IOERR: "disk",
    sqlite3.SQLITE_IOERR_WRITE: "disk",
    sqlite3.SQLITE_CORRUPT: "delete",
    sqlite3.SQLITE_CORRUPT_INDEX: "delete",
    sqlite3.SQLITE_NOTADB: "delete",
    sqlite3.SQLITE_ERROR: "delete",
    sqlite3.SQLITE_MISUSE: "",
}


def test_only_what_is_damaged_is_to_be_deleted() -> None:
    assert set(database.ADVICE) <= set(CODES)
    for code, advice in CODES.items():
        error = sqlite3.OperationalError("so it is.")
        error.sqlite_errorcode = code
        with pytest.raises(RunError) as caught, database.told(Path("x.sqlite")):
            raise error
        assert str(caught.value) == f"x.sqlite cannot be used: so it is. {ADVICE[advice]}".strip()
