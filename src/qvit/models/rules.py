"""Rules that are fitted, not trained: what stored arrays say of the features of an image, as logits.

A rule's arrays are buffers. Their number depends on what was fitted, so some have first axes of any length; `check`
makes sure that arrays from a file lead nowhere else. A fresh rule is valid, and knows nothing.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import ModelError

LEAST = 1e-6  # probability that a rule gives to anything
DEEPEST = 64  # decisions from the root of a tree to a leaf, at most
PART = 256  # images whose distances to all others are in memory at a time


class Rule(nn.Module):
    """Base of all rules, from features `(b, f)` to logits `(b, k)`. `free` names the arrays of any length."""

    free: ClassVar[tuple[str, ...]] = ()

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.features, self.classes = features, classes

    @property
    def numbers(self) -> int:
        """How many numbers are stored."""
        return sum(array.numel() for array in self.buffers())

    @property
    def flops(self) -> int:
        """The floating-point operations for one image, a multiply-add as two; comparisons do not count."""
        return 0

    def fitted(self, arrays: Mapping[str, Tensor]) -> None:
        """Take these arrays from now on, in the types of the rule's own; raises `ModelError` as `check` does."""
        for name, array in arrays.items():
            own = self._buffers[name]
            assert own is not None
            self._buffers[name] = array.detach().to(own).contiguous()
        self.check()

    def check(self) -> None:
        """Raise `ModelError` for arrays whose places do not exist, or that are not of one length."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *more: Any) -> None:
        for name in self.free:
            value, own = state_dict.get(prefix + name), self._buffers[name]
            if isinstance(value, Tensor) and own is not None:
                self._buffers[name] = own.new_empty(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *more)


class Constant(Rule):
    """The same logits for every image."""

    logits: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.register_buffer("logits", torch.zeros(classes))

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b k"]:
        """Return the logits as often as there are images."""
        return self.logits.repeat(len(features), 1)


class Linear(Rule):
    """Logits that are sums of weighted features."""

    weight: Tensor
    bias: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))

    @property
    def flops(self) -> int:
        """The floating-point operations for one image."""
        return 2 * self.weight.numel()

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b k"]:
        """Return the sums."""
        return F.linear(features, self.weight, self.bias)


class Trees(Rule):
    """Decision trees: the logarithm of the mean over trees of the probabilities in the leaf that an image reaches.

    `roots` are the places of the trees' first nodes. A node compares its `feature` with its `threshold`: an image with
    no more goes to the next node in the list, others to the node at `other`. Of a leaf the feature is -1, and `other`
    is its row in `leaves`. `several` says that the classes are labels, each there or not.
    """

    roots: Tensor
    feature: Tensor
    threshold: Tensor
    other: Tensor
    leaves: Tensor
    several: Tensor
    free = ("roots", "feature", "threshold", "other", "leaves")

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.register_buffer("roots", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("feature", torch.full((1,), -1, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(1))
        self.register_buffer("other", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("leaves", torch.full((1, classes), 1 / classes))
        self.register_buffer("several", torch.tensor(False))

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        feature, other = self.feature.long(), self.other.long()
        node = self.roots.long().expand(len(features), -1)
        for _ in range(DEEPEST):
            asked = feature[node]
            inner = asked >= 0
            if not inner.any():
                break
            low = features.gather(1, asked.clamp_min(0)) <= self.threshold[node]
            node = torch.where(inner, torch.where(low, node + 1, other[node]), node)
        return _logits(self.leaves[other[node]].mean(dim=1), bool(self.several))

    def check(self) -> None:
        """Raise `ModelError` unless every node but the roots is one node's child, and every leaf is one node's."""
        count, inner = len(self.feature), self.feature >= 0
        _require(len(self.threshold) == len(self.other) == count > 0, "nodes of trees without a threshold")
        place, other = torch.arange(count, device=inner.device), self.other.long()
        reached = torch.cat([self.roots.long(), place[inner] + 1, other[inner]])
        _require(int(self.feature.max()) < self.features, "features that are not there")
        _require(torch.equal(reached.sort().values, place), "nodes of trees that are not there, or reached twice")
        _require(_ends(self.roots.long(), inner, other), "trees without an end")
        rows = torch.arange(len(self.leaves), device=inner.device)
        _require(torch.equal(other[~inner].sort().values, rows), "leaves of trees that are not there")


def _require(sound: bool, found: str) -> None:
    if not sound:
        raise ModelError(f"Expected the arrays of a fitted baseline, found {found}. Fit it again.")


def _ends(node: Tensor, inner: Tensor, other: Tensor) -> bool:
    """Return whether all ways from these nodes end in leaves soon enough; no node may be reached twice."""
    for _ in range(DEEPEST + 1):
        node = node[inner[node]]
        if not len(node):
            return True
        node = torch.cat([node + 1, other[node]])
    return False


class Nearest(Rule):
    """The shares of the classes among the images that are nearest to an image, and the training images' as one more.

    `reference` (n, f) are the features of all training images, `labels` theirs: (n, 1), of several labels 0/1 (n, k).
    Features count as their distance from `center` in units of `spread`; `count` images are asked.
    """

    reference: Tensor
    labels: Tensor
    center: Tensor
    spread: Tensor
    count: Tensor
    free = ("reference", "labels")

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.register_buffer("reference", torch.zeros(1, features))
        self.register_buffer("labels", torch.zeros(1, 1, dtype=torch.int32))
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("count", torch.tensor(1, dtype=torch.int32))

    @property
    def flops(self) -> int:
        """The floating-point operations for one image: its products with all others."""
        return 2 * self.reference.numel()

    @property
    def several(self) -> bool:
        """Whether the classes are labels, each there or not."""
        return self.labels.shape[1] == self.classes

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        told = (self.labels if self.several else F.one_hot(self.labels[:, 0].long(), self.classes)).to(features)
        usual, count = told.mean(dim=0), int(self.count)
        shares = [
            (told[near].sum(dim=1) + usual) / (count + 1)
            for part in ((features - self.center) / self.spread).split(PART)
            for near in [squares(part, self.reference).topk(count, largest=False).indices]
        ]
        return _logits(torch.cat(shares), self.several)

    def check(self) -> None:
        """Raise `ModelError` unless there are as many labels as references, of classes that are there."""
        rows, columns = self.labels.shape
        _require(rows == len(self.reference) > 0, "labels and features of different images")
        _require(columns in (1, self.classes), "labels of another number of classes")
        _require(1 <= int(self.count) <= rows, "more nearest images than there are")
        most = 1 if self.several else self.classes - 1
        _require(0 <= int(self.labels.min()) <= int(self.labels.max()) <= most, "labels of classes that are not there")


def squares(some: Float[Tensor, "b f"], others: Float[Tensor, "n f"]) -> Float[Tensor, "b n"]:
    """Return the squares of distances between points and others, less what is the same for all others."""
    return others.square().sum(dim=1) - 2 * some @ others.T


def _logits(shares: Float[Tensor, "b k"], several: bool) -> Float[Tensor, "b k"]:
    """Return the logits of probabilities: their logarithms, of several labels those of their odds."""
    shares = shares.clamp(LEAST, 1 - LEAST)
    return shares.logit() if several else shares.log()
