"""How many candidates are tried on how many folds: fixed numbers, those of an earlier time, or what minutes allow.

Rungs have ever more folds and ever fewer candidates: those of the first division of the images, so that every image
judges all candidates, then of two divisions, then of three. After each rung about half of the candidates go on.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from qvit.evaluation.selection import Rung

DIVISIONS = 3  # of the images into folds, on the last rung
LEAST = 3  # candidates that go on, if there are as many
MOST = 96  # candidates, unless a number is asked for
MARGIN = 1.15  # by which things take longer than they did
OF_FINAL = 8.0  # a training by itself, validated after every epoch, in trainings of a stack's member


def steps(folds: int) -> tuple[int, ...]:
    """Return the number of folds of each rung, counted through all divisions into `folds`."""
    return tuple(folds * division for division in range(1, DIVISIONS + 1))


def halving(candidates: int, rungs: int) -> list[int]:
    """Return how many candidates are on each rung, half of them going on but `LEAST`."""
    found = [candidates]
    while len(found) < rungs:
        found.append(min(found[-1], max(LEAST, -(-found[-1] // 2))))
    return found


def trainings(entrants: Sequence[int], folds: Sequence[int]) -> int:
    """Return how many models are trained for all rungs."""
    before = (0, *folds)
    return sum(number * (after - done) for number, done, after in zip(entrants, before, folds, strict=False))


def affordable(models: float, folds: Sequence[int], done: int = 0, most: int = MOST) -> int:
    """Return how many candidates can be on the first of some rungs, of `folds` each, for so many trainings.

    `done` is how many folds they have been judged on before. 0 if not even one candidate can.
    """
    rest = [one - done for one in folds]
    fitting = (n for n in range(most, 0, -1) if trainings(halving(n, len(rest)), rest) <= models)
    return next(fitting, 0)


@dataclass
class Plan:
    """Fixed rungs: how many candidates there are on each, the first among them."""

    rungs: tuple[Rung, ...]

    def candidates(self, _entries: int, _pace: float) -> int:
        """Return how many candidates the first rung has."""
        return self.rungs[0].entrants

    def entrants(self, rung: int, _before: int, _pace: float) -> int:
        """Return how many candidates go on to a rung, 0 if there is none."""
        return self.rungs[rung].entrants if rung < len(self.rungs) else 0

    def allows(self, _models: int, _pace: float) -> bool:
        """Return whether there is time for so many trainings more: there is."""
        return True

    def left(self) -> float:
        """Return the seconds left: as many as it takes."""
        return math.inf

    @property
    def asks_first(self) -> bool:
        """Whether the entries are trained before it says how many candidates there are."""
        return False


@dataclass
class Timed:
    """As many candidates and rungs as some seconds allow, which began when it was made.

    `spent` are seconds of an earlier time, `seeds` the trainings in the end, for which some are kept.
    """

    seconds: float
    folds: tuple[int, ...]
    workers: int
    seeds: int = 1
    spent: float = 0.0
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    asks_first = True

    def left(self) -> float:
        """Return the seconds left."""
        return self.seconds - self.spent - (self.clock() - self.began)

    def models(self, pace: float) -> float:
        """Return how many models can be trained in the time left, at so many seconds each."""
        final = pace * (OF_FINAL + self.seeds)
        return max(0.0, self.left() - final) * self.workers / (MARGIN * max(pace, 1e-9))

    def allows(self, models: int, pace: float) -> bool:
        """Return whether there is time for so many trainings more."""
        return self.models(pace) >= models

    def candidates(self, entries: int, pace: float) -> int:
        """Return how many candidates the first rung has: all `entries`, which have been on it, and what else fits."""
        rest = self.models(pace) + entries * self.folds[0]
        return max(entries, affordable(rest, self.folds))

    def entrants(self, rung: int, before: int, pace: float) -> int:
        """Return how many candidates go on, 0 if there is no time for two."""
        if rung >= len(self.folds):
            return 0
        wanted = halving(before, 2)[1]
        fitting = affordable(self.models(pace), self.folds[rung:], self.folds[rung - 1], wanted)
        return fitting if fitting > 1 else 0


def fixed(candidates: int, folds: Sequence[int]) -> Plan:
    """Return the plan for a number of candidates."""
    numbers = halving(candidates, len(folds))
    return Plan(tuple(Rung(one, number) for one, number in zip(folds, numbers, strict=True)))
