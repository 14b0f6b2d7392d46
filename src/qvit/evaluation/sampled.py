"""Metrics over random test images: one row for each metric that has intervals and tests.

A bootstrap resample is a row of counts of how often each image was drawn. Accuracy is then a weighted mean, and AUC a
weighted rank statistic: scores are sorted once, and each resample costs one cumulative sum per class.

Without resampling: the metric on a sample of images − the metric on the whole population ≈ the sum of the influences of
the sample's images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from qvit.errors import MetricError, nearest
from qvit.evaluation.metrics import accuracy, auc, decide, one_vs_rest

FEWEST_OF_A_CLASS = 10  # the fewest images with a class, and without it, that show how its AUC varies
FEWEST_IN_ALL = 30  # the fewest images that show how accuracy varies

Truth = Int[np.ndarray, "b k"]
Scores = Float[np.ndarray, "b c"]
Counts = Int[np.ndarray, "r b"]


@dataclass(frozen=True)
class Metric:
    """A metric as intervals and tests need it; labels and scores are as `check_inputs` returns them.

    `value` returns the metric of all images, with its errors and warnings. `resampled` returns a function from counts
    to the metric of each resample, nan if it has none. `influence` returns the metric and the influence of each image.
    `by_class` says whether classes count separately: each then needs enough images, and images are drawn within it.
    """

    title: str
    value: Callable[[ArrayLike, ArrayLike, str], float]
    resampled: Callable[[Truth, Scores, str], Callable[[Counts], Float[np.ndarray, " r"]]]
    influence: Callable[[Truth, Scores, str], tuple[float, Float[np.ndarray, " b"]]]
    by_class: bool


# --- AUC ---


@dataclass(frozen=True)
class RankedClass:
    """The images of one class against the rest, sorted by score, as the weighted AUC needs them.

    `order` sorts all images by score, and `negative` is 1 where an image in that order lacks the class.
    `positives` are the images that have it; of the images in order, the first `below[i]` score less than
    positive `i`, and the first `upto[i]` score no more than it.
    """

    order: NDArray[np.int64]
    negative: NDArray[np.int64]
    positives: NDArray[np.int64]
    below: NDArray[np.int64]
    upto: NDArray[np.int64]


def rank_class(positive: Bool[np.ndarray, " b"], scores: Float[np.ndarray, " b"]) -> RankedClass:
    """Sort the images of one class against the rest, once for all resamples."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    positives = np.flatnonzero(positive)
    below = np.searchsorted(ordered, scores[positives], side="left")
    upto = np.searchsorted(ordered, scores[positives], side="right")
    return RankedClass(order, (~positive[order]).astype(np.int64), positives, below, upto)


def weighted_auc(ranked: RankedClass, counts: Int[np.ndarray, "r b"]) -> Float[np.ndarray, " r"]:
    """Return the AUC of one class in each resample, ties counting half, nan where one side is missing.

    `counts` says how often each resample holds each image. All sums are of integers, hence exact.
    """
    negatives = np.zeros((len(counts), counts.shape[1] + 1), dtype=np.int64)
    np.multiply(np.take(counts, ranked.order, axis=1), ranked.negative, out=negatives[:, 1:])
    np.cumsum(negatives, axis=1, out=negatives)
    weights = np.take(counts, ranked.positives, axis=1)
    beaten_twice = np.take(negatives, ranked.below, axis=1)
    beaten_twice += np.take(negatives, ranked.upto, axis=1)
    wins_twice = np.einsum("rb,rb->r", weights, beaten_twice)
    pairs_twice = 2 * weights.sum(axis=1) * negatives[:, -1]
    empty = np.full(len(counts), np.nan)
    return np.divide(wins_twice, pairs_twice, out=empty, where=pairs_twice > 0)


def _mean_over_classes(per_class: Float[np.ndarray, "c r"]) -> Float[np.ndarray, " r"]:
    known = ~np.isnan(per_class)
    count = known.sum(axis=0)
    empty = np.full(per_class.shape[1], np.nan)
    return np.divide(np.where(known, per_class, 0.0).sum(axis=0), count, out=empty, where=count > 0)


def _resampled_auc(truth: Truth, scores: Scores, task: str) -> Callable[[Counts], Float[np.ndarray, " r"]]:
    classes = scores.shape[1]
    positive = one_vs_rest(truth, task, classes=classes)
    ranked = [rank_class(positive[:, column], scores[:, column]) for column in range(classes)]
    return lambda counts: _mean_over_classes(np.stack([weighted_auc(each, counts) for each in ranked]))


def _placements(positive: Bool[np.ndarray, " b"], scores: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """Return, for each image, the share of the other side that it is ranked correctly against; ties count half."""
    above, below = scores[positive], scores[~positive]
    shares = np.empty(len(scores))
    for side, own, other in ((positive, above, np.sort(below)), (~positive, -below, np.sort(-above))):
        beaten_twice = np.searchsorted(other, own, side="left") + np.searchsorted(other, own, side="right")
        shares[side] = beaten_twice / (2 * len(other))
    return shares


def _influence_on_auc(truth: Truth, scores: Scores, task: str) -> tuple[float, Float[np.ndarray, " b"]]:
    images = len(truth)
    positive = one_vs_rest(truth, task, classes=scores.shape[1])
    known = np.flatnonzero(positive.any(axis=0) & ~positive.all(axis=0))
    areas, influence = [], np.zeros(images)
    for column in known:
        yes = positive[:, column]
        shares = _placements(yes, scores[:, column])
        areas.append(shares[yes].mean())
        influence += (shares - areas[-1]) / np.where(yes, yes.sum(), images - yes.sum())
    return float(np.mean(areas)), influence / known.size


# --- accuracy ---


def _right(truth: Truth, scores: Scores, task: str) -> Float[np.ndarray, " b"]:
    """Return the share of right decisions of each image."""
    right: Float[np.ndarray, " b"] = np.mean(truth == decide(scores, task).reshape(len(truth), -1), axis=1)
    return right


def _resampled_accuracy(truth: Truth, scores: Scores, task: str) -> Callable[[Counts], Float[np.ndarray, " r"]]:
    right = _right(truth, scores, task)
    return lambda counts: counts @ right / len(right)


def _influence_on_accuracy(truth: Truth, scores: Scores, task: str) -> tuple[float, Float[np.ndarray, " b"]]:
    right = _right(truth, scores, task)
    return float(right.mean()), (right - right.mean()) / len(right)


METRICS = {
    "auc": Metric("AUC", auc, _resampled_auc, _influence_on_auc, by_class=True),
    "acc": Metric("ACC", accuracy, _resampled_accuracy, _influence_on_accuracy, by_class=False),
}


def check_metric(name: str, done: str) -> None:
    """Raise MetricError for a metric that is not in `METRICS`; the message says `done`, as "bootstrapped"."""
    if name not in METRICS:
        known = " and ".join(f"'{one}'" for one in METRICS)
        raise MetricError(f"Only {known} can be {done}, but '{name}' was asked for.{nearest(name, METRICS)}")


def too_few_images(truth: Int[np.ndarray, "b k"], task: str, metric: str, *, classes: int) -> str:
    """Return why there are too few images to tell how a metric varies over random images; empty if there are enough.

    Labels are as `check_inputs` returns them. With fewer than `FEWEST_OF_A_CLASS` images with a class, or without it,
    tests and intervals of a metric by class are wrong several times as often as they say (`benchmarks/few_images.py`);
    other metrics need `FEWEST_IN_ALL` images. A class that no image has, or all have, is left out anyway.
    """
    images = len(truth)
    if not METRICS[metric].by_class:
        return f"there are {images} images, fewer than {FEWEST_IN_ALL}" if images < FEWEST_IN_ALL else ""
    of_class = one_vs_rest(truth, task, classes=classes).sum(axis=0)
    asked = "label" if task == "multi-label" else "class"
    for place, count in enumerate(of_class.tolist()):
        name = 1 if task == "binary" else place
        if 0 < count < FEWEST_OF_A_CLASS and count < images:
            return f"{asked} {name} has {count} images, fewer than {FEWEST_OF_A_CLASS}"
        if 0 < images - count < FEWEST_OF_A_CLASS and count:
            return f"{images - count} images are without {asked} {name}, fewer than {FEWEST_OF_A_CLASS}"
    return ""


def check_images(truth: Int[np.ndarray, "b k"], task: str, metric: str, *, classes: int) -> None:
    """Raise MetricError, with the reason, if `too_few_images` gives one."""
    why = too_few_images(truth, task, metric, classes=classes)
    if why:
        instead = "compare accuracies, or train" if METRICS[metric].by_class else "train"
        raise MetricError(
            f"A comparison of {METRICS[metric].title} over random images cannot tell how much chance is in them: "
            f"{why}. Add test images, {instead} several seeds and use seeds_test, which holds for these images only."
        )
