"""Pairs of near-duplicates: which are shown, and what is said of them."""

from collections.abc import Iterable

import numpy as np
import pytest

from qvit.data.arrays import Dataset
from qvit.data.duplicates import Pair
from qvit.data.findings import find
from qvit.errors import DataError
from qvit.report.twins import MOST_PAIRS, PAIR_SIDE, Twins, twins, twins_told
from report.datasets import made_findings, made_pair, make_dataset


def shown(dataset: Dataset, pairs: Iterable[Pair]) -> list[Twins]:
    return twins(dataset, made_findings(dataset, pairs))


def told(dataset: Dataset, pairs: Iterable[Pair]) -> str:
    return twins_told(made_findings(dataset, pairs))


def test_a_pair_is_shown_as_it_is() -> None:
    dataset = make_dataset(names=("a", "1", "c"), channels=3)
    i, j = (int(np.flatnonzero(split.labels[:, 0] == 0)[0]) for split in (dataset.train, dataset.test))
    k = int(np.flatnonzero(dataset.test.labels[:, 0] == 1)[0])
    far, near = shown(
        dataset,
        [
            made_pair(("train", i), ("test", k), distance=0.12345, turn="as it is"),
            made_pair(("train", i), ("test", j), distance=0.0, exact=True),
        ],
    )
    assert (near.places, near.labels, near.agree) == ((f"train {i}", f"test {j}"), ("0: a", "0: a"), True)
    assert near.told == "equal, mirrored"
    assert (far.places, far.labels, far.agree) == ((f"train {i}", f"test {k}"), ("0: a", "1"), False)
    assert far.told == "distance 0.123"
    assert np.array_equal(near.images[0], dataset.train.images[i].transpose(1, 2, 0))
    assert np.array_equal(near.images[1], dataset.test.images[j].transpose(1, 2, 0))


def test_several_labels_agree_if_all_do() -> None:
    dataset = make_dataset("multi-label")
    dataset.train.labels[:3] = [[1, 0, 1], [1, 1, 1], [0, 0, 0]]
    dataset.val.labels[:2] = [[1, 0, 1], [0, 0, 0]]
    pairs = [made_pair(("train", k), ("val", j)) for k, j in ((0, 0), (1, 0), (2, 1))]
    assert [pair.agree for pair in shown(dataset, pairs)] == [False, True, True]
    assert [pair.labels for pair in shown(dataset, pairs)] == [
        ("0: a + 1: b + 2: c", "0: a + 2: c"),
        ("0: a + 2: c", "0: a + 2: c"),
        ("(no label)", "(no label)"),
    ]


def test_different_labels_come_first_then_pairs_across_splits_then_the_nearest() -> None:
    dataset = make_dataset(counts={"train": 61, "val": 7, "test": 13})
    dataset.train.labels[:] = 0
    dataset.train.labels[40:42] = 1
    dataset.val.labels[:] = 0
    rng = np.random.default_rng(0)
    pairs = [made_pair(("train", int(k)), ("val", 1), distance=int(k) // 2) for k in rng.permutation(8) + 34]
    pairs += [made_pair(("train", int(k)), ("train", 60), distance=int(k) // 2) for k in rng.permutation(20)]
    found = shown(dataset, pairs)
    expected = [40, 41, 34, 35, 36, 37, 38, 39, *range(12)]
    assert [pair.places[0] for pair in found] == [f"train {k}" for k in expected]
    assert [pair.agree for pair in found] == [False] * 2 + [True] * 18
    assert len(found) == MOST_PAIRS
    assert [pair.places for pair in shown(dataset, pairs[::-1])] == [pair.places for pair in found]
    assert shown(dataset, []) == twins(dataset, find(dataset)) == []


def test_large_images_are_averaged() -> None:
    dataset = make_dataset(size=2 * PAIR_SIDE + 1, counts={"train": 2, "val": 1, "test": 1})
    [pair] = shown(dataset, [made_pair(("train", 1), ("val", 0))])
    assert pair.images[0].shape == (86, 86, 1)
    assert abs(int(pair.images[0][1, 2, 0]) - dataset.train.images[1, 0, 3:6, 6:9].mean()) <= 0.5


def test_they_are_counted() -> None:
    dataset = make_dataset()
    dataset.train.labels[:] = 0
    dataset.val.labels[:] = [[0], [1], [0], [0], [0], [0], [0]]
    one = made_pair(("train", 0), ("val", 0))
    last = "then those within one"
    assert told(dataset, [one]) == f"1 pair, all with the same labels: first those across splits, {last}."
    many = [made_pair(("train", k), ("val", k % 2)) for k in range(21)]
    first = "first the 10 with different labels, then others across splits"
    assert told(dataset, many[:20]) == f"20 pairs: {first}, {last}."
    assert told(dataset, many) == f"21 pairs: {first}, {last}; 20 are shown."
    same = "1,500 pairs, all with the same labels: first those across splits"
    assert told(dataset, [one] * 1500) == f"{same}, {last}; 20 are shown."


def test_findings_of_another_dataset_are_refused() -> None:
    findings = made_findings(
        make_dataset(counts={"train": 31, "val": 9, "test": 13}), [made_pair(("train", 0), ("val", 7))]
    )
    with pytest.raises(DataError, match="Expected positions below 7, the images of this split, got 7 to 7"):
        twins(make_dataset(), findings)
