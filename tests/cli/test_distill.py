"""`qvit teacher` and `qvit distill`: what they train, where, what they print, and how their runs compare."""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.borders import Border, told
from qvit.cli.distill import _progress
from qvit.distill import Teacher
from qvit.distill.options import TEACHER_DEFAULTS
from qvit.models import pretrained
from qvit.training.folder import Run

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, here: teacher outputs and weights are kept there unless one says otherwise."""
    for module in ("qvit.distill.teacher_cache", "qvit.models.pretrained"):
        monkeypatch.setattr(f"{module}.user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def taught(qvit: Qvit, npz: Path, tmp_path: Path) -> Callable[..., Path]:
    """The folder of a teacher trained for an epoch."""

    def make(name: str = "teacher", **options: Any) -> Path:
        given = {"arch": "vit_4q2h", "epochs": 1} | options
        named = [part for key, value in given.items() for part in (f"--{key}", value)]
        told = qvit("teacher", npz, *named, "--out", tmp_path / name)
        assert told.code == 0, told.err
        return tmp_path / name

    return make


@pytest.fixture
def distil(qvit: Qvit, npz: Path, tmp_path: Path) -> Qvit:
    """Distil for one epoch a stage."""

    def run(*more: object, out: str = "kd") -> Any:
        short = ["--student", "vit_4q1h", "--epochs", 1, "--mixtures", 0]
        stages = [] if "--joint" in more else ["--finetune", "epochs=1"]
        return qvit("distill", npz, *short, *stages, "--out", tmp_path / out, *more)

    return run


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


# --- help ---


def test_help_shows_the_defaults(qvit: Qvit) -> None:
    told = re.sub(r"[\s│]+", " ", qvit("teacher", "--help").out)
    for default in ("resnet18", str(TEACHER_DEFAULTS["epochs"]), "runs/DATASET-MODEL-sSEED"):
        assert f"[default: ({default})]" in told
    told = re.sub(r"[\s│]+", " ", qvit("distill", "--help").out)
    for default in ("qvit_4q2h", "100", "soft", "0.5", "in your cache folder", "scratch"):
        assert f"[default: ({default})]" in told


# --- teachers ---


@pytest.mark.long
def test_a_teacher_of_the_phantom(
    qvit: Qvit, small_phantom: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = qvit("teacher", "phantom", "--arch", "resnet18", "--set", "width=0.0625", "--epochs", 1)
    assert told.code == 0, told.err
    run = Run(tmp_path / "runs" / "phantom-resnet18-s0")
    assert run.finished
    assert (run.config["model"], run.config["model_config"]["width"]) == ("resnet18", 0.0625)
    assert "resnet18" in told.out
    assert "epoch 1/1" in told.err
    assert told.err.endswith("Everything is in runs/phantom-resnet18-s0\n")


@pytest.fixture
def asked(
    qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Return what a command asks for, of training or of distilling: none of it is done."""
    monkeypatch.chdir(tmp_path)
    border = Border(monkeypatch)
    border.at("qvit.training.run.train_run")
    border.at("qvit.distill.distill")
    monkeypatch.setattr("qvit.distill.Teacher.of_runs", lambda of, **_: border.seen.update(teachers=list(map(str, of))))

    def ask(command: str, *arguments: object) -> dict[str, Any]:
        return told(border, capsys, [command, *map(str, arguments)])

    return ask


def test_defaults_of_teachers_give_way(asked: Callable[..., dict[str, Any]]) -> None:
    Path("options.yaml").write_text("lr: 0.004\nmodel: vit_8q1h\n")

    def config(*arguments: object) -> dict[str, Any]:
        found = asked("teacher", "phantom", *arguments)
        keys = ("model", "train.epochs", "train.lr", "train.weight_decay", "train.schedule")
        return {key.rpartition(".")[2]: found[f"config.{key}"] for key in keys}

    defaults = {"model": "resnet18", "epochs": 40, "lr": 0.003, "weight_decay": 0.1, "schedule": "one_cycle"}
    assert config() == defaults
    assert config("--config", "options.yaml", "--epochs", 1) == defaults | {
        "model": "vit_8q1h",
        "epochs": 1,
        "lr": 0.004,
    }
    more = ["--arch", "vit_4q1h", "--set", "lr=0.1"]
    assert config("--config", "options.yaml", *more) == defaults | {"model": "vit_4q1h", "lr": 0.1}


def test_the_vit_among_teachers(asked: Callable[..., dict[str, Any]]) -> None:
    found = asked("teacher", "small.npz", "--arch", "vit", "--epochs", 1, "--seed", 2, "--set", "mlp_dim=32")
    assert found["folder"] == "runs/small-vit_16q4h-s2"
    options = {key.rpartition(".")[2]: value for key, value in found.items() if "model_options" in key}
    assert options == {"depth": 4, "mlp_dim": 32, "dropout": 0.1}, "what was set comes last"
    assert {key: found[f"config.train.{key}"] for key in ("epochs", "lr", "weight_decay")} == {
        "epochs": 1,
        "lr": 0.002,
        "weight_decay": 0.1,
    }


@pytest.mark.long
@pytest.mark.parametrize("offline", [[], ["--offline"]], ids=["refused", "offline"])
def test_weights_that_cannot_be_had(
    qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    """A warning, and a teacher trained from scratch that does not claim otherwise."""
    asked: list[str] = []

    def refuse(url: str, _path: Path) -> None:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "_download", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        told = qvit("teacher", npz, "--pretrained", "--epochs", 1, *offline, "--out", tmp_path / "run", "--json")
    assert told.code == 0, told.err
    assert ["resnet18" in url for url in asked] == ([] if offline else [True]), "asked once, and never if offline"
    json.loads(told.out)
    reason = "resnet18" if offline else "no network"
    assert re.fullmatch(rf"Warning: .*{reason}.*Training resnet18 from scratch\.\n", told.err)
    assert config_of(tmp_path / "run")["model_config"]["pretrained"] is None


# --- distillation ---


@pytest.mark.long
def test_distillation(distil: Qvit, taught: Qvit, tmp_path: Path, cache: Path) -> None:
    told = distil("--teacher", taught())
    assert told.code == 0, told.err
    measures = json.loads((tmp_path / "kd" / "distillation.json").read_text())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.out.splitlines() if line.startswith("│")]
    stages = ("scratch", "pretrain", "finetune")
    assert [row[0] for row in rows] == ["teacher: vit_4q2h", *(f"vit_4q1h: {stage}" for stage in stages)]
    teacher = measures["teacher"]
    assert rows[0][1] == f"{teacher['parameters']:,}"
    assert rows[0][3:] == [f"{teacher[name]:.3f}" for name in ("auc", "acc", "ece")] + [""] * 4
    for stage, row in zip(stages, rows[1:], strict=True):
        figures = measures["test"][stage]
        assert row[1] == str(measures["student"]["parameters"])
        assert row[3:8] == [f"{figures[name]:.3f}" for name in ("auc", "acc", "ece", "agreement", "divergence")]
        closed = [figures[f"{name}_gap_closed"] for name in ("auc", "acc")]
        assert row[8:] == ["" if share is None else f"{share:.0%}" for share in closed]
    heads = next(line for line in told.out.splitlines() if line.startswith("┃"))
    assert [head.strip() for head in heads.split("┃")[1:-1]] == [
        "", "parameters", "FLOPs", "AUC", "ACC", "ECE", "agreement", "KL", "gap closed: AUC", "ACC",
    ]  # fmt: skip
    for stage in stages:
        assert f"{stage}: epoch 1/1" in told.err
    assert told.err.count("Asking the teacher about 24 views") == 1
    assert f"the distilled student is {tmp_path / 'kd' / 'finetune'}" in told.err
    assert len(list((cache / "teachers").iterdir())) == 1
    again = distil("--teacher", tmp_path / "teacher", "--resume")
    assert (again.code, again.out) == (0, told.out)


@pytest.mark.long
def test_an_ensemble_as_json(distil: Qvit, taught: Qvit, tmp_path: Path, cache: Path) -> None:
    folders = [taught("first"), taught("second", seed=1)]
    told = distil("--teacher", folders[0], "--teacher", folders[1], "--json", "--cache", tmp_path / "outputs")
    assert (told.code, told.err) == (0, "")
    read = json.loads(told.out)
    assert read == {"folder": str(tmp_path / "kd")} | json.loads((tmp_path / "kd" / "distillation.json").read_text())
    assert read["teacher"]["name"] == "2 × vit_4q2h"
    teacher = config_of(tmp_path / "kd" / "pretrain")["guide"]["teacher"]
    assert (teacher["members"], teacher["digest"]) == (2, Teacher.of_runs(folders).digest)
    assert len(list((tmp_path / "outputs").iterdir())) == 1
    assert not (cache / "teachers").exists()


def test_options_of_a_file(asked: Callable[..., dict[str, Any]]) -> None:
    """Those named come last, also within a stage."""
    Path("options.yaml").write_text(
        "dataset: small.npz\nmodel: vit_8q1h\nteacher:\n  - one\n  - ~/two\nepochs: 3\nkd_loss: mse\n"
        "temperature: 3.0\nscratch: false\nmixtures: 0\n"
        "pretrain:\n  lr: 0.02\n  epochs: 2\nfinetune: {epochs: 2, lr: 0.03}\n"
    )
    found = asked("distill", "--config", "options.yaml")
    of_file = {
        "teachers": ["one", str(Path.home() / "two")],
        "config.student.dataset": "small.npz",
        "config.student.model": "vit_8q1h",
        "config.student.train.epochs": 3,
        "config.how.kd_loss": "mse",
        "config.how.temperature": 3.0,
        "config.scratch": False,
        "config.mixtures": 0,
        "config.pretrain.lr": 0.02,
        "config.pretrain.epochs": 2,
        "config.finetune.lr": 0.03,
        "config.finetune.epochs": 2,
    }
    assert {key: found[key] for key in of_file} == of_file

    more = ["--student", "vit_4q1h", "--teacher", "two", "--epochs", 1, "--kd-loss", "decoupled", "--scratch"]
    more += ["--pretrain", "epochs=1", "--finetune", "lr=0.04", "--finetune", "epochs=1", "--temperature", "5"]
    found = asked("distill", "--config", "options.yaml", *more, "--set", "beta=3", "--set", "pool=cls")
    named = of_file | {
        "teachers": ["two"],
        "config.student.model": "vit_4q1h",
        "config.student.train.epochs": 1,
        "config.student.model_options.pool": "cls",
        "config.how.kd_loss": "decoupled",
        "config.how.temperature": 5.0,
        "config.how.beta": 3.0,
        "config.scratch": True,
        "config.pretrain.epochs": 1,
        "config.finetune.lr": 0.04,
        "config.finetune.epochs": 1,
    }
    assert {key: found[key] for key in named} == named
    Path("options.yaml").write_text("teacher: ~/one\n")
    assert asked("distill", "small.npz", "--config", "options.yaml")["teachers"] == [str(Path.home() / "one")]


@pytest.mark.parametrize(("given", "alpha"), [([], 0.5), (["--alpha", "0.25"], 0.25), (["--set", "alpha=0.75"], 0.75)])
def test_the_weight_of_a_teacher_beside_labels(
    asked: Callable[..., dict[str, Any]], given: list[str], alpha: float
) -> None:
    assert asked("distill", "small.npz", "--teacher", "t", "--joint", *given)["config.how.alpha"] == alpha


@pytest.mark.long
def test_learning_jointly(distil: Qvit, run: Path, tmp_path: Path) -> None:
    told = distil("--teacher", run, "--joint")
    assert told.code == 0, told.err
    assert sorted(path.name for path in (tmp_path / "kd").iterdir()) == ["distillation.json", "joint", "scratch"]
    assert config_of(tmp_path / "kd" / "joint")["guide"]["alpha"] == 0.5
    assert "vit_4q1h: joint" in told.out
    assert f"the distilled student is {tmp_path / 'kd' / 'joint'}" in told.err


def test_one_progress_bar_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def progress(label: str, epochs: int, *, quiet: bool) -> Iterator[None]:
        seen.append(f"{label} of {epochs} begins, {quiet=}")
        yield
        seen.append(f"{label} ends")

    monkeypatch.setattr("qvit.cli.distill.epoch_progress", progress)
    with _progress(quiet=False) as (on_stage, _):
        on_stage("pretrain", 1)
        on_stage("finetune", 2)
    assert seen == [
        "pretrain of 1 begins, quiet=False",
        "pretrain ends",
        "finetune of 2 begins, quiet=False",
        "finetune ends",
    ]


def test_asking_the_teacher_is_said_once_though_it_is_asked_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with _progress(quiet=False) as (_, on_views):
        assert on_views is not None
        for done in (512, 1200):
            on_views(done, 1200)
    assert capsys.readouterr() == ("", "Asking the teacher about 1,200 views of images, once for all students …\n")
    with _progress(quiet=True) as (on_stage, on_views):
        assert on_views is None
        assert on_stage("scratch", 1) is None


# --- the runs of a distillation beside others ---


@pytest.mark.long
def test_compare_tells_the_runs_apart(qvit: Qvit, distil: Qvit, taught: Qvit, tmp_path: Path) -> None:
    taught()
    assert distil("--teacher", tmp_path / "teacher", out="kd").code == 0
    assert distil("--teacher", tmp_path / "teacher", "--joint", "--no-scratch", out="both").code == 0
    folders = [tmp_path / "kd" / stage for stage in ("scratch", "pretrain", "finetune")]
    folders += [tmp_path / "both" / "joint", tmp_path / "teacher"]
    read = json.loads(qvit("compare", *folders, "--json").out)
    names = ["vit_4q1h", "vit_4q1h (taught by vit_4q2h)", "vit_4q1h (pre-trained on vit_4q2h)"]
    others = ["vit_4q1h (taught by vit_4q2h and labels)", "vit_4q2h"]
    assert [run["model"] for run in read["runs"]] == [*names, *others]
    assert [(mean["model"], mean["seeds"]) for mean in read["means"]] == [(name, [0]) for name in (*names, *others)]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kd").rename(tmp_path / "elsewhere" / "kd")
    two = [tmp_path / "elsewhere" / "kd" / stage for stage in ("scratch", "finetune")]
    told = qvit("compare", *two)
    assert told.code == 0
    shown = [line.split("│")[1].strip() for line in told.out.splitlines() if line.startswith("│")]
    assert shown == [names[0], names[2]], "also after it was moved"
