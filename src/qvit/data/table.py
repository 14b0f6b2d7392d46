"""A table of pictures: a CSV file with their paths, labels, and perhaps their splits and groups."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from qvit.data.listing import Listing, check_classes, compile_pattern, groups_of, natural, side_of
from qvit.data.npz import problem
from qvit.errors import ConfigError, DataError, FileError, nearest
from qvit.files import printable, read_bytes, shown

LARGEST = 1 << 30  # bytes
# Headers of columns that are found without being named, in lower case.
PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "image_id")
LABELS = ("label", "labels", "class", "target", "diagnosis", "category", "y")
NAMES = ("class_name", "label_name")
PLACES = ("split", "set", "fold", "subset", "partition")
_SEPARATORS = ",;\t|"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_WHO = re.compile(  # headers that tell pictures apart, and do not say what is on them
    r"(?i:(?:^|[^a-z])(?:patient|subject|person|case|study|series|group|name|mrn|uid|id)s?(?:$|[^a-z])|patient)|[a-z]U?ID$"
)
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,8})(?:\.0)?")
_NO_LABEL = ("", "na", "n/a", "nan", "none", "null", "?", "unknown")


@dataclass(frozen=True)
class _Table:
    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> list[str]:
        place = self.header.index(name)
        return [row[place].strip() for row in self.rows]

    def find(self, names: Sequence[str]) -> str | None:
        """Return the column whose header, in any case, comes first among `names`."""
        lower = {name.lower(): name for name in reversed(self.header)}
        return next((lower[name] for name in names if name in lower), None)


def list_table(path: Path, *, label: str | None = None, group_by: str | None = None) -> Listing:
    """Return the pictures that a CSV file names: one row for each, in its order, with a header above.

    Paths are relative to the table's folder. `label` names the column of classes, or several columns of 0 and 1,
    separated by commas, for a multi-label dataset ("*" for all columns without another meaning); without it a column
    called label, class, target, diagnosis, category or y is taken, or class_name, or the only one that is left and is
    not called after patients or the like; without any, the folder of each picture is its class. Classes are numbered
    in the order of their names; whole numbers from 0 stay as they are, and a column class_name beside numbers names
    them. A column split says train, val or test. `group_by` is the
    column of groups, such as patients, or else a pattern for paths, as in `list_folder`. Separators are commas,
    semicolons, tabs or bars; text is UTF-8, or UTF-16 with its mark.

    Raises ConfigError for a column that is not there, and DataError for anything else that is wrong.
    """
    table = _read(path)
    paths = table.find(PATHS)
    if paths is None:
        raise problem(
            path, f"a column {', '.join(PATHS[:4])} or {PATHS[6]}", _headers(table), "Call the column of files 'path'."
        )
    files = tuple(file.replace("\\", "/") for file in table.column(paths))
    _check_files(table, files)
    places = table.find(PLACES)
    sides = None if places is None else _sides(table, places)
    groups, grouping = _groups(table, files, group_by)
    columns = _label_columns(table, label, {paths, places, grouping})
    if len(columns) > 1:
        classes, labels = columns, _several(table, columns)
    else:
        classes, labels = _one(table, columns, files)
    check_classes(path, classes)
    return Listing(path.parent, files, tuple(classes), labels, sides, groups)


def _read(path: Path) -> _Table:
    text = _decoded(path)
    first = text.partition("\n")[0]
    said = re.fullmatch(r"sep=(.)\s*", first)  # Excel's
    separator = said[1] if said else max(_SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [(tuple(row), reader.line_num) for row in reader if any(cell.strip() for cell in row)][bool(said) :]
    except csv.Error as error:
        found = f"{error} in line {reader.line_num}"
        raise problem(path, "a table, one row per line", found, "Save it as CSV (UTF-8).") from error
    if len(lines) < 2:
        raise problem(path, "a header and rows", f"{len(lines)} line(s)", "Name the columns in the first line.")
    header = tuple(name.strip() for name in lines[0][0])
    doubled = next((name for name in header if header.count(name) > 1), None)
    if doubled is not None:
        raise problem(path, "columns with different names", f"two called '{shown(doubled)}'", "Rename one.")
    for row, line in lines[1:]:
        if len(row) != len(header):
            found = f"{len(row)} in line {line}"
            raise problem(path, f"{len(header)} cells in each line", found, "Quote cells that hold a separator.")
    return _Table(path, header, tuple(row for row, _ in lines[1:]), tuple(line for _, line in lines[1:]))


def _decoded(path: Path) -> str:
    try:
        raw = read_bytes(path, most=LARGEST)
    except FileError as error:
        advice = "Check the path for a typing error." if error.missing else "Check its kind, size and permissions."
        raise problem(path, "a table of pictures (CSV)", error.found or str(error), advice) from error
    encoding = "utf-16" if raw.startswith(_UTF16) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        advice = "Save it again as CSV with the encoding UTF-8."
        raise problem(path, "text in UTF-8", f"another encoding in line {line}", advice) from error
    if "\0" in text:
        raise problem(path, "a table of text", "zero bytes", "Save it as CSV (UTF-8).")
    return text


def _headers(table: _Table) -> str:
    return f"the columns {', '.join(map(shown, table.header[:12]))}"


def _check_files(table: _Table, files: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for file, line in zip(files, table.lines, strict=True):
        if not file:
            raise problem(table.path, "a path in each line", f"none in line {line}", "Fill it in, or drop the line.")
        printable(file, raised=DataError)
        place = os.path.normpath(file)
        if place in seen:
            found = f"{shown(file)} in lines {seen[place]} and {line}"
            raise problem(table.path, "each picture once", found, "Drop one of the two lines.")
        seen[place] = line


def _sides(table: _Table, column: str) -> tuple[str, ...]:
    found = []
    for value, line in zip(table.column(column), table.lines, strict=True):
        side = side_of(value)
        if side is None:
            expected = f"train, val or test in the column '{column}'"
            raise problem(table.path, expected, f"'{shown(value)}' in line {line}", "Correct it, or rename the column.")
        found.append(side)
    missing = [side for side in ("train", "test") if side not in found]
    if missing:
        raise problem(
            table.path,
            f"rows with train and test in the column '{column}'",
            f"none with {' or '.join(missing)}",
            "Without that column, pictures are split at random.",
        )
    return tuple(found)


def _groups(table: _Table, files: Sequence[str], group_by: str | None) -> tuple[tuple[str, ...] | None, str | None]:
    """Return the group of each picture, and the column it was read from, if there is one."""
    if group_by is None:
        return None, None
    if group_by not in table.header:
        if not any(mark in group_by for mark in "[(\\.*+^$"):
            raise ConfigError(
                f"{table.path} has no column '{group_by}' to group by.{nearest(group_by, table.header)} "
                f"It has {_headers(table)}."
            )
        return groups_of(table.path, files, compile_pattern(group_by)), None
    values = table.column(group_by)
    for value, line in zip(values, table.lines, strict=True):
        if not value:
            expected = f"a group in each line of the column '{group_by}'"
            raise problem(table.path, expected, f"none in line {line}", "Fill it in, or drop the line.")
    return tuple(values), group_by


def _label_columns(table: _Table, label: str | None, taken: set[str | None]) -> list[str]:
    names = table.find(NAMES)
    left = [name for name in table.header if name not in {*taken, names} and not _WHO.search(name)]
    if label == "*":
        return left
    if label is not None:
        columns = [label] if label in table.header else [name.strip() for name in label.split(",")]
        for name in columns:
            if name not in table.header:
                raise ConfigError(
                    f"{table.path} has no column '{name}' of labels.{nearest(name, table.header)} "
                    f"It has {_headers(table)}."
                )
            if name in taken:
                raise ConfigError(f"The column '{name}' of {table.path} cannot be the label: it has another meaning.")
        return list(dict.fromkeys(columns))
    named = table.find(LABELS)
    if named is not None and named not in taken:
        return [named]
    if names is not None and names not in taken:
        return [names]
    if len(left) > 1:
        advice = (
            f"Say which to learn: --label {left[0]} (in Python label=…), or several of 0 and 1 with commas between."
        )
        raise problem(table.path, "one column of labels", f"{', '.join(map(shown, left[:12]))}", advice)
    return left


def _several(table: _Table, columns: Sequence[str]) -> Int64[np.ndarray, "n k"]:
    labels = np.empty((len(table.rows), len(columns)), np.int64)
    for place, name in enumerate(columns):
        for row, value in enumerate(table.column(name)):
            if value not in ("0", "1", "0.0", "1.0"):
                found = f"'{shown(value)}' in line {table.lines[row]}"
                advice = "Several columns of labels say 1 where the picture has the label, else 0."
                raise problem(table.path, f"0 or 1 in the column '{name}'", found, advice)
            labels[row, place] = value.startswith("1")
    return labels


def _one(table: _Table, columns: Sequence[str], files: Sequence[str]) -> tuple[list[str], Int64[np.ndarray, "n 1"]]:
    """Return the names of the classes and the number of each picture's class."""
    values = table.column(columns[0]) if columns else [os.path.basename(os.path.dirname(file)) for file in files]  # noqa: PTH119, PTH120
    for value, line in zip(values, table.lines, strict=True):
        if value.lower() in _NO_LABEL:
            where = f"column '{columns[0]}'" if columns else "folder of the picture"
            found = f"'{value}' in line {line}"
            advice = "Fill it in, drop the line, or write 'no finding' or the like if that is a class."
            raise problem(table.path, f"a class in each {where}", found, advice)
    matches = [_NUMBER.fullmatch(value) for value in values]
    if columns != [table.find(NAMES)] and all(matches):
        numbers = np.array([[int(match[1])] for match in matches if match], np.int64)
        named = _named(table, numbers)
        if named is not None:
            present = np.unique(numbers)
            return named, np.searchsorted(present, numbers).astype(np.int64)
    classes = sorted(set(values), key=natural)
    place = {name: number for number, name in enumerate(classes)}
    return classes, np.array([[place[value]] for value in values], np.int64)


def _named(table: _Table, numbers: Int64[np.ndarray, "n 1"]) -> list[str] | None:
    """Return the names of the classes in the order of their numbers: of a column beside these, or numbers from 0."""
    present = np.unique(numbers).tolist()
    column = table.find(NAMES)
    if column is None:
        return [str(number) for number in present] if present == list(range(len(present))) else None
    names: dict[int, str] = {}
    for number, name, line in zip(numbers[:, 0].tolist(), table.column(column), table.lines, strict=True):
        if names.setdefault(number, name) != name:
            found = f"'{shown(names[number])}' and '{shown(name)}' (line {line})"
            raise problem(table.path, f"one name for class {number} in '{column}'", found, "Correct one of them.")
    doubled = next((name for name, count in Counter(names.values()).items() if count > 1 or not name), None)
    if doubled is not None:
        first, *others = [number for number in present if names[number] == doubled]
        found = f"'{shown(doubled)}' for {' and '.join(map(str, [first, *others[:1]]))}"
        raise problem(table.path, f"a name for each class in '{column}'", found, "Correct one of them.")
    return [names[number] for number in present]
