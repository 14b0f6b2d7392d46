"""Probabilities that mean what they say, and answers that are withheld: temperature, confidence, risk and coverage.

Scores are probabilities `(N, C)`, all classes of all tasks but multi-label, whose K columns are labels of their own;
labels are `(N, 1)`, or 0/1 `(N, K)`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar

from qvit.errors import MetricError

HOTTEST = 20.0  # a temperature, and the inverse of the coldest
FEWEST = 30  # images to fit a temperature by
_LEAST = 1e-300  # in place of a probability of 0


def tempered(scores: Float[np.ndarray, "n c"], temperature: float, task: str) -> Float[np.ndarray, "n c"]:
    """Return p^(1/T), scaled to the sum 1; for multi-label tasks each label's against 1 − p.

    For the softmax or sigmoid of logits that is the softmax or sigmoid of logits/T. Means over views or over several
    models are tempered after averaging (Rahaman and Thiery, 2021).
    """
    if temperature == 1.0:
        return scores
    logs = np.log(np.maximum(scores, _LEAST)) / temperature
    others = np.log(np.maximum(1 - scores, _LEAST)) / temperature if task == "multi-label" else logs
    top = np.maximum(logs, others) if task == "multi-label" else logs.max(axis=1, keepdims=True)
    powers = np.exp(logs - top)
    sums = powers + np.exp(others - top) if task == "multi-label" else powers.sum(axis=1, keepdims=True)
    tempered_: Float[np.ndarray, "n c"] = powers / sums
    return tempered_


def fit_temperature(labels: Int[np.ndarray, "n k"], scores: Float[np.ndarray, "n c"], task: str) -> float:
    """Return the temperature, from 1/20 to 20, with which the log loss of the scores is least (Guo et al., 2017).

    Raises MetricError for fewer than 30 images.
    """
    if len(labels) < FEWEST:
        raise MetricError(f"A temperature needs at least {FEWEST} images, but there are {len(labels)}.")

    def loss(log_temperature: float) -> float:
        found = tempered(scores, float(np.exp(log_temperature)), task)
        return float(-np.log(np.maximum(of_truth(labels, found, task), _LEAST)).mean())

    most = float(np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=(-most, most), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def of_truth(labels: Int[np.ndarray, "n k"], scores: Float[np.ndarray, "n c"], task: str) -> Float[np.ndarray, "n k"]:
    """Return the probability of each true label, or class."""
    if task == "multi-label":
        return np.where(labels == 1, scores, 1 - scores)
    return np.take_along_axis(scores, labels, axis=1)


def decided(
    scores: Float[np.ndarray, "n c"], task: str, yes: Float[np.ndarray, " k"] | None = None
) -> Bool[np.ndarray, "n c"]:
    """Return which class of each image, or which labels, are the answer.

    The likeliest class, or labels that are likelier than not; with `yes`, of tasks with yes-or-no answers, class 1 or a
    label is the answer from that probability on.
    """
    if task == "multi-label":
        return scores > 0.5 if yes is None else scores >= yes
    if yes is None:
        return scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1])
    positive = scores[:, 1] >= yes[0]
    return np.stack([~positive, positive], axis=1)


def confidence(
    scores: Float[np.ndarray, "n c"], answers: Bool[np.ndarray, "n c"], task: str
) -> Float[np.ndarray, " n"]:
    """Return the probability that an answer is right: of the class that it is; of several labels, their mean."""
    if task == "multi-label":
        return np.where(answers, scores, 1 - scores).mean(axis=1)
    return scores[answers]


def wrong(labels: Int[np.ndarray, "n k"], answers: Bool[np.ndarray, "n c"], task: str) -> Float[np.ndarray, " n"]:
    """Return how wrong each answer is: 1 for another class than the true one, the share of wrong labels of several."""
    if task == "multi-label":
        return (answers != (labels == 1)).mean(axis=1)
    return (answers.argmax(axis=1) != labels[:, 0]).astype(np.float64)


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """How wrong answers are on average, `risk`, if only the most confident are given, for each share `coverage` (m,).

    `thresholds` are the least confidences of those that are given; images of equal confidence are given together.
    `area` is the mean risk over all coverages (AURC; Geifman et al., 2019).
    """

    coverage: Float[np.ndarray, " m"]
    risk: Float[np.ndarray, " m"]
    thresholds: Float[np.ndarray, " m"]

    @property
    def area(self) -> float:
        """The mean risk over the coverages, each weighted by how much it adds to the one before."""
        return float(self.risk @ np.diff(self.coverage, prepend=0.0))


def risk_coverage(confidences: Float[np.ndarray, " n"], errors: Float[np.ndarray, " n"]) -> RiskCoverage:
    """Return risk against coverage of answers; raises MetricError without any."""
    if not len(confidences):
        raise MetricError("Risk against coverage needs at least one image.")
    order = np.argsort(-confidences, kind="stable")
    sorted_, counts = confidences[order], np.arange(1, len(order) + 1)
    last = np.append(sorted_[1:] != sorted_[:-1], True)
    risk = np.cumsum(errors[order]) / counts
    return RiskCoverage(counts[last] / len(order), risk[last], sorted_[last])


def threshold_for_coverage(curve: RiskCoverage, coverage: float) -> float:
    """Return the largest confidence that at least a share `coverage` of the images reaches."""
    _check_share("coverage", coverage)
    return float(curve.thresholds[np.argmax(curve.coverage >= coverage - 1e-12)])


def threshold_for_error(curve: RiskCoverage, error: float) -> float:
    """Return the least confidence from which on answers are wrong at most that often; infinity if there is none."""
    _check_share("error", error)
    good = np.flatnonzero(curve.risk <= error + 1e-12)
    return float(curve.thresholds[good[-1]]) if len(good) else np.inf


def operating_threshold(
    positive: Bool[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
) -> float:
    """Return from which score on an answer is yes, such that these images reach a sensitivity, or a specificity.

    The one with the best other measure: the highest for a sensitivity, the lowest for a specificity. Scores above the
    threshold or equal to it count as yes. Raises MetricError unless exactly one of both is given, and without an image
    of the kind that it is about.
    """
    if (sensitivity is None) == (specificity is None):
        raise MetricError("Give a sensitivity or a specificity, not both.")
    asked = sensitivity if sensitivity is not None else specificity
    assert asked is not None
    _check_share("sensitivity" if specificity is None else "specificity", asked)
    chosen = np.sort(scores[positive if specificity is None else ~positive])
    if not len(chosen):
        kind = "positive" if specificity is None else "negative"
        raise MetricError(f"An operating point needs at least one {kind} image.")
    count = int(np.ceil(asked * len(chosen) - 1e-9))
    if specificity is None:  # the lowest score of those that have to be yes
        return float(chosen[len(chosen) - count])
    above = scores[scores > chosen[count - 1]]  # all up to the last that has to be no are no
    return float(above.min()) if len(above) else float(np.nextafter(chosen[count - 1], np.inf))


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise MetricError(f"The {name} must be above 0 and at most 1, but came as {value}.")
