"""The claims of a study: every comparison that its arms allow, tested, and worded to claim no more than was shown.

Comparisons come in families, one per question. Each compares two arms on one dataset, paired by seed, with seeds and
test images both random (`evaluation.paired.compare_arms`). It is made once and corrected once, whichever tables show
it, by Holm's method over the comparisons of its question and metric; comparisons of all sizes together, and means over
datasets, are corrected separately. "Better" is said only if the corrected p is below 5 %. A metric is not compared if
there are too few test images to tell how it varies over images (`TestSet.untold`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from qvit.evaluation.paired import Comparison, contrast, hedges_g, holm, mean_comparison, superiority
from qvit.evaluation.ranking import Friedman, Ranking, friedman, rank
from qvit.evaluation.sampled import METRICS
from qvit.report.arms import LEVEL, Arm, Results, TestSet
from qvit.report.controls import BASELINES, CONTROLS, TWIN
from qvit.study.spec import SCRATCH

ALPHA = round(1 - LEVEL, 9)  # rounded, as 1 − 0.95 is slightly more than 0.05
NO_DIFFERENCE = "no difference shown"
CLASSICAL, GAINS, PLAIN = "classical", "gains", "baselines"  # keys of families

Sides = tuple[tuple[Arm, ...], tuple[Arm, ...]]


@dataclass(frozen=True)
class Finding:
    """One comparison on one dataset: A − B, the corrected p value, and effect sizes over seeds.

    `dataset` is None for the mean over datasets. `g` is Hedges' g, `superiority` the probability that a seed of A is
    better than a seed of B. `sides` holds the arms of A and those of B, in order.
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
    sides: Sides = ((), ())

    @property
    def shown(self) -> bool:
        """Whether a difference is shown."""
        return self.corrected < ALPHA

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if not self.shown:
            return NO_DIFFERENCE
        ahead = self.a if self.comparison.difference > 0 else self.b
        return f"{ahead} {'gains more' if self.family == GAINS else 'is better'}"


@dataclass(frozen=True)
class Family:
    """A question, and the findings that answer it: on each dataset (`findings`) and averaged over datasets (`pooled`).

    `together` holds the findings over all sizes of a kind of model, for each kind in question, on each dataset and
    averaged. If a kind has only one size, they are also among the others.
    """

    key: str
    question: str
    findings: tuple[Finding, ...]
    pooled: tuple[Finding, ...]
    together: tuple[Finding, ...] = ()

    def of(self, metric: str) -> list[Finding]:
        """Return the findings on single datasets by one metric."""
        return [finding for finding in self.findings if finding.metric == metric]

    def mean(self, metric: str) -> list[Finding]:
        """Return the findings over all datasets by one metric."""
        return [finding for finding in self.pooled if finding.metric == metric]


@dataclass(frozen=True)
class Pair:
    """A comparison to make: the mean of the arms `a` with the mean of as many arms `b`, in order."""

    a: tuple[Arm, ...]
    b: tuple[Arm, ...]
    a_name: str
    b_name: str

    @property
    def sides(self) -> Sides:
        """The arms without the names: pairs with the same arms are one comparison."""
        return self.a, self.b


def families(results: Results) -> list[Family]:
    """Return the questions that a study's arms can answer, with their answers."""
    asked: list[tuple[str, str, list[Pair], list[Pair]]] = [
        (
            CLASSICAL,
            "Is a quantum vision transformer better than a classical one of the same parameter count?",
            list(twins(results, TWIN)),
            list(_all_sizes(results, [TWIN])),
        ),
        (
            "controls",
            "What is the quantum part worth?",
            list(_controls(results)),
            list(_all_sizes(results, [kind for kind in CONTROLS if kind != TWIN])),
        ),
        (PLAIN, "Is a plain baseline better than the quantum vision transformers?", list(_plain(results)), []),
        ("distillation", "What is pre-training on a teacher worth?", list(_distilled(results)), []),
        ("heads", "Are two heads better than one?", list(_ablation(results, "heads")), []),
        ("qubits", "Are more qubits better?", list(_ablation(results, "qubits")), []),
        ("layers", "Are more circuit layers better?", list(_ablation(results, "layers")), []),
        ("options", "What are options worth?", list(_with_options(results)), []),
    ]
    found = [family(results, key, question, pairs, together) for key, question, pairs, together in asked if pairs]
    return [one for one in found if one.findings]


def headline(asked: Sequence[Family]) -> list[Family]:
    """Return a family per kind of control, from those of a study: QViTs against it, over all sizes."""
    together = [finding for one in asked for finding in one.together]
    found = []
    for kind, control in CONTROLS.items():
        own = [finding for finding in together if finding.b == control.words]
        single = tuple(finding for finding in own if finding.dataset is not None)
        if single:
            found.append(
                Family(kind, control.words, single, tuple(finding for finding in own if finding.dataset is None))
            )
    return found


def family(results: Results, key: str, question: str, pairs: Sequence[Pair], together: Sequence[Pair] = ()) -> Family:
    """Test pairs of arms, and pairs over all sizes (`together`), on every dataset that has both, and on average.

    A pair that is in both lists is one comparison, corrected with those over all sizes.
    """
    of_all = {pair.sides: pair for pair in together}
    singles = [pair for pair in pairs if pair.sides not in of_all]
    found: dict[Sides, list[Finding]] = {}
    for metric in METRICS:
        for level in (singles, together):
            for finding in _tested(results, key, level, metric):
                found.setdefault(finding.sides, []).append(finding)
    own = [replace(finding, a=pair.a_name, b=pair.b_name) for pair in pairs for finding in found.get(pair.sides, ())]
    return Family(
        key,
        question,
        tuple(finding for finding in own if finding.dataset is not None),
        tuple(finding for finding in own if finding.dataset is None),
        tuple(finding for sides in of_all for finding in found.get(sides, ())),
    )


def _tested(results: Results, key: str, pairs: Sequence[Pair], metric: str) -> list[Finding]:
    """Return the comparisons of pairs by one metric and their means over datasets, the two corrected separately."""
    compared = (_compare(results, key, pair, test, metric) for pair in pairs for test in results.tests)
    known = _corrected([finding for finding in compared if finding is not None])
    on_each = [[finding for finding in known if finding.sides == pair.sides] for pair in pairs]
    return known + _corrected([_pool(same) for same in on_each if len(same) > 1])


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
        sides=pair.sides,
    )


def _corrected(findings: Sequence[Finding]) -> list[Finding]:
    adjusted = holm([finding.comparison.p for finding in findings])
    return [replace(finding, corrected=p) for finding, p in zip(findings, adjusted, strict=True)]


def _pool(findings: Sequence[Finding]) -> Finding:
    """Return the mean over datasets, which are independent in images and in the effects of seeds."""
    first, comparison = findings[0], mean_comparison([finding.comparison for finding in findings])
    seeds = min(finding.seeds for finding in findings)
    return replace(
        first,
        dataset=None,
        comparison=comparison,
        corrected=comparison.p,
        seeds=seeds,
        g=None,
        superiority=None,
    )


def twins(results: Results, kind: str) -> Iterator[Pair]:
    """Yield each QViT paired with the model of another kind of the same size, options and regime."""
    for ours in results.arms:
        if ours.kind != "qvit":
            continue
        for other in results.arms:
            same = ours.shares(other, "qubits", "heads", "options", "regime")
            if other.kind == kind and same and other.layers in (None, ours.layers):  # the same layers, if it has any
                yield Pair((ours,), (other,), ours.title, other.title)


def _all_sizes(results: Results, kinds: Sequence[str]) -> Iterator[Pair]:
    """Yield a pair for each kind: QViTs and models of that kind, from scratch, over all sizes that have both."""
    for kind in kinds:
        pairs = [pair for pair in twins(results, kind) if pair.a[0].regime == SCRATCH]
        if pairs:
            ours, theirs = tuple(pair.a[0] for pair in pairs), tuple(pair.b[0] for pair in pairs)
            yield Pair(ours, theirs, "QViT", CONTROLS[kind].words)


def _controls(results: Results) -> Iterator[Pair]:
    """Yield QViTs paired with all controls except the one that is a separate question."""
    for kind in CONTROLS:
        if kind != TWIN:
            yield from (pair for pair in twins(results, kind) if pair.a[0].regime == SCRATCH)


def _plain(results: Results) -> Iterator[Pair]:
    """Yield each plain baseline, named with its parameters, and the mean of all QViTs, both from scratch."""
    scratch = [arm for arm in results.arms if arm.regime == SCRATCH]
    ours = tuple(arm for arm in scratch if arm.kind == "qvit")
    for arm in scratch:
        if arm.kind in BASELINES and ours:
            name = "QViT" if len(ours) == 1 else f"mean of {len(ours)} QViTs"
            sizes = sorted({cell.parameters for test in results.tests if (cell := results.cell(test, arm))})
            told = " to ".join(dict.fromkeys(f"{size:,}" for size in (*sizes[:1], *sizes[-1:])))
            yield Pair((arm,) * len(ours), ours, f"{BASELINES[arm.kind]} ({told} parameters)", name)


def _distilled(results: Results) -> Iterator[Pair]:
    for arm in results.arms:
        if arm.regime == SCRATCH:
            continue
        for other in results.arms:
            if other.regime == SCRATCH and other.label == arm.label:
                yield Pair((arm,), (other,), arm.title, other.title)


def _ablation(results: Results, field: str) -> Iterator[Pair]:
    """Yield each arm paired with the arm of the next smaller value of one size, all else being equal."""
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


def _with_options(results: Results) -> Iterator[Pair]:
    """Yield each arm that has options of its own paired with the arm that has none, all else being equal."""
    plain = [arm for arm in results.arms if arm.options == Arm.options]
    for arm in results.arms:
        for other in plain if arm.options != Arm.options else ():
            if arm.shares(other, "name", "layers", "regime"):
                yield Pair((arm,), (other,), arm.title, other.title)


def gain_differences(results: Results) -> Family | None:
    """Compare gains from a teacher: of QViTs with those of matched ViTs, and of larger QViTs with smaller ones'.

    A and B of a finding are the models whose gains are compared. The result is None if there is nothing to compare.
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


def ranking(results: Results, metric: str, regime: str = SCRATCH) -> tuple[list[Arm], Ranking, Friedman] | None:
    """Return the arms of a regime with runs on every dataset, their ranking, and Friedman's test of it.

    The result is None for fewer than two arms or datasets.
    """
    arms = [
        arm for arm in results.arms if arm.regime == regime and all(results.cell(test, arm) for test in results.tests)
    ]
    if len(arms) < 2 or len(results.tests) < 2:
        return None
    table = [
        [sum(values) / len(values) for arm in arms for values in [_values(results, test, arm, metric)]]
        for test in results.tests
    ]
    return arms, rank(table), friedman(table)


def _values(results: Results, test: TestSet, arm: Arm, metric: str) -> list[float]:
    cell = results.cell(test, arm)
    assert cell is not None
    return cell.values(metric)


def means(results: Results, arms: Sequence[Arm], metric: str, tests: Sequence[TestSet]) -> float | None:
    """Return the mean over arms and datasets of the mean over seeds; None if a run is missing."""
    values = []
    for test in tests:
        for arm in arms:
            cell = results.cell(test, arm)
            if cell is None:
                return None
            values.append(cell.intervals[metric].value)
    return math.fsum(values) / len(values) if values else None
