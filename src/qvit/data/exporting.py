"""Write a dataset as pictures in folders named after their classes, with a table: the inverse of an import."""

import csv
import io
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import UInt8

from qvit.data.arrays import Dataset
from qvit.data.findings import count
from qvit.data.table import list_table
from qvit.errors import ConfigError, DataError, RunError
from qvit.files import shown, write_atomic

TABLE = "data.csv"
GROUP, LABEL = "group", "label"  # columns
_NEVER = re.compile(r"[^\w .()+=-]")  # in names of folders, on any system
_LONGEST = 60  # characters of a folder's name, of up to four bytes each; systems take 255
_AT_ONCE = 256  # images handed to threads


def export_dataset(dataset: Dataset, folder: Path) -> Path:
    """Write each image as FOLDER/CLASS/SPLIT_POSITION.png, and what is known of them as FOLDER/data.csv.

    Images with several labels are written to the folder `images`. Importing the table as `import_command` says gives
    the same dataset: digest, task and groups. Returns the path of the table.

    Raises DataError if the folder is not empty, and for a dataset that a table cannot hold or an import would refuse:
    of classes in one split alone, or without images, or with names that would not come back. Raises RunError if the
    folder cannot be written to. Nothing is written before all of the dataset is known to come back.
    """
    check_empty(folder)
    rows = list(_rows(dataset))
    text = _table([_header(dataset), *rows])
    _check_classes(dataset)
    _check_table(dataset, text)
    try:
        for name in {Path(row[0]).parent for row in rows}:
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write pictures to {folder}: {error.strerror or error}. Choose another.") from error
    with ThreadPoolExecutor(thread_name_prefix="qvit-export") as pool:
        paths = iter([folder / row[0] for row in rows])
        for split in dataset.splits.values():
            for _, images in split.parts():
                for start in range(0, len(images), _AT_ONCE):
                    part = images[start : start + _AT_ONCE]
                    list(pool.map(_write, [next(paths) for _ in part], part))
    write_atomic(folder / TABLE, text)
    return folder / TABLE


def import_command(dataset: Dataset, table: Path) -> str:
    """Return the command that imports an exported dataset again, as a line for a shell."""
    words = ["qvit", "data", "import", str(table), "--label", _label(dataset), "--size", str(dataset.size)]
    if dataset.groups is not None:
        words += ["--group-by", GROUP]
    if dataset.info.channels == 3:  # pictures in colour may show nothing but grey, such as a black one
        words += ["--channels", "rgb"]
    several, task = dataset.info.num_classes > 2, dataset.info.task
    if task not in ("multi-label", "multi-class" if several else "binary"):  # which an import takes the labels for
        words += ["--task", task]
    return shlex.join(words)


def check_empty(folder: Path) -> None:
    """Raise DataError unless a folder is empty or not there."""
    try:
        there = list(folder.iterdir())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{folder}: expected an empty folder, or none, found {reason}. Choose another.") from error
    if there:
        raise DataError(f"{folder}: expected an empty folder, or none, found {len(there)} files. Choose another.")


def _check_classes(dataset: Dataset) -> None:
    """Raise DataError if an import would refuse a class: each must be in train and in another split."""
    if dataset.info.task == "multi-label":
        return
    counts = {name: count(split.labels, dataset) for name, split in dataset.splits.items()}
    for number, label in enumerate(dataset.info.labels):
        places = [name for name, found in counts.items() if found[number]]
        if len(places) < 2 or "train" not in places:
            name = f"'{shown(label)}'"
            found = f"those of {name} in {' and '.join(places)} alone" if places else f"none of {name}"
            raise DataError(
                f"{dataset.info.name}: expected images of each class in train and in another split, found {found}. "
                "An import would refuse that, or lose the class: divide it among the splits, or leave it out."
            )


def _check_table(dataset: Dataset, text: bytes) -> None:
    """Raise DataError if a table would not give back labels and groups."""
    groups = None if dataset.groups is None else [name for names in dataset.groups.values() for name in names.tolist()]
    with TemporaryDirectory() as place:
        path = Path(place) / TABLE
        path.write_bytes(text)
        try:
            found = list_table(path, label=_label(dataset), group_by=None if groups is None else GROUP)
        except (ConfigError, DataError) as error:
            told = str(error).replace(str(path), TABLE)
            raise DataError(f"{dataset.info.name}: an import of its pictures would say: {told}") from error
    what = "labels" if dataset.info.task == "multi-label" else "classes"
    for kind, given, back in ((what, dataset.info.labels, found.classes), ("groups", groups, found.groups)):
        lost = next(iter(sorted({*(given or ())} - {*(back or ())})), None)
        if lost is not None:
            raise DataError(
                f"{dataset.info.name}: expected names of {kind} that a table keeps as they are, found {lost!a}, which "
                "would be lost or changed. Rename it."
            )


def _table(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _label(dataset: Dataset) -> str:
    """Return what an import is told of the columns of labels; with "*" names may hold commas."""
    return "*" if dataset.info.task == "multi-label" else LABEL


def _header(dataset: Dataset) -> list[str]:
    labels = list(dataset.info.labels) if dataset.info.task == "multi-label" else [LABEL, "class_name"]
    return ["path", "split", *([GROUP] if dataset.groups is not None else []), *labels]


def _rows(dataset: Dataset) -> Iterator[list[str]]:
    folders = _folders(dataset)
    for name, split in dataset.splits.items():
        groups = None if dataset.groups is None else dataset.groups[name].tolist()
        for place, labels in enumerate(split.labels.tolist()):
            known = [] if groups is None else [groups[place]]
            if dataset.info.task == "multi-label":
                yield [f"images/{name}_{place:06}.png", name, *known, *map(str, labels)]
            else:
                number = labels[0]
                told = [str(number), dataset.info.labels[number]]
                yield [f"{folders[number]}/{name}_{place:06}.png", name, *known, *told]


def _folders(dataset: Dataset) -> list[str]:
    """Return a folder's name for each class: its own where that is allowed, with its number if two become equal."""
    names = [_NEVER.sub("_", label).strip(" .") or "class" for label in dataset.info.labels]
    lower = Counter(name.casefold() for name in names)
    return [
        name
        if lower[name.casefold()] == 1 and len(name) <= _LONGEST
        else f"{name[: _LONGEST - 10].strip(' .')}-{number}"
        for number, name in enumerate(names)
    ]


def _write(path: Path, image: UInt8[np.ndarray, "c h w"]) -> None:
    from PIL import Image

    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue(), durable=False)
