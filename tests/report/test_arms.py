"""A study's folder put together: arms and their runs, in whatever state it is."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from qvit.errors import RunError
from qvit.evaluation.metrics import evaluate
from qvit.evaluation.statistics import crossed_interval
from qvit.report import arms as arms_module
from qvit.report.arms import Arm, Results, TestSet, load_results, read_labels
from qvit.study.spec import Job
from qvit.study.store import FILE, Store, labels_file

MakeStudy = Callable[..., Path]
TEXT = """
title: Two arms
description: and their teacher
datasets: [a.npz, b.npz]
models: [qvit_4q1h, {name: vit_4q1h, label: dense, options: {dropout: 0.5}}]
seeds: 3
teachers: {t: [{arch: vit_4q1h, seeds: 2, datasets: a.npz}, {arch: vit_8q1h, datasets: b.npz}]}
regimes: {scratch: , kd: {teacher: t}}
"""


@pytest.fixture(scope="module")
def whole(make_study: MakeStudy) -> Path:
    """The folder of a whole study, which nobody changes."""
    return make_study(TEXT, skill=lambda job: 0.5 + job.seed)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(whole, tmp_path / "study"))


@pytest.fixture(scope="module")
def small(make_study: MakeStudy) -> Path:
    """The folder of a study of one run."""
    return make_study("datasets: a.npz\nmodels: vit_4q1h")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals as quickly as they can be had; how good they are is another test's."""
    monkeypatch.setattr(arms_module, "RESAMPLES", 40)


def by_title(results: Results) -> dict[str, Arm]:
    return {arm.title: arm for arm in results.arms}


def test_arms_and_cells(whole: Path) -> None:
    results = load_results(str(whole))
    assert (results.name, results.title, results.description) == ("study", "Two arms", "and their teacher")
    assert (results.specification, results.folder) == (TEXT, whole)
    assert [arm.title for arm in results.arms] == ["qvit_4q1h", "dense", "qvit_4q1h, kd", "dense, kd"]
    assert [(arm.label, arm.regime, arm.role) for arm in results.teachers] == [
        ("vit_4q1h", "t", "teacher"),
        ("vit_8q1h", "t", "teacher"),
    ]
    first, second, *_ = results.arms
    assert (first.kind, first.qubits, first.heads, first.layers, first.options) == ("qvit", 4, 1, 1, "{}")
    assert (second.name, second.kind, second.layers, second.options) == ("vit_4q1h", "vit", None, '{"dropout": 0.5}')
    assert [(test.name, test.title, test.task, test.official) for test in results.tests] == [
        ("a", "Set A", "multi-class", False),
        ("b", "Set B", "binary", False),
    ]
    assert {
        (name, arm.label): cell.seeds for (name, arm), cell in results.cells.items() if arm in results.teachers
    } == {
        ("a", "vit_4q1h"): (0, 1),
        ("b", "vit_8q1h"): (0,),
    }
    assert all(cell.seeds == (0, 1, 2) for (_, arm), cell in results.cells.items() if arm.role == "student")
    assert len(results.cells) == 2 * 4 + 2
    assert results.cell(results.tests[0], results.teachers[1]) is None
    assert results.failed == results.missing == []
    assert results.costs["a", "dense"].parameters > 0
    assert len(results.attempts) == len(results.jobs) == 2 * 4 * 3 + 3


def test_a_cell_holds_the_figures_of_its_runs(whole: Path) -> None:
    results = load_results(whole)
    for test in results.tests:
        cell = results.cell(test, by_title(results)["dense, kd"])
        assert cell is not None
        assert {run.folder.name for run in cell.runs} == {"finetune"}
        assert [[run.folder.name for run in stages] for stages in cell.stages] == 3 * [["pretrain", "finetune"]]
        files = [run.result.test for run in cell.runs]
        assert cell.values("auc") == [file.auc for file in files]
        assert cell.values("acc") == [file.acc for file in files]
        assert len(set(cell.values("auc"))) == 3, "or the case is of no use"
        found = [evaluate(test.labels, scores, test.task) for scores in cell.scores]
        assert cell.values("auc") == [one["auc"] for one in found]
        assert cell.measures["ece"] == pytest.approx(sum(one["ece"] for one in found) / 3)
        assert cell.intervals["auc"] == crossed_interval(
            test.labels, cell.scores, test.task, metric="auc", resamples=40
        )
        assert cell.intervals["acc"].value == pytest.approx(np.mean(cell.values("acc")))
        assert cell.parameters == cell.runs[0].result.parameters
        assert cell.seconds == (4.5, 4.5, 4.5)


def lacking(*names: str) -> Callable[[Job], str]:
    """Runs that are not there; those of one seed as "model regime seed"."""
    return lambda job: "waiting" if f"{job.model.label} {job.regime} {job.seed}" in names else "finished"


def test_pairs_have_common_seeds_only(make_study: MakeStudy) -> None:
    results = load_results(
        make_study(TEXT, state=lacking("qvit_4q1h scratch 0", "dense scratch 2"), skill=lambda job: 0.5 + job.seed)
    )
    test, arms = results.tests[0], by_title(results)
    ours, theirs = results.pair(test, arms["qvit_4q1h"], arms["dense"]) or []
    assert ours.seeds == theirs.seeds == (1,)
    whole = results.cell(test, arms["qvit_4q1h"])
    assert whole is not None
    assert whole.seeds == (1, 2)
    assert ours.values("auc") == whole.values("auc")[:1]
    assert ours.runs == whole.runs[:1]
    assert (ours.scores == whole.scores[:1]).all()
    assert (len(ours.results), len(ours.stages), len(ours.seconds)) == (1, 1, 1)
    [kd] = results.pair(test, arms["qvit_4q1h, kd"]) or []
    assert kd is results.cell(test, arms["qvit_4q1h, kd"])
    three = results.pair(test, arms["qvit_4q1h"], arms["dense"], arms["dense, kd"])
    assert three is not None
    assert [cell.seeds for cell in three] == [(1,)] * 3


def test_no_pair_without_common_seeds(make_study: MakeStudy) -> None:
    absent = ["qvit_4q1h scratch 0", "dense scratch 1", "dense scratch 2", *(f"dense kd {k}" for k in range(3))]
    results = load_results(make_study(TEXT, state=lacking(*absent)))
    arms = by_title(results)
    for test in results.tests:
        assert results.pair(test, arms["qvit_4q1h"], arms["dense"]) is None
        assert results.pair(test, arms["qvit_4q1h"], arms["dense, kd"]) is None
        assert results.cell(test, arms["dense, kd"]) is None


def test_seeds_are_in_order_whatever_the_specification_says(make_study: MakeStudy) -> None:
    results = load_results(make_study(TEXT.replace("seeds: 3", "seeds: [7, 0, 4]"), skill=lambda job: job.seed / 4))
    cell = results.cell(results.tests[0], results.arms[0])
    assert cell is not None
    assert cell.seeds == (0, 4, 7)
    assert cell.values("auc") == [run.result.test.auc for run in cell.runs]
    assert [run.config["seed"] for run in cell.runs] == [0, 4, 7]


def test_a_study_that_is_not_finished(make_study: MakeStudy) -> None:
    states = {("a", 0): "finished", ("a", 1): "failed", ("a", 2): "running"}
    results = load_results(
        make_study(TEXT, state=lambda job: states.get((Path(job.dataset).stem, job.seed), "waiting"))
    )
    assert {name for name, _ in results.cells} == {"a"}
    assert [test.name for test in results.tests] == ["a", "b"]
    assert {(job.status, job.seed) for job in results.missing if "a.npz" in job.dataset} == {("running", 2)}
    assert {job.error for job in results.failed} == {"ran out of <luck>"}
    assert len(results.failed) == 4 + 1
    assert len(results.missing) == 4 + (3 * 4 + 1)


def test_a_run_that_answers_two_jobs(make_study: MakeStudy) -> None:
    results = load_results(
        make_study("datasets: a.npz\nmodels: [qvit_4q1h, {name: qvit_4q1h, label: again}]\nseeds: 2")
    )
    cells = list(results.cells.values())
    assert [cell.arm.label for cell in cells] == ["qvit_4q1h", "again"]
    assert cells[0].runs == cells[1].runs


def test_teachers_of_one_architecture_are_arms_of_their_own(make_study: MakeStudy) -> None:
    results = load_results(
        make_study(
            "datasets: a.npz\nmodels: qvit_4q1h\nregimes: {kd: {teacher: t}}\n"
            "teachers: {t: [{arch: vit_4q1h, seeds: 2}, {arch: vit_4q1h, dropout: 0.5, seeds: 2}]}"
        )
    )
    assert [(arm.label, results.cells["a", arm].seeds) for arm in results.teachers] == [
        ("vit_4q1h", (0, 1)),
        ("vit_4q1h (dropout=0.5)", (0, 1)),
    ]


# --- trouble ---


def test_no_study_and_no_finished_run(make_study: MakeStudy, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no study"):
        load_results(tmp_path)
    for state in ("waiting", "failed", "running"):
        folder = make_study("datasets: a.npz\nmodels: vit_4q1h", state=lambda job: state, name=state)  # noqa: B023
        with pytest.raises(RunError) as caught:
            load_results(folder)
        assert str(caught.value) == f"No run of the study in {folder} is finished yet; go on with `qvit study run`."


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"PK\x03\x04 half"])
def test_labels_that_are_gone(folder: Path, content: bytes | None) -> None:
    path = labels_file(folder, "b.npz")
    whole = path.read_bytes()
    for broken in (content, whole[: len(whole) // 2], whole[:-30] if content is None else whole[:200]):
        path.unlink(missing_ok=True)
        if broken is not None:
            path.write_bytes(broken)
        with pytest.raises(RunError) as caught:
            load_results(folder)
        assert "b.npz cannot be read" in str(caught.value)
        assert "`qvit study run` makes it again" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"images": np.array(3)}, "0-d"),
        ({"images": np.array([1200, 8, 41])}, "its labels are int64 of the shape (40, 1), for 41 images"),
        ({"images": np.array([np.inf, 1, 2])}, "infinity"),
        ({"test": np.zeros(40, np.int64)}, "its labels are int64 of the shape (40,), for 40 images"),
        ({"test": np.zeros((40, 1), "U3")}, "its labels are <U3 of the shape (40, 1), for 40 images"),
        ({"names": np.array("one")}, "its labels are int64 of the shape (40, 1), for 40 images"),
        ({"task": np.array("guessing")}, "guessing"),
        ({"title": np.array([{}], dtype=object)}, "Python objects"),
    ],
)
def test_labels_of_other_kinds(small: Path, tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "study"))
    path = labels_file(folder, "a.npz")
    with np.load(path) as kept:
        arrays = dict(kept)
    np.savez(path, allow_pickle=True, **(arrays | changed))
    with pytest.raises(RunError) as caught:
        read_labels(folder, "a.npz")
    reason = (
        str(caught.value).removeprefix(f"{path} cannot be read (").removesuffix("); `qvit study run` makes it again.")
    )
    assert told in reason
    assert str(caught.value) == f"{path} cannot be read ({reason}); `qvit study run` makes it again."
    if "its labels" in told:
        assert reason == told


def test_labels_that_are_a_pipe_or_have_headers_of_nonsense(small: Path, tmp_path: Path) -> None:
    """Neither waits for ever, nor ends in what numpy's reader has to say."""
    folder = Path(shutil.copytree(small, tmp_path / "study"))
    path = labels_file(folder, "a.npz")
    with ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"{'descr'", b"{(((((((") if name == "test.npy" else content)
    with pytest.raises(RunError, match=r"a\.npz cannot be read .*no header of an array"):
        read_labels(folder, "a.npz")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match=r"a\.npz cannot be read .*a pipe or a device"):
        read_labels(folder, "a.npz")


def test_labels_with_flipped_bytes(folder: Path) -> None:
    path = labels_file(folder, "a.npz")
    whole = path.read_bytes()
    told = 0
    for place in range(0, len(whole), 101):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        path.write_bytes(broken)
        try:
            assert isinstance(read_labels(folder, "a.npz"), TestSet)
        except RunError:
            told += 1
    assert told > 10


def test_labels_that_lack_something(folder: Path) -> None:
    np.savez(labels_file(folder, "a.npz"), test=np.zeros((2, 1), np.int64))
    with pytest.raises(RunError, match=r"a\.npz cannot be read"):
        load_results(folder)


@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("jobs SET model", ["null", "[]", '{"label": 1}', '{"label": "a"}']),
        ("jobs SET options", ["null", "[1]", "7"]),
        ("jobs SET teachers", ["null", "7", "[1]", '{"a": 1}']),
        ("runs SET result", ["null", "[]", "{}", '{"test": 1}', '{"test": {"auc": "high"}}', "[" * 100_000]),
        ("runs SET seconds", ["soon"]),
        ("runs SET status", ["begun"]),
        ("study SET value", ["null", "[]", "7"]),
    ],
)
def test_values_that_should_not_be(folder: Path, place: str, values: list[str]) -> None:
    """The file came from outside; what cannot be used is told as damage, and never another exception."""
    kept, where = (folder / FILE).read_bytes(), "WHERE key != 'format'" if place.startswith("study") else ""
    for value in values:
        (folder / FILE).write_bytes(kept)
        connection = sqlite3.connect(folder / FILE)
        with connection:
            connection.execute(f"UPDATE {place} = ? {where}", (value,))
        connection.close()
        with pytest.raises(RunError, match=r"is damaged|: delete it|is finished yet") as error:
            load_results(folder)
        assert str(folder) in str(error.value)


def test_costs_that_are_none_are_left_out(folder: Path) -> None:
    for value in ("null", "[]", '{"parameters": 5}'):
        connection = sqlite3.connect(folder / FILE)
        with connection:
            connection.execute("UPDATE models SET cost = ?", (value,))
        connection.close()
        assert load_results(folder).costs == {}


def test_a_run_that_has_been_deleted_since(folder: Path) -> None:
    results = load_results(folder)
    shutil.rmtree(folder / "runs")
    for cell in results.cells.values():
        with pytest.raises(RunError, match="is not a run folder"):
            assert cell.scores is None


@pytest.mark.long
def test_everything_is_read_only(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    results = load_results(folder)
    assert all(cell.intervals for cell in results.cells.values())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_circumstances(folder: Path) -> None:
    with Store.open(folder) as store:
        machine = store.get("machine") | {"cpus": 64}
        store.put(code="beef", machine=machine)
    results = load_results(folder)
    assert (results.code, results.machine) == ("beef", machine)
    assert (folder / FILE).exists()
