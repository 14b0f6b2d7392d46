"""How near `split_images` comes to the asked shares; how near random splits and scikit-learn's folds come.

    python benchmarks/splits.py [--structures 1000] [--first 0] [--splits 2000] [--seeds 300]

Structures are random: 5 to 300 groups (patients) of equal, geometric or Zipf sizes, 2 to 8 classes (or labels) of
skewed shares, groups of one class each or mixed ones, two or three sides. Every split is judged alike: by the classes
that it leaves out of a side and need not, then by `deviation`, in percentage points. Random splits are, by halves,
groups sent to sides one by one, and groups in random order cut where the asked shares end. scikit-learn's
`StratifiedGroupKFold` takes as many folds as make the shares, where there are so many groups, for one label per image.
"""

import argparse
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from qvit.data.splitting import deviation, split_images

Array = np.ndarray[Any, Any]
FOLDS = {(0.7, 0.1, 0.2): (7, 1, 2), (0.8, 0.1, 0.1): (8, 1, 1), (0.875, 0.125): (7, 1)}
SIZES = ("equal", "geometric", "Zipf")
KINDS = ("pure", "mixed", "multi-label")
RANGES = ((5, 10), (10, 20), (20, 50), (50, 100), (100, 301))


@dataclass(frozen=True, eq=False)
class Structure:
    """Images' labels (n, k) and groups (n,), the asked shares, and what kind of structure it is."""

    labels: Array
    group: Array
    shares: Array
    kind: str

    @property
    def named(self) -> dict[str, float]:
        """The shares by name."""
        return dict(zip(("train", "val", "test"), self.shares.tolist(), strict=False))

    @property
    def counts(self) -> Array:
        """Each group's images, and its images of each class that there is: (g, 1 + c)."""
        held = self.labels if self.labels.shape[1] > 1 else self.labels == np.unique(self.labels)
        counts = np.zeros((int(self.group.max()) + 1, 1 + held.shape[1]), np.int64)
        np.add.at(counts, self.group, np.column_stack([np.ones(len(held), np.int64), held]))
        return counts


def draw(rng: np.random.Generator) -> Structure:
    """Return a random structure."""
    groups, mean = int(np.exp(rng.uniform(np.log(5), np.log(301)))), rng.uniform(1.5, 15)
    sizes = {
        "equal": np.full(groups, int(mean)),
        "geometric": rng.geometric(1 / mean, groups),
        "Zipf": np.minimum(rng.zipf(rng.uniform(1.5, 2.5), groups), 500),
    }[str(rng.choice(SIZES))]
    group = rng.permutation(np.repeat(np.arange(groups), sizes))
    kind, classes = str(rng.choice(KINDS)), int(rng.integers(2, 9))
    common = rng.uniform(0.35, 0.95) ** np.arange(classes)
    if kind == "multi-label":
        chance = np.clip(0.6 * common * rng.gamma(2, 0.5, (groups, classes)), 0, 1)
        labels = rng.random((len(group), classes)) < chance[group]
    elif kind == "pure":
        labels = rng.choice(classes, groups, p=common / common.sum())[group, None]
    else:
        chance = rng.dirichlet(rng.choice([1, 4, 30]) * common / common.sum() + 1e-3, groups)
        drawn = (rng.random((len(group), 1)) > chance.cumsum(axis=1)[group]).sum(axis=1, keepdims=True)
        labels = np.minimum(drawn, classes - 1)
    shares = list(FOLDS)[rng.integers(len(FOLDS))]
    return Structure(labels.astype(np.int64), group, np.array(shares), kind)


def judged(counts: Array, sides: Array, shares: Array) -> tuple[Array, Array]:
    """Return, for sides (g, r) of groups in r splits, the classes left out without need, and the deviations (r,).

    Splits with a side that has no images are left out.
    """
    sums = np.stack([counts.T.astype(float) @ (sides == place) for place in range(len(shares))]).astype(np.int64)
    sums = sums[..., (sums[:, 0] > 0).all(axis=0)]
    held, holders = sums[:, 1:] > 0, (counts[:, 1:] > 0).sum(axis=0)[:, None]
    needed = np.minimum(holders, len(shares))
    left_out = (~held * (held.sum(axis=0) < needed)).sum(axis=(0, 1))
    # A class on as many sides as it can be, but not in train, is left out there.
    left_out += (~held[0] & (held.sum(axis=0) >= needed) & (holders > 0)).sum(axis=0)
    return left_out, deviation(sums, shares)


def ours(structure: Structure, seed: int) -> Array:
    """Return the side of each group, -1 where a group is on two."""
    names = np.char.add("patient ", structure.group.astype(str))
    split = split_images(structure.labels, names, shares=structure.named, seed=seed)
    on = np.stack([np.bincount(structure.group[at], minlength=structure.group.max() + 1) > 0 for at in split.values()])
    return np.where(on.sum(axis=0) == 1, on.argmax(axis=0), -1)


def by_chance(counts: Array, shares: Array, splits: int, rng: np.random.Generator) -> Array:
    """Return the sides of groups in random splits, (g, r)."""
    groups, half = len(counts), splits // 2
    single = rng.choice(len(shares), p=shares, size=(groups, half))
    order = rng.permuted(np.tile(np.arange(groups)[:, None], splits - half), axis=0)
    sizes = counts[order, 0]
    middles = (sizes.cumsum(axis=0) - sizes / 2) / counts[:, 0].sum()
    cut = np.empty_like(order)
    np.put_along_axis(cut, order, np.searchsorted(shares.cumsum()[:-1], middles), axis=0)
    return np.concatenate([single, cut], axis=1)


def by_folds(structure: Structure, seed: int) -> Array | None:
    """Return the side of each group by scikit-learn's folds, (g, 1), or None where they do not apply."""
    folds = FOLDS[tuple(structure.shares.tolist())]
    if structure.labels.shape[1] > 1 or structure.group.max() + 1 < sum(folds):
        return None
    if np.unique(structure.labels, return_counts=True)[1].max() < sum(folds):
        return None
    side = np.empty((structure.group.max() + 1, 1), np.int64)
    splitter = StratifiedGroupKFold(sum(folds), shuffle=True, random_state=seed)
    parts = splitter.split(structure.labels, structure.labels[:, 0], structure.group)
    for place, (_, test) in zip(np.repeat(np.arange(len(folds)), folds), parts, strict=True):
        side[structure.group[test]] = place
    return side


@dataclass(frozen=True)
class Result:
    """What one structure gave: groups, kind, groups on two sides; classes left out and deviations of each way."""

    groups: int
    kind: str
    doubled: int
    seconds: float
    left_out: int
    found: float
    least_left_out: int
    best: float  # of the random splits that leave out the fewest classes
    nearest: float  # of all random splits
    folds: float | None


def compared(number: int, splits: int) -> Result:
    """Split one structure in all ways."""
    rng = np.random.default_rng([15, number])
    structure = draw(rng)
    counts, shares = structure.counts, structure.shares
    start = time.process_time()
    side = ours(structure, number)
    seconds = time.process_time() - start
    left_out, found = judged(counts, side[:, None], shares)
    missing, deviations = judged(counts, by_chance(counts, shares, splits, rng), shares)
    side_by_folds = by_folds(structure, number)
    folds = None if side_by_folds is None else judged(counts, side_by_folds, shares)[1]
    return Result(
        len(counts),
        structure.kind,
        int((side < 0).sum()),
        seconds,
        int(left_out[0]),
        float(found[0]),
        int(missing.min()),
        float(deviations[missing == missing.min()].min()),
        float(deviations.min()),
        float(folds[0]) if folds is not None and len(folds) else None,
    )


def row(name: str, results: list[Result]) -> str:
    """Return a line of the table of structures."""
    alike = [each for each in results if each.left_out == each.least_left_out]
    gap = max((each.found - each.best for each in alike), default=0.0)
    within = sum(each.left_out < each.least_left_out or each.found <= each.best + 0.02 for each in results)
    alone = sum(each.found <= each.nearest + 0.02 for each in results)
    both = [each for each in results if each.folds is not None]
    cells = [
        name,
        str(len(results)),
        str(sum(each.doubled for each in results)),
        f"{100 * np.median([each.found for each in results]):.2f}",
        f"{100 * np.median([each.best for each in results]):.2f}",
        f"{100 * np.median([each.found for each in both]):.2f} / "
        f"{100 * np.median([each.folds for each in both if each.folds is not None]):.2f} ({len(both)})"
        if both
        else "–",
        f"{sum(each.left_out > each.least_left_out for each in results)} / "
        f"{sum(each.left_out < each.least_left_out for each in results)}",
        f"{100 * gap:+.2f}",
        f"{100 * within / len(results):.1f} %",
        f"{100 * alone / len(results):.1f} %",
        f"{np.mean([each.seconds for each in results]):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(results: list[Result]) -> None:
    """Print what came of the structures, by their numbers of groups and kinds."""
    print(
        "| groups | structures | groups on two sides | median deviation | of the best random | ours / folds (n) | "
        "more / fewer classes left out | largest gap, as many left out | within 2 points | "
        "within 2 points of the least deviation, whatever is left out | CPU seconds |"
    )
    print("|---|" + "--:|" * 10)
    for low, high in RANGES:
        chosen = [each for each in results if low <= each.groups < high]
        if chosen:
            print(row(f"{low} to {high - 1}", chosen))
    for kind in KINDS:
        chosen = [each for each in results if each.kind == kind]
        if chosen:
            print(row(kind, chosen))
    print(row("all", results))


def chances(seeds: int) -> None:
    """Print how often groups land in test, over seeds, and how deviations spread."""
    rng = np.random.default_rng(3)
    mixed = np.repeat(np.arange(60), rng.geometric(0.15, 60))
    chance = rng.dirichlet([2, 1, 0.5], 60)[mixed]
    drawn = (rng.random((len(mixed), 1)) > chance.cumsum(axis=1)).sum(axis=1, keepdims=True)
    shares = np.array([0.7, 0.1, 0.2])
    structures = {
        "40 groups alike": Structure(np.tile([0, 0, 1, 1, 2], 40)[:, None], np.repeat(np.arange(40), 5), shares, ""),
        "60 mixed groups, geometric sizes": Structure(np.minimum(drawn, 2), mixed, shares, ""),
    }
    print(
        "\n| structure | seeds | different splits | in test: least | mean | most | deviation: least | median | most |"
    )
    print("|---|" + "--:|" * 8)
    for name, structure in structures.items():
        sides = np.stack([ours(structure, seed) for seed in range(seeds)], axis=1)
        share = (sides == 2).mean(axis=1)
        _, off = judged(structure.counts, sides, shares)
        different = len(np.unique(sides, axis=1).T)
        spread = [f"{100 * value:.2f}" for value in (off.min(), np.median(off), off.max())]
        often = [f"{100 * value:.0f} %" for value in (share.min(), share.mean(), share.max())]
        print(f"| {name} | {seeds} | {different} | {' | '.join(often + spread)} |")


def speed() -> None:
    """Print the time for 100,000 images."""
    rng = np.random.default_rng(0)
    images = 100_000
    one = rng.choice(8, images, p=[0.5, 0.25, 0.12, 0.06, 0.04, 0.02, 0.0095, 0.0005])[:, None]
    several = (rng.random((images, 14)) < rng.uniform(0.002, 0.2, 14)).astype(np.int64)
    groups = np.char.add("patient ", rng.integers(0, 20_000, images).astype(str))
    shares = np.array([0.7, 0.1, 0.2])
    print("\n| 100,000 images | seconds | CPU seconds | deviation | farthest from an asked count, images |")
    print("|---|--:|--:|--:|--:|")
    for name, labels, names in (
        ("8 classes, no groups", one, None),
        ("14 labels, no groups", several, None),
        ("8 classes, 20,000 groups", one, groups),
        ("14 labels, 20,000 groups", several, groups),
    ):
        start, cpu = time.perf_counter(), time.process_time()
        split = split_images(labels, names, shares={"train": 0.7, "val": 0.1, "test": 0.2})
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        held = labels if labels.shape[1] > 1 else labels == np.arange(8)
        sums = np.stack([np.append(len(at), held[at].sum(axis=0)) for at in split.values()])
        off = np.abs(sums - shares[:, None] * sums.sum(axis=0)).max()
        print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {100 * deviation(sums, shares):.3f} | {off:.1f} |")


def main() -> None:
    """Split and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first structure, for others")
    parser.add_argument("--splits", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=300)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of classes that a side lacks: they are counted
    numbers = range(arguments.first, arguments.first + arguments.structures)
    table([compared(number, arguments.splits) for number in numbers])
    chances(arguments.seeds)
    speed()


if __name__ == "__main__":
    main()
