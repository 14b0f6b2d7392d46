"""Copies planted into images, found again; strangers left alone; what is said of copies."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from qvit.data import likeness
from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.data.augment import apply_element
from qvit.data.duplicates import TURNS, Duplicates, Pair, conflicts, find_duplicates
from qvit.data.registry import get_info
from qvit.errors import ConfigError, DataError

COUNTS = {"train": 200, "val": 50, "test": 50}


def textures(count: int, channels: int = 1, side: int = 20, seed: int = 0) -> np.ndarray:
    """Smooth random images, each of its own brightness and contrast."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(count, channels, side, side))
    for axis in (2, 3):
        for step in (1, 2):
            rough = rough + np.roll(rough, step, axis)
    rough *= rng.uniform(15, 35, (count, 1, 1, 1)) / rough.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(rough + rng.uniform(100, 155, (count, 1, 1, 1)), 0, 255).astype(np.uint8)


def dataset(images: np.ndarray, labels: np.ndarray | None = None) -> Dataset:
    """A dataset of images in the order train, val, test."""
    if labels is None:
        labels = np.zeros((len(images), 1), np.int64)
    train, val = COUNTS["train"], COUNTS["train"] + COUNTS["val"]
    splits = [Split(images[part], labels[part]) for part in (slice(train), slice(train, val), slice(val, None))]
    return Dataset(get_info("breastmnist"), images.shape[-1], *splits)


def alike(count: int, spread: float = 0.3, kind: int = 0, side: int = 20) -> np.ndarray:
    """Images of one kind: a pattern that they share, and a texture of each that is a share as strong."""
    pattern = textures(1, side=side, seed=1000 + kind)[0] - 128.0
    details = textures(count, side=side, seed=2000 + kind) - 128.0
    return np.clip(128 + pattern + spread * details, 0, 255).astype(np.uint8)


def turned(image: np.ndarray, element: int) -> np.ndarray:
    return apply_element(torch.from_numpy(image[None].copy()), element, "d4")[0].numpy()


def ends(pairs: tuple[Pair, ...]) -> set[tuple[tuple[str, int], tuple[str, int]]]:
    return {(pair.first, pair.second) for pair in pairs}


@pytest.fixture(scope="module")
def strangers() -> np.ndarray:
    return textures(sum(COUNTS.values()))


@pytest.mark.long
def test_strangers_are_no_copies(strangers: np.ndarray) -> None:
    found = find_duplicates(dataset(strangers))
    assert found.pairs == ()
    assert 0.1 < found.cut < 1
    assert 0 < found.false_share < 0.02
    assert found.images == COUNTS
    assert not found.flagged("test").any()


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("element", range(8))
def test_turned_copies_are_found_with_their_turn(element: int, channels: int) -> None:
    """Bytes equal after the turn; and another one brighter, of less contrast, and noisy."""
    images = textures(sum(COUNTS.values()), channels, seed=element)
    images[260] = turned(images[7], element)
    changed = turned(images[9], element) * 0.7 + 50 + np.random.default_rng(1).normal(scale=2, size=images.shape[1:])
    images[270] = np.clip(changed, 0, 255).astype(np.uint8)
    found = find_duplicates(dataset(images))
    back = next(e for e in range(8) if np.array_equal(turned(images[260], e), images[7]))
    exact, near = found.pairs
    assert exact == Pair(("train", 7), ("test", 10), 0.0, TURNS[back], True)
    assert (near.first, near.second, near.turn, near.exact) == (("train", 9), ("test", 20), TURNS[back], False)
    assert 0 < near.distance <= found.cut
    assert found.flagged("test").nonzero()[0].tolist() == [10, 20]


def test_nothing_depends_on_brightness_and_contrast(strangers: np.ndarray) -> None:
    images = strangers.copy()
    images[299] = images[0] // 2 + 90
    (pair,) = find_duplicates(dataset(images)).pairs
    assert (pair.first, pair.second, pair.exact) == (("train", 0), ("test", 49), False)
    assert pair.distance < 0.1


@pytest.mark.long
def test_only_pairs_across_splits(strangers: np.ndarray) -> None:
    images = strangers.copy()
    images[1], images[201], images[3] = images[0], images[200], images[2] // 2 + 90
    images[251], images[252] = images[4], images[5] // 2 + 90
    every = find_duplicates(dataset(images))
    across = find_duplicates(dataset(images), across_only=True)
    assert len(every.pairs) == 5
    assert across.pairs == tuple(pair for pair in every.pairs if pair.first[0] != pair.second[0])
    assert ends(across.pairs) == {(("train", 4), ("test", 1)), (("train", 5), ("test", 2))}
    assert (across.cut, across.false_share) == (every.cut, every.false_share)


@pytest.mark.long
def test_groups_of_exact_copies_form_pairs_with_the_first_of_each_split(strangers: np.ndarray) -> None:
    images = strangers.copy()
    for place in (50, 60, 210, 220, 230, 280):
        images[place] = turned(images[10], place % 8)
    found = find_duplicates(dataset(images))
    firsts, others = [10, 210, 280], [10, 50, 60, 210, 220, 230, 280]

    def place(k: int) -> tuple[str, int]:
        return ("train", k) if k < 200 else ("val", k - 200) if k < 250 else ("test", k - 250)

    pairs = {(place(min(a, b)), place(max(a, b))) for a in firsts for b in others if a != b}
    assert ends(found.pairs) == pairs
    assert all(pair.exact for pair in found.pairs)
    assert found.flagged("val", within=["test"]).nonzero()[0].tolist() == [10, 20, 30]


@pytest.mark.long
def test_a_near_copy_of_exact_copies_is_one_of_each_split(strangers: np.ndarray) -> None:
    images = strangers.copy()
    images[30] = images[20]
    images[240] = turned(images[20], 3)
    images[290] = turned(images[20] // 2 + 90, 6)
    found = find_duplicates(dataset(images))
    near = {pair for pair in found.pairs if not pair.exact}
    assert ends(tuple(near)) == {
        (("train", 20), ("test", 40)),
        (("train", 30), ("test", 40)),
        (("val", 40), ("test", 40)),
    }
    for pair in near:
        first = images[{"train": 0, "val": 200, "test": 250}[pair.first[0]] + pair.first[1]]
        there = turned(images[290], TURNS.index(pair.turn))
        assert np.corrcoef(first.ravel(), there.ravel())[0, 1] > 0.99
    assert found.flagged("test", within=["val"]).nonzero()[0].tolist() == [40]


def test_flagged_by_other_splits_only() -> None:
    pairs = (
        Pair(("train", 0), ("train", 2), 0.0, TURNS[0], True),
        Pair(("train", 1), ("val", 3), 0.1, TURNS[0], False),
        Pair(("val", 1), ("test", 0), 0.2, TURNS[0], False),
    )
    found = Duplicates(pairs, 0.5, 1e-5, {"train": 3, "val": 4, "test": 2})
    assert found.flagged("train").tolist() == [False, True, False]
    assert found.flagged("train", within=["train", "test"]).tolist() == [False, False, False]
    assert found.flagged("val").tolist() == [False, False, False, True]
    assert found.flagged("val", within=["test"]).tolist() == [False, True, False, False]
    assert found.flagged("test").tolist() == [True, False]
    assert found.flagged("test", within=["train"]).tolist() == [False, False]
    assert found.flagged("test", within=[]).tolist() == [False, False]


@pytest.mark.long
def test_pairs_of_different_labels_are_conflicts(strangers: np.ndarray) -> None:
    images = strangers.copy()
    images[250], images[251] = images[0], images[1]
    labels = np.zeros((300, 3), np.int64)
    labels[251, 2] = 1
    data = dataset(images, labels)
    (conflict,) = conflicts(find_duplicates(data), data)
    assert (conflict.first, conflict.second) == (("train", 1), ("test", 1))


def test_constant_images_are_copies_of_equal_ones_only(strangers: np.ndarray) -> None:
    images = strangers.copy()
    images[[0, 200, 1, 2]] = np.array([0, 0, 255, 128], np.uint8)[:, None, None, None]
    found = find_duplicates(dataset(images))
    assert found.pairs == (Pair(("train", 0), ("val", 0), 0.0, TURNS[0], True),)


@pytest.mark.long
def test_images_that_are_all_the_same(strangers: np.ndarray) -> None:
    for images in (np.zeros_like(strangers), np.repeat(strangers[:1], 300, axis=0)):
        found = find_duplicates(dataset(images))
        assert (found.cut, found.false_share) == (0, 0)
        assert len(found.pairs) == 299 + 299 - 1 + 299 - 2 - 1 + 1
        assert found.flagged("test").all()


def test_few_images_have_exact_copies_only(strangers: np.ndarray) -> None:
    train, others = strangers[:63].copy(), strangers[63:70].copy()
    others[1], others[2] = turned(train[5], 2), train[6] // 2 + 90
    labels = np.zeros((70, 1), np.int64)
    data = replace(dataset(strangers), train=Split(train, labels[:63]), val=Split(others, labels[:7]))
    found = find_duplicates(data)
    assert (found.cut, found.false_share) == (0, 0)
    assert [(pair.first, pair.second, pair.turn) for pair in found.pairs if pair.exact][:1] == [
        (("train", 5), ("val", 1), TURNS[2])
    ]
    assert all(pair.exact for pair in found.pairs)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_images(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 1, side, side)).astype(np.uint8)
    images[260] = turned(images[0], 1)
    assert (("train", 0), ("test", 10)) in ends(tuple(p for p in find_duplicates(dataset(images)).pairs if p.exact))


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(DataError, match=r"^Expected square images, got 8 x 9 pixels\. Crop or pad them\.$"):
        find_duplicates(dataset(np.zeros((300, 1, 8, 9), np.uint8)))


def test_unknown_splits_are_refused() -> None:
    found = Duplicates((), 0.0, 0.0, COUNTS)
    message = r"^Unknown split 'trian'\. Expected one of: train, val, test\.$"
    with pytest.raises(ConfigError, match=message):
        found.flagged("trian")
    with pytest.raises(ConfigError, match=message):
        found.flagged("test", within=["val", "trian"])


@pytest.mark.long
def test_mapped_images(strangers: np.ndarray, save: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    images = strangers.copy()
    images[270], images[280] = turned(images[3], 1), images[4] // 2 + 90
    expected = find_duplicates(dataset(images))
    monkeypatch.setattr("qvit.data.source.MAP_ABOVE", 0)
    monkeypatch.setattr("qvit.data.arrays._CHUNK", 7 * 400)
    parts = {"train": images[:200, 0], "val": images[200:250, 0], "test": images[250:, 0]}
    labels = {f"{split}_labels": np.arange(len(part)) % 2 for split, part in parts.items()}
    path = save({**{f"{split}_images": part for split, part in parts.items()}, **labels}, compressed=False)
    mapped = load_dataset(path)
    assert mapped.test.mapped
    assert find_duplicates(mapped) == expected
    assert len(expected.pairs) == 2


def mixture(strangers: np.ndarray, *kinds: np.ndarray) -> np.ndarray:
    """Strangers, some of them replaced by images of rare kinds, each spread over the splits."""
    images = strangers.copy()
    for k, kind in enumerate(kinds):
        images[np.linspace(k, len(images) - 10 + k, len(kind)).astype(int)] = kind
    return images


@pytest.mark.long
@pytest.mark.parametrize("spread", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("count", [5, 6, 11, 21, 40])
def test_a_rare_kind_is_not_called_copies(strangers: np.ndarray, count: int, spread: float) -> None:
    """Nearer to one another than to all the rest; those that are copies are found still."""
    kind = alike(count, spread)
    assert find_duplicates(dataset(mixture(strangers, kind))).pairs == ()
    noise = np.random.default_rng(5).normal(scale=1, size=kind.shape[1:])
    kind[-1] = np.clip(turned(kind[0], 6) + noise, 0, 255)
    (pair,) = find_duplicates(dataset(mixture(strangers, kind))).pairs
    assert (pair.first, pair.second, pair.exact) == (("train", 0), ("test", 40), False)
    assert np.corrcoef(kind[0].ravel(), turned(kind[-1], TURNS.index(pair.turn)).ravel())[0, 1] > 0.99


@pytest.mark.long
def test_several_rare_kinds(strangers: np.ndarray) -> None:
    """Four may be in a dataset; the fifth would be the fifth group of copies, and so all of that size are."""
    kinds = [alike(8, kind=k) for k in range(5)]
    assert find_duplicates(dataset(mixture(strangers, *kinds[:4]))).pairs == ()
    assert len(find_duplicates(dataset(mixture(strangers, *kinds))).pairs) > 5 * 20


@pytest.mark.long
def test_a_kind_of_four_images_cannot_be_told_from_copies(strangers: np.ndarray) -> None:
    """Nor can more be that are equal but for turns: they count as one."""
    kind = alike(4, 0.2)
    assert len(find_duplicates(dataset(mixture(strangers, kind))).pairs) == 6
    equal = np.concatenate([kind, [turned(image, 3) for image in kind]])
    found = find_duplicates(dataset(mixture(strangers, equal)))
    different = {(pair.first, pair.second) for pair in found.pairs if not pair.exact}
    places = np.linspace(0, 290, 8).astype(int)
    assert sum(pair.exact for pair in found.pairs) == 4
    assert len(different) >= 6 * 3  # of 24, those with none but other images of their splits are left out
    assert {place for pair in different for place in pair} == {
        ("train", int(k)) if k < 200 else ("val", int(k) - 200) if k < 250 else ("test", int(k) - 250) for k in places
    }


@pytest.mark.long
@pytest.mark.parametrize(("groups", "noise"), [(1, 0.0), (8, 4.0)])
def test_groups_of_many_copies(strangers: np.ndarray, groups: int, noise: float) -> None:
    """One image six times, if hardly changed; if there are many such groups, with noise as well."""
    rng = np.random.default_rng(6)
    sets = [np.stack([turned(image, e) * rng.uniform(0.7, 1) + 20 for e in range(6)]) for image in strangers[200:208]]
    sets = [np.clip(some + rng.normal(scale=noise, size=some.shape), 0, 255) for some in sets[:groups]]
    images = mixture(textures(len(strangers), seed=7), *(some.astype(np.uint8) for some in sets))
    every = find_duplicates(dataset(images))
    assert len(every.pairs) == 15 * groups
    assert find_duplicates(dataset(images), across_only=True).pairs == tuple(
        pair for pair in every.pairs if pair.first[0] != pair.second[0]
    )


@pytest.mark.long
def test_of_many_near_copies_only_the_nearest_form_pairs(strangers: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    source, noise = strangers[0].astype(np.float64), np.linspace(1, 2, 44)
    copies = [source + sigma * rng.normal(size=source.shape) for sigma in noise]
    images = np.concatenate([strangers[:200], np.stack(copies).round().clip(0, 255).astype(np.uint8), strangers[244:]])
    found = find_duplicates(dataset(images))
    assert np.flatnonzero(found.flagged("val", within=["train"])).tolist() == [*range(44)], "each is still told of"
    assert np.flatnonzero(found.flagged("train", within=["val"])).tolist() == [0]
    within = [pair for pair in found.pairs if pair.first[0] == pair.second[0] == "val"]
    assert len(within) < 44 * 43 // 2
    counts = Counter(end for pair in within for end in (pair.first, pair.second))
    assert min(counts.values()) >= 16
    assert sum(pair.first == ("train", 0) for pair in found.pairs) == 44, "the 45th is the nearest of each in train"


@pytest.mark.long
def test_only_pairs_across_splits_of_a_rare_kind(strangers: np.ndarray) -> None:
    """Images of one split tell that those of others are of a kind."""
    kind = alike(21)
    kind[-1] = kind[0] // 2 + 60
    every = find_duplicates(dataset(mixture(strangers, kind)))
    across = find_duplicates(dataset(mixture(strangers, kind)), across_only=True)
    assert across == every
    assert ends(across.pairs) == {(("train", 0), ("test", 40))}


@pytest.mark.long
def test_the_false_share_of_a_rare_kind_is_added(strangers: np.ndarray) -> None:
    """Discs, which differ in three numbers only: of forty among 300 images, up to a twentieth."""
    rng = np.random.default_rng(8)
    x, y, size = (rng.uniform(*some, (40, 1, 1)) for some in ((-3, 3), (-3, 3), (3, 6)))
    axis = np.arange(20) - 9.5
    discs = 60 + 120 / (1 + np.exp(2 * (np.hypot(axis - x, axis[:, None] - y) - size)))
    found = find_duplicates(dataset(mixture(strangers, discs[:, None].astype(np.uint8))))
    without = find_duplicates(dataset(strangers))
    assert 0.25 * 0.05 * 40 / 300 < found.false_share - without.false_share < 0.05 * 40 / 300 + 0.002
    assert found.flagged("test").sum() <= 2


@pytest.mark.long
def test_threads_and_many_images_change_no_result(strangers: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for large datasets finds the same copies, whatever the number of threads."""
    images = strangers.copy()
    noise = np.random.default_rng(3).normal(scale=3, size=(40, *images.shape[1:]))
    images[250:290] = np.clip(images[:40].swapaxes(2, 3) + noise, 0, 255).astype(np.uint8)
    expected = find_duplicates(dataset(images))
    assert len(expected.pairs) == 40
    monkeypatch.setattr(likeness, "_ALL_PAIRS", 10)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert find_duplicates(dataset(images)) == expected
    finally:
        torch.set_num_threads(before)
