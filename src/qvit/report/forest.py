"""Forest plots: a row per comparison, with a mark and an interval for each dataset and for the mean over datasets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qvit.evaluation.sampled import METRICS
from qvit.report.claims import Finding
from qvit.report.drawing import DARK, GREY, LINE, MARKERS, Chart, drawing, svg, wrapped
from qvit.report.pictures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP = 0.11  # inches between the marks of a row
GAP = 0.12  # inches between rows, at least
MEAN = "mean over datasets"


def forest(title: str, findings: Sequence[Finding], names: dict[str, str], *, against: bool = True) -> Chart:
    """Draw differences with their intervals; marks are filled if a difference is shown, else hollow.

    Findings with the same two sides share a row; colours and markers distinguish datasets, whose titles are in `names`.
    A finding without a dataset is a mean over datasets. With `against`, rows name both sides.
    """
    metric = METRICS[findings[0].metric].title
    rows = list(dict.fromkeys((f.a, f.b) for f in findings))
    sets = list(dict.fromkeys(f.dataset for f in sorted(findings, key=lambda f: f.dataset is None)))
    labels = [_row_label(a, b, against=against) for a, b in rows]
    lines = max(1 + text.count("\n") for text in labels)
    height = GAP + max(LINE * lines, STEP * len(sets))  # of a row, in inches
    keys = 0 if sets == [None] else (len(sets) + 1) // 2
    with drawing(0.75 + height * len(rows) + LINE * 1.1 * keys) as (figure, axes):
        for finding in findings:
            mark = sets.index(finding.dataset)
            place = rows.index((finding.a, finding.b)) + (mark - (len(sets) - 1) / 2) * STEP / height
            _draw(axes, finding, place, _style(sets, mark))
        axes.axvline(0, color=GREY, lw=1)
        for border in range(1, len(rows)):
            axes.axhline(border - 0.5, color=GREY, lw=0.4, alpha=0.5)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.xaxis.get_major_locator().set_params(nbins=5)
        if keys:
            _explain(axes, sets, names)
        figure.supxlabel(
            f"difference in test {metric}, 95 % interval (filled: shown after correction)", fontsize="medium"
        )
        picture = svg(figure)
    told = "; ".join(f"{_sides(f, names, against=against)}: {told_of(f)}" for f in findings)
    return Chart(title, picture, f"{title}: differences in test {metric} with 95 % intervals. {told}.")


def _style(sets: Sequence[str | None], mark: int) -> tuple[str, str]:
    """Return colour and marker of a dataset; the seventh reuses the first colour, with another marker."""
    if sets[mark] is None:
        return DARK, "D"
    kinds = [marker for marker in MARKERS if marker != "D"]
    return COLOURS[mark % len(COLOURS)], kinds[(mark + mark // len(COLOURS)) % len(kinds)]


def _draw(axes: "Axes", finding: Finding, place: float, style: tuple[str, str]) -> None:
    one, (colour, marker) = finding.comparison, style
    axes.plot([one.low, one.high], [place, place], color=colour, lw=1.4)
    axes.plot(one.difference, place, marker, color=colour, mfc=colour if finding.shown else "white", ms=5, mew=1.3)


def _explain(axes: "Axes", sets: Sequence[str | None], names: dict[str, str]) -> None:
    """Draw a legend of the datasets above the axes."""
    from matplotlib.lines import Line2D

    texts = [MEAN if key is None else wrapped(names[key], 34) for key in sets]
    handles = [
        Line2D([], [], color=colour, marker=marker, mfc="white", ms=5, mew=1.3, lw=1.4)
        for colour, marker in (_style(sets, mark) for mark in range(len(sets)))
    ]
    axes.figure.legend(handles, texts, loc="outside upper left", ncols=2 if len(sets) > 1 else 1)


def _row_label(a: str, b: str, *, against: bool) -> str:
    if not against:
        return wrapped(b, 30)
    return wrapped(f"{a} − {b}", 30)


def _sides(finding: Finding, names: dict[str, str], *, against: bool) -> str:
    where = "mean" if finding.dataset is None else names[finding.dataset]
    return f"{finding.a} − {finding.b}, {where}" if against else f"{finding.b}, {where}"


def told_of(finding: Finding) -> str:
    """Return a difference, its interval and what it shows, in words."""
    one = finding.comparison
    return f"{one.difference:+.3f} from {one.low:+.3f} to {one.high:+.3f}, {finding.verdict}"
