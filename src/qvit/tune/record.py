"""The folder of a tuning: what was asked, what was tried, and what came of it.

tune.json      what was asked, all candidates, who was on which rung, and the verdict
trials.jsonl   one line per training: candidate, fold, figures, and what it says of the images held out
recipe.yaml    the recipe that was chosen       front.svg, front.png   parameters against AUC
runs/          the trainings of the recipe on the official training images

With tune.json the same can be done again, and an interrupted tuning goes on with what trials.jsonl holds.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import Field, with_config
from typing_extensions import TypedDict

from qvit.documents import one_line, parse_json, read_json
from qvit.errors import FileError, RunError
from qvit.files import make_folder, printable, read_text, write_atomic
from qvit.training.stored import STRICT, Name, Share, Whole, checked
from qvit.tune.menu import Candidate
from qvit.tune.trials import Judged

TUNE, TRIALS = "tune.json", "trials.jsonl"
MOST_BYTES = 1 << 30  # of trials.jsonl
MAY_DIFFER = ("dataset", "minutes")  # of what was asked, when a tuning goes on


@with_config(STRICT)
class CandidateFile(TypedDict):
    """A candidate in tune.json."""

    name: Name
    about: str
    options: dict[str, Any]
    parameters: Whole
    baseline: bool


@with_config(STRICT)
class RungFile(TypedDict):
    """Who was judged on how many folds."""

    folds: Annotated[int, Field(ge=1, le=1000)]
    entrants: Annotated[list[Name], Field(min_length=1, max_length=10_000)]


@with_config(STRICT)
class AskedFile(TypedDict):
    """What was asked."""

    dataset: Name
    size: Annotated[int, Field(ge=1, le=10_000)]
    data_digest: Name
    options: dict[str, Any]
    model: str | None
    parameters: Whole
    minutes: float | None
    trials: Whole | None
    seed: Whole
    folds: Annotated[int, Field(ge=2, le=100)]
    seeds: Annotated[int, Field(ge=1, le=1000)]
    menu: str


@with_config(STRICT)
class TuneFile(TypedDict):
    """The content of tune.json."""

    qvit_version: NotRequired[Name]
    asked: AskedFile
    candidates: list[CandidateFile]
    rungs: list[RungFile]
    spent: Annotated[float, Field(ge=0.0)]
    result: NotRequired[dict[str, Any]]


@with_config(STRICT)
class TrialLine(TypedDict):
    """A line of trials.jsonl."""

    candidate: Name
    place: Whole
    auc: Share
    acc: Share
    seconds: Annotated[float, Field(ge=0.0)]
    pace: Annotated[float, Field(ge=0.0)]
    parameters: Whole
    scores: list[list[Share]] | None
    error: str | None


@dataclass
class Record:
    """A tuning's folder, and what it holds."""

    folder: Path
    asked: dict[str, Any]
    candidates: list[Candidate] = field(default_factory=list)
    rungs: list[tuple[int, list[str]]] = field(default_factory=list)
    spent: float = 0.0
    result: dict[str, Any] | None = None
    judged: dict[tuple[str, int], Judged] = field(default_factory=dict)

    def save(self) -> None:
        """Write tune.json."""
        from qvit import __version__

        said: dict[str, Any] = {
            "qvit_version": __version__,
            "asked": self.asked,
            "candidates": [asdict(one) for one in self.candidates],
            "rungs": [{"folds": folds, "entrants": names} for folds, names in self.rungs],
            "spent": round(self.spent, 3),
        }
        said |= {} if self.result is None else {"result": self.result}
        write_atomic(self.folder / TUNE, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())

    def add(self, found: Sequence[Judged]) -> None:
        """Keep what was judged: a line each at the end of trials.jsonl, on the disk when this returns."""
        lines = "".join(json.dumps(_line(one)) + "\n" for one in found)
        path = self.folder / TRIALS
        try:
            with path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"Cannot write {path}: {error.strerror or error}. Free some space, and go on with --resume."
            ) from error
        self.judged |= {(one.candidate, one.place): one for one in found}


def _line(one: Judged) -> dict[str, Any]:
    scores = None if one.scores is None else [[float(str(value)) for value in row] for row in one.scores]
    return vars(one) | {"scores": scores}


def begin_record(folder: Path, asked: dict[str, Any], *, resume: bool) -> Record:
    """Return the record of a new tuning, or with `resume` of one that goes on.

    Raises `RunError` for a folder that holds anything else, or a tuning of which something else was asked.
    """
    printable(folder, raised=RunError)
    make_folder(folder, f"use {folder} as the folder of a tuning", "Choose another with --out.")
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if TUNE not in names:
        if names:
            raise RunError(f"{folder} is not empty and holds no tuning; choose another with --out.")
        record = Record(folder, asked)
        record.save()
        return record
    if not resume:
        raise RunError(f"{folder} already holds a tuning. Go on with it by --resume, or choose another with --out.")
    record = read_record(folder)
    keys = [key for key in asked if key not in MAY_DIFFER and asked[key] != record.asked.get(key)]
    if keys:
        told = "; ".join(f"{key}: {record.asked.get(key)} → {asked[key]}" for key in keys)
        raise RunError(f"{folder} holds a tuning of which something else was asked ({told}). Choose another --out.")
    record.asked = asked
    return record


def read_file(path: Path) -> TuneFile:
    """Return the content of a tune.json; raises `RunError` if it is missing or damaged."""
    try:
        return checked(read_json(path), TuneFile, "it")
    except FileError as error:
        what = "is missing" if error.missing else f"cannot be used ({one_line(error)})"
        raise RunError(f"{path} {what}; name the {TUNE} that `qvit tune` wrote.") from error


def read_record(folder: Path) -> Record:
    """Return what a tuning's folder holds; a line that was cut off, as the last may be, is dropped.

    Raises `RunError` for a damaged one.
    """
    said = read_file(folder / TUNE)
    record = Record(folder, dict(said["asked"]), spent=said["spent"], result=said.get("result"))
    record.candidates = [candidate_of(one) for one in said["candidates"]]
    record.rungs = [(rung["folds"], rung["entrants"]) for rung in said["rungs"]]
    path = folder / TRIALS
    text = ""
    with suppress(FileNotFoundError):
        path.stat()
        text = _text(path)
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_atomic(path, whole.encode())
    for number, line in enumerate(whole.splitlines(), 1):
        one = _judged(line, number, path)
        record.judged[one.candidate, one.place] = one
    return record


def _text(path: Path) -> str:
    try:
        return read_text(path, most=MOST_BYTES)
    except FileError as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}); tune again, into another folder.") from error


def _judged(text: str, number: int, path: Path) -> Judged:
    try:
        said = checked(parse_json(text, f"line {number}"), TrialLine, f"line {number}")
    except FileError as error:
        raise RunError(f"{path} is damaged ({one_line(error)}); tune again, into another folder.") from error
    scores = None if said["scores"] is None else np.array(said["scores"], np.float32)
    values: dict[str, Any] = {**said, "scores": scores}
    return Judged(**{field.name: values[field.name] for field in fields(Judged)})


def candidate_of(said: CandidateFile) -> Candidate:
    """Return a candidate as tune.json tells of it."""
    return Candidate(said["name"], said["about"], said["options"], said["parameters"], said["baseline"])
