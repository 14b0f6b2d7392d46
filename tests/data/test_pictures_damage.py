"""Files of every kind, damaged at random: one line says so, or a picture comes out, and nothing else happens."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qvit.data.pictures import PictureError, read_pictures

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
MOST = max(map(len, SOUND.values()))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "own.dcm"


def outcome(path: Path) -> list[np.ndarray]:
    """Return the pixels, if there are any."""
    found, message = [], "expected "
    try:
        found = [picture.pixels for picture in read_pictures(path, frames="all")]
    except PictureError as error:
        message = str(error)
    assert message.startswith("expected ")
    assert message.isprintable()
    assert len(message) < 400
    for pixels in found:
        assert pixels.ndim == 3
        assert pixels.shape[2] in (1, 3)
        assert 0 <= pixels.min() <= pixels.max() <= 255
    return found


@pytest.mark.long
@pytest.mark.parametrize("kind", SOUND)
def test_truncated_files_are_refused_or_lack_nothing(kind: str, path: Path) -> None:
    content = SOUND[kind]
    path.write_bytes(content)
    whole = outcome(path)
    assert whole
    step = math.ceil(len(content) / 60)
    for length in {*range(0, len(content), step), *range(len(content) - 12, len(content))}:
        path.write_bytes(content[:length])
        left = outcome(path)
        assert not left or all(np.array_equal(*pair) for pair in zip(left, whole, strict=True)), length


PLACES = st.integers(0, MOST) | st.integers(0, 300)  # headers are more often hit


@pytest.mark.long
@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(SOUND)),
    st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=12),
    st.none() | st.tuples(PLACES, PLACES, st.integers(0, 60)),
)
def test_damage_is_refused_or_makes_a_picture(
    path: Path, kind: str, changes: list[tuple[int, int]], moved: tuple[int, int, int] | None
) -> None:
    content = bytearray(SOUND[kind])
    for place, value in changes:
        content[place % len(content)] = value
    if moved is not None:
        start, end, length = moved
        content[start : start + length] = content[end : end + length]
    path.write_bytes(content)
    outcome(path)
