"""One run of a study, done wherever there is room for it: in a local process, or on another machine."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvit.errors import RunError
from qvit.training.folder import Run

OUTPUTS = "teacher-outputs"  # the folder in a study's where teachers' outputs are kept
OnEpoch = Callable[[str, int, int], None]  # stage, epochs done, epochs in all


@dataclass(frozen=True)
class Work:
    """What a worker needs to know of a run; plain values, so that it can be sent anywhere.

    `options` are flat, `teachers` the folders of finished teachers' runs, `outputs` the folder of what they say.
    """

    identity: str
    name: str
    options: dict[str, Any]
    folder: Path
    outputs: Path
    teachers: tuple[Path, ...] = ()
    root: Path | None = None
    download: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its figures, the seconds it trained, and what it warned of."""

    result: dict[str, Any]
    seconds: float
    warnings: tuple[str, ...] = field(default=())


def final_run(folder: Path, *, distilled: bool) -> Run:
    """Return the run whose figures count: that of the folder, or the last stage of a distillation."""
    if not distilled:
        return Run(folder)
    return Run(folder / ("joint" if (folder / "joint").exists() else "finetune"))


def all_runs(folder: Path, *, distilled: bool) -> list[Run]:
    """Return the runs of every stage."""
    if not distilled:
        return [Run(folder)]
    return [Run(folder / stage) for stage in ("pretrain", "finetune", "joint") if (folder / stage).exists()]


def read_outcome(folder: Path, *, distilled: bool) -> Outcome | None:
    """Return what a run came to, None where it is not finished; raises `RunError` for a damaged one."""
    if not (folder / ("distillation.json" if distilled else "result.json")).exists():
        return None
    run = final_run(folder, distilled=distilled)
    if not run.finished:
        raise RunError(f"{folder} is damaged: it holds figures of a run that is not there; delete it.")
    seconds = sum(one.seconds for one in all_runs(folder, distilled=distilled))
    return Outcome(run.result, round(seconds, 3))


def execute(work: Work, on_epoch: OnEpoch | None = None) -> Outcome:
    """Do a run, or go on with it where it stopped; a finished one is only read.

    Raises all errors of training and data.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if work.teachers:
            _distill(work, on_epoch)
        else:
            _train(work, on_epoch)
    outcome = read_outcome(work.folder, distilled=bool(work.teachers))
    assert outcome is not None
    return Outcome(outcome.result, outcome.seconds, tuple(dict.fromkeys(str(one.message) for one in caught)))


def _train(work: Work, on_epoch: OnEpoch | None) -> None:
    from qvit.training.options import resolve
    from qvit.training.run import train_run

    config = resolve(work.options)
    train_run(
        config,
        work.folder,
        root=work.root,
        download=work.download,
        resume=True,
        on_epoch=_progress("train", config.train.epochs, on_epoch),
    )


def _distill(work: Work, on_epoch: OnEpoch | None) -> None:
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


def _progress(stage: str, epochs: int, on_epoch: OnEpoch | None) -> Callable[[dict[str, Any], float], None] | None:
    if on_epoch is None:
        return None
    return lambda record, _seconds: on_epoch(stage, record["epoch"], epochs)
