"""Medians: whose turn it is, what is counted, and when it is enough."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from qvit import timing
from qvit.timing import median_milliseconds


@dataclass
class Clock:
    """Stands still but for what is added to it."""

    now: float = 0.0

    def takes(self, *seconds: float) -> Callable[[], None]:
        """A function that takes the next of these times whenever it is called."""
        left = iter(seconds)

        def run() -> None:
            self.now += next(left)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def test_functions_take_turns_and_the_median_is_of_the_rounds_after_warm_up() -> None:
    calls: list[str] = []
    median_milliseconds([lambda: calls.append("a"), lambda: calls.append("b")], repeats=4, warm_up=2)
    assert "".join(calls) == "aabb" + "ab" * 4
    calls.clear()
    median_milliseconds([lambda: calls.append("a")])
    assert len(calls) == 3 + 30


def test_the_median_is_in_milliseconds_and_of_each_function(clock: Clock) -> None:
    one, other = clock.takes(50.0, 0.5, 0.25, 0.125), clock.takes(60.0, 2.0, 4.0, 3.0)
    assert median_milliseconds([one, other], repeats=3, warm_up=1) == [250.0, 3000.0]


@pytest.mark.parametrize(
    ("seconds", "budget", "rounds"),
    [(1.0, 0.0, 3), (1.0, 3.0, 4), (1.0, 5.5, 6), (2.0, 5.5, 3), (1.0, None, 11)],
    ids=["spent", "not beyond it", "beyond it", "in large steps", "ten seconds"],
)
def test_a_spent_budget_ends_the_measurement_after_three_rounds_at_least(
    seconds: float, budget: float | None, rounds: int, clock: Clock
) -> None:
    calls: list[int] = []
    run = clock.takes(*[seconds] * 1000)
    options = {} if budget is None else {"budget": budget}
    median_milliseconds([lambda: (run(), calls.append(1))], repeats=1000, warm_up=0, **options)
    assert len(calls) == rounds


def test_fewer_rounds_may_be_enough(clock: Clock) -> None:
    calls: list[int] = []
    run = clock.takes(*[5.0] * 9)
    assert median_milliseconds([lambda: (run(), calls.append(1))], warm_up=0, budget=4.0, least=1) == [5000.0]
    assert len(calls) == 1
