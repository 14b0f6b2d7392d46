"""Read the arrays of an .npz file one by one: their headers first, their bytes only when needed, never pickles.

Every fault of a file raises `DataError` (see `reading`), and memory use is bounded by what the file really holds.
"""

import hashlib
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qvit.data.registry import SPLITS
from qvit.data.zipped import Archive, DamageError, Entry, NoZipError, unpacked
from qvit.errors import DataError, FileError
from qvit.files import expanded, open_regular, printable, shown

KEYS = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))
# Arrays that unpack to more than this many bytes, and to more than this many times the file, are no images.
UNPACKED = 16 << 20
RATIO = 200
_RUN = 8 << 20  # bytes of rows at a time
_HIGHEST = 0x10FFFF  # character of Unicode
_MOST_HEADER = 4096  # bytes; numpy writes 128
_LENGTHS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}  # of the header, by version of the format
# A field of numpy's header, a Python dictionary. Parsed by hand, as Python's own parser has too many ways to fail.
_FIELD = re.compile(
    r"""\s*(['"])(?P<key>descr|fortran_order|shape)\1\s*:\s*"""
    r"""(?:(['"])(?P<text>[^'"\\]{1,20})\3|(?P<flag>True|False)|\((?P<sizes>[\dL,\s]*)\))\s*(?:,|$)"""
)
_VALUES = {"descr": "text", "fortran_order": "flag", "shape": "sizes"}  # the group that holds each field's value
_TYPE = re.compile(r"[<>|=]?(?:\?|[biufcmMOSUV]\d{0,4}(?:\[\w{1,8}\])?)")


@dataclass(frozen=True)
class Header:
    """What is known of an array before it is read."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Member(Header):
    """One array of the file, as its header and the zip's directory describe it; sizes in bytes."""

    fortran: bool
    header_size: int
    entry: Entry

    @property
    def file(self) -> str:
        """The name inside the zip."""
        return f"{self.key}.npy"

    @property
    def size(self) -> int:
        """The size of header and values unpacked, in bytes."""
        return self.entry.size


def problem(path: Path, expected: str, found: str, advice: str) -> DataError:
    """Return the one-line error all checks raise: the file, what was expected, what was found, what to do."""
    return DataError(f"{path}: expected {expected}, found {' '.join(found.split())}. {advice}")


def given_path(path: str | Path) -> Path:
    """Return the path of a user's file, `~` expanded; raises `DataError` for a name that `printable` refuses."""
    return printable(expanded(path), raised=DataError)


def _open(path: Path) -> BufferedReader:
    try:
        return open_regular(path)
    except FileError as error:
        if error.missing:
            raise problem(path, "an .npz file", error.found, "Check the path for a typing error.") from error
        raise problem(path, "a readable file", error.found, "Check its kind, owner and permissions.") from error


@contextmanager
def reading(path: Path) -> Iterator[BufferedReader]:
    """Yield an open file; any fault of the file or of reading it becomes a DataError."""
    advice = "It is damaged or of another kind: save it again with numpy.savez, or copy it anew."
    with _open(path) as file:
        try:
            yield file
        except NoZipError as error:
            found = f"{os.fstat(file.fileno()).st_size} bytes that are not ({error})"
            raise problem(path, "an .npz file, which is a zip of arrays", found, advice) from error
        except DamageError as error:
            raise problem(path, "intact arrays", f"damage ({error})", advice) from error
        except OSError as error:
            raise problem(path, "a readable file", error.strerror or str(error), "Check the disk.") from error
        except MemoryError as error:
            raise problem(
                path, "memory for its arrays", "too little", "End other programs, or use fewer images."
            ) from error


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, read in pieces; raises DataError if it cannot be read."""
    with reading(path) as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def stamp_of(path: Path) -> tuple[int, ...]:
    """Return size, time and inode, which tell whether a file changed; raises DataError if it cannot be read."""
    with reading(path) as file:
        found = os.fstat(file.fileno())
        return found.st_size, found.st_mtime_ns, found.st_ino


def check_unchanged(path: Path, stamp: tuple[int, ...]) -> None:
    """Raise DataError if a file changed since `stamp_of`: its digest and its arrays may be of two versions."""
    if stamp_of(path) != stamp:
        advice = "Load it again once nothing writes to it any more."
        raise problem(path, "a file that stays as it is", "one that changed while it was read", advice)


def read_headers(path: Path) -> dict[str, Member]:
    """Return the six arrays of the file by key, without reading their values.

    Raises DataError if the file is not a zip, lacks an array, holds Python objects or fewer values than it says, or
    unpacks to more than images would.
    """
    with reading(path) as file:
        archive = Archive(file)
        missing = [key for key in KEYS if f"{key}.npy" not in archive.names]
        if missing:
            found = f"no {', '.join(missing)} (it holds {_listed(archive.names)})"
            raise problem(path, f"the arrays {', '.join(KEYS)}", found, "Save all six with numpy.savez.")
        members = {key: _read_header(path, archive, key) for key in KEYS}
        _check_unpacked(path, archive, members.values())
        return members


def find_header(path: Path, keys: Sequence[str]) -> Member:
    """Return the array that has one of these names, without reading its values; others are ignored.

    Raises DataError as `read_headers` does, and unless exactly one of the names is there.
    """
    with reading(path) as file:
        archive = Archive(file)
        found = [key for key in keys if f"{key}.npy" in archive.names]
        if not found:
            advice = f"Save them with numpy.savez(path, {keys[0]}=…)."
            held = f"neither (it holds {_listed(archive.names)})"
            raise problem(path, f"an array {' or '.join(keys)}", held, advice)
        if len(found) > 1:
            raise problem(path, f"one of {' and '.join(keys)}", "both", "Save the one you mean in a file of its own.")
        member = _read_header(path, archive, found[0])
        _check_unpacked(path, archive, [member])
        return member


def read_texts(path: Path, key: str, *, most: int, longest: int) -> list[str] | None:
    """Return an array of text `(n,)`, or a single text as a list of one; None if the file has no array of that name.

    Raises DataError for more than `most` texts, one of more than `longest` characters, and anything but text.
    """
    with reading(path) as file:
        archive = Archive(file)
        if f"{key}.npy" not in archive.names:
            return None
        member = _read_header(path, archive, key)
    advice = "Save an array of text, or leave it out."
    if member.dtype.kind != "U" or not member.dtype.itemsize or len(member.shape) > 1:
        raise problem(path, f"text in {key}", f"{member.dtype} {member.shape}", advice)
    if member.dtype.itemsize > 4 * longest or math.prod(member.shape) > most:
        raise problem(
            path, f"at most {most} texts of {longest} characters in {key}", f"{member.dtype} {member.shape}", advice
        )
    texts = read_array(path, member)
    codes = texts.reshape(-1).view(np.dtype(np.uint32).newbyteorder(texts.dtype.byteorder))
    if ((codes > _HIGHEST) | ((codes >= 0xD800) & (codes < 0xE000))).any():  # numpy would end in a SystemError
        raise problem(path, f"text in {key}", "numbers that are no characters", advice)
    return [str(text) for text in texts.reshape(-1)]


def _listed(names: list[str]) -> str:
    held = ", ".join(shown(name.removesuffix(".npy")) for name in names[:8]) or "nothing"
    return held + (", …" if len(names) > 8 else "")


def _read_header(path: Path, archive: Archive, key: str) -> Member:
    entry = archive.entry(f"{key}.npy")
    header, said = _header_text(archive.file, entry)
    shape, fortran, kind = _described(key, said)
    if "O" in kind:
        advice = "Save plain number arrays: pickles are never loaded, since they can run code."
        raise problem(path, f"numbers in {key}", "Python objects (a pickle)", advice)
    try:
        dtype: np.dtype[Any] = np.dtype(kind)
    except (TypeError, ValueError) as error:
        raise DamageError(f"{key} has the unknown type {kind!a}") from error
    expected = header + math.prod(shape) * dtype.itemsize
    if entry.size != expected:
        advice = "Save the file again with numpy.savez."
        raise problem(path, f"{expected} bytes in {key}", f"{entry.size}", advice)
    return Member(key, shape, dtype, fortran, header, entry)


def _header_text(file: BinaryIO, entry: Entry) -> tuple[int, str]:
    """Return how many bytes come before an array's values, and what numpy's header says of them."""
    most = 12 + _MOST_HEADER
    head = b""
    for piece in unpacked(file, entry, most):
        head += piece
        if len(head) >= most:
            break
    length = _LENGTHS.get((head[6], head[7])) if len(head) >= 12 and head.startswith(b"\x93NUMPY") else None
    if length is None:
        raise DamageError(f"{shown(entry.name)} begins with no magic string of numpy's")
    begin = 8 + struct.calcsize(length)
    (count,) = struct.unpack_from(length, head, 8)
    if count > _MOST_HEADER or begin + count > len(head):
        raise DamageError(f"{shown(entry.name)} has a header of {count} bytes")
    return begin + count, head[begin : begin + count].decode("latin-1")


def _described(key: str, said: str) -> tuple[tuple[int, ...], bool, str]:
    """Return shape, order (whether Fortran's) and type as numpy's header says them."""
    text = said.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise _no_header(key)
    fields: dict[str, str] = {}
    rest = text[1:-1].rstrip()
    while rest:
        field = _FIELD.match(rest)
        value = None if field is None else field[_VALUES[field["key"]]]
        if field is None or value is None or field["key"] in fields:
            raise _no_header(key)
        fields[field["key"]] = value
        rest = rest[field.end() :]
    if fields.keys() != _VALUES.keys() or not _TYPE.fullmatch(fields["descr"]):
        raise _no_header(key)
    return _sizes(key, fields["shape"]), fields["fortran_order"] == "True", fields["descr"]


def _sizes(key: str, said: str) -> tuple[int, ...]:
    sizes = [size.strip().removesuffix("L") for size in said.split(",")]  # Python 2 wrote L
    if sizes[-1] == "":
        sizes.pop()
    elif len(sizes) == 1:
        raise _no_header(key)  # a number, no tuple of one
    if len(sizes) > 32 or not all(re.fullmatch(r"[0-9]{1,18}", size) for size in sizes):
        raise _no_header(key)
    return tuple(map(int, sizes))


def _no_header(key: str) -> DamageError:
    return DamageError(f"{key} has no header of an array of numbers")


def _check_unpacked(path: Path, archive: Archive, members: Iterable[Member]) -> None:
    """Refuse, before unpacking, a small file that unpacks to a huge one; labels count at their size in memory."""
    total = sum(
        max(member.size, 8 * math.prod(member.shape[:1] if "images" in member.key else member.shape))
        for member in members
    )
    if total > max(UNPACKED, RATIO * archive.size):
        raise problem(
            path,
            f"arrays of at most {RATIO} times the size of their file",
            f"{archive.size} bytes that become {total}",
            "If that is what they are meant to hold, save them uncompressed, with numpy.savez.",
        )


def _values(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield an array's bytes without its header's; raises DamageError on reaching damage."""
    skipped = member.header_size
    for piece in unpacked(file, member.entry):
        yield piece[skipped:]
        skipped = max(0, skipped - len(piece))


def read_array(path: Path, member: Member) -> NDArray[Any]:
    """Return a whole array, its checksum compared with the zip's; raises DataError if they differ."""
    with reading(path) as file:
        raw = np.empty(member.size - member.header_size, np.uint8)
        done = 0
        for piece in _values(file, member):
            raw[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
    return raw.view(member.dtype).reshape(member.shape, order="F" if member.fortran else "C")


def read_rows(path: Path, member: Member) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the array in runs of rows, a few megabytes at a time, each run with the number of its first row.

    Raises DataError on reaching damage, which is after the last rows if only the checksum shows it.
    """
    if member.fortran:  # the file holds column after column, not row after row
        yield 0, read_array(path, member)
        return
    width = member.dtype.itemsize * math.prod(member.shape[1:])
    run = max(1, width) * max(1, _RUN // max(1, width))
    waiting, start = bytearray(), 0
    with reading(path) as file:
        for piece in _values(file, member):
            waiting += piece
            while len(waiting) >= run:
                yield start, _as_rows(waiting[:run], member)
                del waiting[:run]
                start += run // width
    if waiting:
        yield start, _as_rows(waiting, member)


def _as_rows(raw: bytearray, member: Member) -> NDArray[Any]:
    return np.frombuffer(raw, member.dtype).reshape(-1, *member.shape[1:])


def check_values(path: Path, member: Member) -> None:
    """Read an array through without keeping it; raises DataError if its checksum differs from the zip's."""
    with reading(path) as file:
        for _ in unpacked(file, member.entry):
            pass
