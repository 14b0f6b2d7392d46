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
from qvit.data.exporting import export_dataset
from qvit.data.options import DEFAULTS, ImportOptions
from qvit.errors import DataError

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
