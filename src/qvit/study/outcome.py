"""Read the outcome of a study's run from its folder, trained from scratch or distilled in stages."""

from dataclasses import dataclass, field
from pathlib import Path

from qvit.errors import RunError
from qvit.training.folder import Run
from qvit.training.records import Result

OUTPUTS = "teacher-outputs"  # the folder of teachers' outputs in a study's folder


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: its figures, the seconds of training, and its warnings."""

    result: Result
    seconds: float
    warnings: tuple[str, ...] = field(default=())


def final_run(folder: Path, *, distilled: bool) -> Run:
    """Return the run whose figures count: that in the folder, or the last stage of a distillation."""
    if not distilled:
        return Run(folder)
    return Run(folder / ("joint" if (folder / "joint").exists() else "finetune"))


def all_runs(folder: Path, *, distilled: bool) -> list[Run]:
    """Return the runs of every stage."""
    if not distilled:
        return [Run(folder)]
    return [Run(folder / stage) for stage in ("pretrain", "finetune", "joint") if (folder / stage).exists()]


def read_outcome(folder: Path, *, distilled: bool) -> Outcome | None:
    """Return the outcome of a run, None if it is not finished; raises `RunError` if it is damaged."""
    if not (folder / ("distillation.json" if distilled else "result.json")).exists():
        return None
    run = final_run(folder, distilled=distilled)
    if not run.finished:
        raise RunError(f"{folder} is damaged: it holds figures of a run that is not there; delete it.")
    seconds = sum(one.seconds for one in all_runs(folder, distilled=distilled))
    return Outcome(run.result, round(seconds, 3))
