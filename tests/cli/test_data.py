"""`qvit data`: what there is, what is told of it, and whether files are sound."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.registry import DATASETS

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]
OFFICIAL = Path(os.environ.get("QVIT_DATA", "")) / "retinamnist.npz"


def test_data_list(qvit: Qvit) -> None:
    told = qvit("data", "list")
    assert told.code == 0
    heads, *lines = [re.split(" *[│┃] *", line)[1:-1] for line in told.out.splitlines() if line[0] in "│┃"]
    assert heads == ["name", "task", "classes", "images", "train / val / test", "licence"]
    assert [line[0] for line in lines] == list(DATASETS)
    assert lines[list(DATASETS).index("octmnist")] == [
        "octmnist", "multi-class", "4", "grey", "97,477 / 10,832 / 1,000", "CC BY 4.0"
    ]  # fmt: skip
    assert lines[-1][3] == "RGB"
    rows = json.loads(qvit("data", "list", "--json").out)
    assert [row["name"] for row in rows] == list(DATASETS)


OCT = """\
name         octmnist
title        OCTMNIST
description  Optical coherence tomography sections of the retina, three diseases and normal
task         multi-class
labels       0: choroidal neovascularization, 1: diabetic macular edema, 2: drusen, 3: normal
channels     1
splits       train: 97477, val: 10832, test: 1000
synthetic    False
augment      mirror
files        28: https://zenodo.org/records/10519652/files/octmnist.npz?download=1, \
64: https://zenodo.org/records/10519652/files/octmnist_64.npz?download=1, \
128: https://zenodo.org/records/10519652/files/octmnist_128.npz?download=1, \
224: https://zenodo.org/records/10519652/files/octmnist_224.npz?download=1
"""


def test_data_info(qvit: Qvit) -> None:
    told = qvit("data", "info", "octmnist").out
    assert told.startswith(OCT)
    last = ["md5          28: ", "licence      CC BY 4.0", "citation     Yang et al., MedMNIST v2, "]
    assert [line[: len(head)] for line, head in zip(told.splitlines()[-3:], last, strict=True)] == last


@pytest.mark.parametrize("name", DATASETS)
def test_each_field_of_each_dataset_is_told(qvit: Qvit, name: str) -> None:
    row = json.loads(qvit("data", "info", name, "--json").out)
    info = DATASETS[name]
    assert row.keys() == {field.name for field in fields(info)} | {"files"}
    plain = asdict(info) | {"labels": list(info.labels), "md5": {str(size): md5 for size, md5 in info.md5.items()}}
    assert {key: row[key] for key in plain} == plain
    assert row["files"] == {str(size): info.url(size) for size in info.sizes}


def test_data_info_of_an_own_file(qvit: Qvit, npz: Path, arrays: dict[str, np.ndarray]) -> None:
    told = qvit("data", "info", npz)
    assert (told.code, told.err) == (0, "")
    for part in (str(npz), "multi-class"):
        assert part in re.sub(r"[\s│]", "", told.out)
    row = json.loads(qvit("data", "info", npz, "--json").out)
    assert (row["path"], row["task"], row["official"]) == (str(npz), "multi-class", False)
    assert (row["size"], row["channels"], row["labels"]) == (12, 3, ["0", "1", "2"])
    for split, found in row["splits"].items():
        labels = arrays[f"{split}_labels"]
        assert found == {"images": len(labels), "per_label": np.bincount(labels[:, 0]).tolist()}
    assert list(row["splits"]) == ["train", "val", "test"]


def test_data_verify(qvit: Qvit, npz: Path) -> None:
    told = qvit("data", "verify", npz)
    assert told.code == 0
    assert "is sound" in told.out
    assert "train 24, val 16, test 20" in told.out
    report = json.loads(qvit("data", "verify", npz, "--json").out)
    assert (report["task"], report["size"], report["official"]) == ("multi-class", 12, False)


@pytest.mark.long
@pytest.mark.skipif(not OFFICIAL.is_file(), reason="QVIT_DATA names no folder with the official files")
def test_data_verify_and_get_official(qvit: Qvit, tmp_path: Path) -> None:
    told = qvit("data", "verify", "retinamnist")
    assert (told.code, told.err) == (0, "")
    assert DATASETS["retinamnist"].md5[28] in told.out
    shutil.copyfile(OFFICIAL, tmp_path / OFFICIAL.name)
    assert str(tmp_path / OFFICIAL.name) in qvit("data", "get", "retinamnist", "--root", tmp_path).out
    assert "nothing to get" in qvit("data", "get", "phantom").out
