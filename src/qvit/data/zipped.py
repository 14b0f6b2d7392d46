"""Read the members of a zip file within bounds: what the file says about itself is verified before it is used.

Python's `zipfile` trusts the file more: it seeks to any offset, reads any directory, and raises five kinds of errors.
Only what `numpy.savez` writes is read: members that are stored as they are or deflated, not encrypted, in one file that
begins with the first member and ends with the directory. Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from qvit.files import shown

STEP = 1 << 20  # bytes in memory at a time
INFLATED = 1032  # deflated data becomes at most this many times its size
MOST_DIRECTORY = 1 << 20  # bytes; that of six arrays takes a few hundred
_END, _END64, _END64_PLACE = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_ENTRY, _LOCAL = b"PK\1\2", b"PK\3\4"
_STORED, _DEFLATED = 0, 8
_UTF8 = 0x800
# Encrypted, a patch to another file, strongly encrypted, with a hidden directory.
_UNREADABLE = 0x1 | 0x20 | 0x40 | 0x2000
_SATURATED = 0xFFFF_FFFF  # stands in place of a number that is in the zip64 field


class NoZipError(Exception):
    """The file is not a zip file, or its directory is damaged."""


class DamageError(Exception):
    """A member is not what the directory says."""


@dataclass(frozen=True)
class Entry:
    """A member as the directory describes it: where its data begin, and their sizes in bytes, packed and unpacked."""

    name: str
    place: int
    packed: int
    size: int
    crc: int
    stored: bool


@dataclass(frozen=True)
class _Listed:
    """A row of the directory; `header` is where the member's own header begins."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int


class Archive:
    """An open zip file whose directory was read.

    `size` is the size of the file in bytes. Raises `NoZipError` if it has no valid directory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        count, length, self._start = _find_directory(file, self.size)
        if length > MOST_DIRECTORY:
            raise NoZipError(f"a directory of {length} bytes")
        self._rows: dict[str, _Listed] = {}
        for row in _rows(_exactly(file, self._start, length, NoZipError), count):
            name = _decoded(row)
            if name in self._rows:
                raise NoZipError(f"two members called {shown(name)}")
            self._rows[name] = row

    @property
    def names(self) -> list[str]:
        """The members' names, in the order of the directory."""
        return list(self._rows)

    def entry(self, name: str) -> Entry:
        """Return a listed member, compared with its own header; raises `DamageError` if it cannot be read."""
        row = self._rows[name]
        if row.flags & _UNREADABLE:
            raise DamageError("its members are encrypted or patches")
        if row.method not in (_STORED, _DEFLATED):
            raise DamageError(f"compression method {row.method}, which is neither 0, stored, nor 8, deflated")
        head = _exactly(self.file, row.header, 30, DamageError)
        named, extra = struct.unpack_from("<HH", head, 26)
        if head[:4] != _LOCAL or _exactly(self.file, row.header + 30, named, DamageError) != row.name:
            raise DamageError(f"no header of {shown(name)} where the directory says")
        place = row.header + 30 + named + extra
        stored = row.method == _STORED
        if place + row.packed > self._start:
            raise DamageError(f"{shown(name)} is said to extend beyond the file's end")
        if (row.size != row.packed) if stored else (row.size > INFLATED * row.packed):
            raise DamageError(f"{shown(name)} is said to unpack to {row.size} bytes from {row.packed}")
        return Entry(name, place, row.packed, row.size, row.crc, stored)


def unpacked(file: BinaryIO, entry: Entry, step: int = STEP) -> Iterator[bytes]:
    """Yield the contents of a member, at most `step` bytes at a time.

    Raises `DamageError` as soon as the contents differ from what the directory says, which is after the last piece if
    only the checksum differs.
    """
    crc, size = 0, 0
    for piece in _stored(file, entry, step) if entry.stored else _inflated(file, entry, step):
        size += len(piece)
        if size > entry.size:
            raise DamageError(f"more than the {entry.size} bytes that {shown(entry.name)} is said to have")
        crc = zlib.crc32(piece, crc)
        yield piece
    if size != entry.size:
        raise DamageError(f"{size} of the {entry.size} bytes that {shown(entry.name)} is said to have")
    if crc != entry.crc:
        raise DamageError(f"the checksum of {shown(entry.name)} is not the one that was written")


def _stored(file: BinaryIO, entry: Entry, step: int) -> Iterator[bytes]:
    for done in range(0, entry.packed, step):
        yield _exactly(file, entry.place + done, min(step, entry.packed - done), DamageError)


def _inflated(file: BinaryIO, entry: Entry, step: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, done = b"", 0
    while not inflater.eof:
        if not packed:
            packed = _exactly(file, entry.place + done, min(STEP >> 4, entry.packed - done), DamageError)
            done += len(packed)
        ended = not packed
        try:
            piece = inflater.decompress(packed, step)
        except zlib.error as error:
            raise DamageError(f"{shown(entry.name)} does not unpack: {error}") from error
        packed = inflater.unconsumed_tail
        if piece:
            yield piece
        elif ended and not inflater.eof:
            raise DamageError(f"the compressed {shown(entry.name)} breaks off")
    if packed or inflater.unused_data or done < entry.packed:
        raise DamageError(f"bytes after the end of the compressed {shown(entry.name)}")


def _exactly(file: BinaryIO, place: int, count: int, error: type[Exception]) -> bytes:
    """Return `count` bytes of a file; raises `error` if there are fewer, as when the file shrank meanwhile."""
    try:
        file.seek(place)
    except (OSError, OverflowError) as far:  # no file is that long
        raise error("the file ends too early") from far
    found = file.read(count)
    if len(found) < count:
        raise error("the file ends too early")
    return found


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return the directory's number of rows, its length in bytes, and where it begins."""
    begin = max(0, size - 22 - 0xFFFF)
    tail = _exactly(file, begin, size - begin, NoZipError)
    found = tail.rfind(_END)
    if found < 0 or len(tail) - found < 22:
        raise NoZipError("no end of a directory")
    count, length, start, comment = struct.unpack_from("<HIIH", tail, found + 10)
    if found + 22 + comment != len(tail):
        raise NoZipError("bytes after the end")
    end = begin + found
    if tail[max(0, found - 20) : found].startswith(_END64_PLACE):
        (end,) = struct.unpack_from("<Q", tail, found - 12)
        if end > size - 56:
            raise NoZipError("no end of a long directory")
        record = _exactly(file, end, 56, NoZipError)
        if record[:4] != _END64:
            raise NoZipError("no end of a long directory")
        count, length, start = struct.unpack_from("<QQQ", record, 32)
    if start + length != end:
        raise NoZipError("a directory that is not where the file says")
    return count, length, start


def _rows(data: bytes, count: int) -> Iterator[_Listed]:
    """Yield the rows of a directory, which must hold exactly `count`."""
    place = 0
    while place < len(data):
        if data[place : place + 4] != _ENTRY or len(data) - place < 46:
            raise NoZipError("a damaged directory")
        flags, method, crc, packed, size = struct.unpack_from("<HH4xIII", data, place + 8)
        named, extra, comment = struct.unpack_from("<HHH", data, place + 28)
        (header,) = struct.unpack_from("<I", data, place + 42)
        middle = place + 46 + named
        place = middle + extra + comment
        if place > len(data):
            raise NoZipError("a damaged directory")
        size, packed, header = _lengthened(data[middle : middle + extra], [size, packed, header])
        yield _Listed(data[middle - named : middle], flags, method, crc, packed, size, header)
        count -= 1
    if count:
        raise NoZipError("a directory with another number of members than the file says")


def _lengthened(extra: bytes, numbers: list[int]) -> list[int]:
    """Return the numbers, with each saturated one replaced by its 8-byte value in the zip64 field."""
    if _SATURATED not in numbers:
        return numbers
    fields: dict[int, bytes] = {}
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        fields.setdefault(kind, extra[4 : 4 + length])
        extra = extra[4 + length :]
    long = fields.get(1, b"")
    if len(long) < 8 * numbers.count(_SATURATED):
        return numbers  # by the format, the number then stands for itself
    values: Iterator[Any] = (value for (value,) in struct.iter_unpack("<Q", long[: len(long) & ~7]))
    return [next(values) if number == _SATURATED else number for number in numbers]


def _decoded(row: _Listed) -> str:
    if not row.flags & _UTF8:
        return row.name.decode("cp437")  # has a character for every byte
    try:
        return row.name.decode()
    except UnicodeDecodeError as error:
        raise NoZipError("a name that is not UTF-8") from error
