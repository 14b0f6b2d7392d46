"""Pairs of near-duplicates as they are shown side by side."""

from collections.abc import Collection
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np

from qvit.data.arrays import Dataset
from qvit.data.duplicates import TURNS, Pair
from qvit.data.findings import Findings
from qvit.report.survey import NO_LABEL, Image, thumbnail, titled

MOST_PAIRS = 20
PAIR_SIDE = 128  # pixels of an image of a pair, at most


@dataclass(frozen=True, eq=False)
class Twins:
    """A pair as it is shown: images, where each stands, its labels, whether these agree, and what is known of it."""

    images: tuple[Image, Image]
    places: tuple[str, str]
    labels: tuple[str, str]
    agree: bool
    told: str


def twins(dataset: Dataset, findings: Findings) -> list[Twins]:
    """Return the pairs that are shown, 20 at most.

    Those with different labels come first, then those across splits, then the others; of each kind the nearest.
    Raises DataError for findings of another dataset, of which an image is not there.
    """
    if findings.duplicates is None:
        return []
    differing = {*findings.conflicts}

    def order(pair: Pair) -> tuple[object, ...]:
        return pair not in differing, pair.first[0] == pair.second[0], pair.distance, pair.first, pair.second

    return [_twins(dataset, pair, differing) for pair in nsmallest(MOST_PAIRS, findings.duplicates.pairs, key=order)]


def twins_told(findings: Findings) -> str:
    """Return how many pairs there are, how many with different labels, and which are shown, in a sentence."""
    pairs, differing = 0 if findings.duplicates is None else len(findings.duplicates.pairs), len(findings.conflicts)
    count = "1 pair" if pairs == 1 else f"{pairs:,} pairs"
    first = (
        f": first the {differing:,} with different labels, then others across splits"
        if differing
        else ", all with the same labels: first those across splits"
    )
    return f"{count}{first}, then those within one" + (f"; {MOST_PAIRS} are shown." if pairs > MOST_PAIRS else ".")


def _twins(dataset: Dataset, pair: Pair, differing: Collection[Pair]) -> Twins:
    ends = (pair.first, pair.second)
    one, other = (thumbnail(dataset[split], position, PAIR_SIDE) for split, position in ends)
    left, right = (_labels(dataset, *end) for end in ends)
    how = "equal" if pair.exact else f"distance {pair.distance:.3g}"
    return Twins(
        images=(one, other),
        places=(f"{pair.first[0]} {pair.first[1]}", f"{pair.second[0]} {pair.second[1]}"),
        labels=(left, right),
        agree=pair not in differing,
        told=how if pair.turn == TURNS[0] else f"{how}, {pair.turn}",
    )


def _labels(dataset: Dataset, split: str, position: int) -> str:
    labels, info = dataset[split].labels[position], dataset.info
    present = np.flatnonzero(labels) if info.task == "multi-label" else labels
    return " + ".join(titled(k, info.labels[k]) for k in present.tolist()) or NO_LABEL
