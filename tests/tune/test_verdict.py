"""Who is chosen, and what is said of it: by what was judged on folds, and by chance taken off."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qvit.data.arrays import Dataset
from qvit.data.folds import folds_of
from qvit.errors import TrainingError
from qvit.evaluation.metrics import auc
from qvit.evaluation.selection import Rung, bias_corrected, errors_of, folds_error
from qvit.evaluation.statistics import folds_interval
from qvit.tune.menu import Candidate
from qvit.tune.trials import Judged
from qvit.tune.verdict import Held, Verdict, held_of, verdict_of
from tune.conftest import candidate

IMAGES, FOLDS = 120, 3
RUNGS = [Rung(3, 3), Rung(6, 2)]


@pytest.fixture(scope="module")
def held() -> Held:
    rng = np.random.default_rng(0)
    labels = (np.arange(IMAGES) % 2)[:, None]
    rows = [np.sort(part) for _ in range(2) for part in np.array_split(rng.permutation(IMAGES), FOLDS)]
    return Held("binary", labels, tuple(rows), FOLDS)


@pytest.fixture
def judge(held: Held) -> Callable[..., dict[tuple[str, int], Judged]]:
    """What candidates say of folds: the further apart they see the classes, the better."""

    def make(**skill: tuple[float, int]) -> dict[tuple[str, int], Judged]:
        found = {}
        for name, (apart, folds) in skill.items():
            rng = np.random.default_rng(7)  # all see the same noise
            for place in range(folds):
                truth = held.labels[held.rows[place]]
                told = 1 / (1 + np.exp(-rng.normal(apart * truth, 1.0)))
                scores = np.concatenate([1 - told, told], axis=1).astype(np.float32)
                found[name, place] = Judged(
                    name, place, auc(truth, scores, "binary"), 0.5, 2.0, 2.0, 100 + len(name), scores
                )
        return found

    return make


def verdict(names: list[Candidate], judged: Any, held: Held, rungs: Any = RUNGS, most: int = 1000) -> Verdict:
    return verdict_of(names, judged, rungs, held, most=most, images=50, seeds=1, seed=0)


def test_one_that_is_far_ahead_is_chosen(held: Held, judge: Callable[..., Any]) -> None:
    judged = judge(one=(0.5, 6), two=(2.5, 6), three=(1.0, 3))
    names = [candidate("one"), candidate("two"), candidate("three")]
    found = verdict(names, judged, held)
    assert (found.chosen, found.best, found.first, found.shown) == ("two", "two", "one", True)
    values = {name: [judged[name, place].auc for place in range(6)] for name in ("one", "two")}
    leads = [b - a for a, b in zip(values["one"], values["two"], strict=True)]
    standing, interval = found.of_chosen, folds_interval(values["two"], FOLDS)
    assert (standing.auc, standing.low, standing.folds) == (interval.value, interval.low, 6)
    assert standing.ahead == pytest.approx(np.mean(leads))
    assert found.error == standing.error == pytest.approx(folds_error(leads, FOLDS))
    assert standing.parameters == 103, "those of the trained model"
    scores: Any = [
        [judged[name, place].scores.astype(float) if (name, place) in judged else None for place in range(6)]
        for name in ("one", "two", "three")
    ]
    expected = bias_corrected(held.labels, "binary", held.rows, scores, RUNGS, seed=0)
    assert (found.expected, found.gain) == (expected.value, expected.gain)
    errors = errors_of(held.labels, "binary", held.rows, scores[1], images=50, folds=FOLDS)
    ends = [expected.value - 1.959964 * errors.expected, min(1.0, expected.value + 1.959964 * errors.expected)]
    assert found.between == pytest.approx(ends)
    low, high = found.reading
    assert low < found.between[0] < found.expected < found.between[1] <= high, "a reading adds chance of its own"
    assert low == pytest.approx(expected.value - 1.959964 * errors.reading)
    assert [one.name for one in found.standings] == ["two", "one", "three"]
    assert found.of("three").folds == 3
    few = verdict(names[:2], judge(one=(0.5, 6), two=(2.5, 2)), held)
    assert (few.of("two").folds, few.of("two").low, few.of("two").error) == (2, None, None), "too few to tell"
    assert (found.of("one").ahead, found.of("one").error) == (None, None)
    assert found.as_json()["standings"][0]["name"] == "two"


def test_the_first_stays_where_nothing_is_ahead_by_more_than_noise(held: Held, judge: Callable[..., Any]) -> None:
    judged = judge(one=(1.0, 6), two=(1.02, 6))
    names, rungs = [candidate("one"), candidate("two")], [Rung(3, 2), Rung(6, 2)]
    judged["two", 3] = judge(two=(1.6, 6))["two", 3]  # ahead on one fold: that is noise
    found = verdict(names, judged, held, rungs)
    assert (found.chosen, found.best, found.shown) == ("one", "two", False)
    scores: Any = [[judged["one", place].scores.astype(float) for place in range(6)]]
    alone = bias_corrected(held.labels, "binary", held.rows, scores, [Rung(6, 1)], seed=0)
    assert found.expected == alone.value, "nobody was chosen, so chance has not helped"
    behind = verdict(names, judge(one=(1.5, 6), two=(1.0, 6)), held, rungs)
    assert (behind.chosen, behind.best, behind.error) == ("one", "one", 0.0)


def test_who_has_too_many_parameters_is_not_chosen(held: Held, judge: Callable[..., Any]) -> None:
    judged, rungs = judge(one=(2.0, 6), two=(1.0, 6)), [Rung(3, 2), Rung(6, 2)]
    names = [candidate("one", parameters=500), candidate("two", parameters=100)]
    found = verdict(names, judged, held, rungs, most=200)
    assert (found.chosen, found.best) == ("two", "two")
    assert found.gain < 0
    with pytest.raises(TrainingError) as caught:
        verdict(names[:1], judged, held, [Rung(6, 1)], most=200)
    assert str(caught.value) == "No candidate of at most 200 parameters could be trained. Allow more."


def test_baselines_are_shown_and_never_chosen(held: Held, judge: Callable[..., Any]) -> None:
    judged = judge(one=(1.0, 6), plain=(2.5, 6), poor=(0.1, 6))
    names = [candidate("one"), candidate("plain", baseline=True), candidate("poor", baseline=True)]
    found = verdict(names, judged, held, [Rung(6, 1)])
    assert (found.chosen, found.baseline) == ("one", "plain")
    assert found.front == ("one", "plain")  # of 103 and 105 parameters
    ahead = verdict(names, judge(one=(2.5, 6), plain=(1.0, 6), poor=(0.1, 6)), held, [Rung(6, 1)])
    assert ahead.baseline is None


def test_who_failed_is_told(held: Held, judge: Callable[..., Any]) -> None:
    judged = judge(one=(1.0, 6), two=(2.5, 6))
    judged["two", 4] = Judged("two", 4, error="diverged")
    names = [candidate("one"), candidate("two"), candidate("three")]
    found = verdict(names, judged, held, [Rung(6, 2)])
    assert (found.chosen, found.of("two").failed, found.of("three").failed) == ("one", "diverged", "not judged")
    judged["one", 4] = Judged("one", 4, error="diverged")
    with pytest.raises(TrainingError) as caught:
        verdict(names, judged, held, [Rung(6, 2)])
    assert str(caught.value) == "one, by which others are judged, could not be trained on all folds."


def test_places_are_those_of_the_folds(data: Dataset) -> None:
    found = held_of(data, 3, seed=4, divisions=2)
    assert len(found.rows) == 6
    both = np.concatenate([data.train.images, data.val.images])
    for division in range(2):
        for number, one in enumerate(folds_of(data, 3, seed=4 + division)):
            rows = found.rows[3 * division + number]
            assert np.array_equal(both[rows], one.val.images)
            assert np.array_equal(found.labels[rows], one.val.labels)
    assert (found.task, found.folds, found.groups) == ("multi-class", 3, None)
