"""Circuits as text and as figures, in the conventions of PennyLane's and Qiskit's drawers.

Wires are horizontal lines numbered from 0 at the top. A gate stands in the first column in which no wire that it
acts on or crosses is taken. ● is a control, ⊕ the target of a CNOT, × an end of a SWAP; a gate with boxes on several
wires shows its angle on the first. ⟨Z⟩ at the end of a wire is an output.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qvit.errors import CircuitError
from qvit.quantum.circuit import Angle, Circuit, Gate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTROL, TARGET, SWAPPED, LOAD = "●", "⊕", "×", "ψ(x)"
PAIRS = {"CNOT": (CONTROL, TARGET), "CZ": (CONTROL, CONTROL), "SWAP": (SWAPPED, SWAPPED)}
MAX_WIRES = 64  # with more, text shows the first and the last few, and a figure is refused
EDGE_WIRES = 8  # wires shown at each end then
MAX_LISTED = 24  # outputs listed below a drawing
MAX_FIGURE_CELLS = 2500  # wires times columns

Mark = tuple[str, Angle | None]


@dataclass(frozen=True)
class Placed:
    """A gate on the rows `top` to `bottom` of a drawing; `marks` are what it shows, by row."""

    gate: Gate
    top: int
    bottom: int
    marks: dict[int, Mark]

    @property
    def role(self) -> str:
        """What the gate depends on: "input", "weight", "both" or "fixed"."""
        if self.gate.name == LOAD:
            return "input"
        angle = self.gate.angle or Angle()
        return ("both" if angle.weights else "input") if angle.inputs else "weight" if angle.weights else "fixed"


def as_text(circuit: Circuit, *, width: int = 120) -> str:
    """Return the circuit as text, one line per wire, folded into strips of at most `width` (≥ 60) characters.

    Outputs are listed below unless each is on one wire, in the order of the wires. With more than 64 wires, only the
    first and last eight are shown.
    """
    width = max(width, 60)
    wires = _shown_wires(circuit.n_wires)
    gap = wires.index(None) if None in wires else -1
    columns = [_cells(column, len(wires), gap, width // 4) for column in _columns(circuit, wires)]
    digits = len(str(circuit.n_wires - 1))
    starts = [f"{'⋮' if wire is None else wire:>{digits}}{' ' if wire is None else ':'} " for wire in wires]
    singles = _single_outputs(circuit)
    ends = ["" if wire is None else f"┤ {singles.get(wire, '')}".rstrip() for wire in wires]
    room = width - len(starts[0]) - len("…──") - max(map(len, ends))
    strips = _folded(columns, [len(column[0]) + 1 for column in columns], room)
    blocks = []
    for place, strip in enumerate(strips):
        lines = []
        for row, start in enumerate(starts):
            line, mark = "  " if row == gap else "─…"
            before = (mark if place else "") + line
            after = ends[row] if place == len(strips) - 1 else mark
            lines.append((start + before + "".join(cells[row] + line for cells in strip) + after).rstrip())
        blocks.append("\n".join(lines))
    notes = _listed_outputs(circuit, width)
    if gap >= 0:
        notes.append(f"Wires {EDGE_WIRES} to {circuit.n_wires - EDGE_WIRES - 1} and the gates on them are left out.")
    return "\n\n".join([*blocks, "\n".join(notes)] if notes else blocks)


# --- layout, the same for text and figures ---


def _shown_wires(n: int) -> list[int | None]:
    """Return the wire of each row; None is the row that stands for wires left out."""
    return [*range(n)] if n <= MAX_WIRES else [*range(EDGE_WIRES), None, *range(n - EDGE_WIRES, n)]


def _marks(gate: Gate) -> dict[int, Mark]:
    """Return what a gate shows on each of its wires: a symbol or a name, and an angle."""
    if gate.name in ("CRX", "CRY", "CRZ"):
        return {gate.wires[0]: (CONTROL, None), gate.wires[1]: (gate.name[1:], gate.angle)}
    names = PAIRS.get(gate.name) or gate.word or [gate.name] * len(gate.wires)
    angles = [gate.angle] + [None] * (len(gate.wires) - 1)
    return dict(zip(gate.wires, zip(names, angles, strict=True), strict=True))


def _columns(circuit: Circuit, wires: Sequence[int | None]) -> list[list[Placed]]:
    """Pack the gates into columns; gates on hidden wires alone are dropped, as hidden wires share one row."""
    rows = {wire: row for row, wire in enumerate(wires) if wire is not None}
    gap = len(wires) - len(rows) and wires.index(None)
    gates = list(circuit.gates)
    if circuit.amplitudes:
        gates.insert(0, Gate(LOAD, tuple(range(circuit.n_wires))))
    columns: list[list[Placed]] = []
    free = [0] * len(wires)  # the first free column of each row
    for gate in gates:
        marks = {rows[wire]: mark for wire, mark in _marks(gate).items() if wire in rows}
        spanned = [rows.get(wire, gap) for wire in gate.wires]
        top, bottom = min(spanned), max(spanned)
        if top == bottom and not marks:
            continue
        place = max(free[top : bottom + 1])
        free[top : bottom + 1] = [place + 1] * (bottom + 1 - top)
        if place == len(columns):
            columns.append([])
        columns[place].append(Placed(gate, top, bottom, marks))
    return columns


def _folded(columns: Sequence[Any], widths: Sequence[float], room: float) -> list[list[Any]]:
    """Break columns into strips no wider than `room`, at least one column in each."""
    strips: list[list[Any]] = [[]]
    used = 0.0
    for column, width in zip(columns, widths, strict=True):
        if strips[-1] and used + width > room:
            strips.append([])
            used = 0.0
        strips[-1].append(column)
        used += width
    return strips


def _cut(text: str, limit: int) -> str:
    """Return a text cut to `limit` characters, after a whole term if it has several."""
    end = text[: limit - 1].rfind(" ") + 1 or limit - 1
    return text if len(text) <= limit else text[:end] + "…"


def _single_outputs(circuit: Circuit) -> dict[int, str]:
    """Return the outputs that are one letter on one wire, by wire."""
    found: dict[int, list[str]] = {}
    for string in circuit.observables:
        if len(string.wires) == 1:
            found.setdefault(string.wires[0], []).append(f"⟨{'-' * (string.sign < 0)}{string.word}⟩")
    return {wire: _cut(" ".join(texts), 20) for wire, texts in found.items()}


def _listed_outputs(circuit: Circuit, width: int) -> list[str]:
    """Return lines that list all outputs, or none if each is on one wire, in the order of the wires."""
    places = [observable.wires for observable in circuit.observables]
    if all(len(place) == 1 for place in places) and places == sorted(places):
        return []
    more = len(places) - MAX_LISTED
    listed = ", ".join(f"⟨{_cut(str(string), width // 2)}⟩" for string in circuit.observables[:MAX_LISTED])
    listed += f" and {more} more" if more > 0 else ""
    # A minus sign is not a hyphen: lines may only break between outputs.
    return textwrap.wrap(f"Outputs: {listed}", width, subsequent_indent=" " * 9, break_on_hyphens=False)


def _cells(column: list[Placed], n_rows: int, gap: int, limit: int) -> list[str]:
    """Return one column of text, a cell of equal width for each row."""
    heads, labels = ["─"] * n_rows, [""] * n_rows
    for placed in column:
        for row in range(placed.top, placed.bottom + 1):
            above, below = row > placed.top, row < placed.bottom
            joint = {(False, True): "╭", (True, False): "╰", (True, True): "├" if row in placed.marks else "┼"}
            heads[row] = joint.get((above, below), "─")
            name, angle = placed.marks.get(row, ("", None))
            labels[row] = name if angle is None else f"{name}({_cut(str(angle), limit)})"
    if all(placed.top == placed.bottom for placed in column):
        heads = [""] * n_rows
    size = max(map(len, labels))
    cells = [head + label.ljust(size, "─") for head, label in zip(heads, labels, strict=True)]
    if gap >= 0:
        through = {"╭": "╷", "╰": "╵", "┼": "│"}
        cells[gap] = through.get(heads[gap], " ").ljust(len(cells[0]))
    return cells


# --- figure: lengths in units of the distance between two wires, which is UNIT inches ---

UNIT, FONT = 0.5, 8.5  # inches, points
BOX_HEIGHT, MIN_BOX, PADDING, SYMBOL, SPACE = 0.76, 0.64, 0.18, 0.5, 0.22
LEFT, RIGHT, MARGIN, LEGEND = 1.1, 0.35, 0.6, 0.7
MAX_STRIP = 22.0  # the widest strip
SYMBOLS: dict[str, list[tuple[str, float, str]]] = {  # markers of Matplotlib, sizes in points, fill
    CONTROL: [("o", 7.0, "")],
    TARGET: [("o", 14.0, "white"), ("+", 14.0, "")],
    SWAPPED: [("x", 9.0, "")],
}
INK = "#222222"
ORANGE, BLUE = "#E69F00", "#0072B2"  # Okabe & Ito: safe for colour-blind eyes; one light, one dark in grey
STYLES = {  # fill, edge, its width, text, lines; words of the legend
    "input": (ORANGE, INK, 0.8, "black", ORANGE, "inputs x"),
    "weight": (BLUE, INK, 0.8, "white", BLUE, "trainable weights w"),
    "both": (ORANGE, BLUE, 2.8, "black", BLUE, "inputs and weights"),
    "fixed": ("white", INK, 0.8, "black", INK, "fixed"),
}


def as_figure(circuit: Circuit, *, ax: "Axes | None" = None) -> "Figure":
    """Return a Matplotlib figure of the circuit, in `ax` or in a new figure of suitable size, folded if long.

    Colours tell whether a gate depends on inputs, trainable weights, both or neither. A given `ax` keeps its size, and
    the drawing is fitted to it. Raises `CircuitError` for more than 64 wires or for too long a circuit.
    """
    n = circuit.n_wires
    if n > MAX_WIRES:
        raise CircuitError(f"A figure shows up to {MAX_WIRES} wires, got {n}. Draw the circuit as text.")
    columns = _columns(circuit, _shown_wires(n))
    if n * len(columns) > MAX_FIGURE_CELLS:
        raise CircuitError(
            f"A figure has room for {MAX_FIGURE_CELLS} places of gates; {n} wire(s) × {len(columns)} columns are "
            f"{n * len(columns)}. Draw the circuit as text, or one with fewer layers."
        )
    from matplotlib.figure import Figure

    strips = _folded(columns, [_column_width(column) for column in columns], MAX_STRIP)
    spans = [sum(map(_column_width, strip)) for strip in strips]
    singles = _single_outputs(circuit)
    ending = max(map(_text_width, ["…", *singles.values()]))
    legend = _legend(columns)
    width = max(LEFT + max(spans) + ending + RIGHT, sum(size for _, size in legend) + LEFT, 5.0)
    notes = _listed_outputs(circuit, int((width - 0.8) / _text_width("⟨")))
    first = MARGIN + (LEGEND if legend else 0.0)
    height = first + len(strips) * (n + 0.2) - 1.2 + MARGIN + (0.5 * len(notes) + 0.15 if notes else 0.0)
    if ax is None:
        ax = Figure(figsize=(width * UNIT, height * UNIT)).add_axes((0.0, 0.0, 1.0, 1.0))
    pen = _Pen(ax, width, height)
    pen.legend(legend)
    for place, strip in enumerate(strips):
        last = place == len(strips) - 1
        pen.wires(n, first + place * (n + 0.2), spans[place], opened=place > 0, outputs=singles if last else None)
        x = LEFT
        for column in strip:
            for placed in column:
                pen.gate(placed, x + _column_width(column) / 2, first + place * (n + 0.2))
            x += _column_width(column)
    for line, note in enumerate(notes):
        pen.text(0.4, height - 0.5 * (len(notes) - line), note, ha="left")
    return pen.figure


def _text_width(text: str) -> float:
    """Return the width of the longest line of a text, in units, with a little to spare for hinting."""
    return 1.07 * max(sum(map(_letter_width, line)) for line in text.split("\n"))


@lru_cache(maxsize=256)
def _letter_width(letter: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans")  # Matplotlib brings it along
    whole, frame = (TextPath((0, 0), text, FONT, prop=font).get_extents().x1 for text in (f"|{letter}|", "||"))
    return float(whole - frame) / 72 / UNIT


def _box_text(mark: Mark) -> str:
    name, angle = mark
    return name if angle is None else f"{name}\n{_cut(str(angle), 26)}"


def _mark_width(mark: Mark) -> float:
    return SYMBOL if mark[0] in SYMBOLS else max(MIN_BOX, _text_width(_box_text(mark)) + PADDING)


def _column_width(column: list[Placed]) -> float:
    return max(_mark_width(mark) for placed in column for mark in placed.marks.values()) + SPACE


def _legend(columns: Sequence[list[Placed]]) -> list[tuple[str, float]]:
    """Return the roles of the boxes in a drawing, with the width of each entry of the legend."""
    found = {placed.role for column in columns for placed in column if placed.gate.name not in PAIRS}
    return [(role, _text_width(STYLES[role][5]) + 1.3) for role in STYLES if role in found]


class _Pen:
    """Draws symbols on axes whose unit is the distance between two wires, the origin at the top left."""

    def __init__(self, ax: "Axes", width: float, height: float) -> None:
        from matplotlib.figure import Figure

        figure = ax.get_figure(root=True)
        assert isinstance(figure, Figure)
        self.ax, self.figure = ax, figure
        extent = ax.get_window_extent()
        # Letters and lines must shrink with the axes to fit their boxes.
        self.scale = min(extent.width / width, extent.height / height) / figure.dpi / UNIT
        ax.set(xlim=(0.0, width), ylim=(height, 0.0), aspect="equal")
        ax.axis("off")

    def text(self, x: float, y: float, text: str, *, color: str = INK, ha: str = "center") -> None:
        font: dict[str, Any] = {
            "size": FONT * self.scale,
            "family": "DejaVu Sans",
            "linespacing": 1.15,
            "parse_math": False,
        }
        if text:
            self.ax.text(x, y, text, color=color, ha=ha, va="center", zorder=5, **font)

    def line(self, xs: tuple[float, float], ys: tuple[float, float], color: str, z: float, width: float) -> None:
        self.ax.plot(xs, ys, color=color, lw=width * self.scale, zorder=z, solid_capstyle="butt")

    def box(self, x: float, y: float, width: float, height: float, role: str, text: str = "") -> None:
        from matplotlib.patches import Rectangle

        fill, edge, line, color, *_ = STYLES[role]
        corner = (x - width / 2, y - height / 2)
        self.ax.add_patch(Rectangle(corner, width, height, fc=fill, ec=edge, lw=line * self.scale, zorder=4))
        self.text(x, y, text, color=color)

    def legend(self, entries: Sequence[tuple[str, float]]) -> None:
        x = 0.4
        for role, size in entries:
            self.box(x + 0.25, 0.5, 0.44, 0.36, role)
            self.text(x + 0.62, 0.5, STYLES[role][5], ha="left")
            x += size

    def wires(self, n: int, top: float, span: float, *, opened: bool, outputs: dict[int, str] | None) -> None:
        """Draw numbered wires, with … where they come from or go on to another strip."""
        for wire in range(n):
            y, start, end = top + wire, LEFT - 0.15, LEFT + span + 0.06
            self.text(0.55, y, str(wire), ha="right")
            self.line((start, end), (y, y), "#777777", 1, 1.0)
            if opened:
                self.text(start - 0.04, y, "…", ha="right")
            self.text(end + 0.06, y, "…" if outputs is None else outputs.get(wire, ""), ha="left")

    def gate(self, placed: Placed, x: float, top: float) -> None:
        """Draw the vertical line of a gate, then its symbol on each wire."""
        color = STYLES[placed.role][4]
        if placed.gate.name == LOAD:
            height = placed.bottom - placed.top + BOX_HEIGHT
            self.box(x, top + (placed.top + placed.bottom) / 2, _mark_width((LOAD, None)), height, "input", LOAD)
            return
        if placed.top < placed.bottom:
            self.line((x, x), (top + placed.top, top + placed.bottom), color, 2, 1.8)
        for row, mark in placed.marks.items():
            if mark[0] in SYMBOLS:
                self.symbol(mark[0], x, top + row, color)
            else:
                self.box(x, top + row, _mark_width(mark), BOX_HEIGHT, placed.role, _box_text(mark))

    def symbol(self, symbol: str, x: float, y: float, color: str) -> None:
        for marker, size, fill in SYMBOLS[symbol]:
            points, line = size * self.scale, 1.5 * self.scale
            self.ax.plot(x, y, marker, ms=points, mew=line, mec=color, mfc=fill or color, zorder=4)
