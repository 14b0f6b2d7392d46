"""Run a study: plan its runs, find those that are already finished, and let a driver do the others.

plan → identities → (runs that are finished in the folder are found) → workers → store

A run is "finished" once its folder says so; the store is updated afterwards. A driver that is killed in between finds
the run finished when it is started again, so nothing is done twice, and unfinished runs continue from their last whole
epoch.
"""

import errno
import hashlib
import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import qvit
from qvit.data.arrays import Dataset
from qvit.errors import ConfigError, ModelError, RunError
from qvit.files import printable, sole_user, write_atomic
from qvit.models.cost import cost_of
from qvit.study.code import code_digest
from qvit.study.database import OnWait
from qvit.study.driver import Driver, OnNews, distinct
from qvit.study.identity import Identities
from qvit.study.outcome import read_outcome
from qvit.study.places import named
from qvit.study.pool import LocalPool, Pool, await_workers, cores
from qvit.study.spec import Study
from qvit.study.store import KnownCost, Store, known_copies, labels_file
from qvit.training.config import MEMORY
from qvit.training.environment import environment
from qvit.validate import require

# The errors by which a disk refuses to be written.
REFUSALS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EIO)


@dataclass(frozen=True)
class Summary:
    """The outcome of `run_study`: numbers of runs (`done_now`: by this call), errors of failed runs, seconds."""

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
    memory: float = MEMORY,
    on_news: OnNews | None = None,
    on_wait: OnWait | None = None,
) -> Summary:
    """Do all runs of a study that have not been done in `folder`, and keep its state there.

    `workers` is the number of workers, by default as many as the cores allow, `ray` the address of a Ray cluster or
    "local". Each worker does one run at a time, or stacks of runs that take at most `memory` gigabytes. A run that
    crashes is recorded and does not stop the others; it is tried again the next time. `on_wait` is called with a line
    of text if another process keeps the study's file busy for long. Raises `RunError` if the folder holds something
    else, is in use or cannot be written, `ConfigError` and `ModelError` for a run or a memory that cannot be, and
    `DataError` for data that cannot be used.
    """
    require(0.0 < memory < math.inf, "memory", "positive", memory)
    folder, began = Path(folder), time.monotonic()
    with _writing(folder), _usable(folder):
        datasets = _load_datasets(study, root=root, download=download)
    with _writing(folder), sole_user(folder):
        await_workers(folder)
        with Store.open(folder, on_wait=on_wait) as store:
            options = _plan(store, study, datasets, root=root)
            _forget_what_stopped(store)
            driver = Driver(store, folder, options, root=root, memory=memory, on_news=on_news)
            if driver.waiting:
                threads = max(job.run.train.threads for job in study.jobs)
                pool = _pool(folder, workers, ray, threads, len(driver.waiting))
                try:
                    driver.run(pool)
                finally:
                    pool.close()
            jobs = distinct(store.jobs())
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


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Make the folder and check that a study can use it; if the block fails, remove it if it is new."""
    made = not folder.exists()
    _check_folder(folder)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _check_folder(folder: Path) -> None:
    printable(folder, raised=RunError)  # checked here, or every run would be refused, one after another
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
    """Load every dataset once, so that it is downloaded and checked before any worker needs it."""
    checked = set()
    for job in study.jobs:
        run = replace(job.run, seed=0)
        if (key := repr(run)) in checked:
            continue
        checked.add(key)
        try:
            run.check_without_data()
        except (ConfigError, ModelError) as error:
            raise type(error)(f"{job.name}: {error}") from error
    datasets: dict[str, Dataset] = {}
    for job in study.jobs:
        if job.dataset not in datasets:
            datasets[job.dataset] = job.run.load_data(root, download=download)
    return datasets


def _plan(
    store: Store, study: Study, datasets: dict[str, Dataset], *, root: str | Path | None
) -> dict[str, dict[str, Any]]:
    """Record the jobs in the store; return the options of each identity, with the current paths of data."""
    digests = {(job.dataset, job.run.size): datasets[job.dataset].digest for job in study.jobs}
    identities = Identities(root, digests)
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
        machine={"qvit": qvit.__version__, **environment()},
    )
    return {identity: job.options for identity, job in jobs}


def _keep_costs(store: Store, study: Study, datasets: dict[str, Dataset]) -> None:
    """Record what models cost; a cost known for the same model and the same code is not computed again."""
    known, found = store.costs(), {}
    wanted = {(named(job.dataset), job.model.label): job for job in study.jobs}
    for key, job in wanted.items():
        run, data = job.run, datasets[job.dataset]
        config = run.architecture(data.info, data.size)
        said = json.dumps([code_digest(), run.model, asdict(config)], sort_keys=True)
        of = hashlib.sha256(said.encode()).hexdigest()
        if key not in known or known[key].of != of:
            found[key] = KnownCost(cost_of(config), of)
    store.set_costs((*key, cost) for key, cost in found.items())


def _keep_labels(folder: Path, name: str, data: Dataset) -> None:
    path = labels_file(folder, name)
    path.parent.mkdir(exist_ok=True)
    copies = known_copies(path, data.digest)
    if copies is None:
        from qvit.data.findings import copies_in  # compiles kernels, which a driver does not need else

        copies = copies_in(data, "test")
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
        copies=copies,
    )
    write_atomic(path, buffer.getvalue())


def _forget_what_stopped(store: Store) -> None:
    """Update the store from the folders, since an earlier driver may have been killed at any moment."""
    for job in distinct(store.jobs()):
        try:
            outcome = read_outcome(job.folder, distilled=job.distilled)
        except RunError:
            outcome = None  # the worker that does it will say what is wrong
        if outcome is not None:
            if job.status != "finished":
                store.finish(job.identity, outcome.result, outcome.seconds)
        elif job.status != "waiting":
            store.release(job.identity, "stopped with its driver")


def _pool(folder: Path, workers: int | None, ray: str | None, threads: int, jobs: int) -> Pool:
    if workers is not None and workers < 1:
        raise RunError(f"A study needs at least one worker, got {workers}.")
    count = min(workers or max(1, cores() // threads), jobs)
    if ray is not None:
        from qvit.study.ray_pool import RayPool

        return RayPool(ray, folder, workers=count, threads=threads)
    return LocalPool(count, folder, threads=threads)
