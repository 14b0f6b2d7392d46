"""A report's tables: which rows and columns each has."""

from collections.abc import Sequence

import numpy as np

from qvit.evaluation.sampled import METRICS
from qvit.models.baselines import BASELINES as FITTED
from qvit.models.cost import si
from qvit.report.arms import Arm, Cell, Results, TestSet
from qvit.report.claims import Family, Finding
from qvit.report.formats import MISSING, Table
from qvit.report.published import published
from qvit.report.words import p_value, shown, signed
from qvit.study.spec import SCRATCH


def main_table(results: Results) -> Table:
    """Return the table of every arm on every dataset, with teachers and published models below."""
    columns = ["model", "parameters", "seeds"]
    columns += [f"{test.title} {METRICS[metric].title}" for test in results.tests for metric in METRICS]
    rows = [_arm_row(results, arm) for arm in (*results.arms, *results.teachers)]
    for model in published():
        figures = [model.on(test.name) if test.official else {} for test in results.tests]
        if any(figures):
            size = MISSING if model.parameters is None else f"{model.parameters}M"
            cells = [_three_digits(found.get(metric)) for found in figures for metric in METRICS]
            rows.append((f"{model.name} ({model.source})", size, MISSING, *cells))
    return Table(
        "main",
        "Test figures of every model",
        tuple(columns),
        tuple(rows),
        "Means over seeds with 95 % bootstrap intervals over seeds and test images. Published models: their own single "
        "figures, without intervals.",
    )


def _three_digits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _arm_row(results: Results, arm: Arm) -> tuple[str, ...]:
    cells = [results.cell(test, arm) for test in results.tests]
    known = [cell for cell in cells if cell is not None]
    title = arm.title if arm.role == "student" else f"{arm.label} (teacher “{arm.regime}”)"
    if not known:
        return (title, MISSING, "0", *([MISSING] * len(METRICS) * len(cells)))
    sizes = dict.fromkeys(f"{cell.parameters:,}" for cell in known)
    seeds = dict.fromkeys(str(len(cell.seeds)) for cell in known)
    figures = [MISSING if cell is None else shown(cell.intervals[m]) for cell in cells for m in METRICS]
    return (title, " / ".join(sizes), " / ".join(seeds), *figures)


def family_table(family: Family, results: Results) -> Table:
    """Return the table of a family's comparisons; differences that are shown are emphasised."""
    titles: dict[str | None, str] = {test.name: test.title for test in results.tests}
    titles[None] = "mean over datasets"
    findings = [f for metric in METRICS for f in (*family.of(metric), *family.mean(metric))]
    rows = [
        (
            f"{f.a} − {f.b}",
            titles[f.dataset],
            METRICS[f.metric].title,
            signed(f),
            p_value(f.comparison.p),
            p_value(f.corrected),
            MISSING if f.g is None else f"{f.g:+.1f}".replace("-", "−"),
            MISSING if f.superiority is None else f"{f.superiority:.2f}",
            f.verdict,
        )
        for f in findings
    ]
    return Table(
        family.key,
        family.question,
        ("A − B", "dataset", "metric", "difference", "p", "p corrected", "g", "P(A > B)", "what is shown"),
        tuple(rows),
        "Paired over seeds, with seeds and test images both random (Obuchowski and Rockette; Hillis). p corrected by "
        "Holm's method over the comparisons for this question and metric. g: Hedges' g over seeds. P(A > B): the "
        "chance that a seed of A is better than a seed of B.",
        frozenset(k for k, f in enumerate(findings) if f.shown),
    )


def headline_table(families: Sequence[Family], results: Results) -> Table:
    """Return the table of QViTs against each control, over all sizes."""
    titles: dict[str | None, str] = {test.name: test.title for test in results.tests}
    titles[None] = "mean over datasets"
    found = {(one.key, f.dataset, f.metric): f for one in families for f in (*one.findings, *one.pooled)}
    places = [(one, name) for one in families for name in titles if any((one.key, name, m) in found for m in METRICS)]
    rows = []
    for one, name in places:
        own = {metric: found.get((one.key, name, metric)) for metric in METRICS}
        told = [text for finding in own.values() for text in _signed_and_p(finding)]
        rows.append((one.question, titles[name], *told, _worth(own["auc"])))
    heads = [head for metric in METRICS.values() for head in (metric.title, f"p ({metric.title})")]
    strong = [k for k, (one, name) in enumerate(places) if (f := found.get((one.key, name, "auc"))) and f.shown]
    return Table(
        "worth",
        "QViT minus the same network with something else in the circuits' place, mean over sizes",
        ("in the circuits' place", "dataset", *heads, "what is shown of the AUC"),
        tuple(rows),
        "Positive: circuits are better. p corrected by Holm's method over the comparisons of all sizes together by the "
        "same metric; dense matrices of the same parameter count are a separate question.",
        frozenset(strong),
    )


def _signed_and_p(finding: Finding | None) -> tuple[str, str]:
    """Return a difference and its corrected p value, or two dashes if there are too few images."""
    return (MISSING, MISSING) if finding is None else (signed(finding), p_value(finding.corrected))


def _worth(finding: Finding | None) -> str:
    if finding is None:
        return MISSING
    if not finding.shown:
        return finding.verdict
    return "circuits are better" if finding.comparison.difference > 0 else "circuits are worse"


def teacher_table(results: Results) -> Table | None:
    """Return the table of the teachers' figures, each alone and as an ensemble."""
    import numpy as np

    from qvit.evaluation.metrics import evaluate

    rows = []
    for test in results.tests:
        for name in dict.fromkeys(arm.regime for arm in results.teachers):
            cells = [c for arm in results.teachers if arm.regime == name and (c := results.cell(test, arm))]
            if not cells:
                continue
            scores = np.concatenate([cell.scores for cell in cells])
            found = evaluate(test.labels, scores.mean(axis=0), test.task)
            members = " + ".join(f"{len(cell.seeds)} × {cell.arm.label}" for cell in cells)
            size = sum(cell.parameters * len(cell.seeds) for cell in cells)
            single = [value for cell in cells for value in cell.values("auc")]
            rows.append(
                (
                    f"{name}: {members}",
                    test.title,
                    f"{size:,}",
                    " to ".join(dict.fromkeys(f"{value:.3f}" for value in (min(single), max(single)))),
                    *(f"{found[metric]:.3f}" for metric in METRICS),
                )
            )
    if not rows:
        return None
    together = [f"{metric.title} together" for metric in METRICS.values()]
    columns = ("teacher", "dataset", "parameters", "AUC of members", *together)
    return Table("teachers", "Teachers on the test images", columns, tuple(rows))


def class_table(results: Results, test: TestSet) -> Table | None:
    """Return the table of sensitivity and specificity by class, of all models on a dataset; None without any."""
    cells = [cell for arm in results.arms if (cell := results.cell(test, arm)) is not None]
    if not cells:
        return None
    rows = []
    for cell in cells:
        pairs = zip(*cell.rates_by_class, strict=True)
        rows.append(
            (cell.arm.title, *(" / ".join(MISSING if np.isnan(v) else f"{v:.3f}" for v in two) for two in pairs))
        )
    return Table(
        f"classes-{results.tests.index(test) + 1}",
        f"{test.title} by class",
        ("model", *test.classes[1 - len(rows[0]) :]),
        tuple(rows),
        "Sensitivity / specificity of each class against the rest on the test images, means over seeds, where the "
        "likeliest class is the answer. Of two classes, those of the second.",
    )


def copies_table(results: Results, test: TestSet) -> Table | None:
    """Return the table of all measures with and without test images that have a near-duplicate; None without any."""
    cells = [cell for arm in results.arms if (cell := results.cell(test, arm)) and cell.measures_apart is not None]
    if not cells or test.copies is None:
        return None
    measures = list(cells[0].measures)
    rows = []
    for cell in cells:
        assert cell.measures_apart is not None
        pairs = [(cell.measures[name], cell.measures_apart[name]) for name in measures]
        rows.append((cell.arm.title, *(f"{with_:.3f} → {without:.3f}" for with_, without in pairs)))
    return Table(
        f"copies-{results.tests.index(test) + 1}",
        f"{test.title} without near-duplicates",
        ("model", *measures),
        tuple(rows),
        f"{int(test.copies.sum()):,} of {len(test.copies):,} test images have a near-duplicate among the images to "
        "train on or to choose the checkpoint by. Means over seeds on all test images → on the others.",
    )


def cost_table(results: Results) -> Table:
    """Return the table of what each model costs: to store, to compute, and on a quantum computer."""
    rows = []
    for test in results.tests:
        for label in dict.fromkeys(arm.label for arm in (*results.arms, *results.teachers)):
            cost = results.costs.get((test.name, label))
            if not cost:
                continue
            hardware = cost.hardware
            fitted = next((cell for cell in results.cells.values() if _is_fitted(cell, test, label)), None)
            rows.append(
                (
                    label,
                    test.title,
                    f"{cost.parameters if fitted is None else fitted.parameters:,}",
                    f"{cost.parameters_in_attention:,}",
                    si(cost.classical_flops) if fitted is None else MISSING,
                    si(cost.simulation_flops) if hardware else MISSING,
                    *(
                        (
                            f"{hardware.circuits:,}",
                            str(hardware.qubits),
                            str(hardware.depth),
                            si(sum(hardware.gates.values())),
                            si(hardware.two_qubit_gates),
                            si(hardware.shots),
                        )
                        if hardware
                        else (MISSING,) * 6
                    ),
                )
            )
    return Table(
        "cost",
        "Cost of a forward pass of one image",
        (
            "model",
            "dataset",
            "parameters",
            "in attention",
            "FLOPs",
            "simulation FLOPs",
            "circuits",
            "qubits",
            "depth",
            "gates",
            "two-qubit gates",
            "shots",
        ),
        tuple(rows),
        "FLOPs count matrix products, convolutions and attention, a multiply-add as two, without the circuits, whose "
        "exact simulation has its own column. Parameters of plain baselines are the numbers that they store, and their "
        "FLOPs are not counted. The other columns are what a quantum computer needs instead: circuits to "
        "run, their depth, gates of all circuits, and shots for a standard deviation of at most 0.01 in every "
        "expectation value.",
    )


def _is_fitted(cell: Cell, test: TestSet, label: str) -> bool:
    """Return whether these are runs of a baseline, which stores as many numbers as it was fitted to."""
    return cell.test is test and cell.arm.label == label and cell.arm.kind in FITTED


def seeds_table(results: Results) -> Table:
    """Return the table of every run's figures and identity."""
    rows = [
        (
            cell.arm.title,
            cell.test.title,
            str(seed),
            *(f"{getattr(result.test, metric):.4f}" for metric in METRICS),
            f"{result.val.auc:.4f}",
            str(result.best_epoch),
            f"{seconds:.1f}",
            (run.folder.parent if run.folder.name in ("finetune", "joint") else run.folder).name.rpartition("-")[2],
        )
        for cell in results.cells.values()
        for seed, run, result, seconds in zip(cell.seeds, cell.runs, cell.results, cell.seconds, strict=True)
    ]
    tested = [f"test {metric.title}" for metric in METRICS.values()]
    return Table(
        "runs",
        "Every run",
        ("model", "dataset", "seed", *tested, "val AUC", "epoch kept", "seconds", "identity"),
        tuple(rows),
        "Identity: the first digits of the hash of all that determines a run, code included.",
    )


def average_table(results: Results) -> Table | None:
    """Return the table of means over datasets of QViTs and their matched ViTs, by regime.

    If the study has datasets of the paper, means are over these, beside the paper's own. The result is None if runs are
    missing.
    """
    from qvit.report.claims import means, twins
    from qvit.report.published import PAPER, PAPER_DATASETS, PAPER_SOURCE

    common = [test for test in results.tests if test.official and test.name in PAPER_DATASETS]
    tests = common or results.tests
    rows = []
    for regime in dict.fromkeys(arm.regime for arm in results.arms):
        pairs = [pair for pair in twins(results, "vit_matched") if pair.a[0].regime == regime]
        for kind in ("qvit", "vit_matched"):
            arms = [pair.a[0] if kind == "qvit" else pair.b[0] for pair in pairs]
            values = [means(results, arms, metric, tests) for metric in METRICS] if arms else []
            if not values or None in values:
                continue
            said = PAPER[kind] if regime == SCRATCH else {}
            paper = [_three_digits(said.get(metric)) for metric in METRICS]
            rows.append(
                (
                    {"qvit": "QViT", "vit_matched": "ViT, same parameter count"}[kind],
                    regime,
                    str(len(arms)),
                    *(f"{value:.3f}" for value in values),
                    *(paper if common else ()),
                )
            )
    if not rows:
        return None
    here, theirs = [tuple(f"{METRICS[m].title} {where}" for m in METRICS) for where in ("here", "in the paper")]
    return Table(
        "averages",
        "Means over datasets, models and seeds" + (", beside the paper's" if common else ""),
        ("model", "regime", "models", *here, *(theirs if common else ())),
        tuple(rows),
        _over_what(results.tests, common, PAPER_SOURCE, len(PAPER_DATASETS)),
    )


def _over_what(tests: Sequence[TestSet], common: Sequence[TestSet], source: str, all_of_it: int) -> str:
    """Return a caption that says which datasets the means are over, here and in the paper."""
    if not common:
        return f"Over {_titles(tests)}."
    others = [test for test in tests if test not in common]
    told = f"Here: {_titles(common)}"
    if others:
        told += f"; without {_titles(others)}, which the paper does not have"
    told += f". The paper ({source}): means over its {all_of_it} datasets"
    if len(common) < all_of_it:
        told += f"; only {len(common)} of them are here, so compare differences between rows, not levels"
    return f"{told}."


def _titles(tests: Sequence[TestSet]) -> str:
    return ", ".join(test.title for test in tests)
