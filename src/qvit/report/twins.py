"""Pairs of near-duplicates as they are shown side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from qvit.data.arrays import Dataset
from qvit.errors import DataError
from qvit.report.survey import NO_LABEL, Image, thumbnail, titled

MOST_PAIRS = 20
PAIR_SIDE = 128  # pixels of an image of a pair, at most
UNTURNED = "as it is"  # what a pair's turn is called if there is none


@runtime_checkable
class Pair(Protocol):
    """Two images that are nearly the same: splits and positions, the distance, how the second was turned."""

    @property
    def first(self) -> tuple[str, int]:
        """Split and position of the first."""

    @property
    def second(self) -> tuple[str, int]:
        """Split and position of the second."""

    @property
    def distance(self) -> float:
        """How far apart they are."""

    @property
    def turn(self) -> str:
        """The symmetry of the square that takes the second to the first."""

    @property
    def exact(self) -> bool:
        """Whether they are equal after that turn."""


@dataclass(frozen=True, eq=False)
class Twins:
    """A pair as it is shown: images, where each stands, its labels, whether these agree, and what is known of it."""

    images: tuple[Image, Image]
    places: tuple[str, str]
    labels: tuple[str, str]
    agree: bool
    told: str


def twins(dataset: Dataset, pairs: Sequence[Pair]) -> list[Twins]:
    """Return the nearest pairs as they are shown, 20 at most, the nearest first.

    Raises ConfigError for a pair in an unknown split, DataError for one at a position that the split does not have.
    """
    for split, position in (end for pair in pairs for end in (pair.first, pair.second)):
        count = len(dataset[split])
        if not 0 <= position < count:
            raise DataError(
                f"Expected pairs of images of this dataset, with positions below {count} in {split}, got {position}. "
                "Find them anew."
            )
    nearest = sorted(pairs, key=lambda pair: (pair.distance, pair.first, pair.second))[:MOST_PAIRS]
    return [_twins(dataset, pair) for pair in nearest]


def twins_told(dataset: Dataset, pairs: Sequence[Pair]) -> str:
    """Return how many pairs there are, how many with different labels, and which are shown, in a sentence."""
    differing = sum(not _agree(dataset, pair) for pair in pairs)
    labels = f"{differing:,} with different labels" if differing else "all with the same labels"
    count = "1 pair" if len(pairs) == 1 else f"{len(pairs):,} pairs"
    return f"{count}, {labels}; the nearest " + (f"{MOST_PAIRS}." if len(pairs) > MOST_PAIRS else "first.")


def _agree(dataset: Dataset, pair: Pair) -> bool:
    (first, i), (second, j) = pair.first, pair.second
    return np.array_equal(dataset[first].labels[i], dataset[second].labels[j])


def _twins(dataset: Dataset, pair: Pair) -> Twins:
    ends = (pair.first, pair.second)
    one, other = (thumbnail(dataset[split], position, PAIR_SIDE) for split, position in ends)
    left, right = (_labels(dataset, *end) for end in ends)
    how = "equal" if pair.exact else f"distance {pair.distance:.3g}"
    return Twins(
        images=(one, other),
        places=(f"{pair.first[0]} {pair.first[1]}", f"{pair.second[0]} {pair.second[1]}"),
        labels=(left, right),
        agree=_agree(dataset, pair),
        told=how if pair.turn == UNTURNED else f"{how}, {pair.turn}",
    )


def _labels(dataset: Dataset, split: str, position: int) -> str:
    labels, info = dataset[split].labels[position], dataset.info
    present = np.flatnonzero(labels) if info.task == "multi-label" else labels
    return " + ".join(titled(k, info.labels[k]) for k in present.tolist()) or NO_LABEL
