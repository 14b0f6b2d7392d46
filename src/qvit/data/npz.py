"""The arrays of an .npz file one by one: their headers first, their bytes only when needed, never pickles."""

import hashlib
import math
import os
import shutil
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvit.data.registry import SPLITS
from qvit.errors import DataError

KEYS = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))
_CHUNK = 1 << 20
# What zipfile, zlib and numpy raise on bytes that are not what they should be; OSErrors are kept apart.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, KeyError)


@dataclass(frozen=True)
class Member:
    """One array of the file, as its header and the zip's directory describe it; sizes in bytes."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    header: int
    size: int  # header and values, unpacked
    crc: int
    stored: bool

    @property
    def file(self) -> str:
        """Name inside the zip."""
        return f"{self.key}.npy"


def problem(path: Path, expected: str, found: str, advice: str) -> DataError:
    """Return the one-line error all checks raise: the file, what was expected, what came, what to do."""
    return DataError(f"{path}: expected {expected}, found {' '.join(found.split())}. {advice}")


def check_readable(path: Path) -> None:
    """Raise DataError unless the path is a file that can be opened."""
    try:
        with path.open("rb"):
            return
    except FileNotFoundError as error:
        raise problem(path, "an .npz file", "nothing there", "Check the path for a typing error.") from error
    except OSError as error:
        if path.is_dir():
            raise problem(path, "an .npz file", "a folder", "Give the path of the file itself.") from error
        reason = error.strerror or str(error)
        raise problem(path, "a readable file", reason, "Check its owner and permissions.") from error


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    """An open zip, whose damage is reported as a DataError."""
    advice = "It is damaged or of another kind: save it again with numpy.savez, or copy it anew."
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        found = f"{path.stat().st_size} bytes that are not ({error})"
        raise problem(path, "an .npz file, which is a zip of arrays", found, advice) from error
    with archive:
        try:
            yield archive
        except _DAMAGE as error:
            raise problem(path, "intact arrays", f"damage ({error})", advice) from error


def read_headers(path: Path) -> dict[str, Member]:
    """Return the six arrays of the file by key, without reading their values.

    Raises DataError if the file is not a zip, lacks an array, or holds Python objects or fewer values than it
    says.
    """
    with _reading(path) as archive:
        names = archive.namelist()
        missing = [key for key in KEYS if f"{key}.npy" not in names]
        if missing:
            found = f"no {', '.join(missing)} (it holds {_listed(names)})"
            raise problem(path, f"the arrays {', '.join(KEYS)}", found, "Save all six with numpy.savez.")
        return {key: _read_header(path, archive, key) for key in KEYS}


def find_header(path: Path, keys: Sequence[str]) -> Member:
    """Return the array that has one of these names, without reading its values; others are ignored.

    Raises DataError as `read_headers` does, and unless exactly one of the names is there.
    """
    with _reading(path) as archive:
        names = archive.namelist()
        found = [key for key in keys if f"{key}.npy" in names]
        if not found:
            advice = f"Save them with numpy.savez(path, {keys[0]}=…)."
            raise problem(path, f"an array {' or '.join(keys)}", f"neither (it holds {_listed(names)})", advice)
        if len(found) > 1:
            raise problem(path, f"one of {' and '.join(keys)}", "both", "Save the one that is meant in a file alone.")
        return _read_header(path, archive, found[0])


def _listed(names: list[str]) -> str:
    held = ", ".join(name.removesuffix(".npy") for name in names[:8]) or "nothing"
    return held + (", …" if len(names) > 8 else "")


def _read_header(path: Path, archive: zipfile.ZipFile, key: str) -> Member:
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        header = stream.tell()
    if dtype.hasobject:
        advice = "Save plain number arrays: pickles are never loaded, since they can run code."
        raise problem(path, f"numbers in {key}", "Python objects (a pickle)", advice)
    expected = header + math.prod(shape) * dtype.itemsize
    if info.file_size != expected:
        advice = "Save the file again with numpy.savez."
        raise problem(path, f"{expected} bytes in {key}", f"{info.file_size}", advice)
    stored = info.compress_type == zipfile.ZIP_STORED
    return Member(key, shape, dtype, fortran, header, info.file_size, info.CRC, stored)


def read_array(path: Path, member: Member) -> NDArray[Any]:
    """Return a whole array, its checksum compared with the zip's; raises DataError if they differ."""
    with _reading(path) as archive, archive.open(member.file) as stream:
        # zipfile compares the checksum on reaching the end, which this does.
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def read_rows(path: Path, member: Member) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the array in runs of rows, each with the number of its first, a few megabytes at a time.

    Raises DataError on reaching damage, which is at the last rows if only the checksum tells.
    """
    if member.fortran:  # columns come first in the file: there are no rows to run through
        yield 0, read_array(path, member)
        return
    width = member.dtype.itemsize * math.prod(member.shape[1:])
    step = max(1, 8 * _CHUNK // max(1, width))
    with _reading(path) as archive, archive.open(member.file) as stream:
        stream.read(member.header)
        for start in range(0, member.shape[0], step):
            rows = min(step, member.shape[0] - start)
            values = np.frombuffer(stream.read(rows * width), member.dtype)
            yield start, values.reshape(rows, *member.shape[1:])


def check_values(path: Path, member: Member) -> None:
    """Read an array through without keeping it; raises DataError if its checksum differs from the zip's."""
    with _reading(path) as archive, archive.open(member.file) as stream:
        while stream.read(_CHUNK):
            pass


def map_array(path: Path, member: Member, cache: Path) -> NDArray[Any]:
    """Return a read-only memory map of an array, which then needs no memory of its own.

    A compressed array is first unpacked to `cache`, once. The unpacked file is compared with the size and
    checksum in the zip each time, and made again, with a warning, if it differs. An uncompressed one is
    mapped in place.

    Raises DataError if the array is damaged or cannot be unpacked there.
    """
    if member.stored:
        check_values(path, member)
        return np.memmap(
            path,
            member.dtype,
            mode="r",
            offset=_offset(path, member),
            shape=member.shape,
            order="F" if member.fortran else "C",
        )
    target = cache / member.file
    if target.exists() and not _is_intact(target, member):
        warnings.warn(f"{target} was damaged and has been unpacked again from {path}.", stacklevel=2)
        _unpack(path, member, target)
    elif not target.exists():
        _unpack(path, member, target)
    mapped: NDArray[Any] = np.load(target, mmap_mode="r", allow_pickle=False)
    return mapped


def _offset(path: Path, member: Member) -> int:
    """Where an uncompressed array's values begin in the file: after the zip's local header and numpy's."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(member.file).header_offset
    with path.open("rb") as stream:
        stream.seek(start + 26)
        name, extra = struct.unpack("<HH", stream.read(4))
    return int(start + 30 + name + extra + member.header)


def _is_intact(target: Path, member: Member) -> bool:
    if target.stat().st_size != member.size:
        return False
    crc = 0
    with target.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == member.crc


def _unpack(path: Path, member: Member, target: Path) -> None:
    """Write the array beside its destination, then rename: a reader sees the whole file or none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".unpacking-")
        try:
            with (
                os.fdopen(handle, "wb") as sink,
                _reading(path) as archive,
                archive.open(member.file) as source,
            ):
                shutil.copyfileobj(source, sink, _CHUNK)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "Free some space, or choose another folder with the environment variable QVIT_DATA."
        raise problem(
            target.parent, f"room to unpack {member.size / 1e6:.0f} MB from {path}", reason, advice
        ) from error
