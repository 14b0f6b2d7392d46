"""`qvit train` and `qvit evaluate`: what they print, where, and that their figures are those of the run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.training.folder import Run

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]
Tree = Callable[[Path], dict[str, bytes | None]]


@pytest.mark.trains
def test_train_evaluate_compare(qvit: Qvit, train: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # one that learns
    folders = [tmp_path / f"s{seed}" for seed in range(2)]
    for seed, folder in enumerate(folders):
        told = train(folder, seed=seed, epochs=2)
        assert told.code == 0
        assert "epoch 2/2" in told.err
        assert str(folder) in told.err
        assert "vit_4q1h" in told.out
        assert "None: too few test images to tell." in told.out
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]

    for split in ("val", "test"):
        told = qvit("evaluate", folders[0], "--split", split, "--json")
        assert (told.code, told.err) == (0, "")
        assert json.loads(told.out)["figures"] == results[0][split]
    table = qvit("evaluate", folders[0]).out
    assert "too few images of a class" in " ".join(table.split())
    for measure in ("auc", "acc", "kappa", "ece"):
        assert re.search(rf"{measure} +│ +{results[0]['test'][measure]:.4f}", table)
    assert len(re.findall(r"│ +– ", table)) == 2, "in the place of two intervals"
    assert table.endswith(
        "\n0 images of test have an exact copy in another split.\n"
        "Near-duplicates were not looked for: that takes 64 training images that differ.\n"
    )
    assert "cop" not in qvit("evaluate", folders[0], "--no-copies").out

    [file] = {Run(folder).dataset for folder in folders}
    moved = Path(file).rename(tmp_path / "moved.npz")
    told = qvit("evaluate", folders[0], "--data", moved, "--no-copies", "--json")
    assert json.loads(told.out)["figures"] == results[0]["test"]

    picture = tmp_path / "p.png"
    told = qvit("compare", *folders, "--picture", picture, "--data", moved)
    assert told.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Means over seeds" in told.out
    assert "bootstrap over test images. None: too few test images to tell." in " ".join(told.out.split())
    for result in results:
        assert result["test"]["auc_interval"] == [None, None], "six test images do not tell how sure it is"
        assert f" {result['test']['auc']:.3f} " in told.out
    read = json.loads(qvit("compare", *folders, "--json").out)
    assert [run["auc"]["value"] for run in read["runs"]] == [result["test"]["auc"] for result in results]
    assert {run["acc"]["why"] for run in read["runs"]} == {"too few test images to tell"}
    assert read["means"][0]["auc"]["value"] == pytest.approx(sum(result["test"]["auc"] for result in results) / 2)
    assert "Means over seeds" not in qvit("compare", folders[0]).out


def test_train_json_is_all_there_is_on_stdout(train: Qvit, tmp_path: Path) -> None:
    told = train(tmp_path / "run", "--json")
    read = json.loads(told.out)
    assert told.err == ""
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {key: read[key] for key in result} == result
    assert read["folder"] == str(tmp_path / "run")


@pytest.mark.long
def test_data_is_a_path_even_with_the_name_of_a_dataset(
    qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    npz.rename(tmp_path / "phantom")
    told = qvit("train", "--data", "phantom", "--model", "vit_4q1h", "--epochs", 1, "--out", "run", "--json")
    assert told.code == 0, told.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["dataset"] == "../phantom"
    rows = json.loads(qvit("compare", "run", "--json").out)["runs"]
    assert [row["dataset"] for row in rows] == [str(tmp_path / "phantom")]


def test_the_default_folder_names_the_run(
    qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert qvit("train", npz.name, "--model", "vit_4q1h", "--epochs", 1, "--seed", 2).code == 0
    assert (tmp_path / "runs" / "small-vit_4q1h-s2" / "result.json").exists()


@pytest.mark.long
def test_resuming_a_finished_run_changes_nothing(train: Qvit, tmp_path: Path, tree: Tree) -> None:
    first = train(tmp_path / "run")
    before = tree(tmp_path)
    again = train(tmp_path / "run", "--resume")
    assert (again.code, again.out) == (0, first.out)
    assert tree(tmp_path) == before


def test_a_warning_is_a_line_on_stderr(
    qvit: Qvit, arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    arrays["test_labels"] %= 2
    np.savez(tmp_path / "lacking.npz", **arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        told = qvit(
            "train", tmp_path / "lacking.npz", "--model", "vit_4q1h", "--epochs", 1, "--json", "--out", tmp_path / "run"
        )
    assert told.code == 0
    json.loads(told.out)
    assert told.err.startswith("Warning: ")
    assert all(line.startswith("Warning: ") for line in told.err.splitlines())
    assert ".py:" not in told.err


@pytest.mark.long
@pytest.mark.parametrize("name", ["[bold]a[b]:smile:"])
def test_names_are_shown_as_they_are(qvit: Qvit, npz: Path, tmp_path: Path, name: str) -> None:
    """Square brackets are markup to rich, unless it is told otherwise."""
    folder = tmp_path / "runs"
    folder.mkdir()
    moved = npz.rename(tmp_path / f"{name}.npz")
    arguments = ["--model", "vit_4q1h", "--epochs", 1, "--out", folder / "run"]
    told = qvit("train", moved, *arguments)
    assert told.code == 0
    assert name in qvit("compare", folder / "run", "--json").out
    shown = qvit("compare", folder / "run")
    assert shown.code == 0
    assert name in re.sub(r"[\s│]", "", shown.out)
