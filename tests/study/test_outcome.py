"""What is read of the folder of a run or a distillation: whether it is finished, and how it went."""

from pathlib import Path
from typing import Any

import pytest

from qvit.errors import RunError
from qvit.study.outcome import Outcome, all_runs, final_run, read_outcome
from study.made import finish


def names(runs: Any) -> list[str]:
    return [run.folder.name for run in runs]


def test_a_run_is_its_folder_and_a_distillation_its_last_stage(tmp_path: Path) -> None:
    for stage in ("joint", "finetune", "pretrain"):
        (tmp_path / stage).mkdir()
    assert final_run(tmp_path, distilled=False).folder == tmp_path
    assert [run.folder for run in all_runs(tmp_path, distilled=False)] == [tmp_path]
    assert names([final_run(tmp_path, distilled=True)]) == ["joint"]
    assert names(all_runs(tmp_path, distilled=True)) == ["pretrain", "finetune", "joint"]
    (tmp_path / "joint").rmdir()
    assert names([final_run(tmp_path, distilled=True)]) == ["finetune"]
    assert names(all_runs(tmp_path, distilled=True)) == ["pretrain", "finetune"]


def test_outcomes_are_read_from_folders(tmp_path: Path) -> None:
    assert read_outcome(tmp_path / "a", distilled=False) is None
    result = finish(tmp_path / "a", seconds=0.12345)
    assert read_outcome(tmp_path / "a", distilled=False) == Outcome(result, 0.247, ())
    assert read_outcome(tmp_path / "a", distilled=True) is None, "its stages are not finished"


def test_a_distillation_is_finished_once_it_says_so(tmp_path: Path) -> None:
    finish(tmp_path / "pretrain", parameters=4)
    last = finish(tmp_path / "finetune", seconds=2.0)
    assert read_outcome(tmp_path, distilled=True) is None
    (tmp_path / "distillation.json").write_text("{}")
    assert read_outcome(tmp_path, distilled=True) == Outcome(last, 7.0)
    (tmp_path / "finetune" / "result.json").unlink()
    with pytest.raises(RunError) as caught:
        read_outcome(tmp_path, distilled=True)
    assert str(caught.value) == f"{tmp_path} is damaged: it holds figures of a run that is not there; delete it."
