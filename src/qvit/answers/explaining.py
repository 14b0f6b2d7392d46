"""Files explained: what a run says of them, the maps of its answers, and whether these depend on what it has learnt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from qvit.answers.maps import Maps, alike, maps_of, randomised
from qvit.answers.predictor import Prediction, Predictor
from qvit.answers.reading import block, named
from qvit.errors import DataError
from qvit.training.surroundings import surroundings

MOST_CASES = 100  # files that are explained at once
CHANGED = 0.5  # rank correlation with the maps of random weights from which on a map is said not to change


@dataclass(frozen=True, eq=False)
class Case:
    """An image (c, s, s), what is said of it, the class that the maps are of, and the maps."""

    image: UInt8[np.ndarray, "c s s"]
    prediction: Prediction
    target: str
    maps: Maps


class Explainer:
    """Explains the answers of one trained run; warns and raises as `Predictor` does."""

    def __init__(self, run: str | Path, *, root: str | Path | None = None, data: str | Path | None = None) -> None:
        self._predictor = Predictor([run], root=root, data=data)
        [self._member] = self._predictor.members
        self.needs = self._member.needs
        self._images: list[UInt8[np.ndarray, "c s s"]] = []
        self._targets: list[int] = []
        self._maps: list[Maps] = []

    def cases(self, words: Sequence[str | Path], target: str | None = None) -> Iterator[Case]:
        """Yield the case of each image that words name, see `reading.named`: of the class `target`, or the likeliest.

        Raises DataError for a file that cannot be read, more than 100 images, and a class that the run does not know.
        """
        names = self.needs.classes
        if target is not None and target not in names:
            raise DataError(f"Expected a class that the run knows ({', '.join(names)}), got '{target}'.")
        files = [*named(words, ())]
        if len(files) > MOST_CASES:
            raise DataError(f"Expected at most {MOST_CASES} pictures to explain, got {len(files)}. Name fewer.")
        found = block(self.needs, 0, files)
        wrong = next((pair for pair in zip(found.sources, found.errors, strict=True) if pair[1] is not None), None)
        if wrong is not None:
            raise DataError(f"{wrong[0]}: {wrong[1]}")
        for source, image in zip(found.sources, found.squares, strict=True):
            [prediction] = self._predictor.say([source], image[None])
            assert prediction.probabilities is not None
            chosen = target or max(prediction.probabilities, key=prediction.probabilities.__getitem__)
            number = names.index(chosen)
            with surroundings(self._member.threads):
                maps = maps_of(self._member.model, image, self.needs.task, number)
            self._images.append(image)
            self._targets.append(number)
            self._maps.append(maps)
            yield Case(image, prediction, chosen, maps)

    def unlearnt(self) -> dict[str, float]:
        """Return how alike the maps so far are to those of a model with random weights, from 0 to 1, by name."""
        with surroundings(self._member.threads):
            fresh = randomised(self._member.model)
            others = [
                maps_of(fresh, image, self.needs.task, number)
                for image, number in zip(self._images, self._targets, strict=True)
            ]
        return alike(self._maps, others)
