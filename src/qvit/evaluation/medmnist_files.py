"""MedMNIST's result files: one CSV of scores per split, whose name says dataset, split, AUC, accuracy and run.

    {flag}{_size}_{split}_[AUC]0.123_[ACC]0.456@{run}.csv

There is no header; each line holds an image's index and its scores. `medmnist.Evaluator.parse_and_evaluate` reads the
files written here.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvit.data.registry import SPLITS
from qvit.errors import FileError, MetricError
from qvit.evaluation.inputs import as_array
from qvit.files import open_regular, write_atomic

PLAIN_SIZE = 28  # the only size that names leave out

# Why only these characters: medmnist cuts the name at "_" to find flag, size and split, at the last "@" to find the
# run, and the run at its first "."; slashes would make folders.
_FLAG = re.compile(r"[A-Za-z0-9-]+")
_RUN = re.compile(r"[^@/\\.\x00-\x1f\x7f]+")
_NAME = re.compile(
    r"(?P<flag>[A-Za-z0-9-]+)(?:_(?P<size>[0-9]{1,9}))?_(?P<split>train|val|test)"
    r"_\[AUC\](?P<auc>[01]\.[0-9]{3})_\[ACC\](?P<acc>[01]\.[0-9]{3})@(?P<run>[^@/\\.]+)\.csv"
)


@dataclass(frozen=True)
class ParsedName:
    """What the name of a result file says; AUC and accuracy have the three digits that it holds."""

    flag: str
    size: int
    split: str
    auc: float
    acc: float
    run: str


def result_name(flag: str, size: int, split: str, auc: float, acc: float, run: str) -> str:
    """Return the name of a result file, by MedMNIST's rule; a size of 28 is left out.

    Raises MetricError for a flag other than letters, digits and dashes, a size below 1, an unknown split, AUC
    or accuracy outside [0, 1], and a run that is empty or holds "@", ".", slashes or control characters.
    Source: `medmnist.Evaluator.get_standard_evaluation_filename` 3.0.2.
    """
    start = result_start(flag, size, split)
    for name, value in (("AUC", auc), ("ACC", acc)):
        if not 0 <= value <= 1:
            raise MetricError(f"{name} must lie within [0, 1], but came as {value}.")
    if not _RUN.fullmatch(run):
        raise MetricError(
            f"The run's name must not be empty nor hold '@', '.', slashes or control characters, because "
            f"MedMNIST's file names end in @run.csv; but it came as {run!r}. Use dashes instead."
        )
    return f"{start}[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv"


def result_start(flag: str, size: int, split: str) -> str:
    """Return the beginning that the names of all result files of one split share.

    Raises MetricError as `result_name` does for a flag, a size or a split.
    """
    if not _FLAG.fullmatch(flag):
        raise MetricError(f"A dataset's flag in a result name is letters, digits and dashes, but came as {flag!r}.")
    if size < 1:
        raise MetricError(f"The image size in a result name must be at least 1, but came as {size}.")
    if split not in SPLITS:
        raise MetricError(f"The split must be one of {', '.join(SPLITS)}, but came as {split!r}.")
    return f"{flag}{'' if size == PLAIN_SIZE else f'_{size}'}_{split}_"


def parse_result_name(name: str) -> ParsedName:
    """Return what a result file's name says: the inverse of `result_name`.

    Raises MetricError for a name that `result_name` would not give.
    """
    match = _NAME.fullmatch(name)
    if match is not None:
        parts = match.groupdict()
        size = int(parts["size"] or PLAIN_SIZE)
        auc, acc = float(parts["auc"]), float(parts["acc"])
        # Formatting it again catches what the pattern lets through: sizes such as _28 and _064, an AUC of 1.500.
        if max(auc, acc) <= 1 and size > 0 and _RUN.fullmatch(parts["run"]):
            parsed = ParsedName(parts["flag"], size, parts["split"], auc, acc, parts["run"])
            if result_name(parsed.flag, size, parsed.split, auc, acc, parsed.run) == name:
                return parsed
    raise MetricError(
        f"{name!r} is not the name of a result file; expected flag_split_[AUC]0.123_[ACC]0.456@run.csv, "
        "with _size after the flag unless it is 28."
    )


def write_result(
    folder: Path, flag: str, size: int, split: str, scores: ArrayLike, auc: float, acc: float, run: str
) -> Path:
    """Write the scores of a split as a MedMNIST result file, and return its path.

    Scores are `(N, C)` or `(N,)`, in the order of the split's images; every digit of float64 and float32 is kept. A
    file of the same name is replaced. Raises MetricError as `result_name` does, and for scores that have another shape,
    are empty or not finite; RunError if the file cannot be written.
    """
    path = Path(folder) / result_name(flag, size, split, auc, acc, run)
    array = as_array(scores)
    if array.dtype.kind not in "fiub":
        raise MetricError(f"Scores must be real numbers, but their type is {array.dtype}.")
    if array.ndim not in (1, 2) or array.size == 0:
        raise MetricError(f"Scores must have the shape (N, C) or (N,) and not be empty, but came as {array.shape}.")
    # As float64 even when they come as float32: then a reader gets the same value in either precision.
    rows = array.reshape(len(array), -1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise MetricError("Scores must be finite, but hold nan or infinity. Nothing was written.")
    lines = (f"{index},{','.join(map(repr, row))}\n" for index, row in enumerate(rows.tolist()))
    write_atomic(path, "".join(lines).encode("ascii"))
    return path


def _parse_line(line: str, *, columns: int, where: str) -> tuple[int, list[float]]:
    index, *fields = line.split(",")
    if len(fields) != columns:
        raise MetricError(f"{where} holds {len(fields)} scores where the first line holds {columns}.")
    try:
        if "_" in line:  # Python reads 1_0 as 10, CSV readers do not
            raise ValueError(line)
        position, row = int(index), [float(field) for field in fields]
    except ValueError:
        raise MetricError(f"{where} must be an index and numbers, but reads {line[:60]!r}.") from None
    if not all(map(math.isfinite, row)):
        raise MetricError(f"{where} holds a score that is not finite: {line[:60]!r}.")
    return position, row


def read_result(path: Path) -> tuple[ParsedName, NDArray[np.float64]]:
    """Read a MedMNIST result file: what its name says, and its scores `(N, C)`, sorted by index.

    Scores written as `(N,)` come back as `(N, 1)`. Raises MetricError for a file that is missing, has another
    kind of name, is cut short within a line, is not text, has rows of unequal length, fields that are not
    finite numbers, or indices other than 0 to N - 1.
    """
    path = Path(path)
    parsed = parse_result_name(path.name)
    try:
        with open_regular(path) as file:
            text = file.read().decode("ascii")
    except UnicodeDecodeError:
        raise MetricError(f"{path} is not a text file. It is damaged: write it again.") from None
    except (FileError, OSError) as error:
        raise MetricError(f"{path} cannot be read: {getattr(error, 'found', None) or error}.") from error
    if not text:
        raise MetricError(f"{path} is empty. It is damaged: write it again.")
    if not text.endswith("\n"):
        raise MetricError(f"{path} ends within a line. It was cut short: write it again.")
    lines = text.splitlines()
    columns = lines[0].count(",")
    if columns == 0:
        raise MetricError(f"{path}, line 1 holds no scores; expected an index and scores, separated by commas.")
    indexed = [
        _parse_line(line, columns=columns, where=f"{path}, line {number}") for number, line in enumerate(lines, 1)
    ]
    indexed.sort(key=lambda pair: pair[0])
    for expected, (index, _) in enumerate(indexed):
        if index != expected:
            raise MetricError(
                f"{path} must hold each index from 0 to {len(indexed) - 1} once, "
                f"but has {index} in the place of {expected}."
            )
    return parsed, np.array([row for _, row in indexed], dtype=np.float64)
