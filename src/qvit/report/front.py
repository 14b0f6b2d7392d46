"""Parameters against AUC: all recipes that were tuned, those that nothing smaller beats, and plain baselines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qvit.report.axes import number_parameters
from qvit.report.drawing import DARK, GREY, MARKERS, drawing, wrapped, write_picture
from qvit.report.pictures import COLOURS
from qvit.tune.verdict import Standing, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOM = 0.03  # AUC above the best and below the worst that is drawn
DEEPEST = 0.3  # AUC below the best; what is worse is named, and not drawn


def draw_front(verdict: Verdict, title: str, folder: Path, test: float | None = None) -> tuple[Path, ...]:
    """Write front.svg and front.png into a folder; `test` is the test AUC of the chosen recipe. Returns their paths."""
    with drawing(3.9) as (figure, axes):
        _draw(figure, axes, verdict, title, test)
        paths = folder / "front.svg", folder / "front.png"
        for path in paths:
            write_picture(figure, path)
    return paths


def _draw(figure: "Figure", axes: "Axes", verdict: Verdict, title: str, test: float | None) -> None:
    known = [one for one in verdict.standings if one.failed is None]
    tried = [one for one in known if not one.baseline]
    most = max(one.folds for one in tried)
    some, whole = [one for one in tried if one.folds < most], [one for one in tried if one.folds == most]
    _points(axes, some, "o", GREY, f"dropped after fewer than {most} folds", hollow=True)
    _points(axes, whole, "o", COLOURS[0], f"judged on {most} folds")
    edge = [verdict.of(name) for name in verdict.front if not verdict.of(name).baseline]
    axes.plot([one.parameters for one in edge], [one.auc for one in edge], "-", color=COLOURS[0], lw=0.8, zorder=1)
    for place, one in enumerate(one for one in known if one.baseline):
        marker = MARKERS[2:][place % len(MARKERS[2:])]
        _points(axes, [one], marker, COLOURS[4], f"{one.name}, {one.auc:.3f}")
    _marked(axes, verdict.of(verdict.first), "s", DARK)
    if verdict.chosen != verdict.first:
        _marked(axes, verdict.of_chosen, "D", COLOURS[1])
    if test is not None:
        axes.plot(
            verdict.of_chosen.parameters, test, "x", color=COLOURS[1], ms=7, mew=1.6, zorder=4,
            label=f"{verdict.images:,} test images, {test:.3f}",
        )  # fmt: skip
    top = max([one.auc for one in known] + ([] if test is None else [test]))
    lowest = [one.auc for one in known if one.auc >= top - DEEPEST] + ([] if test is None else [test])
    marked = [verdict.of_chosen.low, verdict.of_chosen.high, verdict.of(verdict.first).low]
    ends = [end for end in marked if end is not None and end >= top - DEEPEST]
    axes.set_ylim(min(lowest + ends) - ROOM, min(1.0, max([top, *ends]) + ROOM))
    number_parameters(axes, [max(1, one.parameters) for one in known])
    axes.set_xlabel("parameters (log scale)")
    axes.set_ylabel("AUC of folds held out")
    axes.set_title(wrapped(title, 60), fontsize=9, loc="left")
    figure.legend(loc="outside upper left", ncols=2)


def _points(
    axes: "Axes", some: Sequence[Standing], marker: str, colour: str, label: str, *, hollow: bool = False
) -> None:
    if some:
        axes.plot(
            [max(1, one.parameters) for one in some], [one.auc for one in some], marker, color=colour,
            mfc="white" if hollow else colour, ms=5, mew=1.0, label=wrapped(label), zorder=2,
        )  # fmt: skip


def _marked(axes: "Axes", one: Standing, marker: str, colour: str) -> None:
    """Draw a candidate with its interval and its name."""
    if one.low is not None and one.high is not None:
        axes.plot([one.parameters] * 2, [one.low, one.high], "-", color=colour, lw=1.0, zorder=3)
    label = f"{one.name}, {one.auc:.3f}"
    axes.plot(one.parameters, one.auc, marker, color=colour, ms=6, label=wrapped(label), zorder=4)
