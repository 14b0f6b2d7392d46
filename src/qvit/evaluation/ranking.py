"""Ranks of many models on many datasets: do they differ at all, which ranks best, and which are not shown to differ?

A table of values has a row per dataset and a column per model; larger values are better. Only the order within a row
counts, so that datasets of different difficulty can be combined.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from qvit.errors import MetricError
from qvit.evaluation.statistics import check_level


@dataclass(frozen=True)
class Friedman:
    """Friedman's test that all models rank alike: chi-square with its p, and Iman and Davenport's F with its own.

    F is less conservative, and the one to report. It is infinite if all datasets rank the models in the same way.
    """

    chi_square: float
    chi_square_p: float
    f: float
    f_p: float


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of models, 1 being the best, and the groups of models that are not shown to differ.

    Models whose mean ranks are further apart than `critical_difference` differ. `cliques` are the largest groups of two
    or more models in which no two differ: columns of the table, in order of mean rank, the best group first. A model in
    no group differs from all others.
    """

    mean_ranks: tuple[float, ...]
    critical_difference: float
    cliques: tuple[tuple[int, ...], ...]
    level: float


def _ranks(values: ArrayLike) -> Float[np.ndarray, "d m"]:
    """Return the rank of each model on each dataset, 1 for the largest value, equal ones sharing their mean rank."""
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MetricError("A ranking needs a table of numbers, one row per dataset, all rows of one length.") from error
    if table.ndim != 2 or min(table.shape) < 2:
        raise MetricError(
            "A ranking needs a table of at least 2 datasets (rows) and 2 models (columns), "
            f"but its shape is {table.shape}."
        )
    if not np.isfinite(table).all():
        row = int(np.argmin(np.isfinite(table).all(axis=1)))
        raise MetricError(
            f"Values to rank must be finite, but dataset {row} (counted from 0) has {table[row].tolist()}. "
            "Leave out datasets that lack a model."
        )
    above = (table[:, np.newaxis, :] > table[:, :, np.newaxis]).sum(axis=2)
    equal = (table[:, np.newaxis, :] == table[:, :, np.newaxis]).sum(axis=2)
    return above + (equal + 1) / 2


def friedman(values: ArrayLike) -> Friedman:
    """Test whether models `(datasets, models)` rank alike, larger values being better.

    Chi-square and F are corrected for ties. If every dataset ranks all models equal, both are 0 and p is 1. Both p
    values are approximations, good for more than ten datasets and five models. Raises MetricError for fewer than two
    datasets or models, and values that are not finite.
    Source: Friedman 1937; Iman and Davenport 1980; Demšar 2006, section 3.2.2.
    """
    from scipy.special import chdtrc, fdtrc  # heavy, as in statistics

    ranks = _ranks(values)
    datasets, models = ranks.shape
    middle = (models + 1) / 2
    apart = float(((ranks.sum(axis=0) - datasets * middle) ** 2).sum())
    spread = float(((ranks - middle) ** 2).sum())
    if spread == 0:
        return Friedman(0.0, 1.0, 0.0, 1.0)
    chi_square = (models - 1) * apart / spread
    rest = datasets * (models - 1) - chi_square
    # Ranks are halves of integers, and sums of their squares exact: full agreement leaves a rest of exactly 0.
    f = math.inf if rest == 0 else (datasets - 1) * chi_square / rest
    f_p = 0.0 if f == math.inf else float(fdtrc(models - 1, (models - 1) * (datasets - 1), f))
    return Friedman(chi_square, float(chdtrc(models - 1, chi_square)), f, f_p)


def critical_difference(models: int, datasets: int, *, level: float = 0.95) -> float:
    """Return how far apart the mean ranks of two models must be for them to differ (Nemenyi).

    For k models and N datasets it is q sqrt(k(k + 1)/(6 N)), where q is the quantile of the studentised range of k with
    infinite degrees of freedom, divided by sqrt 2. `level` is 1 - α, for all pairs together. Raises MetricError for
    fewer than two models, fewer than one dataset, and a level outside (0, 1).
    Source: Nemenyi 1963; Demšar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets, table 5.
    """
    check_level(level)
    if models < 2 or datasets < 1:
        raise MetricError(f"Ranks need at least 2 models and 1 dataset, but came with {models} and {datasets}.")
    from scipy.stats import studentized_range  # heavy, and needed by nothing else here

    q = float(studentized_range.ppf(level, models, math.inf)) / math.sqrt(2)
    return q * math.sqrt(models * (models + 1) / (6 * datasets))


def rank(values: ArrayLike, *, level: float = 0.95) -> Ranking:
    """Rank models `(datasets, models)`, larger values being better, and group those not shown to differ.

    Differences are tested by Nemenyi's test over all pairs, which Friedman's test (`friedman`) should precede. Raises
    MetricError for fewer than two datasets or models, values that are not finite, and a level outside (0, 1).
    Source: Demšar 2006, section 3.2.2 and figure 1.
    """
    ranks = _ranks(values)
    datasets, models = ranks.shape
    distance = critical_difference(models, datasets, level=level)
    means = ranks.mean(axis=0)
    order = np.argsort(means, kind="stable").tolist()
    cliques: list[tuple[int, ...]] = []
    reached = 0  # the number of models, in order, that the groups so far reach
    for start, first in enumerate(order):
        end = start + sum(1 for other in order[start:] if means[other] - means[first] < distance)
        if end > reached and end - start > 1:
            cliques.append(tuple(order[start:end]))
        reached = max(reached, end)
    return Ranking(tuple(means.tolist()), distance, tuple(cliques), level)
