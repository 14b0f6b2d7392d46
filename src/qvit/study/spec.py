"""The definition of a study: datasets × models × regimes × seeds, and the runs that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from qvit.data.registry import name_of
from qvit.distill.options import resolve_distillation
from qvit.errors import ConfigError, QvitError, nearest
from qvit.training.options import RunConfig, resolve

SCRATCH = "scratch"


@dataclass(frozen=True)
class StudyModel:
    """One model of a study: its name in `models.zoo`, its own options, and its label in tables.

    `kind`, `qubits` and `heads` come from its name, `layers` from its options; the last three are None for networks
    without them.
    """

    label: str
    name: str
    kind: str
    qubits: int | None = None
    heads: int | None = None
    layers: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One thing to train: a student from scratch, one that learns from `teachers` first, or a teacher.

    `regime` is "scratch" or another regime's name; for a teacher it is the name of the ensemble it belongs to.
    `options` are flat, as for `qvit train` or, with teachers, `qvit distill`.
    """

    role: Literal["student", "teacher"]
    dataset: str
    model: StudyModel
    regime: str
    seed: int
    options: dict[str, Any]
    teachers: tuple["Job", ...] = ()

    @property
    def name(self) -> str:
        """The job's name in messages."""
        return f"{name_of(self.dataset)} {self.model.label} {self.regime} seed {self.seed}"

    def resolved(self) -> Any:
        """Return the validated `RunConfig`, or with teachers the `DistillationConfig`; `ConfigError` names the job."""
        return self._resolved

    @property
    def run(self) -> RunConfig:
        """The configuration of the run, or of the student of a distillation."""
        config = self.resolved()
        return config if isinstance(config, RunConfig) else config.student

    @cached_property
    def _resolved(self) -> Any:
        try:
            return resolve_distillation(self.options) if self.teachers else resolve(self.options)
        except QvitError as error:
            raise ConfigError(f"{self.name}: {error}") from error


@dataclass(frozen=True)
class Study:
    """A validated study; `jobs` are all its runs, teachers before their students."""

    name: str
    title: str
    description: str
    datasets: tuple[str, ...]
    models: tuple[StudyModel, ...]
    regimes: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: tuple[Job, ...]
    text: str  # the study's file


def restrict(study: Study, *, datasets: Sequence[str] | None = None, seeds: int | None = None) -> Study:
    """Return a part of a study: some of its datasets, by name or file name, and its first `seeds` seeds.

    Raises `ConfigError` for a dataset that the study does not have, and for more seeds than it has.
    """
    names = {name_of(dataset): dataset for dataset in study.datasets}
    for name in datasets or ():
        if name_of(name) not in names:
            raise ConfigError(
                f"The study {study.name} has no dataset '{name}'.{nearest(name, names)} It has: {', '.join(names)}."
            )
    if seeds is not None and not 1 <= seeds <= len(study.seeds):
        raise ConfigError(
            f"The study {study.name} has {len(study.seeds)} seeds: --seeds must be from 1 to that number, got {seeds}."
        )
    chosen = tuple(names[name_of(name)] for name in datasets) if datasets else study.datasets
    kept = study.seeds[:seeds]
    jobs = tuple(job for job in study.jobs if job.dataset in chosen and (job.role == "teacher" or job.seed in kept))
    return replace(study, datasets=tuple(d for d in study.datasets if d in chosen), seeds=kept, jobs=jobs)
