"""Sources of datasets: what is known and checked before any image is read, and how the images are read.

A kind of source is a function that takes what was asked for and returns a `Source`, or None if another kind is needed;
`KINDS` lists these functions in the order in which they are tried.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray

from qvit.data.checks import (
    MOST_CLASSES,
    Labels,
    Layout,
    bytes_of_floats,
    check_labels,
    check_layout,
    check_official,
    check_task,
    describe_own,
    read_labels,
)
from qvit.data.fetch import check_size, fetch, root_folder, user_cache, why_not_writable
from qvit.data.mapped import map_array
from qvit.data.npz import (
    Member,
    check_unchanged,
    check_values,
    given_path,
    md5_of,
    problem,
    read_array,
    read_headers,
    read_texts,
    stamp_of,
)
from qvit.data.options import DEFAULTS, ImportOptions, check_side
from qvit.data.phantom import make_phantom
from qvit.data.registry import MEDMNIST_TASKS, SPLITS, TABLES, DatasetInfo, file_name, get_info, is_path, name_of
from qvit.errors import ConfigError

if TYPE_CHECKING:
    from qvit.data.listing import Listing

LONGEST_NAME = 1000  # characters of a class, a group or a path
MAP_ABOVE = 512 * 2**20  # bytes of images above which a user's own file is memory-mapped

Images = UInt8[np.ndarray, "n c h w"]
Groups = dict[str, Shaped[np.ndarray, " n"]]  # of text


@dataclass(frozen=True)
class Asked:
    """The arguments of `load_dataset`."""

    name: str | Path
    size: int
    root: str | Path | None
    download: bool
    task: str | None
    importing: ImportOptions = DEFAULTS


@dataclass(frozen=True)
class Source(ABC):
    """A dataset of which all but the images has been checked.

    `size` is the side of the images in pixels, `labels` holds those of each split, int64 (N, K), `path` is where
    the dataset lies, None for one made at run time, `md5` is the digest of its file, empty without one, and
    `official` whether it is known to be right. `groups` holds the group, such as the patient, of each image of each
    split, if known.
    """

    info: DatasetInfo
    size: int
    labels: Labels
    path: Path | None
    md5: str
    official: bool
    groups: Groups | None

    @abstractmethod
    def images(self, split: str) -> Images:
        """Return the images of a split, channels first; they may be a read-only view of a memory-mapped file."""

    def check_values(self, split: str) -> None:
        """Read the images of a split through; raises `DataError` for damage, and numbers outside [0, 1]."""
        self.images(split)

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise `DataError` if the source was changed since it was opened."""


@dataclass(frozen=True)
class NpzSource(Source):
    """An .npz file with the six arrays of MedMNIST; images are unpacked to `folder`, or read if it is None."""

    path: Path
    layout: Layout
    members: dict[str, Member]
    stamp: tuple[int, ...]
    folder: Path | None

    def images(self, split: str) -> Images:
        """Return the images of a split, channels first."""
        member = self.members[f"{split}_images"]
        if self.layout.floating:
            return channels_first(bytes_of_floats(self.path, member))
        if self.folder is None:
            return channels_first(read_array(self.path, member))
        return view_channels_first(map_array(self.path, member, self.folder))

    def check_values(self, split: str) -> None:
        """Read all images of a split; raises `DataError` for damage, and for numbers outside [0, 1]."""
        member = self.members[f"{split}_images"]
        if self.layout.floating:
            bytes_of_floats(self.path, member)
        else:
            check_values(self.path, member)

    def check_unchanged(self) -> None:
        """Raise `DataError` if the file was written since it was opened."""
        check_unchanged(self.path, self.stamp)


@dataclass(frozen=True)
class MadeSource(Source):
    """The synthetic dataset; `arrays` are those that its file would hold."""

    arrays: dict[str, NDArray[Any]]

    def images(self, split: str) -> Images:
        """Return the images of a split, channels first."""
        return channels_first(self.arrays[f"{split}_images"])

    def check_unchanged(self) -> None:
        """Do nothing: there is no file."""


def open_source(asked: Asked) -> Source:
    """Return the source that was asked for; raises `ConfigError` and `DataError` as `load_dataset` does."""
    return next(found for kind in KINDS if (found := kind(asked)) is not None)


def _own_pictures(asked: Asked) -> Source | None:
    """Open a folder or a table of pictures: import it, unless that was done before and nothing changed."""
    if not is_path(asked.name):
        return None
    path = given_path(asked.name)
    if not (os.path.isdir(path) or path.suffix.lower() in TABLES):  # noqa: PTH112 - Path.is_dir raises for long names
        return None
    if asked.task is not None:
        check_task(asked.task)
    return _open_own(imported(path, asked), name_of(path), asked)


def imported(path: Path, asked: Asked) -> Path:
    """Return the .npz file made of the pictures in a folder or table; it is made if it is not there yet."""
    from qvit.data.importing import import_pictures, shown_on_terminal  # needs Pillow and SciPy

    listing, target = _listed(path, asked)
    if not target.exists():
        show = shown_on_terminal(name_of(path))
        import_pictures(listing, target, size=asked.size, options=asked.importing, progress=show)
    return target


def imported_before(path: Path, asked: Asked) -> bool:
    """Return whether the file that `imported` returns is there already."""
    return _listed(path, asked)[1].exists()


def _listed(path: Path, asked: Asked) -> tuple["Listing", Path]:
    """Return the pictures in a folder or table, and the file that is made of them."""
    check_side(asked.size)
    listing = list_pictures(path, asked.importing)
    return listing, import_file(listing, path, asked.size, asked.root, asked.importing)


def import_file(listing: "Listing", path: Path, size: int, root: str | Path | None, options: ImportOptions) -> Path:
    """Return the .npz file that is made of the pictures in a folder or table: named after these, size and options."""
    from qvit.data.importing import key_of, stamps_of

    key = key_of(listing, stamps_of(listing), size=size, options=options)
    return import_folder(root) / f"{name_of(path)[:40]}-{size}-{key}.npz"


def import_folder(root: str | Path | None) -> Path:
    """Return the folder of files that are made of pictures: in `root` if that is given, else in the user's cache."""
    return writable(user_cache() if root is None else root_folder(root)) / "imported"


def list_pictures(path: Path, options: ImportOptions) -> "Listing":
    """Return the pictures in a folder or table; raises ConfigError and DataError as `listing` and `table` say."""
    from qvit.data.listing import list_folder
    from qvit.data.table import list_table

    if path.suffix.lower() in TABLES and not path.is_dir():
        return list_table(path, label=options.label, group_by=options.group_by)
    if options.label is not None:
        raise ConfigError(f"label='{options.label}' is a column of a table; the classes of {path} are its folders.")
    return list_folder(path, group_by=options.group_by)


def _own_file(asked: Asked) -> Source | None:
    if not is_path(asked.name):
        return None
    path = given_path(asked.name)
    asked.importing.refuse_for(str(path))
    return _open_own(path, name_of(path), asked)


def _open_own(path: Path, name: str, asked: Asked) -> Source:
    task = asked.task
    if task is not None:
        check_task(task)
    stamp = stamp_of(path)
    members = read_headers(path)
    layout = check_layout(path, members)
    if asked.size not in (28, layout.size):
        advice = "Leave the size out, or resize the images."
        raise problem(path, f"images of {asked.size} x {asked.size} pixels", f"{layout.size} x {layout.size}", advice)
    labels = read_labels(path, members, lambda key: read_array(path, members[key]))
    if task is None:
        task = _task_of(path)
    classes = read_texts(path, "class_names", most=MOST_CLASSES, longest=LONGEST_NAME)
    info = describe_own(path, labels, layout, task, classes=classes, name=name)
    md5 = md5_of(path)
    large = sum(members[f"{split}_images"].size for split in SPLITS) > MAP_ABOVE
    folder = unpack_folder(path, md5, asked.root) if large and not layout.floating else None
    return NpzSource(
        info,
        layout.size,
        labels,
        path,
        md5,
        official=False,
        groups=_read_groups(path, labels),
        layout=layout,
        members=members,
        stamp=stamp,
        folder=folder,
    )


def _task_of(path: Path) -> str | None:
    """Return the task that the file says it is for, if it says one."""
    said = read_texts(path, "task", most=1, longest=LONGEST_NAME)
    return said[0] if said and said[0] in MEDMNIST_TASKS else None


def _read_groups(path: Path, labels: Labels) -> Groups | None:
    """Return the groups of the images of each split; None if the file does not say them."""
    found = {}
    for split in SPLITS:
        count = len(labels[split])
        groups = read_texts(path, f"{split}_groups", most=count, longest=LONGEST_NAME)
        if groups is None:
            return None
        if len(groups) != count:
            advice = "Save one group for each image, in the same order."
            raise problem(path, f"{count} groups in {split}_groups", f"{len(groups)}", advice)
        found[split] = np.array(groups)
    return found


def _registered(asked: Asked) -> DatasetInfo:
    """Return the registry's row of a name; raises `ConfigError` for an unknown name, another task, or options."""
    asked.importing.refuse_for(f"Dataset '{asked.name}'")
    info = get_info(str(asked.name))
    if asked.task is not None and check_task(asked.task) != info.task:
        raise ConfigError(f"Dataset '{info.name}' has the task {info.task}, not {asked.task}; leave the task out.")
    return info


def _made(asked: Asked) -> Source | None:
    info = _registered(asked)
    if not info.synthetic:
        return None
    arrays = make_phantom(0, asked.size)
    labels = {split: arrays[f"{split}_labels"].astype(np.int64) for split in SPLITS}
    return MadeSource(info, asked.size, labels, path=None, md5="", official=True, groups=None, arrays=arrays)


def _official_file(asked: Asked) -> Source:
    info, size = _registered(asked), asked.size
    check_size(info.name, size)
    folder = root_folder(asked.root)
    path = folder / file_name(info.name, size)
    again = f"qvit data get {info.name}" + ("" if size == 28 else f" --size {size}")
    if asked.download:
        path = fetch(info.name, size, folder)
    elif not os.path.lexists(path):
        advice = f"Run '{again}', or save {info.url(size)} (MD5 {info.md5[size]}) there."
        raise problem(path, f"the official file of {info.title}", "nothing there", advice)
    stamp = stamp_of(path)
    md5 = md5_of(path)
    if md5 != info.md5[size]:
        raise problem(
            path,
            f"MD5 {info.md5[size]}",
            f"{md5} ({path.stat().st_size} bytes)",
            f"It is damaged, incomplete or another file, and was left untouched: move it away and run '{again}'.",
        )
    members = read_headers(path)
    layout = check_layout(path, members)
    check_official(path, members, layout, info, size)
    labels = read_labels(path, members, lambda key: read_array(path, members[key]))
    check_labels(path, labels, info)
    unpacked = unpack_folder(path, md5, asked.root) if size > 28 else None
    return NpzSource(
        info,
        size,
        labels,
        path,
        md5,
        official=True,
        groups=None,
        layout=layout,
        members=members,
        stamp=stamp,
        folder=unpacked,
    )


KINDS: tuple[Callable[[Asked], Source | None], ...] = (_own_pictures, _own_file, _made, _official_file)


def unpack_folder(path: Path, md5: str, root: str | Path | None) -> Path:
    """Return where a large file is unpacked: named after its contents, so that a changed file is unpacked anew."""
    return (
        writable(root_folder(root)) / "unpacked" / f"{path.stem[:40]}-{md5}"
    )  # a long name with the digest could be too long


def writable(folder: Path) -> Path:
    """Return the folder, or the user's cache if nothing can be written there."""
    return folder if why_not_writable(folder) is None else user_cache()


def view_channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a view of grey or colour images with their channels first."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return grey or colour images with their channels first, laid out in memory in that order."""
    return np.ascontiguousarray(view_channels_first(images))
