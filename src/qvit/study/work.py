"""Do one run of a study, in a local process or on another machine."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvit.errors import QvitError
from qvit.study.outcome import Outcome, read_outcome
from qvit.training.config import MEMORY
from qvit.training.records import EpochRecord

Tell = Callable[[str, int, int], None]  # stage, epochs done, number of epochs


@dataclass(frozen=True)
class Work:
    """What a worker needs to know about a run, as plain values that can be sent to another process or machine.

    `options` are flat, `teachers` the folders of finished teachers' runs, `outputs` the folder of teachers' outputs.
    `others` are runs that are trained together with this one, in stacks of at most `memory` gigabytes.
    """

    identity: str
    name: str
    options: dict[str, Any]
    folder: Path
    outputs: Path
    teachers: tuple[Path, ...] = ()
    root: Path | None = None
    download: bool = True
    memory: float = MEMORY
    others: tuple["Work", ...] = ()

    @property
    def all(self) -> "tuple[Work, ...]":
        """This run and the others."""
        return (self, *self.others)


def execute_together(
    work: Work, on_epoch: Callable[[str, str, int, int], None] | None = None
) -> list[tuple[str, Outcome | QvitError]]:
    """Do a run and those that are trained together with it; return the outcome of each, by its identity.

    `on_epoch` is told which run it is, and then as for `execute`.
    """

    def told(place: int, stage: str, record: EpochRecord, epochs: int) -> None:
        if on_epoch is not None:
            on_epoch(work.all[place].identity, stage, record.epoch, epochs)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcomes = _distill_many(work, told) if work.teachers else _train_many(work, told)
    found: list[tuple[str, Outcome | QvitError]] = []
    for one, outcome in zip(work.all, outcomes, strict=True):
        read = outcome if isinstance(outcome, QvitError) else _outcome(one, caught)
        found.append((one.identity, read))
    return found


def _train_many(work: Work, told: Callable[[int, str, EpochRecord, int], None]) -> Sequence[object]:
    from qvit.training.many import Asked, train_many
    from qvit.training.options import resolve

    asked = [Asked(resolve(one.options), one.folder) for one in work.all]
    return train_many(
        asked,
        root=work.root,
        download=work.download,
        resume=True,
        memory=work.memory,
        on_epoch=lambda place, record, _: told(place, "train", record, asked[place].config.train.epochs),
    )


def _distill_many(work: Work, told: Callable[[int, str, EpochRecord, int], None]) -> Sequence[object]:
    from qvit.distill import AskedStudent, Teacher, distill_many, resolve_distillation

    asked = [AskedStudent(resolve_distillation(one.options), one.folder) for one in work.all]
    return distill_many(
        asked,
        Teacher.of_runs(work.teachers, device=asked[0].config.student.train.device),
        root=work.root,
        download=work.download,
        resume=True,
        cache=work.outputs,
        memory=work.memory,
        on_stage=lambda stage, epochs: lambda place, record, _: told(place, stage, record, epochs),
    )


def execute(work: Work, on_epoch: Tell | None = None) -> Outcome:
    """Do a run, or continue it where it stopped; a finished run is only read.

    Raises the errors of `train_run` and `distill`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if work.teachers:
            _distill(work, on_epoch)
        else:
            _train(work, on_epoch)
    return _outcome(work, caught)


def _outcome(work: Work, caught: Sequence[warnings.WarningMessage]) -> Outcome:
    outcome = read_outcome(work.folder, distilled=bool(work.teachers))
    assert outcome is not None
    return Outcome(outcome.result, outcome.seconds, tuple(dict.fromkeys(str(one.message) for one in caught)))


def _train(work: Work, on_epoch: Tell | None) -> None:
    from qvit.training.options import resolve
    from qvit.training.run import train_run

    config = resolve(work.options)
    train_run(
        config,
        work.folder,
        root=work.root,
        download=work.download,
        resume=True,
        on_epoch=_progress("train", config.epochs, on_epoch),
    )


def _distill(work: Work, on_epoch: Tell | None) -> None:
    from qvit.distill import Teacher, distill, resolve_distillation

    config = resolve_distillation(work.options)
    distill(
        config,
        Teacher.of_runs(work.teachers, device=config.student.train.device),
        work.folder,
        root=work.root,
        download=work.download,
        resume=True,
        cache=work.outputs,
        on_stage=lambda stage, epochs: _progress(stage, epochs, on_epoch),
    )


def _progress(stage: str, epochs: int, on_epoch: Tell | None) -> Callable[[EpochRecord, float], None] | None:
    if on_epoch is None:
        return None
    return lambda record, _seconds: on_epoch(stage, record.epoch, epochs)
