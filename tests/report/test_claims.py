"""What is compared with what, and what is said of it: pairs by hand, verdicts in both directions, sums by hand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from qvit.evaluation.paired import Comparison, compare_arms, contrast
from qvit.evaluation.sampled import METRICS
from qvit.report.arms import Results, load_results
from qvit.report.claims import (
    ALPHA,
    NO_DIFFERENCE,
    Family,
    Finding,
    families,
    gain_differences,
    headline,
    means,
    ranking,
)
from qvit.report.controls import BASELINES, CONTROLS
from qvit.study.spec import Job

MakeStudy = Callable[..., Path]

MANY = """
datasets: a.npz
models:
  - {kind: [qvit, vit_matched], qubits: [4, 8], heads: [1, 2]}
  - {kind: [qvit, vit_matched], qubits: 4, heads: 1, layers: 2}
  - {kind: qvit, qubits: 4, heads: 1, layers: 4}
  - {kind: no_entangler, qubits: 4, heads: 1, layers: [1, 2]}
  - {kind: cosine, qubits: 4, heads: 1}
  - {kind: vit, qubits: 8, heads: 2}
  - {kind: qvit, qubits: 8, heads: 2, options: {dropout: 0.25}}
teachers: {t: [{arch: vit_4q1h}]}
regimes: {scratch: , kd: {teacher: t}}
"""
TAUGHT = "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}\n"
SIZES = ("4q1h", "4q2h", "8q1h", "8q2h")
TWO = "datasets: {}\nmodels: [qvit_4q1h, vit_4q1h_matched]\nseeds: {}\n"


def pairs_of(family: Family) -> list[tuple[str, str]]:
    return list(dict.fromkeys((finding.a, finding.b) for finding in family.findings))


def both(pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Pairs from scratch, and the same with a teacher."""
    return {*pairs, *((f"{a}, kd", f"{b}, kd") for a, b in pairs)}


@pytest.fixture(scope="module")
def many(make_study: MakeStudy) -> Results:
    return load_results(make_study(MANY, images=9))


def test_baselines_are_compared_with_the_mean_of_all_qvits(make_study: MakeStudy) -> None:
    """Those from scratch; by hand, the mean of differences and their variance over images."""
    text = "datasets: a.npz\nmodels: [qvit_4q1h, qvit_8q1h, vit_4q1h]\nbaselines: auto\nseeds: 3\n" + TAUGHT
    results = load_results(make_study(text, images=40))
    [plain] = [family for family in families(results) if family.key == "baselines"]
    sizes = {"dsconv_matched": "860"}  # as made up: see `conftest._parameters`
    assert pairs_of(plain) == [
        (f"{words} ({sizes.get(kind, '11,000')} parameters)", "mean of 2 QViTs")
        for kind, words in BASELINES.items()
        if kind != "dsconv"
    ]
    first = plain.of("auc")[0]
    arms = {arm.title: arm for arm in results.arms}
    assert first.sides == ((arms["logistic"],) * 2, (arms["qvit_4q1h"], arms["qvit_8q1h"]))
    [test] = results.tests
    cells = [results.cells[test.name, arms[name]] for name in ("logistic", "qvit_4q1h", "qvit_8q1h")]
    by_hand = contrast(test.labels, [cell.scores for cell in cells], [1.0, -0.5, -0.5], test.task)
    assert first.comparison.difference == pytest.approx(by_hand.difference)
    assert first.comparison.p == pytest.approx(by_hand.p)


@pytest.mark.long
def test_pairs(many: Results) -> None:
    found = {family.key: pairs_of(family) for family in families(many)}
    assert list(found) == ["classical", "controls", "distillation", "heads", "qubits", "layers", "options"]
    assert all(len(pairs) == len(set(pairs)) for pairs in found.values())
    deep, matched = "qvit_4q1h (2 layers)", "vit_4q1h_matched (2 layers)"
    classical = [*((f"qvit_{size}", f"vit_{size}_matched") for size in SIZES), (deep, matched)]
    assert set(found["classical"]) == both(classical)
    assert set(found["controls"]) == {  # without the pairs of the first question: none has two verdicts
        ("qvit_4q1h", "no_entangler_4q1h"),
        (deep, "no_entangler_4q1h (2 layers)"),
        ("qvit_4q1h", "cosine_4q1h"),
        (deep, "cosine_4q1h"),
        ("qvit_4q1h (4 layers)", "cosine_4q1h"),
        ("qvit_8q2h", "vit_8q2h"),
    }
    assert set(found["distillation"]) == {(f"{arm.label}, kd", arm.label) for arm in many.arms}
    assert set(found["heads"]) == both(
        [
            (f"{kind}_{q}q2h{end}", f"{kind}_{q}q1h{end}")
            for q in (4, 8)
            for kind, end in (("qvit", ""), ("vit", "_matched"))
        ]
    )
    assert set(found["qubits"]) == both(
        [
            (f"{kind}_8q{h}h{end}", f"{kind}_4q{h}h{end}")
            for h in (1, 2)
            for kind, end in (("qvit", ""), ("vit", "_matched"))
        ]
    )
    assert set(found["layers"]) == both(
        [
            (deep, "qvit_4q1h"),
            ("qvit_4q1h (4 layers)", deep),
            (matched, "vit_4q1h_matched"),
            ("no_entangler_4q1h (2 layers)", "no_entangler_4q1h"),
        ]
    )


@pytest.mark.long
def test_options_are_compared_with_none(many: Results) -> None:
    [asked] = [family for family in families(many) if family.key == "options"]
    assert set(pairs_of(asked)) == both([("qvit_8q2h (dropout=0.25)", "qvit_8q2h")])


def test_pairs_of_gains(many: Results) -> None:
    gains = gain_differences(many)
    assert gains is not None
    assert set(pairs_of(gains)) == {
        *((f"qvit_{size}", f"vit_{size}_matched") for size in SIZES),
        ("qvit_4q1h (2 layers)", "vit_4q1h_matched (2 layers)"),
        ("qvit_8q1h", "qvit_4q1h"),
        ("qvit_8q2h", "qvit_4q2h"),
    }
    assert len(pairs_of(gains)) == len(gains.of("auc")) == len(gains.of("acc"))


@pytest.mark.long
def test_pairs_of_the_headline(many: Results) -> None:
    found = headline(families(many))
    assert [one.key for one in found] == ["vit_matched", "vit", "no_entangler", "cosine"]
    assert all(pairs_of(one) == [("QViT", CONTROLS[one.key].words)] for one in found)
    assert all(one.question == CONTROLS[one.key].words for one in found)


def test_models_of_other_options_are_not_compared(make_study: MakeStudy) -> None:
    text = "datasets: a.npz\nmodels: [{kind: qvit, qubits: [4, 8], options: {dropout: 0.5}}, {kind: vit_matched}, %s]"
    results = load_results(make_study(text % "{kind: qvit, heads: 1}", images=9))
    assert {family.key: pairs_of(family) for family in families(results)} == {
        "qubits": [("qvit_8q2h (dropout=0.5)", "qvit_4q2h (dropout=0.5)")]
    }
    assert headline(families(results)) == []
    results = load_results(make_study(text % "{kind: vit, options: {dropout: 0.5}}", images=9, name="other"))
    found = {family.key: pairs_of(family) for family in families(results)}
    assert found["controls"] == [("qvit_4q2h (dropout=0.5)", "vit_4q2h (dropout=0.5)")]


def test_a_study_of_one_arm_claims_nothing(make_study: MakeStudy) -> None:
    results = load_results(make_study("datasets: a.npz\nmodels: qvit_4q1h\nseeds: 2"))
    assert families(results) == headline([]) == []
    assert gain_differences(results) is None
    assert ranking(results, "auc") is None


# --- verdicts ---


def skills(qvit: float, other: float) -> Callable[[Job], float]:
    return lambda job: qvit if job.model.kind == "qvit" else other


@pytest.mark.long
@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (2.5, 0.2, "qvit_4q1h is better"),
        (0.2, 2.5, "vit_4q1h_matched is better"),
        (1.0, 1.0, NO_DIFFERENCE),
    ],
)
def test_verdicts(make_study: MakeStudy, ours: float, theirs: float, said: str) -> None:
    results = load_results(
        make_study(TWO.format("[a.npz, b.npz, c.npz, d.npz]", 4), skill=skills(ours, theirs), images=60)
    )
    findings = [f for one in families(results) for f in (*one.findings, *one.pooled)]
    assert len(findings) == len(METRICS) * (4 + 1), "each metric, on each dataset and on average"
    assert {finding.verdict for finding in findings} == {said}
    short = [f for one in headline(families(results)) for f in (*one.findings, *one.pooled)]
    side = {"qvit_4q1h is better": "QViT is better", NO_DIFFERENCE: said}
    assert {f.verdict for f in short} == {side.get(said, f"{CONTROLS['vit_matched'].words} is better")}


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_models_do_not_differ(make_study: MakeStudy, seeds: int) -> None:
    """However the sums over sizes are rounded."""
    text = (
        "datasets: [a.npz, b.npz]\nseeds: {}\nmodels: {{kind: [qvit, vit_matched], qubits: [4, 6, 8], heads: 1}}\n"
        "teachers: {{t: [{{arch: vit_4q1h}}]}}\nregimes: {{scratch: , kd: {{teacher: t}}}}"
    )
    results = load_results(make_study(text.format(seeds), images=11))
    gains = gain_differences(results)
    assert gains is not None
    for one in (*headline(families(results)), gains):
        for finding in (*one.findings, *one.pooled):
            assert abs(finding.comparison.difference) < 1e-12
            assert finding.verdict == NO_DIFFERENCE
            assert finding.corrected == 1


def finding(difference: float, corrected: float) -> Finding:
    comparison = Comparison(difference, difference - 0.1, difference + 0.1, corrected / 2, 0.95, 4.0, "")
    return Finding("x", "a", "ours", "theirs", "auc", comparison, corrected, 5)


def test_the_corrected_p_decides() -> None:
    assert ALPHA == 0.05
    for corrected, said in ((0.0499, "is better"), (0.05, NO_DIFFERENCE), (0.2, NO_DIFFERENCE), (1.0, NO_DIFFERENCE)):
        for difference, side in ((0.5, "ours"), (-0.5, "theirs")):
            found = finding(difference, corrected)
            assert found.verdict == (f"{side} {said}" if said == "is better" else said)
            assert found.shown == (said == "is better")


@pytest.mark.long
def test_verdicts_follow_the_corrected_p(make_study: MakeStudy) -> None:
    kinds = {"qvit": 1.0, "vit_matched": 1.5, "no_entangler": 0.9, "cosine": 0.2}
    text = (
        "datasets: [a.npz, c.npz]\nseeds: 3\n"
        "models: {kind: [qvit, vit_matched, no_entangler, cosine], qubits: [4, 8], heads: 1}"
    )
    results = load_results(make_study(text, skill=lambda job: kinds[job.model.kind] + 0.05 * job.model.qubits))
    said = set()
    for one in (*families(results), *headline(families(results))):
        for found in (*one.findings, *one.pooled):
            ahead = found.a if found.comparison.difference > 0 else found.b
            assert found.verdict == (f"{ahead} is better" if found.corrected < 0.05 else NO_DIFFERENCE)
            assert found.corrected >= found.comparison.p
            said.add((found.shown, found.comparison.difference > 0, found.comparison.p < 0.05))
    assert {(True, True, True), (True, False, True), (False, True, False), (False, True, True)} <= said, (
        "the case should have all kinds, one that the correction alone takes away among them"
    )


# --- sums by hand ---


def test_a_finding_is_the_comparison_of_its_arms(make_study: MakeStudy) -> None:
    results = load_results(
        make_study(
            TWO.format("[a.npz, d.npz]", 4),
            skill=lambda job: 1.0 + 0.2 * job.seed * (job.model.kind == "qvit"),
            state=lambda job: "waiting" if (job.model.kind, job.seed) == ("qvit", 2) else "finished",
        )
    )
    [classical] = families(results)
    test = results.tests[1]
    scores = []
    for arm in results.arms:
        cell = results.cell(test, arm)
        assert cell is not None
        scores.append(np.stack([cell.scores[cell.seeds.index(seed)] for seed in (0, 1, 3)]))
    for metric in METRICS:
        [found] = [f for f in classical.of(metric) if f.dataset == "d"]
        assert found.comparison == compare_arms(test.labels, *scores, test.task, metric=metric)
        assert found.seeds == 3
        assert found.a == "qvit_4q1h"
    [found] = [f for f in classical.of("auc") if f.dataset == "d"]
    cells = results.pair(test, *results.arms)
    assert cells is not None
    ours, theirs = (cell.values("auc") for cell in cells)
    wins = sum((x > y) + (x == y) / 2 for x in ours for y in theirs) / 9
    assert found.superiority == pytest.approx(wins)
    pooled = math.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 2)
    d = (np.mean(ours) - np.mean(theirs)) / pooled
    assert found.g == pytest.approx(d * (1 - 3 / (4 * 4 - 1)), rel=0.01)


def holm_by_hand(p: list[float]) -> list[float]:
    order = sorted(range(len(p)), key=lambda k: p[k])
    adjusted = [0.0] * len(p)
    for rank, k in enumerate(order):
        adjusted[k] = max(min(1.0, p[j] * (len(p) - r)) for r, j in enumerate(order[: rank + 1]))
    return adjusted


@pytest.mark.long
def test_holm_is_over_a_family_and_metric(make_study: MakeStudy) -> None:
    text = "datasets: [a.npz, b.npz]\nmodels: {kind: [qvit, vit_matched, cosine], qubits: [4, 8], heads: 1}\nseeds: 2"
    strength = {"qvit": 1.6, "vit_matched": 1.0, "cosine": 0.9}
    results = load_results(make_study(text, skill=lambda job: strength[job.model.kind] + 0.05 * job.model.qubits))
    found = families(results)
    sizes = {one.key: len(one.of("auc")) for one in found}
    assert sizes == {"classical": 4, "controls": 4, "qubits": 6}
    assert {one.key: len(one.together) for one in found} == {
        "classical": 3 * len(METRICS),
        "controls": 3 * len(METRICS),
        "qubits": 0,
    }
    for one in found:
        for metric in METRICS:
            together = [f for f in one.together if f.metric == metric]
            for group in (
                one.of(metric),
                one.mean(metric),
                [f for f in together if f.dataset],
                [f for f in together if f.dataset is None],
            ):
                expected = holm_by_hand([f.comparison.p for f in group])
                assert [f.corrected for f in group] == pytest.approx(expected)


ONE_VERDICT = """
datasets: [a.npz, b.npz, c.npz]
models:
  - {kind: [qvit, vit_matched, cosine, no_entangler], qubits: 4, heads: 1}
  - {kind: [qvit, vit_matched], qubits: 8, heads: 1}
  - {kind: [qvit, cosine], qubits: 6, heads: 1}
seeds: 2
"""


@pytest.mark.long
def test_a_comparison_has_one_verdict_wherever_it_is_shown(make_study: MakeStudy) -> None:
    """A control of one size is shown among all sizes, and among all sizes together."""
    strength = {"qvit": 1.4, "vit_matched": 1.0, "cosine": 0.9, "no_entangler": 1.1}
    results = load_results(make_study(ONE_VERDICT, skill=lambda job: strength[job.model.kind]))
    asked = families(results)
    told: dict[tuple[object, ...], set[tuple[object, ...]]] = {}
    shown = []
    for one in (*asked, *headline(asked)):
        for f in (*one.findings, *one.pooled):
            same = f.sides, f.dataset, f.metric
            told.setdefault(same, set()).add((f.comparison, f.corrected, f.shown))
            shown.append(same)
    assert all(len(verdicts) == 1 for verdicts in told.values())
    twice = {sides for sides, *_ in shown if shown.count((sides, "a", "auc")) == 2}
    assert [[arm.title for arm in side] for sides in twice for side in sides] == [["qvit_4q1h"], ["no_entangler_4q1h"]]
    [controls] = [one for one in asked if one.key == "controls"]
    of_all = [f for f in controls.together if f.metric == "auc" and f.dataset == "a"]
    assert [(f.a, f.b) for f in of_all] == [
        ("QViT", CONTROLS["no_entangler"].words),
        ("QViT", CONTROLS["cosine"].words),
    ]
    group = [f for f in controls.together if f.metric == "auc" and f.dataset]
    assert [f.corrected for f in group] == pytest.approx(holm_by_hand([f.comparison.p for f in group]))
    rest = [f for f in controls.of("auc") if f.b != "no_entangler_4q1h"]
    assert len(rest) == 6
    assert [f.corrected for f in rest] == pytest.approx(holm_by_hand([f.comparison.p for f in rest]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_mean_over_datasets_by_hand(make_study: MakeStudy, seeds: int) -> None:
    """Independent datasets: variances add, and degrees of freedom by Welch and Satterthwaite."""
    results = load_results(
        make_study(TWO.format("[a.npz, b.npz, d.npz]", seeds), skill=lambda job: 1 + 0.4 * (job.model.kind == "qvit"))
    )
    classical = families(results)[0]
    for metric in METRICS:
        singles, [mean] = classical.of(metric), classical.mean(metric)
        assert (mean.dataset, mean.seeds, mean.g, mean.superiority) == (None, seeds, None, None)
        assert len(singles) == 3
        difference = sum(f.comparison.difference for f in singles) / 3
        errors, dfs = [], []
        for one in (f.comparison for f in singles):
            df = math.inf if one.df is None else one.df
            errors.append((one.high - one.low) / 2 / stats.t.ppf(0.975, df) / 3)
            dfs.append(df)
        error = math.sqrt(sum(e**2 for e in errors))
        df = math.inf if seeds == 1 else error**4 / sum(e**4 / d for e, d in zip(errors, dfs, strict=True))
        half = stats.t.ppf(0.975, df) * error
        found = mean.comparison
        assert found.difference == pytest.approx(difference)
        assert (found.low, found.high) == pytest.approx((difference - half, difference + half))
        assert found.p == pytest.approx(2 * stats.t.sf(abs(difference) / error, df))
        assert found.df is None if seeds == 1 else found.df == pytest.approx(df)


def test_one_dataset_has_no_mean_over_datasets(make_study: MakeStudy) -> None:
    results = load_results(make_study(TWO.format("a.npz", 2)))
    assert all(one.pooled == () for one in (*families(results), *headline(families(results))))


def test_a_dataset_without_both_sides_is_left_out(make_study: MakeStudy) -> None:
    results = load_results(
        make_study(
            TWO.format("[a.npz, b.npz, c.npz]", 2),
            state=lambda job: "failed" if "b.npz" in job.dataset and job.model.kind == "qvit" else "finished",
        )
    )
    classical = families(results)[0]
    assert [f.dataset for f in classical.of("auc")] == ["a", "c"]
    [mean] = classical.mean("auc")
    assert mean.comparison.difference == pytest.approx(sum(f.comparison.difference for f in classical.of("auc")) / 2)


@pytest.mark.long
def test_the_headline_is_the_mean_over_sizes(make_study: MakeStudy) -> None:
    text = "datasets: a.npz\nseeds: 3\nmodels: [{kind: [qvit, vit], qubits: [4, 8], heads: [1, 2]}, qvit_6q2h]"
    strength = {"qvit_4q1h": 3.0, "qvit_4q2h": 0.5, "qvit_8q1h": 1.5, "vit_8q2h": 2.0, "qvit_6q2h": 9.0}
    results = load_results(make_study(text, skill=lambda job: strength.get(job.model.name, 1.0)))
    [found] = headline(families(results))
    test, by_label = results.tests[0], {arm.label: arm for arm in results.arms}
    for metric in METRICS:
        sides = []
        for kind in ("qvit", "vit"):
            cells = [results.cell(test, by_label[f"{kind}_{size}"]) for size in SIZES]
            sides.append([cell.values(metric) for cell in cells if cell is not None])
        assert np.shape(sides) == (2, 4, 3), "not qvit_6q2h, which has no vit"
        [single] = found.of(metric)
        assert single.comparison.difference == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]))
        assert (single.seeds, single.a, single.b) == (3, "QViT", "dense matrices, same width")


def test_a_gain_difference_is_that_of_gains(make_study: MakeStudy) -> None:
    text = TWO.format("a.npz", 3) + "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    gain = {("qvit", "kd"): 2.0, ("vit_matched", "kd"): 1.3}
    results = load_results(make_study(text, skill=lambda job: gain.get((job.model.kind, job.regime), 1.0)))
    found = gain_differences(results)
    assert found is not None
    test, arms = results.tests[0], {arm.title: arm for arm in results.arms}
    names = ("qvit_4q1h, kd", "qvit_4q1h", "vit_4q1h_matched, kd", "vit_4q1h_matched")
    for metric in METRICS:
        [one] = found.of(metric)
        assert (one.a, one.b) == ("qvit_4q1h", "vit_4q1h_matched")
        cells = results.pair(test, *(arms[name] for name in names))
        assert cells is not None
        a, b, c, d = (np.array(cell.values(metric)) for cell in cells)
        assert one.comparison.difference == pytest.approx(np.mean((a - b) - (c - d)))
        assert one.comparison == contrast(
            test.labels, [cell.scores for cell in cells], [1, -1, -1, 1], test.task, metric=metric
        )


def test_who_gains_more_is_said_as_such() -> None:
    gain = replace(finding(0.5, 0.01), family="gains")
    assert gain.verdict == "ours gains more"
    assert replace(finding(-0.5, 0.01), family="gains").verdict == "theirs gains more"
    assert replace(gain, corrected=0.3).verdict == NO_DIFFERENCE


# --- ranks and means ---


def test_ranking(make_study: MakeStudy) -> None:
    strength = {"qvit": 2.0, "vit": 1.0, "cosine": 0.2}
    text = "datasets: [a.npz, b.npz]\nmodels: {kind: [cosine, qvit, vit]}\nseeds: 2"
    results = load_results(make_study(text, skill=lambda job: strength[job.model.kind], images=60))
    found = ranking(results, "auc")
    assert found is not None
    arms, ranks, differ = found
    assert [arm.kind for arm in arms] == ["cosine", "qvit", "vit"]
    assert ranks.mean_ranks == (3, 1, 2)
    assert (differ.f, differ.f_p) == (math.inf, 0)  # both datasets rank them alike
    lacking = replace(results, cells={key: cell for key, cell in results.cells.items() if key != ("b", arms[0])})
    assert [arm.kind for arm in (ranking(lacking, "auc") or ([],))[0]] == ["qvit", "vit"]
    assert ranking(replace(results, tests=results.tests[:1]), "auc") is None
    assert ranking(results, "auc", "kd") is None


def test_means(make_study: MakeStudy) -> None:
    results = load_results(make_study(TWO.format("[a.npz, b.npz]", 3), skill=skills(2.0, 1.0)))
    values = [np.mean(cell.values("acc")) for cell in results.cells.values()]
    assert means(results, results.arms, "acc", results.tests) == pytest.approx(np.mean(values))
    first = next(iter(results.cells))
    lacking = replace(results, cells={key: cell for key, cell in results.cells.items() if key != first})
    assert means(lacking, results.arms, "acc", results.tests) is None
    assert means(results, [], "acc", results.tests) is None
    one = results.tests[:1]
    first_alone = [np.mean(cell.values("acc")) for (name, _), cell in results.cells.items() if name == one[0].name]
    assert means(results, results.arms, "acc", one) == pytest.approx(np.mean(first_alone))
