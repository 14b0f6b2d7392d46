"""Files that are written whole or not at all, and folders used by one process at a time."""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qvit.errors import RunError

PART = ".part"  # ends the names of files that are being written; one left behind by a crash is rubbish


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
