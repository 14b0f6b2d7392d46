"""Images of a dataset that are the same, or nearly: nearer than its training images are by chance.

No fixed distance will do: images that share a black border and the light of one camera are all near. So images are
described by what tells them apart (`qvit.data.likeness`), and a distance counts in units of what is usual around the
two images (`qvit.data.chance`). Five or more that are near each other may be a rare kind of image, and no copies: of
these, only pairs much nearer than that are. Copies may be turned or mirrored, brighter or darker, of more or less
contrast, noisy. Copies that are equal byte for byte, up to a turn, are found in any case.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from qvit.data import chance, likeness
from qvit.data.arrays import Dataset, Split
from qvit.data.augment import apply_element
from qvit.errors import ConfigError, DataError

TURNS = (
    "as it is",
    "turned by 90°",
    "turned by 180°",
    "turned by 270°",
    "mirrored",
    "mirrored, turned by 90°",
    "mirrored, turned by 180°",
    "mirrored, turned by 270°",
)
ACCEPTED = 1e-5  # images that are expected within the cut of one by chance
_SAMPLE = 1500  # training images that chance is learnt from
_SAME = 0.1  # of the cut: images that near are copies, whatever their kind
_TINY = 1e-12  # in place of a distance of 0
_NEAREST = 16  # copies of an image in each split that form pairs with it
_ROWS = 4096  # images or pairs compared at a time

Place = tuple[str, int]
Images = UInt8[np.ndarray, "n c s s"]


@dataclass(frozen=True)
class Pair:
    """Two images that are the same, or nearly, each as its split and position; `first` comes before in the dataset.

    `distance` is in units of the usual distance around them, to the 24th nearest of up to 1,500 training images. `turn`
    is what brings the second onto the first: mirrored left to right, then turned anticlockwise. `exact` is whether all
    bytes are equal after that.
    """

    first: Place
    second: Place
    distance: float
    turn: str
    exact: bool


@dataclass(frozen=True)
class Duplicates:
    """All pairs of copies, nearest first.

    `cut` is the largest distance of a near-copy; it is 0 if there are too few training images to learn it from, and
    there are only exact copies then. `false_share` is the estimated share of images without a copy that have another
    image within the cut by chance: how the nearest distances of training images thin out, continued down to the cut. It
    is too high rather than too low where images lie just beyond the cut that are related, but no copies. What is
    expected among images of a rare kind is added, by their own distances; nothing for kinds of four images or fewer.
    `images` are how many there are in each split.

    Of images that are exact copies of each other, each forms a pair only with the first of each split. Of an image with
    many near-copies, pairs are left out in which neither image is among the 16 nearest copies of the other in a split.
    """

    pairs: tuple[Pair, ...]
    cut: float
    false_share: float
    images: Mapping[str, int]

    def flagged(self, split: str, *, within: Sequence[str] = ("train", "val")) -> Bool[np.ndarray, " n"]:
        """Return which images of a split have a copy in any of the other splits named.

        Raises ConfigError for a split that does not exist.
        """
        for name in (split, *within):
            if name not in self.images:
                raise ConfigError(f"Unknown split '{name}'. Expected one of: {', '.join(self.images)}.")
        out = np.zeros(self.images[split], np.bool_)
        for pair in self.pairs:
            for (ours, place), (theirs, _) in ((pair.first, pair.second), (pair.second, pair.first)):
                if ours == split != theirs and theirs in within:
                    out[place] = True
        return out


def find_duplicates(dataset: Dataset, *, across_only: bool = False, accepted: float = ACCEPTED) -> Duplicates:
    """Find the images of a dataset that are the same, or nearly; with `across_only`, only those in different splits.

    The cut is where `accepted` images are expected around one by chance. Images without any contrast are copies of each
    other only if they are equal, and fewer than 64 different training images tell nothing of chance. What is found
    depends on nothing but the images. Memory grows by some 2 kB an image.

    Raises DataError for images that are not square, and if the file behind mapped images was shortened meanwhile.
    """
    side = dataset.train.shape[2:]
    if side[0] != side[1]:
        raise DataError(f"Expected square images, got {side[0]} x {side[1]} pixels. Crop or pad them.")
    images = _Images(dataset)
    known = _known(dataset.train)
    metric = likeness.fit(known, dataset.train.shape[1])
    keys, described = [], []
    for split in dataset.splits.values():
        for _, part in split.parts():
            keys.append(_keys(part))
            described.append(likeness.describe(metric, likeness.frequencies(part)))
    groups = _groups(images, np.concatenate(keys))
    pairs = list(_exact(images, groups, across_only))
    reference = likeness.describe(metric, known)
    between = likeness.distances(metric, reference, reference).fill_diagonal_(torch.inf).numpy()
    learnt = chance.learn(between, images.count, accepted)
    if learnt is not None:
        found, share = _Near(images, groups, metric, torch.cat(described), reference, learnt).pairs(across_only)
        pairs += found
    pairs.sort(key=lambda pair: (pair.distance, not pair.exact, images.index(pair.first), images.index(pair.second)))
    cut, share = (learnt.cut, share) if learnt else (0.0, 0.0)
    return Duplicates(tuple(pairs), cut, share, images.counts)


def conflicts(duplicates: Duplicates, dataset: Dataset) -> tuple[Pair, ...]:
    """Return the pairs whose labels differ."""

    def labels(place: Place) -> Int64[np.ndarray, " k"]:
        return dataset[place[0]].labels[place[1]]

    return tuple(pair for pair in duplicates.pairs if (labels(pair.first) != labels(pair.second)).any())


class _Images:
    """All images of a dataset, counted through its splits."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.counts = {name: len(split) for name, split in dataset.splits.items()}
        self.starts = dict(zip(self.counts, np.cumsum([0, *self.counts.values()]).tolist(), strict=False))
        self.count = sum(self.counts.values())
        self.split = np.repeat(np.arange(len(self.counts)), list(self.counts.values()))

    def place(self, index: int) -> Place:
        name = tuple(self.counts)[self.split[index]]
        return name, int(index - self.starts[name])

    def index(self, place: Place) -> int:
        return self.starts[place[0]] + place[1]

    def __getitem__(self, index: int) -> UInt8[Tensor, "1 c s s"]:
        split, place = self.place(index)
        return self.dataset[split].batch([place])[0]

    def pair(self, first: int, second: int, distance: float, turn: int, *, exact: bool) -> Pair:
        return Pair(self.place(first), self.place(second), distance, TURNS[turn], exact)


def _known(train: Split) -> Float32[Tensor, "r f"]:
    """Return the frequencies of some training images, each of them once and with some contrast."""
    chosen = np.random.default_rng(0).permutation(len(train))[:_SAMPLE]
    images = train.batch(np.sort(chosen))[0].numpy()
    once = np.unique(_keys(images), return_index=True)[1]
    found = likeness.frequencies(images[np.sort(once)])
    return found[found.any(dim=1)]


def _keys(images: Images) -> NDArray[np.uint64]:
    """Return a number for each image, the same in all eight positions, that others have by accident only."""
    sums = images.astype(np.uint16)
    sums = sums + sums[..., ::-1]
    sums = sums + sums[..., ::-1, :]
    half = (sums.shape[-1] + 1) // 2
    quarter = sums[..., :half, :half]
    quarter = (quarter + quarter.swapaxes(-1, -2)).reshape(len(images), -1).astype(np.uint64)
    weights = np.random.default_rng(1).integers(2**64, size=quarter.shape[1], dtype=np.uint64)
    return quarter @ weights  # modulo 2⁶⁴


def _groups(images: _Images, keys: NDArray[np.uint64]) -> dict[int, list[int]]:
    """Return the groups of exact copies, each by its first image."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    equal: dict[bytes, list[int]] = defaultdict(list)
    for index in np.flatnonzero(counts[inverse] > 1).tolist():
        image = images[index]
        form = min(apply_element(image, element, "d4").numpy().tobytes() for element in range(len(TURNS)))
        equal[hashlib.blake2b(form).digest()].append(index)
    return {group[0]: group for group in equal.values() if len(group) > 1}


def _leaders(images: _Images, group: Sequence[int]) -> list[int]:
    """Return the first image of each split in a group."""
    return [group[k] for k in np.unique(images.split[list(group)], return_index=True)[1]]


def _exact(images: _Images, groups: Mapping[int, list[int]], across_only: bool) -> Iterator[Pair]:
    for group in groups.values():
        leaders = _leaders(images, group)
        pairs = {(min(one, other), max(one, other)) for one in group for other in leaders if one != other}
        for first, second in sorted(pairs):
            if not (across_only and images.split[first] == images.split[second]):
                one, other = images[first], images[second]
                turn = next(e for e in range(len(TURNS)) if torch.equal(apply_element(other, e, "d4"), one))
                yield images.pair(first, second, 0.0, turn, exact=True)


@dataclass(frozen=True, eq=False)
class _Near:
    """The search for near-copies: of images that are not exact copies of earlier ones, and have some contrast."""

    images: _Images
    groups: Mapping[int, list[int]]
    metric: likeness.Likeness
    described: Float32[Tensor, "n d"]
    reference: Float32[Tensor, "r d"]
    learnt: chance.Chance

    def pairs(self, across_only: bool) -> tuple[list[Pair], float]:
        """Return the pairs, and the estimated share of images without a copy that are in one by chance."""
        once = self.described.any(dim=1).numpy()
        for group in self.groups.values():
            once[group[1:]] = False
        chosen = np.flatnonzero(once)
        radius = self.learnt.cut * float(self.learnt.scales.max())
        close = likeness.close_pairs(self.metric, self.described[chosen], radius)
        none = self._apart(np.empty((0, 2), np.int64), radius)
        parts = [none, *(self._apart(chosen[pairs.numpy()], radius) for pairs in close)]
        ends, apart, turns = map(np.concatenate, zip(*parts, strict=True))
        near, distances, expected = self._near(ends, apart, radius)
        ends, distances, turns = ends[near], distances[near], turns[near]
        if self.groups:
            ends, source = self._with_copies(ends)
            distances, turns = distances[source], self._apart(ends, np.inf)[2]
        few = self._nearest_only(ends, distances)
        ends, distances, turns = ends[few], distances[few], turns[few]
        found = [
            self.images.pair(first, second, distance, turn, exact=False)
            for (first, second), distance, turn in zip(ends.tolist(), distances.tolist(), turns.tolist(), strict=True)
            if not (across_only and self.images.split[first] == self.images.split[second])
        ]
        share = min(1.0, self.learnt.false_share + expected / max(1, len(chosen)))
        return found, float(f"{share:.2g}")  # more digits of an estimate would depend on the order of sums

    def _apart(
        self, pairs: Int64[np.ndarray, "m 2"], radius: float
    ) -> tuple[Int64[np.ndarray, "k 2"], Float64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
        """Return those of the pairs that are no further apart than `radius`, their distances and turns."""
        kept = [(pairs[:0], np.empty(0), np.empty(0, np.int64))]
        for start in range(0, len(pairs), _ROWS):
            some = pairs[start : start + _ROWS]
            apart, turns = likeness.apart(self.metric, self.described[some[:, 0]], self.described[some[:, 1]])
            within = (apart <= radius).numpy()
            kept.append((some[within], apart.numpy()[within].astype(np.float64), turns.numpy()[within]))
        first, second, third = map(np.concatenate, zip(*kept, strict=True))
        return first, second, third

    def _near(
        self, ends: Int64[np.ndarray, "m 2"], apart: Float64[np.ndarray, " m"], radius: float
    ) -> tuple[Bool[np.ndarray, " m"], Float64[np.ndarray, " m"], float]:
        """Return which pairs are copies, their distances in usual units, and how many images of rare kinds are in one.

        The number is that expected by chance.
        """
        named, at = np.unique(ends, return_inverse=True)
        at = at.reshape(-1, 2)
        scales, beyond, alike = self._sampled(named, radius)
        distances = np.round(apart / np.maximum(np.sqrt(scales[at].prod(axis=1)), _TINY), chance.DIGITS)
        near = distances <= self.learnt.cut
        counts = np.bincount(at[near].reshape(-1), minlength=len(named))
        fewest = chance.fewest(counts, _connected(np.concatenate([at[near], alike]), len(named)))
        if fewest is None:
            return near, distances, 0.0
        nearest = np.concatenate([_nearest(at, apart, len(named), 2 * fewest), beyond], axis=1)
        cuts, expected = chance.own_cuts(np.sort(nearest, axis=1)[:, : 2 * fewest], at[near])
        own = np.round(apart / np.maximum(cuts[at].min(axis=1), _TINY), chance.DIGITS) <= 1
        near &= own | (distances <= _SAME * self.learnt.cut)
        return near, distances, float(expected[counts >= fewest].sum())

    def _sampled(
        self, named: Int64[np.ndarray, " n"], radius: float
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n k"], Int64[np.ndarray, "m 2"]]:
        """Compare images with the sample.

        Returns their usual distances, the distances to the nearest of their kind that are beyond the radius, and the
        pairs of these images and others of the sample that are of one kind, the latter counted from the last image on.
        """
        most = min(2 * chance.neighbours(len(self.reference)), len(self.reference))
        scales, beyond, alike = np.empty(len(named)), np.empty((len(named), most)), [np.empty((0, 2), np.int64)]
        for start in range(0, len(named), _ROWS):
            part = slice(start, start + _ROWS)
            between = likeness.distances(self.metric, self.described[named[part]], self.reference).numpy()
            scales[part] = chance.scales(between[:, self.learnt.kept], self.learnt)
            kind = between <= self.learnt.reach * scales[part, None]
            alike.append(np.argwhere(kind) + np.array([start, len(named)]))
            between[~kind | (between <= radius)] = np.inf
            beyond[part] = np.partition(between, most - 1, axis=1)[:, :most]
        return scales, beyond, np.concatenate(alike)

    def _nearest_only(
        self, ends: Int64[np.ndarray, "m 2"], distances: Float64[np.ndarray, " m"]
    ) -> Bool[np.ndarray, " m"]:
        """Return in which pairs one image is among the nearest copies of the other in a split."""
        near = np.zeros(len(ends), np.bool_)
        for here, there in (ends.T, ends.T[::-1]):
            place = here * len(self.images.counts) + self.images.split[there]
            order = np.lexsort((there, distances, place))
            place = place[order]
            near[order[np.arange(len(order)) - np.searchsorted(place, place) < _NEAREST]] = True
        return near

    def _with_copies(self, pairs: Int64[np.ndarray, "m 2"]) -> tuple[Int64[np.ndarray, "k 2"], Int64[np.ndarray, " k"]]:
        """Add the pairs of exact copies of these images: of each with the first of each split around the other.

        Returns all pairs, and the place of the one that each stands for.
        """
        more: list[tuple[int, int]] = []
        source: list[int] = []
        for place, (first, second) in enumerate(pairs.tolist()):
            one, other = self.groups.get(first, [first]), self.groups.get(second, [second])
            both = {(a, b) for a in one for b in _leaders(self.images, other)}
            both |= {(a, b) for a in _leaders(self.images, one) for b in other}
            more += sorted((min(a, b), max(a, b)) for a, b in both)
            source += [place] * len(both)
        return np.array(more, np.int64).reshape(-1, 2), np.array(source, np.int64)


def _nearest(
    ends: Int64[np.ndarray, "m 2"], apart: Float64[np.ndarray, " m"], count: int, most: int
) -> Float64[np.ndarray, "n k"]:
    """Return the distances of images to the nearest in pairs with them, in order, infinite where there are no more."""
    here, distances = ends.T.reshape(-1), np.tile(apart, 2)
    order = np.lexsort((distances, here))
    here, distances = here[order], distances[order]
    rank = np.arange(len(here)) - np.searchsorted(here, here)
    out = np.full((count, most), np.inf)
    out[here[rank < most], rank[rank < most]] = distances[rank < most]
    return out


def _connected(pairs: Int64[np.ndarray, "m 2"], count: int) -> Int64[np.ndarray, " n"]:
    """Return the number of the group of each of the first `count` images that pairs connect, others as well."""
    size = max(count, pairs.max(initial=-1) + 1)
    graph = csr_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1][:count].astype(np.int64)
