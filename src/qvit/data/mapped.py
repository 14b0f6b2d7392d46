"""Arrays that stay on the disk: unpacked once, mapped into memory, handed to other processes by their file's name."""

import errno
import mmap
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from qvit.data.npz import Member, problem, reading, stamp_of
from qvit.data.zipped import STEP, DamageError, unpacked
from qvit.errors import DataError, FileError
from qvit.files import open_regular


def map_array(path: Path, member: Member, cache: Path) -> NDArray[Any]:
    """Return a read-only memory map of an array, which then needs no memory of its own.

    A compressed array is first unpacked to `cache`, once. The unpacked file is compared with the size and
    checksum in the zip each time, and made again, with a warning, if it differs. An uncompressed one is
    mapped in place.

    Raises DataError if the array is damaged or cannot be unpacked there.
    """
    if member.entry.stored:
        with reading(path) as file:
            for _ in unpacked(file, member.entry):
                pass
            return _mapped(file, member, member.entry.place + member.header_size)
    target = cache / member.file
    if os.path.lexists(target) and not _is_intact(target, member):
        warnings.warn(f"{target} was damaged and has been unpacked again from {path}.", stacklevel=2)
        _unpack(path, member, target)
    elif not target.exists():
        _unpack(path, member, target)
    with reading(target) as file:
        return _mapped(file, member, member.header_size)


def _mapped(file: BufferedReader, member: Member, offset: int) -> NDArray[Any]:
    order: Literal["C", "F"] = "F" if member.fortran else "C"
    try:
        return np.memmap(file, member.dtype, mode="r", offset=offset, shape=member.shape, order=order)
    except ValueError as error:
        raise DamageError("the file shrank while it was read") from error


def _is_intact(target: Path, member: Member) -> bool:
    try:
        with open_regular(target) as file:
            if os.fstat(file.fileno()).st_size != member.size:
                return False
            crc = 0
            while chunk := file.read(STEP):
                crc = zlib.crc32(chunk, crc)
            return crc == member.entry.crc
    except (FileError, OSError):
        return False


def _unpack(path: Path, member: Member, target: Path) -> None:
    """Write the array beside its destination, then rename: a reader sees the whole file or none."""
    with _room(path, member, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(target.parent)
        if room.total and room.free < member.size:
            raise OSError(errno.ENOSPC, f"{room.free / 1e6:.0f} MB")
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".unpacking-")
    try:
        with os.fdopen(handle, "wb") as sink, reading(path) as source:
            for piece in unpacked(source, member.entry):
                with _room(path, member, target):
                    sink.write(piece)
                    sink.flush()
        with suppress(OSError):  # a file system without permissions
            shutil.copymode(path, name)  # readable by those who may read the original, and by nobody else
        with _room(path, member, target):
            Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _room(path: Path, member: Member, target: Path) -> Iterator[None]:
    """Turn errors of writing into a DataError, so that they are told apart from errors of reading."""
    try:
        yield
    except OSError as error:
        advice = "Free some space, or choose another folder with the environment variable QVIT_DATA."
        expected = f"room to unpack {member.size / 1e6:.0f} MB from {path}"
        raise problem(target.parent, expected, error.strerror or str(error), advice) from error


def check_whole(images: NDArray[Any]) -> None:
    """Raise DataError if the file behind mapped images became shorter: reading there would end the process.

    This looks at the file without locking it: a file that is shortened just afterwards is not noticed.
    """
    mapping = getattr(images, "_mmap", None)
    if mapping is not None and mapping.size() < _start(images) + len(mapping):
        name = getattr(images, "filename", None)
        raise DataError(f"{name}: expected the file that was loaded, found a shorter one. Load it again.")


def _start(images: Any) -> int:
    """Return where the mapping begins in its file: a map's `offset`, or the page before it."""
    return int(images.offset - images.offset % mmap.ALLOCATIONGRANULARITY)


@dataclass(frozen=True)
class View:
    """The part of a file that a map shows, so that another process can map it instead of being sent a copy."""

    file: str
    stamp: tuple[int, ...]
    start: int
    length: int
    place: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def view_of(images: NDArray[np.uint8]) -> View | NDArray[np.uint8]:
    """Return a description of mapped images, or a copy of images without a file."""
    mapping, file = getattr(images, "_mmap", None), getattr(images, "filename", None)
    if mapping is None or file is None:
        return np.array(images)
    check_whole(images)
    base = np.frombuffer(mapping, np.uint8)
    return View(
        file=os.fspath(file),
        stamp=stamp_of(Path(file)),
        start=_start(images),
        length=len(mapping),
        place=images.ctypes.data - base.ctypes.data,
        shape=images.shape,
        strides=images.strides,
    )


def map_view(view: View) -> NDArray[np.uint8]:
    """Map again what a view describes; raises DataError if the file is gone or was replaced."""
    path = Path(view.file)
    if stamp_of(path) != view.stamp:
        raise problem(path, "the file that was loaded", "another one in its place", "Load it again.")
    with reading(path) as file:
        base = np.memmap(file, np.uint8, mode="r", offset=view.start, shape=(view.length,))
    return as_strided(base[view.place :], view.shape, view.strides, subok=True, writeable=False)
