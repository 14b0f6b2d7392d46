"""Datasets as pictures, and back."""

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qvit.data.arrays import Dataset, load_dataset
from qvit.data.exporting import export_dataset, import_command
from qvit.data.options import DEFAULTS, ImportOptions
from qvit.errors import DataError, RunError

Save = Callable[..., Path]
ALL = ImportOptions(label="*")


def back(table: Path, importing: ImportOptions = DEFAULTS, **options: Any) -> Dataset:
    return load_dataset(table, root=table.parent.parent / "root", importing=importing, **options)


def rows(table: Path) -> list[list[str]]:
    with table.open(newline="") as file:
        return list(csv.reader(file))


NAMES = {
    "plain": ["x", "y", "z", "u", "v"],
    "not in order": ["z", "y", "x", "10", "9"],
    "not for folders": ["a/b", "a:b", "..", 'with "quotes", commas', "ü" * 90],
    "columns of the table": ["path", "split", "label", "class_name", "group"],
    "no labels": ["na", "unknown", "none", "?", "\U00020000" * 90],
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_exported_is_imported_to_the_digest(
    make_own: Callable[..., dict[str, Any]], save: Save, tmp_path: Path, names: str, channels: int
) -> None:
    data = load_dataset(save(make_own(size=9, channels=channels) | {"class_names": np.array(NAMES[names])}))
    table = export_dataset(data, tmp_path / "out")
    assert table == tmp_path / "out" / "data.csv"
    again = back(table, size=9)
    assert again.digest == data.digest
    assert again.info.labels == data.info.labels
    assert all(np.array_equal(again[split].images, data[split].images) for split in data.splits)


def test_pictures_lie_in_folders_of_their_classes(make_own: Any, save: Save, tmp_path: Path) -> None:
    arrays = make_own(size=9) | {"class_names": np.array(["a/b", "A_b", "c", "d", "e"])}
    data = load_dataset(save(arrays))
    table = export_dataset(data, tmp_path / "out")
    header, *lines = rows(table)
    assert header == ["path", "split", "label", "class_name"]
    assert [line[1] for line in lines] == ["train"] * 23 + ["val"] * 7 + ["test"] * 11
    first = lines[0]
    assert re.fullmatch(r"\w+(-\d)?/train_000000\.png", first[0])
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / first[0])), arrays["train_images"][0])
    folders = {line[3]: Path(line[0]).parent.name for line in lines}
    assert folders == {"a/b": "a_b-0", "A_b": "A_b-1", "c": "c", "d": "d", "e": "e"}, "on any system two folders"
    assert len(list((tmp_path / "out").rglob("*.png"))) == 41


def test_several_labels_and_groups_go_along(make_own: Any, save: Save, tmp_path: Path) -> None:
    arrays = make_own(size=9)
    rng = np.random.default_rng(0)
    for split, n in (("train", 23), ("val", 7), ("test", 11)):
        arrays[f"{split}_labels"] = rng.integers(0, 2, (n, 3)).astype(np.uint8)
        arrays[f"{split}_groups"] = np.array([f"{split}{place // 2}" for place in range(n)])
    data = load_dataset(save(arrays | {"class_names": np.array(["edema", "mass, large", "hernia"])}))
    table = export_dataset(data, tmp_path / "out")
    header, *lines = rows(table)
    assert header == ["path", "split", "group", "edema", "mass, large", "hernia"]
    assert lines[0][:3] == ["images/train_000000.png", "train", "train0"]
    again = back(table, replace(ALL, group_by="group"), size=9)
    assert again.digest == data.digest
    assert again.groups is not None
    assert len(np.unique(again.groups["train"])) == 12


def test_what_is_there_is_left(make_own: Any, save: Save, tmp_path: Path) -> None:
    data = load_dataset(save(make_own(size=9)))
    for place, found in ((tmp_path, "1 files"), (tmp_path / "own.npz", "Not a directory")):
        with pytest.raises(DataError) as caught:
            export_dataset(data, place)
        told = f"{place}: expected an empty folder, or none, found {found}. Choose another."
        assert str(caught.value) == told
    (tmp_path / "empty").mkdir()
    export_dataset(data, tmp_path / "empty")


# --- what would not come back ---

NOWHERE = "An import would refuse that, or lose the class: divide it among the splits, or leave it out."
EACH = "own: expected images of each class in train and in another split, found"

Change = Callable[[dict[str, Any]], None]


def renamed(**changes: str) -> Change:
    """Give the first of some names another; `groups` those of training images."""

    def change(arrays: dict[str, Any]) -> None:
        for key, name in changes.items():
            arrays[key] = np.array([name, *arrays[key].tolist()[1:]])

    return change


def relabelled(old: int, new: int, *splits: str) -> Change:
    def change(arrays: dict[str, Any]) -> None:
        for split in splits or ("train", "val", "test"):
            arrays[f"{split}_labels"][arrays[f"{split}_labels"] == old] = new

    return change


def kept(kind: str, name: str) -> str:
    found = f"found {name}, which would be lost or changed. Rename it."
    return f"own: expected names of {kind} that a table keeps as they are, {found}"


ONE_CLASS: dict[str, tuple[Change, str]] = {
    "a last class without images": (relabelled(4, 0), f"{EACH} none of 'e'. {NOWHERE}"),
    "a middle class without images": (relabelled(2, 0), f"{EACH} none of 'c'. {NOWHERE}"),
    "a class in train alone": (relabelled(1, 0, "val", "test"), f"{EACH} those of 'b' in train alone. {NOWHERE}"),
    "a class not in train": (relabelled(3, 0, "train"), f"{EACH} those of 'd' in val and test alone. {NOWHERE}"),
    "spaces around a class": (renamed(class_names=" a"), kept("classes", "' a'")),
    "spaces around a group": (renamed(train_groups="g "), kept("groups", "'g '")),
}
SEVERAL_LABELS: dict[str, tuple[Change, str]] = {
    "a label called split": (
        renamed(class_names="split"),
        "own: an import of its pictures would say: data.csv: expected columns with different names, found two called "
        "'split'. Rename one.",
    ),
    "a label called path": (
        renamed(class_names="path"),
        "own: an import of its pictures would say: data.csv: expected columns with different names, found two called "
        "'path'. Rename one.",
    ),
    "a label called group": (
        renamed(class_names="group"),
        "own: an import of its pictures would say: data.csv: expected columns with different names, found two called "
        "'group'. Rename one.",
    ),
    "a label called class_name": (
        renamed(class_names="class_name"),
        kept("labels", "'class_name'"),
    ),
    "spaces around a label": (renamed(class_names="a "), kept("labels", "'a '")),
}


@pytest.mark.filterwarnings("ignore:.*no training image of class")
@pytest.mark.parametrize("case", [*ONE_CLASS, *SEVERAL_LABELS])
def test_what_would_not_come_back_is_refused(make_own: Any, save: Save, tmp_path: Path, case: str) -> None:
    arrays = make_own(size=9) | {"class_names": np.array(list("abcde"))}
    for split in ("train", "val", "test"):
        arrays[f"{split}_groups"] = np.array([f"{split}{place}" for place in range(len(arrays[f"{split}_labels"]))])
        if case in SEVERAL_LABELS:
            arrays[f"{split}_labels"] = np.eye(5, dtype=np.uint8)[arrays[f"{split}_labels"][:, 0]]
            arrays[f"{split}_labels"][0] = 1
    change, told = {**ONE_CLASS, **SEVERAL_LABELS}[case]
    data = load_dataset(save(arrays))
    export_dataset(data, tmp_path / "sound")
    change(arrays)
    data = load_dataset(save(arrays))
    with pytest.raises(DataError) as caught:
        export_dataset(data, tmp_path / "out")
    assert str(caught.value) == told
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to(
    make_own: Any, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(save(make_own(size=9)))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(RunError) as caught:
        export_dataset(data, tmp_path / "out")
    assert str(caught.value) == (
        f"Cannot write pictures to {tmp_path / 'out'}: No space left on device. Choose another."
    )


# --- the command that imports them again ---


@pytest.mark.parametrize(
    ("task", "classes", "more"),
    [
        (None, 5, ""),
        ("ordinal", 5, " --task ordinal"),
        (None, 2, ""),
        ("ordinal", 2, " --task ordinal"),
        ("multi-class", 2, " --task multi-class"),
    ],
)
def test_the_command_says_the_task_that_labels_do_not_show(
    make_own: Any, save: Save, tmp_path: Path, task: str | None, classes: int, more: str
) -> None:
    data = load_dataset(save(make_own(size=9, channels=1, classes=classes)), task=task)
    command = import_command(data, tmp_path / "data.csv")
    assert command == f"qvit data import {tmp_path}/data.csv --label label --size 9{more}"


def test_grey_pictures_in_colour_stay_in_colour(make_own: Any, save: Save, tmp_path: Path) -> None:
    arrays = make_own(size=9)
    arrays["val_images"][2] = 0
    data = load_dataset(save(arrays))
    table = export_dataset(data, tmp_path / "out")
    command = import_command(data, table)
    assert command.endswith("--size 9 --channels rgb")
    again = back(table, ImportOptions(channels="rgb"), size=9)
    assert again.info.channels == 3
    assert again.digest == data.digest
