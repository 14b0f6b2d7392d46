"""What is found in a dataset, against slow counts of the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.data import arrays
from qvit.data.arrays import Dataset, Split
from qvit.report.survey import (
    GAP,
    MOST_ROWS,
    NO_LABEL,
    SIDE,
    SPACE,
    Survey,
    counts_told,
    divisor,
    enlargement,
    facts,
    share,
    sheet_told,
    shown_side,
    thumbnail,
)
from report.datasets import COUNTS, make_dataset, surveyed

TASKS = ["binary", "multi-class", "ordinal", "multi-label"]


def made(task: str, **options: Any) -> Dataset:
    return make_dataset(task, names=("a", "b") if task == "binary" else ("a", "b", "c", "d"), **options)


def carries(dataset: Dataset, split: str, position: int, number: int | None) -> bool:
    """Whether an image belongs in a row."""
    labels = dataset[split].labels[position].tolist()
    if dataset.info.task != "multi-label":
        return labels == [number]
    return not any(labels) if number is None else labels[number] == 1


def averaged(image: Any, block: int) -> Any:
    """The mean of each block of pixels of an image (c, h, w), by loops; channels last."""
    side = image.shape[1]
    starts = range(0, side, block)
    rows = [[image[:, y : y + block, x : x + block].mean(axis=(1, 2)) for x in starts] for y in starts]
    return np.array(rows)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_hold_the_images_of_their_class(task: str, channels: int) -> None:
    dataset = made(task, channels=channels)
    found = surveyed(dataset)
    assert found.images == COUNTS
    assert [row.number for row in found.rows] == [*range(dataset.info.num_classes), *([None] * (task == "multi-label"))]
    for row in found.rows:
        assert row.name == (NO_LABEL if row.number is None else dataset.info.labels[row.number])
        every = []
        for split, count in COUNTS.items():
            having = [k for k in range(count) if carries(dataset, split, k, row.number)]
            every += [dataset[split].images[k] for k in having]
            assert row.counts[split] == len(having)
            assert set(row.positions[split]) <= set(having)
            assert len(set(row.positions[split])) == len(row.images[split])
            for position, image in zip(row.positions[split], row.images[split], strict=True):
                assert np.array_equal(image, dataset[split].images[position].transpose(1, 2, 0))
        assert row.mean is not None
        assert np.array_equal(row.mean, np.rint(np.mean(every, axis=0)).transpose(1, 2, 0))
    assert found.rest is None
    assert found.counted == found.rows


@pytest.mark.parametrize("channels", [1, 3])
def test_histograms_count_every_pixel(channels: int) -> None:
    dataset = made("multi-class", channels=channels)
    for split, table in surveyed(dataset).histograms.items():
        for channel in range(channels):
            expected, _ = np.histogram(dataset[split].images[:, channel], bins=np.arange(257))
            assert np.array_equal(table[channel], expected)


@pytest.mark.parametrize("size", [65, 130, 193])
def test_large_images_are_averaged_over_blocks(size: int) -> None:
    """Blocks at the edge are smaller where the side is no multiple."""
    dataset = make_dataset(size=size, channels=3, counts={"train": 4, "val": 3, "test": 3})
    block = divisor(size, SIDE)
    assert block == -(-size // 64)
    expected = averaged(dataset.train.images[2], block)
    assert np.abs(thumbnail(dataset.train, 2) - expected).max() <= 0.5
    assert thumbnail(dataset.train, 2).shape == expected.shape
    assert np.array_equal(thumbnail(dataset.train, 2, size), dataset.train.images[2].transpose(1, 2, 0))
    row = surveyed(dataset).rows[0]
    every = np.concatenate([split.images[split.labels[:, 0] == 0] for split in dataset.splits.values()])
    assert row.mean is not None
    assert np.abs(row.mean - averaged(every.mean(axis=0), block)).max() <= 0.5


def same(one: Survey, other: Survey) -> bool:
    return all(
        a.counts == b.counts
        and a.positions == b.positions
        and np.array_equal(a.mean, b.mean)
        and all(np.array_equal(a.images[split], b.images[split]) for split in COUNTS)
        for a, b in zip(one.rows, other.rows, strict=True)
    ) and all(np.array_equal(one.histograms[split], other.histograms[split]) for split in COUNTS)


def test_parts_and_maps_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset = made("multi-label", channels=3)
    whole = surveyed(dataset)
    mapped = {}
    for name, split in dataset.splits.items():
        np.save(tmp_path / f"{name}.npy", split.images.transpose(0, 2, 3, 1))
        file: Any = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        mapped[name] = Split(file.transpose(0, 3, 1, 2), split.labels)
    assert mapped["train"].mapped
    monkeypatch.setattr(arrays, "_CHUNK", 5 * 3 * 12 * 12)
    assert len(list(dataset.train.parts())) == 7
    assert same(surveyed(dataset), whole)
    assert same(surveyed(replace(dataset, **mapped)), whole)


def test_classes_that_a_split_lacks_have_no_images() -> None:
    dataset = make_dataset(names=("a", "b\n", "c"), counts={"train": 9, "val": 1, "test": 2})
    dataset.val.labels[:] = 0
    dataset.test.labels[:] = [[0], [2]]
    found = surveyed(dataset)
    assert found.rows[1].positions["val"] == ()
    everywhere = make_dataset(names=("a", "b", "c"))
    for split in everywhere.splits.values():
        split.labels[split.labels == 1] = 0
    assert [row.mean is None for row in surveyed(everywhere).rows] == [False, True, False]


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_of_many_classes_the_largest_are_shown(task: str) -> None:
    several = task == "multi-label"
    dataset = make_dataset(task, names=[f"class {k}" for k in range(27)], counts={"train": 200, "val": 40, "test": 40})
    for split in dataset.splits.values():
        split.labels[:4] = 0 if several else 26
    every = np.concatenate([split.labels for split in dataset.splits.values()])
    totals = [int((every[:, k] if several else every == k).sum()) for k in range(27)]
    assert len(set(totals)) < 27, "some are equally large"
    largest = sorted(sorted(range(27), key=lambda k: (-totals[k], k))[:MOST_ROWS])
    found = surveyed(dataset)
    assert [row.number for row in found.rows] == (largest if not several else [*largest, None])
    assert found.rest is not None
    assert found.rest.title == "(7 other classes)"
    assert sheet_told(found).endswith("the mean is over all splits. The 20 largest of 27.")
    if several:
        assert found.counted == found.rows
    else:
        assert found.counted == (*found.rows, found.rest)
        for split in dataset.splits:
            assert sum(row.counts[split] for row in found.counted) == len(dataset[split])


def test_one_class_may_be_left_out() -> None:
    dataset = make_dataset(names=[str(k) for k in range(21)], counts={"train": 63, "val": 21, "test": 20})
    found = surveyed(dataset)
    assert found.rest is not None
    assert found.rest.title == "(1 other class)"
    assert found.rest.counts == {"train": 3, "val": 1, "test": 0}


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6, 12])
def test_few_classes_have_more_lines(classes: int) -> None:
    dataset = make_dataset(names=[str(k) for k in range(classes)], size=28, counts=dict.fromkeys(COUNTS, 400))
    found = surveyed(dataset)
    lines = {2: 3, 3: 3, 4: 2, 5: 2}.get(classes, 1)
    assert found.columns == 5
    assert {len(some) for row in found.rows for some in row.positions.values()} == {5 * lines}


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 120))
def test_positions_are_evenly_spread(count: int) -> None:
    images = np.zeros((2 * count, 1, 28, 28), np.uint8)
    labels = np.tile([[0], [1]], (count, 1)).astype(np.int64)
    dataset = make_dataset(names=("a", "b"), size=28)
    found = surveyed(replace(dataset, train=Split(images, labels))).rows[1].positions["train"]
    assert len(found) == min(15, count)
    assert found[0] == 1
    assert found[-1] == 2 * count - 1 or count == 1
    steps = np.diff(found)
    assert count == 1 or steps.max() - steps.min() <= 2, "every second image has the class"


@given(side=st.integers(1, 3000), most=st.integers(1, 200))
def test_images_fit_where_they_are_shown(side: int, most: int) -> None:
    block = divisor(side, most)
    reduced = -(-side // block)
    assert reduced <= most
    assert block == 1 or -(-side // (block - 1)) > most, "no more is averaged than needed"
    times = enlargement(reduced, most)
    assert shown_side(side, most) == reduced * times <= most < reduced * (times + 1)
    shown = shown_side(side, SIDE)
    columns = (SPACE + GAP) // (shown + GAP)
    assert columns * (shown + GAP) - GAP <= SPACE < (columns + 1) * (shown + GAP) - GAP
    assert columns >= 4


# --- words ---


def test_facts() -> None:
    found = surveyed(make_dataset("binary", names=("a", "b"), description="What\nis seen", licence="CC0"))
    assert facts(found) == [
        ("Content", "What is seen"),
        ("Task", "binary, 2 classes"),
        ("Images", "51: train 31, val 7, test 13"),
        ("Size", "12 × 12 pixels, grey"),
        ("Licence", "CC0"),
        ("Found", "Groups, such as patients, are not known: whether one stands in two splits cannot be told."),
    ]
    dataset = make_dataset("multi-label", channels=3, counts={"train": 1200, "val": 2, "test": 11})
    dataset.val.labels[:] = 0
    dataset.test.labels[:] = 1
    dataset.test.images[:] = 9
    told = dict(facts(surveyed(dataset)))
    assert told == {
        "Task": "multi-label, 3 labels, any number per image",
        "Images": "1,213: train 1,200, val 2, test 11",
        "Size": "12 × 12 pixels, red, green and blue",
        "Found": "Groups, such as patients, are not known: whether one stands in two splits cannot be told.",
        "": "11 images of test have equal pixels throughout: 0, 1, 2, 3, 4 and 6 more.",
    }


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 %"), (1, "< 0.1 %"), (49, "< 0.1 %"), (50, "0.1 %"), (26_900, "26.9 %"), (10**5, "100.0 %")],
)
def test_shares(count: int, text: str) -> None:
    assert share(count, 10**5) == text


@pytest.mark.parametrize(
    ("size", "scale"),
    [(28, ", enlarged 2 times"), (12, ", enlarged 5 times"), (64, ""), (33, ""), (65, ", averaged over 2 × 2 pixels")],
)
def test_the_scale_is_told(size: int, scale: str) -> None:
    found = surveyed(make_dataset(size=size))
    told = f"By class and split, evenly spread over the positions{scale}; the mean is over all splits."
    assert sheet_told(found) == told
    assert counts_told(found) == "Images of each split in each class, and their share of the split."


def test_labels_are_no_classes() -> None:
    found = surveyed(make_dataset("multi-label"))
    assert sheet_told(found).startswith("By label and split, ")
    told = "Images of each split that have each label, and their share of the split; an image can have several."
    assert counts_told(found) == told


def test_titles_have_a_number_unless_they_are_it() -> None:
    found = surveyed(make_dataset("multi-label", names=("a\nb", "1", "3")))
    assert [row.title for row in found.rows] == ["0: a b", "1", "2: 3", "(no label)"]
