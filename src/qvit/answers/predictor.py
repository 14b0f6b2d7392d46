"""A trained model that is asked about new images: `qvit.load("RUN").predict(…)`."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, fields
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from qvit.answers.calibrated import Answering, Calibration, unit
from qvit.answers.evidence import Evidence, evidence_of
from qvit.answers.explaining import Case, explained, of_files
from qvit.answers.hub import folder_of
from qvit.answers.members import Asked, ask, ask_files, ask_files_of, key_of, open_member
from qvit.answers.needs import Square
from qvit.answers.reading import in_parts, named
from qvit.answers.spread import in_order
from qvit.errors import ConfigError, DataError, RunError, nearest
from qvit.evaluation import calibration, novelty
from qvit.training.folder import Run

REVERSED = 0.25  # of the distance to the training images' mean colour: that near, once red and blue are swapped
_COLOURED = 0.5  # standard deviations that colours must be off for that


class CalibrationWarning(UserWarning):
    """Answers that cannot be calibrated, and why."""


class ImageWarning(UserWarning):
    """Images that look as if something was done to them before."""


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    `label` is the likeliest class, or of several labels those that are likelier than not, or what an operating point
    decides; None if the answer is withheld, as its `confidence` is too low, or if there is an `error`. `probabilities`
    are calibrated, by the names of classes. `possible` holds the answer and all that is not excluded, see
    `Answering.sets`; `possible_by_class` promises that for each class, not just on average. `distance` is how far the
    image is from those trained on, in units of what is usual on validation; `unlike` whether that is too far, None if
    that is not known.
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
class Scored:
    """What is said of one image, the name of its file, and the `scores` (c,) that this is made of; None if broken."""

    prediction: Prediction
    file: str
    scores: Float[np.ndarray, " c"] | None


class Predictor:
    """One trained model, or several whose probabilities are averaged.

    `members` are the models, `needs` says what an image must be, `calibration` how answers are given. Raises RunError
    for runs that are not finished, damaged, or of different data.
    """

    def __init__(
        self,
        runs: Sequence[str | Path],
        options: Answering | None = None,
        *,
        root: str | Path | None = None,
        data: str | Path | None = None,
    ) -> None:
        self.options = options or Answering()
        if not runs:
            raise RunError("Expected at least one run folder, got none.")
        self._runs = [*runs]
        self.members = [open_member(Run(folder_of(run))) for run in runs]
        self.needs = self.members[0].needs
        for run, member in zip(runs, self.members, strict=True):
            if (member.needs.task, member.needs.classes) != (self.needs.task, self.needs.classes):
                raise RunError(f"Expected runs that tell the same classes apart, but those of {run} are others.")
            if (member.needs.size, member.needs.channels) != (self.needs.size, self.needs.channels):
                raise RunError(f"Expected runs on images of one size and kind, but those of {run} are others.")
            if member.run.fold != self.members[0].run.fold:
                raise RunError(
                    "Expected runs that held out the same images, by which their answers are calibrated together, but "
                    f"{run} held out others. Ask runs of different folds one by one."
                )
        known = [evidence_of(member.run, root=root, file=data) for member in self.members]
        self._evidence = [evidence for evidence in known if evidence is not None]
        if len(self._evidence) < len(known):
            self._evidence = []
        self.calibration = Calibration.learn(self._evidence, self.needs, self.options)
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
        if isinstance(images, Iterator):
            images = [*images]
        words = [images] if isinstance(images, str | Path) else images
        paths = [isinstance(word, str | Path) for word in words] if isinstance(words, Sequence | Set) else []
        if any(paths):
            if not all(paths):
                raise DataError("Expected paths or images, got both. Ask about them one after the other.")
            return [*self.stream(words)]
        squares = self.needs.arrays(images)
        if not squares:
            return []
        stacked = self._stacked(squares)
        self._check_colours(stacked)
        return self.say([f"image {place}" for place in range(len(squares))], stacked)

    def explain(self, images: Any, target: str | None = None) -> list[Case]:
        """Return each image with what is said of it, and maps of where that is seen, as `Case`s.

        `images` are paths or images, as for `predict`; the maps are of the class `target`, or of the likeliest. Raises
        DataError for what cannot be read, for more than 100 files, and for a class that the run does not know;
        ConfigError for several runs together.
        """
        images = [*images] if isinstance(images, Iterator) else images
        words = [images] if isinstance(images, str | Path) else images
        if isinstance(words, Sequence | Set) and words and all(isinstance(word, str | Path) for word in words):
            return [*of_files(self, [*words], target)]
        squares = self.needs.arrays(images)
        return [*explained(self, [f"image {place}" for place in range(len(squares))], self._stacked(squares), target)]

    def _stacked(self, squares: Sequence[Square]) -> UInt8[np.ndarray, "m c s s"]:
        shape = (-1, self.needs.channels, self.needs.size, self.needs.size)
        return np.array(squares, np.uint8).reshape(shape)

    def say(self, sources: Sequence[str], squares: UInt8[np.ndarray, "m c s s"]) -> list[Prediction]:
        """Return what is said of images that are as the runs need them, at least one."""
        return self._told(sources, ask(self.members, squares))

    def stream(self, words: str | Path | Iterable[str | Path], lines: Iterable[str] = ()) -> Iterator[Prediction]:
        """Yield what is said of each image that words name, see `reading.named`, in order and in bounded memory."""
        return (scored.prediction for scored in self.scored(words, lines))

    def scored(self, words: str | Path | Iterable[str | Path], lines: Iterable[str] = ()) -> Iterator[Scored]:
        """Yield the same with the file of each image, and its probabilities before they are calibrated."""
        here = partial(ask_files, self.members)
        there = partial(ask_files_of, key_of(self.members), Path.cwd())
        words = [words] if isinstance(words, str | Path) else words
        parts, many = in_parts(named(words, lines), self.needs)
        for found in in_order(parts, here, there if many else None):
            block, asked = found.block, found.asked
            good = [source for source, error in zip(block.sources, block.errors, strict=True) if error is None]
            answers = iter(() if asked is None else zip(self._told(good, asked), asked.scores, strict=True))
            frames = Counter(block.files)
            for place, source, error in zip(block.files, block.sources, block.errors, strict=True):
                file = source if frames[place] == 1 else source.rpartition("#")[0]
                prediction, scores = next(answers) if error is None else (Prediction(source, error=error), None)
                yield Scored(prediction, file, scores)

    def _told(self, sources: Sequence[str], asked: Asked) -> list[Prediction]:
        scores, names, several = asked.scores, self.needs.classes, self.needs.task == "multi-label"
        told = self.calibration.probabilities(scores)
        decided = self.calibration.decided(told)
        confidences = calibration.confidence(told, decided, self.needs.task)
        withheld = confidences < self.calibration.least
        answers = _names(names, decided)
        sets = [_names(names, self.calibration.possible(scores, decided, by_class=each)) for each in (False, True)]
        count = len(sources)
        distances: list[float | None] = [None] * count
        unlike: list[bool | None] = [None] * count
        if self._evidence:
            far = np.mean([_distances(*pair) for pair in zip(self._evidence, asked.features, strict=True)], axis=0)
            distances = far.tolist()
            if np.isfinite(self.calibration.furthest):
                unlike = (far > self.calibration.furthest).tolist()
        return [
            Prediction(
                source,
                None if hidden else answer if several else answer[0],
                confidence,
                hidden,
                dict(zip(names, row, strict=True)),
                possible,
                by_class,
                distance,
                strange,
            )
            for source, answer, confidence, hidden, row, possible, by_class, distance, strange in zip(
                sources,
                answers,
                confidences.tolist(),
                withheld.tolist(),
                told.tolist(),
                *sets,
                distances,
                unlike,
                strict=True,
            )
        ]

    def _check_colours(self, squares: UInt8[np.ndarray, "m 3 s s"] | UInt8[np.ndarray, "m 1 s s"]) -> None:
        """Warn of images whose mean colour is that of the training images once red and blue are swapped."""
        if self.needs.channels != 3 or not len(squares):
            return
        preprocess = self.members[0].model.preprocess
        usual, spread = (part.double().numpy() for part in (preprocess.mean, preprocess.std))
        found = squares.mean(axis=(0, 2, 3)) / 255
        as_is, swapped = (float(np.linalg.norm((mean - usual) / spread)) for mean in (found, found[::-1]))
        if as_is > _COLOURED and swapped < REVERSED * as_is:
            text = "their mean colour is that of the training images with red and blue swapped. Give red, green, blue."
            warnings.warn(f"These images may be in the order blue, green, red: {text}", ImageWarning, stacklevel=3)


def _names(names: Sequence[str], chosen: Bool[np.ndarray, "m k"]) -> list[tuple[str, ...]]:
    return [tuple(compress(names, row)) for row in chosen.tolist()]


def _distances(evidence: Evidence, features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
    return novelty.distances(evidence.usual, features) / unit(evidence)


def load(
    run: str | Path | Sequence[str | Path],
    *,
    root: str | Path | None = None,
    data: str | Path | None = None,
    **options: Any,
) -> Predictor:
    """Return the model of a run folder, or of several as an ensemble, to be asked about new images.

    `hf://owner/name` or `hf://owner/name@revision` is a run on a Hugging Face hub, see `hub.folder_of`.
    `options` are those of `Answering`: sets, coverage, error, alarms, sensitivity, specificity. Calibration is learnt
    from the run's data if its folder does not keep it yet: `root` is the folder of official files, `data` where the
    user's own lie now. Nothing is downloaded. Warns (`CalibrationWarning`) of what cannot be calibrated. Raises
    RunError as `Predictor` does, ConfigError for options.
    """
    from qvit.validate import validated

    known = [field.name for field in fields(Answering)]
    for name in options:
        if name not in known:
            raise ConfigError(f"Answers have no option '{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
    runs = [run] if isinstance(run, str | Path) else list(run)
    return Predictor(runs, validated(Answering, options), root=root, data=data)
