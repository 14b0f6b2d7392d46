"""A report's pictures, each an SVG of its own with a text that says what it shows, for those who cannot see it.

They are drawn as narrow as a phone, with text as text, in colours that colour-blind eyes tell apart; where colours tell
arms apart, so do markers or dashes.
"""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from qvit.evaluation.metrics import decide, one_vs_rest
from qvit.models.cost import si
from qvit.study.claims import Finding
from qvit.study.pictures import COLOURS
from qvit.study.published import PUBLISHED
from qvit.study.results import METRIC_NAMES, Arm, Cell, Results, TestSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.2  # inches, of 72 points
LINE = 0.165  # inches a line of text
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P")
LABEL_GAP = 0.045  # between names, as a share of the axis
GREY, DARK = "#767676", "#222222"
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qvit",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True)
class Chart:
    """A picture as SVG text, what it is called, and what it shows in words."""

    title: str
    svg: str
    alt: str


@contextmanager
def _drawing(height: float, **subplots: Any) -> Iterator[tuple["Figure", Any]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(**subplots)


def _svg(figure: "Figure") -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # Of names in other scripts; whoever shows the picture has the letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _label(text: str, width: int = 42) -> str:
    """Return a name in lines that leave room for what it names; its dollars are not mathematics."""
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")


def forest(title: str, findings: Sequence[Finding], names: dict[str, str], *, against: bool = True) -> Chart:
    """Draw differences with their intervals, a line each; what is shown is filled, what is not is hollow.

    `names` are the datasets' titles; a finding of none is a mean over datasets. With `against` lines name both sides.
    """
    metric = METRIC_NAMES[findings[0].metric]
    labels = ["\n".join(map(_label, _sides(f, names, against=against).split("\n"))) for f in findings]
    heights = [0.07 + LINE * (1 + label.count("\n")) for label in labels]
    with _drawing(0.75 + max(heights) * len(findings)) as (figure, axes):
        for row, finding in enumerate(findings):
            one = finding.comparison
            colour = DARK if not finding.shown else COLOURS[0] if one.difference > 0 else COLOURS[1]
            axes.plot([one.low, one.high], [row, row], color=colour, lw=1.6)
            marker = "D" if finding.dataset is None else "o"
            axes.plot(
                one.difference, row, marker, color=colour, mfc=colour if finding.shown else "white", ms=5.5, mew=1.4
            )
        axes.axvline(0, color=GREY, lw=1)
        axes.set_yticks(range(len(findings)), labels)
        axes.set_ylim(len(findings) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.xaxis.get_major_locator().set_params(nbins=5)
        figure.supxlabel(
            f"difference in test {metric}, 95 % interval (filled: shown after correction)", fontsize="medium"
        )
        svg = _svg(figure)
    told = "; ".join(f"{_sides(f, names, against=against)}: {_told(f)}" for f in findings).replace("\n", ", ")
    return Chart(title, svg, f"{title}: differences in test {metric} with 95 % intervals. {told}.")


def _sides(finding: Finding, names: dict[str, str], *, against: bool) -> str:
    where = "mean" if finding.dataset is None else names[finding.dataset]
    return f"{finding.a} − {finding.b}\n{where}" if against else f"{finding.b}\n{where}"


def _told(finding: Finding) -> str:
    one = finding.comparison
    return f"{one.difference:+.3f} from {one.low:+.3f} to {one.high:+.3f}, {finding.verdict}"


def parameters_chart(results: Results, test: TestSet, metric: str) -> Chart:
    """Draw a metric against parameters on a logarithmic axis, with the published models as points."""
    name = METRIC_NAMES[metric]
    cells = [cell for arm in results.arms if (cell := results.cell(test, arm))]
    styles = _styles([cell.arm for cell in cells])
    with _drawing(3.4) as (figure, axes):
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
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _place: si(value))
        axes.xaxis.set_minor_formatter(lambda _value, _place: "")
        _draw_published(axes, test, metric)
        axes.set_xlabel("trainable parameters (log scale)")
        axes.set_ylabel(f"test {name}")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        columns = next((n for n, longest in ((3, 22), (2, 38)) if max(map(len, unique), default=0) <= longest), 1)
        if unique:
            axes.legend(
                unique.values(), [_label(text, 70) for text in unique],
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns,
            )  # fmt: skip
        svg = _svg(figure)
    told = "; ".join(f"{c.arm.title} {c.parameters:,} parameters {c.intervals[metric].value:.3f}" for c in cells)
    return Chart(f"{test.title}: {name} against parameters", svg, f"Test {name} on {test.title}: {told}.")


def _draw_published(axes: "Axes", test: TestSet, metric: str) -> None:
    """Draw the published models whose size is known, their names to the left and kept apart."""
    known = []
    for row in PUBLISHED if test.official else ():
        value = row.on(test.name)[metric == "acc"]
        if value is not None and row.parameters is not None:
            known.append((value, 1e6 * row.parameters, row.name))
    if not known:
        return
    known.sort()
    axes.plot([x for _, x, _ in known], [y for y, _, _ in known], "x", color=GREY, ms=5, label="published")
    low, high = axes.get_ylim()
    gap, height = LABEL_GAP * (high - low), low
    for value, x, name in known:
        height = max(value, height + gap)
        axes.annotate(
            name, (x, value), xytext=(x / 1.7, height), fontsize=6.5, color=DARK, ha="right", va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.4},
        )  # fmt: skip


def _styles(arms: Sequence[Arm]) -> dict[Arm, tuple[str, str, str, bool]]:
    """Return label, colour, marker and hollowness of each arm: colour and marker by kind, hollow with a teacher."""
    kinds = list(dict.fromkeys(arm.kind for arm in arms))
    regimes = list(dict.fromkeys(arm.regime for arm in arms))
    styles = {}
    for arm in arms:
        place = kinds.index(arm.kind)
        turn = place // len(COLOURS)  # the seventh kind has the first colour again, with another marker
        hollow = arm.regime != regimes[0]
        label = arm.kind if len(regimes) == 1 else f"{arm.kind}, {arm.regime}"
        styles[arm] = (label, COLOURS[place % len(COLOURS)], MARKERS[(place + turn) % len(MARKERS)], hollow)
    return styles


def gains_chart(findings: Sequence[Finding], arms: dict[str, Arm], results: Results) -> Chart:
    """Draw what a teacher is worth against the size of the model, one panel a dataset."""
    datasets = list(dict.fromkeys(f.dataset for f in findings if f.dataset is not None))
    titles = {test.name: test.title for test in results.tests}
    kinds = list(dict.fromkeys(arms[f.b].kind for f in findings))
    with _drawing(0.6 + 1.9 * len(datasets), nrows=len(datasets), squeeze=False, sharex=True) as (figure, grid):
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
                    label=_label(kind),
                    ms=5,
                    lw=1,
                )
            axes.axhline(0, color=GREY, lw=1)
            axes.set_title(_label(titles[dataset], 60), fontsize=9, loc="left")
            axes.set_ylabel("gain in test AUC")
        grid[0, 0].legend()
        grid[-1, 0].set_xlabel("trainable parameters")
        svg = _svg(figure)
    told = "; ".join(f"{titles[f.dataset or '']} {f.b}: {_told(f)}" for f in findings)
    return Chart("Gain from a teacher against model size", svg, f"Gains in test AUC from pre-training: {told}.")


def _parameters(results: Results, finding: Finding, arms: dict[str, Arm]) -> int:
    test = next(test for test in results.tests if test.name == finding.dataset)
    cell = results.cell(test, arms[finding.b])
    return 0 if cell is None else cell.parameters


def roc_chart(test: TestSet, cells: Sequence[Cell]) -> Chart:
    """Draw ROC curves, means over classes and seeds of the true-positive rate at each false-positive rate."""
    grid = np.linspace(0, 1, 201)
    with _drawing(3.0) as (figure, axes):
        for place, cell in enumerate(cells):
            rate = np.mean([_mean_roc(test, scores, grid) for scores in cell.scores], axis=0)
            axes.plot(
                grid, rate, DASHES[place % 4], color=COLOURS[place % len(COLOURS)],
                label=_label(f"{cell.arm.title} ({cell.intervals['auc'].value:.3f})"),
            )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_aspect("equal")
        axes.legend(title="AUC in brackets", loc="lower right")
        svg = _svg(figure)
    told = ", ".join(f"{cell.arm.title} {cell.intervals['auc'].value:.3f}" for cell in cells)
    what = "" if test.task == "binary" else ", mean over classes, each against the rest"
    return Chart(f"{test.title}: ROC curves", svg, f"ROC curves on {test.title}{what}; areas: {told}.")


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
            last = np.append(ranked[1:] != ranked[:-1], True)  # of equal scores all are taken at once
            true = np.cumsum(hits)[last] / hits.sum()
            false = np.cumsum(~hits)[last] / (~hits).sum()
            curves.append(np.interp(grid, np.append(0, false), np.append(0, true)))
    return np.asarray(np.mean(curves, axis=0))


def confusion_chart(cell: Cell) -> Chart:
    """Draw the confusion matrix of an arm, shares of each true class, means over seeds."""
    test = cell.test
    labels = test.labels[:, 0]
    classes = len(test.classes)
    table = np.zeros((classes, classes))
    for scores in cell.scores:
        np.add.at(table, (labels, decide(scores, test.task)), 1.0)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    names = [_label(_shortened(name)) for name in test.classes]
    with _drawing(1.3 + 0.3 * max(classes, 4)) as (figure, axes):
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
        svg = _svg(figure)
    told = "; ".join(f"of {name} {100 * shares[i, i]:.0f} % are recognised" for i, name in enumerate(test.classes))
    title = f"{test.title}: decisions of {cell.arm.title}, in % of each true class"
    return Chart(title, svg, f"{title}: {told}.")


def _shortened(name: str, width: int = 18) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def learning_chart(test: TestSet, cells: Sequence[Cell]) -> Chart:
    """Draw validation AUC by epoch, the mean over seeds and the range, stages one after another."""
    with _drawing(2.6) as (figure, axes):
        for place, cell in enumerate(cells):
            curves = [[r["val_auc"] for run in stages for r in run.history] for stages in cell.stages]
            length = min(map(len, curves))
            table, epochs = np.array([curve[:length] for curve in curves]), np.arange(1, length + 1)
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(epochs, table.mean(axis=0), DASHES[place % 4], color=colour, label=_label(cell.arm.title))
            axes.fill_between(epochs, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.15, lw=0)
        axes.set_xlabel("epoch (all stages)")
        axes.set_ylabel("validation AUC")
        axes.legend()
        svg = _svg(figure)
    told = ", ".join(cell.arm.title for cell in cells)
    return Chart(
        f"{test.title}: learning curves",
        svg,
        f"Validation AUC by epoch on {test.title}, mean and range over seeds: {told}.",
    )


def calibration_chart(test: TestSet, cells: Sequence[Cell], bins: int = 10) -> Chart:
    """Draw how often decisions are right against how sure the model was, seeds together, in ten bins."""
    with _drawing(3.0) as (figure, axes):
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
                label=_label(f"{cell.arm.title} (ECE {cell.measures['ece']:.3f})"),
            )
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of right decisions")
        axes.set_aspect("equal")
        axes.legend(loc="upper left")
        svg = _svg(figure)
    told = ", ".join(f"{cell.arm.title} {cell.measures['ece']:.3f}" for cell in cells)
    return Chart(f"{test.title}: calibration", svg, f"Calibration on {test.title}; expected calibration error: {told}.")


def _certainty(
    test: TestSet, scores: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Return, for every decision, the probability it was given and whether it was right."""
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
    labels = [_label(arms[k].title) for k in order]
    lines = max(1 + label.count("\n") for label in labels)
    with _drawing(0.8 + (0.06 + LINE * lines) * len(arms)) as (figure, axes):
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
        svg = _svg(figure)
    told = ", ".join(f"{arms[k].title} {ranks[k]:.1f}" for k in order)
    return Chart(
        "Mean ranks over datasets", svg, f"Mean ranks over datasets: {told}; critical difference {critical:.2f}."
    )
