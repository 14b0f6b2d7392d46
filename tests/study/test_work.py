"""One run of a study: what is done with what a worker is told, and what is read of its folder afterwards."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvit.distill import Teacher
from qvit.errors import RunError
from qvit.study.outcome import Outcome, read_outcome
from qvit.study.work import Work, execute, execute_together
from study.made import finish

# --- doing it ---


def work_of(folder: Path, **options: Any) -> Work:
    given = {"dataset": "phantom", "model": "vit_4q1h", "epochs": 2} | options
    return Work("identity", "name", given, folder, folder.parent / "outputs", root=folder.parent / "root")


Told = dict[str, Any]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """What `train_run` is asked for; it finishes the run at once, and warns."""
    asked: list[Told] = []

    def train_run(config: Any, folder: Path, **options: Any) -> None:
        asked.append({"config": config, "folder": folder} | options)
        if options["on_epoch"] is not None:
            for epoch in (1, 2):
                options["on_epoch"](SimpleNamespace(epoch=epoch), 0.5)
        for said in ("one", "other", "one"):
            warnings.warn(said, stacklevel=1)
        finish(folder)

    monkeypatch.setattr("qvit.training.run.train_run", train_run)
    return asked


def test_a_run_is_trained_from_where_it_stopped(trained: list[Told], tmp_path: Path) -> None:
    heard: list[Any] = []
    outcome = execute(work_of(tmp_path / "a", lr=0.25), lambda *told: heard.append(told))
    [asked] = trained
    assert (asked["config"].model, asked["config"].train.lr) == ("vit_4q1h", 0.25)
    assert (asked["folder"], asked["root"]) == (tmp_path / "a", tmp_path / "root")
    assert (asked["download"], asked["resume"]) == (True, True)
    assert heard == [("train", 1, 2), ("train", 2, 2)]
    assert outcome == Outcome(finish(tmp_path / "a"), 3.0, ("one", "other")), "each warning once"
    execute(replace(work_of(tmp_path / "b"), download=False))
    assert (trained[1]["download"], trained[1]["on_epoch"]) == (False, None)


def test_a_student_learns_from_its_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Told] = []

    def distill(config: Any, teacher: Any, folder: Path, **options: Any) -> None:
        asked.append({"config": config, "teacher": teacher, "folder": folder} | options)
        for stage, epochs in (("pretrain", 3), ("finetune", 7)):
            tell = options["on_stage"](stage, epochs)
            if tell is not None:
                tell(SimpleNamespace(epoch=1), 0.5)
        finish(folder / "finetune")
        (folder / "distillation.json").write_text("{}")

    def of_runs(folders: Any, *, device: str) -> Any:
        return SimpleNamespace(folders=folders, device=device)

    monkeypatch.setattr("qvit.distill.distill", distill)
    monkeypatch.setattr(Teacher, "of_runs", of_runs)
    heard: list[Any] = []
    teachers = (tmp_path / "t1", tmp_path / "t2")
    work = replace(work_of(tmp_path / "a", temperature=3.0, device="meta"), teachers=teachers)
    outcome = execute(work, lambda *told: heard.append(told))
    [said] = asked
    assert (said["config"].how.temperature, said["config"].student.model) == (3.0, "vit_4q1h")
    assert (said["teacher"].folders, said["teacher"].device) == (teachers, "meta")
    assert (said["folder"], said["cache"], said["root"]) == (tmp_path / "a", tmp_path / "outputs", tmp_path / "root")
    assert (said["download"], said["resume"]) == (True, True)
    assert heard == [("pretrain", 1, 3), ("finetune", 1, 7)]
    assert outcome.seconds == 3.0
    execute(work)
    assert len(heard) == 2, "nobody listens"


@pytest.mark.trains
def test_what_training_leaves_is_read(make_npz: Callable[..., Path], tmp_path: Path) -> None:
    work = replace(work_of(tmp_path / "a", dataset=str(make_npz()), epochs=1), root=None, download=False)
    done = execute(replace(work, options=work.options | {"model": "qvit_4q1h", "ansatz": "strongly_entangling"}))
    found = read_outcome(work.folder, distilled=False)
    assert found is not None
    assert (found.result, found.seconds) == (done.result, done.seconds)
    [said] = done.warnings
    assert "cannot influence" in said or "weight" in said


# --- several ---


@pytest.mark.trains
@pytest.mark.slow("trains three models on phantoms")
def test_runs_of_a_stack_are_those_of_each_by_itself(tmp_path: Path) -> None:
    """One of them cannot be: its folder holds something else."""
    works = [replace(work_of(tmp_path / f"s{seed}", seed=seed, stacked=True), identity=f"s{seed}") for seed in range(3)]
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "letter.txt").touch()
    heard: list[Any] = []
    found = dict(execute_together(replace(works[0], others=tuple(works[1:])), lambda *told: heard.append(told)))
    assert heard == [("s0", "train", 1, 2), ("s2", "train", 1, 2), ("s0", "train", 2, 2), ("s2", "train", 2, 2)]
    assert isinstance(found["s1"], RunError)
    alone = execute(replace(works[2], folder=tmp_path / "alone"))
    assert isinstance(found["s2"], Outcome)
    assert found["s2"].result == alone.result
    assert found["s2"].result != found["s0"].result  # type: ignore[union-attr]


def test_students_of_a_stack_learn_from_their_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Told] = []

    def distill_many(students: Any, teacher: Any, **options: Any) -> list[Any]:
        asked.append({"students": students, "teacher": teacher} | options)
        for place, student in enumerate(students):
            options["on_stage"]("finetune", 7)(place, SimpleNamespace(epoch=1), 0.5)
            finish(student.folder / "finetune")
            (student.folder / "distillation.json").write_text("{}")
        return [None, RunError("no")]

    monkeypatch.setattr("qvit.distill.distill_many", distill_many)
    monkeypatch.setattr(Teacher, "of_runs", lambda folders, *, device: (folders, device))
    options = {"teachers": (tmp_path / "t",), "memory": 0.5}
    works = [
        replace(work_of(tmp_path / f"s{seed}", seed=seed, temperature=3.0), identity=f"s{seed}", **options)
        for seed in range(2)
    ]
    heard: list[Any] = []
    found = dict(execute_together(replace(works[0], others=(works[1],)), lambda *told: heard.append(told)))
    [said] = asked
    assert [(one.folder.name, one.config.student.seed, one.config.how.temperature) for one in said["students"]] == [
        ("s0", 0, 3.0),
        ("s1", 1, 3.0),
    ]
    assert said["teacher"] == ((tmp_path / "t",), "cpu")
    assert (said["cache"], said["memory"], said["resume"]) == (tmp_path / "outputs", 0.5, True)
    assert heard == [("s0", "finetune", 1, 7), ("s1", "finetune", 1, 7)]
    assert isinstance(found["s0"], Outcome)
    assert str(found["s1"]) == "no"
