"""Pictures of a comparison: learning curves, and test images with what each model predicts."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qvit.data.arrays import Dataset
from qvit.errors import RunError
from qvit.evaluation.metrics import decide
from qvit.files import write_atomic
from qvit.report.compare import Row
from qvit.training.folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # Okabe & Ito: safe for colour-blind eyes
RIGHT, WRONG = "#0072B2", "#D55E00"
GRID_ROWS, GRID_COLUMNS = 3, 6
MAX_MODELS = 6


def draw_comparison(
    runs: Sequence[Run],
    rows: Sequence[Row],
    path: Path,
    *,
    root: str | Path | None = None,
    file: str | Path | None = None,
) -> None:
    """Write a PNG: learning curves of all runs, and a grid of test images with their predictions.

    `root` and `file` say where the data are, as for `Run.load_data`. Raises `RunError` for runs on different datasets,
    more than six runs, damaged ones, or a path that cannot be written.
    """
    if len({(Path(run.config["dataset"]).name, run.config["data_digest"]) for run in runs}) > 1:
        raise RunError("A picture compares runs on one dataset; these are on several. Leave --picture out.")
    if len({run.fold for run in runs}) > 1:
        raise RunError("A picture compares runs on the same images; these held out several folds. Leave --picture out.")
    if len(runs) > MAX_MODELS:
        raise RunError(f"A picture shows up to {MAX_MODELS} runs, got {len(runs)}. Leave some out.")
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}):  # dollar signs in names are not mathematics
        _draw(runs, rows, path, runs[0].load_data(root, file=file))


def _draw(runs: Sequence[Run], rows: Sequence[Row], path: Path, data: Dataset) -> None:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    several_seeds = len({row.seed for row in rows}) > 1
    names = [f"{row.model} (seed {row.seed})" if several_seeds else row.model for row in rows]
    layout = ConstrainedLayoutEngine(rect=(0, 0.03, 1, 0.97))  # the last captions lie below their axes
    figure = Figure(figsize=(13, 5.4 + 0.4 * len(runs)), layout=layout)
    synthetic = ", synthetic images" if data.info.synthetic else ""
    figure.suptitle(f"{data.info.title}{synthetic}", fontsize=13)
    halves = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 1.35)))
    _draw_curves(halves[0], runs, names, rows)
    _draw_grid(halves[1], runs, names, data)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomic(path, buffer.getvalue())


def _draw_curves(figure: "SubFigure", runs: Sequence[Run], names: Sequence[str], rows: Sequence[Row]) -> None:
    loss, auc = figure.subplots(2, 1, sharex=True)
    judged, measured = ("validation", "test") if runs[0].fold is None else ("held-out", "held-out")
    for run, name, row, colour in zip(runs, names, rows, COLOURS, strict=False):
        history = run.history
        epochs = [record.epoch for record in history]
        loss.plot(epochs, [record.train_loss for record in history], color=colour, label=f"{name}, training")
        loss.plot(
            epochs,
            [record.val_loss for record in history],
            color=colour,
            ls=":",
            label=f"{name}, {judged}",
        )
        label = f"{name} ({row.parameters:,} parameters): {measured} AUC {row.auc.value:.3f}"
        auc.plot(epochs, [record.val_auc for record in history], color=colour, label=label)
        if row.best_epoch > len(history):
            raise RunError(
                f"{run.folder} tells of {len(history)} epochs, of which number {row.best_epoch} is the best."
            )
        best = history[row.best_epoch - 1]
        auc.plot(best.epoch, best.val_auc, "o", color=colour, ms=7)
    loss.set_ylabel("loss")
    auc.set_ylabel(f"{judged} AUC")
    auc.xaxis.get_major_locator().set_params(integer=True)
    auc.set_xlabel("epoch (dot: the checkpoint that was kept)")
    for axes in (loss, auc):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)


def _draw_grid(figure: "SubFigure", runs: Sequence[Run], names: Sequence[str], data: Dataset) -> None:
    """Draw test images chosen at random, not by how well they are predicted."""
    count = min(GRID_ROWS * GRID_COLUMNS, len(data.test))
    picked = np.sort(np.random.default_rng(0).choice(len(data.test), count, replace=False))
    images = data.test.batch(picked)[0].permute(0, 2, 3, 1).numpy()
    labels = data.test.labels[picked]
    decisions = [_decisions(run, data)[picked] for run in runs]
    what = "Test images" if data.whole is None else "Images held out"
    figure.suptitle(
        f"{what}, true label, and predictions: ✓ right, ✗ wrong\n"
        + "   ".join(f"{place}: {name}" for place, name in enumerate(names, 1)),
        fontsize=10,
    )
    axes = np.atleast_2d(figure.subplots(GRID_ROWS, GRID_COLUMNS))
    for axis in axes.flat:
        axis.axis("off")
    for place, axis in zip(range(count), axes.flat, strict=False):
        axis.imshow(images[place].squeeze(), cmap="gray" if images.shape[-1] == 1 else None, vmin=0, vmax=255)
        _caption(axis, labels[place], [decision[place] for decision in decisions], data)


def _decisions(run: Run, data: Dataset) -> NDArray[np.int64]:
    scores = run.predictions("test")
    if len(scores) != len(data.test):
        raise RunError(f"{run.folder} has predictions of {len(scores)} test images, not of {len(data.test)}.")
    return decide(scores, data.info.task)


def _caption(axis: "Axes", label: Any, decisions: Sequence[Any], data: Dataset) -> None:
    """Write the true label above an image and each model's verdict below it."""
    axis.set_title(_named(label, data), fontsize=7.5, pad=3)
    for place, decision in enumerate(decisions):
        decision = np.atleast_1d(decision)
        right = np.array_equal(decision, label)
        text = f"{place + 1}: {'✓' if right else '✗'} {_named(decision, data)}"
        axis.text(
            0.5,
            -0.04 - 0.13 * place,
            text,
            transform=axis.transAxes,
            ha="center",
            va="top",
            fontsize=7.5,
            color=RIGHT if right else WRONG,
        )


def _named(label: Any, data: Dataset) -> str:
    """Return a label's name, shortened; for multi-label the names of the labels that are present."""
    present = np.flatnonzero(label) if data.info.task == "multi-label" else np.atleast_1d(label)
    names = [data.info.labels[int(k)] for k in present] or ["none"]
    text = " + ".join(names[:2]) + (f" + {len(names) - 2}" if len(names) > 2 else "")
    return text if len(text) <= 20 else text[:19] + "…"
