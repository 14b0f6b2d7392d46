"""What a dataset holds, for people to look at: counts, mean images, intensities, and which images to show.

Every image is read once, a few megabytes at a time; the pixels that are kept do not grow with the number of images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from qvit.data.arrays import Dataset, Split
from qvit.data.findings import NOTHING, Findings, count
from qvit.data.registry import DatasetInfo
from qvit.errors import printable

MOST_ROWS = 20  # classes that are shown
SIDE = 64  # pixels of an image in the contact sheet, at most
GAP = 4  # pixels between images
SPACE = 5 * (2 * 28 + GAP) - GAP  # pixels of a line of images of one class and split
NO_LABEL = "(no label)"
_LINES, _MOST_LINES = 10, 3  # lines of images that the sheet has for a few classes, and for one class, at most

Image = UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True, eq=False)
class Row:
    """A class, or label: its number, name, and images.

    `number` is None for images of a multi-label dataset without a label, and for the classes left out, taken together.
    `counts` has the number of images of each split that have it, `positions` and `images` those that are shown, `mean`
    the mean image over all splits, None if there are no images. Images are as `thumbnail` returns them.
    """

    number: int | None
    name: str
    counts: Mapping[str, int]
    positions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    images: Mapping[str, tuple[Image, ...]] = field(default_factory=dict)
    mean: Image | None = None

    @property
    def title(self) -> str:
        """The name as one line, after its number, unless the name is the number."""
        return self.name if self.number is None else titled(self.number, self.name)


@dataclass(frozen=True, eq=False)
class Survey:
    """What a dataset holds.

    `images` is the number of images of each split. `rows` are the classes that are shown, in order, and `rest` those
    left out, if any; where images can have several labels, it has no counts. `histograms` has the number of pixels at
    each of 256 levels, by split and channel. `findings` has a line for each thing that is wrong. `columns` is how many
    images of a class and split a line of the sheet has.
    """

    info: DatasetInfo
    size: int
    images: Mapping[str, int]
    rows: tuple[Row, ...]
    rest: Row | None
    histograms: Mapping[str, Int64[np.ndarray, "c 256"]]
    findings: tuple[str, ...]
    columns: int

    @property
    def counted(self) -> tuple[Row, ...]:
        """The rows of which images are counted: those that are shown, and those left out taken together."""
        return self.rows if self.rest is None or not self.rest.counts else (*self.rows, self.rest)


def survey(dataset: Dataset, findings: Findings) -> Survey:
    """Read a dataset through and return what it holds, with what was found to be wrong with it.

    Raises DataError if the file behind mapped images was shortened meanwhile.
    """
    info, splits = dataset.info, dataset.splits
    images = {name: len(split) for name, split in splits.items()}
    totals = np.sum([count(split.labels, dataset) for split in splits.values()], axis=0)
    numbers = _shown(splits.values(), info, totals)
    has = {name: _having(split, info, numbers) for name, split in splits.items()}
    read = {name: _read(split, has[name]) for name, split in splits.items()}
    means = _means([one.sums for one in read.values()], [table.sum(axis=0) for table in has.values()], dataset.size)
    columns = (SPACE + GAP) // (shown_side(dataset.size, SIDE) + GAP)
    most = columns * min(_MOST_LINES, max(1, _LINES // len(numbers)))
    rows = []
    for k, (number, mean) in enumerate(zip(numbers, means, strict=True)):
        places = {name: _spread(table[:, k], most) for name, table in has.items()}
        shown = {name: tuple(thumbnail(splits[name], place) for place in some) for name, some in places.items()}
        counts = {name: int(table[:, k].sum()) for name, table in has.items()}
        rows.append(Row(number, NO_LABEL if number is None else info.labels[number], counts, places, shown, mean))
    return Survey(
        info=info,
        size=dataset.size,
        images=images,
        rows=tuple(rows),
        rest=_rest(rows, info, images),
        histograms={name: one.histogram for name, one in read.items()},
        findings=tuple(findings.told(dataset)) or (NOTHING,),
        columns=columns,
    )


def titled(number: int, name: str) -> str:
    """Return a class's name as one line, after its number, unless the name is the number."""
    return name if name == str(number) else f"{number}: {printable(name)}"


def _shown(splits: Iterable[Split], info: DatasetInfo, totals: Int64[np.ndarray, " k"]) -> list[int | None]:
    """Return the classes to show, in order: all, or those with most images; and None if images have no label."""
    largest = sorted(np.argsort(-totals, kind="stable")[:MOST_ROWS].tolist())
    unlabelled = info.task == "multi-label" and any((~split.labels.any(axis=1)).any() for split in splits)
    return [*largest, None] if unlabelled else largest


def _having(split: Split, info: DatasetInfo, numbers: Sequence[int | None]) -> Bool[np.ndarray, "n r"]:
    """Return which images have which of the classes, None being none at all."""
    if info.task == "multi-label":
        none = ~split.labels.any(axis=1)
        return np.column_stack([none if number is None else split.labels[:, number] == 1 for number in numbers])
    return split.labels == np.array(numbers, np.int64)


def _spread(has: Bool[np.ndarray, " n"], most: int) -> tuple[int, ...]:
    """Return the positions of up to `most` of the images, evenly spread."""
    found = np.flatnonzero(has)
    picked = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(np.int64)
    return tuple(found[picked].tolist())


def _rest(rows: Sequence[Row], info: DatasetInfo, images: Mapping[str, int]) -> Row | None:
    left = info.num_classes - sum(row.number is not None for row in rows)
    if left == 0:
        return None
    name = f"({left:,} other {'classes' if left > 1 else 'class'})"
    if info.task == "multi-label":
        return Row(None, name, {})
    counts = {split: count - sum(row.counts[split] for row in rows) for split, count in images.items()}
    return Row(None, name, counts)


# --- pixels ---


@dataclass(frozen=True, eq=False)
class _Read:
    """What is kept of a split's pixels; `sums` are those of the images of each row, in blocks as large as `divisor`."""

    sums: Float64[np.ndarray, "r c h w"]
    histogram: Int64[np.ndarray, "c 256"]


def _read(split: Split, has: Bool[np.ndarray, "n r"]) -> _Read:
    channels, side = split.images.shape[1:3]
    blocks = -(-side // divisor(side, SIDE))
    sums = np.zeros((has.shape[1], channels * blocks * blocks))
    histogram = np.zeros((channels, 256), np.int64)
    for start, part in split.parts():
        pixels = np.ascontiguousarray(part).reshape(len(part), channels, -1)
        for channel in range(channels):
            histogram[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
        # Sums of whole numbers are exact, whatever their order: the same on any number of threads.
        summed = _block_sums(torch.from_numpy(pixels.reshape(part.shape).astype(np.float64)), SIDE)
        sums += has[start : start + len(part)].T.astype(np.float64) @ summed.numpy().reshape(len(part), -1)
    return _Read(sums.reshape(-1, channels, blocks, blocks), histogram)


def _means(
    sums: Sequence[Float64[np.ndarray, "r c h w"]], counts: Sequence[Int64[np.ndarray, " r"]], size: int
) -> list[Image | None]:
    areas = _block_sums(torch.ones(1, 1, size, size, dtype=torch.float64), SIDE)[0].numpy()
    totals = zip(np.sum(sums, axis=0), np.sum(counts, axis=0), strict=True)
    return [_bytes(total / (areas * count)) if count else None for total, count in totals]


def divisor(side: int, most: int) -> int:
    """Return the whole number that a side in pixels is divided by, so that at most `most` remain."""
    return -(-side // most)


def enlargement(side: int, most: int) -> int:
    """Return the largest whole number that a side in pixels can be multiplied with to be at most `most`, or 1."""
    return max(1, most // side)


def shown_side(side: int, most: int) -> int:
    """Return how many pixels wide an image of a side is shown if it may be `most`."""
    side = -(-side // divisor(side, most))
    return side * enlargement(side, most)


def thumbnail(split: Split, position: int, most: int = SIDE) -> Image:
    """Return an image of a split, channels last, averaged over square blocks of pixels if its side is above `most`.

    Blocks at the right and lower edge are smaller if the side is not a multiple of the block's.
    Raises DataError for a position outside the split.
    """
    pixels = split.batch([position])[0].double()
    areas = _block_sums(torch.ones_like(pixels), most)
    return _bytes((_block_sums(pixels, most) / areas)[0].numpy())


def _block_sums(pixels: Float64[Tensor, "b c h w"], most: int) -> Float64[Tensor, "b c p q"]:
    block = divisor(pixels.shape[-1], most)
    if block == 1:
        return pixels
    return F.avg_pool2d(pixels, block, ceil_mode=True, divisor_override=1)


def _bytes(pixels: Float64[np.ndarray, "c h w"]) -> Image:
    return np.rint(pixels).astype(np.uint8).transpose(1, 2, 0)


# --- words ---


def facts(found: Survey) -> list[tuple[str, str]]:
    """Return what is to be said of a dataset in words: a name and a text each."""
    info = found.info
    what = "labels, any number per image" if info.task == "multi-label" else "classes"
    total = sum(found.images.values())
    told = [
        ("Task", f"{info.task}, {info.num_classes:,} {what}"),
        ("Images", f"{total:,}: " + ", ".join(f"{split} {count:,}" for split, count in found.images.items())),
        ("Size", f"{found.size} × {found.size} pixels, {'grey' if info.channels == 1 else 'red, green and blue'}"),
    ]
    if info.description:
        told.insert(0, ("Content", printable(info.description)))
    if info.licence:
        told.append(("Licence", printable(info.licence)))
    return told + [("" if place else "Found", line) for place, line in enumerate(found.findings)]


def share(count: int, total: int) -> str:
    """Return a share in percent as text."""
    percent = 100 * count / total
    if count == 0:
        return "0 %"
    return "< 0.1 %" if percent < 0.05 else f"{percent:.1f} %"


def sheet_told(found: Survey) -> str:
    """Return what the contact sheet shows, in a sentence."""
    block, side = divisor(found.size, SIDE), found.size
    times = enlargement(side, SIDE)
    scale = (
        f", averaged over {block} × {block} pixels" if block > 1 else f", enlarged {times} times" if times > 1 else ""
    )
    label = "label" if found.info.task == "multi-label" else "class"
    more = f" The {MOST_ROWS} largest of {found.info.num_classes:,}." if found.rest is not None else ""
    return f"By {label} and split, evenly spread over the positions{scale}; the mean is over all splits.{more}"


def counts_told(found: Survey) -> str:
    """Return what the counts are, in a sentence."""
    if found.info.task == "multi-label":
        return "Images of each split that have each label, and their share of the split; an image can have several."
    return "Images of each split in each class, and their share of the split."


HISTOGRAM_TOLD = "Pixels of each split by level, four levels a step; a step at either end may go beyond the top."
