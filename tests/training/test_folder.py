"""A run folder as it is read: what is missing, damaged or of another model or dataset is told."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from qvit.errors import ConfigError, QvitError, RunError
from qvit.models import model_config
from qvit.models.zoo import build
from qvit.training.checkpoint import load_weights, save_weights
from qvit.training.evaluated import evaluate_run
from qvit.training.folder import Run, flag_of


def refusal(attempt: Callable[[], Any], kind: type[Exception] = RunError) -> str:
    with pytest.raises(kind) as caught:
        attempt()
    return str(caught.value)


def test_missing_files(run: Run, tmp_path: Path) -> None:
    nowhere = Run(tmp_path / "nowhere")
    assert refusal(lambda: nowhere.config) == f"{nowhere.folder} is not a run folder: config.json is missing."
    assert refusal(lambda: nowhere.result) == f"{nowhere.folder} is not a run folder: result.json is missing."
    assert refusal(lambda: nowhere.history) == (
        f"{nowhere.folder / 'metrics.jsonl'} cannot be read (There is no file {nowhere.folder / 'metrics.jsonl'}); "
        "train the run again."
    )
    (run.folder / "result.json").unlink()
    told = f"The run in {run.folder} is not finished; go on with `qvit train … --resume`."
    assert refusal(lambda: run.result) == told
    [path] = run.folder.glob("*_val_*.csv")
    path.with_name(f"{path.stem}x.csv").write_bytes(path.read_bytes())
    told = f"Expected one prediction file of the val split in {run.folder}, found 2."
    assert refusal(lambda: run.predictions("val")) == told
    for name in run.folder.glob("*_val_*.csv"):
        name.unlink()
    assert refusal(lambda: run.predictions("val")) == told.replace("2.", "0.")


def test_damaged_files(run: Run) -> None:
    (run.folder / "result.json").write_text("{")
    assert re.fullmatch(
        rf"{run.folder}/result\.json is damaged \(.+ is not valid JSON: .+\); train the run again\.",
        refusal(lambda: run.result),
    )
    line = (run.folder / "metrics.jsonl").read_text().splitlines()[0]
    (run.folder / "metrics.jsonl").write_text(f"{line}\n{line}\n")
    told = f"{run.folder / 'metrics.jsonl'} cannot be read (line 2 is of epoch 1); train the run again."
    assert refusal(lambda: run.history) == told
    (run.folder / "timings.jsonl").write_text("{}\n")
    told = f"{run.folder / 'timings.jsonl'} cannot be read (line 1 holds no epoch); train the run again."
    assert refusal(lambda: run.seconds) == told
    run.weights_path.write_bytes(b"")
    told = rf"{run.weights_path} cannot be read as weights \(.+\); train the run again\."
    assert re.fullmatch(told, refusal(lambda: load_weights(run.weights_path)))


def test_weights_and_predictions_of_another_model(run: Run) -> None:
    [path] = run.folder.glob("*_test_*.csv")
    path.write_text("0,0.5,0.5\n")
    assert refusal(lambda: run.predictions("test")) == (
        f"{path} holds 2 scores per image, and this run's model tells 4 classes apart; train the run again."
    )
    weights = safetensors.torch.load_file(run.weights_path)
    del weights["head.bias"]
    safetensors.torch.save_file(weights, run.weights_path)
    told = f"{run.weights_path} does not fit the model in config.json; train the run again."
    assert refusal(run.load_model) == told


def test_data_that_are_not_those_of_the_run(run: Run, finished: Path, make_arrays: Any, tmp_path: Path) -> None:
    lay, digest = run.dataset, run.config["data_digest"]
    np.savez(tmp_path / "other.npz", **make_arrays(seed=1))
    told = (
        rf"The run in {run.folder} was trained on other data: expected {lay} with digest {digest}, found [0-9a-f]{{32}}"
    )
    assert re.fullmatch(
        rf"{told} in {tmp_path}/other\.npz\.", refusal(lambda: run.load_data(file=tmp_path / "other.npz"))
    )
    said = json.loads((run.folder / "config.json").read_text())
    for name, kind, file, expected in (
        (
            "/nowhere/beads.npz",
            RunError,
            None,
            "was trained on /nowhere/beads.npz, which is not there any more. Say where the file lies now with --data "
            "FILE (in Python file=…).",
        ),
        (
            "bloodmnist",
            ConfigError,
            finished / "cells.npz",
            "was trained on bloodmnist, not on a file of yours; use --root FOLDER (in Python root=…) for the folder of "
            "its file.",
        ),
    ):
        (run.folder / "config.json").write_text(json.dumps(said | {"dataset": name}))
        found = refusal(lambda file=file: Run(run.folder).load_data(file=file), kind)
        assert found == f"The run in {run.folder} {expected}"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _empty])
def test_damaged_weights_are_told(run: Run, damage: Callable[[Path], None]) -> None:
    damage(run.folder / "model.safetensors")
    with pytest.raises(RunError, match=r"model.safetensors cannot be read as weights .*; train the run again"):
        run.load_model()


def test_weights_of_another_model_are_told(run: Run) -> None:
    other = build(model_config("qvit_4q1h", num_classes=4, img_size=12, depth=2))
    save_weights(run.weights_path, other.state_dict())
    with pytest.raises(RunError, match=r"model.safetensors does not fit the model in config.json"):
        run.load_model()


@pytest.mark.parametrize("damage", [_cut, _empty])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_damaged_json_is_told(run: Run, name: str, damage: Callable[[Path], None]) -> None:
    damage(run.folder / name)
    with pytest.raises(RunError, match=rf"{name} is damaged .*; train the run again"):
        evaluate_run(Run(run.folder))


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"architectures": ["BertModel"]}'])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_json_of_another_kind_is_told(run: Run, name: str, content: str) -> None:
    (run.folder / name).write_text(content)
    with pytest.raises(RunError, match=name):
        evaluate_run(Run(run.folder))


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
def test_damaged_lines_are_told(run: Run, name: str) -> None:
    _cut(run.folder / name)
    with pytest.raises(RunError, match=f"{name} cannot be read"):
        _ = run.history if name == "metrics.jsonl" else run.seconds


def test_damaged_predictions_are_told(run: Run) -> None:
    [path] = run.folder.glob("*_test_*.csv")
    _cut(path)
    with pytest.raises(QvitError, match=re.escape(path.name)):
        run.predictions("test")


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("données été.npz", "donnest"),
        ("___.npz", "data"),
        ("/a_b/a_b-c.d.npz", "abcd"),
        ("細胞.npz", "data"),
        ("a@b[c]7.npz", "abc7"),
        ("pathmnist", "pathmnist"),
    ],
)
def test_names_of_prediction_files_are_letters_and_digits(name: str, flag: str) -> None:
    assert flag_of(name) == flag


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
@pytest.mark.parametrize("line", ['{"a": 1}', "[1]", "7"])
def test_lines_of_another_kind_are_told(run: Run, name: str, line: str) -> None:
    (run.folder / name).write_text(line + "\n")
    with pytest.raises(RunError, match=rf"{name} cannot be read \(line 1 holds (no epoch|what it should not)"):
        _ = run.history if name == "metrics.jsonl" else run.seconds
