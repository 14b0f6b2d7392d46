"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from qvit.errors import RunError

PART = ".part"  # ends the names of files that are being written; one left behind by a crash is rubbish


def write_atomic(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    With `durable` the bytes are on the disk when this returns, safe even from a power cut; that takes some
    milliseconds. Raises `RunError` if the folder cannot be written to or the disk is full; the old file is then
    untouched.
    """
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"Cannot write {path}: {error.strerror or error}. Nothing was lost; free some space or choose "
            "a folder that you may write to."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
