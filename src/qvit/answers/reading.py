"""Files of pictures as squares, block after block: in bounded memory, on all processors, broken ones told of."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from qvit.answers.needs import Needs, Square
from qvit.answers.spread import ALONE, LISTS, File, Part, weight
from qvit.cpu.memory import reuse_memory
from qvit.data.listing import pictures_below
from qvit.data.pictures import QUIET
from qvit.errors import DataError, FileError
from qvit.files import read_text

MOST_FILES = 512  # of a block
BLOCK_BYTES = 16 << 20  # of the squares of a block
BLOCK_READ = 16 << 20  # of files of a block, about half a second
_LONGEST_LIST = 1 << 30  # bytes


@dataclass(frozen=True, eq=False)
class Block:
    """The squares of some files in a row: of each image, and of each file without one, the position of the `files`.

    `sources` are their names, `errors` say why a file has no image, None for an image; `squares` are the images alone.
    """

    files: tuple[int, ...]
    sources: tuple[str, ...]
    errors: tuple[str | None, ...]
    squares: UInt8[np.ndarray, "m c s s"]

    def without_squares(self) -> "Block":
        """Return the block as it is handed on once the squares are not needed any more."""
        return replace(self, squares=self.squares[:0])


def named(words: Iterable[str | Path], lines: Iterable[str]) -> Iterator[File]:
    """Yield the files that words name: a picture, all pictures in a folder, those in a list (.txt), or "-" for `lines`.

    Paths in a list are relative to its folder. A folder without pictures, or one that cannot be listed, is a file with
    an error. Raises DataError for a list that cannot be read, and for an empty word.
    """
    for word in words:
        text = os.fspath(word)
        if not text:
            raise DataError("Expected a picture, a folder or a list, got an empty name. Write . for this folder.")
        if text == "-":
            yield from _listed(lines, Path())
        elif os.path.isdir(text):  # noqa: PTH112 - Path.is_dir raises for some names
            path = Path(text)
            try:
                start = os.fspath(path / "_")[:-1]
                yield from ((start + name, None) for name in pictures_below(path))
            except DataError as error:
                yield os.fspath(path), str(error).removeprefix(f"{path}: ")  # which stands beside it
        elif text.lower().endswith(LISTS):
            path = Path(text)
            try:
                listed = read_text(path, most=_LONGEST_LIST)
            except FileError as error:
                raise DataError(str(error)) from error
            yield from _listed(listed.removeprefix("\ufeff").split("\n"), path.parent)
        else:
            yield text, None


def _listed(lines: Iterable[str], folder: Path) -> Iterator[File]:
    for line in lines:
        name = line.rstrip("\r\n")
        if name:
            yield os.fspath(folder / name), None


def in_parts(files: Iterable[File], needs: Needs) -> tuple[Iterator[Part], bool]:
    """Return files in parts that are read at once, and whether they are so many that other processes should help."""
    rest = iter(files)
    first, found = [], 0
    for file in rest:
        first.append(file)
        found += weight(file[0])
        if found > ALONE:
            break
    most = max(1, min(MOST_FILES, BLOCK_BYTES // (needs.channels * needs.size**2)))
    return _parts(chain(first, rest), most), found > ALONE


def _parts(files: Iterator[File], most: int) -> Iterator[Part]:
    """Yield at most so many files at a time, fewer if they are large."""
    start, part, held = 0, [], 0
    for file in files:
        part.append(file)
        held += weight(file[0])
        if len(part) == most or held >= BLOCK_READ:
            yield start, part
            start, part, held = start + len(part), [], 0
    if part:
        yield start, part


def block(needs: Needs, start: int, files: Sequence[File], *, folder: Path = Path()) -> Block:
    """Read some files, the first at position `start`; what is wrong with one is told in its place.

    Relative paths are below `folder`: another process may be elsewhere.
    """
    reuse_memory()
    with QUIET:
        return _block(needs, start, files, folder)


def _block(needs: Needs, start: int, files: Sequence[File], folder: Path) -> Block:
    places: list[int] = []
    sources: list[str] = []
    errors: list[str | None] = []
    squares: list[Square] = []
    for place, (name, why) in enumerate(files, start):
        try:
            if why is not None:
                raise DataError(why)
            found = needs.squares(folder / name)
        except DataError as error:
            places.append(place)
            sources.append(name)
            errors.append(str(error))
            continue
        squares += found
        places += [place] * len(found)
        errors += [None] * len(found)
        sources += [name] if len(found) == 1 else [f"{name}#{frame}" for frame in range(1, len(found) + 1)]
    shape = (-1, needs.channels, needs.size, needs.size)
    return Block(tuple(places), tuple(sources), tuple(errors), np.array(squares, np.uint8).reshape(shape))
