"""A run of several processes has the numbers of one, writes once, and fails as one.

Threads stand in for processes where nothing but their numbers counts; the slow tests start two real ones, `pair.py`.
"""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.distill import DistillConfig, Teacher
from qvit.distill.guide import TeacherGuide
from qvit.errors import ConfigError
from qvit.models.zoo import Model
from qvit.training import together
from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.distributed import Team
from qvit.training.folder import Run
from qvit.training.objective import Objective
from qvit.training.options import RunConfig, resolve
from qvit.training.run import train_run
from qvit.training.seeding import NOISE, derive
from training.threads import Room

pytestmark = pytest.mark.trains

Kept = Callable[[Path], dict[str, bytes]]
LIMIT = 600  # seconds: ends what hangs; torch itself would wait for half an hour
# 37 images: in batches of 8 the last share is 2 of 5 images.
OPTIONS: dict[str, dict[str, Any]] = {
    "circuits": {"model": "qvit_4q1h", "epochs": 1, "augment": "d4"},
    "grades": {
        "dataset": "ordinal",
        "task": "ordinal",
        "loss": "ce+emd",
        "distort": 1.0,
        "mixup": 0.5,
        "tta": "always",
        "augment": "mirror",
        "patience": 1,
        "clip_norm": 0.1,
    },
    "odd": {"weight_decay": 0.3, "tta": "never"},
    "teacher": {"augment": "mirror", "mixup": 0.5, "keep": "last", "average": 2},
}


class Mapped(nn.Module):
    """The labels' loss of logits that go through a learned map."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.map = nn.Linear(classes, classes)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.map(model(batch.images)), batch.labels[:, 0], reduction="none")


class MappedGuide:
    """Asks for `Mapped`, whose first weights are another process's own."""

    described: dict[str, Any] = {"name": "mapped"}  # noqa: RUF012

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank
        self.objective = Mapped(4)

    def prepare(self, model: Model, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        with torch.no_grad():
            self.objective.map.weight.copy_(torch.eye(4) + self.rank)
            self.objective.map.bias.fill_(self.rank)
        return data, self.objective


def settings(folder: Path, name: str, **more: Any) -> RunConfig:
    options = {"dataset": "multi-class", "model": "vit_4q1h", "batch_size": 8, "epochs": 2} | OPTIONS[name] | more
    return resolve(options | {"dataset": str(folder / f"{options['dataset']}.npz")})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_arrays: Callable[..., Any], finished: Path) -> Path:
    """Made-up data, and a teacher."""
    folder = tmp_path_factory.mktemp("distributed")
    for task in ("multi-class", "ordinal"):
        np.savez(folder / f"{task}.npz", **make_arrays(task))
    shutil.copytree(finished / "run", folder / "teacher-run")
    return folder


def guide_of(name: str, folder: Path, cache: Path, rank: int, views: list[int]) -> Any:
    if name == "odd":
        return MappedGuide(rank)
    if name == "teacher":
        teacher, how = Teacher.of_runs([folder / "teacher-run"]), DistillConfig(feature_weight=0.5)
        return TeacherGuide(teacher, how, cache=cache, on_views=lambda done, _: views.append(done))
    return None


def train(folder: Path, place: Path, name: str, team: Team) -> dict[str, Any]:
    """Make a run; returns what this process, or thread, saw besides."""
    epochs: list[int] = []
    views: list[int] = []
    guide = guide_of(name, folder, place / ".outputs", team.rank, views)
    note = functools.partial(lambda record, _: epochs.append(record.epoch))
    run = train_run(settings(folder, name), place / name, guide=guide, on_epoch=note)
    assert run.finished
    learned = {key: value.tolist() for key, value in guide.objective.state_dict().items()} if name == "odd" else {}
    return {"epochs": epochs, "views": views, "learned": learned}


@pytest.mark.parametrize("name", OPTIONS)
def test_numbers_of_one_process(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    room = Room(monkeypatch, 2)
    alone = train(folder, tmp_path / "one", name, Team())
    lead, other = room.together(lambda team: train(folder, tmp_path / "two", name, team))
    one, two = Run(tmp_path / "one" / name), Run(tmp_path / "two" / name)
    assert two.config == one.config
    assert len(two.history) == len(one.history)
    for ours, theirs in zip(two.history, one.history, strict=True):
        assert ours.tta == theirs.tta
        numbers = ({key: value for key, value in vars(one).items() if key != "tta"} for one in (ours, theirs))
        assert next(numbers) == pytest.approx(next(numbers), abs=1e-5, rel=0)
    for split in ("val", "test"):
        np.testing.assert_allclose(two.predictions(split), one.predictions(split), atol=1e-4, rtol=0)
    assert two.result.best_epoch == one.result.best_epoch
    for metric in ("auc", "acc"):
        assert getattr(two.result.test, metric) == pytest.approx(getattr(one.result.test, metric), abs=1e-5)
    names = [sorted(path.name for path in run.folder.iterdir()) for run in (one, two)]
    assert names[0] == names[1]
    assert "processes" not in json.loads((one.folder / "environment.json").read_text())
    assert json.loads((two.folder / "environment.json").read_text())["processes"] == 2
    assert (lead["epochs"], other["epochs"]) == (alone["epochs"], []), "one speaks"
    assert (lead["views"], other["views"]) == (alone["views"], []), "the teacher is asked once"
    assert lead["learned"] == other["learned"]
    for key, value in alone["learned"].items():
        np.testing.assert_allclose(lead["learned"][key], value, atol=1e-5)


def test_a_stack_is_trained_by_one_process(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(settings(folder, "circuits"), stacked=True)
    told = "stacked: a stack is trained by one process. Leave stacked out, or start one process."
    errors = Room(monkeypatch, 2).together(lambda team: train_run(config, tmp_path / "run"))
    assert [(type(error), str(error)) for error in errors] == [(ConfigError, told)] * 2
    assert not (tmp_path / "run").exists()


def test_noise_is_each_processes_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nudged: None
) -> None:
    seeds: list[list[int]] = [[], []]
    room, made = Room(monkeypatch, 2), together.seeded
    rank = lambda: room.mine.rank  # noqa: E731

    def seeded(seed: int, *place: int, alone: bool) -> Any:
        seeds[rank()].append(derive(seed, *place))
        return made(seed, *place, alone=alone)

    monkeypatch.setattr(together, "seeded", seeded)
    room.together(lambda team: train(folder, tmp_path, "odd", team))
    assert seeds[0] == [derive(0, NOISE, epoch) for epoch in range(2)], "those of one process alone"
    assert seeds[1] == [derive(0, NOISE, epoch, 1) for epoch in range(2)]


def test_what_is_refused_is_refused_in_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nudged: None
) -> None:
    room = Room(monkeypatch, 2)

    def said(**options: Any) -> list[str]:
        place = options.pop("place", tmp_path / "run")
        errors = room.together(lambda team: train_run(settings(folder, "odd", **options), place))
        return [f"{type(error).__name__}: {error}" for error in errors]

    with monkeypatch.context() as patch:
        patch.setattr("qvit.training.run.fresh", lambda *_: nn.BatchNorm1d(3))
        norms = said()
    assert norms[0] == norms[1]
    assert norms[0].startswith(
        "ConfigError: This model has batch normalisation, whose statistics cannot be taken over 2 "
    )
    assert not (tmp_path / "run").exists()
    told = f"{folder} is not empty and not a run folder; choose another with --out."
    assert said(place=folder) == [f"RunError: {told}", f"RunError: Process 0: {told}"]
    with monkeypatch.context() as patch:
        patch.setattr("qvit.training.run._load", lambda *_, **__: 1 // (1 - room.mine.rank))
        told = "ZeroDivisionError: integer division or modulo by zero"
        assert said()[1:] == [told]
        assert said()[:1] == [f"RunError: Process 1: {told}"]


# --- two real processes ---


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, make_arrays: Callable[..., Any]) -> dict[str, Any]:
    """What two processes said after one of another two was killed."""
    folder = tmp_path_factory.mktemp("pair")
    np.savez(folder / "cells.npz", **make_arrays())
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    program = str(Path(__file__).with_name("pair.py"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    # By themselves: torchrun would end the one that is left.
    both = [start((sys.executable, program, "die", str(folder)), **place, RANK=str(rank)) for rank in range(2)]
    died = [end(process) for process in both]
    history = len(Run(folder / "killed").history)
    went = end(start((*torchrun, program, "go", str(folder))))
    assert went[0] == 0, went[2]
    said = [json.loads((folder / f"go-{rank}.json").read_text()) for rank in range(2)]
    told = json.loads((folder / "die-0.json").read_text())
    return {"folder": folder, "died": died, "told": told, "history": history, "said": said}


def start(command: tuple[str, ...], **variables: str) -> "subprocess.Popen[str]":
    ours = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.Popen(
        command,
        env=ours | {"OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for a process; returns its exit code, and what it said on stdout and on stderr."""
    try:
        out, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun then ends its processes; killed, it would leave them behind
        out, errors = process.communicate(timeout=LIMIT)
        pytest.fail(f"no end after {LIMIT} seconds: {errors}")
    return process.returncode, out, errors


@pytest.mark.slow("two processes that train together are started twice, and each imports torch")
@pytest.mark.processes
def test_two_processes_train_stop_and_go_on_as_one(pair: dict[str, Any], kept: Kept) -> None:
    folder, (lead, other) = pair["folder"], pair["said"]
    assert lead["weights"] == other["weights"]
    assert len(set(lead["weights"])) == 3, "an epoch's are the same in every run"
    assert len(lead["weights"]) == 3 + 2 + 2 + 1, "of the whole, the killed, the stopped and the resumed run"
    assert (lead["epochs"], other["epochs"]) == ([1, 2, 3], [])
    # one was killed
    (code, _, errors), (killed, _, _) = pair["died"]
    assert killed == -signal.SIGKILL
    assert code == 0, errors
    assert pair["told"].startswith("RunError: The processes of this run lost each other (")
    assert pair["history"] == 1
    assert lead["killed"] is other["killed"] is None
    assert kept(folder / "killed") == kept(folder / "whole")
    # one was stopped
    assert (lead["stopped"], other["stopped"]) == ("OSError: stopped", "RunError: Process 0: OSError: stopped")
    told = (
        f"Error: {folder / 'stopped'} already holds a started run. Go on with it by --resume, or choose another folder "
        "with --out."
    )
    assert lead["refused"] == [2, "", f"{told}\n"]
    assert other["refused"] == [2, "", ""], "an error is told once"
    assert kept(folder / "stopped") == kept(folder / "whole")
    assert (lead["resumed"][0], other["resumed"]) == (0, [0, "", ""])
    assert json.loads(lead["resumed"][1])["best_epoch"] == Run(folder / "whole").result.best_epoch
    # a group of their own
    assert lead["group"] is other["group"] is True
    assert lead["shares"] == other["shares"] == [[0, 1, 2], [3, 4]]
    assert lead["gathered"] == other["gathered"] == [0.0, 1.0, 2.0]
