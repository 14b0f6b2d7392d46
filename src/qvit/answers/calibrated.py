"""From what models said of validation images to how their answers are given: temperature, thresholds, sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from qvit.answers.evidence import Evidence, Measure
from qvit.answers.needs import Needs
from qvit.errors import ConfigError, RunError
from qvit.evaluation import calibration, conformal
from qvit.evaluation.metrics import expected_calibration_error
from qvit.validate import require

MEASURES: tuple[Measure, ...] = ("sensitivity", "specificity")
UNKNOWN = (
    "Not calibrated, and no answer is withheld: the run's folder keeps no predictions of validation images, and its "
    "data cannot be read. Say where they are with --data, official files with --root (in Python data=…, root=…)."
)


@dataclass(frozen=True)
class Answering:
    """How answers are given.

    `sets` is the share of images whose set of possible classes is to hold the true one; of several labels, the share
    of images with a label for which that is possible. Answers are withheld such that a share `coverage` of the
    validation images is answered, or such that a share `error` of the answers is wrong there; by default none are.
    `alarms` is the share of images like those trained on that may be called unlike them; 0 gives no such warning.
    `sensitivity` or `specificity` is what yes-or-no answers are to reach on validation images; by default it is the one
    kept in the run's folder, if any, else yes is what is likelier than not.
    """

    sets: float = 0.9
    coverage: float | None = None
    error: float | None = None
    alarms: float = 0.05
    sensitivity: float | None = None
    specificity: float | None = None

    def __post_init__(self) -> None:
        require(0 < self.sets < 1, "sets", "above 0 and below 1", self.sets)
        require(0 <= self.alarms < 1, "alarms", "from 0 to below 1", self.alarms)
        for name in ("coverage", "error", "sensitivity", "specificity"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, name, "above 0 and at most 1", value)
        for name, other in (("error", "coverage"), ("specificity", "sensitivity")):
            both = None not in (getattr(self, name), getattr(self, other))
            require(not both, name, f"given without {other}", getattr(self, name))

    @property
    def operating(self) -> tuple[Measure, float] | None:
        """The measure that decisions are to reach, and its value."""
        given = [(name, getattr(self, name)) for name in MEASURES]
        return next(((name, value) for name, value in given if value is not None), None)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How answers of one model, or of several on average, are given.

    `temperature` makes probabilities match how often they are right on validation; `ece` is the expected calibration
    error of these images before and after, None if there are too few. Answers below a confidence of `least` are
    withheld. A class is possible if 1 − p is at most its threshold, of `overall` or `by_class` (c,); of labels, both
    are by the images that have them. Yes-or-no answers are yes from the probabilities `yes` (k,) on, None where the
    likeliest class is the answer. Images further than `furthest` from what is usual are unlike those trained on.
    `notes` say what is missing, and why.
    """

    task: str
    temperature: float
    ece: tuple[float, float] | None
    least: float
    overall: Float[np.ndarray, " c"]
    by_class: Float[np.ndarray, " c"]
    yes: Float[np.ndarray, " k"] | None
    furthest: float
    notes: tuple[str, ...]

    def decided(self, told: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, "n c"]:
        """Return which class, or which labels, are the answers, by the probabilities that are told."""
        return calibration.decided(told, self.task, self.yes)

    def probabilities(self, scores: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """Return the probabilities that are told."""
        return calibration.tempered(scores, self.temperature, self.task)

    def possible(
        self, scores: Float[np.ndarray, "n c"], answers: Bool[np.ndarray, "n c"], *, by_class: bool
    ) -> Bool[np.ndarray, "n c"]:
        """Return which classes, or labels, are possible: those in the set, and those of the answer in any case."""
        return conformal.sets(scores, self.by_class if by_class else self.overall) | answers

    @classmethod
    def learn(cls, evidence: Sequence[Evidence], needs: Needs, options: Answering) -> "Calibration":
        """Learn from one model's evidence, or from that of several whose scores are averaged.

        Raises RunError if these are of different validation images.
        """
        if not evidence:
            return cls._without(needs, UNKNOWN)
        labels, scores, distances = together(evidence)
        task, count, notes = needs.task, len(labels), []
        temperature, ece, least = 1.0, None, -math.inf
        if count < calibration.FEWEST:
            withheld = "" if options.coverage is options.error is None else ", and no answer is withheld"
            notes.append(f"Not calibrated: {count} validation images, where {calibration.FEWEST} are needed{withheld}.")
        else:
            temperature = calibration.fit_temperature(labels, scores, task)
        told = calibration.tempered(scores, temperature, task)
        chosen = options.operating or _common([each.operating for each in evidence], notes)
        yes = None if chosen is None else _operating(labels, told, task, chosen)
        if count >= calibration.FEWEST:
            before, after = (expected_calibration_error(labels, some, task) for some in (scores, told))
            ece = before, after
            least = _least(labels, told, calibration.decided(told, task, yes), task, options)
        if least == math.inf:
            notes.append(f"No confidence keeps errors on validation images at {options.error:g}: none is answered.")
        overall, by_class = (_limits(labels, scores, task, options.sets, by_class=each) for each in (False, True))
        notes += _told_of_sets(overall, by_class, needs, options.sets)
        furthest = math.inf
        if options.alarms:
            furthest = conformal.quantile(distances, 1 - options.alarms)
            if furthest == math.inf:
                need = conformal.fewest(1 - options.alarms)
                notes.append(f"No warning of unlike images: {count} validation images, where {need} are needed.")
        return cls(task, temperature, ece, least, overall, by_class, yes, furthest, tuple(notes))

    @classmethod
    def _without(cls, needs: Needs, note: str) -> "Calibration":
        every = np.full(len(needs.classes), np.inf)
        return cls(needs.task, 1.0, None, -math.inf, every, every, None, math.inf, (note,))


def together(
    evidence: Sequence[Evidence],
) -> tuple[Int64[np.ndarray, "n k"], Float[np.ndarray, "n c"], Float[np.ndarray, " n"]]:
    """Return labels, mean scores and mean distances, each in units of its own median, of the validation images."""
    first = evidence[0]
    if any(not np.array_equal(first.labels, other.labels) for other in evidence[1:]):
        raise RunError("Expected runs on the same data, found other validation images. Choose runs of one dataset.")
    scores = np.mean([each.scores for each in evidence], axis=0)
    return first.labels, scores, np.mean([each.distances / unit(each) for each in evidence], axis=0)


def unit(evidence: Evidence) -> float:
    """Return the distance that counts as one: the median of validation images."""
    return float(np.median(evidence.distances)) or 1.0


def _least(
    labels: Int64[np.ndarray, "n k"],
    told: Float[np.ndarray, "n c"],
    answers: Bool[np.ndarray, "n c"],
    task: str,
    options: Answering,
) -> float:
    if options.coverage is None and options.error is None:
        return -math.inf
    errors = calibration.wrong(labels, answers, task)
    curve = calibration.risk_coverage(calibration.confidence(told, answers, task), errors)
    if options.coverage is not None:
        return calibration.threshold_for_coverage(curve, options.coverage)
    assert options.error is not None
    return calibration.threshold_for_error(curve, options.error)


def _common(values: Sequence[tuple[Measure, float] | None], notes: list[str]) -> tuple[Measure, float] | None:
    """Return the value that all are equal to; None, which is noted, if they differ."""
    if all(value == values[0] for value in values):
        return values[0]
    notes.append("The runs have different operating points: none is used, and yes is what is likelier than not.")
    return None


def _operating(
    labels: Int64[np.ndarray, "n k"], told: Float[np.ndarray, "n c"], task: str, chosen: tuple[Measure, float]
) -> Float[np.ndarray, " k"]:
    """Return from which probabilities on yes-or-no answers are yes: 0.5 for a label that all images have, or none.

    Raises ConfigError for tasks that ask which class.
    """
    measure, value = chosen
    if task not in ("binary", "multi-label"):
        raise ConfigError(f"A {measure} is chosen for yes-or-no questions, and this task is {task}. Leave it out.")
    columns = told if task == "multi-label" else told[:, 1:]
    yes = np.full(labels.shape[1], 0.5)
    for k, positive in enumerate((labels == 1).T):
        if positive.any() and not positive.all():
            yes[k] = calibration.operating_threshold(positive, columns[:, k], **{measure: value})
    return yes


def _limits(
    labels: Int64[np.ndarray, "n k"], scores: Float[np.ndarray, "n c"], task: str, coverage: float, *, by_class: bool
) -> Float[np.ndarray, " c"]:
    """Return how improbable each class, or label, may be; a label by the images that have it, in any case.

    Over yes and no together, the many images without a rare label would decide how often it is missed.
    """
    if task != "multi-label":
        return conformal.thresholds(labels[:, 0], scores, coverage, by_class=by_class)
    columns = zip(labels.T, scores.T, strict=True)
    return np.array([conformal.quantile(1 - column[label == 1], coverage) for label, column in columns])


def _told_of_sets(
    overall: Float[np.ndarray, " c"], by_class: Float[np.ndarray, " c"], needs: Needs, coverage: float
) -> list[str]:
    need = conformal.fewest(coverage)
    if np.isinf(overall).all():
        return [f"Each class is possible for each image: a coverage of {coverage:g} takes {need} validation images."]
    names = [name for name, missing in zip(needs.classes, np.isinf(by_class), strict=True) if missing]
    if not names:
        return []
    return [f"Always possible by class, as fewer than {need} validation images have them: {', '.join(names)}."]
