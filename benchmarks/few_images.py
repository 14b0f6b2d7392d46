"""How often tests and intervals over random images are wrong when a class has few of them.

    python benchmarks/few_images.py [--repeats 4000] [--resamples 300] [--quality 1] [--refuse-nothing]

Scores are simulated as in `null_comparisons.py`, two arms of equal quality; the rarest class has so many images, the
others many or as few. A test is wrong where it calls the arms different, an interval where it does not hold what it is
of, known from all that was simulated; intervals are repeated a quarter as often. Printed is how often, or "refused".
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from null_comparisons import ALPHA, Array, Design, draw
from qvit.cli.console import print_table
from qvit.cpu.memory import reuse_memory
from qvit.errors import MetricError
from qvit.evaluation import sampled
from qvit.evaluation.metrics import accuracy, auc
from qvit.evaluation.paired import compare_arms, delong_test, mcnemar_test, permutation_test, seeds_test
from qvit.evaluation.statistics import Interval, bootstrap_interval, crossed_interval

SEEDS = 5
RARE = (1, 2, 3, 4, 5, 10)
SHAPES: dict[str, tuple[str, Callable[[int], tuple[int, ...]]]] = {
    "k and 40": ("binary", lambda k: (40, k)),
    "k and k": ("binary", lambda k: (k, k)),
    "60, 30, 20, k": ("ordinal", lambda k: (60, 30, 20, k)),
}
Arms = tuple[Array, Array]


def _seeds(measure: Callable[..., float]) -> Callable[[Array, Arms, str], bool]:
    return lambda labels, arms, task: (
        seeds_test(*([measure(labels, one, task) for one in arm] for arm in arms)).p < ALPHA
    )


TWO_MODELS = {"vary": False, "by_arm": True}
ARMS = {"vary": True, "by_arm": True}
THESE_IMAGES = {"vary": True, "by_arm": False}
# Name, what varies under its null, and the test; one of two models takes the first seed of each arm.
TESTS: tuple[tuple[str, dict[str, bool], Callable[[Array, Arms, str], bool]], ...] = (
    ("delong_test", TWO_MODELS, lambda y, a, task: delong_test(y, a[0][0], a[1][0], task).p < ALPHA),
    ("compare_arms, AUC", ARMS, lambda y, a, task: compare_arms(y, *a, task).p < ALPHA),
    ("compare_arms, ACC", ARMS, lambda y, a, task: compare_arms(y, *a, task, metric="acc").p < ALPHA),
    ("mcnemar_test", TWO_MODELS, lambda y, a, task: mcnemar_test(y, a[0][0], a[1][0], task).p < ALPHA),
    ("permutation_test", TWO_MODELS, lambda y, a, task: permutation_test(y, a[0][0], a[1][0], task).p < ALPHA),
    ("seeds_test, AUC", THESE_IMAGES, _seeds(auc)),
    ("seeds_test, ACC", THESE_IMAGES, _seeds(accuracy)),
)


def rate(design: Design, null: dict[str, bool], test: Callable[[Array, Arms, str], bool], repeats: int) -> float | None:
    """Return how often a test is significant, in percent; None where it refuses."""
    hits = 0
    for number in range(repeats):
        labels, arms = draw(design, np.random.default_rng([1, number]), SEEDS, **null)
        try:
            hits += test(labels, arms, design.task)
        except MetricError:
            return None
    return 100 * hits / repeats


def misses(design: Design, metric: str, repeats: int, resamples: int, *, crossed: bool) -> float | None:
    """Return how often an interval does not hold what it is of, in percent; None where it has no ends."""
    found: list[Interval] = []
    values = []
    measure = auc if metric == "auc" else accuracy
    for number in range(repeats):
        rng = np.random.default_rng([2, number])
        labels, arms = draw(design, rng, SEEDS if crossed else 1, vary=crossed, by_arm=True)
        options: dict[str, Any] = {"resamples": resamples, "seed": number}
        if crossed:
            found.append(crossed_interval(labels, arms[0], design.task, metric=metric, **options))
        else:
            both = bootstrap_interval(labels, arms[0][0], design.task, metrics=(metric,), **options)
            found.append(both[metric])
        if found[0].low is None:
            return None
        values += [measure(labels, scores, design.task) for arm in arms for scores in arm]
    truth = float(np.mean(values))
    return 100 * sum(not (one.low or 0.0) <= truth <= (one.high or 1.0) for one in found) / repeats


def row(name: str, measure: Callable[[Design], float | None], quality: float) -> list[list[str]]:
    """Return a line for each shape."""
    lines = []
    for shape, (task, counts) in SHAPES.items():
        rates = [measure(Design("few", task, counts(k), quality, 0.15)) for k in RARE]
        lines.append([name, shape, *("refused" if rate is None else f"{rate:.1f}" for rate in rates)])
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--quality", type=float, default=1.0, help="distance of neighbouring classes")
    parser.add_argument("--refuse-nothing", action="store_true", help="what would come out of it without refusals")
    asked = parser.parse_args()
    reuse_memory()
    if asked.refuse_nothing:
        sampled.FEWEST_OF_A_CLASS = sampled.FEWEST_IN_ALL = 0
    rows = []
    for name, null, test in TESTS:
        rows += row(name, partial(rate, null=null, test=test, repeats=asked.repeats), asked.quality)
    for metric in ("auc", "acc"):
        for crossed in (False, True):
            name = f"{'crossed' if crossed else 'bootstrap'}_interval, {metric.upper()}"
            few = asked.repeats // 4
            measure = partial(misses, metric=metric, repeats=few, resamples=asked.resamples, crossed=crossed)
            rows += row(name, measure, asked.quality)
    columns = ["wrong, in %", "images", *(f"k = {k}" for k in RARE)]
    print_table(f"Few images of a class, {asked.repeats} repetitions", columns, rows)


if __name__ == "__main__":
    main()
