"""What is wrong with a dataset, found in datasets in which something was made wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.arrays import Dataset, load_dataset
from qvit.data.duplicates import find_duplicates
from qvit.data.findings import Findings, copies_in, count, find

N = {"train": 120, "val": 24, "test": 36}
Make = Callable[[dict[str, Any]], Dataset]


@pytest.fixture
def textures() -> dict[str, Any]:
    """Smooth random images of three classes, of which no two are alike."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 120), ("val", 24), ("test", 36)):
        noise = rng.normal(size=(n, 14, 14)).cumsum(axis=1).cumsum(axis=2)
        low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
        arrays[f"{split}_images"] = ((noise - low) / (high - low) * 255).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 3).astype(np.uint8)
    return arrays


@pytest.fixture
def make(save: Callable[..., Path]) -> Make:
    return lambda arrays: load_dataset(save(arrays))


def findings(data: Dataset) -> Findings:
    return find(data, find_duplicates(data))


def test_nothing_is_found_where_nothing_is_wrong(textures: dict[str, Any], make: Make) -> None:
    data = make(textures | {f"{split}_groups": np.array([f"{split}{k}" for k in range(n)]) for split, n in N.items()})
    found = findings(data)
    assert found.told(data) == []
    assert found.shared == ()
    assert found.imbalance == 1.0
    assert found.summary()["pairs"] == 0


def test_copies_and_conflicts(textures: dict[str, Any], make: Make) -> None:
    textures["test_images"][3] = textures["train_images"][5][:, ::-1]  # label 0, and 2
    textures["test_images"][4] = textures["val_images"][7]  # label 1 both
    textures["val_images"][2] = textures["train_images"][8]  # label 2 both
    data = make(textures)
    found = findings(data)
    assert found.copies == {"val": 1, "test": 2}
    assert found.conflicts == 1
    assert found.told(data)[:3] == [
        "2 of 36 images of test (5.6%) have a near-duplicate in train or val; measures are also given without them "
        "(qvit evaluate).",
        "1 of 24 images of val (4.2%) have a near-duplicate in train; measures are also given without them (qvit "
        "evaluate).",
        "1 pairs of near-duplicates have different labels.",
    ]
    assert np.flatnonzero(copies_in(data, "test")).tolist() == [3, 4]
    assert np.flatnonzero(copies_in(data, "val")).tolist() == [2], "of a copy in test nothing is learnt"
    assert np.flatnonzero(copies_in(data, "train")).tolist() == [5, 8]
    said = found.summary()
    assert (said["pairs"], said["exact_pairs"], said["conflicts"]) == (3, 3, 1)
    assert said["images_with_copies"] == {"val": 1, "test": 2}


def test_groups_in_several_splits(textures: dict[str, Any], make: Make) -> None:
    groups = {
        f"{split}_groups": np.array([f"p{(k + start) % 90}" for k in range(n)])
        for start, (split, n) in zip((0, 80, 40), N.items(), strict=True)
    }
    data = make(textures | groups)
    found = findings(data)
    assert found.shared is not None
    assert len(found.shared) == 60
    assert found.told(data)[0].startswith("60 groups have images in several splits: p0, p1, p10, p11, p12 and 55 more.")


def test_unknown_groups_are_said_to_be_unknown(textures: dict[str, Any], make: Make) -> None:
    data = make(textures)
    assert findings(data).told(data) == [
        "Groups, such as patients, are not known: whether one stands in two splits cannot be told."
    ]


def test_constant_images_absent_and_rare_classes(textures: dict[str, Any], make: Make) -> None:
    textures["train_images"][[3, 50]] = 7
    textures["test_images"][1] = 0
    textures["val_labels"][:] = 1
    textures["train_labels"][:] = 0
    textures["train_labels"][:10] = 1
    textures["train_labels"][0] = 2
    data = make(textures)
    found = findings(data)
    assert found.constant == {"train": (3, 50), "val": (), "test": (1,)}
    assert found.absent == {"train": (), "val": ("0", "2"), "test": ()}
    assert found.imbalance == 110
    told = found.told(data)
    assert "No image of 0, 2 in val." in told
    assert "2 images of train have one value everywhere: 3, 50." in told
    assert "The largest class has 110 times as many training images as the smallest." in told
    assert count(data.train.labels, data).tolist() == [110, 9, 1]


def test_labels_of_several_are_counted_each(textures: dict[str, Any], make: Make) -> None:
    rng = np.random.default_rng(1)
    for split, n in N.items():
        textures[f"{split}_labels"] = rng.integers(0, 2, (n, 4)).astype(np.uint8)
    textures["val_labels"][:, 2] = 0
    data = make(textures)
    found = findings(data)
    assert found.absent == {"train": (), "val": ("2",), "test": ()}
    assert count(data.train.labels, data).tolist() == textures["train_labels"].sum(axis=0).tolist()
