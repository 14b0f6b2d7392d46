"""Probabilities of a trained model over a split, averaged over symmetries of the image if asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.data.arrays import Split
from qvit.data.augment import group_size
from qvit.data.views import Views
from qvit.models.stack import part
from qvit.models.vit import ViT
from qvit.training.distributed import ALONE, Team

BATCH = 512  # views at a time
BATCH_OF_STACK = 128  # of each model: with more, what is computed for all models leaves the caches


def probabilities(logits: Float[Tensor, "b k"], task: str) -> Float[Tensor, "b k"]:
    """Return sigmoid of the logits for multi-label tasks, softmax otherwise, in float64."""
    logits = logits.double()
    return logits.sigmoid() if task == "multi-label" else logits.softmax(dim=1)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode inside the block; afterwards every part is in the mode it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    split: Split,
    *,
    group: str = "none",
    device: torch.device | str = "cpu",
    team: Team = ALONE,
) -> Float[Tensor, "g n k"]:
    """Return the logits of every image under every element of a symmetry group, in evaluation mode.

    The processes of a `team` share the work, and each gets all logits.
    """
    elements, logits, views = group_size(group), [], Views(split, group, most=0)
    with evaluating(model):
        for index in team.share(torch.arange(len(split))).split(max(1, BATCH // elements)):
            told = model(views.under_all(index, device))
            logits.append(told.unflatten(0, (elements, len(index))).cpu())
    return team.gather(torch.cat(logits, dim=1), len(split))


@torch.no_grad()
def predict_stack(
    stack: ViT, views: Sequence[Views], *, device: torch.device | str = "cpu"
) -> list[Float[Tensor, "g n k"]]:
    """Return the logits of each model of a stack for all views of its own images, as `predict_logits` does for one."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, own in enumerate(views):
        places.setdefault((len(own.split), id(own)), []).append(place)
    found: list[Tensor] = [torch.empty(0)] * len(views)
    with evaluating(stack):
        for alike in places.values():
            some = stack if len(alike) == len(views) else part(stack, alike)
            logits = _of_same_views(some, views[alike[0]], device)
            for place, told in zip(alike, logits, strict=True):
                found[place] = told
    return found


def _of_same_views(stack: ViT, views: Views, device: torch.device | str) -> Float[Tensor, "m g n k"]:
    elements, logits = group_size(views.group), []
    for index in torch.arange(len(views.split)).split(max(1, BATCH_OF_STACK // elements)):
        images = views.under_all(index, device)
        told = stack(images.expand(*stack.models, *images.shape))
        logits.append(told.unflatten(1, (elements, len(index))).cpu())
    return torch.cat(logits, dim=2)


def predict(
    model: nn.Module,
    split: Split,
    task: str,
    *,
    group: str = "none",
    device: torch.device | str = "cpu",
    team: Team = ALONE,
) -> Float[np.ndarray, "n k"]:
    """Return probabilities `(n, k)` in float64, averaged over a symmetry group (test-time augmentation)."""
    return probabilities_of_views(predict_logits(model, split, group=group, device=device, team=team), task)


def probabilities_of_views(logits: Float[Tensor, "g n k"], task: str) -> Float[np.ndarray, "n k"]:
    """Return the mean over views of each view's probabilities."""
    views, images, classes = logits.shape
    flat = probabilities(logits.reshape(views * images, classes), task)
    return flat.reshape(views, images, classes).mean(dim=0).numpy()
