"""What a tuning has found: where each candidate stands, who is chosen, and what new images will give.

folds held out → means and paired differences → the best ─ ahead by more than the noise? ─→ it, or the first one
               → the choice done again on resamples of the images → AUC of new images, with an interval
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from qvit.data.arrays import Dataset
from qvit.data.folds import DIVIDED, Chosen, folds_of
from qvit.errors import TrainingError
from qvit.evaluation.selection import (
    Rung,
    bias_corrected,
    errors_of,
    folds_error,
    front,
    halved,
)
from qvit.evaluation.statistics import folds_interval
from qvit.tune.menu import Candidate
from qvit.tune.trials import Judged

Z = 1.959964  # of a normal distribution, 95 % of which lie within


@dataclass(frozen=True)
class Standing:
    """Where a candidate stands: its mean AUC and accuracy over so many folds, each held out once.

    `low` and `high` are the ends of the interval of the AUC (see `folds_interval`), `ahead` its mean lead over the
    first candidate on the same folds, and `error` the standard error of that. Those of fewer folds than a division
    has are None, as too few to tell, and so is the lead of the first.
    """

    name: str
    about: str
    parameters: int
    folds: int
    auc: float
    low: float | None
    high: float | None
    acc: float
    ahead: float | None
    error: float | None
    seconds: float
    baseline: bool
    failed: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Who is chosen, the first candidate or one that is ahead of it by more than the noise, and what that is worth.

    `best` has the best mean of the last rung. Its lead counts as `gain`, once chance is taken off that helped the best
    of many (see `selection.bias_corrected`); it is chosen if that exceeds a standard error. `shown` says whether
    the lead exceeds two. `expected` is the AUC on new images, `between` its 95 % interval; one reading of `images` test
    images falls between `reading` in 19 of 20 cases. `baseline` is the best plain baseline, if it has a better mean
    than the chosen one. `most` is how many parameters a recipe may have.
    """

    chosen: str
    best: str
    first: str
    gain: float
    error: float | None
    shown: bool
    expected: float
    between: tuple[float, float]
    reading: tuple[float, float]
    images: int
    most: int
    front: tuple[str, ...]
    baseline: str | None
    standings: tuple[Standing, ...]

    @property
    def of_chosen(self) -> Standing:
        """Where the chosen candidate stands."""
        return self.of(self.chosen)

    def of(self, name: str) -> Standing:
        """Return where a candidate stands."""
        return next(one for one in self.standings if one.name == name)

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return asdict(self) | {name: list(getattr(self, name)) for name in ("front", "between", "reading")}


@dataclass(frozen=True)
class Held:
    """The images that folds hold out: their labels and groups, and their places fold by fold."""

    task: str
    labels: Int[np.ndarray, "n k"]
    rows: tuple[Int[np.ndarray, " _"], ...]
    folds: int
    groups: Shaped[np.ndarray, " n"] | None = None


def held_of(data: Dataset, folds: int, *, seed: int, divisions: int) -> Held:
    """Return what the folds of some divisions of a dataset hold out; raises as `folds_of`."""
    rows = []
    for division in range(divisions):
        for one in folds_of(data, folds, seed=seed + division):
            assert isinstance(one.val, Chosen)
            rows.append(one.val.rows)
    labels = np.concatenate([data[name].labels for name in DIVIDED])
    groups = None if data.groups is None else np.concatenate([data.groups[name] for name in DIVIDED])
    return Held(data.info.task, labels, tuple(rows), folds, groups)


def verdict_of(
    candidates: Sequence[Candidate],
    judged: dict[tuple[str, int], Judged],
    rungs: Sequence[Rung],
    held: Held,
    *,
    most: int,
    images: int,
    seeds: int,
    seed: int,
) -> Verdict:
    """Return who is chosen among candidates that were judged by halving, the first one being the yardstick.

    Only candidates of at most `most` parameters are chosen; `images` is the number of test images, read by `seeds`
    models. Raises `TrainingError` if the first candidate, or all that may be chosen, could not be trained.
    """
    last = rungs[-1].folds
    table = {one.name: found for one in candidates if (found := _of(one, judged, last))}
    known = [one for one in candidates if one.name in table]
    competing = [one for one in known if not one.baseline]
    if not competing or competing[0] is not candidates[0]:
        raise TrainingError(f"{candidates[0].name}, by which others are judged, could not be trained on all folds.")
    first, may_stay = competing[0], competing[0].parameters <= most
    if not may_stay and len(competing) == 1:
        raise TrainingError(f"No candidate of at most {most:,} parameters could be trained. Allow more.")
    lines = [[table[one.name].get(place) for place in range(last)] for one in competing]
    scores = [[None if told is None else told.scores for told in line] for line in lines]
    best, gain, expected = _best(lines, rungs, held, seed=seed, first=may_stay)
    _, error = _ahead(table[competing[best].name], table[first.name], held.folds)
    place = best
    if may_stay and (best == 0 or gain <= (error or 0.0)):
        place, (_, _, expected) = 0, _best(lines[:1], [Rung(last, 1)], held, seed=seed)
    sides = held.labels, held.task, held.rows[:last]
    told: dict[str, Any] = {"images": images, "seeds": seeds, "folds": held.folds, "groups": held.groups}
    errors = errors_of(*sides, scores[place], **told)
    standings = [_standing(one, table[one.name], table[first.name], held.folds) for one in known]
    chosen = competing[place].name
    return Verdict(
        chosen=chosen,
        best=competing[best].name,
        first=first.name,
        gain=gain,
        error=error,
        shown=gain > Z * (error or 0.0) and best != 0,
        expected=expected,
        between=_within(expected, errors.expected),
        reading=_within(expected, errors.reading),
        images=images,
        most=most,
        front=_front(standings, last),
        baseline=_better(standings, chosen),
        standings=(*_sorted(standings), *(_failed(one, judged) for one in candidates if one.name not in table)),
    )


def _best(
    lines: Sequence[Sequence[Judged | None]], rungs: Sequence[Rung], held: Held, *, seed: int, first: bool = True
) -> tuple[int, float, float]:
    """Return the place of the best, its lead over the first and its AUC on new images, both free of chance's help."""
    values = np.array([[[np.nan if told is None else told.auc] for told in line] for line in lines])
    scores = [[None if told is None else told.scores for told in line] for line in lines]
    rows = held.rows[: rungs[-1].folds]
    found = bias_corrected(
        held.labels, held.task, rows, scores, rungs, first=first, groups=held.groups, seed=seed
    )  # fmt: skip
    return int(halved(values, rungs, first=first)[0]), found.gain, found.value


def _within(value: float, error: float) -> tuple[float, float]:
    return max(0.0, value - Z * error), min(1.0, value + Z * error)


def _sorted(standings: Sequence[Standing]) -> list[Standing]:
    """Return those judged on more folds first, and of these the better ones."""
    return sorted(standings, key=lambda one: (-one.folds, -one.auc))


def _of(one: Candidate, judged: dict[tuple[str, int], Judged], folds: int) -> dict[int, Judged]:
    """Return what a candidate was judged by, fold by fold; nothing if a training has failed."""
    found = {place: told for place in range(folds) if (told := judged.get((one.name, place))) is not None}
    return {} if any(told.error is not None for told in found.values()) else found


def _ahead(one: dict[int, Judged], other: dict[int, Judged], folds: int) -> tuple[float, float | None]:
    """Return the mean lead on the folds that both were judged by, and its standard error."""
    places = sorted(one.keys() & other.keys())
    leads = [one[place].auc - other[place].auc for place in places]
    return float(np.mean(leads)), folds_error(leads, folds)


def _standing(one: Candidate, found: dict[int, Judged], first: dict[int, Judged], folds: int) -> Standing:
    values = [found[place].auc for place in sorted(found)]
    interval, enough = folds_interval(values, folds), len(values) >= folds
    low, high = (interval.low, interval.high) if enough else (None, None)
    ahead, error = (None, None) if found is first else _ahead(found, first, folds)
    return Standing(
        name=one.name,
        about=one.about,
        parameters=max(told.parameters for told in found.values()),  # a baseline stores as many as it needs
        folds=len(values),
        auc=interval.value,
        low=None if low is None else max(0.0, low),
        high=None if high is None else min(1.0, high),
        acc=float(np.mean([told.acc for told in found.values()])),
        ahead=ahead,
        error=error if enough else None,
        seconds=sum(told.seconds for told in found.values()) / len(values),
        baseline=one.baseline,
    )


def _failed(one: Candidate, judged: dict[tuple[str, int], Judged]) -> Standing:
    errors = [told.error for (name, _), told in judged.items() if name == one.name and told.error is not None]
    told = errors[0] if errors else "not judged"
    nothing: dict[str, Any] = dict.fromkeys(("low", "high", "ahead", "error"))
    zeros: dict[str, Any] = dict.fromkeys(("folds", "auc", "acc", "seconds"), 0)
    known: dict[str, Any] = {name: getattr(one, name) for name in ("name", "about", "parameters", "baseline")}
    return Standing(**known, **nothing, **zeros, failed=told)


def _front(standings: Sequence[Standing], folds: int) -> tuple[str, ...]:
    """Return the names of those that nobody of as few parameters beats, among those judged on all folds."""
    whole = [one for one in standings if one.folds == folds]
    return tuple(whole[k].name for k in front([one.parameters for one in whole], [one.auc for one in whole]))


def _better(standings: Sequence[Standing], chosen: str) -> str | None:
    """Return the best baseline, if it has a better mean than the chosen candidate."""
    own = next(one for one in standings if one.name == chosen)
    better = [one for one in standings if one.baseline and one.auc > own.auc]
    return max(better, key=lambda one: one.auc).name if better else None
