"""Losses: pure functions of logits and labels that return one value per example, and per model of a stack.

The models of a stack may have labels and class weights in common, or each its own, with an axis in front.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from qvit.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    logits: Float[Tensor, "*m b c"],
    labels: Int[Tensor, "*#m b 1"],
    *,
    smoothing: float = 0.0,
    class_weights: Float[Tensor, "*#m c"] | None = None,
) -> Float[Tensor, "*m b"]:
    """Cross-entropy with label smoothing ε: targets are 1 − ε + ε/C on the label and ε/C elsewhere."""
    shape = logits.shape[:-1]
    labels = labels[..., 0].expand(shape)
    each = logits.flatten(end_dim=-2), labels.flatten()
    losses = F.cross_entropy(*each, reduction="none", label_smoothing=smoothing).view(shape)
    return losses if class_weights is None else losses * _each(class_weights, labels)


def binary_cross_entropy(
    logits: Float[Tensor, "*m b k"],
    labels: Int[Tensor, "*#m b k"],
    *,
    smoothing: float = 0.0,
    class_weights: Float[Tensor, "*#m k"] | None = None,
) -> Float[Tensor, "*m b"]:
    """Binary cross-entropy, averaged over labels; smoothing ε moves targets to ε/2 and 1 − ε/2.

    `class_weights` multiply the positive part of each label, as `pos_weight` in torch.
    """
    targets = labels.to(logits.dtype) * (1.0 - smoothing) + smoothing / 2.0
    weights = None if class_weights is None else class_weights[..., None, :]
    losses = F.binary_cross_entropy_with_logits(
        logits, targets.expand(logits.shape), reduction="none", pos_weight=weights
    )
    return losses.mean(dim=-1)


def squared_emd(
    logits: Float[Tensor, "*m b c"],
    labels: Int[Tensor, "*#m b 1"],
    *,
    smoothing: float = 0.0,
    class_weights: Float[Tensor, "*#m c"] | None = None,
) -> Float[Tensor, "*m b"]:
    """Squared earth mover's distance between ordered distributions (Hou et al. 2016, arXiv:1611.05916).

    Σ over thresholds of the squared difference of cumulative probabilities: a grade two off costs more than
    a grade one off.
    """
    classes = logits.shape[-1]
    labels = labels[..., 0].expand(logits.shape[:-1])
    targets = F.one_hot(labels, classes).to(logits.dtype) * (1.0 - smoothing) + smoothing / classes
    difference = (logits.softmax(dim=-1) - targets).cumsum(dim=-1)[..., :-1]
    losses = difference.square().sum(dim=-1)
    return losses if class_weights is None else losses * _each(class_weights, labels)


def cross_entropy_and_emd(
    logits: Float[Tensor, "*m b c"],
    labels: Int[Tensor, "*#m b 1"],
    *,
    smoothing: float = 0.0,
    class_weights: Float[Tensor, "*#m c"] | None = None,
) -> Float[Tensor, "*m b"]:
    """Return the mean of cross-entropy, which knows right and wrong, and squared EMD, which knows how far."""
    one = cross_entropy(logits, labels, smoothing=smoothing, class_weights=class_weights)
    other = squared_emd(logits, labels, smoothing=smoothing, class_weights=class_weights)
    return (one + other) / 2.0


def _each(class_weights: Float[Tensor, "*#m c"], labels: Int[Tensor, "*m b"]) -> Float[Tensor, "*m b"]:
    """Return the weight of each image's class."""
    return class_weights.expand(*labels.shape[:-1], -1).gather(-1, labels)


ONE_LABEL = ("binary", "multi-class", "ordinal")
# Each loss with the tasks that it fits.
LOSSES: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "ce": (cross_entropy, ONE_LABEL),
    "bce": (binary_cross_entropy, ("multi-label",)),
    "emd": (squared_emd, ("ordinal",)),
    "ce+emd": (cross_entropy_and_emd, ("ordinal",)),
}
# What each task may be trained with; the first is the default.
LOSSES_OF_TASK = {
    task: tuple(name for name, (_, tasks) in LOSSES.items() if task in tasks) for task in (*ONE_LABEL, "multi-label")
}
if TYPE_CHECKING:  # mypy cannot make a type of a table; pydantic can, and checks what is given
    LossName = str
else:
    LossName = Literal[("auto", *LOSSES)]


def make_loss(task: str, *, name: str = "auto", smoothing: float = 0.0, class_weights: Tensor | None = None) -> Loss:
    """Return the loss of a task as a function of (logits, labels).

    `name`: "auto", or one of `LOSSES_OF_TASK[task]`. Raises `ConfigError` for a loss that does not fit the task.
    """
    choices = LOSSES_OF_TASK[task]
    if name not in ("auto", *choices):
        raise ConfigError(f"loss='{name}' does not fit a {task} task; use {' or '.join(choices)}, or auto.")
    function, _ = LOSSES[choices[0] if name == "auto" else name]
    return lambda logits, labels: function(logits, labels, smoothing=smoothing, class_weights=class_weights)


def balanced_weights(labels: Int[np.ndarray, "n k"], task: str, num_classes: int) -> Float[Tensor, " c"]:
    """Return weights inverse to class frequency, of mean 1 over the examples; absent classes weigh 0.

    For multi-label tasks: negatives over positives, label by label.
    """
    if task == "multi-label":
        positives = labels.sum(axis=0)
        weights = (len(labels) - positives) / np.maximum(positives, 1)
    else:
        counts = np.bincount(labels[:, 0], minlength=num_classes)
        present = counts > 0
        weights = np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0.0)
    return torch.as_tensor(weights, dtype=torch.float32)
