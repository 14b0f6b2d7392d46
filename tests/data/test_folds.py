"""Folds: each image is held out once, groups stay whole, classes are spread, and no test image is in any of them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.data.folds import Chosen, Fold, folds_of, hold_out
from qvit.data.registry import DatasetInfo
from qvit.errors import DataError

Save = Callable[..., Path]
SIZES = {"train": 41, "val": 12, "test": 9}


def numbered(labels: dict[str, np.ndarray] | None = None, *, groups: dict[str, np.ndarray] | None = None) -> Dataset:
    """A dataset in which the first two pixels of an image are its number; those of test images are from 200 on."""
    if labels is None:
        labels = {name: (np.arange(count) % 3)[:, None] for name, count in SIZES.items()}
    splits, first = {}, 0
    for name, own in labels.items():
        images = np.zeros((len(own), 1, 4, 4), np.uint8)
        places = np.arange(len(own)) + (200 * 256 if name == "test" else first)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = places % 256, places // 256
        splits[name] = Split(images, own.astype(np.int64))
        first += len(own)
    several = splits["train"].labels.shape[1]
    task = "multi-label" if several > 1 else "multi-class"
    classes = several if several > 1 else max(int(split.labels.max(initial=0)) for split in splits.values()) + 1
    info = DatasetInfo(
        name="made",
        title="Made",
        description="",
        task=task,  # type: ignore[arg-type]
        labels=tuple(f"kind {number}" for number in range(classes)),
        channels=1,
        splits={name: len(split) for name, split in splits.items()},
        md5={},
        licence="",
        citation="",
        augment="none",
    )
    return Dataset(info, 4, **splits, groups=groups)


def numbers(split: Split) -> list[int]:
    pixels = split.batch(np.arange(len(split)))[0].int()
    return (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 0, 1]).tolist()


@pytest.mark.parametrize("count", [2, 5, 17])
def test_each_image_is_held_out_once_and_test_images_never(count: int) -> None:
    data = numbered()
    folds = folds_of(data, count, seed=3)
    everyone = list(range(SIZES["train"] + SIZES["val"]))
    assert sorted(number for fold in folds for number in numbers(fold.val)) == everyone
    for fold in folds:
        assert sorted(numbers(fold.train) + numbers(fold.val)) == everyone
        assert numbers(fold.test) == numbers(fold.val)
        assert fold.whole is data
        assert dict(fold.info.splits) == {"train": len(fold.train), "val": len(fold.val), "test": len(fold.val)}
    assert [fold.info.title for fold in folds] == [f"Made, fold {number} of {count}" for number in range(1, count + 1)]
    assert len({fold.digest for fold in (data, *folds)}) == count + 1
    sizes = [len(fold.val) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for kind in range(3):
        held = [int((fold.val.labels == kind).sum()) for fold in folds]
        assert max(held) - min(held) <= 1
    third = hold_out(data, Fold(2, count, seed=3))
    assert numbers(third.val) == numbers(folds[1].val)


def test_labels_go_with_their_images() -> None:
    for fold in folds_of(numbered(), 4, seed=0):
        for split in (fold.train, fold.val):
            places = np.array(numbers(split))
            places[places >= SIZES["train"]] -= SIZES["train"]
            assert split.labels[:, 0].tolist() == (places % 3).tolist()


@pytest.mark.long
@given(seed=st.integers(0, 1000), count=st.integers(2, 6), size=st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_groups_are_never_divided(seed: int, count: int, size: int) -> None:
    """Groups of one to four images, some of which have images in training and in validation."""
    rng = np.random.default_rng(seed)
    groups = {
        name: np.array([f"p{number}" for number in rng.integers(60 // size, size=n)]) for name, n in SIZES.items()
    }
    known = np.concatenate([groups["train"], groups["val"]])
    folds = folds_of(numbered(groups=groups), count, seed=seed)
    for fold in folds:
        assert fold.groups is not None
        for name, split in fold.splits.items():
            assert fold.groups[name].tolist() == known[numbers(split)].tolist()
        assert not set(fold.groups["train"]) & set(fold.groups["val"])
    assert sum(len(fold.val) for fold in folds) == len(known)


@pytest.mark.long
def test_labels_of_several_are_spread_as_well() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0.5, 0.2, 0.05])
    labels = {name: (rng.random((10 * count, 3)) < rates).astype(np.int64) for name, count in SIZES.items()}
    whole = np.concatenate([labels["train"], labels["val"]]).mean(axis=0)
    for fold in folds_of(numbered(labels), 5, seed=0):
        assert np.abs(fold.val.labels.mean(axis=0) - whole).max() < 0.01


def test_another_seed_draws_other_folds_and_the_same_the_same() -> None:
    data = numbered()
    first, again, other = ([numbers(fold.val) for fold in folds_of(data, 5, seed=seed)] for seed in (7, 7, 8))
    assert first == again != other


@pytest.mark.filterwarnings("ignore:There is only one image")
def test_folds_do_not_depend_on_what_is_in_test() -> None:
    data = numbered()
    changed = numbered({name: split.labels for name, split in data.splits.items()} | {"test": np.zeros((1, 1), int)})
    assert [numbers(fold.train) for fold in folds_of(data, 3, seed=0)] == [
        numbers(fold.train) for fold in folds_of(changed, 3, seed=0)
    ]


def test_what_a_fold_lacks_is_said_once() -> None:
    labels = {name: (np.arange(count) % 2)[:, None] for name, count in SIZES.items()}
    labels["val"][:2] = 2
    with pytest.warns(
        UserWarning, match=r"^Made, folds of seed 0: No image of class kind 2 is in fold 3, as few"
    ) as caught:
        folds_of(numbered(labels), 3, seed=0)
    assert len(caught) == 1


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "images": (
        lambda: folds_of(numbered(), 54, seed=0),
        "Made: expected at least 54 images for 54 folds, found 53. Ask for fewer.",
    ),
    "groups": (
        lambda: folds_of(numbered(groups={name: np.array(["a", "b"] * n)[:n] for name, n in SIZES.items()}), 3, seed=0),
        "Made: expected at least 3 groups for 3 folds, found 2. Ask for fewer.",
    ),
    "classes": (
        lambda: folds_of(numbered({name: np.arange(n)[:, None] // 30 for name, n in SIZES.items()}), 53, seed=2),
        "Made: expected at least two classes in each of 53 folds, found only [0] in fold 1 of seed 2. AUC compares "
        "classes: ask for fewer folds, or another seed.",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_divided_is_refused(case: str) -> None:
    call, told = REFUSED[case]
    with pytest.raises(DataError) as caught:
        call()
    assert str(caught.value) == told


def test_chosen_images_are_read_as_those_of_a_split() -> None:
    data = numbered()
    rows = np.array([50, 0, 44, 17, 3])
    chosen = Chosen([data.train, data.val], rows)
    assert numbers(chosen) == rows.tolist()
    assert (len(chosen), chosen.shape, chosen.mapped) == (5, (5, 1, 4, 4), False)
    whole = Split(chosen.images, chosen.labels)
    images, labels = chosen.batch(torch.tensor([-1, 2, 2]))
    assert torch.equal(images, whole.batch([4, 2, 2])[0])
    assert labels.tolist() == whole.labels[[4, 2, 2]].tolist()
    assert torch.equal(chosen[-2][0], whole[3][0])
    assert np.array_equal(np.concatenate([part for _, part in chosen.parts()]), whole.images)
    empty = Chosen([data.train, data.val], rows[:0])
    assert (len(empty), empty.shape, list(empty.parts()), empty.batch([])[0].shape) == (
        0,
        (0, 1, 4, 4),
        [],
        (0, 1, 4, 4),
    )
    with pytest.raises(DataError, match="Expected positions below 5, the images of this split, got 5 to 5"):
        chosen.batch([5])
    with pytest.raises(IndexError):
        chosen[5]


def test_mapped_images_stay_on_the_disk(
    make_own: Callable[..., Any], save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(make_own(classes=3), compressed=False)
    plain = load_dataset(path)
    monkeypatch.setattr("qvit.data.source.MAP_ABOVE", 0)
    mapped = load_dataset(path)
    assert (plain.train.mapped, mapped.train.mapped) == (False, True)
    for ours, theirs in zip(folds_of(mapped, 3, seed=0), folds_of(plain, 3, seed=0), strict=True):
        assert (ours.train.mapped, theirs.train.mapped) == (True, False)
        assert ours.digest == theirs.digest
        there = pickle.loads(pickle.dumps(ours.train))  # what a DataLoader's worker is sent
        assert there.sources[0].mapped
        assert np.array_equal(there.images, theirs.train.images)
        assert np.array_equal(there.labels, theirs.train.labels)
