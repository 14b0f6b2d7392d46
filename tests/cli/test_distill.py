"""`qvit teacher` and `qvit distill`: what they train, where, what they print, and how their runs compare."""

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.distill import DistillConfig, Teacher
from qvit.distill.options import ALIASES, TEACHER_DEFAULTS
from qvit.models import pretrained
from qvit.training.folder import Run
from qvit.training.loop import TrainConfig

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


def packages(code: str) -> set[str]:
    """Return which packages a process has loaded after running some code."""
    told = "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\n{told}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("command", ["circuit", "teacher", "distill"])
def test_help_is_quick(command: str) -> None:
    """It loads what a bare command line loads, and pydantic: what takes time is what is imported."""
    bare = packages("import pydantic.main, pydantic.fields, typer.completion, typer.rich_utils")
    found = packages(
        "from qvit.cli import main\n"
        f"try:\n    main(['{command}', '--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert {name for name in found - bare if not name.startswith("_")} == {"qvit"}


def test_help_shows_the_defaults(qvit: Qvit) -> None:
    told = re.sub(r"[\s│]+", " ", qvit("teacher", "--help").out)
    for default in ("resnet18", str(TEACHER_DEFAULTS["epochs"]), "runs/DATASET-MODEL-sSEED"):
        assert f"[default: ({default})]" in told
    told = re.sub(r"[\s│]+", " ", qvit("distill", "--help").out)
    for default in ("qvit_4q2h", "100", "soft", "0.5", "in your cache folder", "scratch"):
        assert f"[default: ({default})]" in told


# --- teachers ---


def test_a_teacher_of_the_phantom(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = qvit("teacher", "phantom", "--arch", "resnet18", "--set", "width=0.0625", "--epochs", 1)
    assert told.code == 0, told.err
    run = Run(tmp_path / "runs" / "phantom-resnet18-s0")
    assert run.finished
    assert (run.config["model"], run.config["model_config"]["width"]) == ("resnet18", 0.0625)
    assert "resnet18" in told.out
    assert "epoch 1/1" in told.err
    assert told.err.endswith("Everything is in runs/phantom-resnet18-s0\n")


def test_defaults_of_teachers_give_way(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("lr: 0.004\nmodel: vit_8q1h\n")
    given: dict[str, list[object]] = {
        "defaults": ["--arch", "vit_4q1h"],
        "file": ["--config", options, "--epochs", 1],
        "arch": ["--config", options, "--arch", "vit_4q1h", "--epochs", 1, "--set", "lr=0.1"],
    }
    for name, arguments in given.items():
        assert qvit("teacher", npz, *arguments, "--out", tmp_path / name).code == 0
    train = {name: config_of(tmp_path / name)["train"] for name in given}
    assert train["defaults"] == vars(TrainConfig(**TEACHER_DEFAULTS)) != vars(TrainConfig())
    assert train["file"] == vars(TrainConfig(**(TEACHER_DEFAULTS | {"epochs": 1, "lr": 0.004})))
    assert train["arch"]["lr"] == 0.1
    assert [config_of(tmp_path / name)["model"] for name in given] == ["vit_4q1h", "vit_8q1h", "vit_4q1h"]


def test_the_vit_among_teachers(qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = qvit("teacher", npz.name, "--arch", "vit", "--epochs", 1, "--seed", 2, "--set", "mlp_dim=32", "--json")
    assert (told.code, told.err) == (0, "")
    made = json.loads(told.out)
    config = config_of(tmp_path / made["folder"])
    assert made["folder"] == "runs/small-vit_16q4h-s2"
    assert config["seed"] == 2
    expected = TEACHER_DEFAULTS | ALIASES["vit"] | {"epochs": 1, "mlp_dim": 32}  # what was set comes last
    found = config["model_config"] | config["train"] | {"model": config["model"]}
    assert {key: found[key] for key in expected} == expected
    assert found["depth"] == ALIASES["vit"]["depth"] > 1


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


def test_options_of_a_file(qvit: Qvit, npz: Path, taught: Qvit, tmp_path: Path) -> None:
    """Those named come last, also within a stage."""
    folders = [taught("first"), taught("second", seed=1)]
    (tmp_path / "options.yaml").write_text(
        f"dataset: {npz}\nmodel: vit_8q1h\nteacher:\n  - {folders[0]}\n  - {folders[1]}\nepochs: 3\nkd_loss: mse\n"
        "temperature: 3.0\nscratch: false\nmixtures: 0\n"
        "pretrain:\n  lr: 0.02\n  epochs: 2\nfinetune: {epochs: 2, lr: 0.03}\n"
    )
    config = ["--config", tmp_path / "options.yaml"]
    told = qvit("distill", *config, "--out", tmp_path / "file", "--json")
    assert told.code == 0, told.err
    assert json.loads(told.out)["teacher"]["name"] == "2 × vit_4q2h"
    assert sorted(path.name for path in (tmp_path / "file").iterdir()) == ["distillation.json", "finetune", "pretrain"]
    first, second = (config_of(tmp_path / "file" / stage) for stage in ("pretrain", "finetune"))
    assert (first["model"], first["guide"]["kd_loss"], first["guide"]["temperature"]) == ("vit_8q1h", "mse", 3.0)
    assert (first["train"]["lr"], first["train"]["epochs"]) == (0.02, 2)
    assert (second["train"]["lr"], second["train"]["epochs"]) == (0.03, 2)

    more = ["--student", "vit_4q1h", "--teacher", folders[1], "--epochs", 1, "--kd-loss", "decoupled", "--scratch"]
    more += ["--pretrain", "epochs=1", "--finetune", "lr=0.04", "--finetune", "epochs=1", "--temperature", "5"]
    told = qvit("distill", *config, *more, "--set", "beta=3", "--out", tmp_path / "named", "--json")
    assert told.code == 0, told.err
    assert json.loads(told.out)["teacher"]["name"] == "vit_4q2h"
    scratch, first, second = (config_of(tmp_path / "named" / stage) for stage in ("scratch", "pretrain", "finetune"))
    assert {run["model"] for run in (scratch, first, second)} == {"vit_4q1h"}
    how = DistillConfig(kd_loss="decoupled", temperature=5.0, beta=3.0)
    assert {key: first["guide"][key] for key in vars(how)} == vars(how)
    assert (scratch["train"]["epochs"], scratch["train"]["lr"]) == (1, 0.005)
    assert (first["train"]["lr"], first["train"]["epochs"]) == (0.02, 1)
    assert (second["train"]["lr"], second["train"]["epochs"]) == (0.04, 1)


@pytest.mark.parametrize(("given", "alpha"), [([], 0.5), (["--alpha", "0.25"], 0.25), (["--set", "alpha=0.75"], 0.75)])
def test_learning_jointly(distil: Qvit, taught: Qvit, tmp_path: Path, given: list[str], alpha: float) -> None:
    told = distil("--teacher", taught(), "--joint", *given)
    assert told.code == 0, told.err
    assert sorted(path.name for path in (tmp_path / "kd").iterdir()) == ["distillation.json", "joint", "scratch"]
    assert config_of(tmp_path / "kd" / "joint")["guide"]["alpha"] == alpha
    assert "vit_4q1h: joint" in told.out
    assert f"the distilled student is {tmp_path / 'kd' / 'joint'}" in told.err


def test_flags_reach_the_runs(qvit: Qvit, npz: Path, taught: Qvit, arrays: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "more.npz", images=arrays["train_images"][:, ::-1])
    arguments = ["--data", npz, "--task", "ordinal", "--size", 12, "--seed", 3, "--student", "cosine_4q1h"]
    arguments += ["--epochs", 1, "--finetune", "epochs=1", "--transfer-set", tmp_path / "more.npz", "--no-scratch"]
    arguments += ["--set", "feature_weight=0.5", "--set", "pool=cls", "--kd-loss", "ordinal"]
    told = qvit("distill", *arguments, "--teacher", taught(task="ordinal"), "--out", tmp_path / "kd", "--json")
    assert (told.code, told.err) == (0, "")
    assert not (tmp_path / "kd" / "scratch").exists()
    for stage in ("pretrain", "finetune"):
        config = config_of(tmp_path / "kd" / stage)
        found = [config[key] for key in ("dataset", "task", "size", "seed", "model")]
        assert found == [str(npz), "ordinal", 12, 3, "cosine_4q1h"]
        assert config["model_config"]["pool"] == "cls"
    guide = config_of(tmp_path / "kd" / "pretrain")["guide"]
    assert (guide["kd_loss"], guide["feature_weight"]) == ("ordinal", 0.5)
    assert len(guide["transfer_set"]) == 32


def test_the_default_folder_names_the_distillation(
    qvit: Qvit, npz: Path, taught: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--student", "vit_4q1h", "--epochs", 1, "--finetune", "epochs=1", "--seed", 2, "--mixtures", 600]
    told = qvit("distill", npz.name, *short, "--teacher", taught().name)
    assert told.code == 0
    assert told.err.count("Asking the teacher about 600 views") == 1, "said once, though asked in parts"
    folder = tmp_path / "runs" / "small-vit_4q1h-kd-s2"
    assert {path.name for path in folder.iterdir()} == {"scratch", "pretrain", "finetune", "distillation.json"}


def test_one_progress_bar_at_a_time(distil: Qvit, taught: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def progress(label: str, epochs: int, *, quiet: bool) -> Iterator[None]:
        seen.append(f"{label} of {epochs} begins")
        yield
        seen.append(f"{label} ends")

    teacher = taught()
    monkeypatch.setattr("qvit.cli.distill.epoch_progress", progress)
    assert distil("--teacher", teacher, "--finetune", "epochs=2").code == 0
    stages = {"scratch": 1, "pretrain": 1, "finetune": 2}
    assert seen == [line for stage, n in stages.items() for line in (f"{stage} of {n} begins", f"{stage} ends")]


# --- the runs of a distillation beside others ---


def test_compare_tells_the_runs_apart(qvit: Qvit, distil: Qvit, taught: Qvit, tmp_path: Path) -> None:
    taught()
    for seed in (0, 1):
        told = distil("--teacher", tmp_path / "teacher", "--seed", seed, out=f"kd{seed}")
        assert told.code == 0, told.err
    assert distil("--teacher", tmp_path / "teacher", "--joint", out="both").code == 0
    folders = [tmp_path / f"kd{seed}" / stage for seed in (0, 1) for stage in ("scratch", "pretrain", "finetune")]
    folders += [tmp_path / "both" / "joint", tmp_path / "teacher"]
    read = json.loads(qvit("compare", *folders, "--json").out)
    names = ["vit_4q1h", "vit_4q1h (taught by vit_4q2h)", "vit_4q1h (pre-trained on vit_4q2h)"]
    others = ["vit_4q1h (taught by vit_4q2h and labels)", "vit_4q2h"]
    assert [run["model"] for run in read["runs"]] == [*names, *names, *others]
    assert [(mean["model"], mean["seeds"]) for mean in read["means"]] == [
        *((name, [0, 1]) for name in names),
        *((name, [0]) for name in others),
    ]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kd0").rename(tmp_path / "elsewhere" / "kd0")
    two = [tmp_path / "elsewhere" / "kd0" / stage for stage in ("scratch", "finetune")]
    told = qvit("compare", *two)
    assert told.code == 0
    shown = [line.split("│")[1].strip() for line in told.out.splitlines() if line.startswith("│")]
    assert shown == [names[0], names[2]], "also after it was moved"
