"""`qvit evaluate` on other data than a run was trained on, and by class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Qvit = Callable[..., Any]
NAMES = ("0", "1", "2")


def folder_of(path: Path, names: tuple[str, ...], count: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for place in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"p{name}{place % 3}-{place}.png")
    return path


def test_rates_of_each_class_are_told(qvit: Qvit, run: Path) -> None:
    told = qvit("evaluate", run, "--no-copies")
    found = json.loads(qvit("evaluate", run, "--no-copies", "--json").out)["figures"]
    lines = told.out[told.out.index("by class") :].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    rates = zip(found["sensitivity_by_class"], found["specificity_by_class"], strict=True)
    assert rows == [[name, f"{one:.4f}", f"{other:.4f}"] for name, (one, other) in zip(NAMES, rates, strict=True)]
    assert np.mean(found["sensitivity_by_class"]) == pytest.approx(found["sensitivity"])
    assert np.mean(found["specificity_by_class"]) == pytest.approx(found["specificity"])


def test_data_that_were_moved_are_no_other_data(
    qvit: Qvit, run: Path, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    npz.rename("moved.npz")
    assert qvit("evaluate", "run", "--data", "moved.npz", "--no-copies").out.startswith("run on test")


def test_other_data_are_an_external_test(
    qvit: Qvit, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = folder_of(Path("elsewhere"), (*NAMES, "unknown"))
    (path / "2" / "p9-broken.png").write_text("text")
    told = qvit("evaluate", "run", "--data", path, "--group-by", "(p[a-z]*[0-9]+)-")
    assert told.code == 0
    assert "run on other data, 18 images of elsewhere" in " ".join(told.out.split())
    assert "over 9 groups, whose probabilities are averaged" in " ".join(told.out.split())
    assert "Left out, as the run does not know it: unknown (6 images have it)." in told.out
    assert "1 file could not be read: " in told.out
    assert told.out.endswith("Convert it, or leave it out.\n")
    found = json.loads(qvit("evaluate", "run", "--data", path, "--json").out)
    assert (found["images"], found["groups"], found["by_group"]) == (18, None, None)
    assert found["unknown"] == {"unknown": 6}
    assert 0 <= found["figures"]["auc"] <= 1


def test_json_has_the_same_shape_of_both_kinds_of_data(qvit: Qvit, run: Path, npz: Path, tmp_path: Path) -> None:
    own = json.loads(qvit("evaluate", run, "--json").out)
    other = json.loads(qvit("evaluate", run, "--data", folder_of(tmp_path / "elsewhere", NAMES), "--json").out)
    shared = {"images", "classes", "figures", "groups", "mixed", "by_group"}
    assert own.keys() - shared == {"near_duplicates", "exact_only", "without"}
    assert other.keys() - shared == {"absent", "unknown", "broken"}
    assert (own["images"], own["classes"], own["groups"]) == (20, [*NAMES], None)
    assert own["figures"].keys() == other["figures"].keys()
    assert json.loads(qvit("evaluate", run, "--json", "--no-copies").out).keys() == shared


def test_groups_of_the_runs_own_data_are_measured(
    qvit: Qvit, run: Path, npz: Path, arrays: dict[str, np.ndarray]
) -> None:
    for split in ("train", "val", "test"):
        labels = arrays[f"{split}_labels"][:, 0]
        arrays[f"{split}_groups"] = np.array([f"{split} {label}{k % 2}" for k, label in enumerate(labels)])
    np.savez(npz, **arrays)
    told = " ".join(qvit("evaluate", run, "--no-copies").out.split())
    assert "over 6 groups, whose probabilities are averaged" in told
    assert told.count("by class") == 2
    found = json.loads(qvit("evaluate", run, "--no-copies", "--json").out)
    assert (found["groups"], found["mixed"]) == (6, 0)
    assert found["by_group"].keys() == found["figures"].keys()
    for split in ("train", "val", "test"):
        arrays[f"{split}_groups"] = np.full(len(arrays[f"{split}_labels"]), split)
    np.savez(npz, **arrays)
    told = qvit("evaluate", run, "--no-copies").out
    assert told.endswith(
        "Groups whose images have equal labels: 0, too few or too alike to be measured.\n"
        "Left out of 1 groups, as their labels differ: 1.\n"
    )


@pytest.mark.long
def test_a_picture_of_both_kinds_of_data(
    qvit: Qvit, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = qvit("evaluate", "run", "--no-copies", "--split", "val", "--picture", "own.svg")
    assert (told.code, told.err) == (0, "Picture: own.svg\n")
    assert told.out.startswith("run on val")
    assert "run on val, 16 images" in Path("own.svg").read_text()
    other = folder_of(Path("elsewhere"), NAMES)
    told = qvit("evaluate", "run", "--data", other, "--json", "--picture", "other.PNG")
    assert json.loads(told.out)["images"] == 18
    assert Path("other.PNG").read_bytes().startswith(b"\x89PNG")


def test_other_data_have_no_copies_to_leave_out(qvit: Qvit, run: Path, tmp_path: Path) -> None:
    other = folder_of(tmp_path / "elsewhere", NAMES)
    told = qvit("evaluate", run, "--data", other, "--no-copies")
    expected = f"--no-copies is for the data that the run was trained on, and {other} holds others."
    assert (told.code, told.out, told.err) == (2, "", f"Error: {expected}\n")


@pytest.mark.filterwarnings("ignore::qvit.evaluation.AbsentClassWarning")
def test_missing_classes_are_told(qvit: Qvit, run: Path, tmp_path: Path) -> None:
    told = qvit("evaluate", run, "--data", folder_of(tmp_path / "elsewhere", ("0", "2")))
    assert "Not in these data: 1." in told.out
    assert "–" in told.out, "in the place of its sensitivity"


def test_an_official_dataset_by_its_name(qvit: Qvit, run: Path, small_phantom: None) -> None:
    told = qvit("evaluate", run, "--data", "phantom")
    assert (told.code, told.err.split(", got")[0]) == (2, "Error: phantom: expected an even size of at least 28 pixels")


def test_a_picture_needs_a_folder_before_anything_is_asked(qvit: Qvit, run: Path) -> None:
    told = qvit("evaluate", run, "--picture", "nodir/p.png")
    assert (told.code, told.out) == (2, "")
    assert told.err == "Error: --picture needs a folder that is there, and nodir is none.\n"


@pytest.mark.usefixtures("untrained")
def test_a_fold_that_was_held_out_is_called_so(
    qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    of_fold = ("--set", "folds=2", "--set", "fold=1", "--set", "keep=last", "--set", "tta=never")
    trained = qvit("train", npz, "--model", "vit_4q1h", "--epochs", 1, "--out", "run", *of_fold)
    assert trained.code == 0
    assert "1 of 2" in trained.out
    assert "test AUC" not in trained.out
    told = " ".join(qvit("evaluate", "run").out.split())
    assert told.startswith("run on fold 1 of 2, which it held out ")
    assert "0 images of fold 1 of 2, which it held out have an exact copy in another split." in told
    assert " ".join(qvit("evaluate", "run", "--split", "train").out.split()).startswith("run on train ")
    assert json.loads(qvit("evaluate", "run", "--json").out)["images"] == 20
