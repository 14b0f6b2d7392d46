"""The state of a study: one SQLite file, written by the driver alone, so that a crash leaves whole transactions.

jobs       what the specification asks for, each with the identity of the run that answers it
runs       every run there ever was in this folder, by identity: its folder, status, error, figures
attempts   every time that a run was begun, and how that ended
models     what each model costs on each dataset
study      the specification and the circumstances
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from qvit.errors import RunError
from qvit.study.spec import Job

FILE = "study.sqlite"
FORMAT = 1
Status = Literal["waiting", "running", "finished", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    identity TEXT PRIMARY KEY, folder TEXT NOT NULL, distilled INTEGER NOT NULL, status TEXT NOT NULL, error TEXT,
    seconds REAL, result TEXT
);
CREATE TABLE IF NOT EXISTS jobs (
    place INTEGER PRIMARY KEY, identity TEXT NOT NULL REFERENCES runs, role TEXT NOT NULL, dataset TEXT NOT NULL,
    model TEXT NOT NULL, regime TEXT NOT NULL, seed INTEGER NOT NULL, options TEXT NOT NULL, teachers TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (
    identity TEXT NOT NULL REFERENCES runs, worker TEXT NOT NULL, began REAL NOT NULL, ended REAL, outcome TEXT
);
CREATE TABLE IF NOT EXISTS models (
    dataset TEXT NOT NULL, model TEXT NOT NULL, cost TEXT NOT NULL, PRIMARY KEY (dataset, model)
);
"""


@dataclass(frozen=True)
class StoredJob:
    """What the specification asks for, and what became of it; `model` is a `spec.StudyModel` as a dictionary."""

    identity: str
    role: str
    dataset: str
    model: dict[str, Any]
    regime: str
    seed: int
    options: dict[str, Any]
    teachers: tuple[str, ...]
    folder: Path
    distilled: bool
    status: Status
    error: str | None
    seconds: float | None
    result: dict[str, Any] | None

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{Path(self.dataset).stem} {self.model['label']} {self.regime} seed {self.seed}"


class Store:
    """A study's database; `Store.open` for its driver, `Store.read` for everybody else."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator["Store"]:
        """Yield the store in `folder`, made if there is none; raises `RunError` for a damaged or unwritable one."""
        with _connected(folder, f"file:{_quoted(folder / FILE)}?mode=rwc") as connection:
            connection.executescript(_SCHEMA)
            store = cls(folder, connection)
            if store.get("format") not in (None, FORMAT):
                raise RunError(f"{folder / FILE} is of another version of qvit; use another folder.")
            store.put(format=FORMAT)
            yield store

    @classmethod
    @contextmanager
    def read(cls, folder: Path) -> Iterator["Store"]:
        """Yield the store in `folder`, which is not changed; raises `RunError` if there is none or it is damaged."""
        if not (folder / FILE).exists():
            raise RunError(f"{folder} holds no study ({FILE} is missing); make one with `qvit study run`.")
        # Not mode=ro: what a killed driver left half written must be taken back before anybody can read.
        with _connected(folder, f"file:{_quoted(folder / FILE)}?mode=rw") as connection:
            connection.execute("PRAGMA query_only = ON")
            store = cls(folder, connection)
            if store.get("format") != FORMAT:
                raise RunError(f"{folder / FILE} is not a study of this version of qvit.")
            yield store

    def put(self, **values: Any) -> None:
        """Set values of the study, each anything that JSON holds."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO study VALUES (?, ?)", [(key, _json(value)) for key, value in values.items()]
            )

    def get(self, key: str) -> Any:
        """Return a value of the study, None if it is not set."""
        row = self._db.execute("SELECT value FROM study WHERE key = ?", (key,)).fetchone()
        return None if row is None else _read_json(row[0])

    def plan(self, jobs: Sequence[tuple[str, Job]], teachers: dict[str, Sequence[str]]) -> None:
        """Ask for these jobs by their identities and for no others; runs that were made before are kept.

        `teachers` holds the identities of the teachers of each identity.
        """
        with self._db:
            self._db.execute("DELETE FROM jobs")
            self._db.executemany(
                "INSERT OR IGNORE INTO runs (identity, folder, distilled, status) VALUES (?, ?, ?, 'waiting')",
                [(identity, run_folder(identity, job), bool(job.teachers)) for identity, job in jobs],
            )
            self._db.executemany(
                "INSERT INTO jobs (identity, role, dataset, model, regime, seed, options, teachers) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        identity,
                        job.role,
                        job.dataset,
                        _json(asdict(job.model)),
                        job.regime,
                        job.seed,
                        _json(job.options),
                        _json(list(teachers.get(identity, ()))),
                    )
                    for identity, job in jobs
                ],
            )

    def jobs(self) -> list[StoredJob]:
        """Return what the specification asks for, in its order."""
        rows = self._db.execute(
            "SELECT jobs.identity, role, dataset, model, regime, seed, options, teachers, folder, distilled, status, "
            "error, seconds, result FROM jobs JOIN runs USING (identity) ORDER BY place"
        )
        return [
            StoredJob(
                identity=row[0],
                role=row[1],
                dataset=row[2],
                model=_read_json(row[3]),
                regime=row[4],
                seed=row[5],
                options=_read_json(row[6]),
                teachers=tuple(_read_json(row[7])),
                folder=self.folder / row[8],
                distilled=bool(row[9]),
                status=row[10],
                error=row[11],
                seconds=row[12],
                result=None if row[13] is None else _read_json(row[13]),
            )
            for row in rows.fetchall()  # all at once: a reader that stopped halfway would keep the driver from writing
        ]

    def begin(self, identity: str, worker: str) -> None:
        """Record that a worker has begun a run."""
        with self._db:
            self._db.execute("UPDATE runs SET status = 'running', error = NULL WHERE identity = ?", (identity,))
            self._db.execute(
                "INSERT INTO attempts (identity, worker, began) VALUES (?, ?, ?)", (identity, worker, time.time())
            )

    def finish(self, identity: str, result: dict[str, Any], seconds: float) -> None:
        """Record a run's figures, and the seconds it trained."""
        with self._db:
            self._db.execute(
                "UPDATE runs SET status = 'finished', error = NULL, result = ?, seconds = ? WHERE identity = ?",
                (_json(result), seconds, identity),
            )
            self._end(identity, "finished")

    def fail(self, identity: str, error: str) -> None:
        """Record that a run crashed, and why."""
        with self._db:
            self._db.execute("UPDATE runs SET status = 'failed', error = ? WHERE identity = ?", (error, identity))
            self._end(identity, f"failed: {error}")

    def release(self, identity: str, outcome: str) -> None:
        """Record that an attempt came to nothing, and that the run waits for another."""
        with self._db:
            self._db.execute(
                "UPDATE runs SET status = 'waiting', error = NULL, result = NULL WHERE identity = ?", (identity,)
            )
            self._end(identity, outcome)

    def attempts(self, identity: str | None = None) -> list[dict[str, Any]]:
        """Return every attempt, or those at one run, in order of their beginning; times are seconds since 1970."""
        rows = self._db.execute(
            "SELECT identity, worker, began, ended, outcome FROM attempts WHERE ? IS NULL OR identity = ? "
            "ORDER BY rowid",  # a clock may be set back
            (identity, identity),
        )
        names = ("identity", "worker", "began", "ended", "outcome")
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]

    def set_costs(self, costs: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        """Record what models cost, `(dataset, label, cost)`."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO models VALUES (?, ?, ?)",
                [(dataset, label, _json(cost)) for dataset, label, cost in costs],
            )

    def costs(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return what models cost, by dataset and label."""
        rows = self._db.execute("SELECT dataset, model, cost FROM models")
        return {(dataset, label): _read_json(cost) for dataset, label, cost in rows.fetchall()}

    def _end(self, identity: str, outcome: str) -> None:
        self._db.execute(
            "UPDATE attempts SET ended = ?, outcome = ? WHERE identity = ? AND ended IS NULL",
            (time.time(), outcome, identity),
        )


def run_folder(identity: str, job: Job) -> str:
    """Return where a run lies in the study's folder: readable, and of no other run."""
    words = (Path(job.dataset).stem, job.model.name, job.regime, f"s{job.seed}", identity[:8])
    return "runs/" + "-".join("".join(c if c.isalnum() or c == "_" else "-" for c in word) for word in words)


@contextmanager
def _connected(folder: Path, uri: str) -> Iterator[sqlite3.Connection]:
    connection = None
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=30)
        yield connection
    except sqlite3.DatabaseError as error:
        raise RunError(
            f"{folder / FILE} cannot be used: {error}. If it is damaged, delete it and run the study again: finished "
            "runs in its folder are found and kept."
        ) from error
    finally:
        if connection is not None:
            connection.close()


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"a value is not JSON ({error})") from error  # as damage elsewhere in the file
