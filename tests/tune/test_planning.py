"""How many candidates on how many folds: by a number, and by what a clock says is left."""

import math
from dataclasses import dataclass

import pytest

from qvit.evaluation.selection import Rung
from qvit.tune.planning import LEAST, MOST, Plan, Timed, affordable, fixed, halving, steps, trainings


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("folds", "expected"), [(5, (5, 10, 15)), (2, (2, 4, 6))])
def test_rungs_have_more_and_more_folds(folds: int, expected: tuple[int, ...]) -> None:
    assert steps(folds) == expected


@pytest.mark.parametrize(
    ("candidates", "expected"), [(48, [48, 24, 12, 6]), (13, [13, 7, 4, 3]), (2, [2, 2, 2, 2]), (1, [1, 1, 1, 1])]
)
def test_about_half_go_on(candidates: int, expected: list[int]) -> None:
    assert halving(candidates, 4) == expected
    assert fixed(candidates, (2, 5, 10, 15)) == Plan(
        tuple(Rung(folds, number) for folds, number in zip((2, 5, 10, 15), expected, strict=True))
    )


def test_trainings_are_counted_once() -> None:
    assert trainings([48, 24, 12, 6], (2, 5, 10, 15)) == 48 * 2 + 24 * 3 + 12 * 5 + 6 * 5
    assert trainings([], ()) == 0


def test_what_fits_is_the_most_that_does() -> None:
    folds = (2, 5, 10, 15)
    for models in (0, 10, 45, 100, 300, 10_000):
        found = affordable(models, folds)
        assert found == 0 or trainings(halving(found, 4), folds) <= models
        assert found == MOST or trainings(halving(found + 1, 4), folds) > models
    assert affordable(20, (5, 10), done=2, most=9) == 2  # 2 × 3 folds, then 2 × 5; three would take 24
    assert affordable(24, (5, 10), done=2, most=9) == 3


def test_a_plan_says_what_it_was_given() -> None:
    plan = fixed(13, (2, 5))
    assert not plan.asks_first
    assert plan.candidates(99, 1.0) == 13
    assert [plan.entrants(rung, 13, 1.0) for rung in (1, 2)] == [7, 0]


def test_time_left_says_how_many() -> None:
    clock = Clock(100.0)
    plan = Timed(600.0, steps(5), workers=2, seeds=2, clock=clock)
    assert plan.asks_first
    clock.now = 150.0  # 50 of 600 seconds are gone, and ten trainings of a second are kept for the end
    assert plan.models(1.0) == pytest.approx((600 - 50 - 10) * 2 / 1.15)
    many, few = plan.candidates(6, 0.5), plan.candidates(6, 4.0)
    assert many == MOST
    assert few == affordable(plan.models(4.0) + 30, steps(5))
    assert 6 < few < MOST
    assert plan.candidates(6, 1e6) == 6, "what stands in the menu is tried in any case"
    assert plan.allows(800, 1.0)
    assert not plan.allows(1000, 1.0)
    assert fixed(3, (5,)).allows(10**9, 1.0)
    assert (plan.left(), fixed(3, (5,)).left()) == (550.0, math.inf)
    clock.now = 10_000.0
    assert plan.models(1.0) == 0.0


def test_what_was_used_before_counts() -> None:
    clock = Clock()
    assert Timed(600.0, steps(5), 1, spent=500.0, clock=clock).models(0.1) < Timed(
        600.0, steps(5), 1, clock=clock
    ).models(0.1)


def test_rungs_end_when_there_is_no_time() -> None:
    clock = Clock()
    plan = Timed(100.0, steps(5), workers=1, clock=clock)
    assert plan.entrants(1, 20, 0.01) == 10
    assert plan.entrants(3, 10, 0.01) == 0
    assert plan.entrants(1, 1, 0.01) == 0, "there is nobody to compare with"
    assert LEAST <= plan.entrants(1, 20, 2.0) < 10, "fewer than half, where the time is short"
    clock.now = 99.0
    assert [plan.entrants(rung, 20, 1.0) for rung in (1, 2)] == [0, 0]
