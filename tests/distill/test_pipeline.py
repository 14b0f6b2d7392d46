"""A distillation is a folder of runs: what lies there, and going on with it after a stop.

Where real training is not what is tested, an epoch is a single step: see `one_step`.
"""

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qvit.distill import (
    Distillation,
    DistillationConfig,
    DistillConfig,
    Teacher,
    TeacherGuide,
    distill,
    resolve_distillation,
)
from qvit.distill.pipeline import RESULT
from qvit.errors import DataError, ModelError, RunError
from qvit.training.evaluated import evaluate_run
from qvit.training.folder import Run
from qvit.training.places import FOUND_AT, recorded, with_places
from qvit.training.run import train_run

pytestmark = pytest.mark.usefixtures("uncounted")
Settings = Callable[..., DistillationConfig]
STAGES = ("scratch", "pretrain", "finetune")
# Dropout, symmetries and the map of features are all drawn; they must be the same after a stop.
LIVELY: dict[str, Any] = {"dropout": 0.2, "augment": "d4", "feature_weight": 0.5}


@pytest.fixture(scope="session")
def steps(
    settings: Settings, run_teacher: Teacher, stepping: Any, tmp_path_factory: pytest.TempPathFactory
) -> Distillation:
    """A distillation of one step a stage, not to be changed."""
    folder = tmp_path_factory.mktemp("steps")
    with stepping():
        return distill(settings(**LIVELY), run_teacher, folder / "whole", cache=folder / "cache")


@pytest.fixture(scope="session")
def joint_steps(
    settings: Settings, run_teacher: Teacher, stepping: Any, tmp_path_factory: pytest.TempPathFactory
) -> Distillation:
    """One of both at once."""
    folder = tmp_path_factory.mktemp("steps")
    with stepping():
        return distill(settings(joint=True, scratch=False), run_teacher, folder / "whole", cache=folder / "cache")


@pytest.fixture
def copied(steps: Distillation, tmp_path: Path) -> Path:
    return Path(shutil.copytree(steps.folder, tmp_path / "out"))


def weights(run: Run | Path) -> bytes:
    folder = run.folder if isinstance(run, Run) else run
    return (folder / "model.safetensors").read_bytes()


def kept(folder: Path) -> dict[str, Any]:
    """All files of a distillation, but those that say when and where it ran, and the place of what it started from."""
    content: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("environment.json", "timings.jsonl"):
            content[str(path.relative_to(folder))] = path.read_bytes()
            if path.name == "config.json":  # places are told from where the run lies
                content[str(path.relative_to(folder))] = with_places(
                    json.loads(path.read_text()), lambda at: Path(at).name
                )
    return content


# --- the folder ---


@pytest.mark.long
def test_a_distillation_is_a_folder_of_runs(steps: Distillation, make_run: Any, run_teacher: Teacher) -> None:
    assert sorted(path.name for path in steps.folder.iterdir()) == sorted([*STAGES, RESULT])
    assert json.loads((steps.folder / RESULT).read_text()) == steps.measures.as_json()
    assert list(steps.runs) == list(STAGES)
    for stage, run in steps.runs.items():
        assert run.folder == steps.folder / stage
        assert [record.epoch for record in run.history] == [1]
        assert evaluate_run(run) == run.result.test, "it can be loaded and evaluated by itself"
        assert not (run.folder / "state.pt").exists()
    assert len({weights(run) for run in steps.runs.values()}) == 3
    config = {stage: run.config for stage, run in steps.runs.items()}
    assert config["scratch"]["guide"] is config["scratch"]["origin"] is config["finetune"]["guide"] is None
    assert config["pretrain"]["origin"] is None
    told = recorded(make_run(model="vit_8q1h").folder, steps.folder / "pretrain")
    assert config["pretrain"]["guide"] == {
        "teacher": {"name": "vit_8q1h", "digest": run_teacher.digest, "members": 1, FOUND_AT: [told]},
        **asdict(DistillConfig(feature_weight=0.5)),
        "transfer_set": None,
    }
    assert config["finetune"]["origin"] == {
        "weights": hashlib.sha256(weights(steps.runs["pretrain"])).hexdigest(),
        FOUND_AT: "../pretrain",
    }


@pytest.mark.long
def test_its_runs_are_what_train_run_makes_of_guide_and_origin(
    steps: Distillation, settings: Settings, run_teacher: Teacher, tmp_path: Path, one_step: None
) -> None:
    config = settings(**LIVELY)
    plain = train_run(config.student, tmp_path / "plain")
    assert kept(steps.runs["scratch"].folder) == kept(plain.folder)
    guide = TeacherGuide(run_teacher, DistillConfig(feature_weight=0.5), cache=tmp_path / "other")
    taught = train_run(config.of("pretrain"), tmp_path / "taught", guide=guide)
    assert kept(steps.runs["pretrain"].folder) == kept(taught.folder)
    tuned = train_run(config.of("finetune"), tmp_path / "tuned", origin=taught)
    for name in ("model.safetensors", "metrics.jsonl", "result.json"):
        assert (steps.runs["finetune"].folder / name).read_bytes() == (tuned.folder / name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "task"), [("qvit_4q1h", "binary"), ("vit_4q1h_matched", "multi-label"), ("identity_4q1h", "ordinal")]
)
def test_every_kind_of_student_and_task(
    settings: Settings, make_npz: Any, make_run: Any, one_step: None, tmp_path: Path, task: str, model: str
) -> None:
    teacher = Teacher.of_runs([make_run(make_npz(task), task=task).folder])
    config = settings(task, model=model, joint=True, scratch=False, mixtures=None)
    done = distill(config, teacher, tmp_path / "out", cache=tmp_path / "cache")
    assert (done.final.config["task"], done.final.config["model"], done.measures.student.name) == ((task, model, model))
    assert done.final.config["guide"]["transfer_set"] is None, "though images are few: mixtures have no labels"
    assert done.measures.test["joint"]["divergence"] > 0.0


class Own(nn.Module):
    """A user's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.map(images.float().mean(dim=(2, 3)) / 64.0)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
def test_a_quantised_module_teaches(settings: Settings, one_step: None, tmp_path: Path) -> None:
    """It saves tuples and types, and has no parameters that anybody sees."""
    torch.manual_seed(0)
    module = torch.ao.quantization.quantize_dynamic(Own(), {nn.Linear})
    config, places = settings(scratch=False), {"folder": tmp_path / "out", "cache": tmp_path / "cache"}
    done = distill(config, Teacher.of_module(module, name="small"), **places)
    assert (done.measures.teacher.name, done.measures.teacher.parameters) == ("small", 0)
    again = distill(config, Teacher.of_module(copy.deepcopy(module), name="small"), resume=True, **places)
    assert again.measures == done.measures


def test_data_on_which_nothing_can_be_measured(
    settings: Settings, make_npz: Any, run_teacher: Teacher, tmp_path: Path
) -> None:
    arrays = dict(np.load(make_npz()))
    np.savez(tmp_path / "one.npz", **(arrays | {"val_labels": np.zeros_like(arrays["val_labels"])}))
    with pytest.raises(DataError, match=r"at least two classes in val_labels, found only \[0\]\. AUC compares classes"):
        distill(settings(dataset=str(tmp_path / "one.npz")), run_teacher, tmp_path / "out", cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


# --- going on with what there is ---


def test_resuming_a_finished_distillation_changes_nothing(
    copied: Path, steps: Distillation, settings: Settings, make_run: Any, tmp_path: Path
) -> None:
    """Nor does it matter where the teacher lies now, and the teacher is not asked again."""
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    shutil.copytree(make_run(model="vit_8q1h").folder, tmp_path / "moved")
    teacher = Teacher.of_runs([tmp_path / "moved"])
    again = distill(
        settings(**LIVELY),
        teacher,
        copied,
        resume=True,
        cache=tmp_path / "cache",
        on_stage=lambda *_: pytest.fail,
        on_views=pytest.fail,
    )
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    assert again.measures == steps.measures
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_stop_before_the_measures_are_written(
    copied: Path, steps: Distillation, settings: Settings, run_teacher: Teacher, tmp_path: Path
) -> None:
    (copied / RESULT).rename(copied / f".{RESULT}.1234.part")
    distill(settings(**LIVELY), run_teacher, copied, resume=True, cache=tmp_path / "cache")
    assert kept(copied) == kept(steps.folder)


ANOTHER = r"/out/{} holds a run with another configuration \({}\)\."
STAGES_DIFFER = r"/out holds a distillation of other stages \({}\) than {}\. Go on with it by the same options"
# What is said where a distillation is gone on with by another value of an option.
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "student": ({"lr": 0.002}, ANOTHER.format("scratch", "train.lr: 0.005 → 0.002")),
    "pretrain": ({"pretrain": {"lr": 0.03}}, ANOTHER.format("pretrain", "train.lr: 0.005 → 0.03")),
    "finetune": ({"finetune": {"epochs": 2}}, ANOTHER.format("finetune", "train.epochs: 1 → 2")),
    "transfer_set": ({"transfer_set": "{}"}, ANOTHER.format("pretrain", "guide.transfer_set: None → [0-9a-f]{32}")),
    "mixtures": ({"mixtures": 9}, ANOTHER.format("pretrain", "guide.transfer_set: None → [0-9a-f]{32}")),
    "scratch": ({"scratch": False}, STAGES_DIFFER.format("scratch", "pretrain, finetune")),
    "joint": ({"joint": True, "finetune": {}}, STAGES_DIFFER.format("finetune, pretrain", "scratch, joint")),
    "kd_loss": ({"kd_loss": "mse"}, ANOTHER.format("pretrain", "guide.kd_loss: soft → mse")),
    "temperature": ({"temperature": 4.0}, ANOTHER.format("pretrain", "guide.temperature: 2.0 → 4.0")),
    "beta": ({"beta": 3.0}, ANOTHER.format("pretrain", "guide.beta: 2.0 → 3.0")),
    "feature_weight": ({"feature_weight": 1.0}, ANOTHER.format("pretrain", "guide.feature_weight: 0.5 → 1.0")),
    "attention_weight": ({"attention_weight": 1.0}, ANOTHER.format("pretrain", "guide.attention_weight: 0.0 → 1.0")),
}


def test_every_option_is_among_what_may_change() -> None:
    """α has a test of its own: in stages it is 1."""
    of_stages = {field.name for field in fields(DistillationConfig)} - {"how"}
    assert CHANGES.keys() | {"alpha"} == of_stages | {field.name for field in fields(DistillConfig)}


@pytest.mark.parametrize("option", CHANGES)
def test_what_was_begun_goes_on_with_its_own_options(
    copied: Path, settings: Settings, run_teacher: Teacher, tmp_path: Path, one_step: None, option: str
) -> None:
    before, (options, told) = kept(copied), CHANGES[option]
    if option == "transfer_set":
        np.savez(tmp_path / "others.npz", images=np.random.default_rng(0).integers(0, 256, (9, 12, 12), dtype=np.uint8))
        options = {"transfer_set": str(tmp_path / "others.npz")}
    with pytest.raises(RunError, match=told):
        distill(settings(**(LIVELY | options)), run_teacher, copied, resume=True, cache=tmp_path / "cache")
    assert kept(copied) == before


@pytest.mark.long
def test_another_teacher_is_another_distillation(
    copied: Path, settings: Settings, make_run: Any, tmp_path: Path
) -> None:
    other = Teacher.of_runs([make_run(model="vit_8q1h", seed=1).folder])
    with pytest.raises(RunError, match=ANOTHER.format("pretrain", "guide.teacher.digest: .{64} → .{64}")):
        distill(settings(**LIVELY), other, copied, resume=True, cache=tmp_path / "cache")


@pytest.mark.long
def test_another_alpha_is_another_distillation(
    joint_steps: Distillation, settings: Settings, run_teacher: Teacher, tmp_path: Path
) -> None:
    shutil.copytree(joint_steps.folder, tmp_path / "out")
    config = settings(joint=True, scratch=False, alpha=0.25)
    with pytest.raises(RunError, match=ANOTHER.format("joint", "guide.alpha: 0.5 → 0.25")):
        distill(config, run_teacher, tmp_path / "out", resume=True, cache=tmp_path / "cache")


# --- stopped and resumed ---


@pytest.mark.trains
def test_resumed_distillation_is_bit_identical(settings: Settings, run_teacher: Teacher, tmp_path: Path) -> None:
    """Stopped before, and in, each of its stages; once with the teacher's outputs of before the stop lost."""
    config = settings(**LIVELY, epochs=2, finetune={"epochs": 2})
    epochs = [(stage, epoch) for stage in STAGES for epoch in (1, 2)]
    stops = [(stage, epoch) for stage in STAGES for epoch in (0, 1)]
    seen: list[tuple[str, int]] = []

    def go(stop: tuple[str, int] | None, name: str = "parts", **options: Any) -> Distillation:
        def on_stage(stage: str, _epochs: int) -> Callable[[dict[str, Any], float], None]:
            if (stage, 0) == stop:
                raise KeyboardInterrupt

            def on_epoch(record: dict[str, Any], _seconds: float) -> None:
                seen.append((stage, record.epoch))
                if seen[-1] == stop:
                    raise KeyboardInterrupt

            return on_epoch

        return distill(
            config, run_teacher, tmp_path / name, cache=tmp_path / name / ".cache", on_stage=on_stage, **options
        )

    whole = go(None, "whole")
    assert seen == epochs
    seen.clear()
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            go(stop, resume=True)
        assert not (tmp_path / "parts" / RESULT).exists()
        torch.rand(7)  # what happens in between does not matter
        if stop == ("pretrain", 1):
            shutil.rmtree(tmp_path / "parts" / ".cache")
    go(None, resume=True)
    assert seen == epochs, "nothing is done twice"
    for name in ("whole", "parts"):
        shutil.rmtree(tmp_path / name / ".cache")
    assert kept(tmp_path / "parts") == kept(whole.folder)
    assert {"pretrain/model.safetensors", "finetune/metrics.jsonl", RESULT} < kept(whole.folder).keys()
    assert sum(name.endswith(".csv") for name in kept(whole.folder)) == 6


KILLED = """
import os, signal, sys
from pathlib import Path
from qvit.distill import Teacher, distill, resolve_distillation
npz, teacher, folder, cache = sys.argv[1:]
def on_stage(stage, epochs):
    return lambda record, seconds: os.kill(os.getpid(), signal.SIGKILL) if record.epoch == 2 else None
options = {"dataset": npz, "model": "vit_4q1h", "epochs": 3, "batch_size": 8, "dropout": 0.2, "mixtures": 30}
config = resolve_distillation(options | {"finetune": {"epochs": 1}, "scratch": False})
"""
RUN = "distill(config, Teacher.of_runs([teacher]), folder, cache=Path(cache), on_stage=on_stage)"


@pytest.mark.slow("a process of its own is killed, and has to import all of torch before")
@pytest.mark.trains
@pytest.mark.processes
def test_a_killed_process_is_resumed_bit_identically(make_npz: Any, run_teacher: Teacher, tmp_path: Path) -> None:
    teacher = str(run_teacher.runs[0].folder)
    arguments = [str(make_npz()), teacher, str(tmp_path / "parts"), str(tmp_path / "cache")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED + RUN, *arguments], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(Run(tmp_path / "parts" / "pretrain").history) == 2
    assert not Run(tmp_path / "parts" / "pretrain").finished
    here: dict[str, Any] = {}
    exec(KILLED.replace("sys.argv[1:]", repr(arguments)), here)
    distill(here["config"], run_teacher, tmp_path / "parts", cache=tmp_path / "cache", resume=True)
    whole = distill(here["config"], run_teacher, tmp_path / "whole", cache=tmp_path / "other")
    assert kept(tmp_path / "parts") == kept(whole.folder)


def test_a_wrong_student_is_refused_before_data_are_looked_for(run_teacher: Teacher, tmp_path: Path) -> None:
    config = resolve_distillation({"dataset": "breastmnist", "student": "qvit_0q2h"})
    with pytest.raises(ModelError, match="dim must be at least 1"):
        distill(config, run_teacher, tmp_path / "out", root=tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []
