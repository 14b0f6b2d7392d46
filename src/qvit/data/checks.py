"""Checks of what a dataset file holds, made before anything is trained on it."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from qvit.data.npz import Header, Member, problem, read_rows
from qvit.data.registry import MEDMNIST_TASKS, SPLITS, DatasetInfo, Task
from qvit.errors import ConfigError, nearest
from qvit.files import unwritable

Labels = dict[str, NDArray[np.int64]]
MOST_CLASSES = 100_000  # or labels per image; ImageNet's largest set has a quarter as many
_SHOWN = 8  # classes that a message lists


@dataclass(frozen=True)
class Layout:
    """What the images of all splits have in common: side in pixels, colour channels, number type."""

    size: int
    channels: Literal[1, 3]
    floating: bool


def check_task(task: str) -> Task:
    """Return a task unchanged if its name is known; raises ConfigError otherwise."""
    if task not in MEDMNIST_TASKS:
        raise ConfigError(
            f"Unknown task '{task}'.{nearest(task, MEDMNIST_TASKS)} Expected one of: {', '.join(MEDMNIST_TASKS)}."
        )
    return cast(Task, task)


def check_layout(path: Path, members: Mapping[str, Header]) -> Layout:
    """Check the shapes and types of all arrays by their headers.

    Raises DataError for images that are not square pictures of bytes (or numbers) in one or three channels,
    for splits that are empty or differ in size or channels, and for labels that do not go with the images.
    """
    layouts = {split: image_layout(path, members[f"{split}_images"]) for split in SPLITS}
    for split in SPLITS:
        if layouts[split] != layouts["train"]:
            raise problem(
                path,
                f"{split}_images like train_images {_described(members['train_images'])}",
                _described(members[f"{split}_images"]),
                "All splits need the same size, channels and type.",
            )
        images, labels = members[f"{split}_images"].shape, members[f"{split}_labels"].shape
        if len(labels) not in (1, 2) or (len(labels) == 2 and labels[1] == 0):
            advice = "Save one class number, or one row of 0 and 1, for each image."
            raise problem(path, f"{split}_labels of shape (N,), (N, 1) or (N, K)", f"{labels}", advice)
        if len(labels) == 2 and labels[1] > MOST_CLASSES:
            advice = "Save one class number, or one row of 0 and 1, for each image."
            raise problem(path, f"at most {MOST_CLASSES} columns in {split}_labels", f"{labels[1]}", advice)
        if labels[0] != images[0]:
            advice = "Save one row of labels for each image, in the same order."
            raise problem(path, f"{images[0]} rows in {split}_labels", f"{labels[0]}", advice)
    return layouts["train"]


def _described(member: Header) -> str:
    return f"{member.dtype} {member.shape}"


def image_layout(path: Path, member: Header) -> Layout:
    """Check the shape and type of an array of images by its header; raises DataError as `check_layout` does."""
    shape, key = member.shape, member.key
    if member.dtype != np.uint8 and member.dtype.kind != "f":
        advice = f"Convert them, for example {key}.astype('uint8') if they lie in 0 to 255."
        raise problem(path, f"uint8 in {key}", f"{member.dtype}", advice)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        advice = "Save grey images as (N, S, S), colour images as (N, S, S, 3), channels last."
        raise problem(path, f"{key} of shape (N, S, S) or (N, S, S, 3)", f"{shape}", advice)
    if shape[0] == 0:
        raise problem(path, f"images in {key}", "none", "At least one is needed.")
    if shape[1] != shape[2] or shape[1] == 0:
        advice = "Crop or pad the images to squares."
        raise problem(path, f"square images in {key}", f"{shape[1]} x {shape[2]} pixels", advice)
    return Layout(shape[1], 3 if len(shape) == 4 and shape[3] == 3 else 1, member.dtype.kind == "f")


def check_official(path: Path, members: Mapping[str, Header], layout: Layout, info: DatasetInfo, size: int) -> None:
    """Raise DataError unless an official file holds what its row in the registry says."""
    advice = f"It is not the official file: move it away and run 'qvit data get {info.name}'."
    expected = f"uint8 images of {size} x {size} pixels in {info.channels} channel(s)"
    if layout != Layout(size, info.channels, False):
        found = f"{_described(members['train_images'])}"
        raise problem(path, expected, found, advice)
    for split in SPLITS:
        count = members[f"{split}_images"].shape[0]
        if count != info.splits[split]:
            raise problem(path, f"{info.splits[split]} images in {split}", f"{count}", advice)


def read_labels(path: Path, members: Mapping[str, Header], read: Callable[[str], NDArray[Any]]) -> Labels:
    """Return the labels of each split as whole numbers (N, K), K = 1 for one label per image; `read` gives an array.

    Raises DataError for labels that are not whole numbers of 0 or more, or differ in K between splits.
    """
    labels = {split: _whole_numbers(path, members[f"{split}_labels"], read) for split in SPLITS}
    for split in SPLITS:
        width, expected = labels[split].shape[1], labels["train"].shape[1]
        if width != expected:
            advice = "All splits need the same labels."
            raise problem(path, f"{expected} column(s) in {split}_labels, as in train", f"{width}", advice)
        if labels[split].min() < 0:
            row = int((labels[split] < 0).any(axis=1).argmax())
            found = f"{labels[split].min()} (first at image {row})"
            raise problem(path, f"{split}_labels of 0 or more", found, "Number the classes from 0.")
    return labels


def _whole_numbers(path: Path, member: Header, read: Callable[[str], NDArray[Any]]) -> NDArray[np.int64]:
    expected = f"whole numbers in {member.key}"
    if member.dtype.kind not in "biuf":
        raise problem(path, expected, f"{member.dtype}", "Number the classes from 0.")
    array = read(member.key).reshape(member.shape[0], -1)
    if member.dtype.kind == "b":
        array = array.view(np.uint8)  # a file can hold bytes other than 0 and 1
        if array.max() > 1:
            advice = "Save class numbers as whole numbers."
            raise problem(path, f"True and False in {member.key}, bytes of 1 and 0", f"{array.max()}", advice)
    if member.dtype.kind == "f":
        whole = np.isfinite(array) & (np.floor(array) == array)
        if not whole.all():
            row, column = (int(i) for i in np.argwhere(~whole)[0])
            found = f"{array[row, column]} at image {row}"
            raise problem(path, expected, found, "Number the classes from 0.")
    if array.max() > np.iinfo(np.int32).max or array.min() < np.iinfo(np.int32).min:  # not all fit into an int64
        found = f"{array.min()} to {array.max()}"
        raise problem(path, f"{expected} of at most 32 bits", found, "Number the classes from 0.")
    return array.astype(np.int64)


def check_labels(path: Path, labels: Labels, info: DatasetInfo) -> None:
    """Raise DataError unless all labels lie in the range of the dataset's task."""
    multi = info.task == "multi-label"
    columns, highest = (info.num_classes, 1) if multi else (1, info.num_classes - 1)
    advice = "Correct the labels, or the task."
    for split, values in labels.items():
        if values.shape[1] != columns:
            expected = f"{columns} column(s) in {split}_labels for the task {info.task}"
            raise problem(path, expected, f"{values.shape[1]}", advice)
        if values.max() > highest:
            row = int((values > highest).any(axis=1).argmax())
            found = f"{values.max()} (first beyond at image {row})"
            raise problem(path, f"{split}_labels from 0 to {highest} ({info.task})", found, advice)


def describe_own(
    path: Path,
    labels: Labels,
    layout: Layout,
    task: str | None,
    *,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> DatasetInfo:
    """Describe a user's own file; the task is inferred from the labels if it is not given.

    `classes` are the classes' names, by default their numbers; `name` is the dataset's, by default the file's.

    Several columns of 0 and 1 are multi-label; two classes are binary, more are multi-class.

    Raises ConfigError for an unknown task, DataError for labels that fit no task, or not the given one.
    """
    given = None if task is None else check_task(task)
    columns, highest = labels["train"].shape[1], max(int(labels[split].max()) for split in SPLITS)
    images = sum(len(labels[split]) for split in SPLITS)
    several = max(highest, len(classes or ()) - 1) > 1
    inferred: Task = "multi-label" if columns > 1 else "multi-class" if several else "binary"
    chosen = given or inferred
    count = columns if chosen == "multi-label" else 2 if chosen == "binary" else highest + 1
    if chosen == "multi-label" and columns == 1:
        advice = "For one label per image choose binary, multi-class or ordinal."
        raise problem(path, "several columns of labels for the task multi-label", "one", advice)
    if columns == 1 and highest >= min(images, MOST_CLASSES):
        found = f"{highest} among {images} images"
        raise problem(path, "classes numbered from 0", found, "Number the classes 0, 1, 2, … without gaps.")
    names = _class_names(path, count, chosen, classes)
    info = DatasetInfo(
        name=name or path.stem,
        title=name or path.stem,
        description="",
        task=chosen,
        labels=names,
        channels=layout.channels,
        splits={split: len(labels[split]) for split in SPLITS},
        md5={},
        licence="",
        citation="",
        augment="none",  # only its owner knows whether up, down, left and right mean anything
    )
    check_labels(path, labels, info)
    _check_variety(path, labels, info, sure=given is not None)
    return info


def _class_names(path: Path, count: int, task: Task, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes' names; more names than labels are of classes without an image."""
    if given is None:
        return tuple(map(str, range(count)))
    exactly = task in ("binary", "multi-label")
    if len(given) < count or (exactly and len(given) != count):
        expected = f"{'' if exactly else 'at least '}{count} names in class_names"
        raise problem(path, expected, f"{len(given)}", "Name each class once, in the order of their numbers.")
    wrong = next((name for name in given if not name.strip() or unwritable(name)), None)
    doubled = next((name for name, number in Counter(given).items() if number > 1), None)
    if wrong is not None or doubled is not None:
        found = f"{wrong!a}" if doubled is None else f"'{doubled}' twice"
        raise problem(path, "different names on one line in class_names", found, "Name each class once.")
    return tuple(given)


def _check_variety(path: Path, labels: Labels, info: DatasetInfo, *, sure: bool) -> None:
    """Refuse training labels that are all the same, and warn of classes without a training image."""
    train = labels["train"]
    if (train == train[0]).all():
        advice = "Nothing can be learnt from one class: check the labels, or the split."
        raise problem(path, "at least two classes in train_labels", f"only [{_some(train[0].tolist())}]", advice)
    if info.task == "multi-label":
        present = np.flatnonzero(train.any(axis=0)).tolist()
        if not sure and all((values.sum(axis=1) == 1).all() for values in labels.values()):
            warnings.warn(
                f"{path}: read as multi-label, but every image has exactly one label; "
                f"if these are one-hot classes, save class numbers instead.",
                stacklevel=4,
            )
    else:
        present = np.unique(train).tolist()
    absent = sorted(set(range(info.num_classes)) - set(present))
    if absent:
        warnings.warn(f"{path}: no training image of class {_some(absent)}.", stacklevel=4)


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_SHOWN])) + (f" and {len(numbers) - _SHOWN} more" if numbers[_SHOWN:] else "")


def bytes_of_floats(path: Path, member: Member) -> NDArray[np.uint8]:
    """Return images given as numbers in [0, 1] rounded to 8 bits, converted a few megabytes at a time.

    Raises DataError naming the first image that holds a value that is not finite or lies outside [0, 1].
    """
    out = np.empty(member.shape, np.uint8)
    for start, rows in read_rows(path, member):
        good = _each_image(np.isfinite(rows))
        if not good.all():
            found = f"NaN or infinity in image {start + int(good.argmin())}"
            raise problem(path, f"finite numbers in {member.key}", found, "Repair or drop that image.")
        good = _each_image((rows >= 0) & (rows <= 1))
        if not good.all():
            row = int(good.argmin())
            found = f"{rows[row].min():g} to {rows[row].max():g} in image {start + row}"
            advice = "Scale the images to [0, 1], or save them as uint8."
            raise problem(path, f"numbers in [0, 1] in {member.key}", found, advice)
        out[start : start + len(rows)] = np.rint(rows * 255.0)
    return out


def _each_image(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.all(values.reshape(len(values), -1), axis=1)
