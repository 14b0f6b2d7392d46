"""Files that are read within bounds, and written whole or not at all; folders used by one process at a time."""

import os
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qvit.errors import FileError, RunError

PART = ".part"  # ends the names of files that are being written; one left behind by a crash is rubbish


def read_bytes(path: Path, *, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises `FileError` for a missing or larger file, one that may not be read, and for folders, pipes and devices,
    which could block or never end; such a file is not waited for.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise FileError(f"There is no file {path}.", missing=True) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise FileError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise FileError(f"Cannot read {path}: expected a regular file, found {found}.")
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise FileError(f"Cannot read {path}: {error.strerror or error}.") from error
    if len(content) > most:
        raise FileError(f"Cannot read {path}: expected at most {most:,} bytes, found more.")
    return content


def read_text(path: Path, *, most: int) -> str:
    """Return the text of a UTF-8 file; raises `FileError` as `read_bytes` does, and for bytes that are no text."""
    try:
        return read_bytes(path, most=most).decode()
    except UnicodeDecodeError as error:
        raise FileError(
            f"Cannot read {path}: expected text in UTF-8, found {error.reason} at {error.start}."
        ) from error


def expanded(path: str | Path) -> Path:
    """Return a path with `~` and `~name` replaced by home folders; raises `FileError` for one that there is not."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileError(
            f"Cannot use the path {path}: {error} Write the folder out, or ./{path} for one of this name."
        ) from error


def write_atomic(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    With `durable` the bytes are on the disk when this returns, safe even from a power cut; that takes some
    milliseconds. Raises `RunError` if the folder cannot be written to or the disk is full; the old file is then
    untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(
            f"Cannot write {path}: {error.strerror or error}. Nothing was lost; free some space or choose "
            "a folder that you may write to."
        ) from error


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; raises `RunError` if another one holds it. A killed process lets go.

    On Windows, and on file systems without such locks, this does nothing.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder} is in use by another process; wait for it, or use another folder.") from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
