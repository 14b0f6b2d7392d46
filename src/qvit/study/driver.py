"""The driver of a study: it chooses the next run, gives it to a pool, and records the outcome."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from qvit.errors import RunError
from qvit.files import write_atomic
from qvit.study.outcome import OUTPUTS
from qvit.study.pool import Event, Pool
from qvit.study.store import Store, StoredJob
from qvit.study.work import Work

MOST_IN_STACK = 50  # runs; more are no quicker
LOST_AT_MOST = 3  # workers lost by a run before the run is blamed
TICK = 0.5  # seconds between two checks while nothing happens


@dataclass
class StudyProgress:
    """How far a study has got, passed to `on_news` whenever something happens.

    `doing` holds stage, epoch and number of epochs of each running run, by name; `left` is the estimated number of
    seconds left, None while unknown. `news` is a line on what just happened, or empty.
    """

    total: int
    finished: int = 0
    failed: int = 0
    found: int = 0
    doing: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    left: float | None = None
    news: str = ""


OnNews = Callable[[StudyProgress], None]


def distinct(jobs: Sequence[StoredJob]) -> list[StoredJob]:
    """Return one job per identity, since several jobs may need the same run."""
    return list({job.identity: job for job in reversed(jobs)}.values())[::-1]


def error_file(job: StoredJob) -> Path:
    """Return the path of the traceback of a failed run."""
    return job.folder.with_name(f"{job.folder.name}.error.txt")


class Driver:
    """Gives runs to workers, teachers first, and records their outcomes."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        options: dict[str, dict[str, Any]],
        *,
        root: str | Path | None,
        memory: float,
        on_news: OnNews | None,
    ) -> None:
        jobs = distinct(store.jobs())
        self.store, self.folder, self.options, self.root, self.memory = store, folder, options, root, memory
        self.jobs = {job.identity: job for job in jobs}
        self.waiting = [job.identity for job in jobs if job.status != "finished"]
        self.running: dict[str, float] = {}
        self.lost: defaultdict[str, int] = defaultdict(int)
        self.sizes: dict[str, int] = {}  # of the stacks that running runs are in
        self.kinds = {
            identity: _kind(job, options[identity])
            for identity, job in self.jobs.items()
            if options[identity].get("stacked")
        }
        self.status = {job.identity: job.status for job in jobs}
        self.done = 0
        self._seconds: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        for job in jobs:
            if job.status == "finished" and job.seconds is not None:
                self._learn(job, job.seconds)
        self._told = on_news or (lambda progress: None)
        found = sum(status == "finished" for status in self.status.values())
        self.progress = StudyProgress(total=len(jobs), finished=found, found=found)

    def run(self, pool: Pool) -> None:
        """Do all waiting runs."""
        self._tell(f"{self.progress.found} of {self.progress.total} runs are done already" * bool(self.progress.found))
        while self.waiting or self.running:
            while pool.idle > 0:
                identity = self._next()
                if identity is None:
                    break
                self._begin([identity, *self._alike(identity, pool)], pool)
            if not self.running:
                if self.waiting:
                    raise RunError(
                        f"No worker takes the {len(self.waiting)} runs that are left: the machines have too few "
                        "processors for one run. Give them more processors, or runs fewer threads."
                    )
                break
            for event in pool.events(TICK):
                self._hear(event)

    def _next(self) -> str | None:
        """Return the next run whose teachers are finished; runs whose teachers failed are marked as failed."""
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

    def _alike(self, identity: str, pool: Pool) -> list[str]:
        """Take those of the waiting runs that can be trained together with one, as many as an idle worker's share.

        They differ from it in the seed alone. A run that has lost a worker is done by itself.
        """
        key = self._stack_of(identity)
        if not pool.stacks or key is None:
            return []
        alike = [other for other in self.waiting if self._stack_of(other) == key]
        kinds = {self._stack_of(other) or other for other in self.waiting} - {key}
        workers = max(1, pool.idle - len(kinds))  # if others wait, these are for the other workers
        share = min(-(-(1 + len(alike)) // workers), MOST_IN_STACK) - 1
        for other in alike[:share]:
            self.waiting.remove(other)
        return alike[:share]

    def _stack_of(self, identity: str) -> str | None:
        """Return what runs of a stack have in common; None for a run that is done by itself."""
        return None if self.lost.get(identity) else self.kinds.get(identity)

    def _begin(self, identities: Sequence[str], pool: Pool) -> None:
        works = [self._work(identity) for identity in identities]
        worker = pool.submit(replace(works[0], others=tuple(works[1:])))
        for identity in identities:
            self.running[identity], self.sizes[identity] = time.monotonic(), len(identities)
            self.status[identity] = "running"
            self.store.begin(identity, worker)
            self.progress.doing[self.jobs[identity].name] = ("starting", 0, 1)
        self._tell()

    def _work(self, identity: str) -> Work:
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
            memory=self.memory,
        )
        job.folder.parent.mkdir(exist_ok=True)
        return work

    def _hear(self, event: Event) -> None:
        job = self.jobs[event.identity]
        if event.kind == "epoch":
            self.progress.doing[job.name] = event.told
            self._tell()
            return
        wall = (time.monotonic() - self.running.pop(event.identity)) / self.sizes.pop(event.identity)
        self.progress.doing.pop(job.name, None)
        if event.kind == "finished":
            outcome = event.told
            error_file(job).unlink(missing_ok=True)
            self.store.finish(event.identity, outcome.result, outcome.seconds)
            self.status[event.identity] = "finished"
            self._learn(job, wall)
            self.progress.finished += 1
            self.done += 1
            self._tell(
                f"{job.name}: test AUC {outcome.result.test.auc:.3f}, ACC {outcome.result.test.acc:.3f}, {wall:.1f} s"
            )
        elif event.kind == "failed":
            line, trace = event.told
            write_atomic(error_file(job), trace.encode(errors="backslashreplace"))
            self._fail(event.identity, line)
        else:
            self._lose(event)

    def _lose(self, event: Event) -> None:
        """Put a run whose worker died back in the queue, unless it has lost too many workers."""
        self.lost[event.identity] += 1
        if self.lost[event.identity] >= LOST_AT_MOST:
            self._fail(event.identity, f"lost {LOST_AT_MOST} workers; the last one: {event.told}")
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
        """Return the estimated seconds left, with as many runs at a time as now."""
        now, total = time.monotonic(), 0.0
        usual = {key: median(seconds) for key, seconds in self._seconds.items()}
        for identity in (*self.waiting, *self.running):
            known = next((usual[key] for key in _likeness(self.jobs[identity]) if key in usual), None)
            if known is None:
                return None
            spent = (now - self.running[identity]) / self.sizes[identity] if identity in self.running else 0.0
            total += max(0.0, known - spent)
        return total / max(1.0, sum(1.0 / self.sizes[identity] for identity in self.running))


def _kind(job: StoredJob, options: dict[str, Any]) -> str:
    """Return what runs that can be trained together have in common: their teachers, and all options but the seed."""
    return repr((job.teachers, sorted((key, value) for key, value in options.items() if key != "seed")))


def _likeness(job: StoredJob) -> list[tuple[str, ...]]:
    """Return keys that runs of about the same length share, the most specific first."""
    kind = (job.role, "distilled" if job.distilled else "")
    return [(*kind, job.dataset, job.model.label, job.regime), (*kind, job.dataset), kind]
