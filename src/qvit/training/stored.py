"""What the files of a run folder must hold to be read back: one type per file.

A folder may have been written by another version, cut short by a full disk, or sent by somebody else: nothing in it is
trusted. Values that are not named here are kept as they are, as later versions may add some.
"""

import unicodedata
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from qvit.data.folds import MOST_FOLDS
from qvit.data.options import ImportOptions
from qvit.data.registry import Task
from qvit.documents import one_line
from qvit.errors import FileError, QvitError
from qvit.models.zoo import read_config
from qvit.training.config import MOST_EPOCHS, TrainConfig
from qvit.validate import validated

T = TypeVar("T")
STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
LONGEST = 4096  # characters of a name: the longest path of Linux


def _one_line(text: str) -> str:
    if any(unicodedata.category(mark) in ("Cc", "Cs", "Zl", "Zp") for mark in text):
        raise ValueError("a name may not hold line breaks or other control characters")
    return text


def _buildable(values: dict[str, Any]) -> dict[str, Any]:
    try:
        read_config(values)
    except QvitError as error:
        raise ValueError(one_line(error)) from error
    return values


def _training(values: dict[str, Any]) -> dict[str, Any]:
    strange = [key for key in values if key not in TrainConfig.__dataclass_fields__]
    if strange:
        raise ValueError(f"there is no option of training '{strange[0]}'")
    try:
        validated(TrainConfig, values)
    except QvitError as error:
        raise ValueError(one_line(error)) from error
    return values


def _importing(values: dict[str, Any]) -> dict[str, Any]:
    try:
        validated(ImportOptions, values)
    except QvitError as error:
        raise ValueError(one_line(error)) from error
    return values


Name = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_one_line)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,200}$")]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Ends = Annotated[list[float | None], Field(min_length=2, max_length=2)]
Symmetries = Literal["none", "mirror", "d4"]


@with_config(STRICT)
class Origin(TypedDict):
    """The run whose weights a run started from."""

    weights: Name
    found_at: Name


@with_config(STRICT)
class ConfigFile(TypedDict):
    """The content of config.json."""

    qvit_version: NotRequired[Name]
    dataset: Name
    size: Annotated[int, Field(ge=1, le=10_000)]
    task: Task
    importing: NotRequired[Annotated[dict[str, Any], AfterValidator(_importing)]]
    data_digest: Name
    classes: NotRequired[list[Annotated[str, AfterValidator(_one_line)]]]
    model: ModelName
    model_config: Annotated[dict[str, Any], AfterValidator(_buildable)]
    parameters: NotRequired[Whole]
    seed: Whole
    recipe: NotRequired[Name]
    stacked: NotRequired[bool]
    folds: NotRequired[Annotated[int, Field(ge=2, le=MOST_FOLDS)]]
    fold: NotRequired[Count]
    train: Annotated[dict[str, Any], AfterValidator(_training)]
    origin: NotRequired[Origin | None]
    guide: NotRequired[dict[str, Any] | None]


@with_config(STRICT)
class Figures(TypedDict):
    """What result.json says of a split."""

    auc: Share
    acc: Share
    auc_interval: Ends
    acc_interval: Ends
    balanced_acc: NotRequired[float | None]
    f1: NotRequired[float | None]
    kappa: NotRequired[float | None]
    sensitivity: NotRequired[float | None]
    specificity: NotRequired[float | None]
    ece: NotRequired[float | None]
    log_loss: NotRequired[float | None]
    sensitivity_by_class: NotRequired[list[Share | None] | None]
    specificity_by_class: NotRequired[list[Share | None] | None]


@with_config(STRICT)
class ResultFile(TypedDict):
    """The content of result.json."""

    parameters: Whole
    best_epoch: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    tta: Symmetries
    val: Figures
    test: Figures


@with_config(STRICT)
class EpochLine(TypedDict):
    """A line of metrics.jsonl."""

    epoch: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    lr: float
    train_loss: float
    val_loss: float
    val_auc: Share
    val_acc: Share
    tta: Symmetries


@with_config(STRICT)
class TimingLine(TypedDict):
    """A line of timings.jsonl."""

    epoch: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    seconds: Annotated[float, Field(ge=0.0)]


def checked(value: Any, kind: type[T], what: str) -> T:
    """Return a value if it is of type `kind`; otherwise raises `FileError`, which calls it `what`."""
    try:
        made: T = _adapter(kind).validate_python(value)  # type: ignore[arg-type]
        return made
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        raise FileError(f"{what} holds no {place}.")
    told = one_line(problem["msg"]).removeprefix("Value error, ")
    raise FileError(f"{what} holds what it should not{f' at {place}' if place else ''}: {told}.")


@cache
def _adapter(kind: Any) -> Any:
    return TypeAdapter(kind)
