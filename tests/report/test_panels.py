"""The picture: nothing overlaps or is cut, and images are shown pixel by pixel."""

import io
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image as Pillow

from qvit.data.arrays import Dataset
from qvit.data.duplicates import Pair
from qvit.report.panels import BINS, MARGIN, WIDTH, Panel, fitted, histogram, picture
from qvit.report.pictures import COLOURS
from qvit.report.survey import thumbnail
from qvit.report.twins import twins, twins_told
from report.datasets import COUNTS, NAMES, made_findings, made_pair, make_dataset, surveyed
from report.made import outside


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """The panels, instead of their being drawn."""
    found: list[Panel] = []

    def keep(panel: Panel) -> Any:
        found.append(panel)
        return np.zeros((1, WIDTH, 3), np.uint8)

    monkeypatch.setattr(Panel, "drawn", keep)
    return found


def draw(dataset: Dataset, pairs: Sequence[Pair] = (), title: str = "Made") -> bytes:
    findings = made_findings(dataset, pairs)
    return picture(surveyed(dataset, pairs), title, twins(dataset, findings), twins_told(findings))


def pixels_of(content: bytes) -> Any:
    return np.asarray(Pillow.open(io.BytesIO(content)))


def boxes_of(panel: Panel) -> Iterator[tuple[str, float, float, float, float]]:
    """What is in a panel: left, top, right and bottom of its texts, images and bars, and of all of each chart."""
    for text in panel.figure.texts:
        box = text.get_window_extent()
        yield text.get_text(), box.x0, panel.height - box.y1, box.x1, panel.height - box.y0
    for x, y, block in panel.blocks:
        yield "pixels", x, y, x + block.shape[1], y + block.shape[0]
    for axes in panel.figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        yield "chart", box.x0, panel.height - box.y1, box.x1, panel.height - box.y0


def disorder(panel: Panel) -> list[str]:
    """Which things overlap, or lie beyond the edges."""
    panel.figure.draw_without_rendering()
    boxes = list(boxes_of(panel))
    wrong = [
        f"{name} beyond the edge"
        for name, x0, y0, x1, y1 in boxes
        if x0 < MARGIN - 2 or x1 > WIDTH - 2 or y0 < 0 or y1 > panel.end
    ]
    for (one, *a), (other, *b) in combinations(boxes, 2):
        across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if across > 0.5 and down > 0.5:
            wrong.append(f"{one} on {other}")
    return wrong


LONG = "turned by a quarter, and mirrored thereafter, as far as can be told from " * 2


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
@pytest.mark.parametrize(
    ("task", "names", "size", "channels", "count"),
    [
        ("binary", ("a", "b"), 28, 1, 3),
        ("ordinal", NAMES, 64, 3, 22),
        ("multi-label", [f"{k} {name}" for k in range(3) for name in NAMES], 33, 1, 5),
    ],
)
def test_nothing_overlaps_or_is_cut(
    panels: list[Panel], task: str, names: Sequence[str], size: int, channels: int, count: int
) -> None:
    counts = {"train": 61, "val": 9, "test": 23}
    dataset = make_dataset(task, names=names, size=size, channels=channels, counts=counts, description=LONG * 4)
    draw(dataset, [made_pair(("train", k), ("test", k), turn=LONG, distance=1.25e-7 * k) for k in range(count)], LONG)
    assert len(panels) == 5
    assert [wrong for panel in panels for wrong in disorder(panel)] == []
    assert [text for panel in panels for text in outside(panel.figure)] == []
    assert len(panels[4].blocks) == 2 * min(count, 20)


@pytest.mark.parametrize("what", ["text", "image"])
def test_disorder_would_be_found(what: str) -> None:
    panel = Panel(100)
    panel.text(MARGIN, 20, "one")
    assert disorder(panel) == []
    if what == "text":
        panel.text(MARGIN + 5, 24, "two")
        panel.text(WIDTH - 20, 80, "three")
        assert disorder(panel) == ["three beyond the edge", "one on two"]
    else:
        panel.image(np.zeros((9, 9, 1), np.uint8), MARGIN + 5, 20, 9)
        panel.end = 25
        assert disorder(panel) == ["one beyond the edge", "pixels beyond the edge", "one on pixels"]


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_there_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    """Each of an image's pixels is a square of its colour: nothing is stretched or interpolated."""
    dataset = make_dataset("binary", names=("a", "b"), size=28, channels=channels)
    dataset.train.images[:] //= 4  # dark ones stay dark
    drawn: list[Panel] = []
    whole = Panel.drawn
    monkeypatch.setattr(Panel, "drawn", lambda panel: [drawn.append(panel), whole(panel)][1])
    found, pair = surveyed(dataset), made_pair(("train", 3), ("test", 5))
    pixels = pixels_of(draw(dataset, [pair]))
    assert pixels.shape == (sum(panel.end for panel in drawn), WIDTH, 3)

    def shown(place: int) -> Iterator[Any]:
        top = sum(panel.end for panel in drawn[:place])
        for x, y, block in drawn[place].blocks:
            yield pixels[top + y : top + y + len(block), x : x + block.shape[1]]

    expected = [(image, 2) for row in found.rows for image in (row.mean, *sum(row.images.values(), ()))]
    expected += [(thumbnail(dataset[split], position), 4) for split, position in (pair.first, pair.second)]
    images = [image for image in (*shown(1), *shown(4)) if len(image) > 1]  # others are rules
    assert len(images) == len(expected) > 40
    for image, (original, times) in zip(images, expected, strict=True):
        assert np.array_equal(image, np.ones((1, 1, 3)) * original.repeat(times, axis=0).repeat(times, axis=1))


def texts_of(panel: Panel) -> list[str]:
    return [text.get_text() for text in panel.figure.findobj(Text) if text.get_text()]


@pytest.mark.long
def test_what_it_says(panels: list[Panel]) -> None:
    dataset = make_dataset(
        "multi-label", names=("$a$ & <b>", "b"), channels=3, description="What is seen", licence="CC0"
    )
    dataset.train.labels[0], dataset.val.labels[0], dataset.test.labels[0] = [1, 0], [0, 1], [1, 0]
    pairs = [made_pair(("train", 0), ("val", 0), distance=0.5), made_pair(("train", 0), ("test", 0), exact=True)]
    draw(dataset, pairs, title="Title of $5")
    heading, sheet, counts, levels, near = map(texts_of, panels)
    assert heading[0] == "Title of $5"
    assert {"What is seen", "multi-label, 2 labels, any number per image", "CC0"} <= set(heading)
    assert {"Images", "mean", "train, 31 images", "val, 7 images", "0: $a$ & <b>", "1: b", "(no label)"} <= set(sheet)
    found = surveyed(dataset)
    figures = [row.counts[split] for row in found.rows for split in COUNTS]
    assert [int(text.split()[0]) for text in counts if text.endswith("%)")] == figures
    assert {"level, red", "level, green", "level, blue", "% of pixels"} <= set(levels)
    assert [text for text in near if text.startswith(("train", "val", "test"))] == [
        "train 0",
        "val 0",
        "train 0",
        "test 0",
    ]
    assert {"= same label", "≠ different labels", "distance 0.25, mirrored", "equal, mirrored"} & set(near) == {
        "= same label", "≠ different labels", "equal, mirrored",
    }  # fmt: skip
    assert "2 pairs: first the 1 with different labels, then others across splits, then those within one." in near
    assert "1 pair of near-duplicates has different labels." in heading


def test_bars_are_as_long_as_shares(panels: list[Panel]) -> None:
    dataset = make_dataset(names=("a", "b", "c"), counts={"train": 400, "val": 10, "test": 8})
    for split, most in (("train", 200), ("val", 0), ("test", 8)):
        dataset[split].labels[:] = 2
        dataset[split].labels[:most] = 1
    draw(dataset)
    bars = panels[2].blocks
    widths = [block.shape[1] for _, _, block in bars]
    full = widths[5]
    assert widths == [0, 0, 0, -(-full // 2), 0, full, -(-full // 2), full, 0]
    colours = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in COLOURS[:3]]
    drawn = [[tuple(int(v) for v in block[0, 0]) for _, _, block in bars[k::3] if block.size] for k in range(3)]
    assert [set(some) for some in drawn] == [{colour} for colour in colours], "one colour for each split"
    assert [x for x, _, _ in bars[:3]] == [x for x, _, _ in bars[3:6]]


def test_histograms_are_shares_of_a_split() -> None:
    from matplotlib.figure import Figure

    dataset = make_dataset(channels=3, counts={"train": 50, "val": 20, "test": 30})
    for split in dataset.splits.values():
        split.images[:, :, :6] = 0  # a black border
    dataset.val.images[:, 1] //= 4
    axes: Any = Figure().subplots()
    labels = histogram(axes, surveyed(dataset), 1)
    for k, (split, label) in enumerate(zip(dataset.splits.values(), labels, strict=True)):
        green = split.images[:, 1]
        values, edges, _ = axes.patches[k].get_data()
        assert len(values) == BINS
        assert values.sum() == pytest.approx(100)
        for step in (0, 20, 63):
            inside = (green >= edges[step]) & (green < edges[step + 1])
            assert values[step] == pytest.approx(100 * inside.mean())
        name = list(COUNTS)[k]
        black, white = ((green == level).mean() for level in (0, 255))
        white_told = "0 %" if white == 0 else f"{100 * white:.1f} %"
        assert label == f"{name}: mean {green.mean():.0f}, {100 * black:.1f} % at 0, {white_told} at 255"
    top = axes.get_ylim()[1]
    shown = [axes.patches[k].get_data()[0] for k in range(3)]
    assert shown[1][1:].max() < top < 5, "the border does not push the rest down"
    assert all(one[0] > 0.4 * 100 for one in shown)


def test_histograms_of_black_and_white() -> None:
    from matplotlib.figure import Figure

    dataset = make_dataset()
    for split in dataset.splits.values():
        split.images[:] = np.where(split.images > 99, 255, 0)
    axes: Any = Figure().subplots()
    histogram(axes, surveyed(dataset), 0)
    assert axes.get_ylim()[1] > 50


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.sampled_from("abc  é,"), max_size=60),
    width=st.integers(1, 20),
    most=st.integers(1, 4),
)
def test_texts_are_broken_where_they_can_be(text: str, width: int, most: int) -> None:
    lines = fitted(text, width, most, len)
    assert len(lines) <= most
    assert all(0 < len(line) <= max(width, 2) and line == line.strip() for line in lines)
    cut = bool(lines) and lines[-1].endswith("…")
    joined = "".join(lines).rstrip("…").replace(" ", "")
    whole = text.replace(" ", "")
    assert whole.startswith(joined)
    assert cut or joined == whole
    if lines and not cut and all(len(word) <= width for word in text.split()):
        assert " ".join(lines).split() == text.split(), "words are kept whole"


@pytest.mark.parametrize(
    ("most", "lines"),
    [
        (1, ["one two th…"]),
        (2, ["one two", "three four…"]),
        (3, ["one two", "three four", "five"]),
        (4, ["one two", "three four", "five"]),
    ],
)
def test_texts_that_are_too_long_are_cut(most: int, lines: list[str]) -> None:
    assert fitted("one two three four five", 11, most, len) == lines
    assert fitted("", 11, most, len) == []
