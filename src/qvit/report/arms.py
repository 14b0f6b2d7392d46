"""The results of a study so far, grouped into arms: an arm is one model in one regime, with all its seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from qvit.data.npz import find_header, read_array
from qvit.data.registry import is_path, name_of
from qvit.documents import one_line
from qvit.errors import DataError, FileError, MetricError, RunError
from qvit.evaluation.inputs import asks_per_label
from qvit.evaluation.metrics import evaluate, rates_by_class
from qvit.evaluation.sampled import METRICS, too_few_images
from qvit.evaluation.statistics import Interval, crossed_interval
from qvit.models.cost import Cost
from qvit.study.database import DamageError, OnWait, told
from qvit.study.outcome import all_runs, final_run
from qvit.study.spec import SCRATCH
from qvit.study.store import FILE, Attempt, KnownCost, Store, StoredJob, known_copies, labels_file
from qvit.study.stored import Machine, Said
from qvit.training.folder import Run
from qvit.training.records import Result
from qvit.training.stored import checked

KEPT = ("test", "names", "task", "title", "images", "digest", "synthetic")  # the arrays read from the file of labels
RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class TestSet:
    """The labels of a dataset's splits, and what they mean; `images` are the sizes of train, val and test."""

    __test__ = False  # tells pytest that this is not a test class

    name: str
    title: str
    task: str
    classes: tuple[str, ...]
    labels: Int64[np.ndarray, "n k"]
    images: tuple[int, int, int]
    digest: str
    synthetic: bool
    official: bool  # an official dataset, not a user's file of the same name
    copies: Bool[np.ndarray, " n"] | None  # which test images have a near-duplicate in train or val, if known

    def untold(self, metric: str) -> str:
        """Return why there are too few test images to tell how a metric varies over images; empty if enough."""
        return too_few_images(self.labels, self.task, metric, classes=len(self.classes))


@dataclass(frozen=True)
class Arm:
    """A model in a regime, which is what a study compares. Teachers are arms too; their regime is the ensemble's name.

    `options` holds the model's own options except its layers, as JSON; arms that are compared must not differ in them.
    """

    label: str
    regime: str
    role: str
    name: str
    kind: str
    qubits: int | None
    heads: int | None
    layers: int | None
    options: str = "{}"

    @property
    def title(self) -> str:
        """The arm's name in tables."""
        return self.label if self.regime == SCRATCH else f"{self.label}, {self.regime}"

    def shares(self, other: "Arm", *fields: str) -> bool:
        """Return whether two arms have the same values in these fields."""
        return all(getattr(self, field) == getattr(other, field) for field in fields)


@dataclass(frozen=True, eq=False)
class Cell:
    """The finished runs of an arm on a dataset, one per seed, in the order of the seeds."""

    arm: Arm
    test: TestSet
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    stages: tuple[tuple[Run, ...], ...]
    results: tuple[Result, ...]
    seconds: tuple[float, ...]

    def values(self, metric: str) -> list[float]:
        """Return a measure on the test images, one value per seed."""
        return [float(getattr(result.test, metric)) for result in self.results]

    @cached_property
    def scores(self) -> Float[np.ndarray, "s n k"]:
        """The probabilities predicted for the test images by each seed."""
        return np.stack([run.predictions("test") for run in self.runs])

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Mean AUC and accuracy over seeds, with bootstrap intervals over seeds and test images."""
        return {
            metric: crossed_interval(
                self.test.labels, self.scores, self.test.task, metric=metric, resamples=RESAMPLES, level=LEVEL
            )
            for metric in METRICS
        }

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return self.results[0].parameters

    @cached_property
    def measures(self) -> dict[str, float]:
        """All measures on the test images, means over seeds."""
        return self._means(np.ones(len(self.test.labels), bool))

    @cached_property
    def rates_by_class(self) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, " q"]]:
        """Sensitivity and specificity of each class, or label, means over seeds; nan where test images tell nothing."""
        found = [rates_by_class(self.test.labels, scores, self.test.task) for scores in self.scores]
        recalls, rates = np.mean(found, axis=0)
        return recalls, rates

    @cached_property
    def measures_apart(self) -> dict[str, float] | None:
        """The same without the test images that have a near-duplicate; None if there are none, or one class is left."""
        copies = self.test.copies
        if copies is None or not copies.any():
            return None
        left = self.test.labels[~copies]
        return None if not len(left) or (left == left[0]).all() else self._means(~copies)

    def _means(self, chosen: Bool[np.ndarray, " n"]) -> dict[str, float]:
        labels = self.test.labels[chosen]
        found = [evaluate(labels, scores[chosen], self.test.task) for scores in self.scores]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


@dataclass(frozen=True, eq=False)
class Results:
    """A study's finished runs, its other jobs, and how it was computed."""

    folder: Path
    name: str
    title: str
    description: str
    tests: tuple[TestSet, ...]
    arms: tuple[Arm, ...]
    teachers: tuple[Arm, ...]
    cells: dict[tuple[str, Arm], Cell]
    costs: dict[tuple[str, str], Cost]
    jobs: tuple[StoredJob, ...]
    code: str
    machine: Machine
    specification: str
    attempts: tuple[Attempt, ...]

    def cell(self, test: TestSet, arm: Arm) -> Cell | None:
        """Return an arm's runs on a dataset; None if none is finished."""
        return self.cells.get((test.name, arm))

    def pair(self, test: TestSet, *arms: Arm) -> list[Cell] | None:
        """Return the runs of arms on a dataset, for the seeds that all of them have; None if there are none."""
        cells = [self.cell(test, arm) for arm in arms]
        found = [cell for cell in cells if cell is not None]
        if len(found) < len(cells):
            return None
        common = sorted(set.intersection(*(set(cell.seeds) for cell in found)))
        return [_with_seeds(cell, common) for cell in found] if common else None

    @property
    def failed(self) -> list[StoredJob]:
        """The runs that crashed."""
        return [job for job in self.jobs if job.status == "failed"]

    @property
    def missing(self) -> list[StoredJob]:
        """The runs that are not finished and did not crash."""
        return [job for job in self.jobs if job.status in ("waiting", "running")]


def _with_seeds(cell: Cell, seeds: Sequence[int]) -> Cell:
    if list(cell.seeds) == list(seeds):
        return cell
    kept = [cell.seeds.index(seed) for seed in seeds]
    return Cell(
        cell.arm,
        cell.test,
        tuple(seeds),
        tuple(cell.runs[i] for i in kept),
        tuple(cell.stages[i] for i in kept),
        tuple(cell.results[i] for i in kept),
        tuple(cell.seconds[i] for i in kept),
    )


def load_results(folder: str | Path, *, on_wait: OnWait | None = None) -> Results:
    """Return the results in a study's folder; raises `RunError` if it holds no study or no finished run.

    `on_wait` is called with a line of text if another process keeps the study's file busy for long.
    """
    folder = Path(folder)
    with Store.read(folder, on_wait=on_wait) as store:
        jobs, costs, attempts = store.jobs(), store.costs(), store.attempts()
        said = {key: store.get(key) for key in ("name", "title", "description", "code", "machine", "specification")}
    finished = [job for job in jobs if job.status == "finished" and job.result is not None]
    if not finished:  # the study's own description may be missing too, if it was stopped before
        raise RunError(f"No run of the study in {folder} is finished yet; go on with `qvit study run`.")
    with told(folder / FILE):
        try:
            return _results(folder, jobs, finished, costs, attempts, checked(said, Said, "it"))
        except FileError as error:
            raise DamageError(one_line(error)) from error


def _results(
    folder: Path,
    jobs: Sequence[StoredJob],
    finished: Sequence[StoredJob],
    costs: dict[tuple[str, str], KnownCost],
    attempts: Sequence[Attempt],
    said: Said,
) -> Results:
    tests = {name: read_labels(folder, name) for name in dict.fromkeys(job.dataset for job in jobs)}
    by_arm: dict[tuple[str, Arm], list[StoredJob]] = {}
    for job in finished:
        by_arm.setdefault((tests[job.dataset].name, _arm(job)), []).append(job)
    arms = list(dict.fromkeys(_arm(job) for job in jobs))
    named = {test.name: test for test in tests.values()}
    return Results(
        folder=folder,
        tests=tuple(tests.values()),
        arms=tuple(arm for arm in arms if arm.role == "student"),
        teachers=tuple(arm for arm in arms if arm.role == "teacher"),
        cells={(name, arm): _cell(named[name], arm, found) for (name, arm), found in by_arm.items()},
        costs={
            (name_of(job.dataset), job.model.label): costs[key].cost
            for job in jobs
            if (key := (job.dataset, job.model.label)) in costs
        },
        jobs=tuple(jobs),
        attempts=tuple(attempts),
        **said,
    )


def _arm(job: StoredJob) -> Arm:
    options = {key: value for key, value in job.model.options.items() if key != "n_layers"}
    return Arm(regime=job.regime, role=job.role, **vars(job.model) | {"options": json.dumps(options, sort_keys=True)})


def _cell(test: TestSet, arm: Arm, jobs: Sequence[StoredJob]) -> Cell:
    jobs = sorted(jobs, key=lambda job: job.seed)
    return Cell(
        arm=arm,
        test=test,
        seeds=tuple(job.seed for job in jobs),
        runs=tuple(final_run(job.folder, distilled=job.distilled) for job in jobs),
        stages=tuple(tuple(all_runs(job.folder, distilled=job.distilled)) for job in jobs),
        results=tuple(job.result for job in jobs if job.result is not None),
        seconds=tuple(job.seconds or 0.0 for job in jobs),
    )


def read_labels(folder: Path, dataset: str) -> TestSet:
    """Return the labels that the driver kept; raises `RunError` if they are missing or damaged."""
    path = labels_file(folder, dataset)
    try:
        kept = {key: read_array(path, find_header(path, (key,))) for key in KEPT}
        return _test_set(dataset, kept, known_copies(path, str(kept["digest"])))
    except (DataError, MetricError, ValueError, TypeError, OverflowError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}); `qvit study run` makes it again.") from error


def _test_set(dataset: str, kept: dict[str, NDArray[Any]], copies: Bool[np.ndarray, " n"] | None) -> TestSet:
    """Return the test set described by the driver's arrays; raises various errors if kinds or shapes are wrong."""
    train, val, test = map(int, kept["images"])
    labels, task = kept["test"], str(kept["task"])
    asks_per_label(task)  # raises for an unknown task
    if labels.dtype.kind not in "iu" or labels.ndim != 2 or len(labels) != test or kept["names"].ndim != 1:
        raise ValueError(f"its labels are {labels.dtype} of the shape {labels.shape}, for {test} images")
    return TestSet(
        name=name_of(dataset),
        title=str(kept["title"]),
        task=task,
        classes=tuple(map(str, kept["names"])),
        labels=labels.astype(np.int64),
        images=(train, val, test),
        digest=str(kept["digest"]),
        synthetic=bool(kept["synthetic"]),
        official=not is_path(dataset),
        copies=copies,
    )
