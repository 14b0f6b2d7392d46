"""Datasets in .npz files: damaged as bytes, as zips, as numpy's headers, as arrays, and made to burst."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.harness import Kind
from qvit.data.arrays import load_dataset, verify
from qvit.data.mapped import map_array
from qvit.data.npz import KEYS, read_headers
from qvit.data.source import MAP_ABOVE
from qvit.data.transfer import load_images
from qvit.errors import QvitError

Arrays = dict[str, Any]
SPLITS = ("train", "val", "test")
FLOATS, LABELS = ("<f2", "<f4", "<f8", ">f4"), ("|u1", "<i8", ">i4", "<f4", "|b1", "<u2")
NUMBERS = (0, 1, 2, 8, 9, 12, 14, 20, 45, 63, 64, 99, 127, 255, 0x800, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
NUMBERS += (1 << 40, (1 << 63) - 1, (1 << 64) - 1)
SIGNATURES = (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08")
# Where the fields of the local header, of a row of the directory and of the directory's end lie, and their lengths.
FIELDS = {
    b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\1\2": ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (42, 4)),
    b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}
TYPES = (
    "|O",
    "O8",
    "<U9",
    "|S0",
    "|V0",
    "<M8[ns]",
    "M8[9]",
    "<c16",
    "<f16",
    "<i9",
    "u1",
    "?",
    "<U99999999999",
    "e",
    "",
)
DESCRS = ("[('a', '<f4')]", "[]", "None", "1", "'\\x3cf4'", "'<f4', 'descr': '<f8'", "('<f4', (2, 2))")
SHAPES = (
    "(1e9,)",
    "(-1,)",
    "(True,)",
    "(7)",
    "7",
    "()",
    "(0,)",
    "(0, 9999999999999999)",
    "(3, 99999999999999999999, 5)",
    "(" + "9" * 5000 + ",)",
    "(4L, 4L)",
    "(2**63,)",
    "[4]",
    "(" + "1, " * 70 + ")",
    "(4294967296, 4294967296)",
    "(65536, 65536, 4294967296)",
)
TEXTS = (
    "",
    "{}",
    "(" * 3000,
    "-" * 3000 + "1",
    "{" * 300,
    "[" * 200 + "]" * 200,
    "'" * 500,
    "{'descr': '<f4', 'fortran_order': False}",
    "__import__('os').abort()",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': (4,)}",
    "\x00" * 60,
    "\\\n" * 100,
    " " * 60_000,
    "é" * 50,
)


def _valid(random: Random) -> bytes:
    return _saved(random, _arrays(random))


def _arrays(random: Random) -> Arrays:
    rng = np.random.default_rng(random.getrandbits(32))
    size, channels = random.choice((1, 4, 7, 12)), random.choice(((), (1,), (3,)))
    floating, classes = random.choice((None, None, *FLOATS)), random.choice((2, 5))
    kind, width = random.choice(LABELS), random.choice(((), (1,), (1,), (3,)))
    classes = 2 if width == (3,) or kind == "|b1" else classes
    arrays: Arrays = {}
    for split in SPLITS:
        count = random.randint(5, 12)
        images = rng.integers(0, 256, (count, size, size, *channels)).astype(np.uint8)
        labels = rng.integers(0, classes, (count, *width))
        labels[:2] = np.arange(2).reshape(2, *(1 for _ in width))  # two classes at least
        arrays[f"{split}_images"] = images if floating is None else (images / 255).astype(floating)
        arrays[f"{split}_labels"] = labels.astype(kind)
    if random.random() < 0.2:
        arrays["notes"] = rng.integers(0, 9, 3)
    order: Any = random.choice("CCCF")
    return {key: np.asarray(value, order=order) for key, value in arrays.items()}


def _saved(random: Random, arrays: Arrays) -> bytes:
    file = io.BytesIO()
    random.choice((np.savez, np.savez_compressed))(file, **arrays)
    return file.getvalue()


def _npy(array: Any, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version)
    return file.getvalue()


def _zipped(random: Random, members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def _mutate(random: Random, content: bytes) -> bytes:
    ways: tuple[tuple[int, Callable[[Random, bytes], bytes]], ...] = (
        (25, _bytes),
        (25, _fields),
        (12, _headers),
        (12, _wrong_arrays),
        (8, _built),
        (4, _deflated),
        (3, _lengthened),
        (1, _bomb),
    )
    (way,) = random.choices([way for _, way in ways], [weight for weight, _ in ways])
    content = way(random, content)
    return _bytes(random, content) if random.random() < 0.05 else content


def _bytes(random: Random, content: bytes) -> bytes:
    for _ in range(random.choice((1, 1, 2, 5))):
        place = random.randint(0, len(content))
        end = min(len(content), place + random.choice((0, 1, 1, 1, 4, 30, 1000)))
        kept = content[place:end]
        new = random.choice(
            (
                random.randbytes(len(kept)),
                bytes(byte ^ 1 << random.randrange(8) for byte in kept),
                random.randbytes(random.randint(0, 9)),
                random.choice(SIGNATURES),
                b"",
                content[: random.randint(0, 300)],
            )
        )
        content = content[:place] + new + content[end:]
    return random.choice((content,) * 12 + (content[: random.randint(0, len(content))], content * 2, b"x" + content))


def _fields(random: Random, content: bytes) -> bytes:
    """Overwrite fields of the zip's own records."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        signature = random.choice(tuple(FIELDS))
        places = [i for i in range(len(content)) if content.startswith(signature, i)]
        if not places:
            continue
        place, (field, length) = random.choice(places), random.choice(FIELDS[signature])
        most = (1 << 8 * length) - 1
        now = int.from_bytes(changed[place + field :][:length], "little")
        number = random.choice((*NUMBERS, now + 1, now - 1, now ^ 1 << random.randrange(8 * length), len(content)))
        changed[place + field : place + field + length] = (number & most).to_bytes(length, "little")
    return bytes(changed)


def _members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _headers(random: Random, content: bytes) -> bytes:
    """Write another numpy header before one array's values, in a sound zip."""
    members = _members(content)
    place = random.randrange(len(members))
    name, npy = members[place]
    (length,) = struct.unpack_from("<H", npy, 8)
    said, values = npy[10 : 10 + length].decode(), npy[10 + length :]
    before, _, after = said.partition("'descr': ")
    descr, _, rest = after.partition(", 'fortran_order': ")
    order, _, shape = rest.partition(", 'shape': ")
    shape = shape.rstrip()[:-1].rstrip(" ,")
    match random.randrange(6):
        case 0:
            descr = random.choice((*(repr(kind) for kind in TYPES), *DESCRS))
        case 1:
            shape = random.choice((*SHAPES, shape.replace(",", f", {random.choice(NUMBERS)},", 1)))
        case 2:
            order = random.choice(("True", "False", "1", "None", "'True'"))
        case 3:
            before = random.choice(("{'extra': 1, ", "{ \t", "{'shape': (1,), ", "dict(", "{**"))
    said = f"{before}'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    said = random.choice(TEXTS) if random.random() < 0.15 else said
    version = random.choice(((1, 0),) * 6 + ((2, 0), (3, 0), (0, 0), (9, 9)))
    text = said.encode("utf-8" if version == (3, 0) else "latin-1")
    count = random.choice((len(text),) * 9 + (0, len(text) + 1, 0xFFFF))
    header = b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", count)
    values = random.choice((values,) * 8 + (values[:-1], values + b"\0", b""))
    members[place] = name, random.choice((header,) * 9 + (header[: random.randint(0, 9)],)) + text + values
    return _zipped(random, members)


def _wrong_arrays(random: Random, _: bytes) -> bytes:
    """Save arrays, all sound, of which one is not what it should be."""
    arrays = _arrays(random)
    key = random.choice(list(arrays))
    array = arrays[key]
    numbers = (np.nan, -1, 255, 1e30, 2**62, -(2**63), np.inf, 0.5, 70_000)
    changed = (
        lambda: array[:0],
        lambda: array[1:],
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: np.float64(random.choice(numbers)),
        lambda: array.astype(random.choice(("<f4", "<i8", "<U3", "S2", "<c8", "?", "<f16", ">u8", "<u8"))),
        lambda: np.full(array.shape, random.choice(numbers)),
        lambda: np.where(np.arange(array.size).reshape(array.shape) == 3, random.choice(numbers), array),
        lambda: np.zeros((len(array), random.choice((0, 2, 200, 300_000 // max(1, len(array)))))),
        lambda: np.repeat(array, random.choice((2, 40)), axis=0),
    )
    with np.errstate(all="ignore"):
        arrays[key] = random.choice(changed)()
    if random.random() < 0.3:
        del arrays[random.choice(list(arrays))]
    if random.random() < 0.2:
        arrays["images"] = np.zeros((3, 4, 4), np.uint8)
    return _saved(random, arrays)


def _built(random: Random, content: bytes) -> bytes:
    """Build the zip in ways that numpy does not: methods, names, numbers of members, directories of other kinds."""
    members = _members(content)
    odd = ("../x.npy", "train_images.npy", "\x1b[2J", "a\nb", "é" * 300, "", "/", "x" * 60_000, "\ud7ff")
    match random.randrange(5):
        case 0:
            members.insert(random.randint(0, len(members)), (random.choice(odd), b"1"))
        case 1:
            members += [(f"{number}.npy", b"") for number in range(random.choice((100, 3000)))]
        case 2:
            members = [(name.removesuffix(".npy") if random.random() < 0.5 else name, npy) for name, npy in members]
    file = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = random.choice((b"", b"PK\5\6" * 9, b"c" * 60_000, b"PK\1\2"))
        for name, npy in members:
            info = zipfile.ZipInfo(name)
            info.extra = random.choice((b"",) * 9 + (struct.pack("<HH", 1, 8) + b"\xff" * 8, b"\1\0\xff\xff", b"\0"))
            archive.writestr(info, npy, random.choice(methods[: random.choice((2, 2, 2, 4))]))
    return file.getvalue()


def _raw(members: list[tuple[str, bytes, int, int]], *, long: bool = False) -> bytes:
    """Return a zip of members given as name, deflated bytes, size and checksum; `long` for zip64's way of saying so."""
    body, rows = b"", b""
    for name, packed, size, crc in members:
        extra = struct.pack("<HHQQQ", 1, 24, size, len(packed), len(body)) if long else b""
        sizes = (0xFFFFFFFF,) * 3 if long else (len(packed), size, len(body))
        common = struct.pack("<HHHIIIIHH", 45, 0, 8, 0, crc, *sizes[:2], len(name), len(extra))
        rows += b"PK\1\2\x2d\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, sizes[2]) + name.encode() + extra
        body += b"PK\3\4" + common[:-2] + b"\0\0" + name.encode() + packed
    end = struct.pack("<HHIIH", len(members), len(members), len(rows), len(body), 0)
    if long:
        record = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, len(members), len(members), len(rows), len(body))
        end = struct.pack("<HHIIH", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        place = len(body) + len(rows)
        rows += b"PK\6\6" + record + b"PK\6\7" + struct.pack("<IQI", 0, place, 1)
    return body + rows + b"PK\5\6\0\0\0\0" + end


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _deflated(random: Random, content: bytes) -> bytes:
    """Damage one member's deflated stream, its size or its checksum, in a sound zip."""
    members = [(name, _deflate(npy), len(npy), zlib.crc32(npy)) for name, npy in _members(content)]
    place = random.randrange(len(members))
    name, packed, size, crc = members[place]
    match random.randrange(6):
        case 0:
            packed = packed + random.choice((b"\0", packed, b"\3\0", random.randbytes(9)))
        case 1:
            packed = b"\0\0\0\xff\xff" * random.choice((1, 1000, 100_000)) + packed  # blocks of nothing
        case 2:
            packed = random.randbytes(len(packed))
        case 3:
            size = max(0, size + random.choice((-1, 1, 1000, 1 << 30, -size)))
        case 4:
            crc ^= 1
        case 5:
            packed = packed[: random.randint(0, len(packed))]
    members[place] = name, packed, size & 0xFFFFFFFF, crc
    return _raw(members)


def _lengthened(random: Random, content: bytes) -> bytes:
    """Say everything in zip64's fields, then change one number of 8 bytes."""
    members = [(name, _deflate(npy), len(npy), zlib.crc32(npy)) for name, npy in _members(content)]
    made = bytearray(_raw(members, long=True))
    if random.random() < 0.8:
        directory = made.index(b"PK\1\2")
        place = random.randint(directory, len(made) - 8)
        made[place : place + 8] = (random.choice(NUMBERS)).to_bytes(8, "little")
    return bytes(made)


@lru_cache(maxsize=64)
def _zeros(size: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 20) + b"\3\0"


@lru_cache(maxsize=64)
def _checksum(header: bytes, size: int) -> int:
    crc, block = zlib.crc32(header), bytes(1 << 20)
    for _ in range(size >> 20):
        crc = zlib.crc32(block, crc)
    return crc


def _bomb(random: Random, content: bytes) -> bytes:
    """Make one array, or all images, honest megabytes of nothing."""
    megabytes = random.choice((1, 1, 2, 8, 64))
    labels = random.random() < 0.4
    members = []
    for name, npy in _members(content):
        if name.removesuffix(".npy") not in KEYS or ("labels" in name) is not labels:
            members.append((name, _deflate(npy), len(npy), zlib.crc32(npy)))
            continue
        size, shape = (
            megabytes << 20,
            random.choice(((megabytes << 20,), (1, megabytes << 20), (megabytes << 20, 1, 1))),
        )
        if random.random() < 0.5:  # with just as many images or labels as before
            count = np.load(io.BytesIO(npy)).shape[0]
            size, shape = (count * megabytes) << 20, (count, 1024, megabytes << 10)
            shape = (count, megabytes << 20) if labels else shape
        header = _npy(np.zeros(0))[:8] + _header_of(shape)
        packed = b"\0" + struct.pack("<HH", len(header), len(header) ^ 0xFFFF) + header + _zeros(size)
        members.append((name, packed, len(header) + size, _checksum(header, size)))
    return _raw(members)


def _header_of(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()[8:]


def _attempt(content: bytes, folder: Path) -> None:
    """Load, verify, map and distil on a file; what one way finds sound the others must, and numpy reads the same."""
    path = folder / "own.npz"
    path.write_bytes(content)
    data = _or_refusal(lambda: load_dataset(path))
    report = _or_refusal(lambda: verify(path))
    mapped = _or_refusal(lambda: {key: map_array(path, one, folder) for key, one in read_headers(path).items()})
    if isinstance(data, QvitError):
        assert isinstance(report, QvitError)
        _or_refusal(lambda: load_images(path, size=4, channels=3))
        raise data
    assert not isinstance(report, QvitError)
    assert not isinstance(mapped, QvitError)
    small = sum(split.images.size for split in data.splits.values()) < MAP_ABOVE >> 6
    for name, split in data.splits.items():
        images, labels = split.batch(np.arange(len(split)))
        assert len(split[len(split) - 1][0]) == images.shape[1]
        _same(mapped[f"{name}_labels"].reshape(labels.shape), labels.numpy())
        if small and mapped[f"{name}_images"].dtype == np.uint8:
            _same(
                mapped[f"{name}_images"].reshape(len(split), *data.train.images.shape[2:], -1),
                images.permute(0, 2, 3, 1),
            )
    if small:
        for key, array in _by_numpy(path).items():
            _same(array, mapped[key])
    # Of two arrays it could mean, it takes neither.
    _or_refusal(lambda: load_images(path, size=data.size, channels=data.info.channels))


def _by_numpy(path: Path) -> Arrays:
    """Return the arrays as zipfile and numpy read them; nothing where these refuse a file that is harmless."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {key: np.load(io.BytesIO(archive.read(f"{key}.npy"))) for key in KEYS}
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        return {}


def _same(one: Any, other: Any) -> None:
    assert np.array_equal(one, other)


def _or_refusal(attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except QvitError as error:
        refusal = error
    assert "\n" not in str(refusal)
    return refusal


def _warm() -> None:
    _zeros(12 << 26)


KIND = Kind("npz", 100_000, _valid, _mutate, _attempt, _warm)
