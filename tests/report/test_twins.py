"""Pairs of near-duplicates: which are shown, and what is said of them."""

import numpy as np
import pytest

from qvit.errors import ConfigError, DataError
from qvit.report.twins import MOST_PAIRS, PAIR_SIDE, Pair, twins, twins_told
from report.datasets import MadePair, make_dataset


def test_a_pair_is_shown_as_it_is() -> None:
    dataset = make_dataset(names=("a", "1", "c"), channels=3)
    assert isinstance(MadePair(("train", 0), ("val", 0)), Pair)
    i, j = (int(np.flatnonzero(split.labels[:, 0] == 0)[0]) for split in (dataset.train, dataset.test))
    k = int(np.flatnonzero(dataset.test.labels[:, 0] == 1)[0])
    near, far = twins(
        dataset,
        [
            MadePair(("train", i), ("test", k), distance=0.12345, turn="as it is"),
            MadePair(("train", i), ("test", j), distance=0.0, exact=True),
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
    pairs = [MadePair(("train", k), ("val", j)) for k, j in ((0, 0), (1, 0), (2, 1))]
    assert [pair.agree for pair in twins(dataset, pairs)] == [True, False, True]
    assert [pair.labels for pair in twins(dataset, pairs)] == [
        ("0: a + 2: c", "0: a + 2: c"),
        ("0: a + 1: b + 2: c", "0: a + 2: c"),
        ("(no label)", "(no label)"),
    ]


def test_the_nearest_come_first() -> None:
    dataset = make_dataset()
    rng = np.random.default_rng(0)
    pairs = [MadePair(("train", int(k)), ("val", 1), distance=int(k) // 2) for k in rng.permutation(31)]
    found = twins(dataset, pairs)
    assert [pair.places[0] for pair in found] == [f"train {k}" for k in range(MOST_PAIRS)]
    assert twins(dataset, pairs[::-1])[7].places == found[7].places
    assert twins(dataset, []) == []


def test_large_images_are_averaged() -> None:
    dataset = make_dataset(size=2 * PAIR_SIDE + 1, counts={"train": 2, "val": 1, "test": 1})
    [pair] = twins(dataset, [MadePair(("train", 1), ("val", 0))])
    assert pair.images[0].shape == (86, 86, 1)
    assert abs(int(pair.images[0][1, 2, 0]) - dataset.train.images[1, 0, 3:6, 6:9].mean()) <= 0.5


def test_they_are_counted() -> None:
    dataset = make_dataset()
    dataset.train.labels[:] = 0
    dataset.val.labels[:] = [[0], [1], [0], [0], [0], [0], [0]]
    one = MadePair(("train", 0), ("val", 0))
    assert twins_told(dataset, [one]) == "1 pair, all with the same labels; the nearest first."
    many = [MadePair(("train", k), ("val", k % 2)) for k in range(21)]
    assert twins_told(dataset, many[:20]) == "20 pairs, 10 with different labels; the nearest first."
    assert twins_told(dataset, many) == "21 pairs, 10 with different labels; the nearest 20."
    more = [one] * 1500
    assert twins_told(dataset, more) == "1,500 pairs, all with the same labels; the nearest 20."


@pytest.mark.parametrize("wrong", [7, -1])
def test_pairs_of_another_dataset_are_refused(wrong: int) -> None:
    dataset = make_dataset()
    pairs = [MadePair(("train", 0), ("val", 0))] * 30 + [MadePair(("train", 0), ("val", wrong), distance=9.0)]
    with pytest.raises(DataError) as caught:
        twins(dataset, pairs)
    assert str(caught.value) == (
        f"Expected pairs of images of this dataset, with positions below 7 in val, got {wrong}. Find them anew."
    )
    with pytest.raises(ConfigError, match=r"Unknown split 'tset'"):
        twins(dataset, [MadePair(("tset", 0), ("val", 0))])
