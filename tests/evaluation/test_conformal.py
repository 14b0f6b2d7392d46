"""Sets of classes: the promise that they make, over all images and by class."""

import numpy as np
import pytest

from qvit.errors import MetricError
from qvit.evaluation.conformal import fewest, quantile, sets, thresholds


def test_quantiles_by_hand() -> None:
    values = np.array([0.3, 0.1, 0.2, 0.4])
    assert quantile(values, 0.5) == 0.3, "the third of four: 5 · 0.5, rounded up"
    assert quantile(values, 0.8) == 0.4
    assert quantile(values, 0.81) == np.inf
    assert quantile(np.empty(0), 0.5) == np.inf


@pytest.mark.parametrize(("coverage", "count"), [(0.9, 9), (0.5, 1), (0.95, 19), (0.99, 99)])
def test_the_fewest_images(coverage: float, count: int) -> None:
    assert fewest(coverage) == count
    assert quantile(np.arange(count) / count, coverage) == (count - 1) / count
    assert quantile(np.arange(count - 1) / count, coverage) == np.inf


@pytest.mark.parametrize("coverage", [0.0, 1.0, np.nan])
def test_a_coverage_is_a_share(coverage: float) -> None:
    with pytest.raises(MetricError, match="The coverage must be above 0 and below 1"):
        quantile(np.array([0.5]), coverage)


@pytest.mark.parametrize("by_class", [False, True])
def test_sets_hold_the_true_class_as_often_as_promised(by_class: bool) -> None:
    """The mean over many divisions lies within [0.9, 0.9 + 1/(n + 1)], by class even where the model fails."""
    rng = np.random.default_rng(0)
    count, classes, known = 300, 3, 60
    labels = np.repeat(np.arange(classes), count // classes)
    scores = rng.dirichlet(np.ones(classes), count)
    scores[labels == 0, 0] += 1  # of these it knows something
    scores /= scores.sum(axis=1, keepdims=True)
    held: list[list[float]] = []
    for _ in range(2000):
        order = np.concatenate([rng.permutation(np.flatnonzero(labels == k)) for k in range(classes)])
        first = (
            order.reshape(classes, -1)[:, : known // classes].ravel() if by_class else rng.permutation(count)[:known]
        )
        rest = np.setdiff1d(order, first)
        found = sets(scores[rest], thresholds(labels[first], scores[first], 0.9, by_class=by_class))
        right = found[np.arange(len(rest)), labels[rest]]
        held.append([right[labels[rest] == k].mean() for k in range(classes)] if by_class else [right.mean()])
    means, errors = np.mean(held, axis=0), np.std(held, axis=0) / np.sqrt(len(held))
    n = known // classes if by_class else known
    assert (means >= 0.9 - 3 * errors).all()
    assert (means <= 0.9 + 1 / (n + 1) + 3 * errors).all()


def test_a_class_with_too_few_images_is_in_every_set() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    scores = np.tile([0.99, 0.01], (23, 1))
    by_class = thresholds(labels, scores, 0.9, by_class=True)
    assert by_class.tolist() == [pytest.approx(0.01), np.inf]
    assert sets(np.array([[0.5, 0.5], [1.0, 0.0]]), by_class).tolist() == [[False, True], [True, True]]


def test_a_set_may_be_empty() -> None:
    assert not sets(np.array([[0.5, 0.5]]), np.array([0.1, 0.1])).any()
