"""A small sound picture of each kind of file that is read, as bytes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.mgrid[:31, :37]
SMOOTH = np.stack([COLUMNS * 5, ROWS * 6, (ROWS + COLUMNS) * 3], axis=2).astype(np.uint8)
COLOUR = Image.fromarray(SMOOTH + RNG.integers(0, 20, SMOOTH.shape).astype(np.uint8))
GREY, BITS, PALETTE = COLOUR.convert("L"), COLOUR.convert("1"), COLOUR.quantize(64)
DEEP = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
WHOLE, FLOATS = Image.fromarray(np.asarray(DEEP).astype(np.int32)), Image.fromarray(np.asarray(GREY) / np.float32(255))
CLEAR = COLOUR.copy()
CLEAR.putalpha(GREY)
EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010F] = 6, "maker"


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.copy().save(out, kind, **options)
    return out.getvalue()


def dicom() -> dict[str, bytes]:
    try:
        import pydicom
    except ModuleNotFoundError:
        return {}
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd_jpeg.dcm", "rtdose.dcm"]
    return {name: path.read_bytes() for name in names if (path := folder / name).exists()}


SOUND = {
    "png": encoded(COLOUR, "PNG", exif=EXIF),
    "png, 16 bits": encoded(DEEP, "PNG"),
    "png, palette": encoded(PALETTE, "PNG", transparency=bytes(range(64))),
    "png, alpha": encoded(CLEAR, "PNG"),
    "png, 1 bit": encoded(BITS, "PNG"),
    "jpeg": encoded(COLOUR, "JPEG", exif=EXIF),
    "jpeg, progressive": encoded(GREY, "JPEG", progressive=True),
    "jpeg, CMYK": encoded(COLOUR.convert("CMYK"), "JPEG"),
    "tiff": encoded(COLOUR, "TIFF", exif=EXIF),
    "tiff, lzw": encoded(WHOLE, "TIFF", compression="tiff_lzw"),
    "tiff, deflate": encoded(COLOUR, "TIFF", compression="tiff_deflate"),
    "tiff, jpeg": encoded(COLOUR, "TIFF", compression="jpeg"),
    "tiff, fax": encoded(BITS, "TIFF", compression="group4"),
    "tiff, floats": encoded(FLOATS, "TIFF"),
    "tiff, palette": encoded(PALETTE, "TIFF"),
    "bmp": encoded(COLOUR, "BMP"),
    "bmp, palette": encoded(PALETTE, "BMP"),
    "gif": encoded(PALETTE, "GIF", transparency=3),
    "webp": encoded(CLEAR, "WEBP", exif=EXIF),
    "webp, lossless": encoded(COLOUR, "WEBP", lossless=True),
    **dicom(),
}
