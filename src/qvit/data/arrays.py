"""From a dataset's name or file to checked arrays: in memory, or memory-mapped where they are large."""

import hashlib
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

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
from qvit.data.mapped import View, check_whole, map_array, map_view, view_of
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
from qvit.errors import ConfigError, DataError

MAP_ABOVE = 512 * 2**20  # bytes of images above which a user's own file is memory-mapped


Sample = tuple[UInt8[Tensor, "c h w"], Int64[Tensor, " k"]]


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, uint8 (N, C, H, W), and their labels, int64 (N, 1), or (N, K) for multi-label.

    Images may be a read-only view of a memory-mapped file. A split is a map-style dataset, as torch's `DataLoader`
    takes one: `split[i]` is a pair of an image, uint8 (c, h, w), and its labels, int64 (k,), both tensors and copies.
    Pickled, as for workers that are spawned, a mapped one is sent as the file's name, and mapped there again.
    """

    images: UInt8[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, "n k"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Sample:
        """Return one image and its labels; negative positions count from the end.

        Raises IndexError, as a sequence does, beyond the end, and DataError for what is no whole number.
        """
        try:
            place = operator.index(index)
        except TypeError as error:
            raise DataError(
                f"Expected the position of one image, a whole number, got {type(index).__name__}. "
                "Take several with split.batch([…]), or torch.utils.data.Subset."
            ) from error
        if not -len(self) <= place < len(self):
            raise IndexError(f"Expected a position below {len(self)}, the images of this split, got {place}.")
        images, labels = self.batch([place])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Sample]:
        """Return several at once, read in one go; `DataLoader` asks so."""
        images, labels = self.batch(list(map(operator.index, indices)))
        return list(zip(images, labels, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {"images": view_of(self.images) if self.mapped else self.images, "labels": self.labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        object.__setattr__(self, "images", map_view(images) if isinstance(images, View) else images)
        object.__setattr__(self, "labels", state["labels"])

    @property
    def mapped(self) -> bool:
        """Whether the images are read from disk as they are asked for."""
        return isinstance(self.images, np.memmap)

    def batch(self, index: ArrayLike | Tensor) -> tuple[UInt8[Tensor, "b c h w"], Int64[Tensor, "b k"]]:
        """Return copies of the images (b, c, h, w) and labels (b, k) at whole-number positions, in order.

        Raises DataError for positions that are not whole numbers or lie outside the split, and if the file behind
        mapped images was cut meanwhile.
        """
        rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
        if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
            raise DataError(f"Expected a list of whole-number positions, got {rows.dtype} {rows.shape}.")
        rows = rows.astype(np.int64)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise DataError(
                f"Expected positions below {len(self)}, the images of this split, got {rows.min()} to {rows.max()}."
            )
        if self.mapped:
            check_whole(self.images)
            # In the file's order: one sweep over the disk in place of a jump for each image.
            order = np.argsort(rows % len(self), kind="stable")
            images = np.empty((len(rows), *self.images.shape[1:]), np.uint8)
            images[order] = self.images[rows[order]]
        else:
            images = self.images[rows]
        return torch.from_numpy(images), torch.from_numpy(self.labels[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset's description and its three splits.

    `size` is the side in pixels, `digest` the MD5 of the file (for the phantom, of its arrays).
    """

    info: DatasetInfo
    size: int
    train: Split
    val: Split
    test: Split
    digest: str
    path: Path | None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def __getitem__(self, split: str) -> Split:
        if split not in SPLITS:
            raise ConfigError(f"Unknown split '{split}'. Expected one of: {', '.join(SPLITS)}.")
        return self.splits[split]


@dataclass(frozen=True)
class _Checked:
    """A file that passed every check that needs no image: what is left is to read the images."""

    path: Path
    info: DatasetInfo
    layout: Layout
    digest: str
    members: dict[str, Member]
    labels: Labels
    stamp: tuple[int, ...]


def load_dataset(
    name: str | Path,
    size: int = 28,
    root: str | Path | None = None,
    download: bool = True,
    task: str | None = None,
) -> Dataset:
    """Load a dataset and check everything about it first.

    `name` is a name in the registry, "phantom" among them, or the path of your own .npz file with the same
    six arrays. `size` is the side in pixels (your own file brings its own), `root` the folder of the official
    files, by default `$QVIT_DATA` or the user's cache; a missing one is downloaded if `download`. `task` says
    what your labels mean where they do not show it ("ordinal", say).

    Images are uint8 or, in your own file, numbers in [0, 1], which are rounded to 8 bits. Official files
    above 28 pixels and own files above 512 MB of images are memory-mapped: unpacked once, into the folder
    `unpacked` in `root`, or in the user's cache if that is read-only.

    Raises ConfigError for an unknown name, size or task, DataError for a file that is missing or not as it
    should be.
    """
    if is_path(name):
        checked = _check_own(given_path(name), size, task)
        large = sum(checked.members[f"{split}_images"].size for split in SPLITS) > MAP_ABOVE
    else:
        info = get_info(str(name))
        if task is not None and check_task(task) != info.task:
            raise ConfigError(f"Dataset '{info.name}' has the task {info.task}, not {task}; leave the task out.")
        if info.synthetic:
            return _phantom(info, size)
        checked = _check_official_file(info, size, root, download)
        large = size > 28
    folder = unpack_folder(checked.path, checked.digest, root) if large and not checked.layout.floating else None
    splits = {
        split: Split(_images(checked, checked.members[f"{split}_images"], folder), checked.labels[split])
        for split in SPLITS
    }
    check_unchanged(checked.path, checked.stamp)
    return Dataset(checked.info, checked.layout.size, digest=checked.digest, path=checked.path, **splits)


def verify(name: str | Path, size: int = 28, root: str | Path | None = None) -> dict[str, Any]:
    """Run every check on a file that is already there and report what it holds, for `qvit data verify`.

    The report has name, path, md5, official, task, size, channels, labels, and for each split the number of
    images and of each label. Raises as `load_dataset` does; nothing is downloaded or unpacked.
    """
    own = is_path(name)
    if own:
        checked = _check_own(given_path(name), size, None)
        for split in SPLITS:
            member = checked.members[f"{split}_images"]
            if checked.layout.floating:
                bytes_of_floats(checked.path, member)
            else:
                check_values(checked.path, member)
    else:
        # Its MD5 vouches for the images.
        checked = _check_official_file(get_info(str(name)), size, root, download=False)
    check_unchanged(checked.path, checked.stamp)
    return {
        "name": checked.info.name,
        "path": str(checked.path),
        "md5": checked.digest,
        "official": not own,
        "task": checked.info.task,
        "size": checked.layout.size,
        "channels": checked.layout.channels,
        "labels": list(checked.info.labels),
        "splits": {
            split: {"images": len(labels), "per_label": _count(labels, checked.info)}
            for split, labels in checked.labels.items()
        },
    }


def _count(labels: NDArray[np.int64], info: DatasetInfo) -> list[int]:
    if info.task == "multi-label":
        return labels.sum(axis=0).tolist()
    return np.bincount(labels[:, 0], minlength=info.num_classes).tolist()


def _phantom(info: DatasetInfo, size: int) -> Dataset:
    arrays = make_phantom(0, size)
    digest = hashlib.md5(usedforsecurity=False)
    splits = {}
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
        splits[split] = Split(_channels_first(images), labels.astype(np.int64))
    return Dataset(info, size, digest=digest.hexdigest(), path=None, **splits)


def _check_official_file(info: DatasetInfo, size: int, root: str | Path | None, download: bool) -> _Checked:
    check_size(info.name, size)
    folder = root_folder(root)
    path = folder / file_name(info.name, size)
    again = f"qvit data get {info.name}" + ("" if size == 28 else f" --size {size}")
    if download:
        path = fetch(info.name, size, folder)
    elif not os.path.lexists(path):
        advice = f"Run '{again}', or save {info.url(size)} (MD5 {info.md5[size]}) there."
        raise problem(path, f"the official file of {info.title}", "nothing there", advice)
    stamp = stamp_of(path)
    digest = md5_of(path)
    if digest != info.md5[size]:
        raise problem(
            path,
            f"MD5 {info.md5[size]}",
            f"{digest} ({path.stat().st_size} bytes)",
            f"It is damaged, incomplete or another file, and was left untouched: move it away and run '{again}'.",
        )
    members = read_headers(path)
    layout = check_layout(path, members)
    check_official(path, members, layout, info, size)
    labels = read_labels(path, members)
    check_labels(path, labels, info)
    return _Checked(path, info, layout, digest, members, labels, stamp)


def _check_own(path: Path, size: int, task: str | None) -> _Checked:
    if task is not None:
        check_task(task)
    stamp = stamp_of(path)
    members = read_headers(path)
    layout = check_layout(path, members)
    if size not in (28, layout.size):
        advice = "Leave the size out, or resize the images."
        raise problem(path, f"images of {size} x {size} pixels", f"{layout.size} x {layout.size}", advice)
    labels = read_labels(path, members)
    info = describe_own(path, labels, layout, task)
    return _Checked(path, info, layout, md5_of(path), members, labels, stamp)


def unpack_folder(path: Path, digest: str, root: str | Path | None) -> Path:
    """Return where a large file is unpacked: named after its contents, so that a changed file is unpacked anew."""
    folder = root_folder(root)
    if why_not_writable(folder) is not None:
        folder = user_cache()
    return folder / "unpacked" / f"{path.stem[:40]}-{digest}"  # of a long name with the digest no file can be made


def _images(checked: _Checked, member: Member, folder: Path | None) -> UInt8[np.ndarray, "n c h w"]:
    if checked.layout.floating:
        return _channels_first(bytes_of_floats(checked.path, member))
    if folder is None:
        return _channels_first(read_array(checked.path, member))
    return _view_channels_first(map_array(checked.path, member, folder))


def _view_channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(_view_channels_first(images))
