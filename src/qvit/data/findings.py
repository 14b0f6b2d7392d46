"""What is wrong with a dataset or may mislead: copies across splits, labels at odds, groups in two splits, and more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from qvit.data.arrays import Dataset, Split
from qvit.data.chance import FEWEST
from qvit.data.duplicates import Duplicates, Pair, conflicts, find_duplicates
from qvit.data.registry import SPLITS
from qvit.data.source import Groups
from qvit.errors import DataError
from qvit.files import shown

EARLIER = {"train": ("val", "test"), "val": ("train",), "test": ("train", "val")}  # where a copy of an image misleads
UNEQUAL = 10.0  # times as many images of the largest class as of the smallest
NOTHING = (
    "No near-duplicates across splits, groups in several splits, missing classes, constant images or very unequal "
    "classes were found."
)
_NAMED = 5  # things that a line names


@dataclass(frozen=True)
class Findings:
    """What is wrong with a dataset.

    `constant` holds the positions of images of each split whose pixels are all equal, `absent` the classes without an
    image in it, `imbalance` how many times larger the largest class is than the smallest in training, and `shared` the
    groups with images in several splits, None if groups are not known. `duplicates` are None if they were not looked
    for; else `copies` says how many images of val and test have a near-duplicate in an earlier split, and `conflicts`
    holds the near-duplicates with different labels.
    """

    constant: Mapping[str, tuple[int, ...]]
    absent: Mapping[str, tuple[str, ...]]
    imbalance: float
    shared: tuple[str, ...] | None
    duplicates: Duplicates | None
    copies: Mapping[str, int]
    conflicts: tuple[Pair, ...]

    def told(self, dataset: Dataset) -> list[str]:
        """Return what there is to say, one short line each; the most misleading first."""
        lines = []
        for split, earlier in (("test", "train or val"), ("val", "train")):
            number, images = self.copies.get(split, 0), len(dataset[split])
            if number:
                lines.append(
                    f"{number:,} of {images:,} images of {split} ({number / images:.1%}) {_have(number)} a "
                    f"near-duplicate in {earlier}; measures are also given without them (qvit evaluate)."
                )
        if self.conflicts:
            pairs = _number(len(self.conflicts), "pair")
            lines.append(f"{pairs} of near-duplicates {_have(len(self.conflicts))} different labels.")
        lines += self._limits(len(dataset.train))
        if self.shared:
            groups = _number(len(self.shared), "group")
            lines.append(f"{groups} {_have(len(self.shared))} images in several splits: {_some(self.shared)}.")
        elif self.shared is None:
            lines.append("Groups, such as patients, are not known: whether one stands in two splits cannot be told.")
        for split, classes in self.absent.items():
            if classes:
                lines.append(f"No image of {_some(classes)} in {split}.")
        for split, places in self.constant.items():
            if places:
                images_ = _number(len(places), "image")
                lines.append(f"{images_} of {split} {_have(len(places))} equal pixels throughout: {_some(places)}.")
        if self.imbalance >= UNEQUAL:
            lines.append(f"The largest class has {self.imbalance:.0f} times as many training images as the smallest.")
        return lines

    def _limits(self, train: int) -> list[str]:
        """Return what of near-duplicates was not looked for, in at most one line."""
        if self.duplicates is None:
            return ["Near-duplicates were not looked for."]
        if self.duplicates.cut:
            return []
        there = f", and there are {train}" if train < FEWEST else f" that differ, and fewer of the {train:,} do"
        return [f"Only exact copies were looked for: near-duplicates need at least {FEWEST} training images{there}."]

    def summary(self) -> dict[str, object]:
        """Return the figures, for JSON; None stands for what was not looked for, or is not known."""
        found = self.duplicates
        return {
            "copies": None
            if found is None
            else {
                "cut": found.cut,
                "false_share": found.false_share,
                "pairs": len(found.pairs),
                "exact_pairs": sum(pair.exact for pair in found.pairs),
                "images_with_copies": dict(self.copies),
                "conflicts": len(self.conflicts),
            },
            "constant_images": {split: list(places) for split, places in self.constant.items()},
            "absent_classes": {split: list(names) for split, names in self.absent.items()},
            "imbalance": self.imbalance,
            "shared_groups": None if self.shared is None else list(self.shared),
        }


def find(dataset: Dataset, duplicates: Duplicates | None = None) -> Findings:
    """Return what is wrong with a dataset whose near-duplicates are known, or were not looked for.

    Raises DataError for near-duplicates of a dataset with other numbers of images, and if the file behind mapped images
    was shortened meanwhile.
    """
    images = {split: len(part) for split, part in dataset.splits.items()}
    if duplicates is not None and dict(duplicates.images) != images:
        raise DataError(
            f"Expected near-duplicates of this dataset, with {_images(images)}, got those of one with "
            f"{_images(duplicates.images)}. Find them anew."
        )
    counts = {split: count(dataset[split].labels, dataset) for split in SPLITS}
    train = counts["train"][counts["train"] > 0]
    return Findings(
        constant={split: _constant(dataset[split]) for split in SPLITS},
        absent={
            split: tuple(name for name, number in zip(dataset.info.labels, found, strict=True) if not number)
            for split, found in counts.items()
        },
        imbalance=float(train.max() / train.min()) if len(train) else 1.0,
        shared=None if dataset.groups is None else shared_groups(dataset.groups),
        duplicates=duplicates,
        copies={}
        if duplicates is None
        else {split: int(duplicates.flagged(split, within=EARLIER[split]).sum()) for split in ("val", "test")},
        conflicts=() if duplicates is None else conflicts(duplicates, dataset),
    )


def copies_in(dataset: Dataset, split: str) -> Bool[np.ndarray, " n"]:
    """Return which images of a split have a near-duplicate in an earlier one; those of train in any other."""
    return find_duplicates(dataset, across_only=True).flagged(split, within=EARLIER[split])


def count(labels: NDArray[np.int64], dataset: Dataset) -> Int64[np.ndarray, " c"]:
    """Return the number of images of each class, or with each label, `(c,)`."""
    if dataset.info.task == "multi-label":
        return labels.sum(axis=0)
    return np.bincount(labels[:, 0], minlength=dataset.info.num_classes)


def shared_groups(groups: Groups) -> tuple[str, ...]:
    """Return the groups, by name, that have images in several splits."""
    seen: dict[str, int] = {}
    for names in groups.values():
        for name in np.unique(names).tolist():
            seen[name] = seen.get(name, 0) + 1
    return tuple(sorted(name for name, number in seen.items() if number > 1))


def _constant(split: Split) -> tuple[int, ...]:
    """Return the positions of the images whose pixels are all equal: of one level, or one colour."""
    found: list[int] = []
    for start, images in split.parts():
        equal = (images == images[:, :, :1, :1]).reshape(len(images), -1)
        found += (start + np.flatnonzero(equal.all(axis=1))).tolist()
    return tuple(found)


def _images(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {number:,}" for split, number in counts.items()) + " images"


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _some(names: Sequence[object]) -> str:
    more = len(names) - _NAMED
    return ", ".join(shown(str(name)) for name in names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
