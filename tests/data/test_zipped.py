"""Zips that no `zipfile` writes: numbers of 8 bytes, and members and directories that are not what is said of them."""

import io
import struct
import zlib

import pytest

from qvit.data.zipped import MOST_DIRECTORY, Archive, DamageError, NoZipError, unpacked

CONTENT = bytes(range(256)) * 20
SATURATED = b"\xff" * 4


def packed(content: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def field(kind: int, *numbers: int) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", kind, 8 * len(numbers), *numbers)


def zipped(data: bytes, *, size: int = len(CONTENT), numbers: bytes = b"", extra: bytes = b"") -> io.BytesIO:
    """A zip of one deflated member; `numbers` are what the directory says of its sizes and its place."""
    checksum = struct.pack("<I", zlib.crc32(CONTENT))
    local = b"PK\3\4" + struct.pack("<HHHHH4sIIHH", 20, 0, 8, 0, 0, checksum, len(data), size, 1, 0) + b"a" + data
    numbers = numbers or struct.pack("<III", len(data), size, 0)
    row = b"PK\1\2" + struct.pack("<HHHHHH4s8s", 20, 20, 0, 8, 0, 0, checksum, numbers[:8])
    row += struct.pack("<HHHHHI4s", 1, len(extra), 0, 0, 0, 0, numbers[8:]) + b"a" + extra
    return io.BytesIO(local + row + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(row), len(local), 0))


def read(file: io.BytesIO, step: int = 1000) -> bytes:
    pieces = list(unpacked(file, Archive(file).entry("a"), step))
    assert all(len(piece) <= step for piece in pieces)
    return b"".join(pieces)


def test_a_member_is_unpacked_piece_by_piece() -> None:
    assert read(zipped(packed(CONTENT))) == CONTENT


LENGTHS = (len(CONTENT), len(packed(CONTENT)), 0)  # as zip64 has them: unpacked, packed, place


@pytest.mark.parametrize("before", [b"", field(9, 1, 2, 3), struct.pack("<HH", 7, 1) + b"x"])
def test_numbers_of_eight_bytes_stand_in_a_field_of_their_own(before: bytes) -> None:
    said = {"all": (SATURATED * 3, LENGTHS), "place": (struct.pack("<II", LENGTHS[1], LENGTHS[0]) + SATURATED, (0,))}
    for numbers, lengths in said.values():
        extra = before + field(1, *lengths) + field(1, 4, 5, 6)  # the first one counts
        assert read(zipped(packed(CONTENT), numbers=numbers, extra=extra)) == CONTENT


@pytest.mark.parametrize(
    "extra", [b"", field(1, *LENGTHS[:2]), field(1, *LENGTHS)[:-1], b"\1\0\x18", field(2, *LENGTHS)]
)
def test_without_enough_of_them_a_number_is_what_it_says(extra: bytes) -> None:
    with pytest.raises(DamageError, match="the file ends too early"):  # there is no header at 0xffffffff
        read(zipped(packed(CONTENT), numbers=SATURATED * 3, extra=extra))


def test_a_place_that_no_file_has() -> None:
    with pytest.raises(DamageError, match="the file ends too early"):
        read(zipped(packed(CONTENT), numbers=SATURATED * 3, extra=field(1, *LENGTHS[:2], 1 << 63)))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (zipped(packed(CONTENT), size=len(CONTENT) - 1), "more than the 5119 bytes that a is said to have"),
        (zipped(packed(CONTENT), size=len(CONTENT) + 1), "5120 of the 5121 bytes that a is said to have"),
        (zipped(packed(CONTENT[:-1] + b"x")), "the checksum of a is not the one that was written"),
        (zipped(packed(CONTENT)[:-9]), "the compressed a breaks off"),
        (zipped(packed(CONTENT) + b"x"), "bytes after the end of the compressed a"),
        (zipped(b"\7" * 50), "a does not unpack: Error -3 while decompressing data: invalid block type"),
    ],
)
def test_a_member_that_is_not_what_is_said(file: io.BytesIO, said: str) -> None:
    with pytest.raises(DamageError) as told:
        read(file)
    assert str(told.value) == said


def test_a_directory_has_a_limit() -> None:
    assert MOST_DIRECTORY == 1 << 20
    rows = bytes(MOST_DIRECTORY + 1)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(rows), 0, 0)
    with pytest.raises(NoZipError, match="a directory of 1048577 bytes"):
        Archive(io.BytesIO(rows + end))
    with pytest.raises(NoZipError, match="a damaged directory"):
        Archive(io.BytesIO(rows[1:] + end[:12] + struct.pack("<IIH", len(rows) - 1, 0, 0)))


def test_another_number_of_members_than_is_said() -> None:
    content = zipped(packed(CONTENT)).getvalue()
    for count in (0, 2):
        changed = content[:-12] + struct.pack("<H", count) + content[-10:]
        with pytest.raises(NoZipError, match="a directory with another number of members than the file says"):
            Archive(io.BytesIO(changed))
