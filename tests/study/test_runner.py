"""Running a study: what it does, does again and leaves alone, and what it writes down for its report."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.errors import DataError, QvitError, RunError
from qvit.files import sole_user
from qvit.models.zoo import count_parameters, model_config
from qvit.report.arms import read_labels
from qvit.study import runner
from qvit.study.driver import StudyProgress
from qvit.study.outcome import final_run
from qvit.study.pool import Event
from qvit.study.reading import parse_study
from qvit.study.runner import Summary, run_study
from qvit.study.spec import Study
from qvit.study.store import FILE, Store, labels_file
from qvit.study.work import execute
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run
from study.inline import TAUGHT, InlinePool, MakeNpz, stored

Go = Callable[..., tuple[Summary, InlinePool]]
MakeStudy = Callable[..., Study]


@pytest.mark.trains
def test_runs_are_those_of_train_run(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    summary, pool = go(study(options={"epochs": 1}), does=execute)
    assert (summary.total, summary.finished, summary.done_now, summary.failed) == (2, 2, 2, {})
    assert pool.closed
    options = {job.name: job.options for job in study(options={"epochs": 1}).jobs}
    for job in stored(tmp_path / "study").values():
        assert job.options == options[job.name] | {"dataset": "first.npz"}, "what was asked for, and no place"
        alone = train_run(resolve(options[job.name]), tmp_path / job.model.label)
        assert final_run(job.folder, distilled=False).result == alone.result == job.result
        assert (job.folder / "model.safetensors").read_bytes() == alone.weights_path.read_bytes()
        assert job.seconds == pytest.approx(final_run(job.folder, distilled=False).seconds, abs=1e-3)


@pytest.mark.trains
def test_teachers_come_first_and_students_learn_from_them(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    summary, pool = go(study(**TAUGHT, options={"epochs": 1}), does=execute)
    assert summary.finished == 5
    assert pool.done[0] == "first vit_8q1h big seed 0"
    jobs = stored(tmp_path / "study")
    teacher, student = jobs["first vit_8q1h big seed 0"], jobs["first vit_4q1h kd seed 0"]
    assert student.teachers == (teacher.identity,)
    guide = json.loads((student.folder / "pretrain" / "config.json").read_text())["guide"]
    assert guide["teacher"]["found_at"] == [f"../../{teacher.folder.name}"]
    assert student.result == final_run(student.folder, distilled=True).result
    assert not (student.folder / "scratch").exists()
    assert list((tmp_path / "study" / "teacher-outputs").iterdir())


@pytest.mark.long
@pytest.mark.parametrize("forget", [False, True])
def test_what_is_finished_is_never_done_again(study: MakeStudy, go: Go, tmp_path: Path, forget: bool) -> None:
    go(study(**TAUGHT))
    before = {name: job.result for name, job in stored(tmp_path / "study").items()}
    if forget:
        (tmp_path / "study" / FILE).unlink()
    summary, pool = go(study(**TAUGHT))
    assert (summary.finished, summary.done_now, pool.done) == (5, 0, [])
    assert {name: job.result for name, job in stored(tmp_path / "study").items()} == before


@pytest.mark.long
def test_a_changed_study_does_just_what_is_new(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    go(study())
    _, pool = go(study(seeds=2))
    assert pool.done == ["first vit_4q1h scratch seed 1", "first cosine_4q1h scratch seed 1"]
    _, pool = go(study(seeds=2, overrides=[{"where": {"model": "vit*", "seed": 1}, "set": {"lr": 0.001}}]))
    assert pool.done == ["first vit_4q1h scratch seed 1"]
    summary, pool = go(study(models=["cosine_4q1h"]))
    assert (summary.total, pool.done) == (1, [])
    assert list(stored(tmp_path / "study")) == ["first cosine_4q1h scratch seed 0"]
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 5  # nothing is deleted


class StoppedError(Exception):
    """The driver's end, wherever it was."""


@pytest.mark.trains
def test_an_interrupted_run_goes_on_from_its_last_epoch(
    study: MakeStudy, go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = study(models=["vit_4q1h"], options={"epochs": 4})
    go(longer, folder=tmp_path / "whole", does=execute)

    def interrupt(progress: StudyProgress) -> None:
        for _, epoch, _ in progress.doing.values():
            if epoch == 2:
                raise StoppedError

    class Told(InlinePool):
        def events(self, timeout: float) -> list[Event]:
            work, self.waiting = self.waiting, None
            assert work is not None
            driver_hears = Event("epoch", work.identity, "here", None)

            def tell(*told: Any) -> None:
                if told[1] == 2:
                    raise StoppedError(driver_hears)

            execute(work, tell)
            raise AssertionError

    monkeypatch.setattr(runner, "_pool", lambda *arguments: Told())
    with pytest.raises(StoppedError):
        run_study(longer, tmp_path / "study", on_news=interrupt)
    epochs: list[int] = []

    class Watching(InlinePool):
        def events(self, timeout: float) -> list[Event]:
            found = super().events(timeout)
            epochs.extend(event.told[1] for event in found if event.kind == "epoch")
            return found

    monkeypatch.setattr(runner, "_pool", lambda *arguments: Watching(does=execute))
    run_study(longer, tmp_path / "study")
    assert epochs == [3, 4]
    (one,), (other,) = stored(tmp_path / "whole").values(), stored(tmp_path / "study").values()
    assert one.result == other.result


def unfinish(folder: Path) -> list[str]:
    """Leave a student from scratch and a taught one as if they had been killed in their last stage."""
    with Store.read(folder) as store:
        jobs = [job for job in store.jobs() if job.model.label == "vit_4q1h"]
    for job in jobs:
        final_run(job.folder, distilled=job.distilled).folder.joinpath("result.json").unlink()
        (job.folder / "distillation.json").unlink(missing_ok=True)
    return [job.name for job in jobs]


@pytest.mark.trains
def test_what_was_moved_goes_on(study: MakeStudy, go: Go, make_npz: MakeNpz, tmp_path: Path) -> None:
    """With its data or without, students and those who taught them."""
    places = [tmp_path / name for name in ("old", "new", "newer")]
    for place in places:
        place.mkdir()
    old, new, newer = places
    (old / "data").mkdir()
    shutil.copy(make_npz(), old / "data")
    text = study(**TAUGHT, options={"epochs": 1}, models=["vit_4q1h"], datasets=["data/first.npz"]).text
    go(parse_study(text, name="tiny", folder=old), folder=old / "out", does=execute)
    before = {name: job.result for name, job in stored(old / "out").items()}

    def all_of_it() -> tuple[Path, Path]:
        (old / "data").rename(new / "data")
        return new, (old / "out").rename(new / "out")

    def the_study() -> tuple[Path, Path]:
        return new, (new / "out").rename(newer / "out")

    def file_and_data() -> tuple[Path, Path]:
        (new / "data").rename(old / "data")
        return old, newer / "out"

    def behind_links() -> tuple[Path, Path]:
        (new / "data").symlink_to(old / "data")
        (new / "link").symlink_to(newer)
        return new, new / "link" / "out"

    out = old / "out"
    for move in (all_of_it, the_study, file_and_data, behind_links):
        left = unfinish(out)
        folder, out = move()
        summary, pool = go(parse_study(text, name="tiny", folder=folder), folder=out, does=execute)
        assert (summary.failed, summary.finished, pool.done) == ({}, 3, left)
        found = stored(out)
        assert {name: job.result for name, job in found.items()} == before
        for name in left:
            final = final_run(found[name].folder, distilled=found[name].distilled)
            assert final.dataset == str((folder / "data" / "first.npz").resolve()), "told anew"
        if move is all_of_it:
            done = final_run(found["first vit_8q1h big seed 0"].folder, distilled=False)
            assert done.dataset == str(new / "data" / "first.npz"), "said by where the run lies"
            assert done.load_data().path == new / "data" / "first.npz", "it lies as before beside the study"


def test_a_moved_run_on_other_data_is_another(
    study: MakeStudy,
    make_npz: MakeNpz,
    train_as_if: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda digest: [])
    (tmp_path / "there").mkdir()
    shutil.copy(make_npz("other", seed=1), tmp_path / "there" / "first.npz")
    shutil.copy(make_npz(), tmp_path / "there" / "renamed.npz")
    options = study(models=["vit_4q1h"], stack="never").jobs[0].options
    train_as_if(resolve(options), tmp_path / "run")
    for name in ("first.npz", "renamed.npz"):
        with pytest.raises(RunError, match=f"another configuration .*there/{name}"):
            train_run(resolve(options | {"dataset": str(tmp_path / "there" / name)}), tmp_path / "run", resume=True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    gone = config | {"dataset": "/nowhere/there/first.npz"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(gone))
    with pytest.raises(RunError, match=r"/nowhere/there/first.*not there any more"):
        Run(tmp_path / "run").load_data()


def test_costs_are_those_of_the_model_and_not_of_its_label(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    def costs(name: str) -> int:
        go(study(models=[{"name": name, "label": "ours"}], options={"depth": 1}))
        with Store.read(tmp_path / "study") as store:
            return store.costs()["first.npz", "ours"].cost.parameters

    small, large = costs("vit_4q1h"), costs("vit_8q1h")
    known = count_parameters(model_config("vit_8q1h", in_chans=3, num_classes=3, img_size=12, depth=1))
    assert small < large == known


# --- a disk that refuses ---


@pytest.mark.parametrize(
    ("place", "reason"),
    [("lock", errno.EROFS), ("labels", errno.ENOSPC), ("runs", errno.EACCES), ("runs", errno.EPERM)],
)
def test_a_disk_that_refuses_is_told(
    study: MakeStudy, go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, reason: int
) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(reason, os.strerror(reason), str(path))

    real = Path.mkdir
    if place == "lock":
        opened, folder = os.open, tmp_path / "study"
        monkeypatch.setattr(
            "qvit.study.pool.os.open",
            lambda path, *a, **k: (refuse if folder in (Path(path), Path(path).parent) else opened)(path, *a, **k),
        )
    else:
        monkeypatch.setattr(
            Path, "mkdir", lambda self, *a, **k: (refuse if self.name == place else real)(self, *a, **k)
        )
    with pytest.raises(RunError) as caught:
        go(study())
    where = tmp_path / "study" / ("" if place == "lock" else place)
    assert str(caught.value) == (
        f"Cannot write to {where}: {os.strerror(reason)}. Nothing was lost; free some space, or choose a folder that "
        "you may write to with --out."
    )


def test_other_errors_of_the_system_are_not_taken_for_the_disks(
    study: MakeStudy, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError(errno.ECONNRESET, "gone")

    monkeypatch.setattr(runner, "_keep_labels", broken)
    with pytest.raises(ConnectionResetError):
        go(study())


def test_runs_that_nobody_takes_are_no_success(
    study: MakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Full(InlinePool):
        idle = 0  # type: ignore[assignment]

    monkeypatch.setattr(runner, "_pool", lambda *arguments: Full())
    with pytest.raises(RunError) as caught:
        run_study(study(), tmp_path / "study")
    assert str(caught.value) == (
        "No worker takes the 2 runs that are left: the machines have too few processors for one run. Give them more "
        "processors, or runs fewer threads."
    )


@pytest.mark.long
def test_labels_and_costs_are_kept_for_the_report(study: MakeStudy, go: Go, tmp_path: Path, make_npz: MakeNpz) -> None:
    go(study())
    kept = read_labels(tmp_path / "study", str(make_npz()))
    with np.load(make_npz()) as arrays:
        np.testing.assert_array_equal(kept.labels, arrays["test_labels"])
    assert (kept.name, kept.images, kept.task, len(kept.classes)) == ("first", (24, 16, 20), "multi-class", 3)
    with Store.read(tmp_path / "study") as store:
        costs = store.costs()
        assert store.get("machine")["packages"]["torch"]
        assert store.get("specification") == study().text
    assert {label for _, label in costs} == {"vit_4q1h", "cosine_4q1h"}
    (job,) = [job for job in stored(tmp_path / "study").values() if job.model.label == "vit_4q1h"]
    assert job.result is not None
    known = count_parameters(model_config("vit_4q1h", in_chans=3, num_classes=3, img_size=12))
    assert costs[job.dataset, "vit_4q1h"].cost.parameters == known
    labels_file(tmp_path / "study", job.dataset).write_bytes(b"nothing")
    with pytest.raises(RunError, match="cannot be read"):
        read_labels(tmp_path / "study", job.dataset)
    go(study())  # makes it again
    assert read_labels(tmp_path / "study", job.dataset).digest == kept.digest


def test_other_folders_are_left_alone(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(RunError) as caught:
        go(study(), folder=tmp_path / "mine")
    assert str(caught.value) == f"{tmp_path / 'mine'} is not empty and holds no study; choose another with --out."
    for name, told in (
        ("config.json", " is not empty and holds no study; choose another with --out."),
        ("runs", " is the folder of a run, not of a study; choose another with --out."),
    ):
        (tmp_path / "run" / name).mkdir(parents=True)
        with pytest.raises(RunError) as caught:
            go(study(), folder=tmp_path / "run")
        assert str(caught.value) == f"{tmp_path / 'run'}{told}"
    thesis = tmp_path / "mine" / "thesis.tex"
    with pytest.raises(RunError) as caught:
        go(study(), folder=thesis)
    assert str(caught.value) == (
        f"Cannot use {thesis} as the folder of a study: File exists. Choose another with --out."
    )
    (tmp_path / "study").mkdir()
    with sole_user(tmp_path / "study"), pytest.raises(RunError, match="in use by another process"):
        go(study())


def test_a_folder_whose_name_cannot_be_written_down(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    """It is told at once, and not by each run on its own."""
    with pytest.raises(RunError, match=r"found bytes that are no UTF-8.*Rename that"):
        go(study(), folder=tmp_path / os.fsdecode(b"caf\xe9") / "study")
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_missing_leaves_nothing_behind(
    study: MakeStudy, go: Go, make_npz: MakeNpz, tmp_path: Path
) -> None:
    made = study()
    place = make_npz()
    place.rename(place.with_suffix(".away"))
    try:
        for name, left in (("study", False), ("own", True)):
            if left:
                (tmp_path / name).mkdir()
            with pytest.raises(DataError, match="nothing there"):
                go(made, folder=tmp_path / name)
            assert (tmp_path / name).exists() is left
    finally:
        place.with_suffix(".away").rename(place)


def test_a_study_needs_a_worker(study: MakeStudy, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        run_study(study(), tmp_path / "study", workers=0)
    assert str(caught.value) == "A study needs at least one worker, got 0."


def test_as_many_workers_as_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []

    def pool(workers: int, folder: Path, *, threads: int) -> InlinePool:
        made.append((workers, threads))
        return InlinePool()

    monkeypatch.setattr(runner, "LocalPool", pool)
    monkeypatch.setattr(runner, "cores", lambda: 8)
    for workers, threads, jobs in ((None, 1, 100), (None, 3, 100), (None, 16, 100), (5, 2, 100), (None, 1, 3)):
        runner._pool(tmp_path, workers, None, threads, jobs)
    assert made == [(8, 1), (2, 3), (1, 16), (5, 2), (3, 1)]


@pytest.mark.parametrize(
    ("options", "told"),
    [("{patch_size: 5}", "patch_size"), ("{loss: emd}", "loss='emd' does not fit a binary task")],
)
def test_what_needs_no_data_is_refused_before_they_are_looked_for(options: str, told: str, tmp_path: Path) -> None:
    text = f"datasets: breastmnist\nmodels: vit_4q1h\noptions: {options}"
    study = parse_study(text, name="s", folder=tmp_path)
    with pytest.raises(QvitError, match=f"^breastmnist vit_4q1h scratch seed 0: .*{told}"):
        run_study(study, tmp_path / "out", root=tmp_path, download=False)
