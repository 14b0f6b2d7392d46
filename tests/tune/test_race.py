"""Halving: who is trained on which folds, in which stacks, and what becomes of what fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.errors import RunError, TrainingError
from qvit.evaluation.selection import Rung
from qvit.study.pool import Event
from qvit.tune.menu import Kitchen
from qvit.tune.planning import Plan, fixed
from qvit.tune.race import Race, TuneProgress, told_of
from qvit.tune.record import Record, begin_record
from qvit.tune.trials import Batch, Judged
from tune.test_record import ASKED

Make = Callable[..., Kitchen]


class Pretending:
    """A pool whose trainings have any AUC that `gives` says; each batch may be lost or fail."""

    stacks = True
    epoch = (1, 2)

    def __init__(self, gives: Callable[[str, int], float], happens: Callable[[Batch], str] = lambda _: "finished"):
        self.gives, self.happens = gives, happens
        self.batches: list[Batch] = []
        self.waiting: list[Batch] = []

    @property
    def idle(self) -> int:
        return 2 - len(self.waiting)

    def submit(self, batch: Batch) -> str:
        self.batches.append(batch)
        self.waiting.append(batch)
        return "worker 1"

    def events(self, _: float) -> list[Event]:
        batch = self.waiting.pop(0)
        told: Any = "its process was killed by SIGKILL"
        kind = self.happens(batch)
        if kind == "finished":
            told = [self.judged(cell.candidate, cell.place) for cell in batch.cells]
        if kind == "failed":
            told = ("MemoryError: none left", "Traceback")
        return [Event("epoch", batch.identity, "worker 1", self.epoch), Event(kind, batch.identity, "worker 1", told)]

    def judged(self, name: str, place: int) -> Judged:
        value = self.gives(name, place)
        if np.isnan(value):
            return Judged(name, place, error="diverged")
        return Judged(name, place, value, 0.5, 2.0, 2.0, 10, np.ones((2, 1), np.float32))

    def close(self) -> None:
        pass


@pytest.fixture
def race(kitchen: Make, tmp_path: Path) -> Callable[..., tuple[Race, Pretending]]:
    def make(
        gives: Callable[[str, int], float],
        plan: Any,
        happens: Callable[[Batch], str] = lambda _: "finished",
        *,
        made: Kitchen | None = None,
        record: Record | None = None,
        memory: float = 1.0,
        on_news: Callable[[TuneProgress], None] | None = None,
    ) -> tuple[Race, Pretending]:
        record = record or begin_record(tmp_path / "tune", dict(ASKED, folds=3), resume=False)
        pool = Pretending(gives, happens)
        how: dict[str, Any] = {"images": 27, "root": None, "memory": memory, "workers": 2, "on_news": on_news}
        return Race(record, made or kitchen(), plan, pool, **how), pool

    return make


def by_name(name: str, place: int) -> float:
    """Return an AUC: the later draws are better."""
    number = int(name.removeprefix("draw-")) if name.startswith("draw-") else 0
    return 0.5 + number / 100 + place / 1000


def test_the_better_ones_go_on(race: Callable[..., Any]) -> None:
    news: list[str] = []
    one, pool = race(by_name, fixed(8, (3, 6, 9)), on_news=lambda told: news.append(told.news))
    assert one.run() == [Rung(3, 8), Rung(6, 4), Rung(9, 3)]
    names = [rung[1] for rung in one.record.rungs]
    assert names[0] == ["defaults", "defaults lr=0.02", *(f"draw-{number}" for number in range(1, 7))]
    assert names[1] == ["defaults", "draw-4", "draw-5", "draw-6"]
    assert names[2] == ["defaults", "draw-5", "draw-6"]
    trained = sorted((cell.candidate, cell.place) for batch in pool.batches for cell in batch.cells)
    assert trained == sorted(one.record.judged)
    assert len(trained) == len(set(trained)) == 8 * 3 + 4 * 3 + 3 * 3
    assert "rung 1: 8 candidates, 24 trainings in" in news[0]
    assert any("draw-6" in line and "AUC" in line for line in news)


def test_cells_are_runs_of_folds(race: Callable[..., Any]) -> None:
    one, pool = race(by_name, fixed(2, (3, 6, 9)))
    one.run()
    cells = {(cell.candidate, cell.place): cell.options for batch in pool.batches for cell in batch.cells}
    told = cells["defaults", 7]
    assert (told["seed"], told["folds"], told["fold"], told["stacked"]) == (2, 3, 2, True)
    assert (told["keep"], told["tta"], told["model"]) == ("last", "always", "vit_4q1h")
    assert cells["defaults lr=0.02", 7] == told | {"lr": 0.02}, "all are judged by the same folds and seeds"


def test_stacks_are_of_one_architecture_and_of_what_memory_holds(
    race: Callable[..., Any], kitchen: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "entries: [{recipe: defaults}, {recipe: defaults, options: {lr: 0.5}}, "
        "{recipe: defaults, options: {mlp_dim: 2}}, "
        "{recipe: defaults, options: {augment: mirror}}, {recipe: defaults, options: {dropout: 0.5}}]"
    )
    one, pool = race(by_name, fixed(5, (3,)), made=kitchen(text))
    one.run()
    stacks = sorted(sorted({cell.candidate for cell in batch.cells}) for batch in pool.batches)
    own = [["defaults augment=mirror"], *[["defaults dropout=0.5"]] * 3, ["defaults mlp_dim=2"]]
    assert stacks == sorted([["defaults", "defaults lr=0.5"], *own])
    alone = [cell for batch in pool.batches for cell in batch.cells if "dropout" in cell.candidate]
    assert [cell.options["stacked"] for cell in alone] == [False] * 3
    small, pool = race(by_name, fixed(1, (3,)), memory=1e-9, record=Record(one.record.folder, one.record.asked))
    small.run()
    assert [len(batch.cells) for batch in pool.batches] == [1, 1, 1]


def test_many_cells_are_shared_among_workers(race: Callable[..., Any], kitchen: Make) -> None:
    options = ", ".join(f"{{recipe: defaults, options: {{lr: 0.{number:02}1}}}}" for number in range(1, 40))
    one, pool = race(by_name, fixed(40, (3,)), made=kitchen(f"entries: [{{recipe: defaults}}, {options}]"))
    one.run()
    sizes = [len(batch.cells) for batch in pool.batches]
    assert sizes == [20] * 6, "a third of a worker's share each"


def test_baselines_are_judged_on_the_folds_of_the_last_rung(race: Callable[..., Any], kitchen: Make) -> None:
    made = kitchen("entries: [{recipe: defaults}]\nbaselines: [vit_8q1h]")
    one, _ = race(by_name, fixed(1, (3, 6)), made=made)
    assert one.run() == [Rung(3, 1), Rung(6, 1)]
    assert sorted(place for name, place in one.record.judged if name == "vit_8q1h") == list(range(6))
    assert one.record.rungs == [(3, ["defaults"]), (6, ["defaults"])]


def test_an_interrupted_race_goes_on(race: Callable[..., Any], tmp_path: Path) -> None:
    whole, _ = race(
        by_name, fixed(6, (3, 6, 9)), record=begin_record(tmp_path / "whole", dict(ASKED, folds=3), resume=False)
    )
    whole.run()
    stopped = 0

    def stops(_: Batch) -> str:
        nonlocal stopped
        stopped += 1
        if stopped > 5:
            raise KeyboardInterrupt
        return "finished"

    one, _ = race(by_name, fixed(6, (3, 6, 9)), stops)
    with pytest.raises(KeyboardInterrupt):
        one.run()
    done = set(one.record.judged)
    again = begin_record(tmp_path / "tune", dict(ASKED, folds=3), resume=True)
    assert set(again.judged) == done
    other, pool = race(by_name, fixed(6, (3, 6, 9)), record=again)
    assert other.run() == [Rung(folds, len(names)) for folds, names in whole.record.rungs]
    assert other.record.rungs == whole.record.rungs
    assert other.record.candidates == whole.record.candidates
    assert not done & {(cell.candidate, cell.place) for batch in pool.batches for cell in batch.cells}


class Asking:
    """A planner that asks for entries first."""

    asks_first = True

    def __init__(self, room: float = np.inf, seconds: float = np.inf) -> None:
        self.paces: list[float] = []
        self.room, self.seconds = room, seconds

    def candidates(self, entries: int, pace: float) -> int:
        self.paces.append(pace)
        return entries + 3

    def entrants(self, rung: int, before: int, pace: float) -> int:
        self.paces.append(pace)
        return 2 if rung == 1 else 0

    def allows(self, models: int, pace: float) -> bool:
        return models <= self.room if pace else True

    def left(self) -> float:
        return self.seconds


def test_entries_are_timed_before_it_is_known_how_many_draws_there_are(race: Callable[..., Any]) -> None:
    plan = Asking()
    one, pool = race(by_name, plan)
    assert one.run() == [Rung(3, 5), Rung(6, 2)]
    assert plan.paces == [2.0, 2.0, 2.0]
    first = {cell.candidate for cell in pool.batches[0].cells}
    assert first == {"defaults", "defaults lr=0.02"}


def test_entries_for_which_there_is_no_time_are_left_out(race: Callable[..., Any], kitchen: Make) -> None:
    text = "entries: [{recipe: defaults}, {recipe: defaults, options: {mlp_dim: 2}}, "
    text += "{recipe: defaults, options: {mlp_dim: 3}}, {recipe: defaults, options: {mlp_dim: 5}}]"
    one, pool = race(by_name, Asking(room=2), made=kitchen(text))
    one.run()
    assert one.record.rungs[0][1] == ["defaults", "defaults mlp_dim=2"], "two workers had begun with these"
    assert [candidate.name for candidate in one.record.candidates] == one.record.rungs[0][1]
    assert len(pool.batches) == 4
    whole, _ = race(by_name, Asking(room=3), made=kitchen(text), record=Record(one.record.folder, one.record.asked))
    whole.run()
    assert len(whole.record.rungs[0][1]) == 4


def test_a_dataset_that_is_far_too_large_for_the_time_is_told_early(
    race: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 30.0
        return now

    monkeypatch.setattr("qvit.tune.race.time.monotonic", clock)
    one, pool = race(by_name, Asking(seconds=60.0))
    pool.epoch = (2, 1000)  # too early to tell
    one.run()
    other, pool = race(by_name, Asking(seconds=60.0), record=Record(one.record.folder, one.record.asked))
    pool.epoch = (3, 1000)
    with pytest.raises(TrainingError) as caught:
        other.run()
    assert str(caught.value) == (
        "One stack of models takes about 167 minutes, and 1 are left. Allow more with --minutes, or train less: --set "
        "epochs=20, fewer --folds, smaller images."
    )
    slow, pool = race(by_name, Asking(), record=Record(one.record.folder, one.record.asked))
    pool.epoch = (3, 1000)
    slow.run()  # as long as it takes


def test_who_fails_is_out(race: Callable[..., Any]) -> None:
    def gives(name: str, place: int) -> float:
        return float("nan") if (name, place) == ("draw-2", 1) else by_name(name, place)

    one, _ = race(gives, fixed(4, (3, 6)))
    one.run()
    assert one.record.rungs[1][1] == ["defaults", "defaults lr=0.02", "draw-1"]
    assert one.record.judged["draw-2", 1].error == "diverged"
    with pytest.raises(TrainingError) as caught:
        race(lambda *_: float("nan"), fixed(4, (3,)), record=Record(one.record.folder, one.record.asked))[0].run()
    assert str(caught.value) == "The first candidate, defaults, cannot be trained: diverged"


def test_a_batch_that_fails_or_is_lost(race: Callable[..., Any], tmp_path: Path) -> None:
    times: dict[str, int] = {}

    def happens(batch: Batch) -> str:
        times[batch.identity] = times.get(batch.identity, 0) + 1
        name = batch.cells[0].candidate
        if name == "defaults" and times[batch.identity] < 3:
            return "lost"
        return "failed" if name == "draw-1" else "finished"

    news: list[str] = []
    how: dict[str, Any] = {"memory": 1e-9, "on_news": lambda told: news.append(told.news)}  # each by itself
    one, _ = race(by_name, fixed(3, (3,)), happens, **how)
    one.run()
    assert one.record.judged["draw-1", 0].error == "MemoryError: none left"
    assert news.count("its process was killed by SIGKILL; its stack goes on with another worker") == 2 * 3
    record = begin_record(tmp_path / "other", dict(ASKED, folds=3), resume=False)
    with pytest.raises(RunError) as caught:
        race(by_name, fixed(1, (3,)), lambda _: "lost", record=record)[0].run()
    assert str(caught.value) == (
        "A stack of 3 models has lost 3 workers; the last one: its process was killed by SIGKILL. Allow less with "
        "--memory, or fewer --workers, and go on with --resume."
    )


def test_a_plan_may_come_from_an_earlier_time(race: Callable[..., Any], kitchen: Make, tmp_path: Path) -> None:
    first, _ = race(by_name, fixed(5, (3, 6, 9)))
    rungs = first.run()
    record = begin_record(tmp_path / "again", dict(ASKED, folds=3), resume=False)
    record.candidates = first.record.candidates
    other, _ = race(by_name, Plan(tuple(rungs)), record=record, made=kitchen("entries: [{recipe: defaults}]"))
    assert other.run() == rungs
    assert other.record.rungs == first.record.rungs
    assert other.record.judged.keys() == first.record.judged.keys()


def test_a_line_says_who_was_trained() -> None:
    found = [Judged(name, 0, 0.5, seconds=1.5) for name in "abcde"]
    assert told_of(found) == "a, b, c and 2 more: AUC 0.500 on average, 1.5 s each"
    assert told_of(found[:1]) == "a: AUC 0.500 on average, 1.5 s each"
    assert told_of([*found[:2], Judged("c", 0, error="no")]) == "a, b, c: 1 of 3 trainings failed: no"
