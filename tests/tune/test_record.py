"""What a tuning keeps: read back as it was, cut off or damaged; and whose folder it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.errors import RunError
from qvit.tune.record import TRIALS, TUNE, Record, begin_record, read_file, read_record
from qvit.tune.trials import Judged
from tune.conftest import candidate

ASKED: dict[str, Any] = {
    "dataset": "phantom", "size": 28, "data_digest": "abc", "options": {"epochs": 3}, "model": None,
    "parameters": 1100, "minutes": 30.0, "trials": None, "seed": 0, "folds": 5, "seeds": 1, "menu": "0123",
}  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = begin_record(tmp_path / "tune", dict(ASKED), resume=False)
    record.candidates = [candidate("one"), candidate("two", baseline=True)]
    record.rungs = [(2, ["one"])]
    record.spent = 12.3456
    rng = np.random.default_rng(0)
    scores = (rng.random((4, 2)) ** 20).astype(np.float32)  # some of them tiny
    record.add([Judged("one", 0, 0.75, 0.5, 1.25, 1.0, 834, scores), Judged("two", 0, error="no\nmemory")])
    record.add([Judged("one", 1, 1.0, 0.5, 1.25, 1.0, 834, scores[:3])])
    record.save()
    return record


def test_what_is_kept_is_read_back_to_the_bit(record: Record) -> None:
    found = read_record(record.folder)
    assert (found.asked, found.candidates, found.rungs) == (record.asked, record.candidates, record.rungs)
    assert found.spent == 12.346
    assert found.judged.keys() == record.judged.keys()
    for key, one in record.judged.items():
        other = found.judged[key]
        assert (other.auc, other.acc, other.seconds, other.parameters, other.error) == (
            one.auc, one.acc, one.seconds, one.parameters, one.error,
        )  # fmt: skip
        assert (one.scores is None) == (other.scores is None)
        if one.scores is not None and other.scores is not None:
            assert other.scores.dtype == np.float32
            assert np.array_equal(other.scores, one.scores)
    assert found.result is None
    found.result = {"test_auc": [0.5]}
    found.save()
    assert read_record(record.folder).result == {"test_auc": [0.5]}


def test_a_line_that_was_cut_off_is_dropped(record: Record) -> None:
    path = record.folder / TRIALS
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"candidate": "one", "pla')
    assert read_record(record.folder).judged.keys() == record.judged.keys()
    assert path.read_bytes() == whole, "so that the next line stands by itself"
    path.unlink()
    assert read_record(record.folder).judged == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "{",
            "line 4 is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ('{"candidate": "one"}', "line 4 holds no place"),
        (
            json.dumps({"candidate": "one", "place": 0, "auc": 2.0}),
            "line 4 holds what it should not at auc: Input should be less than or equal to 1",
        ),
    ],
)
def test_damaged_trials_are_refused(record: Record, line: str, told: str) -> None:
    path = record.folder / TRIALS
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RunError) as caught:
        read_record(record.folder)
    assert str(caught.value) == f"{path} is damaged ({told}); tune again, into another folder."


def test_what_cannot_be_read_is_refused(record: Record) -> None:
    path = record.folder / TRIALS
    path.write_bytes(b"\xff\n")
    with pytest.raises(RunError) as caught:
        read_record(record.folder)
    told = f"Cannot read {path}: expected text in UTF-8, found invalid start byte at 0"
    assert str(caught.value) == f"{path} cannot be read ({told}); tune again, into another folder."
    (record.folder / TUNE).write_text("{}")
    with pytest.raises(RunError) as caught:
        read_file(record.folder / TUNE)
    assert str(caught.value) == (
        f"{record.folder / TUNE} cannot be used (it holds no asked); name the {TUNE} that `qvit tune` wrote."
    )
    with pytest.raises(RunError) as caught:
        read_file(record.folder / "none.json")
    assert str(caught.value) == (f"{record.folder / 'none.json'} is missing; name the {TUNE} that `qvit tune` wrote.")


def test_a_folder_is_taken_once_and_goes_on_if_the_same_is_asked(record: Record, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        begin_record(record.folder, dict(ASKED), resume=False)
    assert str(caught.value) == (
        f"{record.folder} already holds a tuning. Go on with it by --resume, or choose another with --out."
    )
    found = begin_record(record.folder, ASKED | {"minutes": 60.0, "dataset": "../phantom.npz"}, resume=True)
    assert found.judged.keys() == record.judged.keys()
    assert found.asked["minutes"] == 60.0, "there may be more time, and data may lie elsewhere"
    with pytest.raises(RunError) as caught:
        begin_record(record.folder, ASKED | {"seed": 1, "folds": 3}, resume=True)
    assert str(caught.value) == (
        f"{record.folder} holds a tuning of which something else was asked (seed: 0 → 1; folds: 5 → 3). Choose another "
        "--out."
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").touch()
    with pytest.raises(RunError) as caught:
        begin_record(other, dict(ASKED), resume=True)
    assert str(caught.value) == f"{other} is not empty and holds no tuning; choose another with --out."


def test_a_full_disk_is_told(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.tune.record.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(RunError) as caught:
        record.add([Judged("one", 2)])
    assert str(caught.value) == (
        f"Cannot write {record.folder / TRIALS}: No space left. Free some space, and go on with --resume."
    )
    assert ("one", 2) not in record.judged
