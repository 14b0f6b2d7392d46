"""One image with the maps of an answer, as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qvit.answers.explaining import Case
from qvit.report.drawing import SETTINGS, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 1.5  # inches of a map
_MOST_WIRES = 16  # that are drawn of each kind and block
_KINDS = ("queries", "keys", "values")
Row = list[tuple[str, NDArray[Any], dict[str, Any]]]  # a map's title, its values, how it is drawn


def draw_case(cases: Sequence[tuple[str, Case]]) -> "Figure":
    """Return a figure of one image, explained by one run or several; `cases` have the names of the runs."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [row for name, case in cases for row in _rows(name, case)]
    width = max(map(len, rows))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(CELL * width, 0.6 + (CELL + 0.35) * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), width, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            for axis, (title, values, how) in zip(line, row, strict=False):
                axis.imshow(values, interpolation="nearest", **how)
                axis.set_title(title, fontsize=7)
            for axis in line:
                axis.set_axis_off()
        figure.suptitle("\n".join(_said(name, case) for name, case in cases), fontsize=8, x=0.01, ha="left")
    return figure


def _said(name: str, case: Case) -> str:
    found = case.prediction
    assert found.probabilities is not None
    withheld = ", withheld" if found.withheld else ""
    unlike = ", unlike the images trained on" if found.unlike else ""
    return wrapped(f"{name}: {case.target} with {found.probabilities[case.target]:.3f}{withheld}{unlike}", 90)


def _rows(name: str, case: Case) -> list[Row]:
    maps = case.maps
    pixels = case.image.transpose(1, 2, 0)
    shown = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    first: Row = [(name, shown, {"cmap": "gray", "vmin": 0, "vmax": 255})]
    for title, values in maps.shown.items():
        if title == "occlusion":  # of both signs: evidence for the class, and against it
            most = float(np.abs(values).max()) or 1.0
            first.append((f"occlusion, ±{most:.2g}", values, {"cmap": "RdBu_r", "vmin": -most, "vmax": most}))
        else:
            first.append((title, values, {"cmap": "viridis"}))
    if maps.heads is not None:
        for block, heads in enumerate(maps.heads, 1):
            first += [(f"block {block}, head {k}", each, {"cmap": "viridis"}) for k, each in enumerate(heads, 1)]
    rows = [first]
    if maps.wires is not None and maps.heads is not None:
        heads = maps.heads.shape[1]
        for block, kinds in enumerate(maps.wires, 1):
            for kind, wires in zip(_KINDS, kinds, strict=True):
                how: dict[str, Any] = {"cmap": "PuOr", "vmin": -1, "vmax": 1}
                width = len(wires) // heads  # wires of a head
                rows.append(
                    [
                        (f"{kind} {block}, head {k // width + 1} ⟨Z{k % width}⟩", wire, how)
                        for k, wire in enumerate(wires[:_MOST_WIRES])
                    ]
                )
    return rows
