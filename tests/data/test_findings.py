"""What is wrong with a dataset, found in datasets in which something was made wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.arrays import Dataset, load_dataset
from qvit.data.chance import FEWEST
from qvit.data.duplicates import TURNS, Duplicates, Pair, find_duplicates
from qvit.data.findings import Findings, copies_in, count, find, shared_groups
from qvit.errors import DataError

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
    copies: Any = found.summary()["copies"]
    assert copies["pairs"] == 0


def test_copies_and_conflicts(textures: dict[str, Any], make: Make) -> None:
    textures["test_images"][3] = textures["train_images"][5][:, ::-1]  # label 0, and 2
    textures["test_images"][4] = textures["val_images"][7]  # label 1 both
    textures["val_images"][2] = textures["train_images"][8]  # label 2 both
    data = make(textures)
    found = findings(data)
    assert found.copies == {"val": 1, "test": 2}
    assert [(pair.first, pair.second) for pair in found.conflicts] == [(("train", 5), ("test", 3))]
    assert found.told(data)[:3] == [
        "2 of 36 images of test (5.6%) have a near-duplicate in train or val; measures are also given without them "
        "(qvit evaluate).",
        "1 of 24 images of val (4.2%) has a near-duplicate in train; measures are also given without them (qvit "
        "evaluate).",
        "1 pair of near-duplicates has different labels.",
    ]
    assert np.flatnonzero(copies_in(data, "test")).tolist() == [3, 4]
    assert np.flatnonzero(copies_in(data, "val")).tolist() == [2], "of a copy in test nothing is learnt"
    assert np.flatnonzero(copies_in(data, "train")).tolist() == [5, 8]
    said: Any = found.summary()["copies"]
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
    assert data.groups is not None
    assert shared_groups(data.groups) == found.shared
    assert found.told(data)[0].startswith("60 groups have images in several splits: p0, p1, p10, p11, p12 and 55 more.")
    long = "name\u2028" + "x" * 50
    alone = {f"{split}_groups": np.array([long, *(f"{split}{k}" for k in range(1, n))]) for split, n in N.items()}
    data = make(textures | alone)
    [line] = findings(data).told(data)
    assert line == f"1 group has images in several splits: 'name\\u2028{'x' * 35}\\u2026'."


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
    assert "2 images of train have equal pixels throughout: 3, 50." in told
    assert "1 image of test has equal pixels throughout: 1." in told
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


def test_images_of_one_colour_are_constant(make_own: Callable[..., Any], make: Make) -> None:
    arrays = make_own(size=9)
    arrays["train_images"][[4, 20]] = (1, 2, 3)
    arrays["test_images"][0] = 255
    arrays["val_images"][3, :, :, :2] = 7  # the third channel is as it was
    assert find(make(arrays)).constant == {"train": (4, 20), "val": (), "test": (0,)}


def test_the_rest_is_found_without_looking_for_near_duplicates(textures: dict[str, Any], make: Make) -> None:
    groups = {f"{split}_groups": np.array([f"{split}{k}" for k in range(n)]) for split, n in N.items()}
    groups["test_groups"][2] = "train5"
    textures["train_images"][3] = 7
    textures["val_labels"][:] = 1
    data = make(textures | groups)
    whole, found = findings(data), find(data)
    assert found.told(data) == ["Near-duplicates were not looked for.", *whole.told(data)]
    assert len(whole.told(data)) == 3
    said = found.summary()
    assert said == whole.summary() | {"copies": None}
    assert said["shared_groups"] == ["train5"]


def test_it_is_said_if_only_exact_copies_were_looked_for(textures: dict[str, Any], make: Make) -> None:
    """Of too few training images chance is not learnt."""
    groups = {f"{split}_groups": np.array([f"{split}{k}" for k in range(n)]) for split, n in N.items()}

    def told(train: int) -> list[str]:
        few = {f"train_{key}": {**textures, **groups}[f"train_{key}"][:train] for key in ("images", "labels", "groups")}
        data = make(textures | groups | few)
        return findings(data).told(data)

    said = "Only exact copies were looked for: near-duplicates need at least 64 training images"
    assert told(FEWEST) == []
    assert told(40) == [f"{said}, and there are 40."]
    textures["test_images"][3] = textures["train_images"][5][:, ::-1]
    assert told(FEWEST - 1)[1:] == ["1 pair of near-duplicates has different labels.", f"{said}, and there are 63."]
    textures["train_images"][60:] = textures["train_images"][0]
    assert f"{said} that differ, and fewer of the 120 do." in told(120)


def test_near_duplicates_of_another_dataset_are_refused(textures: dict[str, Any], make: Make) -> None:
    data = make(textures)
    with pytest.raises(DataError) as caught:
        find(data, Duplicates((), 0.5, 0.0, {"train": 1200, "val": 24, "test": 36}))
    assert str(caught.value) == (
        "Expected near-duplicates of this dataset, with train 120, val 24, test 36 images, got those of one with train "
        "1,200, val 24, test 36 images. Find them anew."
    )


def test_what_is_told_stays_short(textures: dict[str, Any], make: Make) -> None:
    """However many pairs, groups, classes and images there are to tell of."""
    groups = {f"{split}_groups": np.array([f"patient {k % 20}" for k in range(n)]) for split, n in N.items()}
    textures["test_images"][:] = 0
    textures["train_labels"] = np.arange(120)
    data = make(textures | groups)
    pairs = [Pair(("train", i), ("test", j), 0.1, TURNS[0], False) for i in range(120) for j in range(36)]
    found = find(data, Duplicates(tuple(pairs), 0.5, 0.0, N))
    assert len(found.conflicts) > 4000
    assert len(found.told(data)) == 6
    assert max(map(len, found.told(data))) < 150
    assert len(str(found.summary())) < 3000
