"""How far images are from those that a model was trained on, by their features."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.covariance import LedoitWolf

from qvit.errors import MetricError

_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Familiar:
    """The features of training images: their `mean` (d,), and the inverse of their covariance, `precision` (d, d)."""

    mean: Float[np.ndarray, " d"]
    precision: Float[np.ndarray, "d d"]


def familiar(features: Float[np.ndarray, "n d"]) -> Familiar:
    """Learn what features are usual; their correlations are shrunk (Ledoit and Wolf, 2004).

    A feature that never varies counts as if it varied by a millionth of what the others do on average. Raises
    MetricError for fewer than two images.
    """
    if len(features) < 2:
        raise MetricError(f"What is usual cannot be learnt from {len(features)} image.")
    values = features.astype(np.float64)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    constant = spread <= _LEAST * spread.mean()
    spread[constant] = _LEAST * spread.mean() or 1.0
    correlations = LedoitWolf(assume_centered=True).fit((values - mean) / spread).covariance_
    correlations[constant] = correlations[:, constant] = 0
    correlations[constant, constant] = 1
    return Familiar(mean, np.linalg.inv(correlations) / np.outer(spread, spread))


def distances(usual: Familiar, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Return how far each image's features are from the mean, in units of how they vary (Mahalanobis)."""
    apart = features.astype(np.float64) - usual.mean
    return np.sqrt(np.maximum(np.einsum("nd,de,ne->n", apart, usual.precision, apart), 0.0))
