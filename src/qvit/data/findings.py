"""What is wrong with a dataset or may mislead: copies across splits, labels at odds, groups in two splits, and more."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from qvit.data.arrays import Dataset, Split
from qvit.data.duplicates import Duplicates, conflicts, find_duplicates
from qvit.data.registry import SPLITS
from qvit.data.source import Groups

EARLIER = {"train": ("val", "test"), "val": ("train",), "test": ("train", "val")}  # where a copy of an image misleads
UNEQUAL = 10.0  # times as many images of the largest class as of the smallest


@dataclass(frozen=True)
class Findings:
    """What is wrong with a dataset.

    `constant` holds the positions of images of one value in each split, `absent` the classes without an image in it,
    `imbalance` how many times larger the largest class is than the smallest in training, `shared` the groups with
    images in several splits, `copies` how many images of val and test have a near-duplicate in an earlier split, and
    `conflicts` the number of near-duplicates with different labels.
    """

    constant: Mapping[str, tuple[int, ...]]
    absent: Mapping[str, tuple[str, ...]]
    imbalance: float
    shared: tuple[str, ...] | None
    duplicates: Duplicates
    copies: Mapping[str, int]
    conflicts: int

    def told(self, dataset: Dataset) -> list[str]:
        """Return what there is to say, one line each; the most misleading first."""
        lines = []
        for split, earlier in (("test", "train or val"), ("val", "train")):
            if self.copies[split]:
                count = len(dataset[split])
                lines.append(
                    f"{self.copies[split]} of {count} images of {split} ({self.copies[split] / count:.1%}) have a "
                    f"near-duplicate in {earlier}; measures are also given without them (qvit evaluate)."
                )
        if self.conflicts:
            lines.append(f"{self.conflicts} pairs of near-duplicates have different labels.")
        if self.shared:
            lines.append(f"{len(self.shared)} groups have images in several splits: {_some(self.shared)}.")
        elif self.shared is None:
            lines.append("Groups, such as patients, are not known: whether one stands in two splits cannot be told.")
        for split, classes in self.absent.items():
            if classes:
                lines.append(f"No image of {_some(classes)} in {split}.")
        for split, places in self.constant.items():
            if places:
                lines.append(f"{len(places)} images of {split} have one value everywhere: {_some(map(str, places))}.")
        if self.imbalance >= UNEQUAL:
            lines.append(f"The largest class has {self.imbalance:.0f} times as many training images as the smallest.")
        return lines

    def summary(self) -> dict[str, object]:
        """Return the figures, for JSON."""
        return {
            "cut": self.duplicates.cut,
            "false_share": self.duplicates.false_share,
            "pairs": len(self.duplicates.pairs),
            "exact_pairs": sum(pair.exact for pair in self.duplicates.pairs),
            "images_with_copies": dict(self.copies),
            "conflicts": self.conflicts,
            "constant_images": {split: list(places) for split, places in self.constant.items()},
            "absent_classes": {split: list(names) for split, names in self.absent.items()},
            "imbalance": self.imbalance,
            "shared_groups": None if self.shared is None else list(self.shared),
        }


def find(dataset: Dataset, duplicates: Duplicates) -> Findings:
    """Return what is wrong with a dataset whose near-duplicates are known."""
    counts = {split: count(dataset[split].labels, dataset) for split in SPLITS}
    train = counts["train"][counts["train"] > 0]
    return Findings(
        constant={split: _constant(dataset[split]) for split in SPLITS},
        absent={
            split: tuple(name for name, number in zip(dataset.info.labels, found, strict=True) if not number)
            for split, found in counts.items()
        },
        imbalance=float(train.max() / train.min()) if len(train) else 1.0,
        shared=None if dataset.groups is None else _shared(dataset.groups),
        duplicates=duplicates,
        copies={split: int(duplicates.flagged(split, within=EARLIER[split]).sum()) for split in ("val", "test")},
        conflicts=len(conflicts(duplicates, dataset)),
    )


def copies_in(dataset: Dataset, split: str) -> Bool[np.ndarray, " n"]:
    """Return which images of a split have a near-duplicate in an earlier one; those of train in any other."""
    return find_duplicates(dataset, across_only=True).flagged(split, within=EARLIER[split])


def count(labels: NDArray[np.int64], dataset: Dataset) -> NDArray[np.int64]:
    """Return the number of images of each class, or with each label, `(c,)`."""
    if dataset.info.task == "multi-label":
        found: NDArray[np.int64] = labels.sum(axis=0)
        return found
    return np.bincount(labels[:, 0], minlength=dataset.info.num_classes)


def _constant(split: Split) -> tuple[int, ...]:
    found: list[int] = []
    for start, images in split.parts():
        flat = images.reshape(len(images), -1)
        found += (start + np.flatnonzero((flat == flat[:, :1]).all(axis=1))).tolist()
    return tuple(found)


def _shared(groups: Groups) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    for names in groups.values():
        for name in np.unique(names).tolist():
            seen[name] = seen.get(name, 0) + 1
    return tuple(sorted(name for name, number in seen.items() if number > 1))


def _some(names: object, most: int = 5) -> str:
    found = list(names)  # type: ignore[call-overload]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
