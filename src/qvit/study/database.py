"""Access to SQLite files that may be in use, on a read-only disk, or damaged.

A busy file is not a damaged one: processes wait for it as long as it takes. Every failure of SQLite becomes an error
that names it and says what to do.
"""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from qvit.errors import RunError

OnWait = Callable[[str], None]
T = TypeVar("T")
QUIET = 5.0  # seconds of waiting before it is reported
PAUSE = 0.1  # seconds between two tries
READ, WRITE = "ro", "rwc"  # modes
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
FORBIDDEN = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: no such table or column
ADVICE = {
    **dict.fromkeys(
        DAMAGED, "It is damaged: delete it and run the study again: finished runs in its folder are found and kept."
    ),
    **dict.fromkeys(FORBIDDEN, "File or folder may be read-only: change that, or choose another folder with --out."),
    sqlite3.SQLITE_FULL: "Free some space and run the study again; nothing was lost.",
    sqlite3.SQLITE_IOERR: "Check the disk, and run the study again; finished runs are kept.",
}


class DamageError(sqlite3.DatabaseError):
    """A value in the file is not what was written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@contextmanager
def connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a file, in mode `READ` or `WRITE`; every error of SQLite becomes a `RunError`.

    A reader sees whole transactions, even if a killed writer left half of one and the file cannot be written.
    """
    with told(path):
        if mode == READ:
            with _as_it_should_be(path) as (found, writable), _opened(found, "rw" if writable else "ro") as connection:
                connection.execute("PRAGMA query_only = ON")
                yield connection
        else:
            with _opened(path, mode) as connection:
                yield connection


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and `DamageError` inside the block into a `RunError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        advice = ADVICE.get(_code(error), "")
        raise RunError(f"{path} cannot be used: {str(error).rstrip('.')}. {advice}".strip()) from error


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; 0 for errors of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    place = quote(os.fsencode(path.resolve()))
    connection = sqlite3.connect(f"file:{place}?mode={mode}", uri=True, timeout=PAUSE)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _as_it_should_be(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield where a file can be read, and whether it may be written to.

    A transaction that a killed writer left half written must be rolled back before the file can be read. If the file
    cannot be written, a copy is rolled back instead.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        yield path, True
        return
    journal = path.with_name(f"{path.name}-journal")
    if not journal.exists() or _legible(path):
        yield path, False
        return
    with tempfile.TemporaryDirectory(prefix="qvit-") as folder:
        for one in (path, journal):
            with suppress(FileNotFoundError):
                shutil.copyfile(one, Path(folder) / one.name)
        yield Path(folder) / path.name, True


def _legible(path: Path) -> bool:
    with _opened(path, "ro") as connection:
        try:
            connection.execute("SELECT name FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            return _code(error) not in FORBIDDEN
    return True


def patiently(path: Path, action: Callable[[], T], on_wait: OnWait | None = None) -> T:
    """Return the result of an action, repeated while other processes block the file; `on_wait` reports a long wait.

    The action must change nothing if it fails.
    """
    began, heard = time.monotonic(), False
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if _code(error) not in BUSY:
                raise
        if not heard and on_wait is not None and time.monotonic() - began >= QUIET:
            on_wait(f"Waiting for {path}: {_users(path)} is using it.")
            heard = True
        time.sleep(PAUSE)


def _users(path: Path) -> str:
    """Return which other processes have a file open, as far as the system shows them."""
    names, path = [], path.resolve()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours
            if int(entry.name) != os.getpid() and _has_open(entry, path):
                names.append(f"{(entry / 'comm').read_text(encoding='utf-8', errors='replace').strip()} {entry.name}")
    return f"another process ({', '.join(sorted(names))})" if names else "another process"


def _has_open(process: Path, path: Path) -> bool:
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):  # it was closed just now
            if descriptor.readlink() == path:
                return True
    return False
