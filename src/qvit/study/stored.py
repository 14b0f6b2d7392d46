"""What a study's file must hold to be read back. It may have been sent by somebody, or half overwritten by a disk."""

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from qvit.errors import QvitError
from qvit.models.cost import Cost
from qvit.training.stored import STRICT
from qvit.validate import validated

Status = Literal["waiting", "running", "finished", "failed"]


class ModelRow(TypedDict):
    """A `spec.StudyModel` as a dictionary."""

    __pydantic_config__ = STRICT | {"extra": "forbid"}  # type: ignore[misc]
    label: str
    name: str
    kind: str
    qubits: int | None
    heads: int | None
    layers: int | None
    options: dict[str, Any]


class JobRow(TypedDict):
    """A job and its run, by their columns."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
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
    result: dict[str, Any] | None


class Machine(TypedDict):
    """Where a study was computed."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    qvit: str
    python: str
    platform: str
    processor: str
    cores: int | None
    packages: dict[str, str]


class Said(TypedDict):
    """What a study says of itself."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    name: str
    title: str
    description: str
    code: str
    machine: Machine
    specification: str


def is_cost(value: Any) -> bool:
    """Return whether a value is what `set_costs` was given: a `Cost` as a dictionary, with other things perhaps."""
    if not isinstance(value, dict):
        return False
    try:
        validated(Cost, {name: value[name] for name in Cost.__dataclass_fields__})
    except (QvitError, KeyError):
        return False
    return True
