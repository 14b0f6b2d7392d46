"""Sets of classes that hold the true one with a stated probability, whatever the model (split conformal prediction).

If the images to predict are drawn as those of validation were, a set holds the true class with a probability between
`coverage` and `coverage` + 1/(n + 1), over all images, or by class, for n images of validation (of that class). Source:
Vovk et al., 2005; Sadinle et al., 2019, whose sets are the smallest on average. A set may be empty, where no class is
likely enough.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from qvit.errors import MetricError


def quantile(values: Float[np.ndarray, " n"], coverage: float) -> float:
    """Return what a further value exceeds with a probability of at most 1 − `coverage`; infinity if n is too small.

    That takes n ≥ `coverage`/(1 − `coverage`) values: 9 for 0.9. Raises MetricError for a coverage outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise MetricError(f"The coverage must be above 0 and below 1, but came as {coverage}.")
    rank = int(np.ceil((len(values) + 1) * coverage - 1e-9))
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else np.inf


def fewest(coverage: float) -> int:
    """Return how many images (of a class) a coverage takes."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def thresholds(
    labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, "n c"], coverage: float, *, by_class: bool
) -> Float[np.ndarray, " c"]:
    """Return how improbable each class may be in a set, 1 − p; infinity for one that is in every set.

    Over all images they are equal; by class each is learnt from the images of that class alone.
    """
    strange = 1 - np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    classes = scores.shape[1]
    if not by_class:
        return np.full(classes, quantile(strange, coverage))
    return np.array([quantile(strange[labels == number], coverage) for number in range(classes)])


def sets(scores: Float[np.ndarray, "n c"], thresholds: Float[np.ndarray, " c"]) -> Bool[np.ndarray, "n c"]:
    """Return which classes are in the set of each image."""
    return 1 - scores <= thresholds
