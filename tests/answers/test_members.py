"""Models that are asked together, here and in another process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from answers.conftest import pictures
from qvit.answers import members, reading
from qvit.answers.members import ask, ask_files, ask_files_of, key_of, open_member
from qvit.answers.predictor import Prediction, load
from qvit.answers.spread import File
from qvit.errors import RunError
from qvit.training.folder import Run


def of(paths: list[Path]) -> list[File]:
    return [(str(path), None) for path in paths]


def test_scores_are_averaged_and_features_kept(trained: Callable[..., Path]) -> None:
    runs = [Run(trained(seed=seed)) for seed in (0, 1)]
    images = np.array(runs[0].load_data().test.images)
    both, one, other = (ask([open_member(run) for run in some], images) for some in (runs, runs[:1], runs[1:]))
    assert both.scores == pytest.approx((one.scores + other.scores) / 2)
    assert [found.tolist() for found in both.features] == [one.features[0].tolist(), other.features[0].tolist()]


def test_files_are_asked_and_squares_left_behind(run: Run, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "new", 3)
    paths[1].write_bytes(b"text")
    member = open_member(run)
    found = ask_files([member], 5, of(paths))
    assert found.block.files == (5, 6, 7)
    assert [error is None for error in found.block.errors] == [True, False, True]
    assert len(found.block.squares) == 0
    assert found.asked is not None
    squares = np.stack([member.needs.squares(paths[place])[0] for place in (0, 2)])
    assert found.asked.scores.tolist() == ask([member], squares).scores.tolist()
    assert ask_files([member], 0, of(paths[1:2])).asked is None


def test_another_process_opens_the_same_models(run: Run, tmp_path: Path, trained: Callable[..., Path]) -> None:
    paths = pictures(tmp_path / "new", 3)
    member = open_member(run)
    key = key_of([member])
    members._opened.cache_clear()
    expected = ask_files([member], 0, of(paths)).asked
    found = ask_files_of(key, Path(), 0, of(paths)).asked
    assert found is not None
    assert expected is not None
    assert found.scores.tolist() == expected.scores.tolist()
    shutil.copy(trained(seed=1) / "model.safetensors", run.folder)
    members._opened.cache_clear()
    with pytest.raises(RunError, match=r"^The weights of a run were changed while it was asked\. Ask it again\.$"):
        ask_files_of(key, Path(), 0, of(paths))


def assert_alike(found: list[Prediction], expected: list[Prediction]) -> None:
    """Up to rounding: on some processors a product of few rows is computed otherwise than one of many."""
    assert [(each.label, each.error is None) for each in found] == [
        (each.label, each.error is None) for each in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.probabilities is None) == (theirs.probabilities is None)
        assert ours.probabilities == (theirs.probabilities and pytest.approx(theirs.probabilities, abs=1e-6))


@pytest.mark.processes
@pytest.mark.slow("a process that loads torch and a model")
def test_many_files_are_answered_by_several_processes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = pictures(tmp_path / "new", 40)
    paths[7].write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    relative = [path.relative_to(tmp_path) for path in paths]
    predictor = load(run.folder)
    alone = predictor.predict(relative)
    monkeypatch.setattr(reading, "ALONE", 10_000)
    monkeypatch.setattr(reading, "MOST_FILES", 3)
    monkeypatch.setattr("qvit.answers.spread._processors", lambda: 2)
    shared = predictor.predict(relative)
    assert [each.source for each in shared] == [each.source for each in alone]
    assert_alike(shared, alone)
    monkeypatch.chdir(tmp_path / "new")
    assert_alike(predictor.predict([path.name for path in paths]), alone)  # the others stay elsewhere
