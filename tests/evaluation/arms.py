"""Made-up arms of runs, and DeLong's covariance by loops."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qvit.evaluation.metrics import accuracy, auc

Array = np.ndarray[Any, Any]


def make_labels(task: str, rng: np.random.Generator, images: int, classes: int = 3) -> Array:
    """Return labels that hold every class at least twice."""
    if task == "multi-label":
        labels = rng.integers(0, 2, (images, classes))
        labels[:2], labels[2:4] = 0, 1
        return labels
    count = 2 if task == "binary" else classes
    return rng.permutation(np.concatenate([np.repeat(np.arange(count), 2), rng.integers(0, count, images - 2 * count)]))


def make_scores(task: str, labels: Array, rng: np.random.Generator, *, seeds: int, classes: int = 3) -> Array:
    """Return informative scores `(S, N, C)` or, for binary, `(S, N)`, some of them tied."""
    if task == "binary":
        return np.round(0.3 * labels + 0.7 * rng.random((seeds, len(labels))), 1)
    truth = labels if task == "multi-label" else labels[:, np.newaxis] == np.arange(classes)
    scores = np.round(0.3 * truth + 0.7 * rng.random((seeds, len(labels), classes)), 1)
    return scores if task == "multi-label" else (scores + 0.01) / (scores + 0.01).sum(axis=2, keepdims=True)


def make_arms(
    task: str, *, seed: int = 0, seeds: int = 4, images: int = 43, arms: int = 2
) -> tuple[Array, list[Array]]:
    rng = np.random.default_rng(seed)
    labels = make_labels(task, rng, images)
    return labels, [make_scores(task, labels, rng, seeds=seeds) for _ in range(arms)]


def measure(metric: str) -> Callable[..., float]:
    return auc if metric == "auc" else accuracy


def naive_components(positive: Array, scores: Array) -> tuple[Array, Array]:
    """Return DeLong's V10 and V01 by comparing every positive with every negative."""
    wins = np.array(
        [[(x > y) + (x == y) / 2 for y in scores[~positive]] for x in scores[positive]],
    )
    return wins.mean(axis=1), wins.mean(axis=0)


def naive_delong(labels: Array, models: list[Array]) -> tuple[Array, Array]:
    """Return AUCs and DeLong's covariance of binary models, eqs. 4 to 6 of the paper."""
    parts = [naive_components(labels == 1, scores) for scores in models]
    tens, ones = np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts])
    return tens.mean(axis=1), np.cov(tens) / tens.shape[1] + np.cov(ones) / ones.shape[1]
