"""Pictures of every mode and format against arrays worked out by hand."""

import io
import logging
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from qvit.data import pictures
from qvit.data.pictures import MOST_PIXELS, SUFFIXES, Picture, PictureError, read_pictures

H, W = 7, 11
RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (H, W, 4)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (H, W)).astype(np.uint16)
PALETTE = RNG.integers(0, 256, (256, 3)).astype(np.uint8)
GREYS = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
Pixels = np.ndarray[Any, Any]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write an image, or bytes, under a name."""

    def save(content: Image.Image | bytes, name: str = "own.png", **options: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)
        return path

    return save


def image(mode: str, array: Pixels) -> Image.Image:
    return Image.frombytes(mode, (array.shape[1], array.shape[0]), array.tobytes())


def paletted(palette: Pixels, indices: Pixels, mode: str = "P") -> Image.Image:
    made = image(mode, indices)
    made.putpalette(palette.tobytes())
    return made


def over_black(colours: Pixels, alpha: Pixels) -> Pixels:
    return np.rint(colours.astype(float) * alpha[:, :, None] / 255)


def pixels_of(path: Path) -> Pixels:
    (picture,) = read_pictures(path)
    assert (picture.group, picture.warnings) == (None, ())
    assert picture.pixels.dtype in (np.uint8, np.float32)
    return picture.pixels


GREY, COLOUR, ALPHA, INDEX = BYTES[:, :, 0], BYTES[:, :, :3], BYTES[:, :, 3], BYTES[:, :, 1]
FEW = INDEX % 4
SEE_THROUGH = bytes([0, 100, 200, 255])
CLEAR = np.frombuffer(SEE_THROUGH, np.uint8)[FEW]
KEY = tuple(int(value) for value in COLOUR[2, 3])
UNIT = RNG.random((H, W)).astype(np.float32)
CASES: dict[str, tuple[Image.Image, str, dict[str, Any], Pixels]] = {
    "black and white": (Image.fromarray(GREY > 99), "png", {}, (GREY > 99) * 255),
    "black and white, packed": (Image.fromarray(GREY > 99), "tif", {"compression": "group4"}, (GREY > 99) * 255),
    "grey": (image("L", GREY), "png", {}, GREY),
    "grey, BMP": (image("L", GREY), "bmp", {}, GREY),
    "grey, GIF": (image("L", GREY), "gif", {}, GREY),
    "grey and alpha": (image("LA", BYTES[:, :, 2:].copy()), "png", {}, over_black(BYTES[:, :, 2:3], ALPHA)),
    "grey with a clear value": (image("L", FEW), "png", {"transparency": 2}, np.where(FEW == 2, 0, FEW)),
    "16 bits": (image("I;16", DEEP), "png", {}, DEEP / 257),
    "16 bits, TIFF": (image("I;16", DEEP), "tif", {"compression": "tiff_lzw"}, DEEP / 257),
    "16 bits, other end first": (image("I;16B", DEEP.astype(">u2")), "tif", {}, DEEP / 257),
    "32 bits": (Image.fromarray(DEEP.astype(np.int32)), "tif", {}, DEEP / 257),
    "floating point": (Image.fromarray(UNIT), "tif", {}, UNIT * 255.0),
    "colour": (image("RGB", COLOUR.copy()), "png", {}, COLOUR),
    "colour, TIFF": (image("RGB", COLOUR.copy()), "tif", {"compression": "tiff_deflate"}, COLOUR),
    "colour, WebP": (image("RGB", COLOUR.copy()), "webp", {"lossless": True}, COLOUR),
    "colour, BMP": (image("RGB", COLOUR.copy()), "bmp", {}, COLOUR),
    "colour and alpha": (image("RGBA", BYTES), "png", {}, over_black(COLOUR, ALPHA)),
    "colour and alpha, TIFF": (image("RGBA", BYTES), "tif", {}, over_black(COLOUR, ALPHA)),
    "colour and padding": (image("RGBX", BYTES), "tif", {}, COLOUR),
    "a clear colour": (
        image("RGB", COLOUR.copy()),
        "png",
        {"transparency": KEY},
        np.where((COLOUR == KEY).all(axis=2, keepdims=True), 0, COLOUR),
    ),
    "palette": (paletted(PALETTE, INDEX), "png", {}, PALETTE[INDEX]),
    "palette, GIF": (paletted(PALETTE, INDEX), "gif", {}, PALETTE[INDEX]),
    "palette, BMP": (paletted(PALETTE, INDEX), "bmp", {}, PALETTE[INDEX]),
    "palette of greys": (paletted(GREYS, INDEX), "png", {}, 255 - INDEX),
    "palette, greys used": (paletted(np.vstack([GREYS[:4], PALETTE[4:]]), FEW), "png", {}, 255 - FEW),
    "palette, partly clear": (
        paletted(PALETTE[:4], FEW),
        "png",
        {"transparency": SEE_THROUGH},
        over_black(PALETTE[FEW], CLEAR),
    ),
    "palette and alpha": (
        paletted(PALETTE, BYTES[:, :, 2:].copy(), "PA"),
        "tif",
        {},
        over_black(PALETTE[BYTES[:, :, 2]], ALPHA),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_modes(case: str, save: Callable[..., Path]) -> None:
    made, suffix, options, expected = CASES[case]
    found = pixels_of(save(made, f"own.{suffix}", **options))
    expected = expected.reshape(H, W, -1)
    assert found.shape == expected.shape
    assert found.dtype == (np.float32 if made.mode[0] in "IF" else np.uint8)
    assert np.abs(found - expected.astype(float)).max() <= (0 if found.dtype == np.uint8 else 1e-4)


@pytest.mark.parametrize(
    ("mode", "stored", "shown"),
    [
        ("CMYK", [0, 0, 0, 0], [255, 255, 255]),
        ("CMYK", [255, 0, 0, 0], [0, 255, 255]),
        ("CMYK", [0, 0, 0, 255], [0, 0, 0]),
        ("YCbCr", [77, 128, 128], [77, 77, 77]),
        ("YCbCr", [76, 85, 255], [254, 0, 0]),
        ("LAB", [255, 128, 128], [255, 255, 255]),
        ("LAB", [0, 128, 128], [0, 0, 0]),
    ],
)
def test_other_colours_become_red_green_and_blue(
    mode: str, stored: list[int], shown: list[int], save: Callable[..., Path]
) -> None:
    if mode == "LAB" and not features.check("littlecms2"):
        pytest.skip("Pillow was built without colour management")
    made = image(mode, np.tile(np.array(stored, np.uint8), (H, W, 1)))
    if mode == "LAB":  # a and b are signed
        made = image(mode, np.tile(np.array([stored[0], 0, 0], np.uint8), (H, W, 1)))
    found = pixels_of(save(made, "own.tif"))
    assert found.shape == (H, W, 3)
    assert np.abs(found.astype(int) - shown).max() <= 1


def test_a_jpeg_of_one_channel_has_one(save: Callable[..., Path]) -> None:
    smooth = np.tile(np.arange(0, 220, 20, dtype=np.uint8), (H, 1))
    assert np.abs(pixels_of(save(image("L", smooth), "own.jpg", quality=100))[:, :, 0] - smooth.astype(int)).max() <= 3
    colour = np.stack([smooth, smooth[::-1], 200 - smooth // 2], axis=2)
    made = save(image("RGB", colour), "own.jpeg", quality=100, subsampling=0)
    assert np.abs(pixels_of(made) - colour.astype(int)).max() <= 4


def test_16_bits_with_a_clear_value(save: Callable[..., Path]) -> None:
    path = save(image("I;16", DEEP), "own.png", transparency=int(DEEP[1, 2]))
    assert np.allclose(pixels_of(path)[:, :, 0], np.where(DEEP[1, 2] == DEEP, 0, DEEP / 257), atol=1e-4)


def test_white_is_zero(save: Callable[..., Path]) -> None:
    """In TIFF files of old scanners. Pillow turns 8 bits itself, and writes none of these."""
    normal = struct.pack("<HHII", 262, 3, 1, 1)
    for mode, array, light in (("I;16", DEEP, 65535), ("F", UNIT, 1)):
        path = save(image(mode, array), "own.tif")
        content = path.read_bytes()
        assert content.count(normal) == 1
        path.write_bytes(content.replace(normal, struct.pack("<HHII", 262, 3, 1, 0)))
        assert np.allclose(pixels_of(path)[:, :, 0], (light - array.astype(float)) * 255 / light, atol=1e-4)


def test_12_bits(save: Callable[..., Path]) -> None:
    values = np.array([[0, 4095, 16, 2048], [1, 2, 3, 4000]])
    packed = b"".join(
        struct.pack(">I", (int(a) << 12 | int(b)) << 8)[:3] for row in values for a, b in row.reshape(-1, 2)
    )
    tags = [(256, 4), (257, 2), (258, 12), (259, 1), (262, 1), (273, 0), (277, 1), (278, 2), (279, len(packed))]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    entries = entries.replace(struct.pack("<HHII", 258, 4, 1, 12), struct.pack("<HHII", 258, 3, 1, 12))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    assert np.allclose(pixels_of(save(head + packed, "own.tif"))[:, :, 0], values * 255 / 4095)


TURNED: dict[int, Callable[[Pixels], Pixels]] = {  # from what should be seen to what a camera stored
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen),
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
}


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_are_turned_as_cameras_say(orientation: int, suffix: str, save: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TURNED[orientation](COLOUR))
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(pixels_of(save(image("RGB", stored), f"own.{suffix}", exif=exif, **options)), COLOUR)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM"])
def test_damaged_notes_are_no_damage_of_the_picture(exif: bytes, save: Callable[..., Path]) -> None:
    assert np.array_equal(pixels_of(save(image("RGB", COLOUR.copy()), "own.png", exif=exif)), COLOUR)


def test_the_content_counts_and_not_the_name(save: Callable[..., Path]) -> None:
    path = save(image("L", GREY), "own.png")
    for name in ("own.jpg", "own", "own.dcm"):
        assert np.array_equal(pixels_of(path.rename(path.with_name(name)))[:, :, 0], GREY)
        path = path.with_name(name)


def test_a_camera_s_preview_is_no_second_picture(save: Callable[..., Path]) -> None:
    grey, small = Image.new("RGB", (W, H), (80, 80, 80)), Image.new("RGB", (4, 4))
    path = save(grey, "own.jpg", format="MPO", save_all=True, append_images=[small])
    with Image.open(path) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    assert np.abs(pixels_of(path).astype(int) - 80).max() <= 1


def test_strips_make_no_difference(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_STRIP", 2 * W + 1)
    for case in ("16 bits", "colour", "grey", "black and white"):
        test_modes(case, save)


def test_suffixes_are_lower_case_and_dotted() -> None:
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm", ".dicom"} <= set(SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_a_picture_says_nothing_by_itself() -> None:
    assert (Picture(GREY[:, :, None]).group, Picture(GREY[:, :, None]).warnings) == (None, ())


# What is refused


def png(width: int, height: int) -> bytes:
    """The start of a PNG file, without its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT"


def encoded(made: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    made.save(out, kind, **options)
    return out.getvalue()


def film(kind: str, **options: Any) -> bytes:
    first, *others = [Image.new("L", (W, H), shade) for shade in (0, 90, 180)]
    return encoded(first, kind, save_all=True, append_images=others, **options)


KINDS = "expected a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM file, found "
CONVERT = ". Convert it, or leave it out."
ONE = "expected one picture, found 3 frames. Save the one that is meant as a file of its own."
FLOATS = "expected floating-point numbers from 0 to 1, found {}. Scale them, or save the picture with 16 bits."
WHOLE = "expected whole numbers from 0 to 65535, found {}. Save the picture with 8 or 16 bits, or correct bits."
LARGE = "expected at most 100 megapixels, found {}. Scale it down, or cut it into tiles."
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", f"{KINDS}an empty file{CONVERT}"),
    "text": (b"path,label\n", f"{KINDS}text{CONVERT}"),
    "long text": ("Größe".encode() * 99, f"{KINDS}text{CONVERT}"),
    "noise": (bytes(range(256)), f"{KINDS}none of these{CONVERT}"),
    "zip": (b"PK\3\4" + bytes(40), f"{KINDS}a zip file{CONVERT}"),
    "gzip": (b"\x1f\x8b" + bytes(40), f"{KINDS}a file packed by gzip{CONVERT}"),
    "PDF": (b"%PDF-1.7" + bytes(40), f"{KINDS}a PDF file{CONVERT}"),
    "NumPy": (b"\x93NUMPY" + bytes(40), f"{KINDS}a NumPy array{CONVERT}"),
    "film": (bytes(4) + b"ftypisom" + bytes(40), f"{KINDS}a film, or a HEIC picture{CONVERT}"),
    "another format": (encoded(image("L", GREY), "PPM"), f"{KINDS}the format PPM{CONVERT}"),
    "EPS": (encoded(image("L", GREY), "EPS"), f"{KINDS}the format EPS{CONVERT}"),
    "no header": (
        b"\x89PNG\r\n\x1a\n" + bytes(20),
        f"{KINDS}the format PNG, damaged or of a kind that Pillow does not read{CONVERT}",
    ),
    "GIF of three": (film("GIF"), ONE),
    "PNG of three": (film("PNG"), ONE),
    "TIFF of three": (film("TIFF"), ONE),
    "WebP of three": (film("WEBP"), ONE),
    "narrow": (png(1, 40), "expected at least 2 x 2 pixels, found 1 x 40. Leave it out."),
    "flat": (png(40, 1), "expected at least 2 x 2 pixels, found 40 x 1. Leave it out."),
    "large": (png(10_001, 10_000), LARGE.format("10001 x 10000")),
    "huge": (png(2**31 - 1, 2**31 - 1), LARGE.format("many more")),
    "beyond 16 bits": (encoded(Image.fromarray(np.int32([[0, 65536]] * 2)), "TIFF"), WHOLE.format("0 to 65536")),
    "below zero": (encoded(Image.fromarray(np.int32([[-3, 7]] * 2)), "TIFF"), WHOLE.format("-3 to 7")),
    "beyond one": (
        encoded(Image.fromarray(UNIT * 3 + 7), "TIFF"),
        FLOATS.format(f"{UNIT.min() * 3 + 7:g} to {UNIT.max() * 3 + 7:g}"),
    ),
    "negative": (encoded(Image.fromarray(np.float32([[0.5, -0.5]] * 2)), "TIFF"), FLOATS.format("-0.5 to 0.5")),
    "no number": (encoded(Image.fromarray(np.float32([[0.5, np.nan]] * 2)), "TIFF"), FLOATS.format("nan to nan")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, save: Callable[..., Path]) -> None:
    content, message = REFUSED[case]
    with pytest.raises(PictureError) as refusal:
        read_pictures(save(content, "own.png"))
    assert str(refusal.value) == message


def test_a_large_picture_is_decoded_without_a_word(save: Callable[..., Path]) -> None:
    """Pillow alone warns from 89 megapixels on, and raises an error of its own from 179."""
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < 9_900 * 10_000 < MOST_PIXELS
    with pytest.raises(PictureError, match=r"^expected a sound picture, found damage \("):
        read_pictures(save(png(9_900, 10_000)))


def test_truncated_files_are_refused(save: Callable[..., Path]) -> None:
    content = encoded(image("RGB", np.tile(COLOUR, (9, 9, 1))), "PNG")
    with pytest.raises(PictureError, match=r"^expected a sound picture, found damage \(.*\)\. Get the file anew, or"):
        read_pictures(save(content[:-30]))


def test_pillow_logs_nothing(save: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    path = save(image("RGB", COLOUR.copy()), "own.tif")
    samples, more = struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 3, 1, 999)
    assert path.read_bytes().count(samples) == 1
    path.write_bytes(path.read_bytes().replace(samples, more))
    with pytest.raises(OSError, match="cannot identify"), Image.open(path):
        pass
    assert [record.levelname for record in caplog.records if record.name.startswith("PIL")][-1] == "ERROR"
    caplog.clear()
    with pytest.raises(PictureError, match="found the format TIFF, damaged or of a kind"):
        read_pictures(path)
    assert caplog.records == []


def test_missing_strips_are_not_black(save: Callable[..., Path]) -> None:
    path = save(image("RGB", COLOUR.copy()), "own.tif")
    height, taller = struct.pack("<HHII", 257, 4, 1, H), struct.pack("<HHII", 257, 4, 1, H + 1)
    assert path.read_bytes().count(height) == 1
    path.write_bytes(path.read_bytes().replace(height, taller))
    with pytest.raises(PictureError, match=r"^expected a sound picture, found strips that do not cover it\. Get the"):
        read_pictures(path)


def test_libtiff_says_nothing(
    save: Callable[..., Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(encoded(image("RGB", np.tile(COLOUR, (9, 9, 1))), "TIFF", compression="tiff_deflate"))
    content[len(content) // 2] ^= 255
    path = save(bytes(content), "own.tif")
    with pytest.raises(PictureError):
        read_pictures(path)
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"

    def dup(descriptor: int) -> int:
        raise OSError("closed")

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", dup)
        with pytest.raises(PictureError):
            read_pictures(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, found, advice in (
        (tmp_path / "none.png", "nothing there", "Check its path."),
        (tmp_path, "a folder", "Check its kind, owner and permissions."),
    ):
        with pytest.raises(PictureError) as refusal:
            read_pictures(path)
        assert str(refusal.value) == f"expected a file that can be read, found {found}. {advice}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="a pipe or a device"):
        read_pictures(tmp_path / "pipe.png")


def test_too_little_memory_is_told(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: ImageFile.ImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(PictureError, match=r"^expected a picture that fits into memory, found a larger one\. Close"):
        read_pictures(save(encoded(image("L", GREY), "PNG")))


def test_without_pydicom(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "qvit.data.dicom", raising=False)
    with pytest.raises(PictureError) as refusal:
        read_pictures(save(bytes(128) + b"DICM" + bytes(40), "own.dcm"))
    expected = "expected the package pydicom, to read a DICOM file, found none. Install it: pip install 'qvit[dicom]'."
    assert str(refusal.value) == expected


def test_threads_that_read_at_once_leave_warnings_as_they_were(tmp_path: Path) -> None:
    """Filters belong to the process: if each thread restored what it found, silence could outlast all of them."""
    paths = []
    for number in range(40):
        paths.append(tmp_path / f"{number}.png")
        Image.new("L", (9, 9), number).save(paths[-1])
    filters, level = list(warnings.filters), logging.getLogger("PIL").level
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: read_pictures(path)[0].pixels.max(), paths * 5))
    assert found == list(range(40)) * 5
    assert list(warnings.filters) == filters
    assert logging.getLogger("PIL").level == level
