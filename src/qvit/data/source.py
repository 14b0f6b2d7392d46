"""Sources of datasets: what is known and checked before any image is read, and how the images are read.

A kind of source is a function that takes what was asked for and returns a `Source`, or None if another kind is needed;
`KINDS` lists these functions in the order in which they are tried.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from qvit.data.checks import (
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
    stamp_of,
)
from qvit.data.phantom import make_phantom
from qvit.data.registry import SPLITS, DatasetInfo, file_name, get_info, is_path
from qvit.errors import ConfigError

MAP_ABOVE = 512 * 2**20  # bytes of images above which a user's own file is memory-mapped

Images = UInt8[np.ndarray, "n c h w"]


@dataclass(frozen=True)
class Asked:
    """The arguments of `load_dataset`."""

    name: str | Path
    size: int
    root: str | Path | None
    download: bool
    task: str | None


@dataclass(frozen=True)
class Source(ABC):
    """A dataset of which all but the images has been checked.

    `size` is the side of the images in pixels, `labels` holds those of each split, int64 (N, K), `path` is where
    the dataset lies, None for one made at run time, `md5` is the digest of its file, empty without one, and
    `official` whether it is known to be right.
    """

    info: DatasetInfo
    size: int
    labels: Labels
    path: Path | None
    md5: str
    official: bool

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


def _own_file(asked: Asked) -> Source | None:
    if not is_path(asked.name):
        return None
    path = given_path(asked.name)
    if asked.task is not None:
        check_task(asked.task)
    stamp = stamp_of(path)
    members = read_headers(path)
    layout = check_layout(path, members)
    if asked.size not in (28, layout.size):
        advice = "Leave the size out, or resize the images."
        raise problem(path, f"images of {asked.size} x {asked.size} pixels", f"{layout.size} x {layout.size}", advice)
    labels = read_labels(path, members, lambda key: read_array(path, members[key]))
    info = describe_own(path, labels, layout, asked.task)
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
        layout=layout,
        members=members,
        stamp=stamp,
        folder=folder,
    )


def _registered(asked: Asked) -> DatasetInfo:
    """Return the registry's row of a name; raises `ConfigError` for an unknown name or another task."""
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
    return MadeSource(info, asked.size, labels, path=None, md5="", official=True, arrays=arrays)


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
        layout=layout,
        members=members,
        stamp=stamp,
        folder=unpacked,
    )


KINDS: tuple[Callable[[Asked], Source | None], ...] = (_own_file, _made, _official_file)


def unpack_folder(path: Path, md5: str, root: str | Path | None) -> Path:
    """Return where a large file is unpacked: named after its contents, so that a changed file is unpacked anew."""
    folder = root_folder(root)
    if why_not_writable(folder) is not None:
        folder = user_cache()
    return folder / "unpacked" / f"{path.stem[:40]}-{md5}"  # a long name with the digest could be too long


def view_channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a view of grey or colour images with their channels first."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return grey or colour images with their channels first, laid out in memory in that order."""
    return np.ascontiguousarray(view_channels_first(images))
