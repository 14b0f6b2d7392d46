"""Successive halving: candidates are trained on the folds of a rung by workers, and the better ones go on.

    entries (and draws) ─ rung 1 ─→ the better half ─ rung 2 ─→ … ; baselines on the folds of the last rung

All decisions are recorded before they are acted upon, and all trainings as they end.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qvit.errors import RunError, TrainingError
from qvit.evaluation.selection import Rung, mean_of, survivors
from qvit.models.stack import unstackable
from qvit.models.vit import ViTConfig
from qvit.study.pool import Event, Pool
from qvit.training.batches import default_batch_size
from qvit.training.many import most_together
from qvit.training.together import SHARED
from qvit.tune.menu import Candidate, Kitchen
from qvit.tune.planning import steps
from qvit.tune.record import Record
from qvit.tune.trials import Batch, Cell, Judged

TICK = 0.5  # seconds between two looks while nothing happens
MOST_IN_STACK = 25  # models; more are no quicker
FEWEST_IN_STACK = 5  # below which a stack is not divided for the sake of other workers
LOST_AT_MOST = 3
WARM = 3  # epochs, after which it is told how long the first stack takes


class Planner(Protocol):
    """What decides how many candidates are on each rung; see `tune.planning`."""

    @property
    def asks_first(self) -> bool:
        """Whether the entries are trained before it says how many candidates there are."""

    def candidates(self, entries: int, pace: float) -> int:
        """Return how many candidates the first rung has."""

    def entrants(self, rung: int, before: int, pace: float) -> int:
        """Return how many candidates go on to a rung, 0 if there is none."""

    def allows(self, models: int, pace: float) -> bool:
        """Return whether there is time for so many trainings more."""

    def left(self) -> float:
        """Return the seconds left."""


@dataclass
class TuneProgress:
    """How far a tuning has got, passed to `on_news` whenever something happens.

    `doing` tells of the batches at work: their name, epochs done, and number of epochs; `news` is a line on what just
    happened, or empty.
    """

    what: str = ""
    done: int = 0
    total: int = 0
    doing: dict[str, tuple[int, int]] = field(default_factory=dict)
    news: str = ""


OnNews = Callable[[TuneProgress], None]


class Race:
    """All trainings of a tuning."""

    def __init__(
        self,
        record: Record,
        kitchen: Kitchen,
        plan: Planner,
        pool: Pool,
        *,
        images: int,
        root: Path | None,
        memory: float,
        workers: int,
        on_news: OnNews | None,
    ) -> None:
        self.record, self.kitchen, self.plan, self.pool = record, kitchen, plan, pool
        self.images, self.root, self.memory, self.workers = images, root, memory, workers
        self.folds, self.seed = record.asked["folds"], record.asked["seed"]
        self.steps = steps(self.folds)
        self.progress = TuneProgress()
        self._told = on_news or (lambda progress: None)
        self._began, self._before, self._batches = time.monotonic(), record.spent, 0
        self._submitted: dict[str, float] = {}

    def run(self) -> list[Rung]:
        """Do all rungs; returns how many candidates were on each. Raises `TrainingError` if the first one fails."""
        entrants = self._first_rung()
        rungs = [Rung(self.record.rungs[0][0], len(entrants))]
        baselines = [one for one in self.record.candidates if one.baseline]
        self.judge(baselines, rungs[0].folds, "baselines")
        while True:
            number = len(rungs)
            if number < len(self.record.rungs):
                folds, names = self.record.rungs[number]
                entrants = [one for one in entrants if one.name in names]
            else:
                wanted = self.plan.entrants(number, len(entrants), self.pace(entrants))
                if not wanted:
                    break
                folds, entrants = self.steps[number], self._best(entrants, wanted)
                self._decide(folds, entrants)
            self.judge(entrants, folds, f"rung {number + 1}")
            rungs.append(Rung(folds, len(entrants)))
        self.judge(baselines, rungs[-1].folds, "baselines")
        return rungs

    def _first_rung(self) -> list[Candidate]:
        """Judge all candidates on the first folds, the entries before it is known how many draws there are."""
        record, folds = self.record, self.steps[0]
        if not record.rungs:
            competing = [one for one in record.candidates if not one.baseline]
            if not record.candidates:
                competing, baselines = self.kitchen.entries(), self.kitchen.baselines()
                if self.plan.asks_first:
                    self.judge(competing, folds, "rung 1", hurried=True)
                    competing = [one for one in competing if self._is_judged(one, folds)]
                wanted = self.plan.candidates(len(competing), self.pace(competing))
                draws = self.kitchen.draws(self.seed, competing)
                competing += islice(draws, max(0, wanted - len(competing)))
                competing = competing[:wanted]
                record.candidates = [*competing, *baselines]  # all at once: tune.json is written meanwhile
            self._decide(folds, competing)
        names = record.rungs[0][1]
        entrants = [one for one in record.candidates if one.name in names]
        self.judge(entrants, record.rungs[0][0], "rung 1")
        first = entrants[0].name
        failed = self._error(first)
        if failed is not None:
            raise TrainingError(f"The first candidate, {first}, cannot be trained: {failed}")
        return entrants

    def _decide(self, folds: int, entrants: Sequence[Candidate]) -> None:
        self.record.rungs.append((folds, [one.name for one in entrants]))
        self._save()

    def _save(self) -> None:
        self.record.spent = self._before + time.monotonic() - self._began
        self.record.save()

    def _best(self, entrants: Sequence[Candidate], number: int) -> list[Candidate]:
        folds = self.record.rungs[-1][0]
        scores = np.array([[[self._score(one, place)] for place in range(folds)] for one in entrants])
        kept = survivors(mean_of(scores), np.ones((len(entrants), 1), bool), number)[:, 0]
        return [one for one, goes in zip(entrants, kept, strict=True) if goes and self._error(one.name) is None]

    def _score(self, one: Candidate, place: int) -> float:
        found = self.record.judged.get((one.name, place))
        return np.nan if found is None or self._error(one.name) is not None else found.auc

    def _error(self, name: str) -> str | None:
        """Return why a candidate cannot be trained on some fold, None if it can on all so far."""
        told = (one.error for (other, _), one in self.record.judged.items() if other == name)
        return next((error for error in told if error is not None), None)

    def pace(self, of: Sequence[Candidate]) -> float:
        """Return the mean seconds of a training of some candidates, as far as they were trained."""
        names = {one.name for one in of}
        known = [one.pace for (name, _), one in self.record.judged.items() if name in names and one.error is None]
        return float(np.mean(known)) if known else 0.0

    def _is_judged(self, one: Candidate, folds: int) -> bool:
        """Return whether there is an answer of a candidate for each fold; that it cannot be trained is one, too."""
        found = [self.record.judged.get((one.name, place)) for place in range(folds)]
        return None not in found or self._error(one.name) is not None

    def judge(self, candidates: Sequence[Candidate], folds: int, what: str, *, hurried: bool = False) -> None:
        """Train candidates without each of the first `folds` folds, as far as that is not done.

        If `hurried`, they come in their order, and those are left out for which there is no time.
        """
        cells = [
            (one, place)
            for one in candidates
            if self._error(one.name) is None
            for place in range(folds)
            if (one.name, place) not in self.record.judged
        ]
        waiting = self._packed(cells)
        if hurried:
            order = [one.name for one in candidates]
            waiting.sort(key=lambda batch: min(order.index(cell.candidate) for cell in batch.cells))
        running: dict[str, Batch] = {}
        lost: dict[str, int] = {}
        self.progress.what, self.progress.total, self.progress.done = what, len(cells), 0
        if cells:
            self._tell(f"{what}: {len(candidates)} candidates, {len(cells)} trainings in {len(waiting)} stacks")
        while waiting or running:
            while waiting and self.pool.idle > 0:
                batch = waiting.pop(0)
                if hurried and not self.plan.allows(len(batch.cells), self.pace(candidates)):
                    waiting = []
                    break
                running[batch.identity], self._submitted[batch.identity] = batch, time.monotonic()
                self.pool.submit(batch)
            for event in self.pool.events(TICK):
                self._hear(event, running, waiting, lost)

    def _hear(self, event: Event, running: dict[str, Batch], waiting: list[Batch], lost: dict[str, int]) -> None:
        if event.kind == "epoch":
            self.progress.doing[event.identity] = event.told
            self._check_time(event)
            self._tell()
            return
        batch = running.pop(event.identity)
        self.progress.doing.pop(event.identity, None)
        if event.kind == "lost":
            lost[event.identity] = lost.get(event.identity, 0) + 1
            if lost[event.identity] >= LOST_AT_MOST:
                raise RunError(
                    f"A stack of {len(batch.cells)} models has lost {LOST_AT_MOST} workers; the last one: {event.told}"
                    ". Allow less with --memory, or fewer --workers, and go on with --resume."
                )
            waiting.insert(0, batch)
            self._tell(f"{event.told}; its stack goes on with another worker")
            return
        found: list[Judged] = event.told if event.kind == "finished" else _failed(batch, event.told[0])
        self.record.add(found)
        self._save()
        self.progress.done += len(found)
        self._tell(f"{self.progress.what}: {told_of(found)}")

    def _check_time(self, event: Event) -> None:
        """Raise `TrainingError` if not even the first stack can be trained in the time that there is."""
        epoch, epochs = event.told
        if self.record.judged or epoch < WARM:
            return
        whole = (time.monotonic() - self._submitted[event.identity]) / epoch * epochs
        left = max(self.plan.left(), 1.0)
        if whole > 2 * left:
            raise TrainingError(
                f"One stack of models takes about {whole / 60:.0f} minutes, and {left / 60:.0f} are left. "
                "Allow more with --minutes, or train less: --set epochs=20, fewer --folds, smaller images."
            )

    def _tell(self, news: str = "") -> None:
        self.progress.news = news
        self._told(self.progress)

    def _packed(self, cells: Sequence[tuple[Candidate, int]]) -> list[Batch]:
        """Return the cells as batches, each of models that can be trained together.

        Models that cannot come first, as they take longest, and then large batches.
        """
        groups: dict[Any, list[Cell]] = {}
        most: dict[Any, int] = {}
        for one, place in cells:
            config, architecture = self.kitchen.resolved(one.options)
            plain = unstackable(architecture) is None
            shared = tuple(getattr(config.train, name) for name in SHARED)
            key = (architecture, shared) if plain else one.name
            division, fold = divmod(place, self.folds)
            own = {"seed": self.seed + division, "folds": self.folds, "fold": fold + 1, "stacked": plain}
            groups.setdefault(key, []).append(Cell(one.name, place, self.kitchen.with_data(one.options) | own))
            if isinstance(architecture, ViTConfig) and plain:
                batch = config.train.batch_size or default_batch_size(self.images)
                most[key] = min(MOST_IN_STACK, most_together(architecture, min(batch, self.images), self.memory))
        share = max(FEWEST_IN_STACK, -(-len(cells) // (3 * self.workers)))
        batches = []
        for key, group in groups.items():
            number = min(len(group), 2 * self.workers)  # one after the other, so that all workers have some
            if key in most:
                number = max(-(-len(group) // most[key]), len(group) // share)
            size = -(-len(group) // number)
            for start in range(0, len(group), size):
                self._batches += 1
                batches.append(Batch(f"stack {self._batches}", tuple(group[start : start + size]), self.root))
        return sorted(batches, key=lambda batch: (bool(batch.cells[0].options["stacked"]), -len(batch.cells)))


def _failed(batch: Batch, error: str) -> list[Judged]:
    return [Judged(cell.candidate, cell.place, error=error) for cell in batch.cells]


def told_of(found: Sequence[Judged]) -> str:
    """Return a line on some trainings that have ended."""
    names = list(dict.fromkeys(one.candidate for one in found))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    errors = [one.error for one in found if one.error is not None]
    if errors:
        return f"{shown}: {len(errors)} of {len(found)} trainings failed: {errors[0]}"
    mean = sum(one.auc for one in found) / len(found)
    return f"{shown}: AUC {mean:.3f} on average, {found[0].seconds:.1f} s each"
