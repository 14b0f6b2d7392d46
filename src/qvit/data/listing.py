"""What a folder of pictures holds: the files, their classes, splits and groups, before any picture is opened."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from qvit.data.npz import problem
from qvit.data.pictures import SUFFIXES
from qvit.errors import ConfigError, DataError
from qvit.files import printable, shown, unwritable

MOST_FILES = 10_000_000
MOST_CLASSES = 10_000
LONGEST_NAME = 1000  # characters of a class
DEEPEST = 32  # folders within one another
LONGEST_PATTERN = 200  # characters
# Names of folders and values of columns that say on which side a picture stands.
SIDES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
# Files beside pictures that nobody takes for some.
_NOTES = (
    ".csv",
    ".htm",
    ".html",
    ".ini",
    ".json",
    ".log",
    ".md",
    ".npy",
    ".npz",
    ".py",
    ".tsv",
    ".txt",
    ".xml",
    ".yaml",
)
_NOT_PICTURES = ("thumbs.db", "desktop.ini", "__macosx")
_DICM = 128  # bytes before the letters DICM, in files that often have no ending


@dataclass(frozen=True)
class Listing:
    """The pictures that make up a dataset.

    `files` are paths relative to `folder`, `labels` int64 (n, k) as in `Split`, `sides` the split of each if that is
    known, `groups` the group (such as the patient) of each if that is known. `left_out` counts the files that are no
    pictures, by their endings.
    """

    folder: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Int64[np.ndarray, "n k"]
    sides: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def multi_label(self) -> bool:
        """Whether a picture can carry several labels."""
        return self.labels.shape[1] > 1


@dataclass(frozen=True)
class _Folder:
    """What lies in a folder, `below` the one that was named: its folders by name, its pictures by their paths.

    `others` are the endings of files that are no pictures; hidden files and folders are left out, links are followed.
    """

    below: str
    folders: tuple[str, ...]
    pictures: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def scan(cls, root: Path, below: str) -> "_Folder":
        start = f"{below}/" if below else ""
        folders: list[str] = []
        pictures: list[str] = []
        others: list[str] = []
        for entry in _entries(root, below):
            ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - of thousands of names
            if _is_folder(entry):
                folders.append(entry.name)
            elif _is_picture(entry):
                pictures.append(start + entry.name)
            elif ending and ending not in _NOTES:
                others.append(ending)
        return cls(below, tuple(folders), tuple(pictures), tuple(others))

    def walked(self, root: Path, above: frozenset[tuple[int, int]] = frozenset()) -> "_Folder":
        """Return all pictures here and in the folders below; raises DataError for links in a circle."""
        parts = [*self.parts(root, above)]
        pictures = tuple(picture for part in parts for picture in part.pictures)
        return _Folder(self.below, self.folders, pictures, tuple(other for part in parts for other in part.others))

    def parts(self, root: Path, above: frozenset[tuple[int, int]] = frozenset()) -> "Iterator[_Folder]":
        """Yield this folder and those below, each with what it holds itself; raises DataError for links in a circle."""
        here = _identity(root, self.below)
        if here in above:
            found = f"{shown(self.below)}, which is a link to a folder above it"
            raise problem(root, "folders that do not hold themselves", found, "Remove that link.")
        if len(above) >= DEEPEST:
            advice = "Name a folder below."
            raise problem(root, f"at most {DEEPEST} folders within one another", shown(self.below), advice)
        yield self
        for name in self.folders:
            below = f"{self.below}/{name}" if self.below else name
            yield from _Folder.scan(root, below).parts(root, above | {here})


class _Found(NamedTuple):
    """The folder of a class, in a split if there are any."""

    side: str
    label: str
    content: _Folder


def list_folder(folder: Path, *, group_by: str | None = None) -> Listing:
    """Return the pictures in `folder/CLASS/*`, or in `folder/{train,val,test}/CLASS/*`, at any depth below CLASS.

    Classes are numbered in the order of their names, numbers in names by their value; files come in that order, too.
    `group_by` is a regular expression that is searched for in each file's path below `folder`: its first group, or the
    whole match without one, is the picture's group. Hidden files, and files that are no pictures, are left out. The
    pictures are divided already if two folders are named after splits, or all are; no other folder beside them may
    hold pictures.

    Raises ConfigError for an invalid pattern; DataError for a folder without pictures, of one class only, with
    pictures outside the folders of classes, or with a file that the pattern does not fit.
    """
    pattern = None if group_by is None else compile_pattern(group_by)
    printable(folder, raised=DataError)
    top = _Folder.scan(folder, "")
    sides = {name: side for name in top.folders if (side := side_of(name)) is not None}
    divided = bool(sides) and (len(sides) == len(top.folders) or len({*sides.values()}) > 1)
    tops = {name: _Folder.scan(folder, name) for name in sides} if divided else {"": top}
    found = [
        _Found(sides.get(name, ""), label, _Folder.scan(folder, f"{name}/{label}" if name else label).walked(folder))
        for name, scanned in tops.items()
        for label in scanned.folders
    ]
    beside = [name for name in top.folders if divided and name not in sides]
    _check_layout(folder, found, [top, *tops.values()], beside)
    rows = [(each.side, each.label, file) for each in found for file in each.content.pictures]
    rows.sort(key=lambda row: (natural(row[1]), natural(row[2])))
    classes = sorted({label for _, label, _ in rows}, key=natural)
    check_classes(folder, classes)
    number = {name: place for place, name in enumerate(classes)}
    files = tuple(file for _, _, file in rows)
    return Listing(
        folder,
        files,
        tuple(classes),
        np.array([[number[label]] for _, label, _ in rows], np.int64),
        tuple(side for side, _, _ in rows) if divided else None,
        None if pattern is None else groups_of(folder, files, pattern),
        tuple(Counter(ending for each in found for ending in each.content.others).most_common()),
    )


def list_unlabelled(folder: Path) -> Listing:
    """Return all pictures in a folder, at any depth, in the order of their names, as one class without a name.

    Raises DataError for a folder without pictures, and as `list_folder` does for what cannot be read.
    """
    printable(folder, raised=DataError)
    top = _Folder.scan(folder, "").walked(folder)
    if not top.pictures:
        raise _no_pictures(folder)
    files = tuple(sorted(top.pictures, key=natural))
    counts = tuple(Counter(top.others).most_common())
    return Listing(folder, files, ("",), np.zeros((len(files), 1), np.int64), None, None, counts)


def pictures_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all pictures in a folder, at any depth, one folder after the other, each in order of names.

    Raises DataError as `list_unlabelled` does, for what cannot be read when it is come to.
    """
    printable(folder, raised=DataError)
    none = True
    for part in _Folder.scan(folder, "").parts(folder):
        none = none and not part.pictures
        yield from sorted(part.pictures, key=natural)
    if none:
        raise _no_pictures(folder)


def _no_pictures(folder: Path) -> DataError:
    return problem(folder, "a folder of pictures", f"no {' or '.join(SUFFIXES[:3])} in it", "Name another.")


def side_of(name: str) -> str | None:
    """Return the split that a name of a folder or a value in a table means: train, val or test; None for others."""
    return next((side for side, names in SIDES.items() if name.strip().lower() in names), None)


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts names as people do: by their letters, and numbers in them by their value."""
    parts = re.split(r"([0-9]+)", name)
    numbers = (part.lstrip("0") for part in parts[1::2])
    keys = ((0, 0, part.casefold()) for part in parts[::2]), ((1, len(digits), digits) for digits in numbers)
    both = [key for pair in zip_longest(*keys) for key in pair if key is not None]
    return (*both, (0, 0, name))


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
        group = group_of(file, pattern)
        if group is None:
            advice = "Change the pattern of group_by, or the file's name."
            raise problem(path, f"a group in each file's name ('{pattern.pattern}')", f"none in {file}", advice)
        found.append(group)
    return tuple(found)


def group_of(file: str, pattern: re.Pattern[str]) -> str | None:
    """Return the part of a file's path that names its group; None if there is none, or nothing in it."""
    match = pattern.search(file)
    return None if match is None else (match[1] if pattern.groups else match[0]) or None


def check_classes(path: Path, classes: Sequence[str]) -> None:
    """Raise DataError unless there are at least two classes, with names that can be written down."""
    if len(classes) < 2:
        advice = "Nothing can be learnt from one class: name what tells the pictures apart."
        raise problem(path, "at least two classes", f"only '{shown(classes[0])}'", advice)
    if len(classes) > MOST_CLASSES:
        raise problem(path, f"at most {MOST_CLASSES} classes", f"{len(classes)}", "Check that these are classes.")
    for name in classes:
        found = unwritable(name) or (f"{len(name)} characters" if len(name) > LONGEST_NAME else None)
        if found is not None:
            expected = f"names of classes on one line, of at most {LONGEST_NAME} characters"
            raise problem(path, expected, f"{found} in '{shown(name)}'", "Rename that class.")


def _check_layout(folder: Path, found: Sequence[_Found], above: Sequence[_Folder], beside: Sequence[str]) -> None:
    advice = "Put the pictures of each class into a folder of its own: FOLDER/CLASS/picture.png."
    stray = next((scanned.pictures[0] for scanned in above if scanned.pictures), None)
    held = [each for each in found if each.content.pictures]
    if not held and stray is None:
        seen = f"no {' or '.join(SUFFIXES[:3])} in it" + ("" if above[0].folders else ", nor a folder")
        raise problem(folder, "a folder of pictures", seen, advice)
    if stray is not None:
        raise problem(folder, "pictures in folders named after their classes", f"{shown(stray)} outside", advice)
    for name in beside:
        if _Folder.scan(folder, name).walked(folder).pictures:
            found_ = f"pictures in '{shown(name)}' beside them"
            raise problem(folder, "pictures in train, val and test", found_, "Move that folder elsewhere.")
    present = {each.side for each in held if each.side}
    missing = [side for side in ("train", "test") if present and side not in present]
    if missing:
        advice = "Without folders train, val and test, pictures in FOLDER/CLASS are split at random."
        raise problem(folder, f"pictures in {' and '.join(missing)}", f"some in {', '.join(sorted(present))}", advice)


def _identity(root: Path, below: str) -> tuple[int, int]:
    try:
        found = (root / below).stat()
    except OSError as error:
        raise _unreadable(root, below, error) from error
    return found.st_dev, found.st_ino


def _entries(root: Path, below: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / below) as found:
            entries = [entry for entry in found if not _is_hidden(entry.name)]
    except OSError as error:
        raise _unreadable(root, below or root.name, error) from error
    if len(entries) > MOST_FILES:
        raise problem(root, f"at most {MOST_FILES} files", f"{len(entries)}", "Name a folder below.")
    for entry in entries:
        wrong = unwritable(entry.name)
        if wrong is not None:
            found_ = f"{wrong} in {entry.name!a}"
            raise problem(root, "names that can be written down", found_, "Rename that file or folder.")
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
