"""Ranks of many models: scipy and Demšar's paper as oracles, groups by brute force, and what is refused."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qvit.errors import MetricError
from qvit.evaluation.ranking import Friedman, critical_difference, friedman, rank

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32)

# Demšar 2006, table 6: AUC of C4.5 with and without choosing m, cf, or both, on 14 datasets. His ranks tell apart the
# last two of the 13th dataset, both printed as 0.975.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_demsars_example() -> None:
    ranking = rank(DEMSAR)
    assert ranking.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert critical_difference(4, 14, level=0.9) == pytest.approx(1.12, abs=5e-3)
    assert ranking.critical_difference == pytest.approx(1.25, abs=5e-3)
    # The paper's chi-square, 9.28, leaves ties uncorrected. Ours is that over 1 - Σ(t³ - t)/(N (k³ - k)): three pairs
    # and one four are tied.
    result = friedman(DEMSAR)
    assert result.chi_square * (1 - (3 * 6 + 60) / (14 * 60)) == pytest.approx(9.28, abs=5e-3)


@pytest.mark.parametrize("steps", [3, 10**6])
@pytest.mark.parametrize(("datasets", "models"), [(2, 3), (7, 5), (13, 11)])
def test_friedman_is_scipys(datasets: int, models: int, steps: int) -> None:
    values = np.round(np.random.default_rng(models).random((datasets, models)) * steps)
    expected, result = stats.friedmanchisquare(*values.T), friedman(values)
    assert result.chi_square == pytest.approx(expected.statistic)
    assert result.chi_square_p == pytest.approx(expected.pvalue)
    f = (datasets - 1) * result.chi_square / (datasets * (models - 1) - result.chi_square)
    assert result.f == pytest.approx(f)
    assert result.f_p == pytest.approx(stats.f.sf(f, models - 1, (models - 1) * (datasets - 1)))


def test_f_is_that_of_an_analysis_of_variance_of_ranks() -> None:
    # Iman and Davenport's F is that of ranks in a two-way layout, which needs no formula of chi-square's.
    values = np.random.default_rng(1).integers(0, 4, (9, 4))
    ranks = stats.rankdata(-values, axis=1)
    of_models, grand = ranks.mean(axis=0), ranks.mean()
    between = 9 * ((of_models - grand) ** 2).sum() / 3
    within = ((ranks - of_models - ranks.mean(axis=1)[:, np.newaxis] + grand) ** 2).sum() / (3 * 8)
    assert friedman(values).f == pytest.approx(between / within)


def test_the_ends_of_friedman() -> None:
    assert friedman(np.ones((5, 3))) == Friedman(0.0, 1.0, 0.0, 1.0)
    for models, datasets in itertools.product((2, 3, 6, 7), (2, 3, 7)):
        same = friedman(np.tile(np.arange(models), (datasets, 1)))
        assert (same.f, same.f_p) == (math.inf, 0.0)
        assert same.chi_square == pytest.approx(datasets * (models - 1))
    tied = friedman([[3, 1, 1], [5, 2, 2], [9, 8, 8]])
    assert (tied.f, tied.f_p) == (math.inf, 0.0), "full agreement, ties and all"


@pytest.mark.parametrize(
    ("models", "at_95", "at_90"),
    [(2, 1.960, 1.645), (3, 2.343, 2.052), (4, 2.569, 2.291), (5, 2.728, 2.459), (7, 2.949, 2.693), (10, 3.164, 2.920)],
)
def test_quantiles_are_demsars(models: int, at_95: float, at_90: float) -> None:
    unit = math.sqrt(models * (models + 1) / (6 * 13))
    assert critical_difference(models, 13) == pytest.approx(at_95 * unit, abs=1.1e-3 * unit)
    assert critical_difference(models, 13, level=0.9) == pytest.approx(at_90 * unit, abs=1.1e-3 * unit)


def test_better_is_ranked_first_and_ties_share() -> None:
    values = [[0.9, 0.8, 0.8, 0.7], [0.5, 0.9, 0.5, 0.5]]
    assert rank(values).mean_ranks == (2.0, 1.75, 2.75, 3.5)


def test_groups_by_hand() -> None:
    # 30 datasets that agree: ranks 1 to 5, difference 1.11, so that neighbours alone cannot be told apart.
    values = np.tile([0.1, 0.5, 0.3, 0.4, 0.2], (30, 1))
    assert rank(values).cliques == ((1, 3), (3, 2), (2, 4), (4, 0))
    assert rank(np.tile(values, (2, 1))).cliques == (), "0.79: all differ"
    assert rank(values[:2]).cliques == ((1, 3, 2, 4, 0),), "4.3: none differs"
    assert rank(np.ones((4, 3))).cliques == ((0, 1, 2),)


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, datasets=st.integers(2, 40), models=st.integers(2, 6), pull=st.floats(0, 3))
def test_groups_are_all_largest_ones(seed: int, datasets: int, models: int, pull: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=(datasets, models)) + pull * np.arange(models), 1)
    ranking = rank(values)
    means = ranking.mean_ranks
    assert sum(means) == pytest.approx(models * (models + 1) / 2)
    alike = [
        set(group)
        for size in range(2, models + 1)
        for group in itertools.combinations(range(models), size)
        if max(means[i] for i in group) - min(means[i] for i in group) < ranking.critical_difference
    ]
    largest = [group for group in alike if not any(group < other for other in alike)]
    assert sorted(map(sorted, ranking.cliques)) == sorted(map(sorted, largest))
    for group in ranking.cliques:
        assert [means[i] for i in group] == sorted(means[i] for i in group)
    firsts = [means[group[0]] for group in ranking.cliques]
    assert firsts == sorted(firsts)


@pytest.mark.long
@given(seed=SEEDS, datasets=st.integers(2, 9), models=st.integers(2, 7))
@settings(max_examples=8, deadline=None)
def test_only_the_order_within_a_row_counts(seed: int, datasets: int, models: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (datasets, models)).astype(float)
    stretched = np.exp(values) * rng.uniform(1, 9, (datasets, 1)) + rng.normal(size=(datasets, 1))
    order = rng.permutation(models)
    assert friedman(stretched) == friedman(values)
    assert rank(values[:, order]).mean_ranks == tuple(rank(values).mean_ranks[i] for i in order)
    assert rank(values[rng.permutation(datasets)]).mean_ranks == rank(values).mean_ranks


def test_a_level_bites() -> None:
    values = np.tile([0.1, 0.5, 0.3], (9, 1))
    assert rank(values, level=0.9).critical_difference < rank(values).critical_difference
    assert (rank(values, level=0.9).level, rank(values, level=0.9).cliques) == (0.9, ()), "0.97 apart"
    assert rank(values).cliques == ((1, 2), (2, 0)), "1.10 apart"


@pytest.mark.parametrize("test", [friedman, rank])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, 0.2], r"at least 2 datasets \(rows\) and 2 models \(columns\), but its shape is \(2,\)"),
        ([[0.1, 0.2]], r"shape is \(1, 2\)"),
        ([[0.1], [0.2]], r"shape is \(2, 1\)"),
        ([], r"shape is \(0,\)"),
        ([[0.1, 0.2], [0.1]], "rows of one length"),
        ([["a", "b"], ["c", "d"]], "table of numbers"),
        ([[0.1, 0.2], [0.1, math.nan]], r"finite, but dataset 1 .* has \[0\.1, nan\].*Leave out"),
    ],
)
def test_wrong_tables_are_refused(test: Any, values: Any, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        test(values)


@pytest.mark.parametrize(
    ("models", "datasets", "level", "message"),
    [
        (1, 5, 0.95, "at least 2 models and 1 dataset, but came with 1 and 5"),
        (3, 0, 0.95, "but came with 3 and 0"),
        (3, 5, 0.0, "between 0 and 1"),
    ],
)
def test_wrong_counts_are_refused(models: int, datasets: int, level: float, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        critical_difference(models, datasets, level=level)
    with pytest.raises(MetricError, match="between 0 and 1"):
        rank([[0.1, 0.2], [0.1, 0.3]], level=1.5)
