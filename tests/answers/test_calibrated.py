"""How answers are given, learnt from made-up evidence."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from qvit.answers.calibrated import UNKNOWN, Answering, Calibration
from qvit.answers.evidence import Evidence
from qvit.answers.needs import Needs
from qvit.data.options import ImportOptions
from qvit.errors import ConfigError, RunError
from qvit.evaluation.novelty import Familiar

NAMES = ("a", "b", "c")
USUAL = Familiar(np.zeros(2), np.eye(2))


def needs(task: str = "multi-class") -> Needs:
    return Needs(8, 1, task, NAMES[:2] if task == "binary" else NAMES, "none", ImportOptions())  # type: ignore[arg-type]


def evidence(count: int = 200, task: str = "multi-class", *, factor: float = 3.0, seed: int = 0) -> Evidence:
    """Labels drawn by the softmax of logits, and the scores of logits times a factor: too sure of themselves."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, 2 if task == "binary" else 3))
    if task == "multi-label":
        chance = 1 / (1 + np.exp(-logits))
        labels, scores = (rng.random(chance.shape) < chance).astype(np.int64), 1 / (1 + np.exp(-factor * logits))
    else:
        labels = (rng.random((count, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1, keepdims=True)
        scores = softmax(factor * logits, axis=1)
    return Evidence(scores, labels, rng.chisquare(2, count), USUAL)


@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal", "multi-label"])
def test_probabilities_become_honest(task: str) -> None:
    found = evidence(2000, task)
    learnt = Calibration.learn([found], needs(task), Answering())
    assert learnt.temperature == pytest.approx(3, rel=0.1)
    assert learnt.ece is not None
    assert learnt.ece[1] < 0.04 < 0.08 < learnt.ece[0]
    assert learnt.notes == ()
    assert learnt.least == -math.inf
    told = learnt.probabilities(found.scores)
    assert (told.argmax(axis=1) == found.scores.argmax(axis=1)).all()


def test_few_validation_images_calibrate_nothing() -> None:
    learnt = Calibration.learn([evidence(29)], needs(), Answering(coverage=0.5))
    assert (learnt.temperature, learnt.ece, learnt.least) == (1.0, None, -math.inf)
    assert learnt.notes[0] == "Not calibrated: 29 validation images, where 30 are needed, and no answer is withheld."
    learnt = Calibration.learn([evidence(29)], needs(), Answering())
    assert learnt.notes[0] == "Not calibrated: 29 validation images, where 30 are needed."


def test_without_evidence_everything_is_possible() -> None:
    for task in ("multi-class", "multi-label"):
        learnt = Calibration.learn([], needs(task), Answering())
        assert learnt.notes == (UNKNOWN,)
        for by_class in (False, True):
            assert learnt.possible(np.full((2, 3), 0.2), np.zeros((2, 3), bool), by_class=by_class).all()
        assert learnt.probabilities(np.full((2, 3), 0.2)).tolist() == np.full((2, 3), 0.2).tolist()


@pytest.mark.parametrize("coverage", [0.3, 0.8])
def test_answers_are_withheld_for_a_coverage(coverage: float) -> None:
    found = evidence(200)
    learnt = Calibration.learn([found], needs(), Answering(coverage=coverage))
    given = learnt.probabilities(found.scores).max(axis=1) >= learnt.least
    assert given.mean() == pytest.approx(coverage, abs=0.01)


def test_answers_are_withheld_for_an_error() -> None:
    found = evidence(500)
    learnt = Calibration.learn([found], needs(), Answering(error=0.1))
    told = learnt.probabilities(found.scores)
    given, wrong = told.max(axis=1) >= learnt.least, told.argmax(axis=1) != found.labels[:, 0]
    assert 0.05 < wrong[given].mean() <= 0.1 < wrong.mean()
    hopeless = replace(found, labels=(told.argmin(axis=1))[:, None])
    learnt = Calibration.learn([hopeless], needs(), Answering(error=0.1))
    assert learnt.least == math.inf
    assert learnt.notes == ("No confidence keeps errors on validation images at 0.1: none is answered.",)


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
@pytest.mark.parametrize("by_class", [False, True])
def test_possible_classes_hold_the_true_ones(task: str, by_class: bool) -> None:
    learnt = Calibration.learn([evidence(1000, task)], needs(task), Answering(sets=0.8))
    new = evidence(20_000, task, seed=1)
    possible = learnt.possible(new.scores, np.zeros(new.scores.shape, bool), by_class=by_class)
    if task == "multi-label":
        for k in range(3):
            assert possible[new.labels[:, k] == 1, k].mean() == pytest.approx(0.8, abs=0.04)
        return
    held = np.take_along_axis(possible, new.labels, axis=1)[:, 0]
    classes = range(possible.shape[1])
    for share in [held[new.labels[:, 0] == k].mean() for k in classes] if by_class else [held.mean()]:
        assert share == pytest.approx(0.8, abs=0.04)


def test_what_sets_lack_is_told() -> None:
    found = evidence(60)
    rare = replace(found, labels=np.where(np.arange(60)[:, None] < 8, 2, found.labels % 2))
    learnt = Calibration.learn([rare], needs(), Answering())
    assert learnt.notes == ("Always possible by class, as fewer than 9 validation images have them: c.",)
    assert learnt.possible(np.array([[1.0, 0.0, 0.0]]), np.zeros((1, 3), bool), by_class=True)[0, 2]
    learnt = Calibration.learn([found], needs(), Answering(sets=0.99))
    assert "Each class is possible for each image: a coverage of 0.99 takes 99 validation images." in learnt.notes


def test_unlike_images_are_those_beyond_almost_all() -> None:
    found = evidence(100)
    learnt = Calibration.learn([found], needs(), Answering(alarms=0.1))
    assert (found.distances / np.median(found.distances) > learnt.furthest).mean() == pytest.approx(0.09, abs=0.011)
    assert Calibration.learn([found], needs(), Answering(alarms=0)).furthest == math.inf
    few = Calibration.learn([found], needs(), Answering(alarms=0.001))
    assert few.notes == ("No warning of unlike images: 100 validation images, where 999 are needed.",)


@pytest.mark.parametrize("task", ["binary", "multi-label"])
def test_an_operating_point_is_reached(task: str) -> None:
    found = evidence(400, task)
    for measure in ("sensitivity", "specificity"):
        learnt = Calibration.learn([found], needs(task), Answering(**{measure: 0.95}))
        answers = learnt.decided(learnt.probabilities(found.scores))
        truth = found.labels == 1
        given = answers[:, 1:] if task == "binary" else answers
        for k in range(truth.shape[1]):
            asked = truth[:, k] if measure == "sensitivity" else ~truth[:, k]
            right = given[asked, k] if measure == "sensitivity" else ~given[asked, k]
            assert 0.95 <= right.mean() < 0.97
        if task == "binary":
            assert (answers.sum(axis=1) == 1).all()


def test_withheld_answers_and_sets_follow_the_operating_point() -> None:
    found = evidence(500, "binary", factor=1.0)
    learnt = Calibration.learn([found], needs("binary"), Answering(sensitivity=0.99, error=0.2))
    told = learnt.probabilities(found.scores)
    answers = learnt.decided(told)
    assert (answers != (told == told.max(axis=1, keepdims=True))).any()
    confidence = told[answers]
    given = confidence >= learnt.least
    wrong = answers.argmax(axis=1) != found.labels[:, 0]
    assert 0 < given.sum() < 500
    assert wrong[given].mean() <= 0.2 < wrong.mean()
    assert learnt.possible(found.scores, answers, by_class=False)[answers].all(), "the answer is always possible"


def test_a_label_that_no_image_has_is_answered_at_one_half() -> None:
    found = evidence(100, "multi-label")
    labels = found.labels.copy()
    labels[:, 0] = 0
    learnt = Calibration.learn([replace(found, labels=labels)], needs("multi-label"), Answering(sensitivity=0.9))
    assert learnt.yes is not None
    assert learnt.yes[0] == 0.5 != learnt.yes[1]


def test_the_kept_operating_point_counts_if_all_agree() -> None:
    found = evidence(100, "binary")
    kept = replace(found, operating=("sensitivity", 0.9))
    asked = Calibration.learn([found], needs("binary"), Answering(sensitivity=0.9)).yes
    assert Calibration.learn([kept], needs("binary"), Answering()).yes == asked
    assert Calibration.learn([kept, kept], needs("binary"), Answering()).yes == asked
    differing = Calibration.learn([kept, found], needs("binary"), Answering())
    assert differing.yes is None
    assert differing.notes == (
        "The runs have different operating points: none is used, and yes is what is likelier than not.",
    )
    assert Calibration.learn([kept], needs("binary"), Answering(specificity=0.5)).yes != asked


def test_no_operating_point_of_many_classes() -> None:
    with pytest.raises(ConfigError, match=r"^A sensitivity is chosen for yes-or-no questions, and this task is multi-"):
        Calibration.learn([evidence()], needs(), Answering(sensitivity=0.9))


def test_an_ensemble_is_calibrated_as_a_whole() -> None:
    one, other = evidence(300), evidence(300, factor=1.0)
    mean = replace(one, scores=(one.scores + other.scores) / 2, distances=one.distances / np.median(one.distances))
    learnt = Calibration.learn([one, replace(other, labels=one.labels)], needs(), Answering())
    expected = Calibration.learn([mean], needs(), Answering())
    assert learnt.temperature == pytest.approx(expected.temperature, abs=1e-4)
    assert learnt.overall == pytest.approx(expected.overall)
    with pytest.raises(RunError, match="found other validation images"):
        Calibration.learn([one, evidence(300, seed=1)], needs(), Answering())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sets": 1.0}, "sets"),
        ({"sets": 0.0}, "sets"),
        ({"coverage": 0.0}, "coverage"),
        ({"error": 1.5}, "error"),
        ({"alarms": 1.0}, "alarms"),
        ({"alarms": -0.1}, "alarms"),
        ({"sensitivity": 0.0}, "sensitivity"),
        ({"specificity": 1.1}, "specificity"),
        ({"coverage": 0.5, "error": 0.5}, "error must be given without coverage"),
        ({"sensitivity": 0.5, "specificity": 0.5}, "specificity must be given without sensitivity"),
    ],
)
def test_options_are_checked(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Answering(**options)
