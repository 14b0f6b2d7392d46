"""What a run's folder keeps of its validation images: gathered once, found again, never of other weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from answers.conftest import COUNTS
from qvit.answers import evidence as module
from qvit.answers.evidence import ARRAYS, RECORD, Evidence, evidence_of, gathered, load, save
from qvit.errors import RunError
from qvit.training.folder import Run


def same(one: Evidence | None, other: Evidence | None) -> bool:
    assert one is not None
    assert other is not None
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("scores", "labels", "distances")]
    pairs += [(one.usual.mean, other.usual.mean), (one.usual.precision, other.usual.precision)]
    return all(np.array_equal(*pair) for pair in pairs) and one.operating == other.operating


def test_evidence_is_what_was_predicted(run: Run) -> None:
    found = gathered(run)
    data = run.load_data()
    assert found.scores == pytest.approx(run.predictions("val"), abs=1e-6)
    assert found.labels.tolist() == data.val.labels.tolist()
    assert found.distances.shape == (COUNTS["val"],)
    assert 0.5 < np.median(found.distances) / np.sqrt(len(found.usual.mean)) < 2, "of features like these"


def test_it_is_kept_and_found_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evidence_of(run)
    monkeypatch.setattr(Run, "load_data", lambda *_: pytest.fail("the data are not needed any more"))
    assert same(evidence_of(Run(run.folder)), first)
    assert {path.name for path in run.folder.iterdir()} >= {RECORD, ARRAYS}


def test_without_data_nothing_is_known(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda _: [])
    (run.folder.parent / "squares.npz").unlink()
    assert evidence_of(run) is None
    with pytest.raises(RunError, match="which is not there any more"):
        gathered(run)


def test_a_folder_that_cannot_be_written_to_is_no_trouble(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RunError("no")

    monkeypatch.setattr(module, "write_atomic", refuse)
    assert evidence_of(run) is not None
    assert not (run.folder / RECORD).exists()


def test_other_weights_have_other_evidence(run: Run, trained: Callable[..., Path]) -> None:
    evidence_of(run)
    shutil.copy(trained(seed=1) / "model.safetensors", run.folder)
    assert load(Run(run.folder)) is None
    assert not same(evidence_of(Run(run.folder)), gathered(Run(trained())))


def test_that_of_another_version_is_gathered_again(run: Run) -> None:
    evidence_of(run)
    path = run.folder / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    assert load(run) is None
    assert evidence_of(run) is not None


def test_nothing_is_downloaded_to_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(*_: object, download: bool, **__: object) -> None:
        asked.append(download)
        raise RunError("no")

    monkeypatch.setattr(Run, "load_data", refuse)
    assert evidence_of(run) is None
    with pytest.raises(RunError):
        gathered(run)
    assert asked == [False, True]


def test_a_choice_is_kept(run: Run) -> None:
    found = gathered(run)
    chosen = Evidence(found.scores, found.labels, found.distances, found.usual, ("sensitivity", 0.95))
    save(run, chosen)
    assert same(load(run), chosen)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1"},
        {"images": 0},
        {"images": 59},
        {"operating": {"measure": "luck", "value": 0.5}},
        {"operating": {"measure": "sensitivity", "value": 1.5}},
        None,
    ],
)
def test_a_damaged_record_is_told_of(run: Run, change: dict[str, object] | None) -> None:
    evidence_of(run)
    path = run.folder / RECORD
    path.write_text("{" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=r"is damaged \(.*\); delete it: it is made again from the data, without"):
        load(run)
    path.unlink()
    assert evidence_of(run) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"scores": np.zeros((60, 2))},
        {"scores": np.full((60, 3), 1.5)},
        {"labels": np.full((60, 1), 3)},
        {"labels": np.zeros((60, 1), np.int32)},
        {"distances": np.full(60, np.nan)},
        {"precision": np.zeros((2, 2), np.float32)},
        None,
    ],
)
def test_damaged_arrays_are_told_of(run: Run, change: dict[str, np.ndarray] | None) -> None:
    evidence_of(run)
    path = run.folder / ARRAYS
    content = path.read_bytes()
    path.write_bytes(
        content[:50] if change is None else safetensors.numpy.save(safetensors.numpy.load(content) | change)
    )
    with pytest.raises(RunError, match=r"validation\.safetensors is damaged \(.*\); delete it: it is made again"):
        load(run)
