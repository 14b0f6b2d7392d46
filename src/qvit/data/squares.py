"""Pictures of any shape as squares of bytes, by one stated rule."""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray
from PIL import Image

from qvit.data.pictures import Pixels
from qvit.data.squares_kernel import sum_bytes, sum_columns, sum_rows
from qvit.errors import ConfigError

Fit: TypeAlias = Literal["crop", "pad"]

_SIDES = {"crop": min, "pad": max}  # of height and width
_COLUMNS = 2**14  # of which sums are kept at once
_MOST = 2**32  # a sum of bytes, as they are added up


def to_square(pixels: Pixels, size: int, *, fit: Fit = "crop") -> UInt8[np.ndarray, "{size} {size} c"]:
    """Return a picture on the scale from 0 to 255 as size × size pixels.

    fit="crop" cuts the middle square out, as wide as the shorter side; "pad" adds black up to the longer side. If the
    pixels to cut off or add are odd in number, the extra one is at the far end (right, bottom).

    A larger square is then averaged over areas: each pixel of the result is the mean of what it covers, pixels at its
    border counted by the part that is covered. (Pillow's BOX counts these whole or not at all.) For bytes that mean
    is exact, so that every machine makes the same square. A smaller square is enlarged by bicubic interpolation (Keys,
    a = −0.5). Rounded once, at the end, half to even; clipped to 0 to 255.

    Raises `ConfigError` for a size below 1.
    """
    if size < 1:
        raise ConfigError(f"Expected a size of at least 1 pixel, got {size}.")
    height, width, _ = pixels.shape
    side = _SIDES[fit](height, width)
    down, across = (_Kept.of(length, side) for length in (height, width))
    make = _averaged if side >= size else _enlarged
    return np.rint(make(pixels, down, across, side, size)).clip(0, 255).astype(np.uint8)


class _Kept(NamedTuple):
    """Of one direction: where what is kept begins, how much it is, and how much black comes before it."""

    first: int
    length: int
    before: int

    @classmethod
    def of(cls, length: int, side: int) -> "_Kept":
        return cls(max(0, length - side) // 2, min(length, side), max(0, side - length) // 2)


def _averaged(
    pixels: Pixels, down: _Kept, across: _Kept, side: int, size: int
) -> Float64[np.ndarray, "{size} {size} c"]:
    """Return the means of size × size areas of the square.

    Areas are counted in units of 1/size pixel, so weights are whole numbers, and sums over bytes are exact.
    """
    channels = pixels.shape[2]
    exact = pixels.dtype == np.uint8 and 255 * side < _MOST
    few = 255 * (side // size + 1) < 2**16
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    total = np.zeros((size, size, channels))
    for begin in range(0, across.length, _COLUMNS):
        count = min(_COLUMNS, across.length - begin)
        sums = np.zeros((size, count * channels), np.uint32 if exact else np.float64)
        left = (across.first + begin) * channels
        where = down.first, down.length, left, count * channels, down.before, side, size
        if exact:
            sum_bytes(flat, *where, np.zeros(sums.shape, np.uint16 if few else np.uint32), sums)
        else:
            sum_rows(flat, *where, sums)
        sum_columns(sums, channels, across.before + begin, side, size, total)
    return total / side**2


def _enlarged(pixels: Pixels, down: _Kept, across: _Kept, side: int, size: int) -> NDArray[np.float32]:
    channels = pixels.shape[2]
    square = np.zeros((side, side, channels), np.float32)
    square[down.before : down.before + down.length, across.before : across.before + across.length] = pixels[
        down.first : down.first + down.length, across.first : across.first + across.length
    ]
    parts = [Image.fromarray(square[:, :, i]).resize((size, size), Image.Resampling.BICUBIC) for i in range(channels)]
    return np.stack([np.asarray(part) for part in parts], axis=2)
