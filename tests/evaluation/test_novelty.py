"""Distances of features from what is usual."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from qvit.errors import MetricError
from qvit.evaluation.novelty import distances, familiar


def test_distances_are_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 3)) @ np.diag([1.0, 5.0, 0.1]) + 7
    usual = familiar(features)
    found = distances(usual, features[:5])
    inverse = np.linalg.inv(np.cov(features.T))
    assert found == pytest.approx([mahalanobis(row, features.mean(axis=0), inverse) for row in features[:5]], rel=0.05)
    assert distances(usual, usual.mean[None])[0] == 0


def test_features_that_never_vary_are_no_trouble() -> None:
    features = np.tile([1.0, 2.0], (10, 1))
    features[:, 0] += np.arange(10)
    found = distances(familiar(features), np.array([[5.5, 2.0], [5.5, 3.0]]))
    assert np.isfinite(found).all()
    assert found[1] > found[0]


def test_one_image_tells_nothing() -> None:
    with pytest.raises(MetricError, match="cannot be learnt from 1 image"):
        familiar(np.zeros((1, 3)))
