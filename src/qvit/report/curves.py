"""How a trained model decides, as one figure: what it takes for what, ROC, precision–recall, and how sure it may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from qvit.answers.calibrated import Answering, Calibration
from qvit.answers.evidence import load
from qvit.answers.needs import Needs
from qvit.evaluation import calibration
from qvit.evaluation.curves import confusion, curves, outcomes, reliability
from qvit.evaluation.metrics import expected_calibration_error
from qvit.report.drawing import DARK, DASHES, GREY, MARKERS, SETTINGS, wrapped
from qvit.report.pictures import COLOURS
from qvit.training.folder import Run
from qvit.training.measured import Predicted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, BESIDE = 3.4, 2.9  # inches of a panel, and of what stands beside it
ROW, FEW = 0.12, 8  # inches that each class takes beyond so many
NAME = 34  # characters of a name in a line
GAP = "\N{EM SPACE}"  # between a number and a name, which may be a number
SMALLEST = 4.5  # points of numbers that can be read
_MARK: Any = {"ls": "", "marker": "o", "ms": 7, "mec": DARK, "zorder": 5}


@dataclass(frozen=True, eq=False)
class Decided:
    """What was predicted, and how a run's own calibration answers it.

    `told` are the calibrated probabilities (n, c), None if the run keeps no temperature; `answers` (n, c) are by its
    operating point, of which `operating` tells in words, None if it keeps none.
    """

    predicted: Predicted
    temperature: float
    told: Float[np.ndarray, "n c"] | None
    answers: Bool[np.ndarray, "n c"]
    operating: str | None


def decide_as(run: Run, predicted: Predicted) -> Decided:
    """Answer by what the run's folder keeps of its validation images; raises RunError if that is damaged."""
    evidence, task = load(run), predicted.task
    if evidence is None:
        return Decided(predicted, 1.0, None, calibration.decided(predicted.scores, task), None)
    needs = Needs.of(run)
    learnt = Calibration.learn([evidence], needs, Answering())
    yes = learnt.yes
    if yes is not None and task == "multi-label":  # other data may lack some
        yes = yes[[needs.classes.index(name) for name in predicted.classes]]
    told = learnt.probabilities(predicted.scores)
    operating = None if evidence.operating is None else "{} {:g}".format(*evidence.operating)
    answers = calibration.decided(told, task, yes)
    return Decided(predicted, learnt.temperature, None if learnt.ece is None else told, answers, operating)


def draw_decisions(found: Decided, title: str) -> "Figure":
    """Return a figure of four panels: confusion matrix or rates by label, confidence, ROC, precision–recall."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    several = found.predicted.task == "multi-label"
    top = SIDE + ROW * max(0, len(found.predicted.classes) - FEW)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(2 * (SIDE + BESIDE), top + SIDE + 1.6), layout=ConstrainedLayoutEngine(h_pad=0.1))
        grid = figure.subplots(2, 2, height_ratios=(top, SIDE))
        figure.suptitle(wrapped(title, 110), fontsize=10, x=0.01, ha="left")
        (_draw_rates if several else _draw_confusion)(grid[0, 0], found)
        _draw_reliability(grid[0, 1], found)
        _draw_curves(grid[1, 0], grid[1, 1], found)
    return figure


def _draw_confusion(axes: "Axes", found: Decided) -> None:
    counts = confusion(found.predicted.labels, found.answers)
    _draw_counts(axes, counts, counts.sum(axis=1, keepdims=True), found.predicted.classes)
    names = [wrapped(name, NAME) for name in found.predicted.classes]
    level = 0.08 * max(map(len, names)) * len(names) < SIDE  # inches
    turned: dict[str, Any] = {} if level else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **turned)
    axes.set(xlabel="answer", ylabel="true class")
    axes.set_title(f"Confusion matrix{_by(found)}\nshade: share of the row", loc="left")


def _draw_rates(axes: "Axes", found: Decided) -> None:
    """Draw what was answered of images with each label, and of those without: each label's confusion matrix, a row."""
    counts = outcomes(found.predicted.labels, found.answers, "multi-label")[:, ::-1, ::-1].reshape(-1, 4)
    totals = counts.reshape(-1, 2, 2).sum(axis=2).repeat(2, axis=1)
    _draw_counts(axes, counts, totals, found.predicted.classes)
    axes.set_xticks(range(4), ["has it:\nfound", "has it:\nmissed", "lacks it:\nfalse alarm", "lacks it:\nspared"])
    axes.axvline(1.5, color="white", lw=4)
    axes.set_title(f"Answers{_by(found)}\nshade: share of the images that have, or lack, it", loc="left")


def _draw_counts(axes: "Axes", counts: NDArray[Any], totals: NDArray[Any], names: Sequence[str]) -> None:
    """Draw a table of counts, each shaded by its share of a total, with numbers as large as there is room for."""
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(names)), [wrapped(name, NAME) for name in names])
    room = 72 * SIDE / counts.shape[1]
    size = min(9.0, room / (0.7 * len(f"{counts.max():,}")))
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else DARK if count else GREY
        if size >= SMALLEST:
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=size, color=colour)


def _by(found: Decided) -> str:
    return "" if found.operating is None else f" at {found.operating} on validation"


def _draw_reliability(axes: "Axes", found: Decided) -> None:
    labels, task = found.predicted.labels, found.predicted.task
    shown = [("as predicted", found.predicted.scores)]
    if found.told is not None:
        shown.append((f"with temperature {found.temperature:.2f}", found.told))
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    for (name, scores), colour, marker in zip(shown, COLOURS, MARKERS, strict=False):
        bins = reliability(labels, scores, task)
        told = f"{expected_calibration_error(labels, scores, task):.3f}{GAP}{name}"
        axes.plot(bins.confidence, bins.accuracy, color=colour, lw=1.2)
        areas = 10 + 250 * bins.counts / bins.counts.sum()
        axes.scatter(bins.confidence, bins.accuracy, areas, color=colour, marker=marker, alpha=0.6, lw=0)
        axes.plot([], [], color=colour, marker=marker, label=told)
    _square(axes, "Reliability; area: share of answers", "confidence in the answer", "accuracy")
    _beside(axes, "expected calibration error")


def _draw_curves(roc: "Axes", pr: "Axes", found: Decided) -> None:
    predicted = found.predicted
    drawn = curves(predicted.labels, predicted.scores, predicted.task)
    names = predicted.classes[-len(drawn) :]
    decided = outcomes(predicted.labels, found.answers, predicted.task)
    roc.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":", label="chance")
    for place, (name, curve, counts) in enumerate(zip(names, drawn, decided, strict=True)):
        colour, dashes = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
        how: dict[str, Any] = {"color": colour, "ls": dashes, "lw": 1.4}
        if curve is None:
            why = "all images have it" if counts[1].any() else "no image has it"
            for axes in (roc, pr):
                axes.plot([], [], label=wrapped(f"{name}: {why}", NAME), **how)
            continue
        roc.plot(curve.fpr, curve.tpr, label=wrapped(f"{curve.auc:.3f}{GAP}{name}", NAME), **how)
        told = wrapped(f"{curve.average_precision:.3f} ({curve.prevalence:.3f}){GAP}{name}", NAME)
        steps = np.append(curve.precision[:-1], curve.precision[-2])  # the last stands for no answer at all
        pr.plot(curve.recall, steps, drawstyle="steps-post", label=told, **how)
        pr.axhline(curve.prevalence, lw=0.8, ls=":", color=colour)
        if found.operating is not None:
            _mark(roc, pr, counts, colour)
    if found.operating is not None:
        roc.plot([], [], label=wrapped(f"{found.operating} on validation", NAME), **_MARK, mfc="white")
    _square(roc, "ROC", "1 − specificity", "sensitivity")
    _square(pr, "Precision–recall", "recall (sensitivity)", "precision")
    _beside(roc, "area under the curve")
    _beside(pr, "average precision\n(chance: share of images)")


def _mark(roc: "Axes", pr: "Axes", counts: NDArray[np.int64], colour: str) -> None:
    """Mark where a curve is at the operating point."""
    (spared, alarms), (missed, found) = counts.tolist()
    roc.plot(alarms / (alarms + spared), found / (found + missed), **_MARK, mfc=colour, clip_on=False)
    if found + alarms:
        pr.plot(found / (found + missed), found / (found + alarms), **_MARK, mfc=colour, clip_on=False)


def _square(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)
    axes.set_title(title, loc="left")


def _beside(axes: "Axes", title: str) -> None:
    axes.legend(title=title, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, alignment="left")
