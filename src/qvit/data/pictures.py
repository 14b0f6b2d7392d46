"""One file of an image as numbers on the scale from 0 to 255, whatever its format, mode and depth."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from qvit.errors import DataError, FileError, printable
from qvit.files import open_regular

Frames: TypeAlias = Literal["first", "all"]
Opened: TypeAlias = BufferedReader | BytesIO
Pixels: TypeAlias = UInt8[np.ndarray, "h w c"] | Float32[np.ndarray, "h w c"]

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", *DICOM_SUFFIXES)
LUMA = (299, 587, 114)  # weights of red, green and blue in grey, in thousandths: ITU-R BT.601
MOST_PIXELS = 100_000_000  # of one picture: 300 MB as bytes in colour

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")  # others run more code: EPS starts Ghostscript
_KNOWN = "a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM file"
_NO_PICTURES = (  # where, what, and which file begins so
    (4, b"ftyp", "a film, or a HEIC picture"),
    (0, b"%PDF", "a PDF file"),
    (0, b"PK\3\4", "a zip file"),
    (0, b"\x1f\x8b", "a file packed by gzip"),
    (0, b"\x93NUMPY", "a NumPy array"),
)
_OLD_DICOM = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # its first elements, where the signature is missing
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_STDERR = threading.Lock()
_STRIP = 2**22  # pixels copied at once
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


class PictureError(DataError):
    """One file that does not hold one sound picture. The message leaves the file's name to the caller."""


@dataclass(frozen=True)
class Picture:
    """A picture of h × w pixels in c = 1 (grey) or 3 (red, green, blue) channels, on the scale from 0 to 255.

    `pixels` are bytes, or float32 where the file has more than 8 bits. `group` is DICOM's PatientID, None if there is
    none; `highest` the highest value as it was stored, of a picture with 16 bits; `warnings` says what a user should
    know of this file.
    """

    pixels: Pixels
    group: str | None = None
    highest: int | None = None
    warnings: tuple[str, ...] = ()


def read_pictures(path: Path, *, frames: Frames = "first", bits: int = 16) -> list[Picture]:
    """Return the picture in a file; of a DICOM file the first frame, or with frames="all" each.

    The kind of file is told by its content, not by its name. One channel remains one: black and white, grey with and
    without alpha, 16 and 32 bits, floating point, and palettes of which only greys are used; all others become red,
    green and blue. Turned as its EXIF orientation says. What is transparent is laid over black. With 16 bits,
    2^`bits` − 1 becomes 255 (of colours with 16 bits, Pillow reads the upper 8). Whole numbers of 32 bits must lie in
    0 to 65535, floating-point numbers in 0 to 1, which becomes 255. Colour profiles are not applied. For DICOM see
    `read_dicom`.

    JPEGs are always decoded in full. Pillow's `draft` decodes them in down to a third of the time at a fraction of
    their size, but what it leaves is no average of areas: squares of 28 pixels change by up to 25 of 255 levels.

    Raises `PictureError` for files that cannot be read or hold no picture, for damaged and truncated ones, more than
    one frame (unless DICOM), sides of one pixel, and more than MOST_PIXELS, before these are decoded.
    """
    try:
        with open_regular(path) as file:
            return pictures_in(file, suffix=path.suffix.lower(), frames=frames, bits=bits)
    except FileError as error:
        advice = "Check its path." if error.missing else "Check its kind, owner and permissions."
        raise refusal("a file that can be read", error.found, advice) from error


def pictures_in(
    file: Opened, *, suffix: str = "", frames: Frames = "first", bits: int = 16, most: int = MOST_PIXELS
) -> list[Picture]:
    """Return the picture in an open file, or in bytes in memory, as `read_pictures` does; of at most `most` pixels."""
    try:
        with QUIET:
            return _read(file, suffix, frames, bits, most)
    except PictureError:
        raise
    except MemoryError as error:
        raise refusal("a picture that fits into memory", "a larger one", "Close other programs.") from error
    except Exception as error:  # a damaged file can make Pillow raise anything
        found = f"damage ({printable(str(error)[:100]).strip() or type(error).__name__})"
        raise refusal("a sound picture", found, "Get the file anew, or leave it out.") from error


def refusal(expected: str, found: str, advice: str) -> PictureError:
    """Return the error that all refusals of a file raise."""
    return PictureError(f"expected {expected}, found {found}. {advice}")


def check_sides(width: int, height: int, most: int) -> None:
    """Raise `PictureError` for a side of less than two pixels, and for more than `most` pixels."""
    if min(width, height) < 2:
        raise refusal("at least 2 x 2 pixels", f"{width} x {height}", "Leave it out.")
    if width * height > most:
        raise _too_large(f"{width} x {height}", most)


def grey_if_equal(pixels: Pixels) -> UInt8[np.ndarray, "h w _"] | Float32[np.ndarray, "h w _"]:
    """Return one channel of three if they are equal everywhere."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    return pixels[:, :, :1].copy() if np.array_equal(red, green) and np.array_equal(red, blue) else pixels


def luma(pixels: UInt8[np.ndarray, "*n 3"]) -> UInt8[np.ndarray, "*n"]:
    """Return the luma of colours, rounded; a grey picture stays what it is."""
    return ((pixels @ np.array(LUMA) + 500) // 1000).astype(np.uint8)


def _too_large(found: str, most: int) -> PictureError:
    return refusal(f"at most {most / 10**6:g} megapixels", found, "Scale it down, or cut it into tiles.")


class _Quiet:
    """Keeps back what the libraries say of damaged notes and unusual headers: it names no file, may quote patients.

    What matters is raised, or stands in a picture's own warnings. Warnings and loggers belong to the whole process, so
    threads that read at the same time share one silence, which ends with the last of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._restored = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers > 1:
                return
            self._restored.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for name in ("PIL", "pydicom"):
                logger = logging.getLogger(name)
                self._restored.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._restored.close()


QUIET = _Quiet()  # entering costs as much as reading a small picture, so that whoever reads many enters first


def _read(file: Opened, suffix: str, frames: Frames, bits: int, most: int) -> list[Picture]:
    start = file.read(132)
    file.seek(0)
    if start[128:] == b"DICM":
        return _read_dicom(file, frames, most)
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        kind = _kind(start)
        if kind is None and suffix in DICOM_SUFFIXES and start.startswith(_OLD_DICOM):
            return _read_dicom(file, frames, most)
        found = kind or "none of these"
        raise refusal(_KNOWN, found, "Convert it, or leave it out.") from None
    except Image.DecompressionBombError:
        raise _too_large("many more", most) from None
    with image:
        return [_decode(image, bits, most)]


def _kind(start: bytes) -> str | None:
    """Return what a file that is not read seems to be, by its first bytes; None if nothing is known."""
    if not start:
        return "an empty file"
    Image.init()
    for name, (_, accepts) in Image.OPEN.items():
        if accepts is not None and accepts(start[:16]) is True:
            damaged = ", damaged or of a kind that Pillow does not read"
            return f"the format {name}{damaged if name in _FORMATS else ''}"
    for offset, signature, kind in _NO_PICTURES:
        if start[offset:].startswith(signature):
            return kind
    text = start.decode(errors="ignore")  # the last character may be cut
    return "text" if len(text.encode()) > len(start) - 4 and all(c.isprintable() or c.isspace() for c in text) else None


def _read_dicom(file: Opened, frames: Frames, most: int) -> list[Picture]:
    try:
        from qvit.data.dicom import read_dicom
    except ModuleNotFoundError as error:
        advice = "Install it: pip install 'qvit[dicom]'."
        raise refusal("the package pydicom, to read a DICOM file", "none", advice) from error
    return read_dicom(file, frames=frames, most=most)


def _decode(image: ImageFile.ImageFile, bits: int, most: int) -> Picture:
    check_sides(*image.size, most)
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # cameras add previews to a JPEG
    if count != 1:
        raise refusal("one picture", f"{count} frames", "Save the one that is meant as a file of its own.")
    if image.format == "TIFF":
        _check_strips(image)
    with _muted() if image.format == "TIFF" else nullcontext():
        image.load()
    if _has_notes(image):
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _DEEP:
        return _of_integers(image, bits)
    return Picture(_of_floats(image) if image.mode == "F" else _of_bytes(image))


def _check_strips(image: ImageFile.ImageFile) -> None:
    """Raise `PictureError` if pixels are missing in a TIFF file, which Pillow would leave black."""
    places = {tile.extents for tile in image.tile if tile.extents is not None}  # of several bands, the same
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in places)
    if covered < image.width * image.height:
        raise refusal("a sound picture", "strips that do not cover it", "Get the file anew, or leave it out.")


@contextmanager
def _muted() -> Iterator[None]:
    """Keep libtiff from writing about damage to the standard error stream, which Pillow has no switch for."""
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # closed
            yield
            return
        try:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _has_notes(image: Image.Image) -> bool:
    try:
        return bool(image.getexif())
    except Exception:  # damaged, and no viewer could turn the picture
        return False


def _of_bytes(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    pixels = _array(_over_black(image), np.uint8)
    return grey_if_equal(pixels) if image.mode in ("P", "PA") else pixels


def _over_black(image: Image.Image) -> Image.Image:
    """Return the image in mode L or RGB."""
    if image.mode == "PA" or (image.mode in ("1", "L", "RGB", "P") and "transparency" in image.info):
        image = image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    if image.mode in ("LA", "RGBA"):
        opaque = image.convert(image.mode[:-1])
        return Image.composite(opaque, Image.new(opaque.mode, image.size), image.getchannel("A"))
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _of_integers(image: Image.Image, bits: int) -> Picture:
    values = _array(image, np.float32)
    low, high = float(values.min()), float(values.max())
    tags: Any = getattr(image, "tag_v2", {})
    told = tags.get(_BITS) == (12,)
    top = 4095 if told else 2**bits - 1
    if low < 0 or high > top:
        found = f"{low:.0f} to {high:.0f}"
        raise refusal(f"whole numbers from 0 to {top}", found, "Save the picture with 8 or 16 bits, or correct bits.")
    if "transparency" in image.info:  # one value means that nothing is there
        values[values == image.info["transparency"]] = 0
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        values = top - values
    values *= 255  # exact: below 2^24
    values /= top
    return Picture(values, highest=None if told else int(high))


def _of_floats(image: Image.Image) -> Float32[np.ndarray, "h w 1"]:
    values = _array(image, np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN neither
        found = f"{low:g} to {high:g}"
        raise refusal("floating-point numbers from 0 to 1", found, "Scale them, or save the picture with 16 bits.")
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0:
        values = 1 - values
    values *= 255
    return values


def _array(image: Image.Image, dtype: DTypeLike) -> NDArray[Any]:
    """Return the image as an array (h, w, c), copied in strips, since Pillow makes two more copies of each."""
    width, height = image.size
    if width * height <= _STRIP:
        copied = np.asarray if dtype == np.uint8 else np.array  # which may be changed
        return copied(image, dtype).reshape(height, width, -1)
    out = np.empty((height, width, len(image.getbands())), dtype)
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(top + step, height)))
        out[top : top + step] = np.asarray(strip).reshape(strip.height, width, -1)
    return out
