"""The picture of a dataset: panels one below the other, laid out in pixels so that no image is interpolated."""

import io
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import reduce, repeat
from jaxtyping import Float64, Int64, UInt8

from qvit.report.drawing import DARK, DASHES, GREY, SETTINGS
from qvit.report.pictures import COLOURS
from qvit.report.survey import (
    GAP,
    HISTOGRAM_TOLD,
    SIDE,
    SPACE,
    Image,
    Survey,
    counts_told,
    enlargement,
    facts,
    share,
    sheet_told,
    shown_side,
)
from qvit.report.twins import PAIR_SIDE, Twins

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
MARGIN = 24  # pixels, as are all lengths here
NAME = 150
MEAN = MARGIN + NAME + 12  # where the column of mean images begins
SPLITS = MEAN + SIDE + 20  # where the first split's column begins
GUTTER = 18
WIDTH = SPLITS + 3 * SPACE + 2 * GUTTER + MARGIN
PITCH = 16  # from one line of text to the next
BAR, BAR_PITCH = 13, 22
TILES = 4  # pairs side by side
TILE = (WIDTH - 2 * MARGIN - (TILES - 1) * GUTTER) // TILES
NORMAL, SMALL, LARGE = 9.5, 8.5, 17  # points
FIGURES = 136  # beside bars
RULE, RED = "#d0d7de", "#a84300"
BINS = 64
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
# For names in scripts that DejaVu Sans lacks, the first of these that the machine has.
SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic",
           "Arial Unicode MS")  # fmt: skip


class Panel:
    """A strip of the picture: a figure for texts and charts, and blocks of pixels that lie on top of it.

    It is drawn down to `end`, which can be set when all that it holds is laid out.
    """

    def __init__(self, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height = self.end = height
        # A little more than whole pixels, as fractions are cut off.
        self.figure = Figure(figsize=((WIDTH + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)  # measures texts
        self.blocks: list[tuple[int, int, UInt8[np.ndarray, "h w 3"]]] = []

    def image(self, image: Image, x: int, y: int, most: int) -> None:
        """Put an image, enlarged by a whole number to `most` pixels; grey ones show 0 as black and 255 as white."""
        times = enlargement(len(image), most)
        large = repeat(image, "h w c -> (h a) (w b) (c d)", a=times, b=times, d=3 // image.shape[2])
        self.blocks.append((x, y, large))

    def bar(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        """Put a rectangle of a colour."""
        from matplotlib.colors import to_rgb

        rgb = np.rint(255 * np.array(to_rgb(colour))).astype(np.uint8)
        self.blocks.append((x, y, np.broadcast_to(rgb, (height, width, 3))))

    def text(self, x: float, y: float, text: str, *, size: float = NORMAL, color: str = DARK, **style: Any) -> None:
        """Write one line, the middle of its height at `y`."""
        place = x / WIDTH, 1 - y / self.height
        self.figure.text(*place, text, fontsize=size, color=color, va="center_baseline", **style)

    def lines(self, x: int, y: float, width: int, text: str, most: int, *, size: float = NORMAL, **style: Any) -> int:
        """Write a text in up to `most` lines, cut if need be; return how many."""
        probe = self.figure.text(0, 0, "", fontsize=size, **style)

        def measure(some: str) -> float:
            probe.set_text(some)
            return probe.get_window_extent().width

        written = fitted(text, width, most, measure)
        probe.remove()
        for place, line in enumerate(written):
            self.text(x, y + place * PITCH, line, size=size, **style)
        return len(written)

    def axes(self, x: int, y: int, width: int, height: int) -> "Axes":
        """Return axes of a rectangle."""
        return self.figure.add_axes((x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height))

    def drawn(self) -> UInt8[np.ndarray, "h w 3"]:
        """Return the panel as pixels."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="rgba", dpi=DPI)
        pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(self.height, WIDTH, 4)[: self.end, :, :3].copy()
        for x, y, block in self.blocks:
            pixels[y : y + block.shape[0], x : x + block.shape[1]] = block
        return pixels


def fitted(text: str, width: float, most: int, measure: Callable[[str], float]) -> list[str]:
    """Return a text broken into at most `most` lines of a width, at spaces if it has any; … stands for what is cut."""
    lines: list[str] = []
    text = text.strip()
    while text and measure(text) > width:
        last = len(lines) == most - 1
        end = _longest(text, "…" if last else "", width, measure)
        if last:
            return [*lines, text[:end].rstrip() + "…"]
        space = text.rfind(" ", 0, end + 1)
        end = space if space > 0 else end
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*lines, text] if text else lines


def _longest(text: str, ending: str, width: float, measure: Callable[[str], float]) -> int:
    """Return how many characters of a text fit into a width with an ending after them, at least one."""
    return max(1, bisect_right(range(1, len(text) + 1), width, key=lambda count: measure(text[:count] + ending)))


def picture(found: Survey, title: str, pairs: Sequence[Twins], told: str) -> bytes:
    """Return the picture of a dataset as PNG; `told` is said of the pairs."""
    import matplotlib as mpl
    from PIL import Image as Pillow

    with mpl.rc_context(_settings()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page shows them
        panels = [_heading(found, title), _sheet(found), _counts(found), _histograms(found)]
        if pairs:
            panels.append(_pairs(pairs, told))
        pixels = np.concatenate([panel.drawn() for panel in panels])
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, format="PNG", optimize=True, compress_type=0)
    return buffer.getvalue()


def _settings() -> Any:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    more = [name for name in SCRIPTS if name in installed][:1]
    return SETTINGS | {"text.parse_math": False, "font.family": [*SETTINGS["font.family"], *more]}


def _split_at(place: int) -> int:
    return SPLITS + place * (SPACE + GUTTER)


def _head(panel: Panel, title: str, told: str) -> None:
    """Write a panel's title and, under it, what it shows."""
    panel.text(MARGIN, 14, title, size=12, weight="bold")
    panel.text(MARGIN, 36, told, size=SMALL, color=GREY)


def _heading(found: Survey, title: str) -> Panel:
    told = facts(found)
    panel = Panel(80 + 3 * PITCH * len(told))
    panel.lines(MARGIN, 30, WIDTH - 2 * MARGIN, title, 1, size=LARGE, weight="bold")
    y = 66
    for name, text in told:
        panel.text(MARGIN, y, name, color=GREY)
        y += PITCH * panel.lines(MEAN, y, WIDTH - MEAN - MARGIN, text, 2) + 5
    panel.end = y + 14
    return panel


def _sheet(found: Survey) -> Panel:
    """Draw the contact sheet: a row for each class, with its mean image and images of each split."""
    step = shown_side(found.size, SIDE) + GAP
    lines = {row: max(1, *(-(-len(some) // found.columns) for some in row.images.values())) for row in found.rows}
    panel = Panel(100 + sum(lines.values()) * step + len(lines) * (3 * PITCH + 20))
    _head(panel, "Images", sheet_told(found))
    panel.text(MEAN, 66, "mean", color=GREY)
    for place, (split, count) in enumerate(found.images.items()):
        panel.text(_split_at(place), 66, f"{split}, {count:,} images", color=GREY)
    y = 80
    for row in found.rows:
        panel.bar(MARGIN, y, WIDTH - 2 * MARGIN, 1, RULE)
        y += 9
        written = panel.lines(MARGIN, y + 8, NAME, row.title, 3)
        if row.mean is not None:
            panel.image(row.mean, MEAN, y, SIDE)
        for place, images in enumerate(row.images.values()):
            for k, image in enumerate(images):
                line, column = divmod(k, found.columns)
                panel.image(image, _split_at(place) + column * step, y + line * step, SIDE)
        y += max(written * PITCH + 4, lines[row] * step) + 5
    panel.end = y + 10
    return panel


def _counts(found: Survey) -> Panel:
    """Draw how many images of each split have each class, as bars of one scale: shares of the split."""
    panel = Panel(120 + BAR_PITCH * len(found.counted))
    _head(panel, "Counts", counts_told(found))
    for place, split in enumerate(found.images):
        panel.text(_split_at(place), 66, split, color=GREY)
    most = max(row.counts[split] / total for row in found.counted for split, total in found.images.items())
    y = 88
    for row in found.counted:
        panel.lines(MARGIN, y, SPLITS - MARGIN - GUTTER, row.title, 1)
        for place, (split, total) in enumerate(found.images.items()):
            x, count = _split_at(place), row.counts[split]
            width = math.ceil((SPACE - FIGURES) * count / total / most)
            panel.bar(x, y - BAR // 2, width, BAR, COLOURS[place])
            panel.text(x + width + 7, y, f"{count:,}  ({share(count, total)})")
        y += BAR_PITCH
    panel.end = y + 10
    return panel


def _histograms(found: Survey) -> Panel:
    channels = CHANNELS[found.info.channels]
    panel = Panel(330)
    _head(panel, "Intensities", HISTOGRAM_TOLD)
    left, gap = MARGIN + 50, 64
    width = (WIDTH - MARGIN - left - gap * (len(channels) - 1)) // len(channels)
    for place in range(len(channels)):
        histogram(panel.axes(left + place * (width + gap), 128, width, 150), found, place)
    return panel


def histogram(axes: "Axes", found: Survey, channel: int) -> list[str]:
    """Draw how many pixels of a channel have which level, as shares of each split; return what the legend says."""
    labels = []
    for k, (split, tables) in enumerate(found.histograms.items()):
        table, total = tables[channel], int(tables[channel].sum())
        mean, black, white = table @ np.arange(256) / total, int(table[0]), int(table[-1])
        labels.append(f"{split}: mean {mean:.0f}, {share(black, total)} at 0, {share(white, total)} at 255")
        edges = np.linspace(0, 256, BINS + 1)
        axes.stairs(_binned(tables)[channel], edges, color=COLOURS[k], ls=DASHES[k], lw=1.4, label=labels[k])
    # Black borders are common, and would leave no room for the rest.
    inner = max(_binned(tables)[:, 1:-1].max() for tables in found.histograms.values())
    axes.set_ylim(0, 1.05 * inner if inner else None)
    axes.set_xlim(0, 256)
    axes.set_xticks([0, 64, 128, 192, 255])
    axes.set_xlabel(f"level, {CHANNELS[found.info.channels][channel]}")
    axes.set_ylabel("% of pixels")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2, handlelength=2.4)
    return labels


def _binned(tables: Int64[np.ndarray, "c 256"]) -> Float64[np.ndarray, "c k"]:
    """Return the percentages of pixels at every four levels."""
    return 100 * reduce(tables, "c (k l) -> c k", "sum", k=BINS) / tables.sum(axis=1, keepdims=True)


def _pairs(pairs: Sequence[Twins], told: str) -> Panel:
    side = max(shown_side(len(image), PAIR_SIDE) for pair in pairs for image in pair.images)
    panel = Panel(100 + -(-len(pairs) // TILES) * (side + 7 * PITCH))
    _head(panel, "Near-duplicates", told)
    half = (TILE - GAP) // 2
    y = 58
    for start in range(0, len(pairs), TILES):
        deepest = 0
        for column, pair in enumerate(pairs[start : start + TILES]):
            left, below = MARGIN + column * (TILE + GUTTER), y + side + 14
            written = 0
            for k, x in enumerate((left, left + half + GAP)):
                panel.image(pair.images[k], x, y, PAIR_SIDE)
                panel.text(x, below, pair.places[k], size=SMALL, weight="bold")
                written = max(written, panel.lines(x, below + PITCH, half - 8, pair.labels[k], 2, size=SMALL))
            below += (1 + written) * PITCH + 4
            colour, verdict = (GREY, "= same label") if pair.agree else (RED, "≠ different labels")
            panel.text(left, below, verdict, size=SMALL, color=colour)
            panel.lines(left, below + PITCH, TILE, pair.told, 1, size=SMALL, color=GREY)
            deepest = max(deepest, below + PITCH)
        y = deepest + 26
    panel.end = y
    return panel
