"""What a run needs of an image, and pictures and arrays made into just that, or refused by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from qvit.data.options import ImportOptions
from qvit.data.pictures import Opened, Pixels, luma, pictures_in, read_pictures
from qvit.data.registry import Task
from qvit.data.squares import to_square
from qvit.errors import DataError
from qvit.validate import validated

if TYPE_CHECKING:
    from qvit.training.folder import Run

Square = UInt8[np.ndarray, "k s s"]


@dataclass(frozen=True)
class Needs:
    """What a run needs of an image.

    `size` is the side in pixels, `channels` 1 (grey) or 3, `classes` are the names of classes, or labels, `symmetries`
    what predictions are averaged over, and `importing` how its own pictures became squares: pictures to predict become
    squares likewise.
    """

    size: int
    channels: int
    task: Task
    classes: tuple[str, ...]
    symmetries: str
    importing: ImportOptions

    @classmethod
    def of(cls, run: "Run") -> "Needs":
        """Return what a finished run needs; raises RunError for a run that is not finished, or damaged."""
        from qvit.training.folder import named_classes  # torch, which processes that read do not need

        symmetries = run.result.tta  # first, as its error says what to do about an unfinished run
        config, architecture = run.config, run.architecture
        return cls(
            config["size"],
            architecture.in_chans,
            config["task"],
            named_classes(run),
            symmetries,
            validated(ImportOptions, config.get("importing", {})),
        )

    def squares(self, path: Path) -> list[Square]:
        """Return the images in a file: one, or all frames of a DICOM file if the run took these.

        Raises DataError for a file that cannot be read, and for colours where grey is needed, and the reverse.
        """
        pictures = read_pictures(path, frames=self.importing.frames, bits=self.importing.bits)
        return [self.square(picture.pixels) for picture in pictures]

    def squares_in(self, file: Opened, *, most: int) -> list[Square]:
        """Return the images in an open file, or in bytes in memory, of at most `most` pixels; raises as `squares`."""
        pictures = pictures_in(file, frames=self.importing.frames, bits=self.importing.bits, most=most)
        return [self.square(picture.pixels) for picture in pictures]

    def square(self, pixels: Pixels) -> Square:
        """Return a picture (h, w, c) on the scale from 0 to 255 as a square; raises DataError for other channels."""
        square = to_square(pixels, self.size, fit=self.importing.fit)
        if square.shape[2] != self.channels:
            square = self._converted(square)
        return np.ascontiguousarray(square.transpose(2, 0, 1))

    def _converted(self, square: UInt8[np.ndarray, "s s c"]) -> UInt8[np.ndarray, "s s k"]:
        if self.channels == 3:
            if self.importing.channels != "rgb":
                raise _channels("a picture in colour", "a grey one", "the images that the model was trained on")
            return np.repeat(square, 3, axis=2)
        if self.importing.channels == "grey":
            return luma(square)[:, :, None]
        if (square == square[:, :, :1]).all():  # grey, saved as a picture in colour
            return square[:, :, :1]
        raise _channels("a grey picture", "one in colour", "the images that the model was trained on")

    def arrays(self, images: Any) -> list[Square]:
        """Return images given as an array, a tensor, a PIL image, or a sequence of these.

        Arrays are (h, w), (h, w, c), (n, h, w) or (n, h, w, c), as in MedMNIST's files; tensors of torch (c, h, w) or
        (n, c, h, w). They hold bytes, or floating-point numbers in [0, 1], which become bytes.
        Raises DataError for other shapes, types and ranges.
        """
        return [self.square(pixels) for pixels in _pictures(images)]


def _channels(expected: str, found: str, like: str) -> DataError:
    return DataError(f"expected {expected}, found {found}. Give pictures like {like}.")


def _pictures(images: Any) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        for image in images:
            yield from _pictures(image)
        return
    array, first = _array(images)
    if first:  # channels come first in tensors
        array = np.moveaxis(array, -3, -1) if array.ndim >= 3 else array
    elif array.ndim == 3 and array.shape[2] not in (1, 3):  # (n, h, w)
        array = array[..., None]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or min(array.shape[1:3], default=0) < 2:
        raise DataError(
            f"Expected images (h, w), (h, w, c), (n, h, w) or (n, h, w, c) with c of 1 or 3, or tensors (n, c, h, w), "
            f"got {tuple(np.shape(images))}. Move or leave out axes."
        )
    yield from _bytes(array)


def _array(images: Any) -> tuple[NDArray[Any], bool]:
    """Return an array and whether its channels come first."""
    if hasattr(images, "convert"):  # of PIL
        if images.mode not in ("L", "RGB"):
            raise DataError(f"Expected an image of PIL in mode L or RGB, got {images.mode}. Use image.convert('RGB').")
        return np.asarray(images), False
    try:
        if hasattr(images, "detach"):
            return images.detach().cpu().numpy(), True
        return np.asarray(images), False
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Expected images as arrays, got {type(images).__name__} that NumPy cannot take. Give bytes, or float32."
        ) from error


def _bytes(array: NDArray[Any]) -> UInt8[np.ndarray, "n h w c"]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iub":
        raise DataError(
            f"Expected bytes, or floating-point numbers in [0, 1], got {array.dtype}. Of 16 bits give "
            "array / 65535, of 12 bits array / 4095."
        )
    if array.dtype.kind != "f":
        raise DataError(f"Expected bytes, or floating-point numbers in [0, 1], got {array.dtype}.")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # NaN neither
        raise DataError(
            f"Expected floating-point numbers in [0, 1], got {low:g} to {high:g}. Images are given before any "
            "normalisation, as the model does that itself: as bytes, or divided by 255."
        )
    return np.rint(array * 255.0).astype(np.uint8)
