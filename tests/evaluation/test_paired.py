"""Comparisons: naive double loops, scipy and published formulas as oracles, symmetries, and what is refused."""

import itertools
import math
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.arms import Array, make_arms, measure, naive_delong
from qvit.errors import MetricError
from qvit.evaluation.metrics import AbsentClassWarning, accuracy, auc, decide
from qvit.evaluation.paired import (
    Comparison,
    compare_arms,
    contrast,
    delong_test,
    hedges_g,
    holm,
    mcnemar_test,
    mean_comparison,
    permutation_test,
    seeds_test,
    superiority,
)

TASKS = ("binary", "multi-class", "multi-label", "ordinal")
METRICS = ("auc", "acc")
SEEDS = st.integers(0, 2**32)


# --- DeLong ---


@pytest.mark.usefixtures("few_will_do")
def test_delong_by_hand() -> None:
    # Positives score 0.6, 0.9 and negatives 0.1, 0.7: AUC 3/4, V10 = (1/2, 1), V01 = (1, 1/2), variance 1/16 + 1/16.
    # The other model is always right, so the variance of the difference is that of the first.
    labels = [0, 0, 1, 1]
    comparison = delong_test(labels, [0.1, 0.7, 0.6, 0.9], [0.1, 0.2, 0.8, 0.9], "binary")
    assert comparison.difference == -0.25
    assert comparison.high == pytest.approx(-0.25 + 1.959964 * math.sqrt(1 / 8), abs=1e-6)
    assert comparison.p == pytest.approx(2 * stats.norm.sf(0.25 * math.sqrt(8)))


def test_an_absent_class_is_left_out_with_one_warning() -> None:
    labels, arms = make_arms("multi-class", seed=7)
    kept = labels != 2
    rest = [arm[:, kept] for arm in arms]
    with pytest.warns(AbsentClassWarning, match="without class 2") as caught:
        comparison = compare_arms(labels[kept], rest[0], rest[1], "multi-class")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsentClassWarning)
        means = [np.mean([auc(labels[kept], scores, "multi-class") for scores in arm]) for arm in rest]
    assert comparison.difference == pytest.approx(means[0] - means[1], abs=1e-12)


# --- accuracy of two models ---


@pytest.mark.parametrize(
    "counts", [(9, 2, 20, 10), (3, 3, 5, 5), (0, 6, 3, 1), (1, 0, 3, 1), (41, 60, 300, 9), (2050, 1950, 9, 9)]
)
def test_mcnemar_is_the_binomial_test(counts: tuple[int, int, int, int]) -> None:
    better, worse = counts[:2]
    right_a = np.repeat([1, 0, 1, 0], counts)
    right_b = np.repeat([0, 1, 1, 0], counts)
    labels, images = np.ones(sum(counts), dtype=int), sum(counts)
    expected = stats.binomtest(better, better + worse).pvalue
    exact = mcnemar_test(labels, right_a * 0.8, right_b * 0.8, "binary", mid=False)
    assert exact.p == pytest.approx(expected, rel=1e-10)
    assert exact.difference == (better - worse) / images
    permuted = permutation_test(labels, right_a * 0.8, right_b * 0.8, "binary")
    assert permuted.p == pytest.approx(expected, rel=1e-10)
    mid = mcnemar_test(labels, right_a * 0.8, right_b * 0.8, "binary")
    observed = stats.binom.pmf(better, better + worse, 0.5)
    assert mid.p == pytest.approx(expected - observed * (0.5 if better == worse else 1), rel=1e-10)
    assert (exact.method, mid.method, permuted.method) == ("McNemar, exact", "McNemar, mid-p", "permutation")


def test_bonett_and_prices_interval_by_hand() -> None:
    # 8 images of 30 are one model's and 2 the other's: (9 - 3)/32 ± z sqrt((12/32 - (6/32)²)/32).
    right = np.repeat([[1, 0], [0, 1], [1, 1]], [8, 2, 20], axis=0) * 0.9
    comparison = mcnemar_test(np.ones(30, dtype=int), right[:, 0], right[:, 1], "binary", level=0.9)
    half = 1.6448536 * math.sqrt((0.375 - 0.1875**2) / 32)
    assert (comparison.low, comparison.high) == pytest.approx((0.1875 - half, 0.1875 + half), abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_multi_label_permutations_are_all_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (9, 3))
    ours, theirs = rng.random((9, 3)), rng.random((9, 3))
    advantage = ((decide(ours, "multi-label") == labels).sum(1) - (decide(theirs, "multi-label") == labels).sum(1)) / 27
    reached = [abs(sum(signs * advantage)) for signs in itertools.product([-1, 1], repeat=9)]
    comparison = permutation_test(labels, ours, theirs, "multi-label")
    assert comparison.p == pytest.approx(np.mean(np.array(reached) >= abs(advantage.sum()) - 1e-12), abs=1e-12)
    assert comparison.difference == pytest.approx(
        accuracy(labels, ours, "multi-label") - accuracy(labels, theirs, "multi-label"), abs=1e-12
    )
    error = float(stats.sem(9 * advantage))
    assert comparison.high - comparison.difference == pytest.approx(1.959964 * error, rel=1e-6)


@pytest.mark.parametrize("test", [mcnemar_test, permutation_test])
def test_models_that_never_disagree_do_not_differ(test: Callable[..., Comparison]) -> None:
    comparison = test([0, 1, 1], [0.1, 0.4, 0.9], [0.4, 0.3, 0.7], "binary")
    assert (comparison.difference, comparison.p) == (0.0, 1.0)
    assert comparison.low <= 0 <= comparison.high


# --- seeds, and seeds with images ---


@pytest.mark.parametrize("seeds", [2, 5, 10])
def test_seeds_test_is_scipys(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    ours, theirs = rng.normal(0.8, 0.02, seeds).tolist(), rng.normal(0.79, 0.03, seeds).tolist()
    expected = stats.ttest_rel(ours, theirs)
    comparison = seeds_test(ours, theirs, level=0.9)
    ends = expected.confidence_interval(0.9)
    assert comparison.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (comparison.low, comparison.high) == pytest.approx((ends.low, ends.high), rel=1e-9)
    assert (comparison.df, comparison.method) == (seeds - 1, "seeds")


def test_seeds_that_all_differ_alike() -> None:
    assert seeds_test([0.5, 0.75], [0.5, 0.75]) == Comparison(0.0, 0.0, 0.0, 1.0, 0.95, 1, "seeds")
    assert seeds_test([0.75, 1.0], [0.5, 0.75]) == Comparison(0.25, 0.25, 0.25, 0.0, 0.95, 1, "seeds")


def naive_hillis(labels: Array, arms: list[Array], metric: str) -> tuple[float, float, float, float]:
    """Return difference, its standard error, df and p, from the published formulas for 2 modalities and S readers.

    MS(T), MS(T·R), Cov2 (two readers, one modality) and Cov3 (two readers, two modalities), each covariance by itself.
    """
    seeds = len(arms[0])
    theta = np.array([[measure(metric)(labels, scores, "binary") for scores in arm] for arm in arms])
    everything = [scores for arm in arms for scores in arm]
    if metric == "auc":
        covariance = naive_delong(labels, everything)[1]
    else:
        right = np.stack([(scores > 0.5) == labels for scores in everything])
        covariance = np.cov(right) / len(labels)
    pairs = [(s, t) for s in range(seeds) for t in range(seeds) if s != t]
    cov2 = np.mean([covariance[m * seeds + s, m * seeds + t] for m in range(2) for s, t in pairs])
    cov3 = np.mean([covariance[s, seeds + t] for s, t in pairs])
    grand, of_arm, of_seed = theta.mean(), theta.mean(axis=1), theta.mean(axis=0)
    ms_t = seeds * sum((mean - grand) ** 2 for mean in of_arm)
    residues = theta - of_arm[:, np.newaxis] - of_seed + grand
    ms_tr = (residues**2).sum() / (seeds - 1)
    below = ms_tr + max(seeds * (cov2 - cov3), 0)
    df = below**2 / (ms_tr**2 / (seeds - 1))
    return of_arm[0] - of_arm[1], math.sqrt(2 * below / seeds), df, stats.f.sf(ms_t / below, 1, df)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(4))
def test_arms_are_compared_as_obuchowski_rockette_and_hillis_do(metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 45)
    shared = rng.normal(0, 1.2 if seed % 2 else 0.0, (2, 1, 45))  # without it, c is as often below 0 as above
    latent = 0.8 * labels - 0.4 + shared + rng.normal(0, 0.8, (2, 4, 45)) + rng.normal(0, 0.3, (2, 4, 1)) * labels
    arms = list(np.round(1 / (1 + np.exp(-latent)), 2))
    difference, error, df, p = naive_hillis(labels, arms, metric)
    comparison = compare_arms(labels, arms[0], arms[1], "binary", metric=metric)
    assert comparison.difference == pytest.approx(difference, abs=1e-12)
    assert comparison.p == pytest.approx(p, rel=1e-8)
    assert comparison.df == pytest.approx(df, rel=1e-8)
    assert comparison.high - comparison.low == pytest.approx(2 * stats.t.ppf(0.975, df) * error, rel=1e-8)
    assert comparison.method == "seeds and images"
    assert (df > 3.001) or seed % 2 == 0, "the images count where they are shared"


@pytest.mark.usefixtures("few_will_do")
def test_a_covariance_below_nothing_is_none() -> None:
    # No image is wrongly decided by two seeds: what one seed loses by an image, the others gain.
    ours, theirs = np.full((3, 7), 0.9), np.full((3, 7), 0.8)
    ours[0, 0] = ours[1, 1:3] = ours[2, 3:6] = 0.1
    assert (np.cov(ours > 0.5) - np.diag(np.var(ours > 0.5, axis=1, ddof=1)) <= 1e-12).all()
    comparison = compare_arms(np.ones(7, dtype=int), ours, theirs, "binary", metric="acc")
    alone = seeds_test([6 / 7, 5 / 7, 4 / 7], [1.0, 1.0, 1.0])
    assert (comparison.p, comparison.low, comparison.high) == pytest.approx((alone.p, alone.low, alone.high))
    assert comparison.df == 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", METRICS)
def test_one_seed_falls_back_to_the_images(task: str, metric: str) -> None:
    labels, (ours, theirs) = make_arms(task, seed=11, seeds=1)
    comparison = compare_arms(labels, ours, theirs, task, metric=metric)
    alone = (delong_test if metric == "auc" else permutation_test)(labels, ours[0], theirs[0], task)
    found = (comparison.difference, comparison.low, comparison.high)
    assert found == pytest.approx((alone.difference, alone.low, alone.high), abs=1e-12)
    assert (comparison.df, comparison.method) == (None, "images")
    if metric == "auc":
        assert comparison.p == pytest.approx(alone.p)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_identical_predictions_do_not_differ(seeds: int, metric: str) -> None:
    labels, (arm,) = make_arms("multi-class", seeds=seeds, arms=1)
    comparison = compare_arms(labels, arm, arm, "multi-class", metric=metric)
    assert (comparison.difference, comparison.low, comparison.high, comparison.p) == (0.0, 0.0, 0.0, 1.0)


def test_seeds_that_are_one_and_the_same_model_leave_the_images() -> None:
    labels, (ours, theirs) = make_arms("ordinal", seed=12, seeds=1)
    copies = [np.repeat(arm, 3, axis=0) for arm in (ours, theirs)]
    comparison, alone = compare_arms(labels, *copies, "ordinal"), delong_test(labels, ours[0], theirs[0], "ordinal")
    assert comparison.p == pytest.approx(alone.p)
    assert comparison.df is None


def test_endless_images_leave_the_seeds() -> None:
    # Accuracy of arms that are always right but for a share of each seed's own.
    labels = np.ones(200_000, dtype=int)
    ours, theirs = (np.full((4, len(labels)), 0.9) for _ in range(2))
    shares = [[0.1, 0.13, 0.08, 0.12], [0.14, 0.12, 0.11, 0.17]]
    rng = np.random.default_rng(13)
    for arm, wrong in zip((ours, theirs), shares, strict=True):
        for scores, share in zip(arm, wrong, strict=True):
            scores[rng.permutation(len(labels))[: round(share * len(labels))]] = 0.1
    comparison = compare_arms(labels, ours, theirs, "binary", metric="acc")
    alone = seeds_test(shares[1], shares[0])
    assert comparison.difference == pytest.approx(alone.difference, abs=1e-12)
    assert comparison.p == pytest.approx(alone.p, rel=0.01)
    assert comparison.df == pytest.approx(3, rel=0.01)


# --- contrasts ---


@pytest.mark.parametrize("metric", METRICS)
def test_a_difference_of_differences(metric: str) -> None:
    labels, arms = make_arms("ordinal", seed=14, arms=4)
    comparison = contrast(labels, arms, (1, -1, -1, 1), "ordinal", metric=metric)
    pairs = [compare_arms(labels, *pair, "ordinal", metric=metric) for pair in (arms[:2], arms[2:])]
    assert comparison.difference == pytest.approx(pairs[0].difference - pairs[1].difference, abs=1e-12)
    again = contrast(labels, [*arms[:2], arms[0], arms[1]], (1, -1, -1, 1), "ordinal", metric=metric)
    assert (again.difference, again.p) == (0.0, 1.0), "both gain the same"
    doubled = contrast(labels, arms[:2], (2, -2), "ordinal", metric=metric)
    assert doubled.difference == pytest.approx(2 * pairs[0].difference)
    assert (doubled.p, doubled.df) == pytest.approx((pairs[0].p, pairs[0].df))
    mean_of_two = contrast(labels, arms[:3], (1, -0.5, -0.5), "ordinal", metric=metric)
    against = [np.mean([measure(metric)(labels, scores, "ordinal") for scores in arm]) for arm in arms[:3]]
    assert mean_of_two.difference == pytest.approx(against[0] - (against[1] + against[2]) / 2, abs=1e-12)


def test_images_are_sorted_and_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many images take about four times as many numbers; comparing all pairs would take sixteen."""
    made: list[int] = []
    for name in ("sort", "searchsorted", "argsort", "unique"):
        real = getattr(np, name)

        def noted(*arguments: Any, real: Any = real, **options: Any) -> Any:
            found = real(*arguments, **options)
            made.append(sum(np.size(one) for one in (found if isinstance(found, tuple) else (found,))))
            return found

        monkeypatch.setattr(np, name, noted)
    peaks = []
    for images in (250, 1000):
        labels, (ours, theirs) = make_arms("multi-class", images=images, seeds=3)
        made.clear()
        tracemalloc.start()
        compare_arms(labels, ours, theirs, "multi-class")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        # A sort and a search for each side of each of 3 classes of 2 × 3 models, and what else is done once.
        assert 2 * 3 * 3 * 3 * images < sum(made) + 2 * 3 * 3 * 3 * images < 12 * 3 * 3 * 2 * images
    assert peaks[1] < 8 * peaks[0]
    assert peaks[1] < 8 * 1000 * 1000, "one number for each pair"


# --- properties ---

Test = Callable[..., Comparison]


def of_arms(metric: str) -> Test:
    return lambda labels, a, b, task: compare_arms(labels, a, b, task, metric=metric)


def of_models(test: Test) -> Test:
    return lambda labels, a, b, task: test(labels, a[0], b[0], task)


COMPARED: dict[str, Test] = {
    "arms, AUC": of_arms("auc"),
    "arms, ACC": of_arms("acc"),
    "DeLong": of_models(delong_test),
    "McNemar": of_models(mcnemar_test),
    "permutation": of_models(permutation_test),
}


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=5, deadline=None)
@given(seed=SEEDS, images=st.integers(113, 137))
def test_swapping_flips_the_sign_and_order_is_nothing(name: str, task: str, seed: int, images: int) -> None:
    if name == "McNemar" and task == "multi-label":
        return
    labels, (ours, theirs) = make_arms(task, seed=seed, seeds=2, images=images)
    test = COMPARED[name]
    there, back = test(labels, ours, theirs, task), test(labels, theirs, ours, task)
    assert (there.difference, there.p, there.df) == (-back.difference, back.p, back.df)
    assert (there.low, there.high) == (-back.high, -back.low)
    assert there.low <= there.difference <= there.high or name == "McNemar"
    assert 0 <= there.p <= 1
    order = np.random.default_rng(seed).permutation(images)
    moved = test(labels[order], ours[:, order], theirs[:, order], task)
    found, expected = ([each.difference, each.low, each.high, each.p] for each in (moved, there))
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["arms, AUC", "arms, ACC"])
def test_order_of_seeds_matters_in_pairs_only(name: str) -> None:
    labels, (ours, theirs) = make_arms("multi-class", seed=15)
    test, order = COMPARED[name], [2, 0, 3, 1]
    first, moved = test(labels, ours, theirs, "multi-class"), test(labels, ours[order], theirs[order], "multi-class")
    assert (first.p, first.df) == pytest.approx((moved.p, moved.df))
    assert test(labels, ours[order], theirs, "multi-class").p != pytest.approx(first.p)


@pytest.mark.parametrize("name", COMPARED)
def test_the_level_widens_the_interval_and_no_more(name: str) -> None:
    labels, (ours, theirs) = make_arms("binary", seed=16)
    wide: Test = {
        "arms, AUC": lambda: compare_arms(labels, ours, theirs, "binary", level=0.99),
        "arms, ACC": lambda: compare_arms(labels, ours, theirs, "binary", metric="acc", level=0.99),
        "DeLong": lambda: delong_test(labels, ours[0], theirs[0], "binary", level=0.99),
        "McNemar": lambda: mcnemar_test(labels, ours[0], theirs[0], "binary", level=0.99),
        "permutation": lambda: permutation_test(labels, ours[0], theirs[0], "binary", level=0.99),
    }[name]
    wider, narrow = wide(), COMPARED[name](labels, ours, theirs, "binary")
    assert (wider.p, wider.difference, wider.level) == (narrow.p, narrow.difference, 0.99)
    assert wider.low < narrow.low < narrow.high < wider.high


@pytest.mark.long
def test_interval_and_p_agree() -> None:
    for seed in range(10):
        labels, (ours, theirs) = make_arms("binary", seed=seed)
        comparison = compare_arms(labels, ours, theirs, "binary")
        at_p = compare_arms(labels, ours, theirs, "binary", level=1 - comparison.p)
        assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0, abs=1e-9)


# --- many comparisons, and how large ---


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= more <= 1 for p, more in zip(p_values, adjusted, strict=True))
    assert min(adjusted) == min(1.0, len(p_values) * min(p_values))
    for (p, more), (q, other) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert p != q or more == other
        assert p <= q or more >= other


def test_hedges_g_by_hand() -> None:
    # Means 3 and 2, standard deviations 1: d = 1, and J(4) = Γ(2)/(√2 Γ(1.5)) = 0.797885.
    assert hedges_g([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == pytest.approx(0.7978846, abs=1e-7)
    assert hedges_g([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]) == pytest.approx(-0.7978846, abs=1e-7)
    # Deviations 0 and 3 of 1 and 3 degrees of freedom: pooled sqrt(27/4), J(4) the same.
    unlike = hedges_g([5.0, 5.0], [1.0, 4.0, 4.0, 7.0])
    assert unlike == pytest.approx(0.7978846 / math.sqrt(18 / 4), abs=1e-7)


def test_hedges_g_without_spread_is_not_known() -> None:
    assert hedges_g([0.5, 0.5], [0.25, 0.25]) is None
    assert hedges_g([0.5], [0.25, 0.5]) is None
    assert hedges_g([0.25, 0.5], [0.5]) is None


def test_superiority_counts_pairs() -> None:
    assert superiority([3, 2, 1], [2, 0]) == pytest.approx((2 + 1.5 + 1) / 6)
    assert superiority([1.0, 1.0], [0.5]) == 1.0
    assert superiority([0.5], [0.5]) == 0.5
    rng = np.random.default_rng(1)
    ours, theirs = rng.integers(0, 9, 11).astype(float).tolist(), rng.integers(0, 9, 7).astype(float).tolist()
    expected = stats.mannwhitneyu(ours, theirs).statistic / 77
    assert superiority(ours, theirs) == pytest.approx(expected)
    assert superiority(ours, theirs) + superiority(theirs, ours) == pytest.approx(1)


# --- means of comparisons ---


def test_the_mean_of_comparisons_is_welchs_test() -> None:
    """Two means of one sample each, taken from each other: the sample variances are what Welch's test has."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.3, 1.0, 9), generator.normal(0.0, 2.0, 6)
    one = seeds_test(list(ours), [0.0] * 9)
    other = seeds_test(list(-theirs), [0.0] * 6)
    found = mean_comparison([one, other])
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.df == pytest.approx(expected.df, rel=1e-9)
    low, high = expected.confidence_interval()
    assert (2 * found.low, 2 * found.high) == pytest.approx((low, high), rel=1e-9)
    assert mean_comparison([one]).p == pytest.approx(one.p, rel=1e-9)


def test_a_mean_of_comparisons_needs_some_of_one_level() -> None:
    one = seeds_test([1.0, 2.0], [0.0, 0.5])
    with pytest.raises(MetricError, match="one level, but 0 came"):
        mean_comparison([])
    with pytest.raises(MetricError, match="one level, but 2 came"):
        mean_comparison([one, seeds_test([1.0, 2.0], [0.0, 0.5], level=0.9)])


@pytest.mark.usefixtures("few_will_do")
def test_rounding_of_weighted_sums_is_no_difference() -> None:
    rng = np.random.default_rng(5)
    labels, arm = np.arange(23) % 2, rng.random((2, 23))
    thirds = [1 / 3] * 3 + [-1 / 3] * 3
    same = [arm, rng.random((2, 23)), rng.random((2, 23))]
    for metric in ("auc", "acc"):
        found = contrast(labels, same + same[::-1], thirds, "binary", metric=metric)
        assert (found.difference, found.p) == (0.0, 1.0)
