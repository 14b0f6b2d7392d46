"""The influence of each test image on a metric, from which its variance over random images follows without resampling.

The metric on a sample of images − the metric on the whole population ≈ the sum of the influences of the sample's
images. Covariances of metrics are therefore sums of products of influences; for binary AUC they are DeLong's.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from qvit.errors import MetricError
from qvit.evaluation.metrics import auc, check_inputs, decide, one_vs_rest
from qvit.evaluation.statistics import check_metric


def _placements(positive: Bool[np.ndarray, " b"], scores: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Return, for each image, the share of the other side that it is ranked correctly against; ties count half."""
    above, below = scores[positive], scores[~positive]
    shares = np.empty(len(scores))
    for side, own, other in ((positive, above, np.sort(below)), (~positive, -below, np.sort(-above))):
        beaten_twice = np.searchsorted(other, own, side="left") + np.searchsorted(other, own, side="right")
        shares[side] = beaten_twice / (2 * len(other))
    return shares


def influence_of(
    truth: Int[np.ndarray, "b k"], scores: Float[np.ndarray, "b c"], task: str, metric: str
) -> tuple[float, Float[np.ndarray, " b"]]:
    """Return the same as `image_influence`, for labels and scores that are known to be valid."""
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

    For accuracy it is (right_i - accuracy)/N, where right_i is 1 or 0, or for multi-label the share of labels that are
    right. For AUC it is the mean over classes or labels of (s_i - AUC)/n. For an image of the class, s_i is the share
    of the images outside the class that score less, and n the size of the class; for an image outside, s_i is the share
    of the class that scores more, and n the number of images outside (DeLong's structural components). Classes that no
    image has, or all have, are left out, as in `auc`.

    Labels and scores are as in `check_inputs`. Raises MetricError and warns AbsentClassWarning as `auc` and `accuracy`
    do; raises MetricError for another metric.
    Sources: DeLong et al. 1988; for the sorting, Sun and Xu 2014, Fast Implementation of DeLong's Algorithm.
    """
    check_metric(metric, "traced to images")
    truth, checked = check_inputs(labels, scores, task)
    if metric == "auc":
        auc(truth, checked, task)  # refuses and warns
    return influence_of(truth, checked, task, metric)


def image_strata(truth: Int[np.ndarray, "b k"], task: str, *, metric: str = "auc") -> Int[np.ndarray, " b"]:
    """Return the stratum `(N,)` of each image: its class for AUC of single-label tasks, otherwise 0.

    Random test sets are thought of as drawn within strata. For AUC they have as many images of each class as this one,
    as in DeLong's method. For accuracy the classes are random too, and a multi-label image has no single class, so
    there is one stratum. Labels are as `check_inputs` returns them. Raises MetricError if no stratum has two images,
    since their spread is then unknown.
    """
    by_class = metric == "auc" and task != "multi-label"
    strata = truth[:, 0] if by_class else np.zeros(len(truth), dtype=np.int64)
    if np.bincount(strata).max(initial=0) < 2:
        kind = " of some class" if by_class else ""
        raise MetricError(f"A comparison over images needs at least 2 images{kind}, but came with {len(truth)} in all.")
    return strata


def image_covariance(influences: Float[np.ndarray, "m b"], strata: Int[np.ndarray, " b"]) -> Float[np.ndarray, "m m"]:
    """Return the covariance, over random test images, of metrics whose image influences are given, `(M, N)`.

    It is the sum over strata of n/(n - 1) Σ (ψᵢ - mean)(ψᵢ - mean)ᵀ, which for binary AUC is exactly DeLong's estimate.
    An image alone in its stratum says nothing about the spread there and adds none: the result holds for test sets that
    contain it.
    """
    covariance = np.zeros((len(influences), len(influences)))
    for stratum in np.unique(strata):
        part = influences[:, strata == stratum]
        images = part.shape[1]
        if images > 1:
            centred = part - part.mean(axis=1, keepdims=True)
            covariance += images / (images - 1) * (centred @ centred.T)
    return covariance
