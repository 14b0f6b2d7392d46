"""How much each test image moves a metric: what random images do to it, without drawing any.

Metric of the sample − metric of all images there are ≈ the sum of the influences of the sample's images. Covariances of
metrics are then sums of products of influences; for binary AUC these are DeLong's.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from qvit.errors import MetricError
from qvit.evaluation.metrics import auc, check_inputs, decide, one_vs_rest
from qvit.evaluation.statistics import check_metric


def _placements(positive: Bool[np.ndarray, " b"], scores: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Return which share of the other side each image is ranked rightly against, ties counting half, in O(b log b)."""
    above, below = scores[positive], scores[~positive]
    shares = np.empty(len(scores))
    for side, own, other in ((positive, above, np.sort(below)), (~positive, -below, np.sort(-above))):
        beaten_twice = np.searchsorted(other, own, side="left") + np.searchsorted(other, own, side="right")
        shares[side] = beaten_twice / (2 * len(other))
    return shares


def influence_of(
    truth: Int[np.ndarray, "b k"], scores: Float[np.ndarray, "b c"], task: str, metric: str
) -> tuple[float, Float[np.ndarray, " b"]]:
    """Return what `image_influence` does, for labels and scores that are known to be valid."""
    images = len(truth)
    if metric == "acc":
        right = np.mean(truth == decide(scores, task).reshape(images, -1), axis=1)
        return float(right.mean()), (right - right.mean()) / images
    positive = one_vs_rest(truth, task, classes=scores.shape[1])
    known = np.flatnonzero(positive.any(axis=0) & ~positive.all(axis=0))
    areas, influence = [], np.zeros(images)
    for column in known:
        yes = positive[:, column]
        shares = _placements(yes, scores[:, column])
        areas.append(shares[yes].mean())
        influence += (shares - areas[-1]) / np.where(yes, yes.sum(), images - yes.sum())
    return float(np.mean(areas)), influence / known.size


def image_influence(
    labels: ArrayLike, scores: ArrayLike, task: str, *, metric: str = "auc"
) -> tuple[float, Float[np.ndarray, " b"]]:
    """Return AUC or accuracy, and the influence `(N,)` of each image on it; influences sum to 0.

    Accuracy: what image i adds to the mean, (right_i - accuracy)/N; of multi-label, right_i is the share of its
    labels. AUC: DeLong's structural components, less the AUC and divided by their number: an image of the class
    gives the share of the others that score less than it, over the number of its class; any other image the share
    of the class that scores more, over the number of others; the mean over classes or labels. Classes that no
    image has are left out, as in `auc`.

    Labels and scores as in `check_inputs`. Raises MetricError and AbsentClassWarning as `auc` and `accuracy` do, and
    MetricError for another metric.
    Source: DeLong et al. 1988; Sun and Xu 2014, Fast Implementation of DeLong's Algorithm, for the sorting.
    """
    check_metric(metric, "traced to images")
    truth, checked = check_inputs(labels, scores, task)
    if metric == "auc":
        auc(truth, checked, task)  # refuses and warns
    return influence_of(truth, checked, task, metric)


def image_strata(truth: Int[np.ndarray, "b k"], task: str, *, metric: str = "auc") -> Int[np.ndarray, " b"]:
    """Return the stratum `(N,)` of each image, within which images are drawn: its class for AUC, otherwise 0.

    Labels as `check_inputs` returns them. AUC is that of test sets with as many images of each class as this one,
    which is DeLong's view. Accuracy is that of images as they come, and a multi-label image has no one class: there
    all are of one stratum. Raises MetricError where no stratum has two images, so that nothing tells how much they
    differ.
    """
    by_class = metric == "auc" and task != "multi-label"
    strata = truth[:, 0] if by_class else np.zeros(len(truth), dtype=np.int64)
    if np.bincount(strata).max(initial=0) < 2:
        kind = " of some class" if by_class else ""
        raise MetricError(f"A comparison over images needs at least 2 images{kind}, but came with {len(truth)} in all.")
    return strata


def image_covariance(influences: Float[np.ndarray, "m b"], strata: Int[np.ndarray, " b"]) -> Float[np.ndarray, "m m"]:
    """Return the covariance, over random test images, of metrics whose image influences are given, `(M, N)`.

    Sums over strata n/(n - 1) Σ (ψᵢ - mean)(ψᵢ - mean)ᵀ; for binary AUC that is DeLong's estimate exactly. An image
    alone in its stratum says nothing of the spread there, and adds none: the result is of test sets that hold it.
    """
    covariance = np.zeros((len(influences), len(influences)))
    for stratum in np.unique(strata):
        part = influences[:, strata == stratum]
        images = part.shape[1]
        if images > 1:
            centred = part - part.mean(axis=1, keepdims=True)
            covariance += images / (images - 1) * (centred @ centred.T)
    return covariance
