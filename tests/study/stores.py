"""Stores filled with jobs, and what is read back."""

from pathlib import Path

import pytest

from qvit.errors import RunError
from qvit.models.cost import Cost
from qvit.study.reading import parse_study
from qvit.study.spec import Job
from qvit.study.store import KnownCost, Store, StoredJob
from qvit.training.records import Figures, Result

TEXT = """
datasets: [phantom, own.npz]
models: [qvit_4q2h, {name: vit_4q2h, label: "ÄÖ | dense", options: {dropout: 0.5}}]
seeds: 2
teachers: {t: [{arch: vit_4q1h}]}
regimes: {scratch: , kd: {teacher: t}}
"""

FIGURES = Figures(auc=0.75, acc=0.5, auc_interval=(0.5, None), acc_interval=(0.25, 0.75))
RESULT = Result(parameters=5, best_epoch=3, tta="none", val=FIGURES, test=FIGURES)
COST = KnownCost(Cost(5, 4, 3, 2, "", 0, {}, 2, None), "a digest")


def jobs_of(text: str = TEXT) -> list[Job]:
    return list(parse_study(text, name="s", folder=Path("/data")).jobs)


def identities(jobs: list[Job]) -> dict[int, str]:
    return {id(job): f"{job.name}".encode().hex().rjust(64, "0")[-64:] for job in jobs}


def fill(store: Store, jobs: list[Job]) -> list[str]:
    known = identities(jobs)
    store.plan(
        [(known[id(job)], job) for job in jobs],
        {known[id(job)]: [known[id(teacher)] for teacher in job.teachers] for job in jobs},
    )
    return list(known.values())


def read(folder: Path) -> list[StoredJob]:
    with Store.read(folder) as store:
        return store.jobs()


def refused(folder: Path, *parts: str, opened: bool = True) -> None:
    for way in (Store.read, Store.open) if opened else (Store.read,):
        with pytest.raises(RunError) as caught, way(folder) as store:
            store.jobs()
        for part in (str(folder), *parts):
            assert part in str(caught.value)
        if parts and parts[0].endswith("."):
            assert str(caught.value) == parts[0]
