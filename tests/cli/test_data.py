"""`qvit data`: what there is, what is told of it, and whether files are sound."""

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.picture_folders import class_folder, table
from qvit.data.arrays import load_dataset
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


# --- pictures ---


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Two classes of thirty pictures, and a table of them with patients."""
    folder = class_folder(tmp_path / "cells", {"cyst": 30, "tumour": 30})
    rows = [f"cells/{name}/{place:02}.png,{name},p{place // 2}" for name in ("cyst", "tumour") for place in range(30)]
    table(tmp_path / "cells.csv", "path,kind,patient", rows)
    return folder


def test_data_import(qvit: Qvit, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        told = qvit("data", "import", cells, "--root", root, "--size", 8)
    assert told.code == 0
    assert "split at random, image by image, as groups are not known" in told.err
    assert "cells.npz: train 42, val 6, test 12 images of 8 x 8 pixels, 2 classes\n" in told.err
    assert told.out.strip() == load_dataset(Path("cells.npz")).digest
    table_ = qvit("data", "import", "cells.csv", "--group-by", "patient", "--out", "sub/x.npz", "--root", root)
    assert table_.code == 0
    assert table_.err.rstrip().endswith("images of 28 x 28 pixels, 2 classes, split by group")
    data = load_dataset(Path("sub/x.npz"))
    assert data.groups is not None
    assert data.info.labels == ("cyst", "tumour")
    again = qvit("data", "import", "cells.csv", "--group-by", "patient", "--out", "sub/x.npz", "--root", root)
    assert (again.code, again.out) == (2, "")
    assert again.err == ("Error: There is already a file sub/x.npz; move it away, or choose another name with --out.\n")


def test_data_import_with_a_task(qvit: Qvit, cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "graded.npz"
    told = qvit("data", "import", cells, "--group-by", "[0-9]+", "--task", "ordinal", "--out", out, "--root", tmp_path)
    assert told.code == 0
    assert load_dataset(out).info.task == "ordinal"


def test_data_export_and_back(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    told = qvit("data", "export", npz, tmp_path / "out")
    assert told.code == 0
    assert told.out == f"60 pictures are in {tmp_path / 'out'}, and listed in {tmp_path / 'out' / 'data.csv'}\n"
    back = tmp_path / "back.npz"
    listed = tmp_path / "out" / "data.csv"
    assert qvit("data", "import", listed, "--size", 12, "--out", back, "--root", tmp_path).code == 0
    assert load_dataset(back).digest == load_dataset(npz).digest


@pytest.mark.long
def test_data_verify_tells_what_is_wrong(qvit: Qvit, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    arrays = dict(arrays)
    arrays["test_images"] = arrays["test_images"].copy()
    arrays["test_images"][3] = arrays["train_images"][5][:, ::-1]
    np.savez(tmp_path / "copied.npz", **arrays)
    told = qvit("data", "verify", tmp_path / "copied.npz")
    assert told.code == 0
    assert "\n- 1 of 20 images of test (5.0%) have a near-duplicate in train or val; " in told.out
    report = json.loads(qvit("data", "verify", tmp_path / "copied.npz", "--json").out)
    assert report["copies"]["images_with_copies"] == {"val": 0, "test": 1}
    assert len(report["findings"]) == told.out.count("\n- ")
    plain = json.loads(qvit("data", "verify", tmp_path / "copied.npz", "--json", "--no-copies").out)
    assert "findings" not in plain


@pytest.mark.long
def test_data_preview(qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = qvit("data", "preview", npz)
    assert told.code == 0, told.err
    assert told.out == f"Written: preview-{npz.stem}/preview.png\nWritten: preview-{npz.stem}/preview.html\n"
    assert (tmp_path / f"preview-{npz.stem}" / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_an_import_that_cannot_be_written_leaves_nothing(
    qvit: Qvit, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    out = tmp_path / "there" / "x.npz"
    told = qvit("data", "import", cells, "--group-by", "[0-9]+", "--out", out, "--root", tmp_path)
    assert (told.code, told.out) == (2, "")
    assert told.err == f"Error: Cannot write {out}: No space left on device. Choose another with --out.\n"
    assert not list(out.parent.iterdir())
