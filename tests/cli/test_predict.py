"""`qvit predict`: every form of output, broken files, and the exit code."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qvit.cli import predict as module

Qvit = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("always::qvit.answers.predictor.CalibrationWarning")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "new" / f"{place}.png" for place in range(4)]
    paths[0].parent.mkdir()
    for place, path in enumerate(paths):
        pixels = np.random.default_rng(place).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def test_a_table_of_answers(qvit: Qvit, run: Path, files: list[Path]) -> None:
    told = qvit("predict", run, *files)
    assert told.code == 0
    assert f"Predictions of {run}" in told.out
    for path in files:
        assert str(path) in told.out
    assert told.out.splitlines()[-1].count(": ") >= 1, "how many images of each class"
    assert "Warning: Not calibrated: 16 validation images, where 30 are needed." in told.err


def test_a_line_of_json_per_image(qvit: Qvit, run: Path, files: list[Path]) -> None:
    told = qvit("predict", run, files[0].parent, "--jsonl")
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["source"] for row in rows] == [str(path) for path in files]
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
        assert (row["error"], row["withheld"]) == (None, False)


def test_one_document(qvit: Qvit, run: Path, files: list[Path]) -> None:
    lines = [json.loads(line) for line in qvit("predict", run, *files, "--jsonl").out.splitlines()]
    found = json.loads(qvit("predict", run, *files, "--json").out)
    assert found["predictions"] == lines
    assert found["task"] == "multi-class"
    assert found["classes"] == ["0", "1", "2"]
    assert found["notes"][0] == "Not calibrated: 16 validation images, where 30 are needed."


def test_a_table_in_a_file(qvit: Qvit, run: Path, files: list[Path], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in qvit("predict", run, *files, "--jsonl").out.splitlines()]
    told = qvit("predict", run, *files, "--csv", tmp_path / "t.csv")
    assert told.code == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["image"] for row in rows] == [str(path) for path in files]
    for row, line in zip(rows, lines, strict=True):
        assert row["answer"] == line["label"]
        assert {name: float(row[f"p_{name}"]) for name in "012"} == line["probabilities"]
        assert row["possible"].split("|") == line["possible"]
        assert row["error"] == ""


def test_files_from_a_list_and_from_stdin(
    qvit: Qvit, run: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = qvit("predict", run, *files, "--jsonl").out
    (tmp_path / "list.txt").write_text("".join(f"new/{path.name}\n" for path in files))
    assert qvit("predict", run, tmp_path / "list.txt", "--jsonl").out == expected
    monkeypatch.setattr("sys.stdin", [f"{path}\n" for path in files])
    assert qvit("predict", run, "-", "--jsonl").out == expected


def test_a_broken_file_is_a_row_and_the_exit_code_says_so(
    qvit: Qvit, run: Path, files: list[Path], tmp_path: Path
) -> None:
    files[1].write_text("text")
    files[2].unlink()
    told = qvit("predict", run, *files, "--jsonl", "--csv", tmp_path / "t.csv")
    assert told.code == 1
    assert "2 files could not be read." in told.err
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["error"] is None for row in rows] == [True, False, False, True]
    assert "found text" in rows[1]["error"]
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 5
    told = qvit("predict", run, files[1])
    assert told.code == 1
    assert "error" in told.out
    assert "1 file could not be read." in told.err


# --- groups ---


@pytest.fixture
def patients(files: list[Path]) -> list[Path]:
    """Files of two patients, the third of one that is broken, and one without a name of a patient."""
    names = ("a1-0.png", "b2-0.png", "a1-1.png", "other.png")
    paths = [path.rename(path.with_name(name)) for path, name in zip(files, names, strict=True)]
    broken = paths[0].with_name("a1-2.png"), paths[0].with_name("c3-0.png")
    for path in broken:
        path.write_text("text")
    return [*paths, *broken]


GROUPED = ("--group-by", "([a-z][0-9])-")


def test_groups_follow_the_images(qvit: Qvit, run: Path, patients: list[Path]) -> None:
    told = qvit("predict", run, *patients, *GROUPED, "--jsonl")
    assert told.code == 1
    assert told.err.endswith("2 files could not be read.\n1 image has no group in the path.\n")
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row.get("source") for row in rows] == [*map(str, patients), None, None, None]
    assert [(row["group"], row["images"]) for row in rows[6:]] == [("a1", 2), ("b2", 1), ("c3", 0)]
    assert "expected a group in the path" in rows[3]["error"]
    assert [row["error"] is None for row in rows] == [True, True, True, False, False, False, True, True, False]
    assert rows[7]["probabilities"] == rows[1]["probabilities"]
    mean = {name: (rows[0]["probabilities"][name] + rows[2]["probabilities"][name]) / 2 for name in "012"}
    assert rows[6]["probabilities"] == pytest.approx(mean), "without calibration, as images are few"
    assert not {"possible", "possible_by_class"} & rows[6].keys()
    found = json.loads(qvit("predict", run, *patients, *GROUPED, "--json").out)
    assert found["predictions"] + found["groups"] == rows


def test_a_document_has_groups_whenever_they_are_asked_for(
    qvit: Qvit, run: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "groups" not in json.loads(qvit("predict", run, files[0], "--json").out)
    found = json.loads(qvit("predict", run, files[0], "--json", "--group-by", "patient").out)
    assert (found["groups"], len(found["predictions"])) == ([], 1)
    monkeypatch.setattr("sys.stdin", None)
    found = json.loads(qvit("predict", run, "-", "--json", "--group-by", "patient").out)
    assert (found["groups"], found["predictions"]) == ([], [])


def test_groups_have_a_table_of_their_own(
    qvit: Qvit, run: Path, patients: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [json.loads(line) for line in qvit("predict", run, *patients, *GROUPED, "--jsonl").out.splitlines()[6:]]
    out = qvit("predict", run, *patients, *GROUPED).out
    lines = out[out.index("By group, of the mean probabilities") :].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [
        *([row["group"], str(row["images"]), row["label"], f"{row['confidence']:.3f}"] for row in groups[:2]),
        ["c3", "0", "none of its files could be read", ""],
    ]
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    out = " ".join(qvit("predict", run, *patients, *GROUPED).out.split())
    assert "4 more images are not shown;" in out
    assert "1 more groups are not shown;" in out


def test_groups_have_a_file_of_their_own(qvit: Qvit, run: Path, patients: list[Path], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in qvit("predict", run, *patients, *GROUPED, "--jsonl").out.splitlines()]
    qvit("predict", run, *patients, *GROUPED, "--csv", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["image"] for row in rows] == [*map(str, patients)]
    assert [row["group"] for row in rows] == ["a1", "b2", "a1", "", "a1", "c3"]
    with (tmp_path / "t-groups.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    for row, line in zip(rows, lines[6:], strict=True):
        assert (row["group"], row["images"]) == (line["group"], str(line["images"]))
        assert (row["answer"], row["error"]) == (line["label"] or "", line["error"] or "")
        told = {name: float(row[f"p_{name}"]) for name in "012" if row[f"p_{name}"]}
        assert told == (line["probabilities"] or {})
    assert [*rows[0]][:6] == ["group", "images", "answer", "probability", "withheld", "error"]
    qvit("predict", run, *patients, "--csv", tmp_path / "plain.csv")
    assert "group" not in (tmp_path / "plain.csv").read_text().splitlines()[0]
    assert not (tmp_path / "plain-groups.csv").exists()


def test_withheld_answers_and_warnings_are_shown(
    qvit: Qvit, run: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qvit.answers.predictor import Prediction, Predictor

    said = [
        Prediction("a", None, 0.4, True, {"x": 0.4}, ("x", "y"), (), 2.0, True),
        Prediction("b", (), 0.9, False, {"x": 0.1}, (), (), 1.0, False),
        Prediction("c", ("x", "y"), 0.9, False, {"x": 0.9}, ("x",), (), 1.0, False),
    ]
    monkeypatch.setattr(Predictor, "stream", lambda *_: iter(said))
    lines = qvit("predict", run, files[0]).out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [
        ["a", "withheld", "0.400", "x, y", "yes"],
        ["b", "none", "0.900", "none", ""],
        ["c", "x, y", "0.900", "x", ""],
    ]
    assert lines[-1] == "withheld: 1, none: 1, x, y: 1"
    monkeypatch.setattr(module, "MOST_ROWS", 1)
    out = qvit("predict", run, files[0]).out
    assert "2 more images are not shown; --csv FILE and --jsonl give all." in " ".join(out.split())


def test_a_table_is_finished_if_nobody_reads_the_rest(
    qvit: Qvit, run: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> str:
        raise BrokenPipeError

    monkeypatch.setattr(module, "_line", gone)
    assert qvit("predict", run, *files, "--jsonl", "--csv", tmp_path / "t.csv").code == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 5


def test_without_stdin_there_are_no_images(qvit: Qvit, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    told = qvit("predict", run, "-")
    assert (told.code, told.out) == (0, "")
    assert told.err.endswith("No image was named.\n")


def test_one_form_of_output(qvit: Qvit, run: Path, files: list[Path]) -> None:
    told = qvit("predict", run, *files, "--json", "--jsonl")
    assert told.code == 2
    assert told.err == "Error: Both --json and --jsonl were given; use one of them.\n"


def test_nothing_is_left_of_a_table_that_failed(qvit: Qvit, run: Path, files: list[Path], tmp_path: Path) -> None:
    told = qvit("predict", run, files[0], tmp_path / "none.txt", "--csv", tmp_path / "t.csv", "--jsonl")
    assert told.code == 2
    assert told.err.endswith(f"Error: There is no file {tmp_path / 'none.txt'}.\n")
    assert not [path for path in tmp_path.iterdir() if "t.csv" in path.name]


@pytest.mark.parametrize("name", [".", "/dev/null"])
def test_a_table_takes_the_place_of_files_alone(qvit: Qvit, run: Path, files: list[Path], name: str) -> None:
    told = qvit("predict", run, *files, "--csv", name, "--group-by", "[0-9]")
    assert told.code == 2
    assert f"Error: Cannot write {name}: expected the name of a file, found" in told.err
