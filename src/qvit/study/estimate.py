"""Estimate a study's time and disk space: a short timing of every model, times the epochs and images of its runs.

What is timed is what the workers will do: steps of a stack of as many models as are trained together, or of one alone.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qvit.cpu.memory import reuse_memory
from qvit.data.arrays import Dataset, Split
from qvit.data.augment import group_size
from qvit.data.registry import DatasetInfo, get_info, is_path, name_of
from qvit.data.transfer import load_images
from qvit.data.views import Views
from qvit.distill.pipeline import FEW, DistillationConfig
from qvit.errors import CircuitWarning
from qvit.models.baselines import BaselineConfig
from qvit.models.pooled_features import number_of_features
from qvit.models.vit import ViTConfig
from qvit.models.zoo import ModelConfig, build, count_parameters
from qvit.study.driver import MOST_IN_STACK
from qvit.study.pool import cores
from qvit.study.spec import Job, Study
from qvit.timing import median_milliseconds
from qvit.training.batches import default_batch_size
from qvit.training.config import MEMORY
from qvit.training.distributed import ALONE
from qvit.training.fitted import LEAVES, MOST_ROWS, MOST_TO_CHOOSE
from qvit.training.many import most_together
from qvit.training.options import RunConfig
from qvit.training.prediction import predict_logits, predict_stack
from qvit.training.seeding import seeded
from qvit.training.state import Member
from qvit.training.surroundings import surroundings
from qvit.training.together import Alone, Stack, Together

ENOUGH = 0.4  # seconds for timing one model
STEPS = 20  # at most
VIEWS = 256  # images predicted to time prediction
START = 0.5  # seconds of a run besides training: reading, evaluating with intervals, writing
# Seconds of fitting a baseline on a processor of 2020: for each tree, row and doubling of rows; for each row, feature
# and class; for each pair of images and feature.
FITTING = {"extra_trees": 6e-7, "logistic": 1e-6, "nearest": 2e-10}
BYTES = {"score": 21, "epoch": 260, "weight": 4, "run": 6000}  # bytes on disk per score, epoch, weight and run


@dataclass(frozen=True)
class PlannedRuns:
    """Runs that differ only in the seed, `together` of which are trained as one stack.

    `seconds` is the time of one run, or one run's share of a stack's, `total` of all.
    """

    dataset: str
    model: str
    regime: str
    runs: int
    together: int
    seconds: float

    @property
    def total(self) -> float:
        """The seconds of all runs."""
        return self.runs * self.seconds


@dataclass(frozen=True)
class Planned:
    """The estimated cost of a study on this machine: computing time, time with `workers` at work, and disk space.

    `timed` is how many kinds of models were timed for it.
    """

    rows: tuple[PlannedRuns, ...]
    workers: int
    megabytes: float
    timed: int

    @property
    def runs(self) -> int:
        """The number of runs."""
        return sum(row.runs for row in self.rows)

    @property
    def seconds(self) -> float:
        """The seconds of computing."""
        return sum(row.total for row in self.rows)

    @property
    def wall(self) -> float:
        """The seconds until all runs are done."""
        return self.seconds / self.workers

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as plain values."""
        return {
            "runs": self.runs,
            "seconds": self.seconds,
            "workers": self.workers,
            "wall_seconds": self.wall,
            "megabytes": self.megabytes,
            "timed": self.timed,
            "rows": [asdict(row) | {"total": row.total} for row in self.rows],
        }


def estimate(
    study: Study,
    *,
    workers: int | None = None,
    root: str | Path | None = None,
    on_timed: Callable[[int, int], None] | None = None,
) -> Planned:
    """Return the estimated cost of a study, from a short timing on random images; nothing is downloaded.

    `workers` is the number of runs at a time, by default as in `run_study`. `on_timed(done, all)` is called after each
    model. Raises `DataError` for a user's file that cannot be read.
    """
    groups: dict[tuple[str, str, str, str], list[Job]] = {}
    for job in study.jobs:
        groups.setdefault((job.role, job.dataset, job.model.label, job.regime), []).append(job)
    threads = max(job.run.train.threads for job in study.jobs)
    count = min(workers or max(1, cores() // threads), len(study.jobs))
    timer, rows, disk = _Timer(root), [], 0.0
    for done, ((_, dataset, model, regime), jobs) in enumerate(groups.items(), 1):
        together = min(MOST_IN_STACK, -(-len(jobs) // max(1, count // len(groups))))  # as the driver shares them out
        seconds, together = timer.seconds(jobs[0], together)
        rows.append(PlannedRuns(name_of(dataset), model, regime, len(jobs), together, seconds))
        disk += len(jobs) * timer.bytes(jobs[0])
        if on_timed is not None:
            on_timed(done, len(groups))
    disk += sum(timer.outputs_bytes(jobs) for jobs in groups.values() if jobs[0].role == "teacher")
    return Planned(tuple(rows), count, disk / 2**20, timer.timed)


def _stages(
    config: RunConfig | DistillationConfig, images: int, root: str | Path | None
) -> list[tuple[RunConfig, int]]:
    """Return the runs of a job, each with its number of training images."""
    if isinstance(config, RunConfig):
        return [(config, images)]
    if config.transfer_set is None:
        first = config.mixed(images)
    else:
        first = _transferred(config.transfer_set, config.student.size, root)
    return [(config.of(stage), first or images if stage == "pretrain" else images) for stage in config.stages]


def _transferred(name: str, size: int, root: str | Path | None) -> int:
    """Return the number of images of a transfer set."""
    if not is_path(name):
        return get_info(name).splits["train"]
    return len(load_images(name, size=size, channels=3, root=root, download=False)[0])


class _Timer:
    """Times each model on each kind of images once."""

    def __init__(self, root: str | Path | None) -> None:
        self._root = root
        self._timed: dict[Any, tuple[float, float]] = {}
        self._infos: dict[tuple[str, int], DatasetInfo] = {}
        self._architectures: dict[Any, ModelConfig] = {}
        self._weights: dict[ModelConfig, int] = {}

    @property
    def timed(self) -> int:
        """How many kinds of models have been timed."""
        return len(self._timed)

    def seconds(self, job: Job, together: int) -> tuple[float, int]:
        """Return the estimated seconds of a run, and of how many runs at a time that is one's share.

        These are `together`, or as many as fit into the memory that a stack may take; one if it cannot be stacked.
        """
        config, info = job.resolved(), self._info(job.run)
        total = 0.0
        for run, images in _stages(config, info.splits["train"], self._root):
            architecture = self._architecture(run, info)
            if isinstance(architecture, BaselineConfig):
                return START + _fitting(architecture, info, group_size(_group(info, run))), 1
            batch = run.train.batch_size or default_batch_size(images)
            together = self._most(run, info, batch, together)
            step, view = self._time(run, info, batch, together)
            tta = 1 if run.train.tta == "never" else group_size(_group(info, run))
            epoch = math.ceil(images / batch) * step + tta * info.splits["val"] * view
            total += START + run.train.epochs * epoch + tta * info.splits["test"] * view
        return total, together

    def bytes(self, job: Job) -> float:
        """Return the estimated bytes that a run leaves on disk."""
        config, info = job.resolved(), self._info(job.run)
        scores = (info.splits["val"] + info.splits["test"]) * info.num_classes
        total = 0.0
        for run, _ in _stages(config, info.splits["train"], self._root):
            architecture = self._architecture(run, info)
            if isinstance(architecture, BaselineConfig):
                return BYTES["run"] + scores * BYTES["score"] + _numbers(architecture, info) * BYTES["weight"]
            if architecture not in self._weights:
                self._weights[architecture] = count_parameters(architecture)
            total += BYTES["run"] + scores * BYTES["score"] + run.train.epochs * BYTES["epoch"]
            total += self._weights[architecture] * BYTES["weight"]
        return total

    def outputs_bytes(self, teachers: Sequence[Job]) -> float:
        """Return the bytes of a teacher's outputs on disk, per run: a logit per class, image and symmetry."""
        run = teachers[0].run
        info = self._info(run)
        images = max(FEW, info.splits["train"])
        return 4.0 * info.num_classes * images * group_size(_group(info, run)) / len(teachers)

    def _info(self, run: RunConfig) -> DatasetInfo:
        key = run.dataset, run.size
        if key not in self._infos:
            if is_path(run.dataset):
                data = run.load_data(self._root)
                self._infos[key] = data.info
            else:
                self._infos[key] = get_info(run.dataset)
        return self._infos[key]

    def _architecture(self, run: RunConfig, info: DatasetInfo) -> ModelConfig:
        key = run.model, info.channels, info.num_classes, run.size, tuple(sorted(run.model_options.items()))
        if key not in self._architectures:
            self._architectures[key] = run.architecture(info, run.size)
        return self._architectures[key]

    def _most(self, run: RunConfig, info: DatasetInfo, batch: int, together: int) -> int:
        architecture = self._architecture(run, info)
        if not run.stacked or not isinstance(architecture, ViTConfig):
            return 1
        return min(together, most_together(architecture, batch, MEMORY))

    def _time(self, run: RunConfig, info: DatasetInfo, batch: int, together: int) -> tuple[float, float]:
        architecture = self._architecture(run, info)
        alike = replace(architecture, num_classes=2)  # the time that classes, and losses, take is next to nothing
        changed = run.train.distort > 0.0, run.train.mixup > 0.0
        key = alike, batch, changed, run.train.threads, run.train.device, run.stacked, together
        if key not in self._timed:
            with warnings.catch_warnings(), surroundings(run.train.threads), seeded(0, alone=False):
                warnings.simplefilter("ignore", CircuitWarning)
                self._timed[key] = _time(run, architecture, info, batch, together)
        return self._timed[key]


def _fitting(baseline: BaselineConfig, info: DatasetInfo, elements: int) -> float:
    """Return about how many seconds a baseline takes to be fitted and to predict; nothing is timed."""
    images, features = info.splits["train"], number_of_features(info.channels)
    rows, asked = max(images, min(images * elements, MOST_ROWS)), elements * (info.splits["val"] + info.splits["test"])
    each = FITTING.get(baseline.arch, 0.0)
    return each * {
        "extra_trees": baseline.trees * rows * math.log2(rows + 1),
        "logistic": rows * features * info.num_classes,
        "nearest": (asked + min(images, MOST_TO_CHOOSE)) * images * features,
    }.get(baseline.arch, 0.0)


def _numbers(baseline: BaselineConfig, info: DatasetInfo) -> int:
    """Return about how many numbers a baseline stores."""
    images, features, classes = info.splits["train"], number_of_features(info.channels), info.num_classes
    return {
        "extra_trees": baseline.trees * min(images, LEAVES) * (6 + classes),
        "nearest": images * (features + 1),
    }.get(baseline.arch, (features + 1) * classes)


def _group(info: DatasetInfo, run: RunConfig) -> str:
    return info.augment if run.train.augment == "auto" else run.train.augment


def _time(
    run: RunConfig, architecture: ModelConfig, info: DatasetInfo, batch: int, together: int
) -> tuple[float, float]:
    """Return one model's share of the seconds of a step, and of predicting one image, medians after warm-up."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (max(batch, VIEWS), info.channels, run.size, run.size), dtype=np.uint8)
    columns = info.num_classes if info.task == "multi-label" else 1
    top = 2 if info.task == "multi-label" else info.num_classes
    labels = np.arange(len(images) * columns).reshape(-1, columns) % top
    split = Split(images, labels.astype(np.int64))
    data, device = Dataset(info, run.size, split, split, split), run.train.device
    config = replace(run.train, batch_size=batch)
    members = [Member(data, config, seed) for seed in range(together)]
    models: list[Any] = [build(architecture).to(device) for _ in members]
    views = Views(split, "none")
    reuse_memory()
    trained: Together = Stack(models, members) if run.stacked else Alone(models[0], members[0], ALONE)

    def step() -> None:
        trained.step(trained.epochs(), range(together), 0).sum().item()

    def view() -> None:
        if isinstance(trained, Stack):
            predict_stack(trained.module, [views] * together, device=device)
        else:
            predict_logits(trained.module, split, device=device)

    trained.module.train()
    taken = [median_milliseconds([what], repeats=STEPS, warm_up=1, budget=ENOUGH, least=1)[0] for what in (step, view)]
    return taken[0] / 1e3 / together, taken[1] / 1e3 / len(images) / together
