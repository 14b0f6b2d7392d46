"""What each option of each command changes: a table that is compared with the application itself."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import qvit
import qvit.answers.external  # before anything is replaced, as modules keep what they import
import qvit.serve.app
from cli.borders import COMMANDS, Border, parameters, told
from qvit.answers.hub import Pushed
from qvit.bench.engines import EngineRow
from qvit.bench.gradients import GradientRow
from qvit.bench.layer import LayerRow
from qvit.bench.step import StepRow
from qvit.data.duplicates import Duplicates
from qvit.report.page import Written
from qvit.study.estimate import Planned, PlannedRuns
from qvit.study.runner import Summary
from qvit.study.store import Store
from qvit.training.evaluated import Apart, Evaluated
from qvit.training.measured import Measured, Predicted
from qvit.training.records import Figures

Change = tuple[str, dict[str, tuple[Any, Any]]]  # arguments, and what they change: as it is without them, and with

# Of the commands that train, with the dataset phantom given.
OF_RUNS: dict[str, Change] = {
    "seed": ("--seed 3", {"seed": (0, 3)}),
    "config": ("--config options.yaml", {"train.lr": ("lr", 0.25)}),
    "assign": ("--set lr=0.5 --set batch_size=4", {"train.lr": ("lr", 0.5), "train.batch_size": (None, 4)}),
    "task": ("--task ordinal", {"task": (None, "ordinal")}),
    "size": ("--size 64", {"size": (28, 64)}),
    "label": ("--label sex", {"importing.label": (None, "sex")}),
    "group_by": ("--group-by patient", {"importing.group_by": (None, "patient")}),
}
# Of the commands that take own data.
OF_DATA: dict[str, Change] = {
    "size": ("--size 64", {"size": (28, 64)}),
    "root": ("--root files", {"root": (None, "files")}),
    "label": ("--label sex", {"importing.label": (None, "sex")}),
    "group_by": ("--group-by patient", {"importing.group_by": (None, "patient")}),
    "task": ("--task ordinal", {"task": (None, "ordinal")}),
    "assign": ("--set split_seed=3", {"importing.split_seed": (0, 3)}),
}
OF_FOLDERS: dict[str, Change] = {
    "root": ("--root files", {"root": (None, "files")}),
    "resume": ("--resume", {"resume": (False, True)}),
    "offline": ("--offline", {"download": (True, False)}),
}
OF_BENCHMARKS: dict[str, Change] = {
    "ansatz": ("--ansatz pyramid", {"ansatz": ("ry_ring", "pyramid")}),
    "json": ("--json", {"json": (False, True)}),
}


def runs(prefix: str, rate: float) -> dict[str, Change]:
    """Return the rows of a command that trains: where its configuration of a run is, and the rate of its own."""

    def under(values: tuple[Any, Any]) -> tuple[Any, Any]:
        return (rate if values[0] == "lr" else values[0]), values[1]

    return {
        name: (f"phantom {words}", {f"{prefix}.{key}": under(values) for key, values in changes.items()})
        for name, (words, changes) in OF_RUNS.items()
    } | {
        "dataset": ("retinamnist", {f"{prefix}.dataset": ("phantom", "retinamnist")}),
        "data": ("--data own.npz", {f"{prefix}.dataset": ("phantom", "own.npz")}),
        **{name: (f"phantom {words}", changes) for name, (words, changes) in OF_FOLDERS.items()},
    }


def after(words: str, rows: dict[str, Change]) -> dict[str, Change]:
    return {name: (f"{words} {more}", changes) for name, (more, changes) in rows.items()}


def benchmark(plot: str, *without: str, threads: int) -> dict[str, Change]:
    """Return the rows that benchmarks have in common, but for those that this one lacks."""
    rows = OF_BENCHMARKS | {"threads": ("--threads 3", {"torch": (threads, 3)})}
    rows["out"] = ("--out there", {"made": (None, "there"), "path": (None, f"there/{plot}.png")})
    return {name: row for name, row in rows.items() if name not in without}


USAGE = "Usage: qvit [OPTIONS] COMMAND [ARGS]..."
# By command, what is given where a row gives nothing else, and the rows.
KNOBS: dict[str, tuple[str, dict[str, Change]]] = {
    "": ("", {"version": ("--version", {"title": (USAGE, f"qvit {qvit.__version__}")})}),
    "data": ("", {}),
    "data list": ("", {"json": ("--json", {"json": (False, True)})}),
    "data info": (
        "phantom",
        {
            "name": ("octmnist", {"title": ("name         phantom", "name         octmnist")}),
            "label": ("own.csv --label sex", {"importing.label": (None, "sex")}),
            "group_by": ("own.csv --group-by patient", {"importing.group_by": (None, "patient")}),
            "json": ("phantom --json", {"json": (False, True)}),
        },
    ),
    "data get": (
        "phantom",
        {
            "name": ("octmnist", {"name": ("phantom", "octmnist")}),
            "size": ("phantom --size 64", {"size": (28, 64)}),
            "root": ("phantom --root files", {"root": (None, "files")}),
        },
    ),
    "data import": (
        "pictures",
        after("pictures", OF_DATA)
        | {
            "path": ("some.csv", {"name": ("pictures", "some.csv")}),
            "out": ("pictures --out there/x.npz", {"made": (None, "there")}),
            "fit": ("pictures --fit pad", {"importing.fit": ("crop", "pad")}),
            "channels": ("pictures --channels grey", {"importing.channels": ("auto", "grey")}),
            "max_bad": ("pictures --max-bad 3", {"importing.max_bad": (0, 3)}),
        },
    ),
    "data export": (
        "phantom empty",
        after("phantom empty", OF_DATA)
        | {
            "name": ("octmnist empty", {"name": ("phantom", "octmnist")}),
            "folder": ("phantom there", {"made": (None, "there")}),
        },
    ),
    "data verify": (
        "small.npz",
        after("octmnist", OF_DATA)
        | {
            "name": ("octmnist", {"name": ("small.npz", "octmnist")}),
            "copies": ("small.npz --no-copies", {"qvit.data.duplicates.find_duplicates": (True, None)}),
            "json": ("small.npz --json", {"json": (False, True)}),
        },
    ),
    "data preview": (
        "phantom --out empty",
        after("phantom --out empty", OF_DATA)
        | {
            "name": ("octmnist --out empty", {"name": ("phantom", "octmnist")}),
            "out": ("phantom --out there", {"made": (None, "there")}),
        },
    ),
    "models": (
        "",
        {
            "channels": ("--channels 1", {"model.in_chans": (3, 1)}),
            "classes": ("--classes 2", {"model.num_classes": (5, 2)}),
            "size": ("--size 32", {"model.img_size": (28, 32)}),
            "cost": ("--cost vit_8q1h", {"model.dim": (4, 8)}),
            "json": ("--json", {"json": (False, True)}),
        },
    ),
    "circuit": (
        "ry_ring",
        {
            "ansatz": ("pyramid", {"ansatz.name": ("ry_ring", "pyramid")}),
            "qubits": ("ry_ring --qubits 3", {"n": (4, 3)}),
            "layers": ("ry_ring --layers 2", {"n_layers": (1, 2)}),
            "picture": ("ry_ring --picture p.svg", {"path": (None, "p.svg")}),
            "json": ("ry_ring --json", {"json": (False, True)}),
        },
    ),
    "train": (
        "phantom",
        runs("config", 0.005)
        | {
            "model": ("phantom --model vit_8q1h", {"config.model": ("qvit_4q2h", "vit_8q1h")}),
            "seeds": ("phantom --seeds 2", {"seeds": (None, 2)}),
            "folds": ("phantom --folds 4", {"folds": (None, 4)}),
            "memory": ("phantom --seeds 2 --memory 0.5", {"memory": (None, 0.5)}),
            "epochs": ("phantom --epochs 3", {"config.train.epochs": (100, 3)}),
            "out": ("phantom --out there", {"folder": ("runs/phantom-qvit_4q2h-s0", "there")}),
            "json": ("phantom --json", {"on_epoch": ("a callback", None)}),
        },
    ),
    "teacher": (
        "phantom",
        runs("config", 0.003)
        | {
            "arch": ("phantom --arch vit_8q1h", {"config.model": ("resnet18", "vit_8q1h")}),
            "pretrained": ("phantom --pretrained", {"config.model_options.pretrained": (None, "imagenet")}),
            "epochs": ("phantom --epochs 3", {"config.train.epochs": (40, 3)}),
            "out": ("phantom --out there", {"folder": ("runs/phantom-resnet18-s0", "there")}),
            "json": ("phantom --json", {"on_epoch": ("a callback", None)}),
        },
    ),
    "distill": (
        "--teacher t phantom",
        after("--teacher t", runs("config.student", 0.005))
        | after(
            "--teacher t phantom",
            {
                "teacher": ("--teacher u", {"folders": (["t"], ["t", "u"])}),
                "student": ("--student vit_8q1h", {"config.student.model": ("qvit_4q2h", "vit_8q1h")}),
                "seeds": ("--seeds 2", {"seeds": (None, 2)}),
                "memory": ("--seeds 2 --memory 0.5", {"memory": (None, 0.5)}),
                "epochs": ("--epochs 3", {"config.student.train.epochs": (100, 3)}),
                "kd_loss": ("--kd-loss mse", {"config.how.kd_loss": ("soft", "mse")}),
                "temperature": ("--temperature 3", {"config.how.temperature": (2.0, 3.0)}),
                "alpha": ("--joint --alpha 0.25", {"config.how.alpha": (1.0, 0.25)}),
                "joint": ("--joint", {"config.joint": (False, True), "config.how.alpha": (1.0, 0.5)}),
                "transfer_set": ("--transfer-set more.npz", {"config.transfer_set": (None, "more.npz")}),
                "mixtures": ("--mixtures 5", {"config.mixtures": (None, 5)}),
                "pretrain": ("--pretrain lr=0.5", {"config.pretrain.lr": (None, 0.5)}),
                "finetune": ("--finetune lr=0.5", {"config.finetune.lr": (None, 0.5)}),
                "scratch": ("--no-scratch", {"config.scratch": (True, False)}),
                "out": ("--out there", {"folder": ("runs/phantom-qvit_4q2h-kd-s0", "there")}),
                "cache": ("--cache kept", {"cache": (None, "kept")}),
                "json": ("--json", {"on_views": ("a callback", None)}),
            },
        ),
    ),
    "tune": (
        "phantom --menu menu.yaml",
        {
            name: (f"phantom --menu menu.yaml {words}", {f"asked.options.{key.rpartition('.')[2]}": values})
            for name, words, key, values in (
                ("config", "--config options.yaml", "lr", (None, 0.25)),
                ("assign", "--set lr=0.5", "lr", (None, 0.5)),
                ("task", "--task ordinal", "task", (None, "ordinal")),
                ("size", "--size 64", "size", (None, 64)),
                ("label", "--label sex", "label", (None, "sex")),
                ("group_by", "--group-by patient", "group_by", (None, "patient")),
            )
        }
        | {name: (f"phantom --menu menu.yaml {words}", changes) for name, (words, changes) in OF_FOLDERS.items()}
        | {
            "dataset": ("retinamnist --menu menu.yaml", {"asked.options.dataset": ("phantom", "retinamnist")}),
            "data": ("--data own.npz --menu menu.yaml", {"asked.options.dataset": ("phantom", "own.npz")}),
            "model": ("phantom --menu menu.yaml --model vit_4q1h", {"asked.model": (None, "vit_4q1h")}),
            "parameters": ("phantom --menu menu.yaml --parameters 500", {"asked.parameters": (None, 500)}),
            "minutes": ("phantom --menu menu.yaml --minutes 2", {"asked.minutes": (30.0, 2.0)}),
            "trials": ("phantom --menu menu.yaml --trials 9", {"asked.trials": (None, 9)}),
            "seed": ("phantom --menu menu.yaml --seed 3", {"asked.seed": (0, 3)}),
            "folds": ("phantom --menu menu.yaml --folds 4", {"asked.folds": (5, 4)}),
            "seeds": ("phantom --menu menu.yaml --seeds 5", {"asked.seeds": (1, 5)}),
            "menu": ("phantom --menu other-menu.yaml", {"asked.menu.baselines": ((), ("vit_8q1h",))}),
            "repeat": ("--repeat tune.json", {"asked.repeats.spent": (None, 1.5), "asked.seed": (0, 7)}),
            "workers": ("phantom --menu menu.yaml --workers 3", {"workers": (None, 3)}),
            "memory": ("phantom --menu menu.yaml --memory 0.5", {"memory": (1.0, 0.5)}),
            "out": ("phantom --menu menu.yaml --out there", {"folder": ("runs/tune-phantom-s0", "there")}),
            "json": ("phantom --menu menu.yaml --json", {"on_news": ("a callback", None)}),
        },
    ),
    "recipes": (
        "phantom",
        {
            "dataset": ("octmnist", {"model.in_chans": (3, 1)}),
            "data": ("--data small.npz", {"model.img_size": (28, 12)}),
            "task": ("own.npz --task ordinal", {"task": (None, "ordinal")}),
            "size": ("phantom --size 64", {"model.img_size": (28, 64)}),
            "label": ("own.npz --label sex", {"importing.label": (None, "sex")}),
            "group_by": ("own.npz --group-by patient", {"importing.group_by": (None, "patient")}),
            "root": ("own.npz --root files", {"root": (None, "files")}),
            "json": ("phantom --json", {"json": (False, True)}),
        },
    ),
    "evaluate": (
        "run",
        {
            "run": ("other", {"run.folder": ("run", "other")}),
            "split": ("run --split val", {"split": ("test", "val")}),
            "root": ("run --root files", {"root": (None, "files")}),
            "data": ("run --data small.npz", {"file": (None, "small.npz")}),
            "label": ("run --data own.npz --label sex", {"label": (None, "sex")}),
            "group_by": ("run --data own.npz --group-by patient", {"group_by": (None, "patient")}),
            "copies": ("run --no-copies", {"copies": (True, False)}),
            "picture": ("run --picture p.svg", {"path": (None, "p.svg")}),
            "json": ("run --json", {"json": (False, True)}),
        },
    ),
    "predict": (
        "run p.png",
        {
            "run": ("other p.png", {"run": (["run"], ["other"])}),
            "images": ("run q.png", {"words": (["p.png"], ["q.png"])}),
            "ensemble": ("run p.png --with other", {"run": (["run"], ["run", "other"])}),
            "sets": ("run p.png --sets 0.8", {"options.sets": (0.9, 0.8)}),
            "coverage": ("run p.png --coverage 0.5", {"options.coverage": (None, 0.5)}),
            "error": ("run p.png --error 0.5", {"options.error": (None, 0.5)}),
            "alarms": ("run p.png --alarms 0.1", {"options.alarms": (0.05, 0.1)}),
            "root": ("run p.png --root files", {"root": (None, "files")}),
            "data": ("run p.png --data small.npz", {"data": (None, "small.npz")}),
            "group_by": ("run p.png --group-by p", {"pattern": (None, "p"), "grouped": (False, True)}),
            "table": ("run p.png --csv t.csv", {"path": (None, "t.csv")}),
            "jsonl": ("run p.png --jsonl", {"json": (False, True)}),
            "json": ("run p.png --json", {"json": (False, True)}),
        },
    ),
    "calibrate": (
        "run",
        {
            "run": ("other", {"folder": ("run", "other")}),
            "sensitivity": ("run --sensitivity 0.9", {"sensitivity": (None, 0.9)}),
            "specificity": ("run --specificity 0.9", {"specificity": (None, 0.9)}),
            "clear": ("run --clear", {"clear": (False, True)}),
            "root": ("run --root files", {"root": (None, "files")}),
            "data": ("run --data small.npz", {"data": (None, "small.npz")}),
            "json": ("run --json", {"json": (False, True)}),
        },
    ),
    "explain": (
        "run p.png --out there",
        {
            "run": ("other p.png --out there", {"run": ("run", "other")}),
            "images": ("run q.png --out there", {"words": (["p.png"], ["q.png"])}),
            "out": ("run p.png --out there/more", {"made": ("there", "there")}),
            "split": ("run --out there --split val", {"split": (None, "val")}),
            "target": ("run p.png --out there --class 1", {"target": (None, "1")}),
            "beside": ("run p.png --out there --beside other", {"cases": (1, 2)}),
            "root": ("run p.png --out there --root files", {"root": (None, "files")}),
            "data": ("run p.png --out there --data small.npz", {"data": (None, "small.npz")}),
            "json": ("run p.png --out there --json", {"json": (False, True)}),
        },
    ),
    "serve": (
        "run",
        {
            "run": ("other", {"run": ("run", "other")}),
            "host": ("run --host localhost", {"host": ("127.0.0.1", "localhost")}),
            "port": ("run --port 8123", {"port": (8000, 8123)}),
            "megabytes": ("run --megabytes 3", {"limits.megabytes": (20, 3)}),
            "megapixels": ("run --megapixels 3", {"limits.megapixels": (25, 3)}),
            "sets": ("run --sets 0.8", {"options.sets": (0.9, 0.8)}),
            "coverage": ("run --coverage 0.5", {"options.coverage": (None, 0.5)}),
            "error": ("run --error 0.5", {"options.error": (None, 0.5)}),
            "alarms": ("run --alarms 0.1", {"options.alarms": (0.05, 0.1)}),
            "root": ("run --root files", {"root": (None, "files")}),
            "data": ("run --data small.npz", {"data": (None, "small.npz")}),
        },
    ),
    "card": (
        "run",
        {
            "run": ("other", {"run.folder": ("run", "other")}),
            "out": ("run --out card.md", {"path": (None, "card.md")}),
        },
    ),
    "push": (
        "run cells",
        {
            "run": ("other cells", {"run.folder": ("run", "other")}),
            "repo": ("run anna/cells", {"repo": ("cells", "anna/cells")}),
            "public": ("run cells --public", {"public": (False, True)}),
            "revision": ("run cells --revision two", {"revision": (None, "two")}),
            "message": ("run cells --message first", {"message": (None, "first")}),
            "json": ("run cells --json", {"json": (False, True)}),
        },
    ),
    "compare": (
        "run",
        {
            "runs": ("run other", {"runs": (1, 2)}),
            "picture": ("run --picture p.png", {"path": (None, "p.png")}),
            "root": ("run --picture p.png --root files", {"root": (None, "files")}),
            "data": ("run --picture p.png --data own.npz", {"file": (None, "own.npz")}),
            "json": ("run --json", {"json": (False, True)}),
        },
    ),
    "demo": (
        "",
        {
            "dataset": ("retinamnist", {"config.dataset": ("phantom", "retinamnist")}),
            "epochs": ("--epochs 3", {"config.train.epochs": (20, 3)}),
            "seed": ("--seed 3", {"config.seed": (0, 3)}),
            "out": ("--out there", {"folder": ("runs/demo-phantom/qvit_4q2h", "there/qvit_4q2h")}),
            "root": ("--root files", {"root": (None, "files")}),
            "size": ("--size 64", {"config.size": (28, 64)}),
            "label": ("--label sex", {"config.importing.label": (None, "sex")}),
            "group_by": ("--group-by patient", {"config.importing.group_by": (None, "patient")}),
        },
    ),
    "study": ("", {}),
    "study list": ("", {"json": ("--json", {"json": (False, True)})}),
    "study plan": (
        "mine.yaml",
        {
            "file": ("other.yaml", {"study.name": ("mine", "other")}),
            "dataset": ("mine.yaml --dataset octmnist", {"study.datasets": (("phantom", "octmnist"), ("octmnist",))}),
            "seeds": ("mine.yaml --seeds 1", {"study.seeds": ((0, 1), (0,))}),
            "workers": ("mine.yaml --workers 3", {"workers": (None, 3)}),
            "root": ("mine.yaml --root files", {"root": (None, "files")}),
            "json": ("mine.yaml --json", {"json": (False, True)}),
        },
    ),
    "study run": (
        "mine.yaml",
        {
            "file": ("other.yaml", {"study.name": ("mine", "other")}),
            "out": ("mine.yaml --out there", {"folder": ("runs/study-mine", "there")}),
            "workers": ("mine.yaml --workers 3", {"workers": (None, 3)}),
            "ray": ("mine.yaml --ray local", {"ray": (None, "local")}),
            "dataset": ("mine.yaml --dataset octmnist", {"study.datasets": (("phantom", "octmnist"), ("octmnist",))}),
            "memory": ("mine.yaml --memory 0.5", {"memory": (1.0, 0.5)}),
            "seeds": ("mine.yaml --seeds 1", {"study.seeds": ((0, 1), (0,))}),
            "root": ("mine.yaml --root files", {"root": (None, "files")}),
            "offline": ("mine.yaml --offline", {"download": (True, False)}),
            "json": ("mine.yaml --json", {"json": (False, True), "on_news": ("a callback", None)}),
        },
    ),
    "study status": (
        "one",
        {
            "folder": ("two", {"title": ("one", "two")}),
            "json": ("one --json", {"json": (False, True)}),
        },
    ),
    "study report": (
        "one",
        {
            "folder": ("two", {"folder": ("one", "two")}),
            "out": ("one --out there", {"out": (None, "there")}),
            "json": ("one --json", {"json": (False, True), "on_news": ("a callback", None)}),
        },
    ),
    "bench": ("", {}),
    "bench layer": (
        "--peers none",
        after("--peers none", benchmark("layer", threads=2))
        | {
            "sizes": ("--peers none --sizes 3x2", {"qubits": (4, 3), "layers": (1, 2)}),
            "tokens": ("--peers none --tokens 5", {"tokens": (1568, 5)}),
            "peers": ("--peers pennylane", {"peers": ((), ("pennylane",))}),
        },
    ),
    "bench step": (
        "",
        benchmark("step", "ansatz", threads=1)
        | {
            "batch": ("--batch 3", {"batch": (64, 3)}),
            "repeats": ("--repeats 3", {"repeats": (200, 3)}),
        },
    ),
    "bench engines": (
        "",
        after("--qubits 2 --layers 1 --tokens 1", benchmark("engines", threads=2))
        | {
            "qubits": ("--qubits 3 --layers 1 --tokens 1", {"qubits": (2, 3)}),
            "layers": ("--layers 2 --qubits 2 --tokens 1", {"layers": (1, 2)}),
            "tokens": ("--tokens 7 --qubits 2 --layers 1", {"tokens": (1, 7)}),
            "repeats": ("--repeats 3 --qubits 2 --layers 1 --tokens 1", {"repeats": (15, 3)}),
        },
    ),
    "bench gradients": (
        "",
        benchmark("gradients", threads=2)
        | {
            "qubits": ("--qubits 3", {"qubits": (2, 3)}),
            "layers": ("--layers 2", {"layers": (1, 2)}),
            "samples": ("--samples 3", {"samples": (200, 3)}),
        },
    ),
}  # fmt: skip
REPORT = {"path": "own.npz", "md5": "0", "task": "binary", "splits": {"train": {"images": 3, "per_label": [3]}}}
TUNED = {
    "asked": {
        "dataset": "phantom", "size": 28, "data_digest": "0", "options": {}, "model": None, "parameters": 9,
        "minutes": None, "trials": 1, "seed": 7, "folds": 5, "seeds": 1, "menu": "0",
    },
    "candidates": [], "rungs": [{"folds": 2, "entrants": ["defaults"]}], "spent": 1.5,
}  # fmt: skip
MEASURES = ("auc", "acc", "balanced_acc", "f1", "kappa", "sensitivity", "specificity", "ece", "log_loss")
FIGURES = Figures(**dict.fromkeys(MEASURES, 0.5), auc_interval=(0.25, 0.75), acc_interval=(None, None))
MEASURED = Measured(Predicted("multi-class", ("0", "1", "2"), np.arange(3)[:, None], np.eye(3)), FIGURES)


class Listening:
    """In place of a socket."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8000


class Drawn:
    """In place of a figure."""

    def savefig(self, *_: Any, **__: Any) -> None:
        pass


@pytest.fixture
def border(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Border:
    """All that takes long replaced, in a folder that holds what the table names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "other")
    Path("options.yaml").write_text("lr: 0.25\n")
    Path("pictures").mkdir()
    for name in ("p.png", "q.png"):
        Image.new("RGB", (12, 12)).save(name)
    Path("mine.yaml").write_text("datasets: [phantom, octmnist]\nseeds: 2\nmodels: [vit_4q1h]\n")
    Path("menu.yaml").write_text("entries: [{recipe: defaults}]\n")
    Path("other-menu.yaml").write_text("entries: [{recipe: defaults}]\nbaselines: [vit_8q1h]\n")
    Path("tune.json").write_text(json.dumps(TUNED))
    Path("other.yaml").write_text("datasets: phantom\nmodels: [vit_4q1h]\n")
    for name in ("one", "two"):
        Path(name).mkdir()
        with Store.open(Path(name)):
            pass
    border = Border(monkeypatch)
    border.at("qvit.tune.tuner.tune")
    monkeypatch.setattr("qvit.training.recipes.shipped_recipes", lambda: ["defaults"])
    several = "qvit.cli.seeds.train_several", "qvit.cli.distill._distil_several"
    for place in ("qvit.training.run.train_run", *several, "qvit.distill.distill"):
        border.at(place)
    for place in ("data.arrays", "training.options"):
        border.at(f"qvit.{place}.load_dataset", passes=lambda given: given["name"] == "small.npz")
    border.at(
        "qvit.data.duplicates.find_duplicates", gives=Duplicates((), 0.5, 0.0, {"train": 24, "val": 16, "test": 20})
    )
    border.at("qvit.data.arrays.verify", gives=REPORT)
    border.at("qvit.training.evaluated.evaluate_split", gives=Evaluated(MEASURED, Apart(1, FIGURES, exact_only=False)))
    border.at("qvit.report.drawing.write_picture", gives=None)
    border.at("qvit.report.pictures.draw_comparison", gives=None)
    border.at("qvit.answers.external.evaluate_external")
    border.at("qvit.answers.predictor.load", passes=True)
    border.at("qvit.answers.predictor.named", passes=True)
    border.at("qvit.answers.grouped.Grouping", passes=True)
    border.at("qvit.cli.predict._written", passes=True)
    border.at("qvit.serve.desk.Desk", passes=True)
    border.at("qvit.serve.server.listen", gives=contextlib.nullcontext(Listening()))
    border.at("qvit.serve.server.server")
    border.at("qvit.answers.card.write_card", gives=Path("x"))
    border.at("qvit.answers.hub.push", gives=Pushed("hf://a/b", "a/b", "0", None, ("calibration.json",)))
    border.at("qvit.answers.card.card", passes=True)
    border.at("qvit.files.write_atomic", passes=True)
    border.patch.setattr("qvit.report.explanation.draw_case", lambda of: border.seen.update(cases=len(of)) or Drawn())
    border.at("qvit.answers.explaining.of_files", passes=True)
    border.at("qvit.cli.explain._of_split")
    border.at("qvit.answers.choosing.calibrated", gives={"images": 1, "notes": []})
    border.at("qvit.quantum.ansatz.build_circuit", passes=True)
    border.at("qvit.cli.circuit._write", gives=None)
    border.at("qvit.report.compare.read_rows", passes=True)
    monkeypatch.setattr("qvit.distill.Teacher.of_runs", lambda of, **_: border.seen.update(folders=list(map(str, of))))
    monkeypatch.setattr("qvit.models.zoo.list_models", lambda: ["vit_4q1h"])
    border.at("qvit.models.zoo.count_parameters", gives=7)
    border.at("qvit.models.cost.cost_of")
    monkeypatch.setattr("qvit.study.reading.shipped_studies", lambda: ["other.yaml"])
    border.at("qvit.study.estimate.estimate", gives=Planned((PlannedRuns("d", "m", "scratch", 2, 1, 3.0),), 2, 1.0, 1))
    border.at("qvit.study.runner.run_study", gives=Summary(total=1, finished=1, done_now=1, failed={}, seconds=1.0))
    border.at("qvit.report.page.write_report", gives=Written(Path("r.html"), Path("r.md"), ["Yes."]))
    monkeypatch.setattr("torch.set_num_threads", lambda threads: border.seen.update(torch=threads))
    border.at("qvit.bench.layer.bench_layer", gives=LayerRow("a", 2, 1, 3, "heisenberg", 1.0))
    border.at("qvit.bench.step.bench_step", gives=StepRow("q", 1, "c", 2, 3.0, 2.0))
    border.at("qvit.bench.engines.bench_engines", gives=EngineRow("a", 2, 1, 3, "x", {"x": 1.0}, {"x": 1.0}))
    border.at("qvit.bench.gradients.gradient_variance", gives=GradientRow("a", 2, 1, 3, 0.5, 0.25))
    border.at("qvit.bench.pictures.save", gives=None)
    for name in ("draw_layer", "draw_steps", "draw_engines", "draw_gradients"):
        monkeypatch.setattr(f"qvit.bench.pictures.{name}", lambda _: None)
    return border


def test_each_option_of_each_command_is_in_the_table() -> None:
    assert {" ".join(path): set(parameters(path)) for path in COMMANDS} == {
        name: set(rows) for name, (_, rows) in KNOBS.items()
    }


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::qvit.answers.predictor.CalibrationWarning")
@pytest.mark.parametrize("command", [command for command, (_, rows) in KNOBS.items() if rows])
def test_each_option_changes_something(command: str, border: Border, capsys: pytest.CaptureFixture[str]) -> None:
    given, rows = KNOBS[command]

    def seen(words: str) -> dict[str, Any]:
        found = told(border, capsys, [*command.split(), *words.split()])
        shutil.rmtree("there", ignore_errors=True)
        return found | ({"runs": len(found["runs"])} if command == "compare" else {})

    without = seen(given)
    for name, (words, changes) in rows.items():
        found = seen(words)
        for key, values in changes.items():
            assert (without.get(key), found.get(key)) == values, f"{name}: {key}"
