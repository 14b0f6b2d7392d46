"""Plots of the benchmarks."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qvit.bench.engines import EngineRow
from qvit.bench.gradients import GradientRow
from qvit.bench.layer import LayerRow
from qvit.bench.step import StepRow
from qvit.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito: safe for colour-blind eyes; each with a marker and a dash of its own, for print in grey.
STYLES = {
    "ours": ("#0072B2", "o", "-", "qvit"),
    "pennylane": ("#D55E00", "s", "--", "PennyLane TorchLayer, default.qubit"),
    "tensorcircuit": ("#009E73", "^", "-.", "TensorCircuit-NG, JAX jit + vmap"),
    "linear": ("#777777", "x", ":", "nn.Linear of the same shape"),
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure to a file, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:] or "png", dpi=140)
    write_atomic(path, buffer.getvalue())


def draw_layer(rows: Sequence[LayerRow]) -> "Figure":
    """Return a figure of time against qubits on logarithmic axes, with a panel for each number of layers."""
    depths = sorted({row.layers for row in rows})
    figure = _figure(4.2 * len(depths) + 1.0, 4.6)
    panels: Any = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for panel, depth in zip(panels, depths, strict=True):
        chosen = sorted((row for row in rows if row.layers == depth), key=lambda row: row.qubits)
        for key, (colour, marker, dash, label) in STYLES.items():
            points = [(row.qubits, getattr(row, key)) for row in chosen if getattr(row, key) is not None]
            if points:
                panel.loglog(*zip(*points, strict=True), color=colour, marker=marker, ls=dash, label=label)
        ticks = sorted({row.qubits for row in chosen})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_title(f"{depth} layer{'s' if depth > 1 else ''}")
        panel.set_xlabel("qubits")
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("forward + backward, ms")
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{rows[0].ansatz}, {rows[0].tokens} tokens")
    return figure


def draw_steps(rows: Sequence[StepRow]) -> "Figure":
    """Return a figure of the step time of each quantum model and its twin, with their ratio above."""
    figure = _figure(1.6 * len(rows) + 2.0, 4.0)
    panel = figure.subplots()
    place = np.arange(len(rows))
    panel.bar(place - 0.2, [row.quantum_ms for row in rows], 0.4, color=COLOURS[0], label="quantum")
    panel.bar(
        place + 0.2, [row.classical_ms for row in rows], 0.4, color=COLOURS[4], hatch="//", label="classical twin"
    )
    for x, row in zip(place, rows, strict=True):
        panel.annotate(f"{row.ratio:.2f}", (float(x), max(row.quantum_ms, row.classical_ms)), ha="center", va="bottom")
    panel.set_xticks(place, [f"{row.quantum}\nL={row.layers}" for row in rows])
    panel.set_ylabel(f"training step, batch {rows[0].batch}, ms")
    panel.margins(y=0.12)
    panel.legend(frameon=False)
    return figure


def draw_engines(rows: Sequence[EngineRow]) -> "Figure":
    """Return a figure of time against qubits by engine and depth, a panel per batch size, the chosen engine ringed."""
    batches = sorted({row.tokens for row in rows})
    engines = sorted({name for row in rows for name, ms in row.measured.items() if ms is not None})
    figure = _figure(3.6 * len(batches) + 1.0, 4.6)
    panels: Any = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    for panel, tokens in zip(panels, batches, strict=True):
        for place, engine in enumerate(engines):
            for row in (row for row in rows if row.tokens == tokens):
                if row.measured.get(engine) is not None:
                    ring = row.chosen == engine
                    panel.loglog(
                        row.qubits * (1 + 0.03 * place), row.measured[engine], "osD^v"[place % 5], ms=3 + row.layers,
                        color=COLOURS[place], mec="black" if ring else "none", mew=1.2, alpha=0.85,
                    )  # fmt: skip
        ticks = sorted({row.qubits for row in rows})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_title(f"{tokens} token{'s' if tokens > 1 else ''}")
        panel.set_xlabel("qubits")
        panel.grid(alpha=0.3)
    for place, engine in enumerate(engines):
        panels[0].plot([], [], "osD^v"[place % 5], color=COLOURS[place], label=engine)
    panels[0].plot([], [], "o", color="white", mec="black", mew=1.2, label="chosen (size: layers)")
    panels[0].legend(fontsize=8)
    panels[0].set_ylabel("forward + backward, ms")
    figure.suptitle(f"{rows[0].ansatz}: engines and the choice of the cost model")
    return figure


def draw_gradients(rows: Sequence[GradientRow]) -> "Figure":
    """Return a figure of the gradient's variance against qubits and depth, with an exponential fit over qubits."""
    figure = _figure(10.5, 4.6)
    left, right = figure.subplots(1, 2, sharey=True)
    depths, sizes = sorted({row.layers for row in rows}), sorted({row.qubits for row in rows})
    for place, depth in enumerate(depths):
        points = sorted((row.qubits, row.mean) for row in rows if row.layers == depth and row.mean > 0)
        q, v = np.array([p[0] for p in points]), np.array([p[1] for p in points])
        label = f"{depth} layer{'s' if depth > 1 else ''}"
        if len(q) > 2:
            label += f", ∝ {2 ** np.polyfit(q, np.log2(v), 1)[0]:.2f}ⁿ"
        left.semilogy(q, v, "osD^vP"[place % 6] + "-", color=COLOURS[place % 6], label=label)
    for place, size in enumerate(sizes):
        points = sorted((row.layers, row.mean) for row in rows if row.qubits == size and row.mean > 0)
        right.semilogy(
            *zip(*points, strict=True), "osD^vP"[place % 6] + "-", color=COLOURS[place % 6], label=f"{size} qubits"
        )
    for panel, name in ((left, "qubits"), (right, "layers")):
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
    left.legend(fontsize=8)
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    left.set_ylabel("variance of ∂⟨Z₀⟩/∂w, mean over weights")
    figure.suptitle(f"{rows[0].ansatz}: gradient variance over {rows[0].samples} random circuits")
    return figure
