"""Files that are read within bounds, and written whole or not at all; folders used by one process at a time."""

import errno
import os
import stat
import sys
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BufferedWriter
from pathlib import Path

from qvit.errors import FileError, QvitError, RunError

PART = ".part"  # ends the names of files that are being written; one left behind by a crash can be deleted
_NEVER_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are not UTF-8, separators of lines
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_STRANGER = "a pipe or a device"


def printable(path: str | Path, *, raised: type[QvitError] = FileError) -> Path:
    """Return the path if its name can be written down: in JSON, in a database, in a message of one line.

    Raises `raised` for names that are not UTF-8 or that hold line breaks or other control characters. The whole
    absolute path counts, with links followed, since that is what is recorded.
    """
    for name in (os.fspath(path), _absolute(path)):
        found = unwritable(name)
        if found is not None:
            raise raised(f"Expected a path whose name can be written down, found {found} in {name!a}. Rename that.")
    return Path(path)


def unwritable(name: str) -> str | None:
    """Return what keeps a name from being written down on one line; None if nothing does."""
    wrong = next((character for character in name if unicodedata.category(character) in _NEVER_IN_NAMES), None)
    if wrong is None:
        return None
    return "bytes that are no UTF-8" if "\ud800" <= wrong <= "\udfff" else f"the character {wrong!a}"


def shown(name: str) -> str:
    """Return a name from outside as a message can show it: on one line, cut to 40 characters, escaped if need be."""
    short = name if len(name) <= 40 else f"{name[:40]}…"
    return short if short.isprintable() else ascii(short)


def _absolute(path: str | Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # such as a zero byte, which the given name shows as well
        return os.fspath(path)


def _open(path: Path) -> BufferedReader:
    # Without O_NONBLOCK, opening a pipe waits for a writer. The name is a string, as numpy's memory maps keep it.
    return open(os.fspath(path), "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE))


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises `FileError` for a missing or unreadable file, and at once for folders, pipes and devices, which could block
    or never end.
    """
    try:
        file = _open(path)
    except FileNotFoundError as error:
        raise FileError(f"There is no file {path}.", found="nothing there", missing=True) from error
    except IsADirectoryError as error:
        raise FileError(f"Cannot read {path}: expected a regular file, found a folder.", found="a folder") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        found = getattr(error, "strerror", None) or str(error)
        raise FileError(f"Cannot read {path}: {found}.", found=found) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileError(f"Cannot read {path}: expected a regular file, found {_STRANGER}.", found=_STRANGER)
    return file


def read_bytes(path: Path, *, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises `FileError` as `open_regular` does, and for a larger file.
    """
    with open_regular(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            found = error.strerror or str(error)
            raise FileError(f"Cannot read {path}: {found}.", found=found) from error
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


def unseen(error: Exception) -> bool:
    """Return whether an error means that a file's content was never read, so that it may be sound, or missing."""
    if isinstance(error, OSError):  # EINVAL: torch seeks to a place that a damaged file names
        return error.errno not in (None, errno.EINVAL)
    return isinstance(error, MemoryError) or (isinstance(error, FileError) and bool(error.found))


def remedy(error: Exception, anew: str) -> str:
    """Return advice on a file that could not be used: `anew`, unless it exists, was never read and may be sound."""
    if not unseen(error) or (isinstance(error, FileError) and error.missing):
        return anew
    if isinstance(error, MemoryError):
        return "close other programs and try again, as it may be sound"
    return "check its kind, owner, permissions and disk, as it may be sound"


def expanded(path: str | Path) -> Path:
    """Return a path with `~` and `~name` replaced by home folders; raises `FileError` for an unknown home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileError(
            f"Cannot use the path {path}: {error} Write the home folder in full, or ./{path} for a file of this name."
        ) from error


def write_atomic(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    With `durable` the bytes are on the disk when this returns, safe even from a power cut; that takes some
    milliseconds. Raises `RunError` if the folder cannot be written to or the disk is full; the old file is then
    untouched.
    """
    with written_whole(path, durable=durable) as file:
        file.write(content)


@contextmanager
def written_whole(path: Path, *, durable: bool = True) -> Iterator[BufferedWriter]:
    """Yield a file that becomes `path` when the block ends, and vanishes if it raises; else as `write_atomic`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise RunError(
            f"Cannot write {path}: {error.strerror or error}. Nothing was lost; free some space or choose "
            "a folder that you may write to."
        ) from error


def chosen(path: Path) -> Path:
    """Return the path of a file that a user wants written; raises `RunError` for no name, and for pipes and devices.

    A file that is written whole takes the place of what is there, which would be another for whoever reads it.
    """
    found = None if path.name else "no name"
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode  # noqa: PTH116 - Path.stat raises for some names
        found = found or (None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _STRANGER)
    if found is not None:
        raise RunError(f"Cannot write {path}: expected the name of a file, found {found}. Choose another.")
    return path


def make_folder(folder: Path, cannot: str, advice: str) -> None:
    """Make a folder, and those above it, unless it is there; raises `RunError`, in the words given, if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot {cannot}: {error.strerror or error}. {advice}") from error


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; raises `RunError` if another one has locked it. A killed process frees it.

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
