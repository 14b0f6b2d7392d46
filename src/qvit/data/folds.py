"""Folds for cross-validation: training and validation images in parts, each of which is held out once.

Test images are in none of them.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import ArrayLike
from torch import Tensor

from qvit.data.arrays import Dataset, Split
from qvit.data.source import Groups
from qvit.data.splitting import split_images
from qvit.errors import DataError

MOST_FOLDS = 100
DIVIDED = ("train", "val")  # the splits whose images are in folds


@dataclass(frozen=True)
class Fold:
    """Which part is held out: the `number`, from 1, of `count` parts that are drawn by `seed`."""

    number: int
    count: int
    seed: int

    def __str__(self) -> str:
        return f"fold {self.number} of {self.count}"


class Chosen(Split):
    """Some images of other splits, read from these as they are asked for, so that folds need no memory of their own.

    `rows` are positions counted through all `sources`. The array of all `images` is a copy, made each time: ask for the
    `shape`, a `batch` or `parts`.
    """

    def __init__(self, sources: Sequence[Split], rows: Int64[np.ndarray, " n"]) -> None:
        labels = np.concatenate([source.labels for source in sources])[rows]
        self.__setstate__({"sources": tuple(sources), "rows": rows, "labels": labels})

    def __getstate__(self) -> dict[str, Any]:
        return {"sources": self.sources, "rows": self.rows, "labels": self.labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.sources: tuple[Split, ...] = state["sources"]
        self.rows: Int64[np.ndarray, " n"] = state["rows"]
        object.__setattr__(self, "labels", state["labels"])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def images(self) -> UInt8[np.ndarray, "n c h w"]:
        """Copies of all images."""
        return self._read(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the images, (n, c, h, w), for which none is read."""
        return (len(self), *self.sources[0].shape[1:])

    @property
    def mapped(self) -> bool:
        """Whether images are read from disk as they are asked for."""
        return any(source.mapped for source in self.sources)

    def parts(self) -> Iterator[tuple[int, UInt8[np.ndarray, "m c h w"]]]:
        """Yield the images a few megabytes at a time, each part with the position of its first image."""
        starts = self._starts()
        for start in starts:
            yield start, self._read(self.rows[start : start + starts.step])

    def batch(self, index: ArrayLike | Tensor) -> tuple[UInt8[Tensor, "b c h w"], Int64[Tensor, "b k"]]:
        """Return copies of the images (b, c, h, w) and labels (b, k) at positions; raises as `Split.batch` does."""
        places = self._positions(index)
        return torch.from_numpy(self._read(self.rows[places])), torch.from_numpy(self.labels[places])

    def _read(self, rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b c h w"]:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        first = 0
        for source in self.sources:
            here = (rows >= first) & (rows < first + len(source))
            wanted = rows[here] - first
            images[here] = source.batch(wanted)[0].numpy() if source.mapped else source.images[wanted]
            first += len(source)
        return images


def hold_out(data: Dataset, fold: Fold) -> Dataset:
    """Return the dataset that holds out one fold; raises as `folds_of`."""
    return folds_of(data, fold.count, seed=fold.seed)[fold.number - 1]


def folds_of(data: Dataset, count: int, *, seed: int) -> tuple[Dataset, ...]:
    """Divide training and validation images into `count` parts, and return for each the dataset that holds it out.

    There the validation and the test images are those of the part, the training images those of all others; groups are
    not divided, classes are spread evenly over the parts (`splitting.split_images`), and the dataset's test images are
    left alone. The parts depend on labels and groups, on the order of the images, and on the seed. Warns of classes
    that parts lack. Raises DataError for fewer images or groups than parts, and for a part on which no AUC exists.
    """
    labels = np.concatenate([data[name].labels for name in DIVIDED])
    groups = None if data.groups is None else np.concatenate([data.groups[name] for name in DIVIDED])
    place = data.path or data.info.title
    most, kind = (len(labels), "images") if groups is None else (len(np.unique(groups)), "groups")
    if most < count:
        raise DataError(f"{place}: expected at least {count} {kind} for {count} folds, found {most}. Ask for fewer.")
    names = [f"fold {number}" for number in range(1, count + 1)]
    shares = dict.fromkeys(names, 1 / count)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts = split_images(labels, groups, shares=shares, seed=seed, called=data.info.labels)
    for name, rows in parts.items():
        first = labels[rows[0]]
        if (labels[rows] == first).all():
            raise DataError(
                f"{place}: expected at least two classes in each of {count} folds, found only {first.tolist()} in "
                f"{name} of seed {seed}. AUC compares classes: ask for fewer folds, or another seed."
            )
    for one in caught:
        warnings.warn(f"{data.info.title}, folds of seed {seed}: {one.message}", stacklevel=2)
    return tuple(
        _without(data, rows, groups, Fold(number, count, seed)) for number, rows in enumerate(parts.values(), 1)
    )


def _without(data: Dataset, rows: Int64[np.ndarray, " n"], groups: Any, fold: Fold) -> Dataset:
    """Return the dataset that holds out the images at `rows`."""
    sources = [data[name] for name in DIVIDED]
    others = np.setdiff1d(np.arange(sum(map(len, sources))), rows)
    learnt, held = Chosen(sources, others), Chosen(sources, rows)
    known: Groups | None = None
    if groups is not None:
        known = {"train": groups[others], "val": groups[rows], "test": groups[rows]}
    splits = {"train": len(learnt), "val": len(held), "test": len(held)}
    info = replace(data.info, title=f"{data.info.title}, {fold}", splits=splits)
    return replace(data, info=info, train=learnt, val=held, test=held, groups=known, whole=data)
