"""Datasets made up for previews, and the pairs of near-duplicates that are shown of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qvit.data.arrays import Dataset, Split
from qvit.data.duplicates import TURNS, Duplicates, Pair
from qvit.data.findings import Findings, find
from qvit.data.registry import DatasetInfo
from qvit.report.survey import Survey, survey

COUNTS = {"train": 31, "val": 7, "test": 13}
# Each is a trial for whoever shows it.
NAMES = (
    "actinic keratoses and intraepithelial carcinoma",
    '<i>$x^2$</i> & "so" on',
    "immature granulocytes(myelocytes, metamyelocytes and promyelocytes) and whatever else there may be of that kind",
    "averylongword_" * 8,
    "línea café Ωμέγα",
    "two\nlines\x1b",
    "5",
    "",
)


def made_pair(
    first: tuple[str, int],
    second: tuple[str, int],
    *,
    distance: float = 0.25,
    turn: str = TURNS[4],
    exact: bool = False,
) -> Pair:
    """Two images that are taken for copies."""
    return Pair(first, second, distance, turn, exact)


def made_findings(dataset: Dataset, pairs: Iterable[Pair] = (), *, cut: float = 0.5) -> Findings:
    """What is wrong with a dataset in which these pairs are taken for copies."""
    images = {name: len(split) for name, split in dataset.splits.items()}
    return find(dataset, Duplicates(tuple(pairs), cut, 0.0, images))


def surveyed(dataset: Dataset, pairs: Iterable[Pair] = ()) -> Survey:
    """What a dataset holds in which these pairs are taken for copies."""
    return survey(dataset, made_findings(dataset, pairs))


def make_dataset(
    task: Any = "multi-class",
    *,
    names: Sequence[str] = ("a", "b", "c"),
    channels: Any = 1,
    size: int = 12,
    counts: dict[str, int] = COUNTS,
    title: str = "Made",
    description: str = "",
    licence: str = "",
) -> Dataset:
    """Noise and labels by chance; each class has an image in training, some images of several labels have none."""
    rng = np.random.default_rng(3)
    splits = {}
    for split, n in counts.items():
        images = rng.integers(0, 256, (n, channels, size, size)).astype(np.uint8)
        if task == "multi-label":
            labels = (rng.random((n, len(names))) < 0.3).astype(np.int64)
        else:
            labels = (rng.permutation(np.arange(n)) % len(names))[:, None].astype(np.int64)
        splits[split] = Split(images, labels)
    info = DatasetInfo(
        name="made", title=title, description=description, task=task, labels=tuple(names), channels=channels,
        splits=dict(counts), md5={}, licence=licence, citation="", augment="none",
    )  # fmt: skip
    return Dataset(info, size, path=Path("/somewhere/made.npz"), **splits)
