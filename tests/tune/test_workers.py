"""Who trains: this process, or others, which do the same."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvit.data.arrays import Dataset
from qvit.errors import TrainingError
from qvit.study.pool import Event, LocalPool
from qvit.tune import work as module
from qvit.tune import workers
from qvit.tune.trials import Batch, Cell
from qvit.tune.workers import Here, begin, pool_of

MakeCell = Callable[..., Cell]


@pytest.mark.usefixtures("untrained")
def test_this_process_does_one_batch_at_a_time(
    cell: MakeCell, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(1, tmp_path, data, threads=1)
    assert isinstance(pool, Here)
    assert pool.idle == 1
    assert pool.submit(Batch("b", (cell(1),))) == "this process"
    assert pool.idle == 0
    [event] = pool.events(9.0)
    assert (event.kind, event.identity, event.told[0].error) == ("finished", "b", None)
    assert (pool.idle, pool.events(9.0)) == (1, [])

    def fails(*_: object) -> None:
        raise TrainingError("nothing to learn")

    monkeypatch.setattr(module.Trainer, "train", fails)
    pool.submit(Batch("c", (cell(1),)))
    [event] = pool.events(9.0)
    assert (event.kind, event.identity, event.told[0]) == ("failed", "c", "TrainingError: nothing to learn")
    pool.close()


@pytest.mark.usefixtures("untrained")
def test_a_worker_tells_how_far_it_is(cell: MakeCell) -> None:
    sent: list[Any] = []
    does = begin()
    [(kind, identity, told)] = does(Batch("b", (cell(1), cell(2))), SimpleNamespace(send=sent.append))
    assert (kind, identity, [one.place for one in told]) == ("finished", "b", [0, 1])
    assert sent == [("epoch", "b", (1, 1))] * 2

    def gone(_: object) -> None:
        raise BrokenPipeError

    [(kind, _, _)] = does(Batch("c", (cell(1),)), SimpleNamespace(send=gone))
    assert kind == "finished", "whose driver is gone ends by itself"


def test_several_workers_are_processes(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Pool:
        def __init__(self, *given: Any, **named: Any) -> None:
            seen.update(given=given, named=named)

    monkeypatch.setattr(workers, "LocalPool", Pool)
    pool_of(3, tmp_path, data, threads=2)
    assert seen == {"given": (3, tmp_path), "named": {"threads": 2, "begin": begin}}


@pytest.mark.processes
@pytest.mark.trains
@pytest.mark.slow("two processes that import torch")
def test_processes_train_what_this_one_does(cell: MakeCell, data: Dataset, tmp_path: Path) -> None:
    pool, here = LocalPool(2, tmp_path, begin=begin), Here(data)
    told: dict[str, list[Event]] = {"there": [], "here": []}
    try:
        for name, fold in (("a", 1), ("b", 2)):
            pool.submit(Batch(name, (cell(fold),)))
            here.submit(Batch(name, (cell(fold),)))
            told["here"] += here.events(0.0)
        while len([one for one in told["there"] if one.kind != "epoch"]) < 2:
            told["there"] += pool.events(1.0)
    finally:
        pool.close()
    found = {place: {e.identity: e.told[0] for e in events if e.kind == "finished"} for place, events in told.items()}
    for name in "ab":
        assert found["there"][name].scores.tolist() == found["here"][name].scores.tolist()
