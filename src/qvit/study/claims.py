"""What a study shows: every comparison that its arms allow, tested, and put into words that claim no more.

Comparisons come in families, one a question. Each is of two arms on one dataset, paired by seed, with seeds and test
images both random (`evaluation.paired.compare_arms`). p values are corrected by Holm's method over a family's
comparisons of one metric; "better" is said only where the corrected p is below 5 %. Nothing is claimed of a metric
where the test images are too few to tell how much it varies over them (`TestSet.untold`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from qvit.evaluation.paired import Comparison, contrast, hedges_g, holm, mean_comparison, superiority
from qvit.evaluation.ranking import Ranking, rank
from qvit.study.results import LEVEL, METRICS, Arm, Results, TestSet
from qvit.study.spec import SCRATCH

ALPHA = round(1 - LEVEL, 9)  # 1 − 0.95 is a little more than 0.05
NO_DIFFERENCE = "no difference shown"
CLASSICAL, GAINS = "classical", "gains"  # keys of families
TWIN = "vit_matched"  # the kind that answers the first of these

# The kinds that a circuit is compared with to see what it is worth, and what is left out or put in its place.
CONTROLS = {
    "no_entangler": "the circuits without entangling gates",
    "cosine": "a plain cosine of each feature",
    "frozen": "random circuits that are not trained",
    "givens": "orthogonal matrices (plane rotations)",
    "circulant": "circular convolutions",
    "identity": "no projection at all",
    "vit": "dense matrices, same width",
    "unlu": "the circuits of Unlu et al.",
    "vit_matched": "dense matrices, same parameter count",
    "unlu_matched": "the circuits of Unlu et al., same parameter count",
    "givens_matched": "orthogonal matrices, same parameter count",
    "circulant_matched": "circular convolutions, same parameter count",
}


@dataclass(frozen=True)
class Finding:
    """One comparison on one dataset: A − B, the p value corrected over its family, and effect sizes over seeds.

    `dataset` is None for the mean over datasets. `g` is Hedges', `superiority` the chance that a seed of A is ahead of
    one of B.
    """

    family: str
    dataset: str | None
    a: str
    b: str
    metric: str
    comparison: Comparison
    corrected: float
    seeds: int
    g: float | None = None
    superiority: float | None = None

    @property
    def shown(self) -> bool:
        """Whether a difference is shown."""
        return self.corrected < ALPHA

    @property
    def verdict(self) -> str:
        """What may be said."""
        if not self.shown:
            return NO_DIFFERENCE
        ahead = self.a if self.comparison.difference > 0 else self.b
        return f"{ahead} {'gains more' if self.family == GAINS else 'is better'}"


@dataclass(frozen=True)
class Family:
    """A question, and the findings that answer it: on each dataset, and on average over datasets."""

    key: str
    question: str
    findings: tuple[Finding, ...]
    pooled: tuple[Finding, ...]

    def of(self, metric: str) -> list[Finding]:
        """Return the findings on single datasets by one metric."""
        return [finding for finding in self.findings if finding.metric == metric]

    def mean(self, metric: str) -> list[Finding]:
        """Return the findings over all datasets by one metric."""
        return [finding for finding in self.pooled if finding.metric == metric]


@dataclass(frozen=True)
class Pair:
    """What is compared: the mean of some arms with the mean of as many others, in order."""

    a: tuple[Arm, ...]
    b: tuple[Arm, ...]
    a_name: str
    b_name: str


def families(results: Results) -> list[Family]:
    """Return the questions that a study's arms can answer, with their answers."""
    asked: list[tuple[str, str, list[Pair]]] = [
        (
            CLASSICAL,
            "Is a quantum vision transformer better than a classical one of the same parameter count?",
            list(twins(results, TWIN)),
        ),
        ("controls", "What is the quantum part worth?", list(_controls(results))),
        ("distillation", "What is pre-training on a teacher worth?", list(_distilled(results))),
        ("heads", "Are two heads better than one?", list(_ablation(results, "heads"))),
        ("qubits", "Are more qubits better?", list(_ablation(results, "qubits"))),
        ("layers", "Are more circuit layers better?", list(_ablation(results, "layers"))),
    ]
    found = [family(results, key, question, pairs) for key, question, pairs in asked if pairs]
    return [one for one in found if one.findings]


def headline(results: Results) -> list[Family]:
    """Return the same questions of all sizes together: the mean over the sizes that have both sides."""
    asked = []
    for kind, text in CONTROLS.items():
        pairs = [pair for pair in twins(results, kind) if pair.a[0].regime == SCRATCH]
        if pairs:
            together = Pair(tuple(pair.a[0] for pair in pairs), tuple(pair.b[0] for pair in pairs), "QViT", text)
            asked.append((kind, text, [together]))
    found = [family(results, key, question, pairs) for key, question, pairs in asked]
    return _corrected_together([one for one in found if one.findings])


def family(results: Results, key: str, question: str, pairs: Sequence[Pair]) -> Family:
    """Test pairs of arms on every dataset that has both, and on average over these."""
    findings, pooled = [], []
    for metric in METRICS:
        on_each = [_compare(results, key, pair, test, metric) for pair in pairs for test in results.tests]
        known = _corrected([finding for finding in on_each if finding is not None])
        findings += known
        means = []
        for pair in pairs:
            same = [f for f in known if (f.a, f.b) == (pair.a_name, pair.b_name)]
            if len(same) > 1:
                means.append(_pool(same))
        pooled += _corrected(means)
    return Family(key, question, tuple(findings), tuple(pooled))


def _compare(results: Results, key: str, pair: Pair, test: TestSet, metric: str) -> Finding | None:
    cells = results.pair(test, *pair.a, *pair.b)
    if cells is None or test.untold(metric):
        return None
    half = len(pair.a)
    weights = [1.0 / half] * half + [-1.0 / half] * half
    comparison = contrast(test.labels, [cell.scores for cell in cells], weights, test.task, metric=metric, level=LEVEL)
    ours, theirs = (
        [sum(column) / half for column in zip(*(cell.values(metric) for cell in side), strict=True)]
        for side in (cells[:half], cells[half:])
    )
    return Finding(
        family=key,
        dataset=test.name,
        a=pair.a_name,
        b=pair.b_name,
        metric=metric,
        comparison=comparison,
        corrected=comparison.p,
        seeds=len(ours),
        g=hedges_g(ours, theirs),
        superiority=superiority(ours, theirs),
    )


def _corrected(findings: Sequence[Finding]) -> list[Finding]:
    adjusted = holm([finding.comparison.p for finding in findings])
    return [_with_p(finding, p) for finding, p in zip(findings, adjusted, strict=True)]


def _with_p(finding: Finding, p: float) -> Finding:
    return replace(finding, corrected=p)


def _corrected_together(found: Sequence[Family]) -> list[Family]:
    """Correct families of one pair each as the one table that they are shown in."""

    def over(pick: Callable[[Family], Sequence[Finding]]) -> dict[int, Finding]:
        changed: dict[int, Finding] = {}
        for metric in METRICS:
            some = [finding for one in found for finding in pick(one) if finding.metric == metric]
            changed |= {id(old): new for old, new in zip(some, _corrected(some), strict=True)}
        return changed

    single, pooled = over(lambda one: one.findings), over(lambda one: one.pooled)
    return [
        Family(
            one.key,
            one.question,
            tuple(single[id(finding)] for finding in one.findings),
            tuple(pooled[id(finding)] for finding in one.pooled),
        )
        for one in found
    ]


def _pool(findings: Sequence[Finding]) -> Finding:
    """Return the mean over datasets, whose images, and seeds' luck on them, are independent."""
    first, comparison = findings[0], mean_comparison([finding.comparison for finding in findings])
    seeds = min(finding.seeds for finding in findings)
    return Finding(first.family, None, first.a, first.b, first.metric, comparison, comparison.p, seeds)


def twins(results: Results, kind: str) -> Iterator[Pair]:
    """Yield QViTs with the model of another kind that has the same size, options and regime."""
    for ours in results.arms:
        if ours.kind != "qvit":
            continue
        for other in results.arms:
            same = ours.shares(other, "qubits", "heads", "options", "regime")
            if other.kind == kind and same and other.layers in (None, ours.layers):  # layer for layer, if it has any
                yield Pair((ours,), (other,), ours.title, other.title)


def _controls(results: Results) -> Iterator[Pair]:
    """Yield QViTs with all controls but the one that is a question of its own: no pair has two verdicts."""
    for kind in CONTROLS:
        if kind != TWIN:
            yield from (pair for pair in twins(results, kind) if pair.a[0].regime == SCRATCH)


def _distilled(results: Results) -> Iterator[Pair]:
    for arm in results.arms:
        if arm.regime == SCRATCH:
            continue
        for other in results.arms:
            if other.regime == SCRATCH and other.label == arm.label:
                yield Pair((arm,), (other,), arm.title, other.title)


def _ablation(results: Results, field: str) -> Iterator[Pair]:
    """Yield arms that differ in one size alone, each with the one of the next smaller size."""
    fixed = [name for name in ("kind", "qubits", "heads", "layers", "options", "regime") if name != field]
    for arm in results.arms:
        size = getattr(arm, field)
        if size is None:
            continue
        smaller = [
            other
            for other in results.arms
            if other.shares(arm, *fixed) and getattr(other, field) is not None and getattr(other, field) < size
        ]
        if smaller:
            other = max(smaller, key=lambda one: int(getattr(one, field)))
            yield Pair((arm,), (other,), arm.title, other.title)


def gain_differences(results: Results) -> Family | None:
    """Return whether QViTs gain more from a teacher than their matched ViTs, and larger QViTs more than smaller ones.

    A finding's A and B are the models whose gains are compared.
    """
    distilled = list(_distilled(results))
    found: list[Finding] = []
    for metric in METRICS:
        some = []
        for one, other in combinations(distilled, 2):
            for first, second in ((one, other), (other, one)):
                a, b = first.a[0], second.a[0]
                if not a.shares(b, "options", "regime"):
                    continue
                twin = a.kind == "qvit" and b.kind == "vit_matched" and a.shares(b, "qubits", "heads", "layers")
                larger = (
                    a.kind == b.kind == "qvit" and a.shares(b, "heads", "layers") and (a.qubits or 0) > (b.qubits or 0)
                )
                if twin or larger:
                    some += [_gain(results, first, second, test, metric) for test in results.tests]
        found += _corrected([finding for finding in some if finding is not None])
    if not found:
        return None
    return Family(GAINS, "Who gains more from a teacher?", tuple(found), ())


def _gain(results: Results, first: Pair, second: Pair, test: TestSet, metric: str) -> Finding | None:
    cells = results.pair(test, first.a[0], first.b[0], second.a[0], second.b[0])
    if cells is None or test.untold(metric):
        return None
    comparison = contrast(
        test.labels, [cell.scores for cell in cells], [1, -1, -1, 1], test.task, metric=metric, level=LEVEL
    )
    values = [cell.values(metric) for cell in cells]
    ours = [a - b for a, b in zip(values[0], values[1], strict=True)]
    theirs = [a - b for a, b in zip(values[2], values[3], strict=True)]
    return Finding(
        GAINS,
        test.name,
        first.b_name,
        second.b_name,
        metric,
        comparison,
        comparison.p,
        len(ours),
        hedges_g(ours, theirs),
        superiority(ours, theirs),
    )


def ranking(results: Results, metric: str, regime: str = SCRATCH) -> tuple[list[Arm], Ranking] | None:
    """Return arms of a regime that have runs on every dataset, and how they rank; None for too few of either."""
    arms = [
        arm for arm in results.arms if arm.regime == regime and all(results.cell(test, arm) for test in results.tests)
    ]
    if len(arms) < 2 or len(results.tests) < 2:
        return None
    table = [
        [sum(values) / len(values) for arm in arms for values in [_values(results, test, arm, metric)]]
        for test in results.tests
    ]
    return arms, rank(table)


def _values(results: Results, test: TestSet, arm: Arm, metric: str) -> list[float]:
    cell = results.cell(test, arm)
    assert cell is not None
    return cell.values(metric)


def means(results: Results, arms: Sequence[Arm], metric: str, tests: Sequence[TestSet]) -> float | None:
    """Return the mean over arms and these datasets of the mean over seeds; None where a run is missing."""
    values = []
    for test in tests:
        for arm in arms:
            cell = results.cell(test, arm)
            if cell is None:
                return None
            values.append(cell.intervals[metric].value)
    return math.fsum(values) / len(values) if values else None
