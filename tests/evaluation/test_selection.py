"""Choosing the best of many: halving and its bootstrap against plain loops, what they promise against simulations."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from qvit.evaluation.metrics import auc
from qvit.evaluation.selection import (
    Rung,
    bias_corrected,
    errors_of,
    folds_error,
    front,
    halved,
    mean_of,
    survivors,
)
from qvit.evaluation.statistics import draw_counts, folds_interval

Z = 1.959964


def kept_by_hand(scores: list[float], going: list[bool], number: int) -> list[bool]:
    order = sorted(range(1, len(scores)), key=lambda i: (-(scores[i] if scores[i] == scores[i] else -9.0), i))
    best = [0, *(i for i in order if going[i])][:number]
    return [going[i] and (i in best) for i in range(len(scores))]


def test_the_better_ones_and_the_first_go_on() -> None:
    rng = np.random.default_rng(0)
    for number in (1, 2, 4, 9):
        scores = rng.integers(0, 4, (7, 30)) / 4.0  # ties
        scores[rng.random((7, 30)) < 0.2] = np.nan
        going = rng.random((7, 30)) < 0.8
        going[0] = True
        found = survivors(scores, going, number)
        for column in range(30):
            by_hand = kept_by_hand(scores[:, column].tolist(), going[:, column].tolist(), number)
            assert found[:, column].tolist() == by_hand


def chosen_by_hand(scores: Any, rungs: list[Rung], first: bool) -> int:
    """Return who wins, for scores of candidates on folds, None where there is none."""

    def mean(i: int, folds: int) -> float:
        known = [value for value in scores[i][:folds] if value == value]
        return sum(known) / len(known) if known else float("nan")

    going = [True] * len(scores)
    for last, rung in pairwise(rungs):
        going = kept_by_hand([mean(i, last.folds) for i in range(len(scores))], going, rung.entrants)
    final = [mean(i, rungs[-1].folds) for i in range(len(scores))]
    able = [i for i in range(len(scores)) if going[i] and final[i] == final[i] and (first or i)]
    return max(able, key=lambda i: (final[i], -i))


@pytest.mark.parametrize("first", [True, False])
def test_halving_is_that_of_a_plain_loop(first: bool) -> None:
    rng = np.random.default_rng(1)
    rungs = [Rung(2, 6), Rung(3, 4), Rung(7, 2)]
    scores = rng.integers(0, 5, (6, 8, 40)) / 8.0  # the last fold is on no rung
    scores[3, 2:] = np.nan
    scores[:, 0, :5] = np.nan
    found = halved(scores, rungs, first=first)
    assert found.tolist() == [chosen_by_hand(scores[:, :, r], rungs, first) for r in range(40)]


def test_a_mean_leaves_out_what_is_not_there() -> None:
    values = np.array([[[1.0, np.nan], [3.0, np.nan]]])
    assert np.array_equal(mean_of(values), [[2.0, np.nan]], equal_nan=True)


def made(candidates: int, folds: int, divisions: int, images: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return labels, places fold by fold, and scores of candidates, some of them dropped after a division."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(images) % 3 == 0).astype(np.int64)[:, None]
    rows = [np.sort(part) for _ in range(divisions) for part in np.array_split(rng.permutation(images), folds)]
    scores = []
    for candidate in range(candidates):
        last = folds if candidate % 3 == 2 else len(rows)
        told = [1 / (1 + np.exp(-rng.normal(labels[place, 0], 1.5))) for place in rows]
        scores.append([np.stack([1 - p, p], 1) if j < last else None for j, p in enumerate(told)])
    return labels, rows, scores


def area(labels: Any, scores: Any, weights: Any) -> float:
    there = labels[weights > 0]
    return float(roc_auc_score(labels, scores, sample_weight=weights)) if len(set(there.tolist())) > 1 else np.nan


@pytest.mark.parametrize("grouped", [False, True])
def test_the_bootstrap_is_that_of_a_plain_loop(grouped: bool) -> None:
    labels, rows, scores = made(5, 4, 2, 120)
    groups = np.arange(120) // 2 if grouped else None
    rungs = [Rung(4, 5), Rung(6, 3), Rung(8, 2)]
    owner = np.arange(120) if groups is None else groups
    drawn = np.concatenate(list(draw_counts(int(owner.max()) + 1, resamples=6, seed=7)))[:, owner]
    left, leads, winners = [], [], []
    for counts in drawn:
        tables = []
        for weights in (counts, (counts == 0).astype(int)):
            table = [
                [
                    np.nan if s is None else area(labels[r, 0], s[:, 1], weights[r])
                    for r, s in zip(rows, of, strict=True)
                ]
                for of in scores
            ]
            tables.append(np.array(table))
        winner = chosen_by_hand(tables[0], rungs, first=True)
        winners.append(winner)
        left.append(np.nanmean(tables[1][winner][:4]))  # on the first rung
        leads.append(left[-1] - np.nanmean(tables[1][0][:4]))
    found = bias_corrected(labels, "binary", rows, scores, rungs, groups=groups, resamples=6, seed=7)
    assert found.value == pytest.approx(np.mean(left), abs=1e-12)
    assert found.gain == pytest.approx(np.mean(leads), abs=1e-12)
    assert found.chosen == tuple(np.bincount(winners, minlength=5) / 6)
    other = bias_corrected(labels, "binary", rows, scores, rungs, groups=groups, resamples=6, seed=7, first=False)
    assert other.chosen[0] == 0.0


@pytest.mark.slow("tunes thirty times among twenty equal candidates")
def test_the_best_of_equals_looks_better_than_it_is_and_the_correction_takes_that_off() -> None:
    """Twenty candidates of the same true AUC, 0.76: the best mean is far above it, the corrected value is not."""
    true, naive, corrected, rungs = 0.7602, [], [], [Rung(5, 20), Rung(10, 7)]
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = (np.arange(160) % 2)[:, None]
        shared = rng.normal(labels[:, 0], 0.7)  # what all candidates see in an image
        own = rng.normal(0, 0.5, (20, 160))  # what each of them sees, whenever it is trained
        rows = [np.sort(part) for _ in range(2) for part in np.array_split(rng.permutation(160), 5)]
        told = shared + own[:, None] + rng.normal(0, np.sqrt(1 - 0.49 - 0.25), (20, 2, 160))  # variance 1 in a class
        every = 1 / (1 + np.exp(-told))
        scores: Any = [[every[i, j // 5, place][:, None] for j, place in enumerate(rows)] for i in range(20)]
        values = np.array([[[auc(labels[p], s, "binary")] for p, s in zip(rows, of, strict=True)] for of in scores])
        naive.append(values[halved(values, rungs)[0]].mean() - true)
        better = survivors(mean_of(values[:, :5]), np.ones((20, 1), bool), 7)[:, 0]
        scores = [of if goes else [*of[:5], *[None] * 5] for of, goes in zip(scores, better, strict=True)]
        found = bias_corrected(labels, "binary", rows, scores, rungs, resamples=40, seed=seed)
        corrected.append(found.value - true)
    error = np.std(corrected, ddof=1) / np.sqrt(30)
    assert abs(np.mean(corrected)) < 2.5 * error
    assert np.mean(naive) > 4 * error


def test_the_error_of_a_mean_over_folds_is_that_of_its_interval() -> None:
    values = [0.7, 0.75, 0.72, 0.8, 0.69, 0.71]
    interval, error = folds_interval(values, 3), folds_error(values, 3)
    assert error is not None
    assert interval.high is not None
    assert interval.high - interval.value == pytest.approx(2.570582 * error, rel=1e-6)  # Student's t, 5 degrees
    assert folds_error([0.7], 3) is None


def binormal(rng: np.random.Generator, images: int) -> tuple[Any, Any]:
    labels = (np.arange(images) % 4 == 0).astype(np.int64)
    return labels, 1 / (1 + np.exp(-rng.normal(1.2 * labels, 1.0)))


@pytest.mark.long
@pytest.mark.parametrize("grouped", [False, True])
def test_a_reading_is_as_far_off_as_it_is_said(grouped: bool) -> None:
    """A fixed rule is measured on folds and on test images, again and again: the spread of the difference is known."""
    rng, told, gaps = np.random.default_rng(3), [], []
    size = 3 if grouped else 1
    for _ in range(150):
        labels, scores = binormal(rng, 200)
        labels, scores = np.repeat(labels, size), np.repeat(scores, size)  # a group holds copies of one image
        rows = [np.flatnonzero(np.arange(200 * size) // size % 5 == fold) for fold in range(5)] * 2
        groups = np.arange(200 * size) // size if grouped else None
        told.append(
            errors_of(
                labels[:, None], "binary", rows, [scores[place][:, None] for place in rows], images=100 * size, folds=5,
                groups=groups,
            ).reading
        )  # fmt: skip
        other, test = binormal(rng, 100)
        mean = np.mean([auc(labels[place], scores[place], "binary") for place in rows])
        gaps.append(mean - auc(other, test, "binary"))
    assert np.mean(told) == pytest.approx(np.std(gaps), rel=0.15)


def test_more_seeds_leave_less_to_the_training() -> None:
    rng = np.random.default_rng(5)
    labels = (np.arange(60) % 2)[:, None]
    rows = [part for _ in range(3) for part in np.split(rng.permutation(60), 2)]
    scores = [rng.random((30, 1)) for _ in rows]
    one, many = (errors_of(labels, "binary", rows, scores, images=30, seeds=n, folds=2) for n in (1, 1000))
    values = np.array([roc_auc_score(labels[r, 0], s[:, 0]) for r, s in zip(rows, scores, strict=True)])
    means = values.reshape(3, 2).mean(axis=1)
    assert one.reading**2 - many.reading**2 == pytest.approx(2 * np.var(means, ddof=1) * (1 - 1 / 1000))
    alone = errors_of(labels, "binary", rows, scores, images=30)  # as if each fold were a division
    assert one.expected == many.expected
    assert one.expected**2 - alone.expected**2 == pytest.approx(np.var(means, ddof=1) / 3 - np.var(values, ddof=1) / 6)


def test_the_front_is_who_nobody_smaller_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes, values = rng.integers(1, 9, 12).tolist(), (rng.integers(0, 9, 12) / 8).tolist()
        found = front(sizes, values)
        for place in range(12):
            beaten = [
                k for k in range(12)
                if sizes[k] <= sizes[place] and (values[k], -sizes[k], -k) > (values[place], -sizes[place], -place)
            ]  # fmt: skip
            assert (place in found) == (not beaten)
        assert [sizes[k] for k in found] == sorted(sizes[k] for k in found)
