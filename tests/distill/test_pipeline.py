"""A distillation is a folder of runs: what each learns and starts from, what is measured, and going on after a stop."""

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from qvit.data.arrays import load_dataset
from qvit.data.augment import group_size
from qvit.data.mixtures import mix_images
from qvit.distill import (
    Distillation,
    DistillationConfig,
    DistillConfig,
    Teacher,
    TeacherGuide,
    distill,
    pipeline,
    resolve_distillation,
)
from qvit.distill.pipeline import FINETUNE, RESULT
from qvit.errors import ConfigError, DataError, QvitError, RunError
from qvit.models import create_model
from qvit.models.cost import count_flops
from qvit.training.folder import Run
from qvit.training.loop import TrainConfig, augmentation_group
from qvit.training.options import RunConfig, resolve
from qvit.training.prediction import predict
from qvit.training.run import FOUND_AT, evaluate_run, train_run

torch.set_num_threads(1)  # as runs do: on models this small, threads only wait for each other

Arrays = dict[str, np.ndarray]
TASKS = {"binary": 2, "multi-class": 3, "ordinal": 5, "multi-label": 3}
COUNTS = {"train": 37, "val": 21, "test": 23}
GROUP = {"augment": "none"}
# Weights, dropout, symmetries and the map of features are all drawn; they must be the same after a stop.
LIVELY: dict[str, Any] = {"model": "qvit_4q1h", "augment": "d4", "feature_weight": 0.5}
STAGES = ("scratch", "pretrain", "finetune")


def _images(rng: np.random.Generator, n: int, level: Any = 128.0) -> np.ndarray:
    return (level + 60.0 * rng.standard_normal((n, 8, 8, 3))).clip(0, 255).astype(np.uint8)


def make_arrays(task: str = "multi-class", *, seed: int = 0, signal_level: float = 60.0) -> Arrays:
    """Noise, to which each class or label adds a level of one colour."""
    classes, rng, arrays = TASKS[task], np.random.default_rng(seed), {}
    for split, n in COUNTS.items():
        numbers = rng.permutation(np.arange(n))[:, None]
        labels = numbers >> np.arange(classes) & 1 if task == "multi-label" else numbers % classes
        hot = labels if task == "multi-label" else np.eye(classes)[labels[:, 0]]
        colours = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [-1, 1, 0], [0, -1, 1]], float)[:classes]
        arrays[f"{split}_images"] = _images(rng, n, 110.0 + signal_level * (hot @ colours)[:, None, None])
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    return arrays


def grey(images: np.ndarray) -> np.ndarray:
    """The luma of ITU-R BT.601, rounded."""
    return ((images.astype(np.int64) @ np.array([299, 587, 114]) + 500) // 1000).astype(np.uint8)


@pytest.fixture(autouse=True)
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting FLOPs takes a quarter of a distillation as small as these; see `test_costs`."""
    monkeypatch.setattr(pipeline, "count_flops", lambda *_: 1)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A file of made-up images; the same options give the same file."""
    folder = tmp_path_factory.mktemp("files")

    def make(task: str = "multi-class", **options: Any) -> Path:
        name = hashlib.md5(repr((task, sorted(options.items()))).encode(), usedforsecurity=False).hexdigest()[:6]
        path = folder / f"made{name}.npz"
        if not path.exists():
            np.savez(path, **make_arrays(task, **options))
        return path

    return make


@pytest.fixture(scope="session")
def teachers(files: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a trained teacher; the same options give the same one."""
    folder = tmp_path_factory.mktemp("teachers")

    def make(task: str = "multi-class", **options: Any) -> Path:
        given = {"dataset": str(files(task)), "task": task, "model": "vit_4q2h", "epochs": 4, "lr": 0.03} | options
        name = hashlib.md5(repr(sorted(given.items())).encode(), usedforsecurity=False).hexdigest()[:6]
        if not (folder / name).exists():
            train_run(resolve(given), folder / name)
        return folder / name

    return make


@pytest.fixture(scope="session")
def settings(files: Callable[..., Path]) -> Callable[..., DistillationConfig]:
    """A short distillation on a made-up file."""

    def make(task: str = "multi-class", **options: Any) -> DistillationConfig:
        given: dict[str, Any] = {"dataset": str(files(task)), "task": task, "model": "vit_4q1h", "epochs": 3}
        given |= {"dropout": 0.2, "batch_size": 8, "finetune": {"epochs": 2}, "mixtures": 0}
        given |= options
        if given.get("joint"):
            del given["finetune"]
        return resolve_distillation(given)

    return make


Files = Callable[..., Path]
Settings = Callable[..., DistillationConfig]


@pytest.fixture
def go(teachers: Files, tmp_path: Path) -> Callable[..., Distillation]:
    """Distil the usual teacher; every test has a cache of its own."""

    def run(config: DistillationConfig, name: str = "out", teacher: Teacher | None = None, **more: Any) -> Distillation:
        task = config.student.task or "multi-class"
        options = {"cache": tmp_path / "cache"} | more
        return distill(config, teacher or Teacher.of_runs([teachers(task)]), tmp_path / name, **options)

    return run


Go = Callable[..., Distillation]


@pytest.fixture(scope="session")
def finished(teachers: Files, tmp_path_factory: pytest.TempPathFactory) -> Go:
    """An undisturbed distillation of the usual teacher, not to be changed; the same configuration gives the same."""
    made: dict[str, Distillation] = {}

    def make(config: DistillationConfig) -> Distillation:
        if repr(config) not in made:
            folder, teacher = tmp_path_factory.mktemp("finished"), Teacher.of_runs([teachers()])
            made[repr(config)] = distill(config, teacher, folder / "whole", cache=folder / "cache")
        return made[repr(config)]

    return make


def weights(run: Run | Path) -> bytes:
    folder = run.folder if isinstance(run, Run) else run
    return (folder / "model.safetensors").read_bytes()


def kept(folder: Path) -> dict[str, Any]:
    """All files of a distillation, but those that say when and where it ran, and the place of what it started from."""
    content: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("environment.json", "timings.jsonl"):
            content[str(path.relative_to(folder))] = path.read_bytes()
    if "finetune/config.json" in content:
        config = json.loads(content["finetune/config.json"])
        assert config["origin"].pop(FOUND_AT) == str(folder.resolve() / "pretrain")
        content["finetune/config.json"] = config
    return content


# --- the runs ---


def test_a_distillation_is_a_folder_of_runs(go: Go, settings: Settings, teachers: Files, tmp_path: Path) -> None:
    done = go(settings(temperature=3.0))
    assert done.folder == tmp_path / "out"
    assert sorted(path.name for path in done.folder.iterdir()) == sorted([*STAGES, RESULT])
    assert json.loads((done.folder / RESULT).read_text()) == done.measures
    assert list(done.runs) == list(STAGES)
    assert done.final is done.runs["finetune"]
    for stage, run in done.runs.items():
        assert run.folder == done.folder / stage
        assert run.finished
        assert [record["epoch"] for record in run.history] == list(range(1, 3 if stage == "finetune" else 4))
        assert evaluate_run(run) == run.result["test"], "it can be loaded and evaluated by itself"
        assert not (run.folder / "state.pt").exists()
    config = {stage: run.config for stage, run in done.runs.items()}
    assert config["scratch"]["guide"] is config["scratch"]["origin"] is config["finetune"]["guide"] is None
    assert config["pretrain"]["origin"] is None
    teacher = Teacher.of_runs([teachers()])
    assert config["pretrain"]["guide"] == {
        "teacher": {"name": "vit_4q2h", "digest": teacher.digest, "members": 1, FOUND_AT: [str(teachers().resolve())]},
        **asdict(DistillConfig(temperature=3.0)),
        "transfer_set": None,
    }
    assert config["finetune"]["origin"] == {
        "weights": hashlib.sha256(weights(done.runs["pretrain"])).hexdigest(),
        FOUND_AT: str((done.folder / "pretrain").resolve()),
    }


def test_the_run_from_scratch_is_a_plain_run(finished: Go, settings: Settings, tmp_path: Path) -> None:
    config = settings()
    done, plain = finished(config), train_run(config.student, tmp_path / "plain")
    assert kept(done.runs["scratch"].folder) == kept(plain.folder)
    assert len({weights(run) for run in done.runs.values()}) == 3


def test_stages_are_what_train_run_makes_of_guide_and_origin(
    finished: Go, settings: Settings, teachers: Files, tmp_path: Path
) -> None:
    config = settings(**LIVELY)
    done = finished(config)
    guide = TeacherGuide(Teacher.of_runs([teachers()]), DistillConfig(feature_weight=0.5), cache=tmp_path / "other")
    taught = train_run(config.of("pretrain"), tmp_path / "taught", guide=guide)
    assert kept(done.runs["pretrain"].folder) == kept(taught.folder)
    tuned = train_run(config.of("finetune"), tmp_path / "tuned", origin=taught)
    for name in ("model.safetensors", "metrics.jsonl", "result.json"):
        assert (done.runs["finetune"].folder / name).read_bytes() == (tuned.folder / name).read_bytes()


def test_fine_tuning_starts_from_what_pretraining_learned(go: Go, finished: Go, settings: Settings) -> None:
    """At a rate of nearly nothing the weights stay what they were."""
    done, usual = go(settings(finetune={"lr": 1e-30, "epochs": 1})), finished(settings())
    assert weights(done.runs["finetune"]) == weights(done.runs["pretrain"]) != weights(done.runs["scratch"])
    assert weights(usual.runs["finetune"]) != weights(usual.runs["pretrain"]) == weights(done.runs["pretrain"])


def test_pretraining_never_sees_a_label(go: Go, finished: Go, settings: Settings, tmp_path: Path) -> None:
    """Another order of the labels of training: the same student, until labels are what it learns from."""
    path, arrays = tmp_path / "shuffled.npz", make_arrays()
    np.savez(path, **(arrays | {"train_labels": arrays["train_labels"][::-1]}))
    same, other = finished(settings()), go(settings(dataset=str(path)))
    assert weights(same.runs["pretrain"]) == weights(other.runs["pretrain"])
    for stage in ("scratch", "finetune"):
        assert weights(same.runs[stage]) != weights(other.runs[stage])  # type: ignore[index]


def test_options_of_a_stage_arrive_there_alone(go: Go, settings: Settings) -> None:
    pretrain = {"epochs": 2, "lr": 0.012, "weight_decay": 0.3}
    config = settings(lr=0.011, pretrain=pretrain, finetune={"epochs": 1, "label_smoothing": 0.1})
    runs = go(config).runs
    train = {stage: run.config["train"] for stage, run in runs.items()}
    assert train["scratch"] == asdict(config.student.train)
    assert train["pretrain"] == train["scratch"] | pretrain
    assert train["finetune"] == train["scratch"] | {"epochs": 1, "lr": FINETUNE["lr"], "label_smoothing": 0.1}
    assert [len(run.history) for run in runs.values()] == [3, 2, 1]


def test_defaults_of_the_stages(settings: Settings) -> None:
    config = settings(finetune=None, lr=0.02)
    assert config.stages == STAGES
    assert config.of("scratch") == config.of("pretrain") == config.student
    assert config.of("finetune") == replace(config.student, train=replace(config.student.train, lr=1e-3, epochs=50))
    assert resolve_distillation({"dataset": "phantom"}) == DistillationConfig(RunConfig("phantom"))
    assert DistillationConfig(RunConfig("phantom")).how == DistillConfig(alpha=1.0)


def test_without_the_run_from_scratch(finished: Go, settings: Settings) -> None:
    done, whole = finished(settings(scratch=False)), finished(settings())
    assert sorted(path.name for path in done.folder.iterdir()) == ["distillation.json", "finetune", "pretrain"]
    assert list(done.measures["test"]) == ["pretrain", "finetune"]
    for stage, figures in done.measures["test"].items():
        assert weights(done.runs[stage]) == weights(whole.runs[stage])  # type: ignore[index]
        assert figures == {key: value for key, value in whole.measures["test"][stage].items() if "gap" not in key}
    assert "auc_gap_closed" in whole.measures["test"]["finetune"]


def test_learning_jointly(go: Go, finished: Go, settings: Settings) -> None:
    done = go(settings(joint=True))
    assert list(done.runs) == list(done.measures["test"]) == ["scratch", "joint"]
    assert done.final is done.runs["joint"]
    joint = done.runs["joint"].config
    assert (joint["origin"], joint["guide"]["alpha"]) == (None, 0.5), "α is 0.5 if nothing is said"
    assert joint["train"] == done.runs["scratch"].config["train"]
    by_alpha = {
        alpha: go(settings(joint=True, alpha=alpha, scratch=False), f"a{alpha}").final for alpha in (0.0, 0.9, 1.0)
    }
    assert len({weights(run) for run in (done.final, *by_alpha.values())}) == 4
    assert weights(by_alpha[0.0]) == weights(done.runs["scratch"]), "labels alone"
    assert weights(by_alpha[1.0]) == weights(finished(settings()).runs["pretrain"])


@pytest.mark.parametrize(
    ("model", "task"),
    [("qvit_4q1h", task) for task in TASKS]
    + [("vit_4q1h", "binary"), ("vit_4q1h_matched", "multi-label"), ("identity_4q1h", "ordinal")],
)
def test_every_kind_of_student_and_task(go: Go, settings: Settings, task: str, model: str) -> None:
    done = go(settings(task, model=model, epochs=1, finetune={"epochs": 1}))
    assert {run.config["task"] for run in done.runs.values()} == {task}
    assert {run.config["model"] for run in done.runs.values()} == {done.measures["student"]["name"]} == {model}
    assert len({weights(run) for run in done.runs.values()}) == 3
    for figures in done.measures["test"].values():
        assert 0.0 < figures["divergence"] < 5.0
        assert 0.0 <= figures["agreement"] <= 1.0


def test_callbacks_hear_of_every_stage_and_epoch(go: Go, settings: Settings, tmp_path: Path) -> None:
    stages: list[tuple[str, int]] = []
    epochs: list[tuple[str, int]] = []
    views: list[tuple[int, int]] = []

    def on_stage(stage: str, count: int) -> Callable[[dict[str, Any], float], None]:
        stages.append((stage, count))
        return lambda record, seconds: epochs.append((stage, record["epoch"]))

    go(settings(**GROUP), on_stage=on_stage, on_views=lambda done, total: views.append((done, total)))
    assert stages == [("scratch", 3), ("pretrain", 3), ("finetune", 2)]
    assert epochs == [(stage, epoch) for stage, count in stages for epoch in range(1, count + 1)]
    assert views == [(37, 37)], "each training image under each of one symmetry"
    go(
        settings(**GROUP, temperature=9.0, epochs=1, scratch=False),
        "again",
        on_views=lambda done, total: views.append((done, total)),
    )
    assert len(views) == 1, "asked once for all students"
    assert len(list((tmp_path / "cache").iterdir())) == 1


# --- transfer sets ---


def test_a_transfer_set_is_what_pretraining_sees(go: Go, finished: Go, settings: Settings, tmp_path: Path) -> None:
    """The same as a dataset with these images to train on; mirrored ones, which have the same mean and deviation."""
    arrays = make_arrays()
    mirrored = arrays["train_images"][:, :, ::-1]
    np.savez(tmp_path / "transfer.npz", images=mirrored)
    labels = arrays["train_labels"][::-1]
    np.savez(tmp_path / "dataset.npz", **(arrays | {"train_images": mirrored, "train_labels": labels}))
    transfer = settings(transfer_set=str(tmp_path / "transfer.npz"), **GROUP)
    done = go(transfer)
    of_these = go(settings(dataset=str(tmp_path / "dataset.npz"), **GROUP), "oracle")
    plain = finished(settings(**GROUP))
    assert weights(done.runs["pretrain"]) == weights(of_these.runs["pretrain"]) != weights(plain.runs["pretrain"])
    assert weights(done.runs["scratch"]) == weights(plain.runs["scratch"])
    tuned = train_run(transfer.of("finetune"), tmp_path / "tuned", origin=done.runs["pretrain"])
    assert weights(done.final) == weights(tuned), "fine-tuned on the dataset's own images and labels"
    assert done.runs["pretrain"].config["data_digest"] == plain.runs["pretrain"].config["data_digest"]
    assert isinstance(done.runs["pretrain"].config["guide"]["transfer_set"], str)


@pytest.mark.parametrize("student", ["colour", "grey"])
def test_a_transfer_set_of_another_number_and_colour(go: Go, settings: Settings, tmp_path: Path, student: str) -> None:
    arrays, count = make_arrays(), 53
    others = _images(np.random.default_rng(7), count)
    converted = grey(others) if student == "grey" else np.repeat(grey(others)[..., None], 3, axis=3)
    if student == "grey":
        arrays |= {key: grey(value) for key, value in arrays.items() if key.endswith("images")}
    np.savez(tmp_path / "own.npz", **arrays)
    np.savez(tmp_path / "given.npz", train_images=others if student == "grey" else grey(others), train_labels=[5])
    np.savez(tmp_path / "same.npz", images=converted)
    run = train_run(resolve({"dataset": str(tmp_path / "own.npz"), "model": "vit_4q1h", "epochs": 1}), tmp_path / "t")
    done = {}
    for name in ("given", "same"):
        paths = {"dataset": str(tmp_path / "own.npz"), "transfer_set": str(tmp_path / f"{name}.npz")}
        config = settings(**paths, augment="d4", epochs=2, scratch=False)
        views: list[tuple[int, int]] = []
        done[name] = go(
            config, name, Teacher.of_runs([run.folder]), on_views=lambda *told, heard=views: heard.append(told)
        )
        assert views[-1] == (8 * count, 8 * count), "every image under every symmetry"
    assert weights(done["given"].runs["pretrain"]) == weights(done["same"].runs["pretrain"])


def test_mixtures_are_a_transfer_set(go: Go, settings: Settings, tmp_path: Path) -> None:
    config = settings(mixtures=29, scratch=False)
    mixed = mix_images(load_dataset(config.student.dataset).train, 29).images.images
    np.savez(tmp_path / "mixed.npz", images=mixed.transpose(0, 2, 3, 1))
    views: list[tuple[int, int]] = []
    done = go(config, on_views=lambda *told: views.append(told))
    same = go(settings(transfer_set=str(tmp_path / "mixed.npz"), scratch=False), "same")
    assert [weights(run) for run in done.runs.values()] == [weights(run) for run in same.runs.values()]
    assert views[-1][1] == 29 * group_size(augmentation_group(load_dataset(config.student.dataset), TrainConfig()))


def test_mixtures_are_made_where_images_are_few(
    go: Go, finished: Go, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline.FEW == 4000
    assert DistillationConfig(RunConfig("phantom")).mixtures is None
    views: list[int] = []
    for few, name in ((37, "enough"), (38, "few")):
        monkeypatch.setattr(pipeline, "FEW", few)
        done = go(settings(mixtures=None, **GROUP), name, on_views=lambda _, total: views.append(total))
        same = weights(done.runs["pretrain"]) == weights(finished(settings(**GROUP)).runs["pretrain"])
        assert same == (name == "enough")
    assert views == [37, 38]
    done = go(settings(mixtures=None, joint=True, scratch=False), "joint")
    assert done.final.config["guide"]["transfer_set"] is None


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_that_the_student_is_measured_by_are_refused(
    go: Go, settings: Settings, tmp_path: Path, split: str
) -> None:
    arrays = make_arrays()
    images = np.concatenate([arrays["train_images"][:3], arrays[f"{split}_images"][4:5]])
    np.savez(tmp_path / "leak.npz", images=images)
    with pytest.raises(DataError, match=r"1 of 4 images to distil on are byte-identical.*leave them out"):
        go(settings(transfer_set=str(tmp_path / "leak.npz")))
    assert not (tmp_path / "out").exists()
    np.savez(tmp_path / "leak.npz", images=images[:3])
    go(settings(transfer_set=str(tmp_path / "leak.npz"), epochs=1, scratch=False))


# --- names ---


def test_names_that_cannot_be_written_down_are_refused_before_anything_is_made(
    go: Go, settings: Settings, files: Callable[..., Path], teachers: Files, tmp_path: Path
) -> None:
    latin = os.fsdecode(b"\xe9")
    config = settings(epochs=1)
    with pytest.raises(RunError, match=r"found bytes that are no UTF-8.*Rename that"):
        go(config, name=latin)
    copied = shutil.copy(files(), tmp_path / f"{latin}.npz")
    for changed in (
        replace(config, student=replace(config.student, dataset=str(copied))),
        replace(config, transfer_set=str(copied)),
    ):
        with pytest.raises(DataError, match="found bytes that are no UTF-8"):
            go(changed)
    (tmp_path / latin).symlink_to(teachers())
    with pytest.raises(RunError, match="found bytes that are no UTF-8"):
        Teacher.of_runs([tmp_path / latin])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([latin, f"{latin}.npz"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"two\n{latin}").touch()
    with pytest.raises(RunError, match=r"out holds other things \('two\\n\\udce9'\)"):
        go(config)


# --- the measures ---


def yes_or_no(scores: np.ndarray, labels: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """The probability and the truth of each answer, (n, questions)."""
    if task == "multi-label":
        return scores, labels
    return (scores[:, 1:], labels) if task == "binary" else (scores, labels == np.arange(scores.shape[1]))


def decided(scores: np.ndarray, task: str) -> np.ndarray:
    return (scores > 0.5).astype(int) if task == "multi-label" else scores.argmax(axis=1)[:, None]


def calibration_error(scores: np.ndarray, labels: np.ndarray, task: str) -> float:
    """Guo et al.'s equation 3, bin by bin."""
    decisions = decided(scores, task)
    right = decisions == labels
    sure = np.maximum(scores, 1 - scores) if task == "multi-label" else scores.max(axis=1)[:, None]
    total = 0.0
    for right_one, sure_one in zip(right.T, sure.T, strict=True):
        for low in range(15):
            inside = (sure_one > low / 15) & (sure_one <= (low + 1) / 15)
            if inside.any():
                total += inside.sum() * abs(right_one[inside].mean() - sure_one[inside].mean())
    return float(total / right.size)


def surprise(student: np.ndarray, teacher: np.ndarray, task: str) -> float:
    """KL(teacher ‖ student), image by image."""
    if task == "multi-label":
        parts = [
            p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
            for q, p in zip(student.ravel(), teacher.ravel(), strict=True)
        ]
    else:
        parts = [
            sum(p * np.log(p / q) for q, p in zip(ours, theirs, strict=True))
            for ours, theirs in zip(student, teacher, strict=True)
        ]
    return float(np.mean(parts))


@pytest.mark.parametrize("task", TASKS)
def test_the_measures_recomputed(go: Go, settings: Settings, teachers: Files, task: str) -> None:
    runs = [Run(teachers(task, epochs=epochs)) for epochs in (12, 2)]
    done = go(settings(task), teacher=Teacher.of_runs([run.folder for run in runs]))
    labels = make_arrays(task)["test_labels"].astype(int)
    taught = np.mean([run.predictions("test") for run in runs], axis=0)

    def figures(scores: np.ndarray) -> dict[str, float]:
        probability, truth = yes_or_no(scores, labels, task)
        areas = [roc_auc_score(truth[:, k], probability[:, k]) for k in range(truth.shape[1])]
        said = np.where(truth == 1, probability, 1 - probability)
        losses = scores[np.arange(len(labels)), labels[:, 0]] if task != "multi-label" else said
        return {
            "auc": float(np.mean(areas)),
            "acc": float(np.mean(decided(scores, task) == labels)),
            "ece": calibration_error(scores, labels, task),
            "log_loss": float(-np.log(losses).mean()),
        }

    of_teacher = figures(taught)
    found = done.measures["teacher"]
    assert found["name"] == "2 × vit_4q2h"
    assert {name: found[name] for name in of_teacher} == pytest.approx(of_teacher)
    of_scratch = figures(done.runs["scratch"].predictions("test"))
    for stage, run in done.runs.items():
        scores = run.predictions("test")
        own = figures(scores)
        expected: dict[str, float | None] = own | {
            "agreement": float(np.mean(decided(scores, task) == decided(taught, task))),
            "divergence": surprise(scores, taught, task),
        }
        for name in ("auc", "acc"):
            gap = of_teacher[name] - of_scratch[name]
            expected[f"{name}_gap_closed"] = (own[name] - of_scratch[name]) / gap if gap > 1e-12 else None
        assert done.measures["test"][stage] == pytest.approx(expected)
        assert {name: done.measures["test"][stage][name] for name in own} == {
            name: run.result["test"][name] for name in own
        }
    if task == "multi-class":
        assert done.measures["test"]["finetune"]["auc_gap_closed"] is not None
        assert done.measures["test"]["scratch"]["auc_gap_closed"] == 0.0
        assert done.measures["test"]["finetune"]["agreement"] < 1.0


def test_no_gap_is_closed_where_the_teacher_is_not_ahead(go: Go, settings: Settings, teachers: Files) -> None:
    """And a teacher may be as bad as it likes."""
    poor = Teacher.of_runs([teachers(model="vit_4q1h", epochs=1, lr=1e-6)])
    done = go(settings(epochs=12, lr=0.03), teacher=poor)
    assert done.measures["teacher"]["auc"] < done.measures["test"]["scratch"]["auc"], "or the case is of no use"
    for figures in done.measures["test"].values():
        assert figures["auc_gap_closed"] is None
    assert "NaN" not in (done.folder / RESULT).read_text()


def test_costs(go: Go, settings: Settings, teachers: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "count_flops", count_flops)
    paths = [teachers(), teachers(model="resnet18", width=0.0625, epochs=1)]
    measured = go(settings(epochs=1, scratch=False), teacher=Teacher.of_runs(paths)).measures
    student = create_model("vit_4q1h", in_chans=3, num_classes=3, img_size=8)
    of_teachers = [Run(path).load_model() for path in paths]
    for found, models in (("teacher", of_teachers), ("student", [student])):
        assert measured[found]["parameters"] == sum(p.numel() for model in models for p in model.parameters())
        assert measured[found]["flops"] == sum(count_flops(model, 3, 8) for model in models) > 0


class Own(nn.Module):
    """A user's own network, that looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.float().mean(dim=(2, 3)) / 64.0
        return self.map(means) if float(means.detach().sum()) >= 0 else means


def test_any_module_teaches(go: Go, settings: Settings, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "count_flops", count_flops)
    torch.manual_seed(0)
    module = Own()
    module.map.weight.data.mul_(4.0)
    config = settings(augment="d4", tta="never", epochs=1, scratch=False)
    done = go(config, teacher=Teacher.of_module(module, name="means"))
    data = load_dataset(str(files()))
    taught = predict(module, data.test, "multi-class")
    assert done.measures["teacher"]["name"] == "means"
    assert done.measures["teacher"]["parameters"] == 12
    assert done.measures["teacher"]["flops"] is None
    scores = done.final.predictions("test")
    assert done.measures["test"]["finetune"]["divergence"] == pytest.approx(surprise(scores, taught, "multi-class"))
    assert done.runs["pretrain"].config["guide"]["teacher"][FOUND_AT] == []


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
def test_a_quantised_module_teaches(go: Go, settings: Settings, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saves tuples and types, and has no parameters that anybody sees."""
    monkeypatch.setattr(pipeline, "count_flops", count_flops)
    torch.manual_seed(0)
    module = torch.ao.quantization.quantize_dynamic(Own(), {nn.Linear})
    config = settings(augment="d4", tta="never", epochs=1, scratch=False)
    done = go(config, teacher=Teacher.of_module(module, name="small"))
    taught = predict(module, load_dataset(str(files())).test, "multi-class")
    assert done.measures["teacher"] | {"name": "small", "parameters": 0, "flops": None} == done.measures["teacher"]
    scores = done.final.predictions("test")
    assert done.measures["test"]["finetune"]["divergence"] == pytest.approx(surprise(scores, taught, "multi-class"))
    again = go(config, teacher=Teacher.of_module(copy.deepcopy(module), name="small"), resume=True)
    assert again.measures == done.measures


def test_a_teacher_that_was_trained_on_other_images(go: Go, settings: Settings, files: Files, teachers: Files) -> None:
    """Its own test images are not the student's."""
    run = Run(teachers(dataset=str(files(seed=5)), augment="d4", tta="always"))
    done = go(settings(epochs=1, scratch=False), teacher=Teacher.of_runs([run.folder]))
    data = load_dataset(str(files()))
    scores, taught = done.final.predictions("test"), predict(run.load_model(), data.test, "multi-class", group="d4")
    assert done.measures["test"]["finetune"]["divergence"] == pytest.approx(surprise(scores, taught, "multi-class"))


# --- stopped and resumed ---


class Killed(BaseException):
    """What stops a distillation in these tests; nothing catches it."""


def stop_in(stage: str, epoch: int) -> Callable[[str, int], Callable[[dict[str, Any], float], None]]:
    """Stop after an epoch of a stage; epoch 0: before the stage has begun."""

    def on_stage(begun: str, _epochs: int) -> Callable[[dict[str, Any], float], None]:
        if (begun, 0) == (stage, epoch):
            raise KeyboardInterrupt

        def on_epoch(record: dict[str, Any], _seconds: float) -> None:
            if (begun, record["epoch"]) == (stage, epoch):
                raise KeyboardInterrupt

        return on_epoch

    return on_stage


@pytest.mark.parametrize("forgotten", [False, True], ids=["kept", "forgotten"])
@pytest.mark.parametrize("stage", STAGES)
def test_resumed_distillation_is_bit_identical(
    go: Go, finished: Go, settings: Settings, tmp_path: Path, stage: str, forgotten: bool
) -> None:
    """With the teacher's outputs of before the stop, and with these lost."""
    config = settings(**LIVELY)
    whole = finished(config)
    for epoch in (0, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            go(config, "parts", on_stage=stop_in(stage, epoch), resume=epoch > 0)
        assert not (tmp_path / "parts" / RESULT).exists()
        torch.rand(7)  # what happens in between does not matter
        if forgotten and (tmp_path / "cache").exists():
            shutil.rmtree(tmp_path / "cache")
    assert len(Run(tmp_path / "parts" / stage).history) == 2
    seen: list[str] = []
    go(config, "parts", resume=True, on_stage=lambda begun, _: lambda record, _: seen.append(begun))
    assert kept(tmp_path / "parts") == kept(whole.folder)
    left = {"scratch": 1 + 3 + 2, "pretrain": 1 + 2, "finetune": 0}[stage]
    assert len(seen) == left, "nothing is done twice"
    assert {"pretrain/model.safetensors", "finetune/metrics.jsonl", RESULT} < kept(whole.folder).keys()
    assert sum(name.endswith(".csv") for name in kept(whole.folder)) == 6


def test_a_resumed_joint_stage_is_bit_identical(go: Go, finished: Go, settings: Settings, tmp_path: Path) -> None:
    config = settings(**LIVELY, joint=True, scratch=False)
    whole = finished(config)
    with pytest.raises(KeyboardInterrupt):
        go(config, "parts", on_stage=stop_in("joint", 2))
    go(config, "parts", resume=True)
    assert kept(tmp_path / "parts") == kept(whole.folder)


def test_a_stop_before_the_measures_are_written(
    go: Go, finished: Go, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "write_atomic", stop)
        with pytest.raises(Killed):
            go(settings())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(STAGES)
    go(settings(), resume=True)
    assert kept(tmp_path / "out") == kept(finished(settings()).folder)


def test_resuming_a_finished_distillation_changes_nothing(go: Go, settings: Settings, tmp_path: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    first, before = go(settings()), contents()
    shutil.rmtree(tmp_path / "cache")
    again = go(settings(), resume=True, on_stage=lambda *_: pytest.fail, on_views=pytest.fail)
    assert contents() == before
    assert again.measures == first.measures
    assert not any((tmp_path / "cache").iterdir()), "the teacher is not asked again"


def test_what_was_begun_goes_on_with_its_own_options(
    go: Go, files: Files, settings: Settings, teachers: Files, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        np.savez(tmp_path / f"{name}.npz", images=_images(np.random.default_rng(len(name)), 41))
    done = go(settings(transfer_set=str(tmp_path / "first.npz")))
    before = kept(done.folder)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"lr": 0.002}, "scratch holds a run with another configuration .train.lr: 0.005 → 0.002."),
        ({"seed": 3}, "scratch holds a run with another configuration .seed: 0 → 3."),
        ({"temperature": 4.0}, "pretrain holds .*guide.temperature: 2.0 → 4.0."),
        ({"kd_loss": "mse"}, "pretrain holds .*guide.kd_loss: soft → mse."),
        ({"transfer_set": None}, "pretrain holds .*guide.transfer_set: [0-9a-f]{32} → None."),
        ({"transfer_set": str(tmp_path / "second.npz")}, "pretrain holds .*guide.transfer_set: "),
        ({"pretrain": {"lr": 0.03}}, "pretrain holds .*train.lr: 0.005 → 0.03."),
        ({"finetune": {"epochs": 2, "lr": 0.01}}, "finetune holds .*train.lr: 0.001 → 0.01."),
        ({"finetune": {"epochs": 3}}, "finetune holds .*train.epochs: 2 → 3."),
        ({"scratch": False}, r"holds a distillation of other stages \(scratch\) than pretrain, finetune.*--out"),
        ({"joint": True, "transfer_set": None}, r"other stages \(finetune, pretrain\) than scratch, joint"),
    ]
    for options, told in changes:
        with pytest.raises(RunError, match=told):
            go(settings(**({"transfer_set": str(tmp_path / "first.npz")} | options)), resume=True)
        assert kept(done.folder) == before
    other = Teacher.of_runs([teachers(seed=1)])
    with pytest.raises(RunError, match=r"pretrain holds a run with another configuration .guide.teacher.digest: "):
        go(settings(transfer_set=str(tmp_path / "first.npz")), teacher=other, resume=True)
    assert kept(done.folder) == before


def test_a_teacher_may_be_moved(go: Go, finished: Go, settings: Settings, teachers: Files, tmp_path: Path) -> None:
    shutil.copytree(teachers(), tmp_path / "first")
    with pytest.raises(KeyboardInterrupt):
        go(settings(), teacher=Teacher.of_runs([tmp_path / "first"]), on_stage=stop_in("pretrain", 1))
    (tmp_path / "first").rename(tmp_path / "second")
    done = go(settings(), teacher=Teacher.of_runs([tmp_path / "second"]), resume=True)
    assert weights(done.final) == weights(finished(settings()).final)


# --- a real process, killed ---


def _start(npz: Path, teacher: Path, folder: Path, cache: Path) -> "subprocess.Popen[bytes]":
    options = ["--student", "vit_4q1h", "--epochs", "12", "--finetune", "epochs=12", "--set", "batch_size=2"]
    options += ["--set", "dropout=0.2", "--teacher", str(teacher), "--cache", str(cache), "--no-scratch", "--resume"]
    options += ["--mixtures", "40"]
    command = [sys.executable, "-m", "qvit", "distill", str(npz), *options, "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def test_killed_processes_resume_bit_identically(files: Files, teachers: Files, tmp_path: Path) -> None:
    """Once in either stage."""
    cache = tmp_path / "cache"
    parts = tmp_path / "parts"
    for stage in ("pretrain", "finetune"):
        process = _start(files(), teachers(), parts, cache)
        metrics = parts / stage / "metrics.jsonl"
        deadline = time.monotonic() + 600
        while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        assert not Run(parts / stage).finished
        assert len(Run(parts / stage).history) >= 1
    given: dict[str, Any] = {"dataset": str(files()), "model": "vit_4q1h", "epochs": 12, "batch_size": 2}
    given |= {"dropout": 0.2, "mixtures": 40}
    config = resolve_distillation(given | {"finetune": {"epochs": 12}, "scratch": False})
    teacher = Teacher.of_runs([teachers()])
    distill(config, teacher, parts, cache=cache, resume=True)
    whole = distill(config, teacher, tmp_path / "whole", cache=tmp_path / "other")
    assert kept(parts) == kept(whole.folder)


# --- mistakes ---


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"alpha": 0.7}, "In stages the first learns from the teacher alone, alpha=1, got 0.7.*--joint"),
        ({"joint": True, "transfer_set": "phantom"}, "have no labels.*leave --joint out"),
        ({"joint": True, "mixtures": 9}, "have no labels.*leave --joint out"),
        ({"transfer_set": "phantom", "mixtures": 9}, "Both a transfer set and mixtures were asked for"),
        ({"mixtures": -1}, "mixtures must be zero or more images, got -1"),
        ({"joint": True, "finetune": {"lr": 0.1}}, "Learning jointly there are no stages"),
        ({"joint": True, "pretrain": {"lr": 0.1}}, "Learning jointly there are no stages"),
        ({"pretrain": {"epoch": 3}}, "no option 'epoch' for pretrain. Did you mean 'epochs'"),
        ({"finetune": {"model": "vit_4q1h"}}, "no option 'model' for finetune"),
        ({"finetune": {"lr": -1}}, "lr must be positive, got -1"),
        ({"pretrain": {"epochs": "many"}}, "Option epochs='many'"),
        ({"finetune": 3}, "finetune must hold `key: value` options"),
        ({"temprature": 3}, "no option 'temprature'. Did you mean 'temperature'"),
        ({"teacher": "x"}, "no option 'teacher'"),
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"kd_loss": "softer"}, "Option kd_loss='softer'"),
        ({"joint": "sometimes"}, "Option joint='sometimes'"),
        ({"scratch": 7}, "Option scratch=7"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        resolve_distillation({"dataset": "phantom"} | options)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_options_of_a_stage_are_checked_however_they_come(stage: str) -> None:
    with pytest.raises(ConfigError, match=rf"There is no option 'epoch' for {stage}\. Did you mean 'epochs'\?"):
        DistillationConfig(RunConfig("phantom"), **{stage: {"epoch": 3}})
    with pytest.raises(ConfigError, match="epochs must be at least 1, got 0"):
        DistillationConfig(RunConfig("phantom"), **{stage: {"epochs": 0}})


MISTAKES: dict[str, tuple[dict[str, Any], type[QvitError], str]] = {
    "loss of teaching": ({"kd_loss": "ordinal"}, ConfigError, "kd_loss='ordinal' does not fit a multi-class task"),
    "loss of labels": ({"task": "multi-label", "kd_loss": "decoupled"}, ConfigError, "does not fit a multi-label"),
    "loss of a stage": ({"finetune": {"loss": "emd"}}, ConfigError, "loss='emd' does not fit a multi-class task"),
    "device": ({"finetune": {"device": "gpu"}}, ConfigError, "device='gpu' cannot be used here"),
    "student": ({"model": "qvit_4q3x"}, ConfigError, "There is no model 'qvit_4q3x'. Did you mean"),
    "option of the student": ({"model": "resnet18", "n_layers": 3}, ConfigError, "resnet18 has no option 'n_layers'"),
    "patches": ({"patch_size": 3}, QvitError, "img_size=8 is not divisible by patch_size=3"),
    "no ViT": ({"model": "resnet18", "width": 0.0625, "attention_weight": 1.0}, ConfigError, "student .* is none"),
    "dataset": ({"dataset": "phantm"}, ConfigError, "Did you mean 'phantom'"),
    "no images to transfer": ({"transfer_set": "nowhere.npz"}, DataError, "nowhere.npz.*nothing there"),
    "size of images to transfer": ({"transfer_set": "phantom"}, ConfigError, "8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found_before_anything_is_trained(
    go: Go, settings: Settings, tmp_path: Path, mistake: str
) -> None:
    options, error, told = MISTAKES[mistake]
    task = options.get("task", "multi-class")
    with pytest.raises(error, match=told):
        go(settings(task, **{key: value for key, value in options.items() if key != "task"}))
    assert list(tmp_path.iterdir()) == []


def test_teachers_that_do_not_fit(go: Go, settings: Settings, teachers: Files, tmp_path: Path) -> None:
    of_two = Teacher.of_runs([teachers("binary")])
    with pytest.raises(ConfigError, match=r"The teacher's logits for one image are \(1, 2\).*has 3 classes"):
        go(settings(), teacher=of_two)
    no_vit = Teacher.of_runs([teachers(model="resnet18", width=0.0625, epochs=1)])
    with pytest.raises(ConfigError, match="Attention transfer needs a ViT, and the teacher"):
        go(settings(attention_weight=1.0), teacher=no_vit)
    with pytest.raises(ConfigError, match="The teacher cannot read these images"):
        go(settings(), teacher=Teacher.of_module(create_model("vit_4q1h", num_classes=3, img_size=28)))
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_without_its_predictions(go: Go, settings: Settings, teachers: Files, tmp_path: Path) -> None:
    """They are needed last of all, but missed first."""
    folder = tmp_path / "teacher"
    shutil.copytree(teachers(), folder)
    for path in folder.glob("*_test_*.csv"):
        path.unlink()
    with pytest.raises(RunError, match="Expected one prediction file of the test split"):
        go(settings(), teacher=Teacher.of_runs([folder]))
    assert list(tmp_path.iterdir()) == [folder]


def test_data_on_which_nothing_can_be_measured(go: Go, settings: Settings, tmp_path: Path) -> None:
    arrays = make_arrays()
    np.savez(tmp_path / "one.npz", **(arrays | {"val_labels": np.zeros_like(arrays["val_labels"])}))
    with pytest.raises(DataError, match="at least two classes in val_labels"):
        go(settings(dataset=str(tmp_path / "one.npz")))
    assert not (tmp_path / "out").exists()


def test_a_cache_that_cannot_be(go: Go, settings: Settings, files: Files, tmp_path: Path) -> None:
    """It is needed after the run from scratch, but missed before."""
    with pytest.raises(RunError, match=r"Cannot use .*made.*/x as a folder of teacher outputs: .*--cache"):
        go(settings(), cache=files() / "x")
    assert list(tmp_path.iterdir()) == []
    assert go(settings(joint=True, alpha=0.0), cache=files() / "x").final.finished, "labels alone need none"


def test_folders_of_other_things(go: Go, settings: Settings, files: Files, tmp_path: Path) -> None:
    done = go(settings())
    before = kept(done.folder)
    with pytest.raises(RunError, match=r"out already holds a finished distillation.*--resume.*--out"):
        go(settings())
    (done.folder / RESULT).unlink()
    with pytest.raises(RunError, match=r"out already holds a started distillation"):
        go(settings())
    (tmp_path / "strange" / "scratch").mkdir(parents=True)
    (tmp_path / "strange" / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(
            RunError, match=r"scratch holds other things \(.*config.json.*\); choose another with --out"
        ):
            go(settings(), "out/scratch", resume=resume)
        with pytest.raises(RunError, match=r"holds other things \(notes.txt\)"):
            go(settings(), "strange", resume=resume)
        with pytest.raises(RunError, match=r"Cannot use .*made.*npz"):
            distill(settings(), _any_teacher(), files(), cache=tmp_path / "cache", resume=resume)
        with pytest.raises(RunError, match=r"Cannot use .*made.*npz/x"):
            distill(settings(), _any_teacher(), files() / "x", cache=tmp_path / "cache", resume=resume)
    assert kept(done.folder) == {name: content for name, content in before.items() if name != RESULT}
    assert {path.name for path in (tmp_path / "strange").rglob("*")} == {"scratch", "notes.txt"}
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / ".hidden").write_text("")
    assert go(settings(epochs=1, scratch=False), "fresh").final.finished, "an empty folder will do"


def _any_teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher.of_module(Own())
