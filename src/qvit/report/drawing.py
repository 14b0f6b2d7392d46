"""What the report's charts share: size, fonts and colours, and conversion to SVG text."""

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvit.files import chosen, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.2  # inches, of 72 points
LINE = 0.165  # inches per line of text
DPI = 140  # of pictures that are no SVG
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P")
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
    """A chart as SVG text, with its title, and a text that says what it shows."""

    title: str
    svg: str
    alt: str


@contextmanager
def drawing(height: float, **subplots: Any) -> Iterator[tuple["Figure", Any]]:
    """Yield a figure of a height in inches, and its axes as `Figure.subplots` returns them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(**subplots)


def svg(figure: "Figure") -> str:
    """Return a figure as SVG text."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # For names in other scripts: the program that shows the chart has the glyphs.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def write_picture(figure: "Figure", path: Path) -> None:
    """Write a figure to a file that ends in .png, .svg or .pdf, whole or not at all.

    Raises RunError if it cannot be written.
    """
    import matplotlib as mpl

    kind = path.suffix.lower()[1:]
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # left out: the same figure is the same file
    buffer = io.BytesIO()
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # of names in other scripts
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=dates.get(kind))
    write_atomic(chosen(path), buffer.getvalue())


def wrapped(text: str, width: int = 42) -> str:
    """Return a name broken into short lines, with dollar signs escaped, so that they do not start mathematics."""
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")
