"""`qvit data`: what there is, what is told of it, and whether files are sound."""

import json
import os
import re
import shlex
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
from qvit.data.findings import NOTHING
from qvit.data.options import ImportOptions
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
    digest = load_dataset(npz).digest
    assert told.out == (
        f"{npz} is sound: multi-class, train 24, val 16, test 20 images, digest {digest}\n"
        "- Only exact copies were looked for: near-duplicates need at least 64 training images, and there are 24.\n"
        "- Groups, such as patients, are not known: whether one stands in two splits cannot be told.\n"
    )
    report = json.loads(qvit("data", "verify", npz, "--json").out)
    assert (report["task"], report["size"], report["official"]) == ("multi-class", 12, False)
    assert (report["path"], report["digest"], report["md5"]) == (str(npz), digest, None)


@pytest.mark.long
@pytest.mark.skipif(not OFFICIAL.is_file(), reason="QVIT_DATA names no folder with the official files")
def test_data_verify_and_get_official(qvit: Qvit, tmp_path: Path) -> None:
    told = qvit("data", "verify", "retinamnist")
    assert (told.code, told.err) == (0, "")
    line = told.out.partition("\n")[0]
    assert line.startswith("retinamnist is sound: ordinal, train 1080, val 120, test 400 images, digest ")
    assert line.endswith(f", MD5 {DATASETS['retinamnist'].md5[28]}")
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
    assert table_.err.rstrip().endswith("images of 28 x 28 pixels, 2 classes, 15 groups, each in one split")
    data = load_dataset(Path("sub/x.npz"))
    assert data.groups is not None
    assert data.info.labels == ("cyst", "tumour")
    again = qvit("data", "import", "cells.csv", "--group-by", "patient", "--out", "sub/x.npz", "--root", root)
    assert (again.code, again.out) == (2, "")
    assert again.err == ("Error: There is already a file sub/x.npz; move it away, or choose another name with --out.\n")


@pytest.mark.filterwarnings("ignore")
def test_an_import_says_of_groups_what_is_so_of_given_splits(qvit: Qvit, cells: Path, tmp_path: Path) -> None:
    """Nothing is split by group if the table says where each picture stands."""
    for patients, told in ((30, "30 groups, each in one split"), (15, "15 groups, 15 of them in several splits")):
        rows = [
            f"cells/{name}/{place:02}.png,{name},p{place % patients},{'train' if place < 15 else 'test'}"
            for name in ("cyst", "tumour")
            for place in range(30)
        ]
        table(tmp_path / "given.csv", "path,kind,patient,split", rows)
        out = tmp_path / f"{patients}.npz"
        done = qvit("data", "import", tmp_path / "given.csv", "--group-by", "patient", "--out", out, "--root", tmp_path)
        assert done.err.rstrip().endswith(f"images of 28 x 28 pixels, 2 classes, {told}")


def test_what_pictures_hold_is_told_of_what_was_named(
    qvit: Qvit, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the file that they are imported into, which nobody knows."""
    monkeypatch.setenv("QVIT_DATA", str(tmp_path / "root"))
    listed = tmp_path / "cells.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = qvit("data", "info", listed)
    assert "\nlabels       " in alone.out, "a column of patients is not taken for the classes"
    told = qvit("data", "info", listed, "--label", "kind", "--group-by", "patient").out
    assert f"\npath         {listed}\n" in told
    assert "md5" not in told
    report = qvit("data", "verify", listed, "--label", "kind", "--group-by", "patient", "--no-copies")
    data = load_dataset(listed, importing=ImportOptions(label="kind", group_by="patient"))
    splits = {name: (len(split), np.bincount(split.labels[:, 0]).tolist()) for name, split in data.splits.items()}
    shown = ", ".join(f"{name}: {images} ({labels[0]}, {labels[1]})" for name, (images, labels) in splits.items())
    assert f"\nsplits       {shown}\n" in told
    counts = ", ".join(f"{name} {images}" for name, (images, _) in splits.items())
    assert report.out.startswith(f"{listed} is sound: binary, {counts} images, digest {data.digest}\n")
    assert str(tmp_path / "root") not in told + report.out


def test_data_import_with_a_task(qvit: Qvit, cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "graded.npz"
    told = qvit("data", "import", cells, "--group-by", "[0-9]+", "--task", "ordinal", "--out", out, "--root", tmp_path)
    assert told.code == 0
    assert load_dataset(out).info.task == "ordinal"


def test_data_export_and_back(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    told = qvit("data", "export", npz, tmp_path / "out")
    assert told.code == 0
    back, listed = tmp_path / "back.npz", tmp_path / "out" / "data.csv"
    command = f"qvit data import {listed} --label label --size 12 --channels rgb"
    assert told.out == (
        f"60 pictures are in {tmp_path / 'out'}, and listed in {listed}\nTo import them again: {command}\n"
    )
    assert qvit(*shlex.split(command)[1:], "--out", back, "--root", tmp_path).code == 0
    assert load_dataset(back).digest == load_dataset(npz).digest


@pytest.mark.parametrize("task", ["ordinal", "multi-label"])
def test_the_command_that_export_prints_imports_all_again(
    qvit: Qvit, arrays: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, images in (("train", 24), ("val", 16), ("test", 20)):
        arrays[f"{split}_groups"] = np.array([f"{split}{place // 2}" for place in range(images)])
        if task == "multi-label":
            arrays[f"{split}_labels"] = np.eye(3, dtype=np.uint8)[arrays[f"{split}_labels"][:, 0]]
            arrays[f"{split}_labels"][0] = 1
    np.savez(tmp_path / "own.npz", **arrays, class_names=np.array(["a mass, large", "label", "b"]), task=np.array(task))
    told = qvit("data", "export", "own.npz", "a folder", "--root", tmp_path).out
    command = shlex.split(told.splitlines()[1].removeprefix("To import them again: "))
    assert qvit(*command[1:], "--out", "back.npz", "--root", tmp_path).code == 0
    one, other = load_dataset(Path("own.npz")), load_dataset(Path("back.npz"))
    assert (other.digest, other.info.task, other.info.labels) == (one.digest, task, one.info.labels)
    assert other.groups is not None
    assert len(np.unique(other.groups["train"])) == 12


def test_an_export_that_is_refused_leaves_nothing(qvit: Qvit, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    arrays["train_labels"][arrays["train_labels"] == 1] = 2
    np.savez(tmp_path / "gap.npz", **arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = qvit("data", "export", tmp_path / "gap.npz", tmp_path / "out")
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(
        "Error: gap: expected images of each class in train and in another split, found those of"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_data_verify_tells_what_is_wrong(qvit: Qvit, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    arrays = dict(arrays)
    arrays["test_images"] = arrays["test_images"].copy()
    arrays["test_images"][3] = arrays["train_images"][5][:, ::-1]
    np.savez(tmp_path / "copied.npz", **arrays)
    told = qvit("data", "verify", tmp_path / "copied.npz")
    assert told.code == 0
    assert "\n- 1 of 20 images of test (5.0%) has a near-duplicate in train or val; " in told.out
    report = json.loads(qvit("data", "verify", tmp_path / "copied.npz", "--json").out)
    assert report["copies"]["images_with_copies"] == {"val": 0, "test": 1}
    assert len(report["findings"]) == told.out.count("\n- ")


def test_data_verify_without_near_duplicates_tells_the_rest(
    qvit: Qvit, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for split, images in (("train", 24), ("val", 16), ("test", 20)):
        arrays[f"{split}_groups"] = np.array([f"{split}{place}" for place in range(images)])
    arrays["test_groups"][5] = "train3"
    arrays["test_images"][3] = arrays["train_images"][5]
    arrays["train_images"][7] = 9
    arrays["val_labels"][arrays["val_labels"] == 2] = 1
    np.savez(tmp_path / "wrong.npz", **arrays)
    told = qvit("data", "verify", tmp_path / "wrong.npz", "--no-copies").out
    assert told.splitlines()[1:] == [
        "- Near-duplicates were not looked for.",
        "- 1 group has images in several splits: train3.",
        "- No image of 2 in val.",
        "- 1 image of train has equal pixels throughout: 7.",
    ]
    report = json.loads(qvit("data", "verify", tmp_path / "wrong.npz", "--json", "--no-copies").out)
    assert len(report["findings"]) == 4
    assert report["copies"] is None
    assert report["shared_groups"] == ["train3"]
    assert report["constant_images"] == {"train": [7], "val": [], "test": []}
    assert report["absent_classes"] == {"train": [], "val": ["2"], "test": []}


def test_data_verify_says_if_nothing_is_wrong(qvit: Qvit, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in (("train", 80), ("val", 16), ("test", 16)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 12, 12)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)
        arrays[f"{split}_groups"] = np.array([f"{split}{k}" for k in range(n)])
    np.savez(tmp_path / "fine.npz", **arrays)
    told = qvit("data", "verify", tmp_path / "fine.npz")
    assert told.out.splitlines()[1:] == [f"- {NOTHING}"]
    assert json.loads(qvit("data", "verify", tmp_path / "fine.npz", "--json").out)["findings"] == []


@pytest.mark.long
def test_data_preview(qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = qvit("data", "preview", npz)
    assert told.code == 0, told.err
    assert told.out == f"Written: preview-{npz.stem}/preview.png\nWritten: preview-{npz.stem}/preview.html\n"
    assert (tmp_path / f"preview-{npz.stem}" / "preview.png").read_bytes().startswith(b"\x89PNG")


INSIDE = "and pictures there would be taken for the dataset's. Choose a folder outside"


def test_nothing_is_written_into_a_folder_of_pictures(
    qvit: Qvit, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Callable[[Path], dict[str, Any]]
) -> None:
    """The next import would take it for a class."""
    (tmp_path / "link").symlink_to(cells, target_is_directory=True)
    before = tree(tmp_path)
    monkeypatch.chdir(cells)
    cases = [
        (["preview", "../cells/"], f"preview-cells lies in the dataset's own folder, ../cells/, {INSIDE} with --out."),
        (["preview", "./", "--out", "x"], f"x lies in the dataset's own folder, ./, {INSIDE} with --out."),
        (
            ["preview", cells, "--out", "../link/x"],
            f"../link/x lies in the dataset's own folder, {cells}, {INSIDE} with --out.",
        ),
        (["export", "./", "cyst/x"], f"cyst/x lies in the dataset's own folder, ./, {INSIDE}."),
    ]
    for words, line in cases:
        assert qvit("data", *words) == (2, "", f"Error: {line}\n")
    told = qvit("data", "preview", "./")
    assert told.code == 2
    assert told.err.endswith(f"lies in the dataset's own folder, ./, {INSIDE} with --out.\n")
    assert tree(tmp_path) == before


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
