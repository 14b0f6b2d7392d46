"""The driver of a study: it alone decides what is done next, and it alone writes down what became of it.

plan → identities → (what is finished in the folder is found) → workers → store

A run is "finished" once its folder says so; the store follows. A driver that is killed between the two finds the run
finished when it comes again, so nothing is done twice, and whatever had begun goes on from its last whole epoch.
"""

import errno
import hashlib
import io
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import qvit
from qvit.data.arrays import Dataset, load_dataset
from qvit.errors import RunError
from qvit.files import printable, sole_user, write_atomic
from qvit.models.cost import cost_of
from qvit.models.zoo import model_config
from qvit.study.database import OnWait
from qvit.study.identity import COMPUTED_BY, Identities, code_digest
from qvit.study.places import named
from qvit.study.pool import Event, LocalPool, Pool, await_workers, cores
from qvit.study.results import labels_file
from qvit.study.spec import Study
from qvit.study.store import Store, StoredJob
from qvit.study.stored import is_cost
from qvit.study.work import OUTPUTS, Work, read_outcome
from qvit.training.record import processor

LOST_AT_MOST = 3  # workers a run may lose before it is taken to be its fault
TICK = 0.5  # seconds between looks at a study in which nothing happens
# What a disk may say when it is asked to write.
REFUSALS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EIO)


@dataclass
class Progress:
    """How far a study is: told to `on_news` whenever something happens.

    `doing` holds stage, epoch and epochs of the runs at work, by name; `left` the seconds that the rest may take, None
    while nobody knows. `news` is what just happened, in a line, or empty.
    """

    total: int
    finished: int = 0
    failed: int = 0
    found: int = 0
    doing: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    left: float | None = None
    news: str = ""


OnNews = Callable[[Progress], None]


@dataclass(frozen=True)
class Summary:
    """What `run_study` came to: numbers of runs, those done now among them, and the errors of those that failed."""

    total: int
    finished: int
    done_now: int
    failed: dict[str, str]
    seconds: float


def run_study(
    study: Study,
    folder: str | Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    root: str | Path | None = None,
    download: bool = True,
    on_news: OnNews | None = None,
    on_wait: OnWait | None = None,
) -> Summary:
    """Do all runs of a study that have not been done in `folder`, and keep its state there.

    `workers` is the number of runs at a time, by default as many as the cores have room for, `ray` the address of a
    Ray cluster or "local". A run that crashes is recorded and does not stop the others; it is tried again the next
    time. `on_wait` is told, in a line, of another process that keeps the study's file for long. Raises `RunError` if
    the folder holds something else, is in use or cannot be written, `ConfigError` and `DataError` for what is wrong
    with all runs alike.
    """
    folder, began = Path(folder), time.monotonic()
    _check_folder(folder)
    with _writing(folder), sole_user(folder):
        await_workers(folder)
        with Store.open(folder, on_wait=on_wait) as store:
            datasets = _load_datasets(study, root=root, download=download)
            options = _plan(store, study, datasets, root=root)
            _forget_what_stopped(store)
            driver = _Driver(store, folder, options, root=root, on_news=on_news)
            if driver.waiting:
                threads = max(job.run.train.threads for job in study.jobs)
                pool = _pool(folder, workers, ray, threads, len(driver.waiting))
                try:
                    driver.run(pool)
                finally:
                    pool.close()
            jobs = _distinct(store.jobs())
    return Summary(
        total=len(jobs),
        finished=sum(job.status == "finished" for job in jobs),
        done_now=driver.done,
        failed={job.name: job.error or "" for job in jobs if job.status == "failed"},
        seconds=time.monotonic() - began,
    )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn the disk's refusal to write into a `RunError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise RunError(
            f"Cannot write to {error.filename or folder}: {error.strerror}. Nothing was lost; free some space, or "
            "choose a folder that you may write to with --out."
        ) from error


def _check_folder(folder: Path) -> None:
    printable(folder, raised=RunError)  # or every run would be refused, one after another
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    except OSError as error:
        raise RunError(
            f"Cannot use {folder} as the folder of a study: {error.strerror or error}. Choose another with --out."
        ) from error
    if names and "study.sqlite" not in names and "runs" not in names:
        raise RunError(f"{folder} is not empty and holds no study; choose another with --out.")
    if {"config.json", "distillation.json"} & names:
        raise RunError(f"{folder} is the folder of a run, not of a study; choose another with --out.")


def _load_datasets(study: Study, *, root: str | Path | None, download: bool) -> dict[str, Dataset]:
    """Load every dataset once: it is downloaded, and found to be good, before any worker asks for it."""
    datasets: dict[str, Dataset] = {}
    for job in study.jobs:
        if job.dataset not in datasets:
            run = job.run
            datasets[job.dataset] = load_dataset(
                run.dataset, size=run.size, root=root, download=download, task=run.task
            )
    return datasets


def _plan(
    store: Store, study: Study, datasets: dict[str, Dataset], *, root: str | Path | None
) -> dict[str, dict[str, Any]]:
    """Write down what is asked for; returns the options of each identity, with the places of data as they are now."""
    identities = Identities(root)
    jobs = [(identities.of(job), job) for job in study.jobs]
    store.plan(jobs, {identity: [identities.of(teacher) for teacher in job.teachers] for identity, job in jobs})
    for name, data in datasets.items():
        _keep_labels(store.folder, name, data)
    _keep_costs(store, study, datasets)
    store.put(
        name=study.name,
        title=study.title,
        description=study.description,
        specification=study.text,
        code=code_digest(),
        machine=_machine(),
    )
    return {identity: job.options for identity, job in jobs}


def _keep_costs(store: Store, study: Study, datasets: dict[str, Dataset]) -> None:
    """Write down what models cost; what is known of the very same model by the same code is not worked out again."""
    known, found = store.costs(), {}
    wanted = {(named(job.dataset), job.model.label): job for job in study.jobs}
    for key, job in wanted.items():
        run, data = job.run, datasets[job.dataset]
        config = model_config(
            run.model,
            in_chans=data.info.channels,
            num_classes=data.info.num_classes,
            img_size=data.size,
            **run.model_options,
        )
        said = json.dumps([code_digest(), run.model, asdict(config)], sort_keys=True)
        of = hashlib.sha256(said.encode()).hexdigest()
        if not is_cost(known.get(key)) or known[key].get("of") != of:
            found[key] = asdict(cost_of(config)) | {"of": of}
    store.set_costs((*key, cost) for key, cost in found.items())


def _keep_labels(folder: Path, name: str, data: Dataset) -> None:
    path = labels_file(folder, name)
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        val=data.val.labels,
        test=data.test.labels,
        names=np.array(data.info.labels),
        task=np.array(data.info.task),
        title=np.array(data.info.title),
        images=np.array([len(split) for split in data.splits.values()]),
        digest=np.array(data.digest),
        synthetic=np.array(data.info.synthetic),
    )
    write_atomic(path, buffer.getvalue())


def _machine() -> dict[str, Any]:
    return {
        "qvit": qvit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in COMPUTED_BY},
    }


def _forget_what_stopped(store: Store) -> None:
    """Bring the store in line with the folders, after a driver that may have been killed at any moment."""
    for job in _distinct(store.jobs()):
        try:
            outcome = read_outcome(job.folder, distilled=job.distilled)
        except RunError:
            outcome = None  # whoever does it will say what is wrong with it
        if outcome is not None:
            if job.status != "finished":
                store.finish(job.identity, outcome.result, outcome.seconds)
        elif job.status != "waiting":
            store.release(job.identity, "stopped with its driver")


def _distinct(jobs: Sequence[StoredJob]) -> list[StoredJob]:
    """Return one job an identity: a run may answer two of them."""
    return list({job.identity: job for job in reversed(jobs)}.values())[::-1]


def _pool(folder: Path, workers: int | None, ray: str | None, threads: int, jobs: int) -> Pool:
    if workers is not None and workers < 1:
        raise RunError(f"A study needs at least one worker, got {workers}.")
    count = min(workers or max(1, cores() // threads), jobs)
    if ray is not None:
        from qvit.study.ray_pool import RayPool

        return RayPool(ray, folder, workers=count, threads=threads)
    return LocalPool(count, folder, threads=threads)


def error_file(job: StoredJob) -> Path:
    """Return where the traceback of a failed run is kept."""
    return job.folder.with_name(f"{job.folder.name}.error.txt")


class _Driver:
    """Hands out runs, teachers first, and writes down what becomes of them."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        options: dict[str, dict[str, Any]],
        *,
        root: str | Path | None,
        on_news: OnNews | None,
    ) -> None:
        jobs = _distinct(store.jobs())
        self.store, self.folder, self.options, self.root = store, folder, options, root
        self.jobs = {job.identity: job for job in jobs}
        self.waiting = [job.identity for job in jobs if job.status != "finished"]
        self.running: dict[str, float] = {}
        self.lost: defaultdict[str, int] = defaultdict(int)
        self.status = {job.identity: job.status for job in jobs}
        self.done = 0
        self._seconds: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        for job in jobs:
            if job.status == "finished" and job.seconds is not None:
                self._learn(job, job.seconds)
        self._told = on_news or (lambda progress: None)
        found = sum(status == "finished" for status in self.status.values())
        self.progress = Progress(total=len(jobs), finished=found, found=found)

    def run(self, pool: Pool) -> None:
        """Do everything that waits."""
        self._tell(f"{self.progress.found} of {self.progress.total} runs are done already" * bool(self.progress.found))
        while self.waiting or self.running:
            while pool.idle > 0:
                identity = self._next()
                if identity is None:
                    break
                self._begin(identity, pool)
            if not self.running:
                if self.waiting:
                    raise RunError(
                        f"Nobody takes the {len(self.waiting)} runs that are still to be done: the machines have too "
                        "few processors for one. Give them more, or runs fewer threads."
                    )
                break
            for event in pool.events(TICK):
                self._hear(event)

    def _next(self) -> str | None:
        """Return the next run whose teachers are finished; runs whose teachers failed fail with them."""
        for identity in list(self.waiting):
            teachers = {teacher: self.status[teacher] for teacher in self.jobs[identity].teachers}
            failed = [self.jobs[teacher].name for teacher, status in teachers.items() if status == "failed"]
            if failed:
                self.waiting.remove(identity)
                self._fail(identity, f"its teacher failed ({failed[0]})")
            elif all(status == "finished" for status in teachers.values()):
                self.waiting.remove(identity)
                return identity
        return None

    def _begin(self, identity: str, pool: Pool) -> None:
        job = self.jobs[identity]
        work = Work(
            identity=identity,
            name=job.name,
            options=self.options[identity],
            folder=job.folder,
            outputs=self.folder / OUTPUTS,
            teachers=tuple(self.jobs[teacher].folder for teacher in job.teachers),
            root=None if self.root is None else Path(self.root),
            download=False,
        )
        job.folder.parent.mkdir(exist_ok=True)
        self.running[identity] = time.monotonic()
        self.status[identity] = "running"
        self.store.begin(identity, pool.submit(work))
        self.progress.doing[job.name] = ("starting", 0, 1)
        self._tell()

    def _hear(self, event: Event) -> None:
        job = self.jobs[event.identity]
        if event.kind == "epoch":
            self.progress.doing[job.name] = event.told
            self._tell()
            return
        wall = time.monotonic() - self.running.pop(event.identity)
        self.progress.doing.pop(job.name, None)
        if event.kind == "finished":
            outcome = event.told
            error_file(job).unlink(missing_ok=True)
            self.store.finish(event.identity, outcome.result, outcome.seconds)
            self.status[event.identity] = "finished"
            self._learn(job, wall)
            self.progress.finished += 1
            self.done += 1
            test = outcome.result["test"]
            self._tell(f"{job.name}: test AUC {test['auc']:.3f}, ACC {test['acc']:.3f}, {wall:.1f} s")
        elif event.kind == "failed":
            line, trace = event.told
            write_atomic(error_file(job), trace.encode(errors="backslashreplace"))
            self._fail(event.identity, line)
        else:
            self._lose(event)

    def _lose(self, event: Event) -> None:
        """Let a run whose worker died be gone on with by another, unless it has cost too many."""
        self.lost[event.identity] += 1
        if self.lost[event.identity] >= LOST_AT_MOST:
            self._fail(event.identity, f"lost {LOST_AT_MOST} workers; of the last, {event.told}")
            return
        self.store.release(event.identity, f"lost: {event.told}")
        self.status[event.identity] = "waiting"
        self.waiting.insert(0, event.identity)
        self._tell(f"{self.jobs[event.identity].name}: {event.told}; it goes on with another worker")

    def _fail(self, identity: str, error: str) -> None:
        self.store.fail(identity, error)
        self.status[identity] = "failed"
        self.progress.failed += 1
        self._tell(f"{self.jobs[identity].name} failed: {error}")

    def _learn(self, job: StoredJob, seconds: float) -> None:
        for key in _likeness(job):
            self._seconds[key].append(seconds)

    def _tell(self, news: str = "") -> None:
        self.progress.news = news
        self.progress.left = self._left()
        self._told(self.progress)

    def _left(self) -> float | None:
        """Return the seconds that the rest may take with as many runs at a time as now."""
        now, total = time.monotonic(), 0.0
        usual = {key: median(seconds) for key, seconds in self._seconds.items()}
        for identity in (*self.waiting, *self.running):
            known = next((usual[key] for key in _likeness(self.jobs[identity]) if key in usual), None)
            if known is None:
                return None
            spent = now - self.running[identity] if identity in self.running else 0.0
            total += max(0.0, known - spent)
        return total / max(1, len(self.running))


def _likeness(job: StoredJob) -> list[tuple[str, ...]]:
    """Return what runs of about the same length have in common, the best likeness first."""
    kind = (job.role, "distilled" if job.distilled else "")
    return [(*kind, job.dataset, job.model["label"], job.regime), (*kind, job.dataset), kind]
