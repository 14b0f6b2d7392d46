"""Write a dataset as pictures in folders named after their classes, with a table: the inverse of an import."""

import csv
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from qvit.data.arrays import Dataset
from qvit.errors import DataError
from qvit.files import write_atomic

TABLE = "data.csv"
_NEVER = re.compile(r"[^\w .()+=-]")  # in names of folders, on any system
_AT_ONCE = 256  # images handed to threads


def export_dataset(dataset: Dataset, folder: Path) -> Path:
    """Write each image as FOLDER/CLASS/SPLIT_POSITION.png, and what is known of them as FOLDER/data.csv.

    Images with several labels are written to the folder `images`. Importing the table gives the same dataset, to the
    digest; a multi-label one with label="*". Returns the path of the table. Raises DataError if the folder is not
    empty, and RunError if it cannot be written to.
    """
    check_empty(folder)
    rows = list(_rows(dataset))
    for name in {Path(row[0]).parent for row in rows}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(thread_name_prefix="qvit-export") as pool:
        paths = iter([folder / row[0] for row in rows])
        for split in dataset.splits.values():
            for _, images in split.parts():
                for start in range(0, len(images), _AT_ONCE):
                    part = images[start : start + _AT_ONCE]
                    list(pool.map(_write, [next(paths) for _ in part], part))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_header(dataset))
    writer.writerows(rows)
    write_atomic(folder / TABLE, text.getvalue().encode())
    return folder / TABLE


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


def _header(dataset: Dataset) -> list[str]:
    labels = list(dataset.info.labels) if dataset.info.task == "multi-label" else ["label", "class_name"]
    return ["path", "split", *(["group"] if dataset.groups is not None else []), *labels]


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
    lower = [name.casefold() for name in names]
    return [
        name[:80] if lower.count(name.casefold()) == 1 and len(name) <= 80 else f"{name[:70]}-{number}"
        for number, name in enumerate(names)
    ]


def _write(path: Path, image: UInt8[np.ndarray, "c h w"]) -> None:
    from PIL import Image

    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue(), durable=False)
