"""A trained model that is asked about new images: `qvit.load("RUN").predict(…)`."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from qvit.answers.calibrated import Answering, Calibration, unit
from qvit.answers.evidence import Evidence, evidence_of
from qvit.answers.needs import Needs
from qvit.answers.reading import named, read
from qvit.answers.views import answer
from qvit.errors import ConfigError, RunError, nearest
from qvit.evaluation import calibration, novelty
from qvit.models.zoo import Model
from qvit.training.folder import Run
from qvit.training.surroundings import surroundings

REVERSED = 0.25  # of the distance to the training images' mean colour: that near, once red and blue are swapped
_COLOURED = 0.5  # standard deviations that colours must be off for that


class CalibrationWarning(UserWarning):
    """Answers that cannot be calibrated, and why."""


class ImageWarning(UserWarning):
    """Images that look as if something was done to them before."""


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    `label` is the likeliest class, or of several labels those that are likelier than not; None if the answer is
    withheld, as its `confidence` is too low, or if there is an `error`. `probabilities` are calibrated, by the names of
    classes. `possible` holds the likeliest class and those that are not excluded, see `Answering.sets`;
    `possible_by_class` promises that for each class, not just on average. `distance` is how far the image is from those
    trained on, in units of what is usual on validation; `unlike` whether that is too far, None if that is not known.
    """

    source: str
    label: str | tuple[str, ...] | None = None
    confidence: float | None = None
    withheld: bool = False
    probabilities: dict[str, float] | None = None
    possible: tuple[str, ...] = ()
    possible_by_class: tuple[str, ...] = ()
    distance: float | None = None
    unlike: bool | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class _Member:
    model: Model
    needs: Needs
    evidence: Evidence | None


class Predictor:
    """One trained model, or several whose probabilities are averaged.

    `needs` says what an image must be, `calibration` how answers are given. Raises RunError for runs that are not
    finished, damaged, or of different data.
    """

    def __init__(
        self, runs: Sequence[str | Path], options: Answering | None = None, *, root: str | Path | None = None
    ) -> None:
        self.options = options or Answering()
        if not runs:
            raise RunError("Expected at least one run folder, got none.")
        self._runs = [Path(run) for run in runs]
        self._members = [_open(Run(Path(run)), root) for run in runs]
        self.needs = self._members[0].needs
        for run, member in zip(runs, self._members, strict=True):
            if (member.needs.task, member.needs.classes) != (self.needs.task, self.needs.classes):
                raise RunError(f"Expected runs that tell the same classes apart, but those of {run} are others.")
            if (member.needs.size, member.needs.channels) != (self.needs.size, self.needs.channels):
                raise RunError(f"Expected runs on images of one size and kind, but those of {run} are others.")
        known = [member.evidence for member in self._members if member.evidence is not None]
        complete = known if len(known) == len(self._members) else []
        self.calibration = Calibration.learn(complete, self.needs, self.options)
        for note in self.calibration.notes:
            warnings.warn(note, CalibrationWarning, stacklevel=2)

    @property
    def title(self) -> str:
        """The folders of the runs."""
        return " and ".join(map(str, self._runs))

    def predict(self, images: Any) -> list[Prediction]:
        """Return what is said of each image.

        `images` are a path or several, of pictures, folders, or lists of paths (.txt); or arrays, tensors or images of
        PIL, see `Needs.arrays`. Of files that cannot be read the `error` says why; other images raise DataError.
        """
        words = [images] if isinstance(images, str | Path) else images
        if isinstance(words, Sequence) and words and all(isinstance(word, str | Path) for word in words):
            return [*self.stream(words)]
        squares = self.needs.arrays(images)
        shape = (-1, self.needs.channels, self.needs.size, self.needs.size)
        stacked = np.array(squares, np.uint8).reshape(shape)
        self._check_colours(stacked)
        return self._answers([f"image {place}" for place in range(len(squares))], stacked)

    def stream(self, words: Iterable[str | Path], lines: Iterable[str] = ()) -> Iterator[Prediction]:
        """Yield what is said of each image that words name, see `reading.named`, in order and in bounded memory."""
        for block in read(named(words, lines), self.needs):
            good = [source for source, error in zip(block.sources, block.errors, strict=True) if error is None]
            answers = iter(self._answers(good, block.squares))
            for source, error in zip(block.sources, block.errors, strict=True):
                yield next(answers) if error is None else Prediction(source, error=error)

    def _answers(self, sources: Sequence[str], squares: UInt8[np.ndarray, "m c s s"]) -> list[Prediction]:
        if not len(squares):
            return []
        scores, distances = self._ask(squares)
        told, task, names = self.calibration.probabilities(scores), self.needs.task, self.needs.classes
        confidences = calibration.confidence(told, task)
        decided = self.calibration.decided(told)
        possible, by_class = (self.calibration.possible(scores, by_class=each) for each in (False, True))
        found = []
        for place, source in enumerate(sources):
            withheld = bool(confidences[place] < self.calibration.least)
            distance = None if distances is None else float(distances[place])
            label: str | tuple[str, ...] | None = None
            if not withheld:
                several = tuple(name for name, yes in zip(names, decided[place], strict=True) if yes)
                label = several if task == "multi-label" else several[0]
            known = distance is not None and np.isfinite(self.calibration.furthest)
            found.append(
                Prediction(
                    source,
                    label,
                    float(confidences[place]),
                    withheld,
                    dict(zip(names, told[place].tolist(), strict=True)),
                    tuple(name for name, there in zip(names, possible[place], strict=True) if there),
                    tuple(name for name, there in zip(names, by_class[place], strict=True) if there),
                    distance,
                    bool(distance > self.calibration.furthest) if known and distance is not None else None,
                )
            )
        return found

    def _ask(
        self, squares: UInt8[np.ndarray, "m c s s"]
    ) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, " m"] | None]:
        """Return the mean probabilities and distances of all models; no distances if one knows none."""
        scores, distances = [], []
        with surroundings():
            for member in self._members:
                found, features = answer(member.model, squares, self.needs.task, member.needs.symmetries)
                scores.append(found)
                if member.evidence is not None:
                    distances.append(novelty.distances(member.evidence.usual, features) / unit(member.evidence))
        known = len(distances) == len(self._members)
        return np.mean(scores, axis=0), np.mean(distances, axis=0) if known else None

    def _check_colours(self, squares: UInt8[np.ndarray, "m 3 s s"] | UInt8[np.ndarray, "m 1 s s"]) -> None:
        """Warn of images whose mean colour is that of the training images once red and blue are swapped."""
        if self.needs.channels != 3 or not len(squares):
            return
        preprocess = self._members[0].model.preprocess
        usual, spread = (part.double().numpy() for part in (preprocess.mean, preprocess.std))
        found = squares.mean(axis=(0, 2, 3)) / 255
        as_is, swapped = (float(np.linalg.norm((mean - usual) / spread)) for mean in (found, found[::-1]))
        if as_is > _COLOURED and swapped < REVERSED * as_is:
            text = "their mean colour is that of the training images with red and blue swapped. Give red, green, blue."
            warnings.warn(f"These images may be in the order blue, green, red: {text}", ImageWarning, stacklevel=3)


def _open(run: Run, root: str | Path | None) -> _Member:
    needs = Needs.of(run)
    return _Member(run.load_model(), needs, evidence_of(run, root=root))


def load(run: str | Path | Sequence[str | Path], *, root: str | Path | None = None, **options: Any) -> Predictor:
    """Return the model of a run folder, or of several as an ensemble, to be asked about new images.

    `options` are those of `Answering`: sets, coverage, error, alarms, sensitivity, specificity. `root` is the folder of
    the official files, from which calibration is learnt if the run's folder does not keep it yet. Warns
    (`CalibrationWarning`) of what cannot be calibrated. Raises RunError as `Predictor` does, ConfigError for options.
    """
    from qvit.validate import validated

    known = [field.name for field in fields(Answering)]
    for name in options:
        if name not in known:
            raise ConfigError(f"Answers have no option '{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
    runs = [run] if isinstance(run, str | Path) else list(run)
    return Predictor(runs, validated(Answering, options), root=root)
