"""Result files: exact round trips, medmnist reads them, damage is noticed."""

import os
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.errors import MetricError, RunError
from qvit.evaluation.inputs import Task
from qvit.evaluation.medmnist_files import ParsedName, parse_result_name, read_result, result_name, write_result
from qvit.evaluation.metrics import accuracy, auc

GOOD_NAME = "bloodmnist_test_[AUC]0.912_[ACC]0.500@run-1.csv"


def write(folder: Path, scores: Any, **options: Any) -> Path:
    values: dict[str, Any] = {
        "flag": "bloodmnist",
        "size": 28,
        "split": "test",
        "auc": 0.9123,
        "acc": 0.5,
        "run": "run-1",
    }
    return write_result(folder, scores=scores, **(values | options))


def test_names_follow_medmnists_rule() -> None:
    assert result_name("bloodmnist", 28, "test", 0.9123, 0.5, "run-1") == GOOD_NAME
    name = result_name("organmnist3d", 64, "val", 1.0, 0.0, "vit_8 qubits")
    assert name == "organmnist3d_64_val_[AUC]1.000_[ACC]0.000@vit_8 qubits.csv"
    parsed = ParsedName("organmnist3d", 64, "val", 1.0, 0.0, "vit_8 qubits")
    assert parse_result_name(name) == parsed


@settings(max_examples=40)
@given(
    flag=st.text("abcxyzXYZ0189-", min_size=1),
    size=st.integers(1, 999),
    split=st.sampled_from(["train", "val", "test"]),
    numbers=st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
    run=st.text(st.characters(exclude_characters="@./\\", exclude_categories=["Cc", "Cs"]), min_size=1),
)
def test_every_name_is_parsed_back(flag: str, size: int, split: str, numbers: tuple[int, int], run: str) -> None:
    first, second = (number / 1000 for number in numbers)
    parsed = parse_result_name(result_name(flag, size, split, first, second, run))
    assert parsed == ParsedName(flag, size, split, first, second, run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flag": "my_set"}, "letters, digits and dashes, but came as 'my_set'"),
        ({"flag": ""}, "letters, digits and dashes"),
        ({"size": 0}, "at least 1, but came as 0"),
        ({"split": "training"}, "one of train, val, test, but came as 'training'"),
        ({"auc": 1.2}, r"AUC must lie within \[0, 1\], but came as 1.2"),
        ({"acc": float("nan")}, r"ACC must lie within \[0, 1\], but came as nan"),
        ({"run": ""}, "run's name must not be empty"),
        ({"run": "a@b"}, "came as 'a@b'. Use dashes"),
        ({"run": "v1.2"}, "Use dashes"),
        ({"run": "a/b"}, "Use dashes"),
        ({"run": "a\\b"}, "Use dashes"),
        ({"run": "a\nb"}, "Use dashes"),
    ],
)
def test_wrong_names_are_refused_and_nothing_is_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        write(tmp_path, [0.5], **change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(17, 5), (17, 1), (1, 3)])
def test_scores_come_back_bit_for_bit(tmp_path: Path, dtype: Any, shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).random(shape).astype(dtype)
    scores[0, 0] = np.finfo(dtype).smallest_subnormal
    path = write(tmp_path, scores)
    parsed, back = read_result(path)
    assert parsed == ParsedName("bloodmnist", 28, "test", 0.912, 0.5, "run-1")
    assert back.dtype == np.float64
    assert np.array_equal(back, scores)
    assert np.array_equal(back.astype(dtype), scores)


def test_flat_scores_come_back_as_a_column(tmp_path: Path) -> None:
    path = write(tmp_path, np.array([0.25, 1.0]))
    assert path.read_text() == "0,0.25\n1,1.0\n"
    assert read_result(path)[1].tolist() == [[0.25], [1.0]]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 3, 4)), r"shape \(N, C\) or \(N,\).*came as \(2, 3, 4\)"),
        (np.zeros((0, 3)), "not be empty"),
        (np.float64(0.5), r"came as \(\)"),
        ([[0.5, np.nan]], "finite.*Nothing was written"),
        (["a"], "real numbers"),
    ],
)
def test_wrong_scores_are_refused(tmp_path: Path, scores: Any, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        write(tmp_path, scores)
    assert list(tmp_path.iterdir()) == []


# medmnist reads what is written


@pytest.mark.parametrize(
    ("flag", "task", "classes", "size"),
    [
        ("bloodmnist", "multi-class", 8, 28),
        ("retinamnist", "ordinal", 5, 64),
        ("breastmnist", "binary", 1, 64),
        ("chestmnist", "multi-label", 14, 28),
    ],
)
def test_medmnist_reads_the_file_and_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, task: Task, classes: int, size: int
) -> None:
    rng = np.random.default_rng(1)
    if task == "multi-label":
        labels = np.concatenate([np.eye(classes, dtype=np.uint8), rng.integers(0, 2, (60, classes))])
    else:
        labels = np.arange(60)[:, None] % max(classes, 2)
    scores = rng.random((len(labels), classes))
    suffix = "" if size == 28 else f"_{size}"
    np.savez(tmp_path / f"{flag}{suffix}.npz", test_labels=labels)
    ours = auc(labels, scores, task), accuracy(labels, scores, task)
    path = write_result(tmp_path, flag, size, "test", scores, *ours, run="seed-3")

    direct = medmnist.Evaluator(flag, "test", size=size, root=str(tmp_path))
    seen = pd.read_csv(path, index_col=0, header=None).sort_index().to_numpy()
    assert tuple(direct.evaluate(seen)) == pytest.approx(ours, abs=1e-12)
    assert direct.get_standard_evaluation_filename(direct.evaluate(seen), "seed-3") == path.name

    # The whole way through medmnist's parser of names; its data folder is a default argument, bound early.
    original = medmnist.Evaluator.__init__
    monkeypatch.setattr(original, "__defaults__", (None, str(tmp_path)))
    assert tuple(medmnist.Evaluator.parse_and_evaluate(str(path))) == pytest.approx(ours, abs=1e-12)
    assert sorted(tmp_path.glob("*.csv")) == [path]  # medmnist wrote its own copy under the same name


def test_files_that_medmnist_writes_are_read(tmp_path: Path) -> None:
    labels, scores = np.arange(24)[:, None] % 8, np.random.default_rng(2).random((24, 8))
    np.savez(tmp_path / "bloodmnist.npz", val_labels=labels)
    metrics = medmnist.Evaluator("bloodmnist", "val", root=str(tmp_path)).evaluate(scores, tmp_path, "theirs")
    (path,) = tmp_path.glob("*.csv")
    parsed, back = read_result(path)
    rounded = round(metrics.AUC, 3), round(metrics.ACC, 3)
    assert parsed == ParsedName("bloodmnist", 28, "val", *rounded, "theirs")
    assert np.array_equal(back, scores)


# Damage


@pytest.mark.parametrize(
    "name",
    [
        "scores.csv",
        GOOD_NAME.replace(".csv", ".txt"),
        GOOD_NAME.replace("@run-1", ""),
        GOOD_NAME.replace("run-1", "a@b"),
        GOOD_NAME.replace("run-1", "1.5"),
        GOOD_NAME.replace("_test", "_28_test"),
        GOOD_NAME.replace("_test", "_064_test"),
        GOOD_NAME.replace("_test", "_0_test"),
        GOOD_NAME.replace("test", "dev"),
        GOOD_NAME.replace("0.912", "0.91"),
        GOOD_NAME.replace("0.912", "1.912"),
        GOOD_NAME.replace("0.912", "nan"),
        GOOD_NAME.replace("run-1", "a\nb"),
    ],
)
def test_files_with_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MetricError, match="is not the name of a result file; expected"):
        read_result(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"0,0.1,0.9\n1,0.2,0.", "ends within a line. It was cut short"),
        (b"0,0.1,0.9\n1,0.2\n", "line 2 holds 1 scores where the first line holds 2"),
        (b"0,0.1\n1,0.2,0.3\n", "line 2 holds 2 scores where the first line holds 1"),
        (b"0\n1\n", "line 1 holds no scores"),
        (b"0,0.1\n\n1,0.2\n", "line 2 holds 0 scores"),
        (b"index,score\n0,0.5\n", "line 1 must be an index and numbers, but reads 'index,score'"),
        (b"0,0.1\n1,0.x\n", "line 2 must be an index and numbers, but reads '1,0.x'"),
        (b"0,0.1\n1,1_0\n", "line 2 must be an index and numbers"),
        (b"0,0.1\n1,\n", "line 2 must be an index and numbers"),
        (b"0.0,0.1\n", "line 1 must be an index and numbers"),
        (b"0,0.1\n1,nan\n", "line 2 holds a score that is not finite"),
        (b"0,1e999\n", "line 1 holds a score that is not finite"),
        (b"0,0.1\n2,0.2\n", "each index from 0 to 1 once, but has 2 in the place of 1"),
        (b"0,0.1\n0,0.2\n", "each index from 0 to 1 once, but has 0 in the place of 1"),
        (b"1,0.1\n2,0.2\n", "but has 1 in the place of 0"),
        (b"-1,0.1\n0,0.2\n", "but has -1 in the place of 0"),
        (b"0,0.\xb1\n", "not a text file. It is damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / GOOD_NAME
    path.write_bytes(content)
    with pytest.raises(MetricError, match=message):
        read_result(path)


def test_a_file_cut_anywhere_but_between_lines_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, np.random.default_rng(3).random((3, 2)))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length and whole[:length].endswith(b"\n"):
            assert len(read_result(path)[1]) < 3  # what is left is whole, if short; the labels will not fit
        else:
            with pytest.raises(MetricError, match=r"cut short|is empty"):
                read_result(path)


def test_rows_in_any_order_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / GOOD_NAME
    path.write_bytes(b"2,0.3\r\n0,0.1\r\n1,0.2\r\n")
    assert read_result(path)[1].tolist() == [[0.1], [0.2], [0.3]]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="cannot be read: nothing there"):
        read_result(tmp_path / GOOD_NAME)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [0.1, 0.2])

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"No space left on device\. Nothing was lost"):
        write(tmp_path, [0.9, 0.9])
    assert list(tmp_path.iterdir()) == [path]
    assert read_result(path)[1].tolist() == [[0.1], [0.2]]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Cannot write .*No such file"):
        write(tmp_path / "missing", [0.1])


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path
    assert write(folder, [0.1]) == write(folder, [0.2])
    (path,) = folder.iterdir()
    assert read_result(path)[1].tolist() == [[0.2]]
