"""The state of a study: one SQLite file, written by the driver alone, so that a crash leaves whole transactions.

Other processes may read or copy the file for as long as they like: a process that finds it busy waits, and says which
process it waits for.

jobs       the jobs of the specification, each with the identity of its run
runs       every run ever planned in this folder, by identity: its folder, status, error, figures
attempts   every start of a run, and how it ended
models     what each model costs on each dataset
study      the specification, the code and the machine
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from qvit.data.npz import find_header, read_array
from qvit.data.registry import name_of
from qvit.documents import one_line
from qvit.errors import DataError, FileError, QvitError, RunError
from qvit.models.cost import Cost
from qvit.study.database import READ, WRITE, DamageError, OnWait, connected, patiently
from qvit.study.places import named, without_places
from qvit.study.spec import Job, StudyModel
from qvit.study.stored import JobRow, Status
from qvit.training.records import Result
from qvit.training.stored import checked
from qvit.validate import validated

FILE = "study.sqlite"
FORMAT = 2

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
    """A job of the specification with the state of its run."""

    identity: str
    role: str
    dataset: str
    model: StudyModel
    regime: str
    seed: int
    options: dict[str, Any]
    teachers: tuple[str, ...]
    folder: Path
    distilled: bool
    status: Status
    error: str | None
    seconds: float | None
    result: Result | None

    @property
    def name(self) -> str:
        """The job's name in messages."""
        return f"{name_of(self.dataset)} {self.model.label} {self.regime} seed {self.seed}"


@dataclass(frozen=True)
class Attempt:
    """A worker's attempt at a run; times are seconds since 1970, `ended` and `outcome` None until it has ended."""

    identity: str
    worker: str
    began: float
    ended: float | None
    outcome: str | None


@dataclass(frozen=True)
class KnownCost:
    """What a model costs on a dataset, and the digest `of` all that this follows from."""

    cost: Cost
    of: str


class Store:
    """A study's database; its driver uses `Store.open`, everything else `Store.read`.

    `on_wait` is called once for each long wait for another process that uses the file.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, on_wait: OnWait | None = None) -> None:
        self.folder = folder
        self._db = connection
        self._on_wait = on_wait

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *, on_wait: OnWait | None = None) -> Iterator["Store"]:
        """Yield the store in `folder`, created if there is none; raises `RunError` if it cannot be used."""
        with connected(folder / FILE, WRITE) as connection:
            store = cls(folder, connection, on_wait)
            if store._is_empty():
                store._make()
            store._check_format()
            yield store

    @classmethod
    @contextmanager
    def read(cls, folder: Path, *, on_wait: OnWait | None = None) -> Iterator["Store"]:
        """Yield the store in `folder` for reading only; raises `RunError` if there is none or it is damaged.

        File and folder may be read-only.
        """
        if not (folder / FILE).exists():
            raise RunError(f"{folder} holds no study ({FILE} is missing); make one with `qvit study run`.")
        with connected(folder / FILE, READ) as connection:
            store = cls(folder, connection, on_wait)
            if store._is_empty():
                raise RunError(f"{folder} holds no study yet ({FILE} is empty); go on with `qvit study run`.")
            store._check_format()
            yield store

    def _is_empty(self) -> bool:
        """Return whether the file is empty, or holds only tables that an earlier version left without a study."""
        tables = {name for (name,) in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "study" not in tables:
            raise RunError(f"{self.folder / FILE} is a database of something else; use another folder.")
        return not tables or not self._rows("SELECT key FROM study")

    def _make(self) -> None:
        """Make all tables and record their format, or leave nothing behind."""
        was_there = bool(self._rows("SELECT name FROM sqlite_master"))

        def make(database: sqlite3.Connection) -> None:
            for statement in _SCHEMA.strip().split(";")[:-1]:
                database.execute(statement)
            database.execute("INSERT INTO study VALUES ('format', ?)", (_json(FORMAT),))

        try:
            self._write(make)
        except sqlite3.Error:
            if not was_there:
                with suppress(OSError):
                    (self.folder / FILE).unlink()
            raise

    def _check_format(self) -> None:
        if self.get("format") != FORMAT:
            raise RunError(
                f"{self.folder / FILE} was made by another version of qvit; use that version, or another folder."
            )

    def put(self, **values: Any) -> None:
        """Set values of the study, which JSON must be able to hold."""
        rows = [(key, _json(value)) for key, value in values.items()]
        self._write(lambda database: database.executemany("INSERT OR REPLACE INTO study VALUES (?, ?)", rows))

    def get(self, key: str) -> Any:
        """Return a value of the study, None if it is not set."""
        rows = self._rows("SELECT value FROM study WHERE key = ?", key)
        return _read_json(rows[0][0]) if rows else None

    def plan(self, jobs: Sequence[tuple[str, Job]], teachers: dict[str, Sequence[str]]) -> None:
        """Replace the jobs by these, each with its identity; earlier runs are kept.

        `teachers` holds the identities of the teachers of each identity.
        """
        runs = [(identity, run_folder(identity, job), bool(job.teachers)) for identity, job in jobs]
        rows = [
            (
                identity,
                job.role,
                named(job.dataset),
                _json(asdict(job.model)),
                job.regime,
                job.seed,
                _json(without_places(job.options)),
                _json(list(teachers.get(identity, ()))),
            )
            for identity, job in jobs
        ]

        def change(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM jobs")
            database.executemany(
                "INSERT OR IGNORE INTO runs (identity, folder, distilled, status) VALUES (?, ?, ?, 'waiting')", runs
            )
            database.executemany(
                "INSERT INTO jobs (identity, role, dataset, model, regime, seed, options, teachers) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

        self._write(change)

    def jobs(self) -> list[StoredJob]:
        """Return the jobs of the specification, in its order."""
        columns = ", ".join(JobRow.__annotations__)
        rows = self._rows(f"SELECT {columns} FROM jobs JOIN runs USING (identity) ORDER BY place")
        return [self._job(dict(zip(JobRow.__annotations__, row, strict=True))) for row in rows]

    def _job(self, row: dict[str, Any]) -> StoredJob:
        for name in ("model", "options", "teachers", "result"):
            row[name] = None if row[name] is None else _read_json(row[name])
        try:
            found = checked(row, JobRow, "it")
        except FileError as error:
            raise DamageError(one_line(error)) from error
        made: dict[str, Any] = {
            "model": StudyModel(**row["model"]),
            "teachers": tuple(found["teachers"]),
            "folder": self.folder / found["folder"],
            "distilled": bool(found["distilled"]),
            "result": None if found["result"] is None else Result.of(dict(found["result"])),
        }
        return StoredJob(**{**found, **made})

    def begin(self, identity: str, worker: str) -> None:
        """Record that a worker has begun a run."""
        row = (identity, worker, time.time())

        def change(database: sqlite3.Connection) -> None:
            database.execute("UPDATE runs SET status = 'running', error = NULL WHERE identity = ?", (identity,))
            database.execute("INSERT INTO attempts (identity, worker, began) VALUES (?, ?, ?)", row)

        self._write(change)

    def finish(self, identity: str, result: Result, seconds: float) -> None:
        """Record that a run is finished, with its figures and its seconds of training."""
        values = "status = 'finished', error = NULL, result = ?, seconds = ?"
        self._set(identity, values, _json(asdict(result)), seconds, outcome="finished")

    def fail(self, identity: str, error: str) -> None:
        """Record that a run crashed, and why."""
        error = _text(error)
        self._set(identity, "status = 'failed', error = ?", error, outcome=f"failed: {error}")

    def release(self, identity: str, outcome: str) -> None:
        """Record that an attempt ended without a result, and that the run waits for another."""
        self._set(identity, "status = 'waiting', error = NULL, result = NULL", outcome=_text(outcome))

    def attempts(self, identity: str | None = None) -> list[Attempt]:
        """Return all attempts, or those at one run, in the order of their start."""
        rows = self._rows(
            "SELECT identity, worker, began, ended, outcome FROM attempts WHERE ? IS NULL OR identity = ? "
            "ORDER BY rowid",  # a clock may be set back
            identity,
            identity,
        )
        return [Attempt(*row) for row in rows]

    def set_costs(self, costs: Iterable[tuple[str, str, KnownCost]]) -> None:
        """Record what models cost, `(dataset, label, cost)`."""
        rows = [
            (named(dataset), label, _json(asdict(known.cost) | {"of": known.of})) for dataset, label, known in costs
        ]
        self._write(lambda database: database.executemany("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", rows))

    def costs(self) -> dict[tuple[str, str], KnownCost]:
        """Return what models cost, by dataset and label; damaged costs, and those of other versions, are left out."""
        rows = self._rows("SELECT dataset, model, cost FROM models")
        found = {(dataset, label): _read_cost(_read_json(cost)) for dataset, label, cost in rows}
        return {key: known for key, known in found.items() if known is not None}

    def _set(self, identity: str, values: str, *parameters: Any, outcome: str) -> None:
        """Change a run, and record the outcome of its current attempt."""
        now = time.time()

        def change(database: sqlite3.Connection) -> None:
            database.execute(f"UPDATE runs SET {values} WHERE identity = ?", (*parameters, identity))
            database.execute(
                "UPDATE attempts SET ended = ?, outcome = ? WHERE identity = ? AND ended IS NULL",
                (now, outcome, identity),
            )

        self._write(change)

    def _write(self, change: Callable[[sqlite3.Connection], object]) -> None:
        """Make a change in one transaction, once no other process blocks the file."""

        def whole() -> None:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                change(self._db)

        patiently(self.folder / FILE, whole, self._on_wait)

    def _rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return all rows at once, since a reader that stopped halfway would keep the driver from writing."""
        return patiently(self.folder / FILE, lambda: self._db.execute(query, parameters).fetchall(), self._on_wait)


def run_folder(identity: str, job: Job) -> str:
    """Return the path of a run within the study's folder, readable and different for every run."""
    words = (name_of(job.dataset), job.model.name, job.regime, f"s{job.seed}", identity[:8])
    return "runs/" + "-".join("".join(c if c.isalnum() or c == "_" else "-" for c in word) for word in words)


def _text(text: str) -> str:
    """Return text that can be written as UTF-8, with bytes that are not UTF-8 escaped."""
    return text.encode(errors="backslashreplace").decode()


def _json(value: Any) -> str:
    return _text(json.dumps(value, ensure_ascii=False))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:  # TypeError: not text; RecursionError: nested too deeply
        raise DamageError(f"a value is not JSON ({error})") from error


def _read_cost(value: Any) -> KnownCost | None:
    try:
        return KnownCost(validated(Cost, {name: value[name] for name in Cost.__dataclass_fields__}), str(value["of"]))
    except (QvitError, LookupError, TypeError):
        return None


def known_copies(path: Path, digest: str) -> Bool[np.ndarray, " n"] | None:
    """Return which test images have near-duplicates, as kept in a file of labels; None if it is of other data."""
    try:
        kept = {key: read_array(path, find_header(path, (key,))) for key in ("digest", "copies", "test")}
    except DataError:
        return None
    copies = kept["copies"]
    right = copies.dtype == bool and copies.shape == kept["test"].shape[:1] and str(kept["digest"]) == digest
    return copies if right else None


def labels_file(folder: Path, dataset: str) -> Path:
    """Return the path of the labels that a study compares predictions with."""
    return folder / "labels" / f"{name_of(dataset)}.npz"
