import dataclasses
import re
from pathlib import Path
from typing import get_args

import medmnist
import pytest

from qvit.data.registry import DATASETS, MEDMNIST_TASKS, Task, file_name, get_info, is_path, name_of
from qvit.errors import ConfigError

OFFICIAL = [name for name, info in DATASETS.items() if not info.synthetic]


def test_the_twelve_flat_datasets_and_the_phantom() -> None:
    flat = [name for name in medmnist.INFO if not name.endswith("3d")]
    assert sorted(OFFICIAL) == sorted(flat)
    assert set(DATASETS) - set(OFFICIAL) == {"phantom"}
    assert all(name == info.name for name, info in DATASETS.items())


@pytest.mark.parametrize("name", OFFICIAL)
def test_row_agrees_with_medmnist(name: str) -> None:
    ours, theirs = get_info(name), medmnist.INFO[name]
    assert ours.title == theirs["python_class"]
    assert ours.medmnist_task == theirs["task"]
    assert ours.labels == tuple(theirs["label"][str(i)] for i in range(len(theirs["label"])))
    assert ours.num_classes == len(theirs["label"])
    assert ours.channels == theirs["n_channels"]
    assert ours.splits == theirs["n_samples"]
    assert ours.licence == theirs["license"]
    assert ours.sizes == (28, 64, 128, 224)
    for size in ours.sizes:
        suffix = "" if size == 28 else f"_{size}"
        assert ours.md5[size] == theirs[f"MD5{suffix}"]
        assert ours.url(size) == theirs[f"url{suffix}"]
    first, own = ours.citation.split("; ", 1)
    assert first == "Yang et al., MedMNIST v2, Scientific Data 10:41 (2023)"
    assert re.search(r"\((20\d\d)\)$", own)
    assert ours.name == name == theirs["python_class"].lower()
    assert not ours.synthetic


def test_each_field_of_a_row_is_compared_with_medmnist_or_said_here() -> None:
    compared = {"name", "title", "task", "labels", "channels", "splits", "md5", "licence", "citation", "synthetic"}
    said_here = {"augment", "description"}
    assert {field.name for field in dataclasses.fields(get_info("phantom"))} == compared | said_here
    assert len({info.description for info in DATASETS.values()}) == len(DATASETS)
    assert all(info.description[0].isupper() and info.description[-1] != "." for info in DATASETS.values())
    phantom = get_info("phantom")
    assert dataclasses.asdict(phantom) == {
        "name": "phantom",
        "title": "Phantom",
        "description": "Synthetic stained blood cells, five kinds, made from a seed; for demonstrations",
        "task": "multi-class",
        "labels": ("lymphocyte", "monocyte", "neutrophil", "eosinophil", "blast"),
        "channels": 3,
        "splits": {"train": 2000, "val": 400, "test": 800},
        "md5": {},
        "licence": "Apache-2.0",
        "citation": "",
        "augment": "d4",
        "synthetic": True,
    }
    assert (phantom.sizes, phantom.num_classes, phantom.medmnist_task) == ((), 5, "multi-class")


def test_each_task_is_some_datasets_and_spelled_as_medmnist_does() -> None:
    assert set(MEDMNIST_TASKS) == set(get_args(Task)) == {info.task for info in DATASETS.values()}
    assert set(MEDMNIST_TASKS.values()) == {info["task"] for name, info in medmnist.INFO.items() if "3d" not in name}


def test_augmentation_never_swaps_a_label() -> None:
    for name, info in DATASETS.items():
        sided = any("left" in label for label in info.labels)
        assert (info.augment == "none") == sided, name
    assert {n for n, i in DATASETS.items() if i.augment == "mirror"} == {
        "breastmnist",
        "octmnist",
        "pneumoniamnist",
        "chestmnist",
    }


def test_file_names_and_mirrors() -> None:
    assert file_name("retinamnist") == "retinamnist.npz"
    assert file_name("retinamnist", 64) == "retinamnist_64.npz"
    url = get_info("retinamnist").url(64, base_url="http://127.0.0.1:1/x")
    assert url == "http://127.0.0.1:1/x/retinamnist_64.npz?download=1"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("RetinaMNIST", "retinamnist"), ("RETINAMNIST", "retinamnist"), ("Phantom", "phantom"), ("PATH", "pathmnist")],
)
def test_the_suggestion_ignores_the_case_of_letters(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Unknown dataset '{typed}'\. Did you mean '{meant}'\?"):
        get_info(typed)


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_info("phantom").__setattr__("name", "other")


def test_names_and_paths() -> None:
    assert [is_path(n) for n in ("retinamnist", "phantom", "a.npz", "./a", Path("a"))] == [0, 0, 1, 1, 1]


def test_a_path_is_called_by_its_last_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, name in (
        ("./cells/", "cells"),
        ("a/v1.2", "v1.2"),
        ("a/v1.2/data.csv", "data"),
        ("a/x.NPZ", "x"),
        ("./.npz", ".npz"),
        ("breastmnist", "breastmnist"),
        (Path("cells"), "cells"),
        ("a/b/../c", "c"),
    ):
        assert name_of(path) == name
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert name_of("./") == "inner"
    assert name_of("../") == tmp_path.name
    assert name_of("/") == "data"
