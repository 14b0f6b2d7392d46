"""Commands that go well: what they print, where, and that their figures are those of the run."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from typer.main import get_command

import qvit as package
from qvit.cli.app import app
from qvit.data.registry import DATASETS
from qvit.models import list_models, model_config
from qvit.models.cost import cost_of, si
from qvit.study import store
from qvit.study.runner import Summary
from qvit.study.store import Store
from qvit.training.loop import TrainConfig

Qvit = Callable[..., Any]
Tree = Callable[[Path], dict[str, bytes | None]]
OFFICIAL = Path(os.environ.get("QVIT_DATA", "")) / "retinamnist.npz"


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all commands and groups of the application, with the words that call them."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_all_that_is_written_as_it_is_written(qvit: Qvit, path: tuple[str, ...]) -> None:
    """Square brackets are markup to rich: `pip install 'qvit[ray]'` became `'qvit'`."""
    told = qvit(*path, "--help")
    assert (told.code, told.err) == (0, "")
    assert " ".join(["Usage: qvit", *path]) in told.out
    command = COMMANDS[path]
    shown = re.sub(r"\s", "", told.out)
    texts = [command.help, *(parameter.help for parameter in command.params if not parameter.hidden)]
    for text in (text for text in texts if text):
        assert re.sub(r"\s", "", text).rstrip(".") in shown
    for name, inner in getattr(command, "commands", {}).items():
        first = inner.help.partition("\n\n")[0]
        assert name + re.sub(r"\s", "", first).rstrip(".") in shown


def test_commands_are_found() -> None:
    """Or the test above would test nothing."""
    assert {(), ("data",), ("study", "run"), ("bench", "layer"), ("train",)} <= COMMANDS.keys()
    assert sum("[" in (parameter.help or "") for command in COMMANDS.values() for parameter in command.params)


@pytest.mark.parametrize("group", [path for path, command in COMMANDS.items() if hasattr(command, "commands")])
def test_a_group_alone_shows_its_help(qvit: Qvit, group: tuple[str, ...]) -> None:
    told = qvit(*group)
    assert (told.code, told.err) == (0, "")
    assert told.out == qvit(*group, "--help").out
    assert "Commands:" in told.out


def test_help_shows_the_defaults(qvit: Qvit) -> None:
    told = re.sub(r"\s+", " ", qvit("train", "--help").out)
    for default in ("qvit_4q2h", "0", "100", "28", "runs/DATASET-MODEL-sSEED"):
        assert f"[default: ({default})]" in told
    assert "[default: ($QVIT_DATA, else your cache folder)]" in told
    demo = re.sub(r"\s+", " ", qvit("demo", "--help").out)
    assert "[default: (runs/demo-DATASET)]" in demo
    assert re.search(r"--epochs <int> .* \[default: 20\]", demo), "that many a slow machine does in two minutes"
    assert "$QVIT_DATA" in demo


def test_version(qvit: Qvit) -> None:
    assert qvit("--version") == (0, f"qvit {package.__version__}\n", "")


# --- data and models ---


def test_data_list(qvit: Qvit) -> None:
    told = qvit("data", "list")
    assert told.code == 0
    assert all(name in told.out for name in DATASETS)
    rows = json.loads(qvit("data", "list", "--json").out)
    assert [row["name"] for row in rows] == list(DATASETS)


def test_data_info(qvit: Qvit) -> None:
    told = qvit("data", "info", "retinamnist")
    assert "ordinal" in told.out
    assert "1,080" in told.out or "1080" in told.out
    row = json.loads(qvit("data", "info", "retinamnist", "--json").out)
    info = DATASETS["retinamnist"]
    assert row["splits"] == dict(info.splits)
    assert row["md5"] == {str(size): md5 for size, md5 in info.md5.items()}
    assert row["files"]["64"] == info.url(64)
    assert json.loads(qvit("data", "info", "phantom", "--json").out)["synthetic"] is True


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


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="QVIT_DATA names no folder with the official files")
def test_data_verify_and_get_official(qvit: Qvit, tmp_path: Path) -> None:
    told = qvit("data", "verify", "retinamnist")
    assert (told.code, told.err) == (0, "")
    assert DATASETS["retinamnist"].md5[28] in told.out
    shutil.copyfile(OFFICIAL, tmp_path / OFFICIAL.name)
    assert str(tmp_path / OFFICIAL.name) in qvit("data", "get", "retinamnist", "--root", tmp_path).out
    assert "nothing to get" in qvit("data", "get", "phantom").out


def test_models(qvit: Qvit) -> None:
    told = qvit("models")
    assert (told.code, told.err) == (0, "")
    assert all(name in told.out for name in list_models())
    assert re.search(r"qvit_4q2h +│ +8 │ +2 │ +8 │ +1117 │ +24 │", told.out)
    rows = {row["name"]: row for row in json.loads(qvit("models", "--json", "--channels", 1, "--classes", 2).out)}
    assert list(rows) == list_models()
    keys = {"name", "projection", "width", "heads", "mlp", "parameters", "parameters_in_projections"}
    assert all(row.keys() == keys for row in rows.values())
    assert (rows["qvit_4q2h"]["parameters"], rows["qvit_4q2h"]["parameters_in_projections"]) == (834, 24)


def test_models_counts_and_computes_nothing(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of forty models' simulation took eighteen seconds on a slow machine."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("qvit.models.cost.cost_of", refuse)
    monkeypatch.setattr("qvit.models.vit.ViT.forward", refuse)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # two seconds to import; drawing on the meta device does
    assert qvit("models", "--json").code == 0


def test_cost_of_a_model(qvit: Qvit) -> None:
    cost = cost_of(model_config("qvit_4q2h", in_chans=1, num_classes=2))
    asked = ["models", "--cost", "qvit_4q2h", "--channels", 1, "--classes", 2]
    row = json.loads(qvit(*asked, "--json").out)
    assert row["name"] == "qvit_4q2h"
    assert {key: row[key] for key in asdict(cost)} == json.loads(json.dumps(asdict(cost)))
    table = qvit(*asked).out
    assert cost.hardware is not None
    for told, count in {
        "parameters": "834",
        "FLOPs without circuits": si(cost.classical_flops),
        "simulation by heisenberg (taken)": si(cost.simulation_flops_by_engine["heisenberg"]),
        "simulation by statevector": si(cost.simulation_flops_by_engine["statevector"]),
        "circuits to run": str(cost.hardware.circuits),
        "depth of the deepest": str(cost.hardware.depth),
    }.items():
        assert re.search(rf"│ {re.escape(told)} +│ +{count} │", table), told
    network = json.loads(qvit("models", "--cost", "vit_4q1h", "--json").out)
    assert (network["hardware"], network["simulation_flops"]) == (None, 0)
    assert "circuits to run" not in qvit("models", "--cost", "vit_4q1h").out


# --- train, evaluate, compare ---


def test_train_evaluate_compare(qvit: Qvit, train: Qvit, tmp_path: Path) -> None:
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
        assert json.loads(told.out) == results[0][split]
    table = qvit("evaluate", folders[0]).out
    assert "too few images of a class" in " ".join(table.split())
    for measure in ("auc", "acc", "kappa", "ece"):
        assert re.search(rf"{measure} +│ +{results[0]['test'][measure]:.4f}", table)

    [file] = {json.loads((folder / "config.json").read_text())["dataset"] for folder in folders}
    moved = Path(file).rename(tmp_path / "moved.npz")
    told = qvit("evaluate", folders[0], "--data", moved, "--json")
    assert json.loads(told.out) == results[0]["test"]

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


def test_precedence_of_options(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    """A file, then --set, then the named ones; a later one wins."""
    options = tmp_path / "options.yaml"
    options.write_text(f"dataset: {npz}\nmodel: vit_4q1h\nepochs: 9\nseed: 9\nlr: 0.9\nbatch_size: 9\n")
    told = qvit(
        "train", "--config", options, "--set", "seed=5", "--set", "epochs=5", "--set", "lr=0.5", "--set", "lr=0.25",
        "--epochs", 1, "--out", tmp_path / "run",
    )  # fmt: skip
    assert told.code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["dataset"], config["model"]) == (str(npz), "vit_4q1h")
    assert (config["seed"], config["train"]["epochs"]) == (5, 1)
    assert (config["train"]["lr"], config["train"]["batch_size"]) == (0.25, 9)


LITERALS = [
    (option, value)
    for option, kind in get_type_hints(TrainConfig).items()
    if get_origin(kind) is Literal
    for value in get_args(kind)
]


@pytest.mark.parametrize("source", ["--set", "--config"])
@pytest.mark.parametrize(("option", "value"), LITERALS)
def test_every_choice_works_as_typed(
    train: Qvit, npz: Path, arrays: dict[str, np.ndarray], tmp_path: Path, source: str, option: str, value: str
) -> None:
    """YAML reads words such as on, off, yes and null as other things than words."""
    more = ["--task", "ordinal"] if value == "emd" else []
    if value == "bce":  # several labels an image
        eye = {key: np.eye(3, dtype=np.uint8)[labels[:, 0]] for key, labels in arrays.items() if "labels" in key}
        eye["train_labels"][:4] = 1
        np.savez(npz, **(arrays | eye))
    (tmp_path / "options.yaml").write_text(f"{option}: {value}\n")
    given = ["--set", f"{option}={value}"] if source == "--set" else ["--config", tmp_path / "options.yaml"]
    told = train(tmp_path / "run", *given, *more)
    assert told.code == 0, told.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"][option] == value


def test_choices_are_found() -> None:
    """Or the test above would test nothing."""
    assert {value for option, value in LITERALS if option == "tta"} == {"auto", "always", "never"}
    assert {option for option, _ in LITERALS} == {"schedule", "loss", "class_weights", "augment", "tta"}


@pytest.mark.parametrize("content", ["", "\n", "# nothing yet\n", "---\n"])
def test_an_empty_options_file_means_no_options(train: Qvit, tmp_path: Path, content: str) -> None:
    (tmp_path / "options.yaml").write_text(content)
    assert train(tmp_path / "without").code == 0
    told = train(tmp_path / "with", "--config", tmp_path / "options.yaml")
    assert told.code == 0, told.err
    assert (tmp_path / "with" / "config.json").read_bytes() == (tmp_path / "without" / "config.json").read_bytes()


def test_data_is_a_path_even_with_the_name_of_a_dataset(
    qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    npz.rename(tmp_path / "phantom")
    told = qvit("train", "--data", "phantom", "--model", "vit_4q1h", "--epochs", 1, "--out", "run", "--json")
    assert told.code == 0, told.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["dataset"] == str(tmp_path / "phantom")
    rows = json.loads(qvit("compare", "run", "--json").out)["runs"]
    assert [row["dataset"] for row in rows] == [str(tmp_path / "phantom")]


def test_compare_names_an_own_file_by_its_plain_path(train: Qvit, qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run").code == 0
    assert train(tmp_path / "sized", size=12).code == 0
    read = json.loads(qvit("compare", tmp_path / "run", tmp_path / "sized", "--json").out)
    assert {row["dataset"] for key in ("runs", "means") for row in read[key]} == {str(npz)}


def test_flags_reach_the_run(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    arguments = ["--task", "ordinal", "--size", 12, "--seed", 3, "--model", "cosine_4q1h", "--epochs", 1]
    assert qvit("train", "--data", npz, *arguments, "--out", tmp_path / "run").code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    found = [config[key] for key in ("dataset", "task", "size", "seed", "model")]
    assert found == [str(npz), "ordinal", 12, 3, "cosine_4q1h"]


def test_the_default_folder_names_the_run(
    qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert qvit("train", npz.name, "--model", "vit_4q1h", "--epochs", 1, "--seed", 2).code == 0
    assert (tmp_path / "runs" / "small-vit_4q1h-s2" / "result.json").exists()


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
        told = qvit("train", tmp_path / "lacking.npz", "--epochs", 1, "--json", "--out", tmp_path / "run")
    assert told.code == 0
    json.loads(told.out)
    assert told.err.startswith("Warning: ")
    assert all(line.startswith("Warning: ") for line in told.err.splitlines())
    assert ".py:" not in told.err


@pytest.mark.parametrize("name", ["[bold]x", "a[b]", ":smile:"])
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


# --- studies ---


def test_study_list(qvit: Qvit) -> None:
    told = qvit("study", "list")
    assert (told.code, told.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(qvit("study", "list", "--json").out)}
    assert list(rows) == ["controls", "paper", "scaling", "smoke"]
    assert rows["smoke"] == {"name": "smoke", "title": "Smoke test of a study", "runs": 37}
    for row in rows.values():
        assert row["title"] in told.out
        assert re.search(rf"{row['name']} .* {row['runs']} ", told.out)


@pytest.fixture
def study(npz: Path, tmp_path: Path) -> Path:
    """Two models, one of which cannot learn, and a dataset too many."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"title: Mine [bold]\ndatasets: [{npz.name}, phantom]\nseeds: 2\noptions: {{epochs: 1}}\n"
        "models: [vit_4q1h, {name: vit_4q1h, label: wild, options: {lr: 1.0e+30}}]\n"
    )
    return path


def test_study_plan(qvit: Qvit, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.study.plan._time", lambda *_: (0.01, 0.0001))
    told = qvit("study", "plan", study, "--workers", 2)
    assert told.code == 0
    assert "mine: Mine [bold]" in told.out
    for row in (r"small: vit_4q1h *│ scratch *│ *2 │", r"phantom: wild *│ scratch *│ *2 │"):
        assert re.search(row, told.out)
    assert re.search(r"^8 runs, .* of computing: about .* by 2 workers here, and \d+ MB of disk\.$", told.err, re.M)
    part = json.loads(qvit("study", "plan", study, "--dataset", "small", "--seeds", 1, "--json").out)
    assert (part["runs"], [row["dataset"] for row in part["rows"]]) == (2, ["small", "small"])


def test_study_run_status_report(qvit: Qvit, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["study", "run", study, "--dataset", "small", "--seeds", 1, "--out", out, "--workers", 1]
    told = qvit(*command)
    assert told.code == 1, "one of two has failed"
    assert told.out == ""
    assert re.search(r"^\[\d/2\] small vit_4q1h scratch seed 0: test AUC 0\.\d{3}, ACC 0\.\d{3}", told.err, re.M)
    assert "1 of 2 runs are done, 1 of them now" in told.err
    assert f"Report: qvit study report {out}" in told.err
    assert re.search(r"^Failed: small wild scratch seed 0: .+", told.err, re.M)

    told = qvit("study", "status", out)
    assert told.code == 0
    assert "Mine [bold]" in told.out
    assert "Failed: small wild scratch seed 0: " in told.err
    read = json.loads(qvit("study", "status", out, "--json").out)
    assert list(read["errors"]) == ["small wild scratch seed 0"]
    assert {key: read[key] for key in ("title", "finished", "running", "waiting", "failed")} == {
        "title": "Mine [bold]",
        "finished": 1,
        "running": 0,
        "waiting": 0,
        "failed": 1,
    }

    told = qvit("study", "report", out)
    assert told.code == 0
    assert f"Report: {out / 'report' / 'report.html'}" in told.err
    assert "Mine [bold]" in (out / "report" / "report.html").read_text()
    read = json.loads(qvit("study", "report", out, "--out", tmp_path / "there", "--json").out)
    assert read == {"report": str(tmp_path / "there" / "report.html"), "answer": []}

    [run] = (out / "runs").glob("*/result.json")
    before = run.stat().st_mtime_ns
    good = ["study", "run", tmp_path / "good.yaml", "--out", out, "--json"]
    (tmp_path / "good.yaml").write_text(study.read_text().replace(", phantom]", "]").replace("seeds: 2", "seeds: 1"))
    (tmp_path / "good.yaml").write_text((tmp_path / "good.yaml").read_text().replace(", {name", "] #"))
    told = qvit(*good)
    assert (told.code, told.err) == (0, "")
    read = json.loads(told.out)
    assert (read["total"], read["finished"], read["done_now"], read["failed"]) == (1, 1, 0, {})
    assert run.stat().st_mtime_ns == before


def test_a_study_that_is_not_done_is_no_success(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it came to an end; and whoever waits says so."""

    def run_study(*_: Any, on_wait: Callable[[str], None], **__: Any) -> Summary:
        on_wait("Waiting for it.")
        return Summary(total=3, finished=2, done_now=2, failed={}, seconds=1.0)

    monkeypatch.setattr("qvit.study.runner.run_study", run_study)
    told = qvit("study", "run", "smoke", "--json")
    assert (told.code, told.err) == (1, "Waiting for it.\n")
    assert json.loads(told.out)["finished"] == 2


def test_waiting_for_a_busy_study_is_told(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path):
        pass
    real = store.patiently

    def late(path: Path, action: Callable[[], Any], on_wait: Callable[[str], None]) -> Any:
        on_wait("Waiting for it.")
        return real(path, action, on_wait)

    monkeypatch.setattr(store, "patiently", late)
    told = qvit("study", "status", tmp_path)
    assert (told.code, "Waiting for it." in told.err) == (0, True)
    assert tmp_path.name in " ".join(told.out.split()), "it has no title yet"
    for how in ([], ["--json"]):  # also to whoever asks for nothing but JSON on stdout
        assert "Waiting for it." in qvit("study", "report", tmp_path, *how).err


# --- demo ---


def test_demo(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # a second one replaces the first
        told = qvit("demo", npz, "--epochs", 1, "--out", out)
        assert told.code == 0
        assert "qvit_4q2h" in told.out
        assert re.search(r"│ vit_4q2h", told.out)
        assert sorted(path.name for path in out.iterdir()) == ["demo.png", "qvit_4q2h", "vit_4q2h"]
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    for model in ("qvit_4q2h", "vit_4q2h"):
        result = json.loads((out / model / "result.json").read_text())
        assert f" {result['test']['auc']:.3f} " in told.out
        assert f"{result['parameters']:,}" in told.out
        assert len((out / model / "metrics.jsonl").read_text().splitlines()) == 1, "as many epochs as asked for"
    assert "synthetic" not in told.out


def test_the_demo_declares_the_phantom_synthetic(qvit: Qvit, tmp_path: Path) -> None:
    told = qvit("demo", "--epochs", 1, "--out", tmp_path / "demo")
    assert told.code == 0
    assert "synthetic images" in told.out
