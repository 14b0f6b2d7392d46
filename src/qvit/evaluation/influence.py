"""The influence of each test image on a metric, from which its variance over random images follows without resampling.

The metric on a sample of images − the metric on the whole population ≈ the sum of the influences of the sample's
images. Covariances of metrics are therefore sums of products of influences; for binary AUC they are DeLong's.
The rows of `evaluation.sampled` compute them.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from qvit.errors import MetricError
from qvit.evaluation.inputs import check_inputs
from qvit.evaluation.sampled import METRICS, check_metric


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
    METRICS[metric].value(truth, checked, task)  # refuses and warns
    return METRICS[metric].influence(truth, checked, task)


def image_strata(truth: Int[np.ndarray, "b k"], task: str, *, metric: str = "auc") -> Int[np.ndarray, " b"]:
    """Return the stratum `(N,)` of each image: its class for a metric by class of single-label tasks, otherwise 0.

    Random test sets are thought of as drawn within strata. For AUC they have as many images of each class as this one,
    as in DeLong's method. For accuracy the classes are random too, and a multi-label image has no single class, so
    there is one stratum. Labels are as `check_inputs` returns them. Raises MetricError for another metric, and if no
    stratum has two images, since their spread is then unknown.
    """
    check_metric(metric, "compared")
    by_class = METRICS[metric].by_class and task != "multi-label"
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
