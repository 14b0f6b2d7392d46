"""Images with the maps of an answer laid over them, as pictures: one image in full, or many on a contact sheet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from qvit.answers.explaining import Case, Picked
from qvit.report.drawing import SETTINGS, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 1.5  # inches of a map
_MOST_WIRES = 16  # that are drawn of each kind and block
_GAP, _LINE, _HEAD = 0.08, 0.14, 0.3  # inches between maps, of a line of a title, and of a heading
_KINDS = ("queries", "keys", "values")
_OVER = 0.65  # how much a map covers the image below it
Pixels = UInt8[np.ndarray, "s s 3"] | UInt8[np.ndarray, "s s"]


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell of a picture: its title, an image, and a map that is laid over it, from `low` to `high` in `colours`."""

    title: str
    image: Pixels
    values: NDArray[Any] | None = None
    colours: str = "viridis"
    low: float | None = None
    high: float | None = None

    def draw(self, axis: Any) -> None:
        """Draw it onto an axis of matplotlib."""
        shown = self.image
        if self.values is not None and shown.ndim == 3:  # grey below, so that colours are the map's
            shown = shown.mean(axis=2)
        axis.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0), interpolation="nearest")
        if self.values is not None:
            axis.imshow(
                self.values,
                cmap=self.colours,
                vmin=self.low,
                vmax=self.high,
                alpha=_OVER,
                extent=(0, 1, 1, 0),
                interpolation="nearest",
            )
        axis.set_title(self.title, fontsize=7, pad=3)


def draw_case(cases: Sequence[tuple[str, Case]]) -> "Figure":
    """Return a figure of one image, explained by one run or several; `cases` have the names of the runs."""
    rows = [row for name, case in cases for row in _rows(name, case)]
    head = 0.12 + 0.14 * len(cases)
    with _drawing(max(map(len, rows)), head + len(rows) * (CELL + _LINE)) as figure:
        _fill(figure, rows, head, _LINE)
        _write(figure, "\n".join(_said(name, case) for name, case in cases), 0.06, fontsize=8)
    return figure


def draw_sheet(shown: Sequence[tuple[Picked, Sequence[tuple[str, Case]]]]) -> "Figure":
    """Return a contact sheet of images of a split by kind, each above its maps by one run or several."""
    kinds: dict[str, list[tuple[Picked, Sequence[tuple[str, Case]]]]] = {}
    for one, cases in shown:
        kinds.setdefault(one.kind, []).append((one, cases))
    grids = {kind: [*zip(*(_column(*one) for one in some), strict=True)] for kind, some in kinds.items()}
    height = sum(_HEAD + len(rows) * (CELL + 3 * _LINE) for rows in grids.values())
    with _drawing(max(3, *map(len, kinds.values())), height) as figure:
        top = 0.0
        for kind, rows in grids.items():
            _write(figure, kind, top + 0.1, fontsize=10, fontweight="bold")
            _fill(figure, rows, top + _HEAD, 3 * _LINE)
            top += _HEAD + len(rows) * (CELL + 3 * _LINE)
    return figure


@contextmanager
def _drawing(width: int, height: float) -> Iterator["Figure"]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        yield Figure(figsize=(CELL * width, height))


def _write(figure: "Figure", text: str, top: float, **how: Any) -> None:
    """Write text from so many inches below the upper edge on."""
    width, height = figure.get_size_inches()
    figure.text(0.06 / width, 1 - top / height, text, ha="left", va="top", **how)


def _fill(figure: "Figure", rows: Sequence[Sequence[Cell]], top: float, title: float) -> None:
    """Draw cells in rows, each below room for its title: a layout that matplotlib finds itself takes a second."""
    width, height = figure.get_size_inches()
    side = CELL - _GAP
    for line, row in enumerate(rows, 1):
        bottom = height - top - line * (CELL + title)
        for place, cell in enumerate(row):
            left = place * CELL + _GAP / 2
            axis = figure.add_axes((left / width, (bottom + _GAP) / height, side / width, side / height))
            axis.set_axis_off()
            cell.draw(axis)


def _said(name: str, case: Case) -> str:
    found = case.prediction
    assert found.probabilities is not None
    withheld = ", withheld" if found.withheld else ""
    unlike = ", unlike the images trained on" if found.unlike else ""
    return wrapped(f"{name}: {case.target} with {found.probabilities[case.target]:.3f}{withheld}{unlike}", 90)


def _column(one: Picked, cases: Sequence[tuple[str, Case]]) -> list[Cell]:
    """Return the cells of an image on a contact sheet, from top to bottom."""
    _, first = cases[0]
    cells = [Cell(f"{first.prediction.source}\n{wrapped(f'true: {one.truth}', 24)}", _pixels(first))]
    for name, case in cases:
        probabilities = case.prediction.probabilities or {}
        for map_, cell in _maps(case).items():
            if map_ != "saliency":
                said = wrapped(f"{name}: {case.target} {probabilities[case.target]:.2f}", 24)
                cells.append(Cell(f"{said}\n{map_}", cell.image, cell.values, cell.colours, cell.low, cell.high))
    return cells


def _pixels(case: Case) -> Pixels:
    pixels = case.image.transpose(1, 2, 0)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _maps(case: Case) -> Mapping[str, Cell]:
    """Return the maps that say where the evidence is, by name."""
    image, cells = _pixels(case), {}
    for name, values in case.maps.shown.items():
        if name == "occlusion":  # of both signs: evidence for the class, and against it
            most = float(np.abs(values).max()) or 1.0
            cells[name] = Cell(f"occlusion, ±{most:.2g}", image, values, "RdBu_r", -most, most)
        else:
            cells[name] = Cell(name, image, values)
    return cells


def _rows(name: str, case: Case) -> list[list[Cell]]:
    maps, image = case.maps, _pixels(case)
    first = [Cell(wrapped(name, 24), image), *_maps(case).values()]
    if maps.heads is not None:
        for block, heads in enumerate(maps.heads, 1):
            first += [Cell(f"block {block}, head {k}", image, each) for k, each in enumerate(heads, 1)]
    rows = [first]
    if maps.wires is not None and maps.heads is not None:
        heads = maps.heads.shape[1]
        for block, kinds in enumerate(maps.wires, 1):
            for kind, wires in zip(_KINDS, kinds, strict=True):
                width = len(wires) // heads  # wires of a head
                rows.append(
                    [
                        Cell(f"{kind} {block}, head {k // width + 1} ⟨Z{k % width}⟩", image, wire, "PuOr", -1, 1)
                        for k, wire in enumerate(wires[:_MOST_WIRES])
                    ]
                )
    return rows
