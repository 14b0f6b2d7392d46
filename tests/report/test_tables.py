"""Tables: they say what the results say, and every one can be read back."""

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.evaluation.metrics import evaluate
from qvit.models.baselines import BASELINES
from qvit.report import arms as arms_module
from qvit.report.arms import Results, load_results
from qvit.report.claims import families, headline
from qvit.report.formats import MISSING, Table, write_tables
from qvit.report.published import published
from qvit.report.tables import (
    average_table,
    class_table,
    copies_table,
    cost_table,
    family_table,
    headline_table,
    main_table,
    seeds_table,
    teacher_table,
)
from qvit.report.words import p_value, shown, signed
from qvit.study.store import labels_file
from report.made import check_latex

MakeStudy = Callable[..., Path]
TITLES = {"auc": "AUC", "acc": "ACC"}
TEXT = """
title: Two and two
datasets: [a.npz, d.npz]
models: [qvit_4q1h, vit_4q1h_matched, {name: cosine_4q1h, label: a_b & 5 % | −x}]
seeds: 2
teachers: {strong: [{arch: vit_4q1h, seeds: 2}, {arch: vit_8q1h, datasets: a.npz}]}
regimes: {scratch: , kd: {teacher: strong}}
"""


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals as quickly as they can be had."""
    monkeypatch.setattr(arms_module, "RESAMPLES", 40)


@pytest.fixture(scope="module")
def results(make_study: MakeStudy) -> Results:
    strength = {"qvit": 2.5, "vit_matched": 0.4}
    return load_results(make_study(TEXT, skill=lambda job: strength.get(job.model.kind, 1.0) + 0.1 * job.seed))


def rows_by(table: Table, *columns: str) -> dict[tuple[str, ...], dict[str, str]]:
    named = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {tuple(row[column] for column in columns): row for row in named}


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


@pytest.mark.long
def test_every_table_is_read_back(results: Results, tmp_path: Path) -> None:
    made = [main_table(results), cost_table(results), seeds_table(results)]
    made += [table for table in (average_table(results), teacher_table(results)) if table]
    made += [family_table(one, results) for one in families(results)] + [
        headline_table(headline(families(results)), results)
    ]
    assert len({table.name for table in made}) == len(made) >= 8
    (tmp_path / "tables").mkdir()
    write_tables(made, tmp_path / "tables")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        f"{table.name}.{end}" for table in made for end in ("csv", "tex")
    }
    for table in made:
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert len(set(table.columns)) == len(table.columns)
        assert table.rows
        with (tmp_path / "tables" / f"{table.name}.csv").open(encoding="utf-8", newline="") as file:
            assert list(csv.reader(file)) == [list(table.columns), *map(list, table.rows)]
        check_latex((tmp_path / "tables" / f"{table.name}.tex").read_text(encoding="utf-8"), table)


# --- figures ---


def test_the_main_table_has_the_figures_of_the_results(results: Results) -> None:
    table = main_table(results)
    assert table.columns == ("model", "parameters", "seeds", "Set A AUC", "Set A ACC", "Set D AUC", "Set D ACC")
    rows = rows_by(table, "model")
    assert list(rows) == [
        *((arm.title,) for arm in results.arms),
        ("vit_4q1h (teacher “strong”)",),
        ("vit_8q1h (teacher “strong”)",),
    ]
    for arm in (*results.arms, *results.teachers):
        row = rows[(arm.title if arm.role == "student" else f"{arm.label} (teacher “strong”)",)]
        for test in results.tests:
            cell = results.cell(test, arm)
            for metric, name in TITLES.items():
                found = row[f"{test.title} {name}"]
                if cell is None:
                    assert found == MISSING
                    continue
                interval = cell.intervals[metric]
                assert found == shown(interval)
                assert found.startswith(f"{np.mean(cell.values(metric)):.3f} [")
                assert number(row["parameters"]) == cell.parameters
                assert row["seeds"] == str(len(cell.seeds))
    assert rows[("vit_8q1h (teacher “strong”)",)]["Set D AUC"] == MISSING


def test_a_family_table_has_the_figures_of_its_findings(results: Results) -> None:
    said = set()
    for one in families(results):
        table = family_table(one, results)
        findings = [f for metric in ("auc", "acc") for f in (*one.of(metric), *one.mean(metric))]
        assert len(table.rows) == len(findings)
        titles = {"a": "Set A", "d": "Set D", None: "mean over datasets"}
        for place, (found, cells) in enumerate(zip(findings, table.rows, strict=True)):
            row = dict(zip(table.columns, cells, strict=True))
            assert (row["A − B"], row["dataset"]) == (f"{found.a} − {found.b}", titles[found.dataset])
            assert row["metric"] == TITLES[found.metric]
            numbers = [number(text) for text in re.findall(r"[+−][\d.]+", row["difference"])]
            comparison = found.comparison
            assert numbers == pytest.approx([comparison.difference, comparison.low, comparison.high], abs=5.001e-4)
            assert "-" not in row["difference"]
            assert row["p"] == p_value(comparison.p)
            assert row["p corrected"] == p_value(found.corrected)
            assert row["g"] == (MISSING if found.g is None else f"{found.g:+.1f}".replace("-", "−"))
            assert row["P(A > B)"] == (MISSING if found.dataset is None else f"{found.superiority:.2f}")
            assert row["what is shown"] == found.verdict
            assert (place in table.strong) == found.shown
            said.add(found.shown)
    assert said == {True, False}, "or the case is of no use"


def test_the_headline_table(results: Results) -> None:
    first = headline(families(results))
    table = headline_table(first, results)
    rows = rows_by(table, "in the circuits' place", "dataset")
    assert len(rows) == 2 * 3
    for one in first:
        for auc, acc in zip((*one.of("auc"), *one.mean("auc")), (*one.of("acc"), *one.mean("acc")), strict=True):
            where = {"a": "Set A", "d": "Set D", None: "mean over datasets"}[auc.dataset]
            row = rows[one.question, where]
            assert (row["AUC"], row["p (AUC)"]) == (signed(auc), p_value(auc.corrected))
            assert (row["ACC"], row["p (ACC)"]) == (signed(acc), p_value(acc.corrected))
            verdicts = {True: "circuits are better", False: "circuits are worse"}
            expected = verdicts[auc.comparison.difference > 0] if auc.shown else "no difference shown"
            assert row["what is shown of the AUC"] == expected
    assert {row["what is shown of the AUC"] for row in rows.values()} != {"no difference shown"}


def test_circuits_may_be_worse(make_study: MakeStudy) -> None:
    text = "datasets: a.npz\nmodels: [qvit_4q1h, vit_4q1h]\nseeds: 4"
    worse = load_results(make_study(text, skill=lambda job: 0.2 if job.model.kind == "qvit" else 3.0))
    assert [row[-1] for row in headline_table(headline(families(worse)), worse).rows] == ["circuits are worse"]


def test_teachers_alone_and_together(results: Results, make_study: MakeStudy) -> None:
    table = teacher_table(results)
    assert table is not None
    on_a, on_d = table.rows
    assert on_a[:2] == ("strong: 2 × vit_4q1h + 1 × vit_8q1h", "Set A")
    assert on_d[:2] == ("strong: 2 × vit_4q1h", "Set D")
    test = results.tests[0]
    cells = [results.cell(test, arm) for arm in results.teachers]
    scores = np.concatenate([cell.scores for cell in cells if cell is not None])
    together = evaluate(test.labels, scores.mean(axis=0), test.task)
    assert on_a[4:] == (f"{together['auc']:.3f}", f"{together['acc']:.3f}")
    singles = [evaluate(test.labels, one, test.task)["auc"] for one in scores]
    assert on_a[3] == f"{min(singles):.3f} to {max(singles):.3f}"
    alone = make_study(
        "datasets: a.npz\nmodels: vit_4q1h\nteachers: {t: [{arch: vit_4q1h}]}\nregimes: {kd: {teacher: t}}"
    )
    table = teacher_table(load_results(alone))
    assert table is not None
    assert table.rows[0][3] == table.rows[0][4], "one figure, not a range"
    assert number(on_a[2]) == sum(cell.parameters * len(cell.seeds) for cell in cells if cell is not None)


def test_costs(results: Results) -> None:
    rows = rows_by(cost_table(results), "model", "dataset")
    assert len(rows) == 3 * 2 + 2 + 1, "of teachers, on their datasets"
    qvit, cosine = rows["qvit_4q1h", "Set A"], rows["a_b & 5 % | −x", "Set A"]
    cost = results.costs["a", "qvit_4q1h"]
    assert number(qvit["parameters"]) == cost.parameters
    assert number(qvit["in attention"]) == cost.parameters_in_attention
    assert number(qvit["circuits"]) == cost.hardware.circuits
    assert (qvit["qubits"], qvit["depth"]) == ("4", str(cost.hardware.depth))
    assert {cosine[column] for column in ("circuits", "qubits", "depth", "gates", "shots")} == {MISSING}


def test_the_size_of_a_baseline_is_that_of_its_runs(make_study: MakeStudy) -> None:
    """Before it is fitted nobody knows it, as these costs do not."""
    results = load_results(make_study("datasets: [a.npz, d.npz]\nmodels: qvit_4q1h\nbaselines: auto"))
    sized = {key: replace(cost, parameters=7) for key, cost in results.costs.items()}
    rows = rows_by(cost_table(replace(results, costs=sized)), "model", "dataset")
    assert {row["parameters"] for (model, _), row in rows.items() if model in BASELINES} == {"11,000"}
    assert {row["FLOPs"] for (model, _), row in rows.items() if model in BASELINES} == {MISSING}
    assert rows["qvit_4q1h", "Set A"]["parameters"] == rows["dsconv_4q1h_matched", "Set D"]["parameters"] == "7"


def test_names_of_columns(results: Results) -> None:
    """Papers and scripts are written with them."""
    tables = [main_table(results), average_table(results), teacher_table(results), cost_table(results)]
    tables += [seeds_table(results), headline_table(headline(families(results)), results)]
    tables += [family_table(family, results) for family in families(results)]
    family = "A − B, dataset, metric, difference, p, p corrected, g, P(A > B), what is shown"
    assert {table.name: ", ".join(table.columns) for table in tables if table} == {
        "main": "model, parameters, seeds, Set A AUC, Set A ACC, Set D AUC, Set D ACC",
        "averages": "model, regime, models, AUC here, ACC here",
        "teachers": "teacher, dataset, parameters, AUC of members, AUC together, ACC together",
        "cost": "model, dataset, parameters, in attention, FLOPs, simulation FLOPs, circuits, qubits, depth, gates, "
        "two-qubit gates, shots",
        "runs": "model, dataset, seed, test AUC, test ACC, val AUC, epoch kept, seconds, identity",
        "worth": "in the circuits' place, dataset, AUC, p (AUC), ACC, p (ACC), what is shown of the AUC",
        **dict.fromkeys(("classical", "controls", "distillation"), family),
    }


def test_every_run_is_listed(results: Results) -> None:
    table = seeds_table(results)
    rows = rows_by(table, "model", "dataset", "seed")
    assert len(rows) == len(table.rows) == len(results.jobs)
    by_folder = {job.identity[:8]: job for job in results.jobs}
    for row in (dict(zip(table.columns, row, strict=True)) for row in table.rows):
        job = by_folder[row["identity"]]
        assert job.result is not None
        assert row["test AUC"] == f"{job.result.test.auc:.4f}"
        assert row["val AUC"] == f"{job.result.val.auc:.4f}"
        assert (row["seed"], row["epoch kept"], row["seconds"]) == (str(job.seed), "2", "4.5")


def test_means_of_own_data_stand_beside_nothing(results: Results) -> None:
    table = average_table(results)
    assert table is not None
    assert table.columns == ("model", "regime", "models", "AUC here", "ACC here")
    assert "paper" not in table.title + table.caption
    assert table.caption == "Over Set A, Set D."
    rows = rows_by(table, "model", "regime")
    assert set(rows) == {(m, r) for m in ("QViT", "ViT, same parameter count") for r in ("scratch", "kd")}
    assert rows["QViT", "scratch"]["AUC here"] == mean_auc(results, "a", "d")


def mean_auc(results: Results, *datasets: str) -> str:
    found = [c for (name, arm), c in results.cells.items() if arm.title == "qvit_4q1h" and name in datasets]
    assert len(found) == len(datasets)
    return f"{np.mean([cell.values('auc') for cell in found]):.3f}"


def test_the_papers_means_stand_beside_those_of_its_datasets_alone(make_study: MakeStudy) -> None:
    text = "datasets: [retinamnist, a.npz, breastmnist]\nmodels: [qvit_4q1h, vit_4q1h_matched]\nseeds: 2"
    found = load_results(make_study(text, titles={"retinamnist": "Retina", "breastmnist": "Breast"}))
    table = average_table(found)
    assert table is not None
    [ours, theirs] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert (ours["AUC in the paper"], ours["ACC in the paper"], theirs["AUC in the paper"]) == (
        "0.863",
        "0.710",
        "0.846",
    )
    assert ours["AUC here"] == mean_auc(found, "retinamnist", "breastmnist")
    assert table.caption.startswith(
        "Here: Retina, Breast; without Set A, which the paper does not have. The paper (arXiv:"
    )
    assert "only 2 of them are here, so compare differences between rows, not levels" in table.caption
    own = load_results(make_study("datasets: sub/retinamnist.npz\nmodels: [qvit_4q1h, vit_4q1h_matched]"))
    assert "paper" not in str(average_table(own)), "a file of that name may hold anything"


def test_a_study_without_these_has_no_such_tables(make_study: MakeStudy) -> None:
    small = load_results(make_study("datasets: a.npz\nmodels: cosine_4q1h"))
    assert teacher_table(small) is None
    assert average_table(small) is None


def test_an_unfinished_study(make_study: MakeStudy) -> None:
    def state(job: Any) -> str:
        absent = job.model.kind == "cosine" or "d.npz" in job.dataset or (job.model.kind, job.seed) == ("qvit", 1)
        return "waiting" if absent else "finished"

    partial = load_results(make_study(TEXT, state=state))
    rows = rows_by(main_table(partial), "model")
    assert set(rows["a_b & 5 % | −x",].values()) == {"a_b & 5 % | −x", MISSING, "0"}
    assert rows["qvit_4q1h",]["Set D AUC"] == MISSING
    assert (rows["qvit_4q1h",]["seeds"], rows["vit_4q1h_matched",]["seeds"]) == ("1", "2")
    assert average_table(partial) is None


# --- published figures ---


def test_published_models_stand_beside_official_data_only(make_study: MakeStudy) -> None:
    official = main_table(load_results(make_study("datasets: [retinamnist, a.npz]\nmodels: vit_4q1h")))
    rows = {row[0]: row[1:] for row in official.rows}
    assert rows["MedMamba-X (MedMamba)"] == (MISSING, MISSING, "0.719", "0.570", MISSING, MISSING)
    assert rows["ResNet-18 (28) (MedMNIST v2)"] == ("11.2M", MISSING, "0.717", "0.524", MISSING, MISSING)
    assert rows["MedViTV2-L (MedViTV2)"][2:4] == (MISSING, "0.578")
    assert len(rows) == 1 + len(published())
    own = main_table(load_results(make_study("datasets: sub/retinamnist.npz\nmodels: vit_4q1h")))
    assert len(own.rows) == 1, "a file of that name may hold anything"


def test_sensitivity_and_specificity_by_class(make_study: MakeStudy) -> None:
    results = load_results(make_study("datasets: [a.npz, retinamnist]\nmodels: [vit_4q1h]\nseeds: 2", name="classes"))
    for number, test in enumerate(results.tests, 1):
        table = class_table(results, test)
        assert table is not None
        assert table.name == f"classes-{number}"
        [arm], [row] = results.arms, table.rows
        cell = results.cell(test, arm)
        assert cell is not None
        binary = test.task == "binary"
        assert table.columns == ("model", *(test.classes[1:] if binary else test.classes))
        for place, told in enumerate(row[1:], 1 if binary else 0):
            true = test.labels[:, 0] == place
            said = [(scores.argmax(axis=1) == place) for scores in cell.scores]
            found = np.mean([one[true].mean() for one in said]), np.mean([~one[~true] for one in said])
            assert told == f"{found[0]:.3f} / {found[1]:.3f}"


def test_measures_without_near_duplicates(make_study: MakeStudy) -> None:
    folder = make_study("datasets: [a.npz, b.npz]\nmodels: [vit_4q1h, cosine_4q1h]\nseeds: 2", name="copies")
    assert copies_table(load_results(folder), load_results(folder).tests[0]) is None, "older studies do not know them"
    path = labels_file(folder, "a.npz")
    kept = dict(np.load(path))
    copies = np.zeros(len(kept["test"]), bool)
    copies[[1, 5, 6]] = True
    np.savez(path, **kept | {"copies": copies})
    results = load_results(folder)
    table = copies_table(results, results.tests[0])
    assert table is not None
    assert copies_table(results, results.tests[1]) is None
    assert table.caption.startswith(f"3 of {len(copies)} test images have a near-duplicate")
    assert [row[0] for row in table.rows] == ["vit_4q1h", "cosine_4q1h"]
    for row, arm in zip(table.rows, results.arms, strict=True):
        cell = results.cell(results.tests[0], arm)
        assert cell is not None
        for name, told in zip(table.columns[1:], row[1:], strict=True):
            both = [
                np.mean(
                    [evaluate(cell.test.labels[keep], scores[keep], cell.test.task)[name] for scores in cell.scores]
                )
                for keep in (np.ones(len(copies), bool), ~copies)
            ]
            assert told == f"{both[0]:.3f} → {both[1]:.3f}"
    np.savez(path, **kept | {"copies": np.ones(len(copies), bool)})
    assert copies_table(load_results(folder), load_results(folder).tests[0]) is None, "nothing is left to be measured"
    for wrong in (copies[:-1], copies.astype(int)):
        np.savez(path, **kept | {"copies": wrong})
        assert load_results(folder).tests[0].copies is None
