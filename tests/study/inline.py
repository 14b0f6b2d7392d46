"""A pool that does runs in this process, and runs that leave what finished ones do."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvit.study.outcome import Outcome, read_outcome
from qvit.study.pool import Event, attempt
from qvit.study.store import Store, StoredJob
from qvit.study.work import Work
from qvit.training.records import Result

MakeNpz = Callable[..., Path]
TAUGHT: dict[str, Any] = {
    "teachers": {"big": [{"arch": "vit_8q1h", "epochs": 1}]},
    "regimes": {
        "scratch": None,
        "kd": {"teacher": "big", "mixtures": 0, "pretrain": {"epochs": 1}, "finetune": {"epochs": 1}},
    },
}
Mishap = Callable[[Work, int], Event | None]


def pretend(work: Work, tell: Callable[..., None] | None = None) -> Outcome:
    """Stand for `execute`: write at once what a finished run leaves, with figures that depend on all of its options."""
    told = read_outcome(work.folder, distilled=bool(work.teachers))
    if told is not None:
        return told
    assert all((teacher / "result.json").exists() for teacher in work.teachers), "teachers come first"
    for stage in ("pretrain", "finetune") if work.teachers else ("",):
        folder = work.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        area = zlib.crc32(repr(sorted(work.options.items())).encode()) / 2**32
        figures = {"auc": area, "acc": 0.5, "auc_interval": [None, None], "acc_interval": [None, None]}
        result = {"parameters": 7, "best_epoch": 1, "tta": "none", "val": figures, "test": figures}
        for epoch in (1, 2):
            if tell is not None:
                tell(stage or "train", epoch, 2)
        (folder / "timings.jsonl").write_text('{"epoch": 1, "seconds": 0.5}\n{"epoch": 2, "seconds": 0.25}\n')
        (folder / "config.json").write_text(json.dumps({"dataset": work.options["dataset"]}))
        (folder / "result.json").write_text(json.dumps(result))
    if work.teachers:
        (work.folder / "distillation.json").write_text("{}")
    return Outcome(Result.of(result), 1.5 if work.teachers else 0.75)


@dataclass
class InlinePool:
    """Does runs in this process, one at a time, by `does`; `mishap(work, attempt)` may say that all went otherwise.

    `seen` is all work that was begun. With `stacks` it takes runs that are trained together, and does one by one.
    """

    mishap: Mishap = lambda work, number: None
    does: Callable[..., Outcome] = pretend
    seen: list[Work] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    waiting: Work | None = None
    closed: bool = False
    stacks: bool = False

    @property
    def idle(self) -> int:
        return int(self.waiting is None)

    def submit(self, work: Work) -> str:
        self.waiting = work
        self.seen.append(work)
        return "here"

    def events(self, timeout: float) -> list[Event]:
        work, self.waiting = self.waiting, None
        assert work is not None
        return [event for one in work.all for event in self._of(one)]

    def _of(self, work: Work) -> list[Event]:
        self.tries[work.name] = number = self.tries.get(work.name, 0) + 1
        event = self.mishap(work, number)
        if event is None:
            found: list[Event] = []

            def tell(*told: Any) -> None:
                found.append(Event("epoch", work.identity, "here", told))

            kind, told = attempt(self.does, work, tell)
            self.done.append(work.name)
            return [*found, Event(kind, work.identity, "here", told)]
        return [event]

    def close(self) -> None:
        self.closed = True


def stored(folder: Path) -> dict[str, StoredJob]:
    with Store.read(folder) as store:
        return {job.name: job for job in store.jobs()}


def lost(work: Work) -> Event:
    return Event("lost", work.identity, "here", "its process was killed by SIGKILL")
