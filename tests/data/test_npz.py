"""Files that lie about themselves: one clear error each, at once, and no memory beyond what is there."""

import io
import os
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data import npz
from qvit.data import source as loading
from qvit.data.arrays import load_dataset, verify
from qvit.data.mapped import map_array
from qvit.data.npz import read_array, read_headers, read_rows
from qvit.errors import DataError

Arrays = dict[str, Any]
Save = Callable[..., Path]
KEYS = npz.KEYS


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def headed(header: str, values: bytes = b"", *, version: bytes = b"\1\0", count: int | None = None) -> bytes:
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header) if count is None else count)
    return b"\x93NUMPY" + version + length + header.encode("latin-1") + values


@pytest.fixture
def zipped(arrays: Arrays, tmp_path: Path) -> Callable[..., Path]:
    """A zip of the six arrays, with some of its members' bytes replaced."""

    def zipped(method: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
        path = tmp_path / "own.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for key, value in ({key: npy(value) for key, value in arrays.items()} | members).items():
                archive.writestr(zipfile.ZipInfo(f"{key}.npy"), value, method)
        return path

    return zipped


def refused(path: Path, message: str) -> None:
    for check in (load_dataset, verify):
        with pytest.raises(DataError, match=message) as caught:
            check(path)
        assert str(caught.value).startswith(f"{path}: expected ")
        assert "\n" not in str(caught.value)


# --- headers of arrays ---

SOUND = "{'descr': '|u1', 'fortran_order': False, 'shape': (7, 1), }"
HEADERS: dict[str, tuple[bytes, str]] = {
    "no Python": (headed("(" * 20), "val_labels has no header of an array of numbers"),
    "deep": (headed(SOUND.replace("7", "-" * 3000 + "7")), "has no header of an array"),
    "code": (headed("{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (7, 1)}"), "has no header"),
    "long": (headed(SOUND + " " * 5000), "val_labels.npy has a header of 5059 bytes"),
    "longer than the file": (headed(SOUND, count=4000), "has a header of 4000 bytes"),
    "of 4 GB": (headed(SOUND, version=b"\2\0", count=2**32 - 1), "has a header of 4294967295 bytes"),
    "another version": (headed(SOUND, bytes(7), version=b"\7\0"), "begins with no magic string"),
    "nothing": (b"", "begins with no magic string"),
    "cut": (npy(np.zeros(7, "u1"))[:9], "begins with no magic string"),
    "a key twice": (headed(SOUND.replace("}", "'shape': (7,)}"), bytes(7)), "has no header"),
    "a key too few": (headed("{'descr': '|u1', 'shape': (7, 1)}", bytes(7)), "has no header"),
    "no tuple": (headed(SOUND.replace("(7, 1)", "(7)"), bytes(7)), "has no header"),
    "negative": (headed(SOUND.replace("(7, 1)", "(-7, -1)"), bytes(7)), "has no header"),
    "astronomic": (headed(SOUND.replace("1)", "9" * 18 + ")")), r"expected \d{19} bytes in val_labels, found \d+"),
    "of digits": (headed(SOUND.replace("1)", "9" * 3000 + ")")), "has no header"),
    "a number for a flag": (headed(SOUND.replace("False", "0"), bytes(7)), "has no header"),
    "fields": (headed(SOUND.replace("'|u1'", "[('a', '|u1')]"), bytes(7)), "has no header"),
    "an unknown type": (headed(SOUND.replace("|u1", "<u3"), bytes(21)), "val_labels has the unknown type '<u3'"),
    "types of no size": (headed(SOUND.replace("|u1", "|V0")), r"found \|V0. Number the classes"),
    "a huge type": (headed(SOUND.replace("|u1", "<U99999999")), "has no header"),
    "objects": (headed(SOUND.replace("|u1", "|O"), bytes(7)), r"found Python objects \(a pickle\)"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_is_none(case: str, zipped: Callable[..., Path]) -> None:
    content, message = HEADERS[case]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refused(zipped(method, val_labels=content), message)


def test_headers_as_others_write_them(zipped: Callable[..., Path], arrays: Arrays) -> None:
    values = arrays["val_labels"].tobytes()
    for header in (
        SOUND,
        '{"descr":"|u1","fortran_order":False,"shape":(7,1)}',
        "{'shape': (7L, 1L), 'fortran_order': True, 'descr': 'u1'}   \n",
        "{'descr': '>u1', 'fortran_order': False, 'shape': (7,)}",
    ):
        for version in (b"\1\0", b"\2\0", b"\3\0"):
            path = zipped(val_labels=headed(header, values, version=version))
            assert np.array_equal(load_dataset(path).val.labels, arrays["val_labels"])


# --- zips ---


def change(path: Path, signature: bytes, field: int, value: bytes, *, last: bool = False) -> Path:
    content = bytearray(path.read_bytes())
    place = (content.rfind if last else content.find)(signature) + field
    content[place : place + len(value)] = value
    path.write_bytes(bytes(content))
    return path


ROW, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
ZIPS: dict[str, tuple[bytes, int, bytes, str]] = {
    "encrypted": (ROW, 8, b"\1\0", "its members are encrypted"),
    "another method": (ROW, 10, b"\x0c\0", "compression method 12, which is neither 0, stored, nor 8"),
    "a row elsewhere": (ROW, 42, b"\xff\xff\xff\x7f", "the file ends too early"),
    "a row of another": (ROW, 42, b"\1\0\0\0", "no header of train_images.npy where the directory says"),
    "another size": (ROW, 24, b"\0\0\0\x40", r"train_images.npy is said to unpack to 1073741824 bytes from \d+"),
    "a longer member": (ROW, 20, b"\0\0\0\x40\0\0\0\x40", "is said to extend beyond the file's end"),
    "another checksum": (ROW, 16, b"????", "the checksum of train_images.npy is not the one"),
    "another name": (LOCAL, 30, b"T", "no header of train_images.npy where the directory says"),
    "a name of Latin": (ROW, 8, b"\0\x08", "a name that is not UTF-8"),
    "a directory elsewhere": (
        END,
        16,
        b"\xff\xff\xff\xff",
        r"\d+ bytes that are not \(a directory that is not where the file says",
    ),
    "more members": (END, 10, b"\x09\0", "with another number of members than the file says"),
    "a longer comment": (END, 20, b"\x07\0", r"\d+ bytes that are not \(bytes after the end"),
    "a damaged row": (ROW, 28, b"\xff\xff", r"\d+ bytes that are not \(a damaged directory"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_a_zip_that_lies(case: str, zipped: Callable[..., Path]) -> None:
    signature, field, value, message = ZIPS[case]
    path = zipped(extra=b"1")
    if case == "a name of Latin":
        change(path, ROW, 46, b"\xe9")
    refused(change(path, signature, field, value), message)


def test_bytes_that_belong_to_nothing(zipped: Callable[..., Path]) -> None:
    path = zipped()
    whole = path.read_bytes()
    for content in (b"x" + whole, whole + b"x", whole[:-1], whole * 2):
        path.write_bytes(content)
        refused(path, "an .npz file, which is a zip of arrays, found")


def test_a_name_twice(zipped: Callable[..., Path]) -> None:
    path = zipped()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("val_labels.npy", npy(np.zeros(7, np.uint8)))
    refused(path, "two members called val_labels.npy")


def test_names_are_shown_as_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[2Jtwo\nlines", b"")
    refused(path, r"\(it holds '\\x1b\[2Jtwo\\nlines'\)")


def test_long_files_in_the_way_of_zip64(arrays: Arrays, save: Save) -> None:
    path = save(arrays)
    content = path.read_bytes()
    end = content.rfind(END)
    count, length, start = struct.unpack_from("<HII", content, end + 10)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    saturated = END + bytes(4) + b"\xff" * 12 + bytes(2)
    path.write_bytes(content[:end] + record + locator + saturated)
    assert np.array_equal(load_dataset(path).val.labels, arrays["val_labels"])
    for place in (0, 1 << 62, end + 1, start):
        path.write_bytes(content[:end] + record + struct.pack("<4sIQI", b"PK\6\7", 0, place, 1) + saturated)
        refused(path, "an .npz file, which is a zip of arrays, found")


# --- floods ---


@pytest.mark.parametrize("case", ["images", "columns", "pixels"])
def test_a_small_file_that_becomes_a_flood(case: str, arrays: Arrays, zipped: Callable[..., Path]) -> None:
    shape = {"images": (40_000, 28, 28), "columns": (23, 200_000), "pixels": (3_000_000, 1, 1)}[case]
    key = "train_labels" if case == "columns" else "train_images"
    path = zipped(zipfile.ZIP_DEFLATED, **{key: npy(np.zeros(shape, np.uint8))})
    tracemalloc.start()
    refused(path, r"arrays of at most 200 times .*, found \d+ bytes that become \d+\. If .* save them uncompressed")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_blank_images_are_taken_uncompressed(tmp_path: Path) -> None:
    shape = (2500, 48, 48, 3)  # 17 MB
    arrays = {f"{s}_labels": np.array([0, 1] * (1250 if s == "train" else 1)) for s in ("train", "val", "test")}
    arrays |= {
        f"{s}_images": np.zeros((len(arrays[f"{s}_labels"]), *shape[1:]), np.uint8) for s in ("train", "val", "test")
    }
    np.savez_compressed(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match=r"save them uncompressed, with numpy\.savez"):
        verify(tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", **arrays)
    assert verify(tmp_path / "own.npz")["splits"]["train"]["images"] == 2500


def test_too_little_memory_is_said(arrays: Arrays, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    path = save(arrays)
    monkeypatch.setattr(npz.np, "empty", fail)
    with pytest.raises(DataError, match="expected memory for its arrays, found too little"):
        load_dataset(path)


# --- deflated streams ---


@pytest.mark.parametrize("case", ["cut", "more", "another", "a byte after"])
def test_a_stream_that_is_not_what_is_said(case: str, arrays: Arrays, zipped: Callable[..., Path]) -> None:
    path = zipped(zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("test_images.npy")
    place = info.header_offset + 30 + len(info.filename)
    if case == "another":
        content[place + 500 : place + 900] = bytes(400)
    row = content.find(b"test_images.npy", content.find(ROW)) - 46
    sizes = {"cut": (-9, 0), "more": (0, -1), "a byte after": (1, 0), "another": (0, 0)}[case]
    for field, difference in zip((20, 24), sizes, strict=True):
        (now,) = struct.unpack_from("<I", content, row + field)
        struct.pack_into("<I", content, row + field, now + difference)
    path.write_bytes(bytes(content))
    said = "test_images, found" if case == "more" else "intact arrays, found damage"
    refused(path, said)


@pytest.mark.parametrize("compressed", [True, False])
def test_rows_and_arrays_are_the_same_in_pieces_of_any_size(
    compressed: bool, arrays: Arrays, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = read_headers(path := save(arrays, compressed=compressed))
    member = members["train_images"]
    for run in (1, 2353, 8 << 20):
        monkeypatch.setattr(npz, "_RUN", run)
        runs = list(read_rows(path, member))
        assert [start for start, _ in runs] == list(np.cumsum([0, *(len(rows) for _, rows in runs[:-1])]))
        assert np.array_equal(np.concatenate([rows for _, rows in runs]), arrays["train_images"])
    assert np.array_equal(read_array(path, member), arrays["train_images"])


# --- files that change ---


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_shrinks_after_its_headers_were_read(
    compressed: bool, arrays: Arrays, save: Save, tmp_path: Path
) -> None:
    members = read_headers(path := save(arrays, compressed=compressed))
    os.truncate(path, path.stat().st_size // 3)
    for read in (read_array, lambda *of: list(read_rows(*of)), lambda *of: map_array(*of, tmp_path / "cache")):
        with pytest.raises(DataError, match="intact arrays, found damage"):
            read(path, members["test_images"])
    assert not (tmp_path / "cache" / "test_images.npy").exists()


def test_a_file_that_is_written_while_it_is_read(arrays: Arrays, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of the old file, the digest of the new one."""
    path, honest = save(arrays), loading.read_labels
    times: list[int] = []

    def meanwhile(*given: Any) -> Any:
        labels = honest(*given)
        save({**arrays, "val_labels": arrays["val_labels"][::-1]})
        times.append(len(times))
        os.utime(path, (len(times), len(times)))
        return labels

    monkeypatch.setattr(loading, "read_labels", meanwhile)
    refused(path, "a file that stays as it is, found one that changed while it was read")


# --- labels ---


def test_bools_of_other_bytes(zipped: Callable[..., Path]) -> None:
    header = "{'descr': '|b1', 'fortran_order': False, 'shape': (7,), }"
    refused(
        zipped(val_labels=headed(header, b"\0\1\0\1\0\1\xc8")),
        "True and False in val_labels, bytes of 1 and 0, found 200",
    )
