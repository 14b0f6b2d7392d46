"""Images explained: what a run says of them, maps of its answers, and whether these depend on what it has learnt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from qvit.answers.maps import Maps, alike, maps_of, randomised
from qvit.answers.reading import block, named
from qvit.data.arrays import Split
from qvit.errors import ConfigError, DataError
from qvit.training.surroundings import surroundings

if TYPE_CHECKING:
    from qvit.answers.predictor import Prediction, Predictor

MOST_CASES = 100  # files that are explained at once
CHANGED = 0.5  # rank correlation with the maps of random weights from which on a map is said not to change
SHOWN = 6  # images of each kind that a contact sheet shows
KINDS = ("Right, and most sure", "Wrong, and most sure", "Least sure")
_PART = 4096  # images in memory at a time


@dataclass(frozen=True, eq=False)
class Case:
    """An image (c, s, s), what is said of it, the class that the maps are of, and the maps."""

    image: UInt8[np.ndarray, "c s s"]
    prediction: "Prediction"
    target: str
    maps: Maps


@dataclass(frozen=True)
class Picked:
    """An image of a split that is shown: of which kind, where in the split, and what it truly is."""

    kind: str
    position: int
    truth: str


def explained(
    predictor: "Predictor", sources: Sequence[str], squares: UInt8[np.ndarray, "m c s s"], target: str | None = None
) -> Iterator[Case]:
    """Yield the case of each image that is as a run needs it: of the class `target`, or of the answer.

    That is the likeliest class where the answer is withheld, or of several labels.
    Raises DataError for a class that the run does not know, ConfigError for several runs together.
    """
    _check(predictor, target)
    [member] = predictor.members
    names = predictor.needs.classes
    for source, square in zip(sources, squares, strict=True):
        [said] = predictor.say([source], square[None])
        assert said.probabilities is not None
        likeliest = max(said.probabilities, key=said.probabilities.__getitem__)
        chosen = target or (said.label if isinstance(said.label, str) else likeliest)
        with surroundings(member.threads):
            maps = maps_of(member.model, square, predictor.needs.task, names.index(chosen))
        yield Case(square, said, chosen, maps)


def of_files(predictor: "Predictor", words: Sequence[str | Path], target: str | None = None) -> Iterator[Case]:
    """Yield the case of each image that words name, see `reading.named`.

    Raises DataError for a file that cannot be read, and for more than 100 of them; else as `explained`.
    """
    _check(predictor, target)
    files = [*named(words, ())]
    if not files:
        raise DataError("Expected pictures to explain, got none. Name pictures, or folders of pictures.")
    if len(files) > MOST_CASES:
        raise DataError(f"Expected at most {MOST_CASES} pictures to explain, got {len(files)}. Name fewer.")
    found = block(predictor.needs, 0, files)
    wrong = next((pair for pair in zip(found.sources, found.errors, strict=True) if pair[1] is not None), None)
    if wrong is not None:
        raise DataError(f"{wrong[0]}: {wrong[1]}")
    yield from explained(predictor, found.sources, found.squares, target)


def _check(predictor: "Predictor", target: str | None) -> None:
    names = predictor.needs.classes
    if target is not None and target not in names:
        raise DataError(f"Expected a class that the run knows ({', '.join(names)}), got '{target}'.")
    if len(predictor.members) > 1:
        raise ConfigError(f"Expected one run to explain, got {len(predictor.members)}. Explain them one by one.")


def picked(predictor: "Predictor", split: Split, *, each: int = SHOWN) -> list[Picked]:
    """Return the images of a split that show best what a run can do and what not: `each` of every kind, at most."""
    names = predictor.needs.classes
    order: list[tuple[float, int, bool]] = []
    truths: list[tuple[str, ...]] = []
    for start in range(0, len(split), _PART):
        places = np.arange(start, min(start + _PART, len(split)))
        images, labels = split.batch(places)
        for place, said, label in zip(places, predictor.say([""] * len(places), images.numpy()), labels, strict=True):
            several = predictor.needs.task == "multi-label"
            chosen = np.flatnonzero(label) if several else label.reshape(-1)[:1]
            truths.append(tuple(names[int(number)] for number in chosen))
            answer = said.label if isinstance(said.label, tuple) else (said.label,)
            order.append((said.confidence or 0.0, int(place), answer == truths[-1]))
    order.sort()
    each = min(each, -(-len(order) // len(KINDS)))  # or the surest of a few would not be sure
    right = [place for _, place, good in reversed(order) if good][:each]
    wrong = [place for _, place, good in reversed(order) if not good][:each]
    unsure = [place for _, place, _ in order if place not in {*right, *wrong}][:each]
    return [
        Picked(kind, place, ", ".join(truths[place]) or "none")
        for kind, places in zip(KINDS, (right, wrong, unsure), strict=True)
        for place in places
    ]


def of_split(
    predictor: "Predictor", split: Split, name: str, shown: Sequence[Picked], target: str | None = None
) -> Iterator[Case]:
    """Yield the case of each image that was picked of a split; raises as `explained`."""
    places = np.array([one.position for one in shown], np.int64)
    images = split.batch(places)[0].numpy()
    yield from explained(predictor, [f"{name} {place}" for place in places], images, target)


def unlearnt(predictor: "Predictor", cases: Sequence[Case]) -> dict[str, float]:
    """Return how alike maps are to those of a model with random weights, from 0 to 1, by name."""
    member, needs = predictor.members[0], predictor.needs
    with surroundings(member.threads):
        fresh = randomised(member.model)
        others = [maps_of(fresh, case.image, needs.task, needs.classes.index(case.target)) for case in cases]
    return alike([case.maps for case in cases], others)
