"""The types that a study's file is checked against when read: it may come from somebody else, or be damaged."""

from typing import Any, Literal

from pydantic import with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from qvit.training.environment import Environment
from qvit.training.stored import STRICT, ResultFile

Status = Literal["waiting", "running", "finished", "failed"]


@with_config(STRICT | {"extra": "forbid"})
class ModelRow(TypedDict):
    """A `spec.StudyModel` as a dictionary."""

    label: str
    name: str
    kind: str
    qubits: int | None
    heads: int | None
    layers: int | None
    options: dict[str, Any]


@with_config(STRICT)
class JobRow(TypedDict):
    """A job and its run, by their columns."""

    identity: str
    role: str
    dataset: str
    model: ModelRow
    regime: str
    seed: int
    options: dict[str, Any]
    teachers: list[str]
    folder: str
    distilled: int
    status: Status
    error: str | None
    seconds: float | None
    result: ResultFile | None


@with_config(STRICT)
class Machine(Environment):
    """The machine on which a study was computed."""

    qvit: str


@with_config(STRICT)
class Said(TypedDict):
    """The values that a study records about itself."""

    name: str
    title: str
    description: str
    code: str
    machine: Machine
    specification: str
