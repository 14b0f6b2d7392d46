"""Load a dataset, by name or file, as checked arrays: in memory, or memory-mapped where they are large."""

import hashlib
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from qvit.data.fetch import check_size
from qvit.data.mapped import View, check_whole, map_view, view_of
from qvit.data.options import DEFAULTS, ImportOptions
from qvit.data.registry import SPLITS, DatasetInfo, is_path
from qvit.data.source import Asked, Groups, open_source
from qvit.errors import ConfigError, DataError

_CHUNK = 1 << 23  # bytes of images in memory at a time

Sample = tuple[UInt8[Tensor, "c h w"], Int64[Tensor, " k"]]


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, uint8 (N, C, H, W), and their labels, int64 (N, 1), or (N, K) for multi-label.

    Images may be a read-only view of a memory-mapped file. A split is a map-style dataset, as torch's `DataLoader`
    expects: `split[i]` is a pair of an image, uint8 (c, h, w), and its labels, int64 (k,), both tensors and copies.
    Pickling a memory-mapped split, as for spawned workers, sends the file's name; the receiver maps the file again.
    """

    images: UInt8[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, "n k"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Sample:
        """Return one image and its labels; negative positions count from the end.

        Raises IndexError beyond the end, as a sequence does, and DataError for anything but a whole number.
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
        """Return several images and their labels, read at once; `DataLoader` calls this for a batch."""
        images, labels = self.batch(list(map(operator.index, indices)))
        return list(zip(images, labels, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the images, (n, c, h, w), for which none is read."""
        return self.images.shape

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

    def parts(self) -> Iterator[tuple[int, UInt8[np.ndarray, "m c h w"]]]:
        """Yield the images a few megabytes at a time, each part with the position of its first image.

        Raises DataError if the file behind mapped images was shortened meanwhile.
        """
        starts = self._starts()
        for start in starts:
            if self.mapped:
                check_whole(self.images)
            yield start, self.images[start : start + starts.step]

    def _starts(self) -> range:
        """Return where each part of the images starts."""
        return range(0, len(self), max(1, _CHUNK // max(1, math.prod(self.shape[1:]))))

    def batch(self, index: ArrayLike | Tensor) -> tuple[UInt8[Tensor, "b c h w"], Int64[Tensor, "b k"]]:
        """Return copies of the images (b, c, h, w) and labels (b, k) at whole-number positions, in order.

        Raises DataError for positions that are not whole numbers or lie outside the split, and if the file behind
        mapped images was shortened meanwhile.
        """
        rows = self._positions(index)
        if self.mapped:
            check_whole(self.images)
            # Read in the file's order: one sweep over the disk instead of one jump per image.
            order = np.argsort(rows % len(self), kind="stable")
            images = np.empty((len(rows), *self.images.shape[1:]), np.uint8)
            images[order] = self.images[rows[order]]
        else:
            images = self.images[rows]
        return torch.from_numpy(images), torch.from_numpy(self.labels[rows])

    def _positions(self, index: ArrayLike | Tensor) -> Int64[np.ndarray, " b"]:
        """Return positions as an array; raises DataError for those that `batch` refuses."""
        rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
        if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
            raise DataError(f"Expected a list of whole-number positions, got {rows.dtype} {rows.shape}.")
        rows = rows.astype(np.int64)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise DataError(
                f"Expected positions below {len(self)}, the images of this split, got {rows.min()} to {rows.max()}."
            )
        return rows


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset's description and its three splits.

    `size` is the side in pixels, `path` its file, if any, and `groups` the group, such as the patient, of each image of
    each split, if known. `whole` is the dataset that this one is a fold of, None for one that is whole.
    """

    info: DatasetInfo
    size: int
    train: Split
    val: Split
    test: Split
    path: Path | None = None
    groups: Groups | None = None
    whole: "Dataset | None" = None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @cached_property
    def digest(self) -> str:
        """The hash that identifies the dataset, wherever it came from: 32 hexadecimal digits.

        BLAKE2b of the names of the classes and the shapes of the images as JSON, and then of the bytes of train, val
        and test in turn: images (n, c, h, w), then labels (n, k) as int64, lowest byte first.
        """
        shapes = {name: split.shape for name, split in self.splits.items()}
        said = {"classes": list(self.info.labels), "images": shapes}
        found = hashlib.blake2b(json.dumps(said).encode(), digest_size=16)
        for split in self.splits.values():
            for _, images in split.parts():
                found.update(np.ascontiguousarray(images).data)
            found.update(np.ascontiguousarray(split.labels, "<i8").data)
        return found.hexdigest()

    def __getitem__(self, split: str) -> Split:
        if split not in SPLITS:
            raise ConfigError(f"Unknown split '{split}'. Expected one of: {', '.join(SPLITS)}.")
        return self.splits[split]


def load_dataset(
    name: str | Path,
    size: int = 28,
    root: str | Path | None = None,
    download: bool = True,
    task: str | None = None,
    importing: ImportOptions = DEFAULTS,
) -> Dataset:
    """Check a dataset completely and load it.

    `name` is a name in the registry, "phantom" among them, or the path of your own data: an .npz file with the same six
    arrays, a folder of pictures (`FOLDER/CLASS/*`, or `FOLDER/{train,val,test}/CLASS/*`), or a table of pictures (a CSV
    file). `size` is the side in pixels (your own .npz file has its own), `root` the folder of the official files, by
    default `$QVIT_DATA` or the user's cache; a missing file is downloaded if `download` is true. `task` says what your
    labels mean if they do not show it ("ordinal", say), `importing` how pictures become a dataset; they are imported
    once, into the folder `imported` in `root` if that is given and can be written, else in the user's cache, and found
    there again until a file changes.

    Images are uint8 or, in your own file, numbers in [0, 1], which are rounded to 8 bits. Official files
    above 28 pixels and own files above 512 MB of images are memory-mapped: unpacked once, into the folder
    `unpacked` in `root`, or in the user's cache if that is read-only.

    Raises ConfigError for an unknown name, size or task, and DataError for a file that is missing or invalid.
    """
    source = open_source(Asked(name, size, root, download, task, importing))
    train, val, test = (Split(source.images(split), source.labels[split]) for split in SPLITS)
    source.check_unchanged()
    return Dataset(source.info, source.size, train, val, test, source.path, source.groups)


def verify(
    name: str | Path,
    size: int = 28,
    root: str | Path | None = None,
    *,
    task: str | None = None,
    importing: ImportOptions = DEFAULTS,
) -> dict[str, Any]:
    """Run every check on data that are already there and report what they hold.

    The report has name, path, md5, official, task, size, channels, labels, and for each split the number of
    images and of each label. Raises as `load_dataset` does; nothing is downloaded or unpacked.
    """
    if not is_path(name):
        check_size(str(name), size)  # a dataset made at run time has no file
    source = open_source(Asked(name, size, root, download=False, task=task, importing=importing))
    if not source.official:  # else its MD5 vouches for the images
        for split in SPLITS:
            source.check_values(split)
    source.check_unchanged()
    known = {"name": source.info.name, "path": str(source.path), "md5": source.md5, "official": source.official}
    return known | _held(source.info, source.size, source.labels)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Report what a loaded dataset holds, as `verify` does, with its digest; an own file's MD5 is None."""
    info = dataset.info
    known = {
        "name": info.name,
        "path": str(dataset.path),
        "md5": info.md5.get(dataset.size),
        "official": bool(info.md5),
    }
    held = _held(info, dataset.size, {name: split.labels for name, split in dataset.splits.items()})
    return known | {"digest": dataset.digest} | held


def _held(info: DatasetInfo, size: int, labels: Mapping[str, Int64[np.ndarray, "n k"]]) -> dict[str, Any]:
    return {
        "task": info.task,
        "size": size,
        "channels": info.channels,
        "labels": list(info.labels),
        "splits": {name: {"images": len(one), "per_label": _count(one, info)} for name, one in labels.items()},
    }


def _count(labels: NDArray[np.int64], info: DatasetInfo) -> list[int]:
    if info.task == "multi-label":
        return labels.sum(axis=0).tolist()
    return np.bincount(labels[:, 0], minlength=info.num_classes).tolist()
