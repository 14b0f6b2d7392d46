"""Split images into sides, such as train, val and test: at random, with like shares of classes, no patient on two."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from qvit.data.checks import MOST_CLASSES
from qvit.data.rounding import round_table
from qvit.errors import ConfigError, DataError
from qvit.files import shown

HOME = "train"  # the side that has every class
AS_GOOD = 0.005  # splits whose deviations differ by no more than this are equally good
MOST_WAYS = 1 << 16  # splits that are all tried, or fewer, where classes are many
MOST_CELLS = 1 << 26  # groups × classes: half a gigabyte
_STARTS = 6  # splits to choose from where not all are tried, unless the first is as good as any can be
_KICKS = 15  # groups put elsewhere by force, one after another, in each
_STEPS = 2000  # changes of a split, at most
_SHAKES = 30  # changes by chance of the best split found
_PATIENCE = 3  # draws of changes in a row without an improvement, after which a split is left as it is
_NUMBERS = 1 << 12  # how many are worked out for the changes drawn at a time
_EVENNESS = 0.3  # what all gaps together weigh beside the worst: a change may help that leaves the worst as it is
_SHOWN = 8  # classes that a message lists
_GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread evenly, however few
_ROUNDING = 1e-9  # differences in shares that come of it

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def split_images(
    labels: NDArray[Any],
    groups: NDArray[Any] | None,
    *,
    shares: Mapping[str, float],
    seed: int = 0,
    called: Sequence[str] | None = None,
) -> dict[str, Int64[np.ndarray, " _"]]:
    """Split images at random, so that no group (patient) is on two sides and all sides have like shares of classes.

    `labels` (n, k) are class numbers for k = 1 and rows of 0 and 1 for k > 1. `groups` (n,) names the group of each
    image; None makes every image its own group. An empty name is a name like any other, so that images of unknown
    patients stay together. `shares` are the sides' shares of the images, such as 0.7, 0.1 and 0.2. Returns the
    positions of each side's images, in increasing order. `called` names the classes in warnings.

    What comes first: no side is empty. Then a class that as many groups have as there are sides is on all of them, one
    that fewer have on as many sides, and always on "train" (without such a side, on the largest), unless groups share
    classes in a way that rules this out. Then `deviation` is small.

    Without groups, and with one class per image, each side has the asked number of images of each class, rounded up or
    down; where that is less than one, it has one, at the cost of the other sides. Otherwise the split is one of those
    found that are equally good (within `AS_GOOD`), drawn by chance: of all there are, if groups are few, else of
    random ones that were changed for as long as it helped.

    The split depends on the labels, on which images share a group, on the order of images and sides, and on the seed;
    what groups are called does not matter. Groups with the same images of each class have the same chances.

    Raises ConfigError for shares that are not two or more positive numbers with the sum 1 and for a negative seed,
    DataError for labels and groups that are not as above, for fewer groups than sides, and for too many classes.
    Warns of classes that only one group has, and of others that a side lacks.
    """
    wanted = _checked_shares(shares)
    if seed < 0:
        raise ConfigError(f"Expected a seed of 0 or more, got {seed}.")
    labels = _checked_labels(labels)
    group = np.arange(len(labels)) if groups is None else _numbered(groups, len(labels))
    count, kind = int(group.max(initial=-1)) + 1, "image" if groups is None else "group"
    if count < len(wanted):
        advice = "Ask for fewer sides, or add some."
        raise DataError(f"Expected at least one {kind} for each of {len(wanted)} sides, found {count}. {advice}")
    rng = np.random.default_rng(seed)
    home = list(shares).index(HOME) if HOME in shares else int(wanted.argmax())
    classes, label = _numbered_classes(labels)
    found = _images_split(label, wanted, home, rng) if groups is None and label.ndim == 1 else None
    side, holders = found or _groups_split(_counted(label, len(classes), group, count), group, wanted, home, rng)
    held = _counted(label, len(classes), side, len(wanted))[:, 1:] > 0
    _warn_of_absent(classes, held, holders, list(shares), kind, called)
    return {name: np.flatnonzero(side == place) for place, name in enumerate(shares)}


def deviation(sums: Int64[np.ndarray, "s m *b"], shares: Float[np.ndarray, " s"]) -> Float[np.ndarray, "*b"]:
    """Return how far splits are from what is asked, as a fraction: 0.01 is one percentage point.

    It is the largest difference, over sides and classes, between a class's share of a side's images and its share of
    all images, plus the largest difference, over sides, between a side's share of all images and the asked one.
    `sums` counts, for each side, its images (first column) and its images of each class (the others); further axes
    are those of several splits.
    """
    classes, sizes = _gaps(sums, shares)
    return np.asarray(classes.max(axis=(0, 1)) + sizes.max(axis=0))


def _gaps(sums: Integers, shares: Floats) -> tuple[Floats, Floats]:
    """Return the differences in shares, of classes `(s, c, …)` and of sides `(s, …)`."""
    sizes, whole = sums[:, 0], sums.sum(axis=0)
    classes = np.abs(sums[:, 1:] / np.maximum(sizes, 1)[:, None] - whole[1:] / whole[0])
    return classes, np.abs((sizes / whole[0]).T - shares).T


def _checked_shares(shares: Mapping[str, float]) -> Floats:
    values = np.array([*shares.values()], np.float64)
    if len(values) < 2 or not (values > 0).all() or not abs(values.sum() - 1) <= _ROUNDING:
        said = ", ".join(f"{name} {share}" for name, share in shares.items()) or "none"
        raise ConfigError(
            f"Expected the shares of two or more sides, positive numbers with the sum 1, got {said}. "
            "Try train 0.7, val 0.1, test 0.2."
        )
    return values / values.sum()


def _checked_labels(labels: NDArray[Any]) -> Integers:
    advice = "Give one class number, or one row of 0 and 1, for each image."
    if labels.ndim != 2 or labels.shape[1] == 0 or labels.dtype.kind not in "biu":
        found = f"{labels.dtype} {labels.shape}"
        raise DataError(f"Expected labels of whole numbers, (N, 1) or (N, K), found {found}. {advice}")
    several = labels.shape[1] > 1
    wrong = (labels < 0) | ((labels > 1) & several)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        expected = "labels of 0 and 1 in several columns" if several else "classes numbered from 0"
        raise DataError(f"Expected {expected}, found {labels[row, column]} at image {row}. {advice}")
    return labels.astype(np.int64)


def _numbered(groups: NDArray[Any], images: int) -> Integers:
    """Return the number of each image's group, in the order in which groups first appear."""
    if groups.shape != (images,):
        raise DataError(f"Expected one group for each of {images} images, found groups of shape {groups.shape}.")
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def _numbered_classes(labels: Integers) -> tuple[Integers, Integers]:
    """Return the classes, and the place among them of each image's class `(n,)`, or rows of 0 and 1 `(n, k)`."""
    if labels.shape[1] > 1:
        classes, label = np.arange(labels.shape[1]), labels
    else:
        classes, label = np.unique(labels[:, 0], return_inverse=True)
    if len(classes) > MOST_CLASSES:
        raise DataError(
            f"Expected at most {MOST_CLASSES} classes, found {len(classes)}. Check that labels are classes."
        )
    return classes, label


def _counted(label: Integers, classes: int, group: Integers, count: int) -> Integers:
    """Return, for each group, its images and its images of each class: `(g, 1 + c)`."""
    if count * classes > MOST_CELLS:
        raise DataError(
            f"Expected groups × classes of at most {MOST_CELLS}, found {count} groups and {classes} classes. "
            "Check that labels are classes, or merge rare ones."
        )
    sizes = np.bincount(group, minlength=count)
    if label.ndim == 1:
        held = np.bincount(group * classes + label, minlength=count * classes).reshape(count, classes)
    else:
        held = np.add.reduceat(label[np.argsort(group, kind="stable")], sizes.cumsum() - sizes)
    return np.column_stack([sizes, held])


def _warn_of_absent(
    classes: Integers,
    held: NDArray[np.bool_],
    holders: Integers,
    names: list[str],
    kind: str,
    called: Sequence[str] | None,
) -> None:
    few = "Only one group (patient) has images" if kind == "group" else "There is only one image"
    for name, here in zip(names, held, strict=True):
        alone, absent = classes[here & (holders == 1)], classes[~here & (holders > 1)]
        if len(alone):
            warnings.warn(f"{few} of class {_listed(alone, called)}, in {name}.", stacklevel=3)
        if len(absent):
            found = f"No image of class {_listed(absent, called)} is in {name}, as few {kind}s have any."
            warnings.warn(found, stacklevel=3)


def _listed(classes: Integers, called: Sequence[str] | None) -> str:
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    return ", ".join(str(place) if called is None else shown(called[place]) for place in classes[:_SHOWN]) + more


def _images_split(
    label: Integers, shares: Floats, home: int, rng: np.random.Generator
) -> tuple[Integers, Integers] | None:
    """Return the side of each image and the images of each class; None if a side could be left without images."""
    holders = np.bincount(label)
    asked = _asked(holders, shares, home)
    if asked.sum(axis=0).min() < 1 - _ROUNDING:
        return None
    table = round_table(asked, rng)
    side = np.empty(len(label), np.int64)
    order = np.lexsort((rng.random(len(label)), label))
    side[order] = np.repeat(np.tile(np.arange(len(shares)), len(holders)), table.ravel())
    return side, holders


def _asked(holders: Integers, shares: Floats, home: int) -> Floats:
    """Return how many images of each class each side should have, `(c, s)`: at least one, where there are so many."""
    sides = len(shares)
    above = np.maximum(holders[:, None] * shares - 1, 0)
    spare = np.maximum(holders - sides, 0)[:, None]
    asked = 1 + spare * above / np.maximum(above.sum(axis=1, keepdims=True), _ROUNDING)
    few = holders < sides
    asked[few] = np.where(np.arange(sides) == home, 1, (holders[few, None] - 1) / (sides - 1))
    return asked


def _groups_split(
    counts: Integers, group: Integers, shares: Floats, home: int, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """Return the side of each image and the groups of each class."""
    search = _Search(counts, shares, home)
    few = len(shares) ** min(len(counts), 64) <= min(MOST_WAYS, 16 * MOST_WAYS // counts.shape[1])
    return (search.one_of_all(rng) if few else search.one_of_some(rng))[group], search.holders


@dataclass(frozen=True, eq=False)
class _Search:
    """The search for a split of groups, by the images of each class that each has, `counts` (g, 1 + c)."""

    counts: Integers
    shares: Floats
    home: int

    @cached_property
    def holders(self) -> Integers:
        """How many groups have each class."""
        return (self.counts[:, 1:] > 0).sum(axis=0)

    def sums(self, sides: Integers) -> Integers:
        """Return the images on each side, and those of each class, `(s, 1 + c, …)`, for groups' sides `(g, …)`."""
        counts = self.counts.T.astype(np.float64)
        return np.stack([counts @ (sides == place) for place in range(len(self.shares))]).astype(np.int64)

    def lacking(self, sums: Integers) -> NDArray[np.bool_]:
        """Return, for each side and class `(s, c, …)`, whether the class is missing there and need not be."""
        held = sums[:, 1:] > 0
        wanted = np.minimum(self.holders, len(self.shares))
        lacking = ~held & (wanted > held.sum(axis=0).T).T
        lacking[self.home] |= (~held[self.home].T & (self.holders > 0)).T
        return lacking

    def cost(self, sums: Integers, evenness: float = 0.0) -> Floats:
        """Return what is to be small: sides without images, before missing classes, before deviation."""
        classes, sizes = _gaps(sums, self.shares)
        missing = 1e6 * (sums[:, 0] == 0).sum(axis=0) + 10 * self.lacking(sums).sum(axis=(0, 1))
        together = np.sqrt(np.square(classes).sum(axis=(0, 1)) + np.square(sizes).sum(axis=0))
        return np.asarray(missing + classes.max(axis=(0, 1)) + sizes.max(axis=0) + evenness * together)

    def one_of_all(self, rng: np.random.Generator) -> Integers:
        """Return one of the best of all splits."""
        groups, sides = len(self.counts), len(self.shares)
        ways = np.arange(sides**groups) // sides ** np.arange(groups)[:, None] % sides
        costs = self.cost(self.sums(ways))
        return ways[:, rng.choice(np.flatnonzero(costs <= costs.min() + AS_GOOD))]

    def one_of_some(self, rng: np.random.Generator) -> Integers:
        """Return a split about as good as the best of a few, each made from a random one by changes that help.

        A large group seldom moves for the better by itself: many small ones would have to take its place at once, and
        if one can, another large group does. So it is put elsewhere and held there, as are more or fewer of
        the large ones, while the others are changed.
        """
        everyone, sizes, found = np.arange(len(self.counts)), self.counts[:, 0], []
        steady = np.minimum(sizes / (2 * self.shares.min() * sizes.sum()), 0.9)
        for _ in range(_STARTS):
            cost, side = self.improved(self.start(rng), everyone, rng)
            if self.cost(self.sums(side)) < AS_GOOD:
                return side
            for group in rng.choice(everyone, _KICKS, p=sizes / sizes.sum()):
                free = everyone[(rng.random(len(sizes)) >= steady * rng.random()) & (everyone != group)]
                other = side.copy()
                other[group] = (side[group] + rng.integers(1, len(self.shares))) % len(self.shares)
                changed = self.improved(other, free, rng) if len(free) else (cost, side)
                cost, side = changed if changed[0] < cost else (cost, side)
            found.append(side)
        best = min(found, key=lambda side: float(self.cost(self.sums(side))))
        return self.shaken(best, everyone, rng)

    def start(self, rng: np.random.Generator) -> Integers:
        """Return a random split over which groups with like images, and with the same rarest class, are spread evenly.

        A group is on each side with a probability that is the side's share.
        """
        rarest = np.where(self.counts[:, 1:] > 0, self.holders, len(self.counts) + 1).argmin(axis=1)
        alike = self.counts @ rng.integers(1 << 32, size=self.counts.shape[1])
        order = np.lexsort((rng.random(len(rarest)), alike, rarest))
        places = (rng.random() + _GOLDEN * np.arange(len(order))) % 1
        side = np.empty(len(order), np.int64)
        side[order] = np.searchsorted(self.shares.cumsum()[:-1], places, side="right")
        return side

    def improved(self, side: Integers, free: Integers, rng: np.random.Generator) -> tuple[float, Integers]:
        """Return the cost of a split, and the split, after the best of many changes drawn, for as long as one helps."""
        sums, failures = self.sums(side), 0
        cost = float(self.cost(sums, _EVENNESS))
        for _ in range(_STEPS):
            changes, after = self.drawn(side, sums, free, rng)
            costs = self.cost(after, _EVENNESS)
            best = int(costs.argmin())
            if costs[best] < cost - _ROUNDING:
                failures, cost, sums, side = 0, float(costs[best]), after[..., best], _changed(side, changes[:, best])
            elif (failures := failures + 1) == _PATIENCE:
                break
        return cost, side

    def shaken(self, side: Integers, free: Integers, rng: np.random.Generator) -> Integers:
        """Return a split that is as good as another one, within `AS_GOOD`, and otherwise left to chance."""
        sums = self.sums(side)
        limit = self.cost(sums) + AS_GOOD
        for _ in range(_SHAKES):
            changes, after = self.drawn(side, sums, free, rng)
            good = np.flatnonzero(self.cost(after) <= limit)
            if len(good):
                chosen = rng.choice(good)
                sums, side = after[..., chosen], _changed(side, changes[:, chosen])
        return side

    def drawn(
        self, side: Integers, sums: Integers, free: Integers, rng: np.random.Generator
    ) -> tuple[Integers, Integers]:
        """Draw changes, `(3, d)`, and return them and the sums after each, `(s, 1 + c, d)`.

        A change is a group, another one that it changes places with, or none, and the side that it goes to. One half
        are moves of one group: where a class is missing on a side, of its groups to that side.
        """
        groups, sides = len(side), len(self.shares)
        draws = min(8 * groups * (groups + sides), max(64, _NUMBERS // sums.size))
        moves = draws // 2
        first, second = free[rng.integers(len(free), size=(2, draws))]
        to = side[second]
        second[:moves] = groups
        to[:moves] = rng.integers(sides, size=moves)
        missing = np.argwhere(self.lacking(sums))
        if len(missing):
            place, column = rng.choice(missing)
            holders = free[self.counts[free, 1 + column] > 0]
            if len(holders):
                first[:moves], to[:moves] = rng.choice(holders, moves), place
        gone = self.counts[first]
        gone[moves:] -= self.counts[second[moves:]]
        row, after = np.arange(draws), np.repeat(sums[..., None], draws, axis=2)
        after[side[first], :, row] -= gone
        after[to, :, row] += gone
        return np.stack([first, second, to]), after


def _changed(side: Integers, change: Integers) -> Integers:
    """Return the sides after a change `(3,)`; the second group may be one more than there are, for none."""
    first, second, to = change.tolist()
    side, left = side.copy(), side[first]
    side[first] = to
    if second < len(side):
        side[second] = left
    return side
