"""The stages of a distillation: which there are, what each run is given, and on which images it learns.

The runs themselves are stood in for by copies of a finished one.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.data.mixtures import mix_images
from qvit.data.options import DEFAULTS
from qvit.distill import Distillation, DistillationConfig, DistillConfig, Teacher, distill, pipeline
from qvit.distill.pipeline import FINETUNE, RESULT
from qvit.errors import RunError
from qvit.training.folder import Run
from qvit.training.options import RunConfig

pytestmark = pytest.mark.usefixtures("uncounted")
Settings = Callable[..., DistillationConfig]
Go = Callable[..., Distillation]


@dataclass
class Call:
    """What one run was given."""

    stage: str
    config: RunConfig
    given: dict[str, Any]


@pytest.fixture
def calls(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The runs that are asked for, each then a copy of a finished one."""
    heard: list[Call] = []

    def stand_in(config: RunConfig, folder: Path, **given: Any) -> Run:
        heard.append(Call(folder.name, config, given))
        shutil.copytree(make_run().folder, folder, dirs_exist_ok=True)
        return Run(folder)

    monkeypatch.setattr(pipeline, "train_run", stand_in)
    return heard


@pytest.fixture
def go(calls: list[Call], run_teacher: Teacher, tmp_path: Path) -> Go:
    def run(config: DistillationConfig, name: str = "out", **options: Any) -> Distillation:
        given = {"cache": tmp_path / "cache"} | options
        return distill(config, given.pop("teacher", run_teacher), tmp_path / name, **given)

    return run


# --- which there are ---


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, ("scratch", "pretrain", "finetune")),
        ({"scratch": False}, ("pretrain", "finetune")),
        ({"joint": True}, ("scratch", "joint")),
        ({"joint": True, "scratch": False}, ("joint",)),
    ],
)
def test_every_stage_is_a_run_taught_by_labels_teacher_or_both(
    go: Go, settings: Settings, calls: list[Call], tmp_path: Path, options: dict[str, Any], stages: tuple[str, ...]
) -> None:
    config = settings(**options)
    done = go(config)
    assert config.stages == tuple(done.runs) == tuple(call.stage for call in calls) == stages
    assert [run.folder for run in done.runs.values()] == [tmp_path / "out" / stage for stage in stages]
    assert done.folder == tmp_path / "out"
    assert done.final is done.runs[stages[-1]]
    assert list(done.measures.test) == list(stages)
    for call in calls:
        assert call.config == config.of(call.stage)
        assert (call.given["guide"] is not None) == (call.stage in ("pretrain", "joint"))
        assert call.given["origin"] is (done.runs["pretrain"] if call.stage == "finetune" else None)
        told = {key: value for key, value in call.given.items() if key not in ("guide", "origin")}
        assert told == {"root": None, "download": True, "resume": False, "on_epoch": None}


def test_the_measures_are_written_last_and_as_they_are_returned(
    go: Go, settings: Settings, run_teacher: Teacher, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    for name in (f".{RESULT}.12345678.part", ".hidden", f".{RESULT}.part.txt"):
        (tmp_path / "out" / name).touch()
    done = go(settings(), teacher=replace(run_teacher, name="Émile"))
    written = (tmp_path / "out" / RESULT).read_text(encoding="utf-8")
    assert RESULT == "distillation.json"
    assert json.loads(written) == done.measures.as_json()
    assert written.startswith('{\n  "teacher": {\n    "name": "Émile",\n')
    assert written.endswith("\n}\n")
    hidden = {path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")}
    assert hidden == {".hidden", f".{RESULT}.part.txt"}, "what a killed process left of the file is swept up"


# --- what each is given ---


def test_a_stage_has_the_students_options_and_its_own_over_them(settings: Settings) -> None:
    pretrain, finetune = {"epochs": 2, "lr": 0.012, "weight_decay": 0.3}, {"epochs": 7, "label_smoothing": 0.1}
    config = settings(lr=0.011, seed=5, pretrain=pretrain, finetune=finetune)
    train = asdict(config.student.train)
    assert {stage: asdict(config.of(stage).train) for stage in config.stages} == {
        "scratch": train,
        "pretrain": train | pretrain,
        "finetune": train | {"lr": 1e-3} | finetune,
    }
    assert all(replace(config.of(stage), train=config.student.train) == config.student for stage in config.stages)
    joint = settings(joint=True, lr=0.011)
    assert joint.of("joint") == joint.student


def test_what_a_stage_has_if_nothing_is_said(settings: Settings) -> None:
    config = settings(finetune=None, lr=0.02)
    assert config.of("scratch") == config.of("pretrain") == config.student
    assert config.of("finetune") == replace(config.student, train=replace(config.student.train, lr=1e-3, epochs=50))
    assert FINETUNE == {"lr": 1e-3, "epochs": 50}
    assert asdict(DistillationConfig(RunConfig("phantom"))) == {
        "student": asdict(RunConfig("phantom")),
        "how": asdict(DistillConfig(alpha=1.0)),
        "joint": False,
        "pretrain": {},
        "finetune": {},
        "transfer_set": None,
        "mixtures": None,
        "scratch": True,
    }


@pytest.mark.long
def test_options_of_all_runs_reach_every_one(
    go: Go, settings: Settings, calls: list[Call], make_data: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, asked = make_data(), []

    def load(*names: Any, **options: Any) -> Any:
        asked.append((*names, options))
        return (Split(data.train.images, -data.train.labels), "some") if "channels" in options else data

    monkeypatch.setattr("qvit.training.options.load_dataset", load)
    monkeypatch.setattr(pipeline, "load_images", load)
    config = settings(dataset="bloodmnist", transfer_set="pathmnist", size=28)
    go(config, root="data", download=False, resume=True)
    where = {"root": "data", "download": False}
    assert [call.given["resume"] for call in calls] == [True] * 3
    assert [{key: call.given[key] for key in where} for call in calls] == [where] * 3
    like = {"size": 28, "task": "multi-class", "importing": DEFAULTS}
    assert asked == [
        ("bloodmnist", like | where),
        ("pathmnist", {"size": 12, "channels": 3} | where),
    ]
    go(settings(dataset="bloodmnist"), "again")
    assert asked[2:] == [("bloodmnist", like | {"root": None, "download": True})]


def test_callbacks_hear_of_every_stage(go: Go, settings: Settings, calls: list[Call]) -> None:
    told: list[tuple[str, int]] = []

    def on_stage(stage: str, epochs: int) -> Callable[[dict[str, Any], float], None] | None:
        told.append((stage, epochs))
        return None if stage == "scratch" else lambda record, seconds: told.append((stage, record.epoch))

    go(settings(epochs=3, finetune={"epochs": 2}), on_stage=on_stage)
    assert told == [("scratch", 3), ("pretrain", 3), ("finetune", 2)]
    assert calls[0].given["on_epoch"] is None
    for call in calls[1:]:
        call.given["on_epoch"](SimpleNamespace(epoch=9), 0.1)
    assert told[3:] == [("pretrain", 9), ("finetune", 9)]


def test_the_guide_is_the_teacher_with_what_was_said_of_it(
    go: Go, settings: Settings, calls: list[Call], run_teacher: Teacher, tmp_path: Path
) -> None:
    def on_views(done: int, total: int) -> None: ...

    config = settings(temperature=3.0, feature_weight=0.5)
    go(config, on_views=on_views)
    guide = calls[1].given["guide"]
    assert guide.teacher is run_teacher
    assert guide.config is config.how
    assert guide.config == DistillConfig(temperature=3.0, feature_weight=0.5)
    assert guide.transfer is None
    assert guide.cache == tmp_path / "cache"
    assert guide.on_views is on_views


def test_runs_have_the_students_threads(go: Go, settings: Settings, calls: list[Call]) -> None:
    seen: list[int] = []
    go(settings(threads=2, joint=True), on_stage=lambda *_: seen.append(torch.get_num_threads()))
    assert seen == [2, 2]
    assert torch.get_num_threads() == 1


def test_labels_alone_need_no_cache(go: Go, settings: Settings, calls: list[Call], make_npz: Any) -> None:
    assert go(settings(joint=True, alpha=0.0), cache=make_npz() / "x").final.finished
    assert calls[1].given["guide"].config.alpha == 0.0


# --- on which images ---


@pytest.mark.parametrize(
    ("options", "images", "mixed"),
    [
        ({}, 3999, 4000),
        ({}, 4000, 0),
        ({"joint": True}, 10, 0),
        ({"mixtures": 7}, 10, 7),
        ({"mixtures": 7}, 9999, 7),
        ({"mixtures": 0}, 10, 0),
        ({"mixtures": 1_000_000}, 10, 1_000_000),
    ],
)
def test_mixtures_are_made_where_images_are_few_or_as_many_as_said(
    options: dict[str, Any], images: int, mixed: int
) -> None:
    assert DistillationConfig(RunConfig("phantom"), **options).mixed(images) == mixed


@pytest.mark.parametrize(("mixtures", "few", "made"), [(29, 0, 29), (None, 22, 22), (None, 21, None)])
def test_mixtures_are_of_the_images_to_train_on(
    go: Go,
    settings: Settings,
    calls: list[Call],
    monkeypatch: pytest.MonkeyPatch,
    mixtures: int | None,
    few: int,
    made: int | None,
) -> None:
    monkeypatch.setattr(pipeline, "FEW", few)
    config = settings(mixtures=mixtures, scratch=False)
    go(config)
    transfer = calls[0].given["guide"].transfer
    if made is None:
        assert transfer is None
        return
    expected = mix_images(load_dataset(config.student.dataset).train, made)
    assert np.array_equal(transfer[0].images, expected.images.images)
    assert transfer[0].labels.tolist() == [[-1]] * made
    assert transfer[1] == expected.digest


def grey(images: np.ndarray) -> np.ndarray:
    """The luma of ITU-R BT.601, rounded."""
    return ((images.astype(np.int64) @ np.array([299, 587, 114]) + 500) // 1000).astype(np.uint8)


@pytest.mark.long
@pytest.mark.parametrize("student", ["colour", "grey"])
def test_a_transfer_set_is_what_the_teacher_judges(
    go: Go, settings: Settings, calls: list[Call], make_npz: Any, make_run: Any, tmp_path: Path, student: str
) -> None:
    """Of another number than the images to train on, and of another colour."""
    others = np.random.default_rng(7).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "given.npz", train_images=others if student == "grey" else grey(others), train_labels=[5])
    dataset = make_npz(channels=1 if student == "grey" else 3)
    teacher = Teacher.of_runs([make_run(dataset).folder])
    config = settings(dataset=str(dataset), transfer_set=str(tmp_path / "given.npz"), mixtures=None)
    go(config, teacher=teacher)
    images, digest = calls[1].given["guide"].transfer
    expected = grey(others)[:, None].repeat(1 if student == "grey" else 3, axis=1)
    assert np.array_equal(images.images, expected)
    assert images.labels.tolist() == [[-1]] * 5
    assert len(digest) == 32
    assert [call.given["guide"] for call in calls if call.stage != "pretrain"] == [None, None]


def test_images_to_train_on_may_be_transferred(
    go: Go, settings: Settings, calls: list[Call], make_npz: Any, tmp_path: Path
) -> None:
    np.savez(tmp_path / "again.npz", images=np.load(make_npz())["train_images"][:3])
    go(settings(transfer_set=str(tmp_path / "again.npz"), scratch=False))
    assert len(calls[0].given["guide"].transfer[0]) == 3


# --- names ---


def test_names_that_cannot_be_written_down_are_refused_before_anything_is_made(
    go: Go, settings: Settings, calls: list[Call], make_run: Any, tmp_path: Path
) -> None:
    latin = os.fsdecode(b"\xe9")
    told = r"Expected a path whose name can be written down, found bytes that are no UTF-8 in '.*'\. Rename that\.$"
    with pytest.raises(RunError, match=told):
        go(settings(), name=latin)
    (tmp_path / latin).symlink_to(make_run().folder)
    with pytest.raises(RunError, match=told):
        Teacher.of_runs([tmp_path / latin])
    assert [path.name for path in tmp_path.iterdir()] == [latin]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"two\n{latin}").touch()
    with pytest.raises(RunError, match=r"out holds other things \('two\\n\\udce9'\); choose another with --out\.$"):
        go(settings())
    assert calls == []


# --- teachers ---


class Own(nn.Module):
    """A user's own network, that looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.float().mean(dim=(2, 3)) / 64.0
        return self.map(means) if float(means.detach().sum()) >= 0 else means


@pytest.mark.long
def test_a_module_is_asked_for_its_scores_in_the_end_and_not_before(
    go: Go, settings: Settings, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    scores = Teacher.scores

    def counted(self: Teacher, *arguments: Any) -> Any:
        asked.append(len(calls))
        return scores(self, *arguments)

    monkeypatch.setattr(Teacher, "scores", counted)
    go(settings(scratch=False), teacher=Teacher.of_module(Own(), name="means"))
    assert asked == [2]
    go(settings(scratch=False), "again")
    assert asked == [2, 2, 4], "what a run predicted is read before anything is trained: it may be missing"
