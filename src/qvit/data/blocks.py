"""Pictures on their way into a dataset: read and resized on all cores, and kept on the disk until all are read."""

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from qvit.data.options import ImportOptions
from qvit.data.pictures import PictureError, read_pictures
from qvit.data.squares import to_square
from qvit.files import PART

BLOCK_BYTES = 32 << 20  # of pixels in memory at a time, per thread

Progress = Callable[[int, int], None]  # files that are done, and all
Square = UInt8[np.ndarray, "s s c"]


@dataclass(frozen=True)
class Read:
    """What is known of one file once it was read: `why` it is bad, or how many images it gave, and their colours.

    `file` is its position, `colour` grey, rgb, or both for a colour picture of which all pixels are grey.
    """

    file: int
    why: str | None = None
    images: int = 0
    colour: str = "grey"
    group: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """The pictures of some files in a row."""

    path: Path
    reads: tuple[Read, ...]

    def pixels(self) -> UInt8[np.ndarray, "m s s 3"]:
        """Return the images in order, grey ones three times."""
        with np.load(self.path, allow_pickle=False) as content:
            found: NDArray[np.uint8] = content["pixels"]
        return found


def read_blocks(
    folder: Path,
    files: Sequence[str],
    kept: Path,
    *,
    size: int,
    options: ImportOptions,
    enough: int,
    progress: Progress | None = None,
) -> list[Block]:
    """Read the files below `folder` and return their blocks, which are written to the folder `kept`.

    Blocks that are there already are not read again. Reading ends early once more than `enough` files are bad.
    """
    count = max(8, min(512, BLOCK_BYTES // (3 * size * size)))
    read = partial(_block, folder, files, kept, size, options, count)
    blocks: list[Block] = []
    done = bad = 0
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="qvit-import") as pool:
        try:
            for block in pool.map(read, range(0, len(files), count)):
                blocks.append(block)
                done += len(block.reads)
                bad += sum(read.why is not None for read in block.reads)
                if progress is not None:
                    progress(done, len(files))
                if bad > enough:
                    break
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return blocks


def _block(
    folder: Path, files: Sequence[str], kept: Path, size: int, options: ImportOptions, count: int, start: int
) -> Block:
    path = kept / f"{start:09}.npz"
    found = _kept(path)
    if found is not None:
        return found
    pixels: list[UInt8[np.ndarray, "s s 3"]] = []
    reads: list[Read] = []
    for file in range(start, min(start + count, len(files))):
        images, read = _picture(folder / files[file], file, size, options)
        pixels += images
        reads.append(read)
    array = np.array(pixels, np.uint8).reshape(-1, size, size, 3)
    told = np.frombuffer(json.dumps([asdict(read) for read in reads]).encode(), np.uint8)
    part = path.with_name(f"{path.name}{PART}")
    with part.open("wb") as file_:
        np.savez(file_, pixels=array, reads=told)
    part.replace(path)
    return Block(path, tuple(reads))


def _kept(path: Path) -> Block | None:
    """Return a block that an interrupted import has left; None if there is none, or a damaged one."""
    damage = OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile
    with suppress(*damage), path.open("rb") as file, np.load(file) as content:
        content["pixels"]  # its checksum is compared
        rows = json.loads(content["reads"].tobytes())
        return Block(path, tuple(Read(**row | {"warnings": tuple(row["warnings"])}) for row in rows))
    return None


def _picture(path: Path, file: int, size: int, options: ImportOptions) -> tuple[list[UInt8[np.ndarray, "s s 3"]], Read]:
    try:
        pictures = read_pictures(path, frames=options.frames)
    except PictureError as error:
        return [], Read(file, why=str(error))
    squares = [to_square(picture.pixels, size, fit=options.fit) for picture in pictures]
    colours = {_colour(square) for square in squares}
    told = {warning for picture in pictures for warning in picture.warnings}
    colour = "rgb" if "rgb" in colours else "both" if "both" in colours else "grey"
    images = [np.broadcast_to(square, (size, size, 3)) for square in squares]
    return images, Read(file, None, len(images), colour, pictures[0].group, tuple(sorted(told)))


def _colour(square: Square) -> str:
    if square.shape[2] == 1:
        return "grey"
    return "both" if (square == square[:, :, :1]).all() else "rgb"
