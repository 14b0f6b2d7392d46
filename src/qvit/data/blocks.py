"""Pictures on their way into a dataset: read and resized on all processors, and kept on the disk until all are read."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import starmap
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from qvit.cpu.memory import reuse_memory
from qvit.data.options import ImportOptions
from qvit.data.pictures import QUIET, PictureError, read_pictures
from qvit.data.squares import to_square
from qvit.errors import RunError
from qvit.files import PART

BLOCK_FILES = 512
BLOCK_BYTES = 32 << 20  # of squares in memory at a time, per process
BLOCK_READ = 16 << 20  # of files that are read for one block, about half a second
ALONE = 48 << 20  # of files that one process has read by the time that others have started

Progress = Callable[[int, int], None]  # files that are done, and all
Stamp = tuple[int, int] | None  # size and time of a file, None for a missing one
Job = tuple[int, Sequence[str], Sequence[Stamp]]  # the position of the first file, files and their stamps
Square = UInt8[np.ndarray, "s s c"]


@dataclass(frozen=True)
class Read:
    """What is known of one file once it was read: `why` it is bad, or how many images it gave, and their colours.

    `file` is its position, `colour` grey, rgb, or both for a colour picture of which all pixels are grey, `highest` as
    in `Picture`.
    """

    file: int
    why: str | None = None
    images: int = 0
    colour: str = "grey"
    group: str | None = None
    highest: int | None = None
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
    stamps: Sequence[Stamp],
    kept: Path,
    *,
    size: int,
    options: ImportOptions,
    enough: int,
    progress: Progress | None = None,
) -> list[Block]:
    """Read the files below `folder` and return their blocks, which are written to the folder `kept`.

    Blocks that are there already, of the same files with the same `stamps`, are not read again. Many large files are
    read by as many processes as there are processors to use. Reading ends early once more than `enough` files are bad.

    Raises RunError if one of these processes is ended from outside.
    """
    read = partial(_block, folder, kept, size, options)
    lengths = [0 if stamp is None else stamp[0] for stamp in stamps]
    spans = _spans(lengths, max(8, min(BLOCK_FILES, BLOCK_BYTES // (3 * size * size))))
    jobs = [(span.start, files[span.start : span.stop], stamps[span.start : span.stop]) for span in spans]
    blocks: list[Block] = []
    done = bad = 0
    for block in _in_processes(read, jobs) if sum(lengths) > ALONE else starmap(read, jobs):
        blocks.append(block)
        done += len(block.reads)
        bad += sum(read.why is not None for read in block.reads)
        if progress is not None:
            progress(done, len(files))
        if bad > enough:
            break
    return blocks


def _spans(lengths: Sequence[int], most: int) -> Iterator[range]:
    """Yield the positions of the files of each block: at most `most` of them, and few if they are large."""
    start = held = 0
    for file, length in enumerate(lengths):
        if file - start == most or (held and held + length > BLOCK_READ):
            yield range(start, file)
            start, held = file, 0
        held += length
    if start < len(lengths):
        yield range(start, len(lengths))


def _in_processes(read: Callable[..., Block], jobs: Sequence[Job]) -> Iterator[Block]:
    """Yield what `read` returns for each job, in order.

    Threads would wait for one another, as much of Pillow runs Python. These processes, other than those of
    `multiprocessing`, start from a script without a main guard, too.
    """
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=-1, backend="loky", batch_size=1, return_as="generator", idle_worker_timeout=10)
    try:
        yield from parallel(delayed(read)(*job) for job in jobs)
    except BrokenProcessPool as error:
        raise RunError(
            "A process that reads pictures was ended, perhaps for want of memory. Run it again: it goes on."
        ) from error


def _block(
    folder: Path,
    kept: Path,
    size: int,
    options: ImportOptions,
    start: int,
    files: Sequence[str],
    stamps: Sequence[Stamp],
) -> Block:
    name = hashlib.blake2b(json.dumps([files, stamps]).encode(), digest_size=12).hexdigest()
    path = kept / f"{name}.npz"
    found = _kept(path, start)
    if found is not None:
        return found
    reuse_memory()
    pixels: list[UInt8[np.ndarray, "s s 3"]] = []
    reads: list[Read] = []
    with QUIET:
        for place, file in enumerate(files, start):
            images, read = _picture(folder / file, place, size, options)
            pixels += images
            reads.append(read)
    array = np.array(pixels, np.uint8).reshape(-1, size, size, 3)
    rows = [asdict(replace(read, file=read.file - start)) for read in reads]
    part = path.with_name(f"{path.name}{PART}")
    with part.open("wb") as file_:
        np.savez(file_, pixels=array, reads=np.frombuffer(json.dumps(rows).encode(), np.uint8))
    part.replace(path)
    return Block(path, tuple(reads))


def _kept(path: Path, start: int) -> Block | None:
    """Return a block that an interrupted import has left; None if there is none, or a damaged one."""
    damage = OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile
    with suppress(*damage), path.open("rb") as file, np.load(file) as content:
        content["pixels"]  # its checksum is compared
        rows = json.loads(content["reads"].tobytes())
        told = ({"file": row["file"] + start, "warnings": tuple(row["warnings"])} for row in rows)
        return Block(path, tuple(Read(**row | more) for row, more in zip(rows, told, strict=True)))
    return None


def _picture(path: Path, file: int, size: int, options: ImportOptions) -> tuple[list[UInt8[np.ndarray, "s s 3"]], Read]:
    try:
        pictures = read_pictures(path, frames=options.frames, bits=options.bits)
    except PictureError as error:
        return [], Read(file, why=str(error))
    squares = [to_square(picture.pixels, size, fit=options.fit) for picture in pictures]
    colours = {_colour(square) for square in squares}
    images = [np.broadcast_to(square, (size, size, 3)) for square in squares]
    return images, Read(
        file,
        images=len(images),
        colour="rgb" if "rgb" in colours else "both" if "both" in colours else "grey",
        group=pictures[0].group,
        highest=max((picture.highest for picture in pictures if picture.highest is not None), default=None),
        warnings=tuple(sorted({warning for picture in pictures for warning in picture.warnings})),
    )


def _colour(square: Square) -> str:
    if square.shape[2] == 1:
        return "grey"
    return "both" if (square == square[:, :, :1]).all() else "rgb"
