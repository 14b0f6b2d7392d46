"""What a folder of pictures holds: the files, their classes, splits and groups, before any picture is opened."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from qvit.data.npz import problem
from qvit.data.pictures import SUFFIXES
from qvit.errors import ConfigError, DataError
from qvit.files import printable, shown

MOST_FILES = 10_000_000
MOST_CLASSES = 10_000
DEEPEST = 32  # folders within one another
LONGEST_PATTERN = 200  # characters
# Names of folders and values of columns that say on which side a picture stands.
SIDES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
_NOT_PICTURES = ("thumbs.db", "desktop.ini", "__macosx")
_DICM = 128  # bytes before the letters DICM, in files that often have no ending


@dataclass(frozen=True)
class Listing:
    """The pictures that make up a dataset.

    `files` are paths relative to `folder`, `labels` int64 (n, k) as in `Split`, `sides` the split of each if that is
    known, `groups` the group (such as the patient) of each if that is known.
    """

    folder: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Int64[np.ndarray, "n k"]
    sides: tuple[str, ...] | None
    groups: tuple[str, ...] | None

    @property
    def multi_label(self) -> bool:
        """Whether a picture can carry several labels."""
        return self.labels.shape[1] > 1


def list_folder(folder: Path, *, group_by: str | None = None) -> Listing:
    """Return the pictures in `folder/CLASS/*`, or in `folder/{train,val,test}/CLASS/*`, at any depth below CLASS.

    Classes are numbered in the order of their names, numbers in names by their value; files come in that order, too.
    `group_by` is a regular expression that is searched for in each file's path below `folder`: its first group, or the
    whole match without one, is the picture's group. Hidden files, and files that are no pictures, are left out.

    Raises ConfigError for an invalid pattern; DataError for a folder without pictures, of one class only, with
    pictures outside the folders of classes, or with a file that the pattern does not fit.
    """
    pattern = None if group_by is None else compile_pattern(group_by)
    top = _folders(folder, folder)
    sides = {name: side for name in top if (side := side_of(name)) is not None}
    if sides and len(sides) == len(top):
        found = [
            (side, label, file)
            for name, side in sides.items()
            for label in _folders(folder / name, folder)
            for file in _pictures(folder, f"{name}/{label}")
        ]
        stray = [name for name in ("", *sides) if next(_here(folder, name), None)]
    else:
        found = [("", label, file) for label in top for file in _pictures(folder, label)]
        stray = [""] if next(_here(folder, ""), None) else []
    _check_layout(folder, found, stray, top)
    found.sort(key=lambda row: (natural(row[1]), natural(row[2])))
    classes = sorted({label for _, label, _ in found}, key=natural)
    check_classes(folder, classes)
    number = {name: place for place, name in enumerate(classes)}
    files = tuple(file for _, _, file in found)
    return Listing(
        folder,
        files,
        tuple(classes),
        np.array([[number[label]] for _, label, _ in found], np.int64),
        tuple(side for side, _, _ in found) if sides and len(sides) == len(top) else None,
        None if pattern is None else groups_of(folder, files, pattern),
    )


def side_of(name: str) -> str | None:
    """Return the split that a name of a folder or a value in a table means: train, val or test; None for others."""
    return next((side for side, names in SIDES.items() if name.strip().lower() in names), None)


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts names as people do: by their letters, and numbers in them by their value."""
    parts = re.split(r"([0-9]+)", name)
    keys = ((1, int(p), p) if p.isdecimal() and p.isascii() else (0, 0, p.casefold()) for p in parts)
    return (*keys, (0, 0, name))


def compile_pattern(text: str) -> re.Pattern[str]:
    """Return a regular expression; raises ConfigError for one that is invalid or very long."""
    if len(text) > LONGEST_PATTERN:
        raise ConfigError(f"Expected a pattern of at most {LONGEST_PATTERN} characters in group_by, got {len(text)}.")
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"group_by='{text}' is no regular expression ({error}). Name a column of a table, or give a pattern such "
            "as 'patient([0-9]+)'."
        ) from error


def groups_of(path: Path, files: Sequence[str], pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Return the part of each file's path that names its group; raises DataError for a path without one."""
    found = []
    for file in files:
        match = pattern.search(file)
        group = None if match is None else match[1] if pattern.groups else match[0]
        if not group:
            advice = "Change the pattern of group_by, or the file's name."
            raise problem(path, f"a group in each file's name ('{pattern.pattern}')", f"none in {file}", advice)
        found.append(group)
    return tuple(found)


def check_classes(path: Path, classes: Sequence[str]) -> None:
    """Raise DataError unless there are at least two classes, with names that can be written down."""
    if len(classes) < 2:
        advice = "Nothing can be learnt from one class: put the pictures of each class into a folder of its own."
        raise problem(path, "at least two classes", f"only '{shown(classes[0])}'", advice)
    if len(classes) > MOST_CLASSES:
        raise problem(path, f"at most {MOST_CLASSES} classes", f"{len(classes)}", "Name a folder above the classes.")
    for name in classes:
        printable(name, raised=DataError)


def _check_layout(folder: Path, found: Sequence[tuple[str, str, str]], stray: Sequence[str], top: list[str]) -> None:
    advice = "Put the pictures of each class into a folder of its own: FOLDER/CLASS/picture.png."
    if not found and not stray:
        seen = f"no {' or '.join(SUFFIXES[:3])} in it" + ("" if top else ", nor a folder")
        raise problem(folder, "a folder of pictures", seen, advice)
    if stray:
        file = next(_here(folder, stray[0]))
        raise problem(folder, "pictures in folders named after their classes", f"{shown(file)} outside", advice)
    present = {side for side, _, _ in found if side}
    missing = [side for side in ("train", "test") if present and side not in present]
    if missing:
        advice = "Without folders train, val and test, pictures in FOLDER/CLASS are split at random."
        raise problem(folder, f"pictures in {' and '.join(missing)}", f"some in {', '.join(sorted(present))}", advice)


def _folders(folder: Path, root: Path) -> list[str]:
    """Return the names of the folders in a folder, hidden ones left out, links followed."""
    return [entry.name for entry in _entries(folder, root) if _is_folder(entry)]


def _here(root: Path, below: str) -> Iterator[str]:
    """Yield the pictures right in a folder, as paths relative to `root`."""
    for entry in _entries(root / below, root):
        if not _is_folder(entry) and _is_picture(entry):
            yield f"{below}/{entry.name}" if below else entry.name


def _pictures(root: Path, below: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Yield the pictures in a folder and the folders in it, as paths relative to `root`; refuses links in a circle."""
    place = root / below
    try:
        found = place.stat()
    except OSError as error:
        raise _unreadable(root, below, error) from error
    here = (found.st_dev, found.st_ino)
    if here in above:
        raise problem(
            root, "folders within one another", f"{shown(below)}, a link to a folder above it", "Remove that link."
        )
    if len(above) >= DEEPEST:
        raise problem(root, f"at most {DEEPEST} folders within one another", shown(below), "Name a folder below.")
    yield from _here(root, below)
    for name in _folders(place, root):
        yield from _pictures(root, f"{below}/{name}", above | {here})


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not _is_hidden(entry.name)]
    except OSError as error:
        raise _unreadable(root, folder.name, error) from error
    if len(entries) > MOST_FILES:
        raise problem(root, f"at most {MOST_FILES} files", f"{len(entries)}", "Name a folder below.")
    for entry in entries:
        printable(entry.path, raised=DataError)
    return sorted(entries, key=lambda entry: entry.name)


def _unreadable(root: Path, name: str, error: OSError) -> DataError:
    found = f"{shown(name)}: {error.strerror or error}"
    return problem(root, "a folder that can be read", found, "Check its owner and permissions.")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOT_PICTURES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """Return whether a file's ending is that of pictures; one without an ending is, if it begins as DICOM does."""
    ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - of thousands of names
    if ending and not ending[1:].isdecimal():  # parts of DICOM's numbers are no endings
        return ending in SUFFIXES
    try:
        with open(entry.path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return file.read(_DICM + 4)[_DICM:] == b"DICM"
    except OSError:
        return False
