"""Answers about patients: what a model says of all images of one, on average; memory grows with patients alone."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvit.answers.predictor import Prediction, Predictor
from qvit.data.listing import compile_pattern, group_of
from qvit.evaluation import calibration


@dataclass(frozen=True)
class GroupPrediction:
    """What is said of a `group`, whose `images` are averaged: their probabilities, before these are calibrated.

    `label`, `confidence`, `withheld` and `probabilities` are as of a `Prediction`, by the temperature and thresholds of
    images. There are no sets of possible classes: these promise how many images' true class they hold, not how many
    patients'. `error` tells of a group without any image that could be read.
    """

    group: str
    images: int
    label: str | tuple[str, ...] | None = None
    confidence: float | None = None
    withheld: bool = False
    probabilities: dict[str, float] | None = None
    error: str | None = None


class Grouping:
    """Gathers what a predictor says of images by the groups that a pattern finds in the paths of their files.

    The pattern is a regular expression that is searched for in a path below the folder that was named, as in an import,
    or in the path of a picture itself: its first group, or the whole match without one. `unmatched` counts images
    without a group. Raises ConfigError for an invalid pattern.
    """

    def __init__(self, predictor: Predictor, pattern: str) -> None:
        self.unmatched = 0
        self._predictor = predictor
        self._pattern = compile_pattern(pattern)
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def stream(
        self, words: str | Path | Iterable[str | Path], lines: Iterable[str] = ()
    ) -> Iterator[tuple[Prediction, str | None]]:
        """Yield what is said of each image, as `Predictor.stream`, and its group; without one, an error says so."""
        words = [words] if isinstance(words, str | Path) else [*words]
        above = [os.fspath(Path(word) / "_")[:-1] for word in words if os.path.isdir(word)]  # noqa: PTH112 - as in `reading`
        for scored in self._predictor.scored(words, lines):
            start = max((len(folder) for folder in above if scored.file.startswith(folder)), default=0)
            prediction, group = scored.prediction, group_of(scored.file[start:], self._pattern)
            if group is not None:
                found = 0.0 if scored.scores is None else scored.scores
                self._sums[group] = self._sums.get(group, np.zeros(len(self._predictor.needs.classes))) + found
                self._counts[group] = self._counts.get(group, 0) + (scored.scores is not None)
            elif prediction.error is None:
                self.unmatched += 1
                expected = f"expected a group in the path ('{self._pattern.pattern}'), found none"
                prediction = Prediction(prediction.source, error=f"{expected}. Change the pattern, or the path.")
            yield prediction, group

    def predictions(self) -> list[GroupPrediction]:
        """Return what is said of each group so far, in the order in which they came first."""
        known = [name for name, count in self._counts.items() if count]
        means = np.array([self._sums[name] / self._counts[name] for name in known])
        answers = dict(zip(known, self._answers(means) if known else (), strict=True))
        nothing: dict[str, Any] = {"error": "none of its files could be read"}
        return [GroupPrediction(name, count, **answers.get(name, nothing)) for name, count in self._counts.items()]

    def _answers(self, scores: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
        learnt, names, task = self._predictor.calibration, self._predictor.needs.classes, self._predictor.needs.task
        told = learnt.probabilities(scores)
        decided = learnt.decided(told)
        confidences = calibration.confidence(told, decided, task)
        for row, answer, confidence in zip(told.tolist(), decided.tolist(), confidences.tolist(), strict=True):
            label = tuple(compress(names, answer))
            withheld = confidence < learnt.least
            yield {
                "label": None if withheld else label if task == "multi-label" else label[0],
                "confidence": confidence,
                "withheld": withheld,
                "probabilities": dict(zip(names, row, strict=True)),
            }
