"""A report's charts, each an SVG with a text that says what it shows, for those who cannot see it.

They are narrow enough for a phone and keep text as text. Colours can be told apart by colour-blind readers; where
colours distinguish arms, markers or dashes do too.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from qvit.evaluation.metrics import decide, one_vs_rest
from qvit.evaluation.sampled import METRICS
from qvit.report.arms import Arm, Cell, Results, TestSet
from qvit.report.axes import number_parameters
from qvit.report.claims import Finding
from qvit.report.drawing import DARK, DASHES, GREY, LINE, MARKERS, Chart, drawing, svg, wrapped
from qvit.report.forest import told_of
from qvit.report.pictures import COLOURS
from qvit.report.published import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARAMETERS = "trainable parameters (log scale)"
LABEL_GAP = 0.045  # between names, as a share of the axis


def parameters_chart(results: Results, test: TestSet, metric: str) -> Chart:
    """Draw a metric against parameters on a logarithmic axis, with the published models as points.

    The commonest class, of a few parameters and an AUC of 0.5, is left out: most of the chart would be empty.
    """
    name = METRICS[metric].title
    cells = [cell for arm in results.arms if arm.kind != "commonest" and (cell := results.cell(test, arm))]
    styles = _styles([cell.arm for cell in cells])
    with drawing(3.4) as (figure, axes):
        for cell in cells:
            found, (label, colour, marker, hollow) = cell.intervals[metric], styles[cell.arm]
            ends = [found.value if end is None else end for end in (found.low, found.high)]
            axes.errorbar(
                cell.parameters,
                found.value,
                yerr=[[max(0.0, found.value - ends[0])], [max(0.0, ends[1] - found.value)]],
                fmt=marker,
                color=colour,
                mfc="white" if hollow else colour,
                ms=5,
                lw=0.9,
                label=label,
            )
        number_parameters(axes, [cell.parameters for cell in cells] + [x for _, x, _ in _published(test, metric)])
        _draw_published(axes, test, metric)
        axes.set_xlabel(PARAMETERS)
        axes.set_ylabel(f"test {name}")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        columns = next((n for n, longest in ((3, 22), (2, 38)) if max(map(len, unique), default=0) <= longest), 1)
        if unique:
            axes.legend(
                unique.values(), [wrapped(text, 70) for text in unique],
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns,
            )  # fmt: skip
        picture = svg(figure)
    told = "; ".join(f"{c.arm.title} {c.parameters:,} parameters {c.intervals[metric].value:.3f}" for c in cells)
    return Chart(f"{test.title}: {name} against parameters", picture, f"Test {name} on {test.title}: {told}.")


def _draw_published(axes: "Axes", test: TestSet, metric: str) -> None:
    """Draw the published models whose size is known, with their names to the left, spaced apart."""
    known = _published(test, metric)
    if not known:
        return
    axes.plot([x for _, x, _ in known], [y for y, _, _ in known], "x", color=GREY, ms=5, label="published")
    low, high = axes.get_ylim()
    gap, height = LABEL_GAP * (high - low), low
    for value, x, name in known:
        height = max(value, height + gap)
        axes.annotate(
            name, (x, value), xytext=(x / 1.7, height), fontsize=6.5, color=DARK, ha="right", va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.4},
        )  # fmt: skip


def _published(test: TestSet, metric: str) -> list[tuple[float, float, str]]:
    """Return figure, parameters and name of the published models of known size, sorted by figure."""
    found = []
    for row in published() if test.official else ():
        value = row.on(test.name).get(metric)
        if value is not None and row.parameters is not None:
            found.append((value, 1e6 * row.parameters, row.name))
    return sorted(found)


def _styles(arms: Sequence[Arm]) -> dict[Arm, tuple[str, str, str, bool]]:
    """Return label, colour, marker and hollowness of each arm: colour and marker by kind, hollow with a teacher."""
    kinds = list(dict.fromkeys(arm.kind for arm in arms))
    regimes = list(dict.fromkeys(arm.regime for arm in arms))
    styles = {}
    for arm in arms:
        place = kinds.index(arm.kind)
        turn = place // len(COLOURS)  # the seventh kind reuses the first colour, with another marker
        hollow = arm.regime != regimes[0]
        label = arm.kind if len(regimes) == 1 else f"{arm.kind}, {arm.regime}"
        styles[arm] = (label, COLOURS[place % len(COLOURS)], MARKERS[(place + turn) % len(MARKERS)], hollow)
    return styles


def gains_chart(findings: Sequence[Finding], arms: dict[str, Arm], results: Results) -> Chart:
    """Draw the gain from a teacher against the size of the model, one panel per dataset."""
    datasets = list(dict.fromkeys(f.dataset for f in findings if f.dataset is not None))
    titles = {test.name: test.title for test in results.tests}
    kinds = list(dict.fromkeys(arms[f.b].kind for f in findings))
    with drawing(0.6 + 1.9 * len(datasets), nrows=len(datasets), squeeze=False, sharex=True) as (figure, grid):
        for axes, dataset in zip(grid[:, 0], datasets, strict=True):
            for place, kind in enumerate(kinds):
                some = [f for f in findings if f.dataset == dataset and arms[f.b].kind == kind]
                sized = [(_parameters(results, f, arms), f.comparison) for f in some]
                points = sorted(((x, one) for x, one in sized if x), key=lambda point: (point[0], point[1].difference))
                for x, one in points:
                    axes.plot([x, x], [one.low, one.high], color=COLOURS[place % len(COLOURS)], lw=1)
                axes.plot(
                    [x for x, _ in points],
                    [one.difference for _, one in points],
                    DASHES[place % 4],
                    marker=MARKERS[place % len(MARKERS)],
                    color=COLOURS[place % len(COLOURS)],
                    label=wrapped(kind),
                    ms=5,
                    lw=1,
                )
            axes.axhline(0, color=GREY, lw=1)
            axes.set_title(wrapped(titles[dataset], 60), fontsize=9, loc="left")
            axes.set_ylabel("gain in test AUC")
        grid[0, 0].legend()
        sizes = [size for f in findings if (size := _parameters(results, f, arms))]
        if sizes:
            number_parameters(grid[-1, 0], sizes)
        grid[-1, 0].set_xlabel(PARAMETERS)
        picture = svg(figure)
    told = "; ".join(f"{titles[f.dataset or '']} {f.b}: {told_of(f)}" for f in findings)
    return Chart("Gain from a teacher against model size", picture, f"Gains in test AUC from pre-training: {told}.")


def _parameters(results: Results, finding: Finding, arms: dict[str, Arm]) -> int:
    test = next(test for test in results.tests if test.name == finding.dataset)
    cell = results.cell(test, arms[finding.b])
    return 0 if cell is None else cell.parameters


def roc_chart(test: TestSet, cells: Sequence[Cell]) -> Chart:
    """Draw ROC curves: the mean over classes and seeds of the true-positive rate at each false-positive rate."""
    grid = np.linspace(0, 1, 201)
    with drawing(3.0) as (figure, axes):
        for place, cell in enumerate(cells):
            rate = np.mean([_mean_roc(test, scores, grid) for scores in cell.scores], axis=0)
            axes.plot(
                grid, rate, DASHES[place % 4], color=COLOURS[place % len(COLOURS)],
                label=wrapped(f"{cell.arm.title} ({cell.intervals['auc'].value:.3f})"),
            )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_aspect("equal")
        axes.legend(title="AUC in brackets", loc="lower right")
        picture = svg(figure)
    told = ", ".join(f"{cell.arm.title} {cell.intervals['auc'].value:.3f}" for cell in cells)
    what = "" if test.task == "binary" else ", mean over classes, each against the rest"
    return Chart(f"{test.title}: ROC curves", picture, f"ROC curves on {test.title}{what}; areas: {told}.")


def _mean_roc(
    test: TestSet, scores: Float[np.ndarray, "n k"], grid: Float[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    scores = scores[:, -1:] if test.task == "binary" else scores
    positive = one_vs_rest(test.labels, test.task, classes=scores.shape[1])
    curves = []
    for column in range(scores.shape[1]):
        if positive[:, column].any() and not positive[:, column].all():
            order = np.argsort(-scores[:, column], kind="stable")
            ranked, hits = scores[order, column], positive[order, column]
            last = np.append(ranked[1:] != ranked[:-1], True)  # equal scores are taken together
            true = np.cumsum(hits)[last] / hits.sum()
            false = np.cumsum(~hits)[last] / (~hits).sum()
            curves.append(np.interp(grid, np.append(0, false), np.append(0, true)))
    return np.asarray(np.mean(curves, axis=0))


def confusion_chart(cell: Cell) -> Chart:
    """Draw the confusion matrix of an arm: shares of each true class, averaged over seeds."""
    test = cell.test
    labels = test.labels[:, 0]
    classes = len(test.classes)
    table = np.zeros((classes, classes))
    for scores in cell.scores:
        np.add.at(table, (labels, decide(scores, test.task)), 1.0)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    names = [wrapped(_shortened(name)) for name in test.classes]
    with drawing(1.3 + 0.3 * max(classes, 4)) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i in range(classes):
            for j in range(classes):
                axes.text(
                    j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=7.5,
                    color="white" if shares[i, j] > 0.55 else DARK,
                )  # fmt: skip
        axes.set_xticks(range(classes), names, rotation=35, ha="right")
        axes.set_yticks(range(classes), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(visible=False)
        picture = svg(figure)
    told = "; ".join(f"of {name} {100 * shares[i, i]:.0f} % are recognised" for i, name in enumerate(test.classes))
    title = f"{test.title}: decisions of {cell.arm.title}, in % of each true class"
    return Chart(title, picture, f"{title}: {told}.")


def _shortened(name: str, width: int = 18) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def learning_chart(test: TestSet, cells: Sequence[Cell]) -> Chart:
    """Draw validation AUC by epoch, as mean and range over seeds, with stages one after another."""
    with drawing(2.6) as (figure, axes):
        for place, cell in enumerate(cells):
            curves = [[r.val_auc for run in stages for r in run.history] for stages in cell.stages]
            length = min(map(len, curves))
            table, epochs = np.array([curve[:length] for curve in curves]), np.arange(1, length + 1)
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(epochs, table.mean(axis=0), DASHES[place % 4], color=colour, label=wrapped(cell.arm.title))
            axes.fill_between(epochs, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.15, lw=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch (all stages)")
        axes.set_ylabel("validation AUC")
        axes.legend()
        picture = svg(figure)
    told = ", ".join(cell.arm.title for cell in cells)
    return Chart(
        f"{test.title}: learning curves",
        picture,
        f"Validation AUC by epoch on {test.title}, mean and range over seeds: {told}.",
    )


def calibration_chart(test: TestSet, cells: Sequence[Cell], bins: int = 10) -> Chart:
    """Draw the share of right decisions against the model's confidence, in `bins` bins, with all seeds together."""
    with drawing(3.7) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        for place, cell in enumerate(cells):
            sure, right = (
                np.concatenate(part) for part in zip(*(_certainty(test, s) for s in cell.scores), strict=True)
            )
            edges = np.clip((sure * bins).astype(int), 0, bins - 1)
            known = [k for k in range(bins) if (edges == k).sum() >= 10]
            axes.plot(
                [sure[edges == k].mean() for k in known],
                [right[edges == k].mean() for k in known],
                DASHES[place % 4],
                marker=MARKERS[place % len(MARKERS)],
                ms=4,
                color=COLOURS[place % len(COLOURS)],
                label=wrapped(f"{cell.arm.title} (ECE {cell.measures['ece']:.3f})"),
            )
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of right decisions")
        axes.set_aspect("equal")
        figure.legend(loc="outside upper left")
        picture = svg(figure)
    told = ", ".join(f"{cell.arm.title} {cell.measures['ece']:.3f}" for cell in cells)
    alt = f"Calibration on {test.title}; expected calibration error: {told}."
    return Chart(f"{test.title}: calibration", picture, alt)


def _certainty(
    test: TestSet, scores: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Return, for every decision, its probability and whether it was right."""
    decided = decide(scores, test.task)
    if test.task in ("binary", "multi-label"):
        yes = scores[:, -1] if test.task == "binary" else scores.ravel()
        truth = test.labels[:, 0] if test.task == "binary" else test.labels.ravel()
        return np.maximum(yes, 1 - yes), (decided.ravel() == truth).astype(float)
    return scores.max(axis=1), (decided == test.labels[:, 0]).astype(float)


def ranking_chart(
    arms: Sequence[Arm], ranks: Sequence[float], critical: float, cliques: Sequence[Sequence[int]]
) -> Chart:
    """Draw mean ranks over datasets; bars join arms that are not shown to differ (Demšar 2006)."""
    order = sorted(range(len(arms)), key=lambda k: ranks[k])
    labels = [wrapped(arms[k].title) for k in order]
    lines = max(1 + label.count("\n") for label in labels)
    with drawing(0.8 + (0.06 + LINE * lines) * len(arms)) as (figure, axes):
        for row, k in enumerate(order):
            axes.plot(ranks[k], row, "o", color=DARK, ms=5)
        for place, clique in enumerate(cliques):
            rows = [order.index(k) for k in clique]
            x = max(ranks) + 0.25 + 0.15 * place
            axes.plot([x, x], [min(rows), max(rows)], color=COLOURS[0], lw=3, solid_capstyle="butt")
        axes.set_yticks(range(len(arms)), labels)
        axes.invert_yaxis()
        figure.supxlabel(
            f"mean rank (1 is best); bars: no difference shown (critical difference {critical:.2f})", fontsize="medium"
        )
        picture = svg(figure)
    told = ", ".join(f"{arms[k].title} {ranks[k]:.1f}" for k in order)
    return Chart(
        "Mean ranks over datasets", picture, f"Mean ranks over datasets: {told}; critical difference {critical:.2f}."
    )
