"""Commands that go well: what they print, where, and that their figures are those of the run."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import qvit as package
from cli.borders import COMMANDS
from qvit.cli.options import gather
from qvit.cli.study import _duration
from qvit.data.registry import DATASETS
from qvit.models import model_config
from qvit.models.cost import cost_of, si
from qvit.models.zoo import KINDS
from qvit.report.page import Written
from qvit.study import store
from qvit.study.driver import StudyProgress
from qvit.study.reading import shipped_studies
from qvit.study.runner import Summary
from qvit.study.store import Store
from qvit.training.config import TrainConfig
from qvit.training.options import resolve

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]
Tree = Callable[[Path], dict[str, bytes | None]]
OFFICIAL = Path(os.environ.get("QVIT_DATA", "")) / "retinamnist.npz"


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


def test_models(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.models.zoo.list_models", lambda: ["vit_4q1h", "qvit_4q2h"])
    told = qvit("models")
    assert (told.code, told.err) == (0, "")
    assert "Models for 5 classes of 3 × 28 × 28 images" in told.out
    sizes = f"Othersizesworktoo:{{{','.join(KINDS)}}}_{{qubits}}q{{heads}}h."
    assert sizes in re.sub(r"\s", "", told.out)
    heads, _, row = [re.split(" *[│┃] *", line)[1:-1] for line in told.out.splitlines() if line[0] in "│┃"]
    assert heads == ["name", "width", "heads", "MLP", "parameters", "in Q, K, V"]
    assert row == ["qvit_4q2h", "8", "2", "8", "1117", "24"]


def test_models_as_json(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts and computes nothing: a figure of forty models' simulation took eighteen seconds on a slow machine."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("qvit.models.cost.cost_of", refuse)
    monkeypatch.setattr("qvit.models.vit.ViT.forward", refuse)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # two seconds to import; drawing on the meta device does
    monkeypatch.setattr("qvit.models.zoo.list_models", lambda: ["vit_4q1h", "qvit_4q2h"])
    rows = {row["name"]: row for row in json.loads(qvit("models", "--json", "--channels", 1, "--classes", 2).out)}
    assert list(rows) == ["vit_4q1h", "qvit_4q2h"]
    keys = {"name", "projection", "width", "heads", "mlp", "parameters", "parameters_in_projections"}
    assert all(row.keys() == keys for row in rows.values())
    assert (rows["qvit_4q2h"]["parameters"], rows["qvit_4q2h"]["parameters_in_projections"]) == (834, 24)


@pytest.mark.long
def test_cost_of_a_model(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    once = cache(cost_of)
    monkeypatch.setattr("qvit.models.cost.cost_of", once)
    cost = once(model_config("qvit_4q2h", in_chans=1, num_classes=2))
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
        assert json.loads(told.out) == results[0][split]
    table = qvit("evaluate", folders[0]).out
    assert "too few images of a class" in " ".join(table.split())
    for measure in ("auc", "acc", "kappa", "ece"):
        assert re.search(rf"{measure} +│ +{results[0]['test'][measure]:.4f}", table)
    assert len(re.findall(r"│ +– ", table)) == 2, "in the place of two intervals"

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


def test_precedence_of_options(tmp_path: Path) -> None:
    """A file, then --set, then the named ones; a later one wins."""
    options = tmp_path / "options.yaml"
    options.write_text("model: vit_4q1h\nepochs: 9\nseed: 9\nlr: 0.9\nbatch_size: 9\n")
    assert gather(options, ["seed=5", "epochs=5", "lr=0.5", "lr=0.25"], {"epochs": 1, "model": None}) == {
        "model": "vit_4q1h",
        "epochs": 1,
        "seed": 5,
        "lr": 0.25,
        "batch_size": 9,
    }


LITERALS = [
    (option, value)
    for option, kind in get_type_hints(TrainConfig).items()
    if get_origin(kind) is Literal
    for value in get_args(kind)
]


@pytest.mark.parametrize("source", ["--set", "--config"])
def test_every_choice_works_as_typed(tmp_path: Path, source: str) -> None:
    """YAML reads words such as on, off, yes and null as other things than words."""
    for option, value in LITERALS:
        (tmp_path / "options.yaml").write_text(f"{option}: {value}\n")
        given = (None, [f"{option}={value}"]) if source == "--set" else (tmp_path / "options.yaml", None)
        config = resolve(gather(*given, {"dataset": "phantom"}))
        assert getattr(config.train, option) == value


def test_choices_are_found() -> None:
    """Or the test above would test nothing."""
    assert {value for option, value in LITERALS if option == "tta"} == {"auto", "always", "never"}
    assert {option for option, _ in LITERALS} == {"schedule", "loss", "class_weights", "augment", "tta"}


@pytest.mark.parametrize("content", ["", "\n", "# nothing yet\n", "---\n"])
def test_an_empty_options_file_means_no_options(tmp_path: Path, content: str) -> None:
    (tmp_path / "options.yaml").write_text(content)
    assert gather(tmp_path / "options.yaml", None, {"seed": None, "size": 12}) == {"size": 12}


@pytest.mark.long
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


@pytest.mark.long
def test_compare_names_an_own_file_by_its_plain_path(
    train: Qvit, qvit: Qvit, run: Path, npz: Path, tmp_path: Path
) -> None:
    assert train(tmp_path / "sized", size=12).code == 0
    read = json.loads(qvit("compare", run, tmp_path / "sized", "--json").out)
    assert {row["dataset"] for key in ("runs", "means") for row in read[key]} == {str(npz)}


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


# --- studies ---


@pytest.mark.long
def test_study_list(qvit: Qvit, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped_studies() == ["controls", "paper", "scaling", "smoke"]
    # To work out the runs of the large ones takes seconds.
    monkeypatch.setattr("qvit.study.reading.shipped_studies", lambda: ["smoke", str(study)])
    rows = json.loads(qvit("study", "list", "--json").out)
    assert rows == [
        {"name": "smoke", "title": "Smoke test of a study", "runs": 37},
        {"name": "mine", "title": "Mine [bold]", "runs": 8},
    ]
    monkeypatch.setattr("qvit.study.reading.shipped_studies", lambda: [str(study)])
    told = qvit("study", "list")
    assert (told.code, told.err) == (0, "")
    heads, *lines = [re.split(" *[│┃] *", line)[1:-1] for line in told.out.splitlines() if line[0] in "│┃"]
    assert heads == ["name", "what it asks", "runs"]
    assert lines == [["mine", "Mine [bold]", "8"]]


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
    monkeypatch.setattr("qvit.study.estimate._time", lambda *_: (0.01, 0.0001))
    told = qvit("study", "plan", study, "--workers", 2)
    assert told.code == 0
    assert "mine: Mine [bold]" in told.out
    for row in (r"small: vit_4q1h *│ scratch *│ *2 │", r"phantom: wild *│ scratch *│ *2 │"):
        assert re.search(row, told.out)
    assert re.search(r"^8 runs, .* of computing: about .* by 2 workers here, and \d+ MB of disk\.$", told.err, re.M)
    part = json.loads(qvit("study", "plan", study, "--dataset", "small", "--seeds", 1, "--json").out)
    assert (part["runs"], [row["dataset"] for row in part["rows"]]) == (2, ["small", "small"])


@pytest.mark.processes
@pytest.mark.slow("a study's workers are processes, and each imports torch anew")
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


def test_what_is_told_of_a_study(qvit: Qvit, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not done is no success, however it came to an end; and whoever waits says so."""

    def run_study(*_: Any, on_news: Any, on_wait: Callable[[str], None], **__: Any) -> Summary:
        on_wait("Waiting for it.")
        if on_news is not None:
            for finished, failed, left, news in ((0, 0, None, ""), (1, 0, 150, "one is done"), (1, 1, 9, "two failed")):
                on_news(StudyProgress(total=2, finished=finished, failed=failed, doing={}, left=left, news=news))
        return Summary(total=2, finished=1, done_now=1, failed={"wild": "not finite"}, seconds=75.0)

    monkeypatch.setattr("qvit.study.runner.run_study", run_study)
    monkeypatch.chdir(tmp_path)
    assert qvit("study", "run", study) == (
        1,
        "",
        "Waiting for it.\n"
        "[1/2] one is done, about 2 min left\n"
        "[2/2] two failed\n"
        "1 of 2 runs are done, 1 of them now, in 75 s. Report: qvit study report runs/study-mine\n"
        "Failed: wild: not finite\n",
    )
    told = qvit("study", "run", study, "--json")
    assert (told.code, told.err) == (1, "Waiting for it.\n")
    assert json.loads(told.out) == {
        "folder": "runs/study-mine",
        "total": 2,
        "finished": 1,
        "done_now": 1,
        "failed": {"wild": "not finite"},
        "seconds": 75.0,
    }


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.95, "10 s"),
        (99.4, "99 s"),
        (99.5, "2 min"),
        (5969, "99 min"),
        (5970, "1.7 h"),
        (36_000, "10.0 h"),
    ],
)
def test_times_as_people_say_them(seconds: float, said: str) -> None:
    assert _duration(seconds) == said


def test_status_of_a_study(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was planned twice is one."""
    made = [("a", "finished"), ("b", "waiting"), ("b", "waiting"), ("c", "failed"), ("d", "running"), ("e", "waiting")]
    jobs = [SimpleNamespace(identity=name, name=f"run {name}", status=how, error=f"{name} broke") for name, how in made]
    held = SimpleNamespace(jobs=lambda: jobs, get={"title": "Mine [bold]"}.get)
    monkeypatch.setattr("qvit.study.store.Store.read", lambda *_, **__: nullcontext(held))
    told = qvit("study", "status", tmp_path)
    assert (told.code, told.err) == (0, "Failed: run c: c broke\n")
    assert told.out.startswith("Mine [bold]")
    heads, row = [re.split(" *[│┃] *", line)[1:-1] for line in told.out.splitlines() if line[0] in "│┃"]
    assert dict(zip(heads, row, strict=True)) == {"finished": "1", "running": "1", "waiting": "2", "failed": "1"}
    assert json.loads(qvit("study", "status", tmp_path, "--json").out) == {
        "title": "Mine [bold]",
        "finished": 1,
        "running": 1,
        "waiting": 2,
        "failed": 1,
        "errors": {"run c": "c broke"},
    }


def test_report_of_a_study(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_report(_folder: Path, out: Path | None, *, on_news: Any, **_: Any) -> Written:
        if on_news is not None:
            on_news("Comparing 2 arms …")
        return Written((out or Path("report")) / "report.html", Path("report.md"), ["Yes.", "By a little."])

    monkeypatch.setattr("qvit.report.page.write_report", write_report)
    told = qvit("study", "report", tmp_path)
    assert told == (0, "Yes.\nBy a little.\n", "Comparing 2 arms …\nReport: report/report.html\n")
    told = qvit("study", "report", tmp_path, "--out", "there", "--json")
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out) == {"report": "there/report.html", "answer": ["Yes.", "By a little."]}


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


@pytest.mark.long
def test_demo(qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "demo"
    for again in (False, True):  # a second one replaces the first
        if again:
            monkeypatch.setattr("qvit.report.pictures.draw_comparison", lambda *_, **__: None)  # takes two seconds
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


@pytest.mark.long
def test_the_demo_declares_the_phantom_synthetic(
    qvit: Qvit, small_phantom: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvit.report.pictures.draw_comparison", lambda *_, **__: None)
    told = qvit("demo", "--epochs", 1, "--out", tmp_path / "demo")
    assert told.code == 0
    assert "phantom (synthetic images): a QViT and its classical twin" in told.out
