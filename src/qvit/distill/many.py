"""Distil a teacher into several students together: each stage is trained as one stack, each student has its folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qvit.data.arrays import Dataset
from qvit.distill.guide import TeacherGuide
from qvit.distill.measures import measures
from qvit.distill.pipeline import (
    Distillation,
    DistillationConfig,
    Stage,
    check,
    check_cache,
    check_folder,
    conclude,
    load,
)
from qvit.distill.teacher import Teacher
from qvit.distill.teacher_cache import OnViews, cache_folder
from qvit.errors import ConfigError, QvitError, RunError
from qvit.files import printable
from qvit.training.config import MEMORY
from qvit.training.folder import Run
from qvit.training.many import Asked, OnEpochOf, train_many
from qvit.training.surroundings import surroundings


@dataclass(frozen=True)
class AskedStudent:
    """One student of several: its distillation and the folder of it."""

    config: DistillationConfig
    folder: Path


def distill_many(
    asked: Sequence[AskedStudent],
    teacher: Teacher,
    *,
    root: str | Path | None = None,
    download: bool = True,
    resume: bool = False,
    cache: Path | None = None,
    memory: float = MEMORY,
    on_stage: Callable[[Stage, int], OnEpochOf | None] | None = None,
    on_views: OnViews | None = None,
) -> list[Distillation | QvitError]:
    """Distil a teacher into students that differ in their seed alone; return each one's distillation, or its error.

    Each becomes what `distill` would make of it. Options are the same, but that the function of a stage is told first
    which student an epoch is of. The stages are trained by `training.many.train_many`, and what it says of stacks is
    true here. A student that fails in one stage has no further ones; the others go on. Raises `ConfigError` for
    students that are not alike, and as `distill` does for what concerns all.
    """
    first = _check_alike(asked)
    with surroundings(first.student.train.threads):
        data, guide = load(first, teacher, root=root, download=download, cache=cache, on_views=on_views)
        check(first, guide, data)
        if first.how.alpha:
            check_cache(cache or cache_folder())
        students = [_Student(one, guide, data) for one in asked]
        for one in students:
            one.take(resume=resume)
        for stage in first.stages:
            going = [place for place, one in enumerate(students) if one.error is None]
            if not going:
                break
            runs = train_many(
                [students[place].of(stage) for place in going],
                root=root,
                download=download,
                resume=resume,
                memory=memory,
                on_epoch=_of_all(on_stage(stage, first.of(stage).train.epochs) if on_stage else None, going),
            )
            for place, outcome in zip(going, runs, strict=True):
                students[place].keep(stage, outcome)
        return [one.error or one.concluded() for one in students]


class _Student:
    """One of the students, and how far it is."""

    def __init__(self, asked: AskedStudent, guide: TeacherGuide, data: Dataset) -> None:
        self.asked, self.guide, self.data = asked, guide, data
        self.runs: dict[Stage, Run] = {}
        self.error: QvitError | None = None

    def take(self, *, resume: bool) -> None:
        try:
            printable(self.asked.folder, raised=RunError)
            check_folder(self.asked.folder, self.asked.config, resume=resume)
        except QvitError as error:
            self.error = error

    def of(self, stage: Stage) -> Asked:
        guide = self.guide if stage in ("pretrain", "joint") else None
        origin = self.runs["pretrain"] if stage == "finetune" else None
        return Asked(self.asked.config.of(stage), self.asked.folder / stage, guide, origin)

    def keep(self, stage: Stage, outcome: Run | QvitError) -> None:
        if isinstance(outcome, Run):
            self.runs[stage] = outcome
        else:
            self.error = outcome

    def concluded(self) -> Distillation:
        folder = self.asked.folder
        measured = measures(self.guide.teacher, self.runs, self.data, self.asked.config.student.train)
        return Distillation(folder, self.runs, conclude(folder, measured))


def _check_alike(asked: Sequence[AskedStudent]) -> DistillationConfig:
    kinds = [replace(one.config, student=replace(one.config.student, seed=0)) for one in asked]
    if not kinds or any(kind != kinds[0] for kind in kinds):
        raise ConfigError("Expected students that differ in the seed alone, one at least; distil others apart.")
    return asked[0].config


def _of_all(on_epoch: OnEpochOf | None, going: Sequence[int]) -> OnEpochOf | None:
    """Return a function of the place among those that still go on, from one of the place among all."""
    return None if on_epoch is None else lambda place, record, seconds: on_epoch(going[place], record, seconds)
