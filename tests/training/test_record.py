"""Whose a folder is, and all that is said of one that cannot be used or read."""

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.errors import RunError
from qvit.training.folder import Run
from qvit.training.record import check_recordable, claim, make_folder, write_history
from qvit.training.records import EpochRecord
from qvit.training.state import TrainState


def refusal(attempt: Callable[[], Any], kind: type[Exception] = RunError) -> str:
    with pytest.raises(kind) as caught:
        attempt()
    return str(caught.value)


def take(run: Run, described: dict[str, Any], **options: Any) -> None:
    claim(run, described, **{"processes": 1, "resume": False, "overwrite": False} | options)


# --- who may use a folder ---


def test_a_new_folder_gets_its_configuration_and_surroundings(run: Run, tmp_path: Path) -> None:
    for processes in (1, 3):
        new = Run(tmp_path / str(processes))
        make_folder(new.folder)
        (new.folder / ".config.json.1234.part").write_text("left behind by a crash")
        take(new, run.config, processes=processes)
        assert sorted(path.name for path in new.folder.iterdir()) == ["config.json", "environment.json"]
        assert (new.folder / "config.json").read_bytes() == (run.folder / "config.json").read_bytes()
        said = json.loads((new.folder / "environment.json").read_text())
        assert said.get("processes", 1) == processes
        assert said["python"] == platform.python_version()
        assert said["platform"] == platform.platform()


def test_a_folder_with_a_run_is_gone_on_with_only_by_that_run(run: Run) -> None:
    before = (run.folder / "environment.json").read_bytes()
    take(run, run.config, resume=True, processes=2)
    assert (run.folder / "environment.json").read_bytes() == before
    told = "Go on with it by --resume, or choose another folder with --out."
    assert refusal(lambda: take(run, run.config)) == f"{run.folder} already holds a finished run. {told}"
    other = run.config | {"seed": 4, "guide": {"name": "a"}}
    assert refusal(lambda: take(run, other, resume=True)) == (
        f"{run.folder} holds a run with another configuration (seed: 3 → 4; guide.name: None → a). "
        "Choose another --out."
    )
    (run.folder / "result.json").unlink()
    assert refusal(lambda: take(run, run.config)) == f"{run.folder} already holds a started run. {told}"


def test_a_file_of_another_name_or_content_is_another_dataset(run: Run) -> None:
    lay = Path(run.config["dataset"])
    for change in ({"dataset": "/elsewhere/beads.npz"}, {"dataset": "/elsewhere/cells.npz", "data_digest": "0" * 32}):
        told = refusal(lambda change=change: take(run, run.config | change, resume=True))
        assert f"(dataset: {lay} → {change['dataset']}" in told
        told = refusal(lambda change=change: take(run, run.config | change, overwrite=True))
        assert "already holds a finished run" in told
    take(run, run.config | {"dataset": "/elsewhere/cells.npz"}, resume=True)
    assert Run(run.folder).config["dataset"] == "/elsewhere/cells.npz", "written anew"


@pytest.mark.parametrize("change", [{"seed": 4}, {"dataset": "/elsewhere/cells.npz"}])
def test_replacing_empties_the_folder(run: Run, change: dict[str, Any]) -> None:
    take(run, run.config | change, overwrite=True)
    assert sorted(path.name for path in run.folder.iterdir()) == ["config.json", "environment.json"]


def test_the_result_is_deleted_first_and_the_configuration_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    order, unlink = list[str](), Path.unlink

    def note(self: Path, **options: Any) -> None:
        order.append(self.name)
        unlink(self, **options)

    monkeypatch.setattr(Path, "unlink", note)
    take(run, run.config, overwrite=True)
    assert (order[0], order[-1], len(order)) == ("result.json", "config.json", 8)


def test_what_cannot_be_emptied_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        told = f"Cannot empty {run.folder}: Permission denied. Choose another with --out."
        assert refusal(lambda: take(run, run.config, overwrite=True)) == told
    (run.folder / "notes").mkdir()
    told = f"{run.folder} holds folders that no run makes; it was left as it is. Choose another with --out."
    assert refusal(lambda: take(run, run.config, overwrite=True)) == told
    assert len(list(run.folder.iterdir())) == 9


def test_a_folder_with_other_things_is_left(run: Run, tmp_path: Path) -> None:
    home = Run(tmp_path / "home")
    make_folder(home.folder)
    (home.folder / "letter").write_text("dear")
    told = f"{home.folder} is not empty and not a run folder; choose another with --out."
    for options in ({}, {"resume": True}, {"overwrite": True}):
        assert refusal(lambda options=options: take(home, run.config, **options)) == told
    told = f"Cannot use {home.folder / 'letter'} as a run folder: File exists. Choose another with --out."
    assert refusal(lambda: make_folder(home.folder / "letter")) == told


def test_what_could_not_be_read_back_is_not_written(run: Run) -> None:
    check_recordable(run.config)
    assert refusal(lambda: check_recordable(run.config | {"guide": {"teacher": {"found_at": ["a", "b\udcff"]}}})) == (
        "Expected names that can be written down, found bytes that are no UTF-8 in guide.teacher.found_at: 'b\\udcff'. "
        "Rename that file or folder."
    )
    assert refusal(lambda: check_recordable(run.config | {"dataset": "a\nb"})) == (
        "Expected a run whose config.json can be read again, but it holds what it should not at dataset: a name may "
        "not hold line breaks or other control characters. Change that option, or rename that file or folder."
    )


def test_histories_are_lines(tmp_path: Path) -> None:
    history = [EpochRecord(epoch, 0.5, 0.25, 0.125, 1.0, 0.75, "none") for epoch in (1, 2)]
    write_history(tmp_path, TrainState(history=history, seconds=[0.12344, 2.0]))
    rest = '"lr": 0.5, "train_loss": 0.25, "val_loss": 0.125, "val_auc": 1.0, "val_acc": 0.75, "tta": "none"}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == f'{{"epoch": 1, {rest}{{"epoch": 2, {rest}'
    lines = '{"epoch": 1, "seconds": 0.1234}\n{"epoch": 2, "seconds": 2.0}\n'
    assert (tmp_path / "timings.jsonl").read_text() == lines
