"""Rows and groups of a comparison: the figures of the runs, means over seeds, differing options in the name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qvit.distill import DistillConfig, Teacher, TeacherGuide
from qvit.errors import RunError
from qvit.evaluation.statistics import Interval, folds_interval, mean_interval
from qvit.report.compare import (
    COLUMNS,
    FEW,
    FOLD_COLUMNS,
    FOLDS_COLUMNS,
    GROUP_COLUMNS,
    as_json,
    caption,
    cells,
    group_cells,
    group_rows,
    read_row,
    read_rows,
    tables,
)
from qvit.training.options import resolve
from qvit.training.run import Run, train_run

MakeRun = Callable[..., Run]


@pytest.fixture
def learn(make_npz: Callable[..., Path], train_as_if: MakeRun, tmp_path: Path) -> MakeRun:
    """A run that learned from a teacher, or started from another run; as if."""

    def make(
        name: str, *, teacher: Run | None = None, origin: Run | None = None, how: Any = None, **options: Any
    ) -> Run:
        config = resolve({"dataset": str(make_npz()), "model": "vit_4q1h", "epochs": 1} | options)
        guide = None
        if teacher is not None:
            who = Teacher.of_runs([teacher.folder])
            guide = TeacherGuide(who, how or DistillConfig(), cache=tmp_path / "cache")
        return train_as_if(config, tmp_path / "runs" / name, guide=guide, origin=origin)

    return make


def names(*runs: Run) -> list[str]:
    return [row.model for row in read_rows([Run(run.folder) for run in runs])]


@pytest.mark.trains
def test_what_training_leaves_is_read(make_npz: Callable[..., Path], tmp_path: Path) -> None:
    """All other runs here are made as if trained."""
    options = {"dataset": str(make_npz()), "model": "vit_4q1h", "epochs": 1}
    teacher = train_run(resolve(options), tmp_path / "teacher")
    guide = TeacherGuide(Teacher.of_runs([teacher.folder]), DistillConfig(), cache=tmp_path / "cache")
    pretrained = train_run(resolve(options), tmp_path / "pretrained", guide=guide)
    tuned = train_run(resolve(options), tmp_path / "tuned", origin=pretrained)
    assert names(teacher, pretrained, tuned) == [
        "vit_4q1h",
        "vit_4q1h (taught by vit_4q1h)",
        "vit_4q1h (pre-trained on vit_4q1h)",
    ]
    assert read_row(tuned).auc.value == tuned.result.test.auc


def test_a_row_holds_the_figures_of_its_run(make_run: MakeRun) -> None:
    run = make_run(seed=4)
    row, result = read_row(run), run.result
    assert (row.model, row.seed, row.parameters) == ("vit_4q1h", 4, result.parameters)
    assert [row.auc.value, row.auc.low, row.auc.high] == [result.test.auc, *result.test.auc_interval]
    assert [row.acc.value, row.acc.low, row.acc.high] == [result.test.acc, *result.test.acc_interval]
    assert (row.val_auc, row.best_epoch, row.seconds) == (result.val.auc, result.best_epoch, run.seconds)
    assert row.auc.level == row.acc.level == 0.95


def test_cells_match_their_columns(make_run: MakeRun) -> None:
    row = read_row(make_run(seed=4))
    shown = dict(zip(COLUMNS, cells(row), strict=True))
    assert shown["seed"] == "4"
    assert shown["test AUC"] == f"{row.auc.value:.3f} [{row.auc.low:.3f}, {row.auc.high:.3f}]"
    assert shown["test ACC"] == f"{row.acc.value:.3f} [{row.acc.low:.3f}, {row.acc.high:.3f}]"
    assert shown["val AUC"] == f"{row.val_auc:.3f}"
    [group] = group_rows([row])
    shown = dict(zip(GROUP_COLUMNS, group_cells(group), strict=True))
    assert shown["seeds"] == "1"
    assert shown["test AUC"] == f"{row.auc.value:.3f}", "one seed has no interval over seeds"
    assert shown["parameters"] == str(row.parameters)


def test_what_has_no_interval_is_explained(make_run: MakeRun) -> None:
    row = read_row(make_run(seed=4))
    assert (row.auc.why, row.acc.why) == ("", "")
    assert caption([row]) == "Intervals: 95 %, bootstrap over test images."
    untold = replace(row, acc=Interval(row.acc.value, None, None, 0.95, FEW.format("test")))
    assert caption([row, untold]) == f"{caption([row])} None: too few test images to tell."


@pytest.mark.long
def test_seeds_are_averaged(make_run: MakeRun) -> None:
    rows = read_rows([make_run(seed=seed) for seed in (2, 0, 1)])
    assert {row.model for row in rows} == {"vit_4q1h"}
    [group] = group_rows(rows)
    assert group.seeds == (0, 1, 2)
    for name in ("auc", "acc"):
        values = [getattr(row, name).value for row in rows]
        assert getattr(group, name) == mean_interval(values)
        assert len(set(values)) > 1, "the case is of no use if all seeds agree"
    assert group.val_auc == mean_interval([row.val_auc for row in rows])
    assert group.seconds == pytest.approx(sum(row.seconds for row in rows) / 3)
    ninety = group_rows(rows, level=0.9)[0].auc
    assert ninety == mean_interval([row.auc.value for row in rows], level=0.9) != group.auc


@pytest.mark.long
def test_models_and_datasets_are_kept_apart(make_run: MakeRun, make_npz: Callable[..., Path]) -> None:
    other = make_npz("second", seed=1)
    runs = [make_run(), make_run(model="qvit_4q1h"), make_run(other), make_run(seed=1)]
    groups = group_rows(read_rows(runs))
    assert [(group.model, Path(group.dataset).stem, group.seeds) for group in groups] == [
        ("vit_4q1h", "first", (0, 1)),
        ("qvit_4q1h", "first", (0,)),
        ("vit_4q1h", "second", (0,)),
    ]


@pytest.mark.long
def test_differing_options_are_added_to_the_name(make_run: MakeRun) -> None:
    runs = [make_run(), make_run(lr=0.02, pool="cls"), make_run(lr=0.02, pool="cls", seed=1)]
    rows = read_rows(runs)
    assert [row.model for row in rows] == [
        "vit_4q1h (pool=mean, lr=0.005)",
        "vit_4q1h (pool=cls, lr=0.02)",
        "vit_4q1h (pool=cls, lr=0.02)",
    ]
    assert [group.seeds for group in group_rows(rows)] == [(0,), (0, 1)]


@pytest.mark.long
def test_what_was_learned_from_others_is_added_to_the_name(make_run: MakeRun, learn: MakeRun) -> None:
    teacher = make_run(model="vit_8q1h")
    pretrained = learn("pretrain", teacher=teacher)
    runs = [
        make_run(lr=0.02),
        pretrained,
        learn("finetune", origin=pretrained, lr=0.001),
        learn("joint", teacher=teacher, how=DistillConfig(alpha=0.5)),
        learn("from labels", origin=make_run()),
    ]
    expected = [
        "vit_4q1h",
        "vit_4q1h (taught by vit_8q1h)",
        "vit_4q1h (pre-trained on vit_8q1h)",
        "vit_4q1h (taught by vit_8q1h and labels)",
        "vit_4q1h (pre-trained on first)",
    ]
    assert names(*runs) == expected
    assert [read_row(run).model for run in runs] == expected, "options of one are not told beside the other's"
    assert names(learn("both", teacher=teacher, origin=pretrained)) == [
        "vit_4q1h (taught by vit_8q1h, pre-trained on vit_8q1h)"
    ]


@pytest.mark.long
def test_options_that_differ_among_the_taught(make_run: MakeRun, learn: MakeRun) -> None:
    teacher, other = make_run(model="vit_8q1h"), make_run(model="vit_8q1h", seed=1)
    cold, warm = learn("cold", teacher=teacher), learn("warm", teacher=teacher, how=DistillConfig(temperature=4.0))
    assert names(cold, warm) == [f"vit_4q1h (taught by vit_8q1h, temperature={t})" for t in (2.0, 4.0)]
    digests = [Teacher.of_runs([run.folder]).digest[:8] for run in (teacher, other)]
    assert names(cold, learn("other", teacher=other)) == [
        f"vit_4q1h (taught by vit_8q1h, teacher={digest})" for digest in digests
    ]
    tuned = [learn(f"{run.folder.name}, tuned", origin=run, lr=0.001) for run in (cold, warm)]
    assert names(*tuned) == [f"vit_4q1h (pre-trained on vit_8q1h, pretrain temperature={t})" for t in (2.0, 4.0)]
    again = learn("again", origin=cold, lr=0.002)
    assert names(tuned[0], again) == [f"vit_4q1h (pre-trained on vit_8q1h, lr={lr})" for lr in (0.001, 0.002)]


@pytest.mark.long
def test_seeds_of_the_taught_are_averaged(make_run: MakeRun, learn: MakeRun) -> None:
    """Each from its own weights; but not from another seed's."""
    teacher = make_run(model="vit_8q1h")
    before = [learn(f"before {seed}", teacher=teacher, seed=seed) for seed in (0, 1)]
    after = [learn(f"after {run.config['seed']}", origin=run, seed=run.config["seed"]) for run in before]
    assert set(names(*before)) == {"vit_4q1h (taught by vit_8q1h)"}
    [group] = group_rows(read_rows(after))
    assert (group.model, group.seeds) == ("vit_4q1h (pre-trained on vit_8q1h)", (0, 1))
    crossed = learn("crossed", origin=before[1], seed=0)
    assert len(group_rows(read_rows([*after, crossed]))) == 2
    assert names(after[0], crossed)[1] == "vit_4q1h (pre-trained on vit_8q1h, pretrain seed=1)"


@pytest.mark.long
def test_where_a_run_started_from_is_found_again_or_not(make_run: MakeRun, learn: MakeRun, tmp_path: Path) -> None:
    teacher = make_run(model="vit_8q1h")
    first, second = learn("first", teacher=teacher), learn("second", teacher=teacher, lr=0.03)
    tuned = [learn(f"{run.folder.name}, tuned", origin=run) for run in (first, second)]
    name = "vit_4q1h (pre-trained on vit_8q1h)"
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = [Run(tmp_path / "moved" / run.folder.name) for run in tuned]
    assert names(moved[0]) == [name], "all was moved together"
    shutil.copytree(tmp_path / "moved" / "second", tmp_path / "runs" / "first")
    assert names(moved[0]) == [name], "what lies there now is another run"
    shutil.rmtree(tmp_path / "moved" / "first")
    digest = [run.config["origin"]["weights"][:8] for run in moved]
    assert names(moved[0]) == ["vit_4q1h (pre-trained)"]
    assert names(*moved) == ["vit_4q1h (pre-trained)", name]
    shutil.rmtree(tmp_path / "moved" / "second")
    assert names(*moved) == [f"vit_4q1h (pre-trained, weights={one})" for one in digest]


FOLD = {"folds": 3, "keep": "last", "tta": "never"}


@pytest.mark.long
def test_folds_are_averaged_by_themselves(make_run: MakeRun) -> None:
    runs = [make_run(fold=fold, seed=seed, **FOLD) for seed in (0, 1) for fold in (1, 2, 3)]
    rows = read_rows([*runs[:5], make_run(keep="last", tta="never")])
    assert [(row.seed, row.fold, row.folds) for row in rows[2:]] == [(0, 3, 3), (1, 1, 3), (1, 2, 3), (0, None, None)]
    assert {row.model for row in rows} == {"vit_4q1h"}, "the fold has a column"
    held, whole = group_rows(rows)
    assert (held.folds, held.seeds, held.runs) == (3, (0, 1), 5)
    assert (whole.folds, whole.seeds, whole.runs) == (None, (0,), 1)
    values = [row.auc.value for row in rows[:5]]
    assert held.auc == folds_interval(values, 3)
    assert len(set(values)) > 1, "the case is of no use if all folds agree"
    assert (held.auc.low or 0) < (mean_interval(values).low or 0)
    named = read_rows([runs[0], make_run()])
    assert [row.model for row in named] == ["vit_4q1h (tta=never, keep=last)", "vit_4q1h (tta=auto, keep=best)"]


@pytest.mark.long
def test_baselines_of_different_sizes_are_averaged(make_run: MakeRun) -> None:
    """They store as many numbers as what they were fitted to asks for."""
    [row] = read_rows([make_run()])
    rows = [replace(row, model="nearest (neighbours=3)", seed=seed, parameters=100 + seed) for seed in (1, 2, 6)]
    [group] = group_rows(rows)
    assert (group.seeds, group.parameters) == ((1, 2, 6), 103)
    assert len(group_rows([replace(one, model="vit_4q1h") for one in rows])) == 3


def test_tables_of_folds_do_not_speak_of_test(make_run: MakeRun) -> None:
    rows = read_rows([make_run(fold=fold, **FOLD) for fold in (1, 2)])
    [runs, means] = tables(rows, group_rows(rows))
    assert (runs.title, means.title) == ("Folds held out", "Means over folds")
    assert [dict(zip(FOLD_COLUMNS, row, strict=True))["fold"] for row in runs.rows] == ["1 of 3", "2 of 3"]
    assert runs.caption == (
        "After the last epoch, without the test images. Intervals: 95 %, bootstrap over held-out images."
    )
    shown = dict(zip(FOLDS_COLUMNS, means.rows[0], strict=True))
    assert (shown["folds"], shown["seeds"], shown["runs"]) == ("3", "1", "2")
    assert "wider as these share training images (Nadeau and Bengio 2003)" in means.caption
    for table in (runs, means):
        assert not any("test" in word or "val" in word for word in (*table.columns, table.title))
    untold = replace(rows[0], auc=Interval(0.5, None, None, 0.95, FEW.format("held-out")))
    assert caption([untold]).endswith(" None: too few held-out images to tell.")
    whole = [make_run(), make_run(seed=1)]
    all_rows = read_rows([*whole, make_run(fold=1, **FOLD)])
    titles = [table.title for table in tables(all_rows, group_rows(all_rows))]
    assert titles == ["Runs", "Means over seeds", "Folds held out"]


def test_options_of_other_models_do_not_matter(make_run: MakeRun) -> None:
    assert [row.model for row in read_rows([make_run(), make_run(model="qvit_4q1h", lr=0.02)])] == [
        "vit_4q1h",
        "qvit_4q1h",
    ]


@pytest.mark.long
def test_a_differing_task_or_file_is_not_averaged_over(make_run: MakeRun, make_npz: Callable[..., Path]) -> None:
    """The same path may have held other images, the same labels may be read as ordered or not."""
    path = make_npz("changing")
    first = make_run(path)
    ordered = make_run(path, seed=1, task="ordinal")
    make_npz("changing", seed=9)
    changed = make_run(path, seed=2)
    for pair in ([first, ordered], [first, changed]):
        assert len(group_rows(read_rows(pair))) == 2


@pytest.mark.long
def test_a_file_that_was_moved_between_runs_is_one_dataset(
    make_run: MakeRun, make_npz: Callable[..., Path], train_as_if: MakeRun, tmp_path: Path
) -> None:
    runs = [make_run(seed=0)]
    for name, npz in (("moved", make_npz()), ("changed", make_npz("other", seed=1))):
        (tmp_path / name).mkdir()
        place = tmp_path / name / make_npz().name
        shutil.copy(npz, place)
        runs.append(
            train_as_if(
                resolve(runs[0].config["train"] | {"dataset": str(place), "model": "vit_4q1h", "seed": 1}),
                tmp_path / name / "run",
            )
        )
    same, other = read_rows(runs[:2]), read_rows([runs[0], runs[2]])
    assert len({row.dataset for row in same}) == len(group_rows(same)) == 1
    assert len(group_rows(other)) == 2, "its name is that of another file's, too"


def test_the_same_run_twice_counts_once(make_run: MakeRun) -> None:
    [group] = group_rows(read_rows([make_run(), make_run(), make_run(seed=1)]))
    assert group.seeds == (0, 1)
    assert group.auc.value == pytest.approx((make_run().result.test.auc + make_run(seed=1).result.test.auc) / 2)


def test_json_is_plain(make_run: MakeRun) -> None:
    rows = read_rows([make_run(), make_run(seed=1)])
    read = json.loads(json.dumps(as_json(rows, group_rows(rows))))
    assert [run["seed"] for run in read["runs"]] == [0, 1]
    assert read["means"][0]["seeds"] == [0, 1]
    assert read["runs"][0]["auc"]["value"] == rows[0].auc.value


def test_what_is_no_finished_run_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        read_rows([make_run(), Run(tmp_path)])
    (tmp_path / "config.json").write_bytes((make_run().folder / "config.json").read_bytes())
    with pytest.raises(RunError, match="is not finished; go on with"):
        read_rows([make_run(), Run(tmp_path)])
