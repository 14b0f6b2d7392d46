"""Run folders whose files were damaged, exchanged or made up: a refusal in one line, and at once."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from data.picture_folders import class_folder
from qvit.errors import ConfigError, MetricError, QvitError, RunError
from qvit.report.compare import group_rows, read_rows
from qvit.report.pictures import draw_comparison
from qvit.training.checkpoint import load_state, load_weights
from qvit.training.described import weights_digest
from qvit.training.evaluated import evaluate_run
from qvit.training.folder import Run
from qvit.training.options import RunConfig
from qvit.training.run import train_run

MakeConfig = Callable[..., RunConfig]
DEEP = '{"a": ' * 3000 + "1" + "}" * 3000


def change(run: Run, name: str, key: str, value: Any) -> None:
    """Set a value of a JSON file, of a line file in its first line; `key` is dotted."""
    first, *rest = (
        (run.folder / name).read_text().split("\n") if name.endswith("l") else [(run.folder / name).read_text()]
    )
    said = inner = json.loads(first)
    *way, last = key.split(".")
    for step in way:
        inner = inner[step]
    inner[last] = value
    (run.folder / name).write_text("\n".join([json.dumps(said), *rest]))


def read(run: Run, name: str) -> Any:
    return {
        "config.json": lambda: run.config,
        "result.json": lambda: run.result,
        "metrics.jsonl": lambda: run.history,
        "timings.jsonl": lambda: run.seconds,
    }[name]()


FILES = ("config.json", "result.json", "metrics.jsonl", "timings.jsonl")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", DEEP),
        ("metrics.jsonl", DEEP),
        ("result.json", "[" * 100_000),
        ("timings.jsonl", "9" * 5000),
        ("metrics.jsonl", '{"epoch": ' + "9" * 5000 + "}"),
        ("config.json", '"\\ud800"'),
        ("timings.jsonl", "\x00"),
        ("result.json", "\x00"),
    ],
    ids=lambda value: value[:20],
)
def test_json_out_of_bounds(run: Run, name: str, content: str) -> None:
    (run.folder / name).write_text(content)
    with pytest.raises(RunError, match=re.escape(name)) as caught:
        read(run, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file(run: Run, name: str) -> None:
    (run.folder / name).unlink()
    os.mkfifo(run.folder / name)
    with pytest.raises(RunError, match="a pipe or a device"):
        read(run, name)


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("config.json", "size", "28", "size: Input should be a valid integer"),
        ("config.json", "size", 10**30, "damaged"),
        ("config.json", "dataset", 3, "dataset: Input should be a valid string"),
        ("config.json", "dataset", "a\nb", "line breaks"),
        ("config.json", "dataset", "a\x00.npz", "control characters"),
        ("config.json", "task", "regression", "task: Input should be 'binary'"),
        ("config.json", "seed", -1, "seed"),
        ("config.json", "model", "../../x y", "model: String should match"),
        ("config.json", "origin", {"weights": "1"}, "holds no origin.found_at"),
        ("config.json", "guide", [1], "guide"),
        ("config.json", "folds", 1, "folds: Input should be greater than or equal to 2"),
        ("config.json", "folds", 5, "is damaged (it tells of fold None of 5); train the run again."),
        ("config.json", "fold", 2, "is damaged (it tells of fold 2 of None); train the run again."),
        ("config.json", "train", [], "train: Input should be a valid dictionary"),
        ("config.json", "train.epochs", "many", "Option epochs='many'"),
        ("config.json", "train.epoch", 3, "no option of training 'epoch'"),
        ("config.json", "model_config", None, "model_config: Input should be a valid dictionary"),
        ("config.json", "model_config.depth", 1_000_000, "depth must be at most 256, got 1,000,000"),
        ("config.json", "model_config.depth", [2], "depth"),
        ("config.json", "model_config.projection.kind", [], "projection"),
        ("config.json", "model_config.projection.kind", "x\ny", "projection"),
        ("config.json", "model_config.img_size", 10**18, "img_size must be at most 4,096"),
        ("config.json", "model_config.arch", "timm/hf-hub:someone/something", "no option 'patch_size'"),
        ("result.json", "parameters", "498", "parameters"),
        ("result.json", "best_epoch", 0, "best_epoch"),
        ("result.json", "tta", "d5", "tta"),
        ("result.json", "test", 0.5, "test: Input should be a valid dictionary"),
        ("result.json", "test.auc", float("nan"), "test.auc: Input should be"),
        ("result.json", "test.auc_interval", [0.5], "test.auc_interval"),
        ("result.json", "val.auc_interval", ["a", "b"], "val.auc_interval"),
        ("metrics.jsonl", "val_auc", None, "line 1 holds what it should not at val_auc"),
        ("metrics.jsonl", "val_loss", float("inf"), "val_loss: Input should be a finite number"),
        ("metrics.jsonl", "epoch", 2, "line 1 is of epoch 2"),
        ("timings.jsonl", "seconds", -1.0, "seconds"),
        ("timings.jsonl", "seconds", "1", "seconds: Input should be a valid number"),
    ],
)
def test_values_that_should_not_be(run: Run, name: str, key: str, value: Any, told: str) -> None:
    change(run, name, key, value)
    with pytest.raises(RunError, match=re.escape(told)) as caught:
        read(run, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inner", ["", "origin"])
def test_what_a_later_version_adds_to_a_configuration_is_kept(run: Run, inner: str) -> None:
    if inner:
        change(run, "config.json", inner, {"weights": "1", "found_at": "a"})
    change(run, "config.json", f"{inner}.added".lstrip("."), [1, "x"])
    assert (run.config[inner] if inner else run.config)["added"] == [1, "x"]


def test_options_left_out_are_those_of_old(run: Run) -> None:
    """As by a version that did not have them yet."""
    said = json.loads((run.folder / "config.json").read_text())
    del said["train"]["threads"], said["train"]["keep"], said["model_config"]["dropout"], said["origin"], said["guide"]
    (run.folder / "config.json").write_text(json.dumps(said))
    assert evaluate_run(run) == run.result.test
    assert len(read_rows([run])) == 1


def test_what_a_later_version_adds_is_let_through(run: Run) -> None:
    names = ("config.json", "result.json", "metrics.jsonl", "timings.jsonl")
    before = {name: read(Run(run.folder), name) for name in names[1:3]}
    for name in names:
        change(run, name, "weather", {"sunny": [True]})
    change(run, "result.json", "test.weather", 1)
    assert {name: read(Run(run.folder), name) for name in names[1:3]} == before
    assert read(Run(run.folder), "config.json")["weather"] == {"sunny": [True]}
    assert run.seconds > 0


@pytest.mark.parametrize(
    "options", [{"depth": 200}, {"img_size": 4080, "patch_size": 255}, {"projection": {"kind": "linear"}}]
)
def test_a_claim_of_many_weights_takes_no_memory(run: Run, options: dict[str, Any]) -> None:
    """The architecture says one thing and the weights another."""
    for key, value in options.items():
        change(run, "config.json", f"model_config.{key}", value)
    with pytest.raises(RunError, match=r"does not fit the model in config\.json"):
        run.load_model()


def test_weights_of_another_type_are_told(run: Run) -> None:
    weights = safetensors.torch.load_file(run.weights_path)
    safetensors.torch.save_file({name: value.double() for name, value in weights.items()}, run.weights_path)
    with pytest.raises(RunError, match=r"does not fit the model in config\.json"):
        run.load_model()


def test_predictions_of_another_model(run: Run) -> None:
    [path] = run.folder.glob("*_test_*.csv")
    path.write_text("0,0.5,0.5\n")
    with pytest.raises(RunError, match="holds 2 scores per image, and this run's model tells 4 classes apart"):
        run.predictions("test")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MetricError, match="cannot be read: a pipe or a device"):
        run.predictions("test")


def test_a_picture_of_damaged_runs(run: Run, finished: Path, tmp_path: Path) -> None:
    [path] = run.folder.glob("*_test_*.csv")
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    with pytest.raises(RunError, match="has predictions of 1 test images, not of 23"):
        draw_comparison([run], read_rows([run]), tmp_path / "a.png")
    change(run, "result.json", "best_epoch", 9)
    again = Run(run.folder)
    with pytest.raises(RunError, match="tells of 2 epochs, of which number 9 is the best"):
        draw_comparison([again], read_rows([again]), tmp_path / "a.png")


def test_a_run_that_says_it_started_from_itself(run: Run) -> None:
    change(run, "config.json", "origin", {"weights": weights_digest(run), "found_at": str(run.folder)})
    change(run, "config.json", "guide", {"teacher": "someone", "alpha": [1]})
    [row] = read_rows([Run(run.folder)])
    assert row.model == "qvit_4q1h (taught by a guide and labels, pre-trained on a guide)"


# --- a state to go on from ---


# --- data that lie elsewhere now ---


@pytest.fixture
def moved(finished: Path, tmp_path: Path) -> tuple[Run, Path]:
    """A run whose file of data has been moved, and where to."""
    folder, elsewhere = tmp_path / "moved", tmp_path / "elsewhere"
    shutil.copytree(finished, folder)
    elsewhere.mkdir()
    file = (folder / "cells.npz").rename(elsewhere / "cells.npz")  # beside the run it would be found
    run = Run(folder / "run")
    change(run, "config.json", "dataset", str(tmp_path / "gone" / "cells.npz"))
    return run, file


@pytest.mark.long
def test_data_that_were_moved(
    moved: tuple[Run, Path], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda digest: [])
    run, file = moved
    told = (
        r"was trained on .*gone.cells\.npz, which is not there any more\. Say where the file lies now with --data FILE"
    )
    with pytest.raises(RunError, match=told):
        evaluate_run(run)
    assert evaluate_run(run, file=file) == run.result.test
    assert run.load_data(file=str(file)).digest == run.config["data_digest"]
    monkeypatch.undo()
    draw_comparison(
        [run, Run(finished / "run")], read_rows([run, Run(finished / "run")]), tmp_path / "a.png", file=file
    )
    assert (tmp_path / "a.png").stat().st_size > 10_000
    other = tmp_path / "other.npz"
    with np.load(file) as arrays:
        np.savez(other, **{name: values[::-1] for name, values in arrays.items()})
    with pytest.raises(RunError, match=r"trained on other data: .* in .*other\.npz"):
        evaluate_run(run, file=other)
    with pytest.raises(QvitError, match="nowhere"):
        evaluate_run(run, file=tmp_path / "nowhere.npz")


def test_pictures_that_nobody_imported_are_not_the_run_s(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda digest: [])
    monkeypatch.setattr("qvit.data.importing.import_pictures", lambda *_, **__: pytest.fail("read"))
    change(run, "config.json", "dataset", "./lost/cells")
    class_folder(run.folder.parent / "cells", {"a": 5, "b": 5})
    with pytest.raises(RunError, match="not there any more"):
        Run(run.folder).load_data()


def test_a_place_that_may_not_be_looked_at_is_no_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda digest: [])
    # As another user's folder does, a name that is too long makes Python's paths raise.
    change(run, "config.json", "dataset", f"/{'a' * 300}/cells.npz")
    with pytest.raises(RunError, match="not there any more"):
        Run(run.folder).load_data()
    change(run, "config.json", "dataset", "/nowhere/cells.npz")
    (run.folder.parent / "cells.npz").symlink_to("/proc/self/mem")  # a file, of which nothing can be read
    with pytest.raises(RunError, match="not there any more"):
        Run(run.folder).load_data()


def test_nothing_that_nobody_saw_is_to_be_deleted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "check its kind, owner, permissions and disk, as it may be sound"
    state = tmp_path / "state.pt"
    os.mkfifo(state)
    with pytest.raises(RunError, match=f"a pipe or a device.*{advice}"):
        load_state(state)
    for name in ("model.safetensors", "metrics.jsonl", "config.json"):
        (run.folder / name).rename(tmp_path / name)
        (run.folder / name).mkdir()
    uses = (
        lambda: load_weights(run.weights_path),
        lambda: weights_digest(run),
        lambda: run.history,
        lambda: run.config,
    )
    for use in uses:
        with pytest.raises(RunError, match=f"cannot be read .*a folder.*{advice}"):
            use()

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    state.unlink()
    state.write_bytes(b"")
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(RunError, match=r"MemoryError.*close other programs and try again, as it may be sound"):
        load_state(state)


def test_runs_on_data_that_were_moved_are_compared(moved: tuple[Run, Path], finished: Path) -> None:
    change(moved[0], "config.json", "seed", 1)
    rows = read_rows([Run(finished / "run"), Run(moved[0].folder)])
    [group] = group_rows(rows)
    assert group.seeds == (1, 3)
    change(moved[0], "config.json", "data_digest", "0" * 32)  # a file of the same name
    assert len(group_rows(read_rows([Run(finished / "run"), Run(moved[0].folder)]))) == 2


def test_data_of_an_official_set_are_told_by_their_folder(run: Run, finished: Path) -> None:
    change(run, "config.json", "dataset", "bloodmnist")
    with pytest.raises(ConfigError, match=r"trained on bloodmnist, not on a file of yours; use --root FOLDER"):
        run.load_data(file=finished / "cells.npz")


@pytest.mark.usefixtures("nudged")
def test_a_run_goes_on_with_data_that_were_moved(config: MakeConfig, moved: tuple[Run, Path]) -> None:
    run, file = moved
    before, like = run.result, {"model": "qvit_4q1h", "seed": 3, "batch_size": None}
    again = train_run(config(file, **like), run.folder, resume=True)
    assert again.result == before
    assert again.dataset == str(file)
    with pytest.raises(RunError, match=r"another configuration \(seed: 3 → 1\)\. Choose another --out\.$"):
        train_run(config(file, **like | {"seed": 1}), run.folder, resume=True)
    replaced = train_run(config(file, **like | {"epochs": 1}), run.folder, overwrite=True)
    assert len(replaced.history) == 1


def test_names_that_are_no_utf8(config: MakeConfig, finished: Path, tmp_path: Path) -> None:
    settings = config(epochs=1)
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(RunError, match="bytes that are no UTF-8"):
        train_run(settings, strange)
    assert not strange.exists()
    shutil.copytree(finished / "run", strange)
    copy = Run(strange)
    assert evaluate_run(copy) == copy.result.test
    with pytest.raises(RunError, match=r"no UTF-8 in origin\.found_at: .* Rename that file or folder"):
        train_run(config(finished / "cells.npz", model="qvit_4q1h"), tmp_path / "next", origin=copy)
    assert not (tmp_path / "next").exists()


def test_a_run_that_could_not_be_read_back_is_not_begun(config: MakeConfig, finished: Path, tmp_path: Path) -> None:
    origin = Run(Path(shutil.copytree(finished / "run", tmp_path / "two\nlines")))
    with pytest.raises(RunError, match=r"can be read again, but it holds .* at origin\.found_at: .* line breaks"):
        train_run(config(finished / "cells.npz", model="qvit_4q1h"), tmp_path / "next", origin=origin)
    assert not (tmp_path / "next").exists()


def test_a_folder_of_too_long_a_name_cannot_be_resumed(config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"^Cannot use .*x as a run folder: File name too long\. Choose another with --out\.$"
    ):
        train_run(config(), tmp_path / ("x" * 300), resume=True)
