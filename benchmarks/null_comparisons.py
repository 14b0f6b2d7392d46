"""How often each test says that two arms differ when they do not, and how often intervals hold the truth.

    python benchmarks/null_comparisons.py [--comparisons 1000] [--resamples 300]

Scores are simulated: what a model makes of an image is the class, times the model's quality, plus what makes the image
hard for all models, what makes it hard for one arm, and the model's own noise. Quality varies over seeds. Both arms
have the same mean quality. Each test meets the null that it tests, and next to it the one that a comparison of two
ways of training is about: any seeds and any images. Only `compare_arms` is made for that.

The nulls. Two models: seeds do not vary in quality, images are drawn anew. These images: nothing makes an image hard
for one arm, so that both arms' seeds are alike on it; seeds vary. Seeds and images: all varies.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvit.cli.console import print_table
from qvit.cpu.memory import reuse_memory
from qvit.evaluation.metrics import accuracy, auc
from qvit.evaluation.paired import compare_arms, delong_test, mcnemar_test, permutation_test, seeds_test
from qvit.evaluation.statistics import crossed_interval

ALPHA = 0.05
SEEDS = (5, 10)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Design:
    """A test split and the models on it: images of each class, and how far qualities and latent scores spread."""

    name: str
    task: str
    counts: tuple[int, ...]
    quality: float  # the distance of neighbouring classes, in units of the whole noise
    over_seeds: float  # standard deviation of a seed's quality, as a share of it


DESIGNS = (
    Design("binary, 156", "binary", (42, 114), quality=1.6, over_seeds=0.15),
    Design("ordinal, 400", "ordinal", (174, 46, 92, 68, 20), quality=0.7, over_seeds=0.1),
)
IMAGE, ARM, OWN = 0.55, 0.2, 0.25  # shares of the noise's variance


def draw(
    design: Design, rng: np.random.Generator, seeds: int, *, vary: bool, by_arm: bool
) -> tuple[Array, tuple[Array, Array]]:
    """Return labels `(N,)` and probabilities `(S, N)` or `(S, N, C)` of two arms of equal quality."""
    classes = len(design.counts)
    labels = np.repeat(np.arange(classes), design.counts)
    images = len(labels)
    image = rng.normal(0, np.sqrt(IMAGE if by_arm else IMAGE + ARM), images)
    place = labels - (classes - 1) / 2
    arms = []
    for _ in range(2):
        hard = rng.normal(0, np.sqrt(ARM), images) if by_arm else 0.0
        spread = design.over_seeds if vary else 0.0
        qualities = design.quality * (1 + spread * rng.normal(size=(seeds, 1)))
        latent = qualities * place + image + hard + rng.normal(0, np.sqrt(OWN), (seeds, images))
        arms.append(_probabilities(latent, design))
    return labels, (arms[0], arms[1])


def _probabilities(latent: Array, design: Design) -> Array:
    """Return P(class 1) `(S, N)`, or of an ordinal scale the normalised nearness to each class `(S, N, C)`."""
    if design.task == "binary":
        return 1 / (1 + np.exp(-2 * latent))
    classes = len(design.counts)
    centres = design.quality * (np.arange(classes) - (classes - 1) / 2)
    near = np.exp(-((latent[:, :, np.newaxis] - centres) ** 2))
    return near / near.sum(axis=2, keepdims=True)


Test = Callable[[Array, tuple[Array, Array], str], bool]


def _each(measure: Callable[..., float], labels: Array, arm: Array, task: str) -> list[float]:
    return [measure(labels, scores, task) for scores in arm]


def _arms(metric: str) -> Test:
    return lambda labels, arms, task: compare_arms(labels, *arms, task, metric=metric).p < ALPHA


def _seeds(measure: Callable[..., float]) -> Test:
    return lambda labels, arms, task: seeds_test(*(_each(measure, labels, arm, task) for arm in arms)).p < ALPHA


def _models(test: Callable[..., Any], **options: bool) -> Test:
    return lambda labels, arms, task: test(labels, arms[0][0], arms[1][0], task, **options).p < ALPHA


# Name, metric, own null, test; a test of two models takes the first seed of each arm.
TESTS: tuple[tuple[str, str, str, Test], ...] = (
    ("compare_arms", "AUC", "seeds and images", _arms("auc")),
    ("compare_arms", "ACC", "seeds and images", _arms("acc")),
    ("seeds_test", "AUC", "these images", _seeds(auc)),
    ("seeds_test", "ACC", "these images", _seeds(accuracy)),
    ("delong_test", "AUC", "two models", _models(delong_test)),
    ("mcnemar_test, mid-p", "ACC", "two models", _models(mcnemar_test)),
    ("mcnemar_test, exact", "ACC", "two models", _models(mcnemar_test, mid=False)),
    ("permutation_test", "ACC", "two models", _models(permutation_test)),
)
NULLS = {
    "seeds and images": {"vary": True, "by_arm": True},
    "these images": {"vary": True, "by_arm": False},
    "two models": {"vary": False, "by_arm": True},
}


def simulate(design: Design, seeds: int, comparisons: int, null: str) -> Iterator[tuple[Array, tuple[Array, Array]]]:
    """Yield labels and both arms' scores of one comparison after another, the same for every test."""
    key = [DESIGNS.index(design), seeds, list(NULLS).index(null)]
    for number in range(comparisons):
        yield draw(design, np.random.default_rng([*key, number]), seeds, **NULLS[null])


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Return the ends of Clopper and Pearson's exact interval of a rate, in percent."""
    from scipy.special import betaincinv

    low = betaincinv(hits, trials - hits + 1, 0.025) if hits else 0.0
    high = betaincinv(hits + 1, trials - hits, 0.975) if hits < trials else 1.0
    return 100 * float(low), 100 * float(high)


def shown(hits: int, trials: int) -> str:
    """Return a rate in percent with its interval."""
    low, high = interval(hits, trials)
    return f"{100 * hits / trials:.1f} % [{low:.1f}, {high:.1f}]"


def false_positives(design: Design, seeds: int, comparisons: int) -> list[list[str]]:
    """Return for each test how often it was significant under its own null, and under that of any seeds and images."""
    hits: dict[tuple[int, str], int] = {}
    for null in NULLS:
        asked = [place for place, test in enumerate(TESTS) if null in (test[2], "seeds and images")]
        for labels, arms in simulate(design, seeds, comparisons, null):
            for place in asked:
                hits[place, null] = hits.get((place, null), 0) + TESTS[place][3](labels, arms, design.task)
    rows = []
    for place, (name, metric, own, _) in enumerate(TESTS):
        rates = [shown(hits[place, null], comparisons) for null in (own, "seeds and images")]
        rows.append([name, metric, design.name, str(seeds), own, *rates])
    return rows


def coverage(design: Design, seeds: int, comparisons: int, resamples: int) -> list[list[str]]:
    """Return how often `crossed_interval` of an arm holds the mean over all seeds and images.

    That is the mean of all that was simulated, known ten times as closely as any interval is wide.
    """
    rows = []
    for metric, measure in (("auc", auc), ("acc", accuracy)):
        intervals, values = [], []
        for number, (labels, arms) in enumerate(simulate(design, seeds, comparisons, "seeds and images")):
            options: dict[str, Any] = {"metric": metric, "resamples": resamples, "seed": number}
            intervals.append(crossed_interval(labels, arms[0], design.task, **options))
            values += [value for arm in arms for value in _each(measure, labels, arm, design.task)]
        truth = float(np.mean(values))
        holds = sum((each.low or 0.0) <= truth <= (each.high or 0.0) for each in intervals)
        width = float(np.mean([(each.high or 0.0) - (each.low or 0.0) for each in intervals]))
        cells = [metric.upper(), design.name, str(seeds), f"{truth:.3f}", f"{width:.3f}", shown(holds, comparisons)]
        rows.append(cells)
    return rows


def main() -> None:
    """Simulate and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=300)
    arguments = parser.parse_args()
    reuse_memory()
    rates, covered = [], []
    for design in DESIGNS:
        for seeds in SEEDS:
            rates += false_positives(design, seeds, arguments.comparisons)
            covered += coverage(design, seeds, arguments.comparisons, arguments.resamples)
    columns = ["test", "metric", "images", "seeds", "own null", "under its own null", "under seeds and images"]
    print_table(f"p < {ALPHA} in {arguments.comparisons} comparisons of equal arms", columns, rates)
    columns = ["crossed_interval", "images", "seeds", "truth", "mean width", "holds the truth"]
    print_table("Intervals of 95 %", columns, covered)


if __name__ == "__main__":
    main()
