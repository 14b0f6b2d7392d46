"""Probabilities of a trained model over a split, averaged over symmetries of the image if asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.data.arrays import Split
from qvit.data.augment import apply_element, group_size
from qvit.models.stack import part
from qvit.models.vit import ViT
from qvit.training.distributed import ALONE, Team

BATCH = 512  # views at a time
BATCH_OF_STACK = 64  # so that what is computed for all models stays in the caches


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
    elements = range(group_size(group))
    logits = []
    with evaluating(model):
        for index in team.share(torch.arange(len(split))).split(max(1, BATCH // len(elements))):
            images = split.batch(index)[0].to(device)
            views = torch.cat([apply_element(images, element, group) for element in elements])
            logits.append(model(views).unflatten(0, (len(elements), len(images))).cpu())
    return team.gather(torch.cat(logits, dim=1), len(split))


@torch.no_grad()
def predict_stack(
    stack: ViT, splits: Sequence[Split], *, group: str = "none", device: torch.device | str = "cpu"
) -> list[Float[Tensor, "g n k"]]:
    """Return the logits of each model of a stack for every image of its own split, as `predict_logits` does for one."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, split in enumerate(splits):
        places.setdefault((len(split), id(split)), []).append(place)
    found: list[Tensor] = [torch.empty(0)] * len(splits)
    with evaluating(stack):
        for alike in places.values():
            some = stack if len(alike) == len(splits) else part(stack, alike)
            logits = _of_one_split(some, splits[alike[0]], group, device)
            for place, own in zip(alike, logits, strict=True):
                found[place] = own
    return found


def _of_one_split(stack: ViT, split: Split, group: str, device: torch.device | str) -> Float[Tensor, "m g n k"]:
    elements, logits = range(group_size(group)), []
    for index in torch.arange(len(split)).split(max(1, BATCH_OF_STACK // len(elements))):
        images = split.batch(index)[0].to(device)
        views = torch.cat([apply_element(images, element, group) for element in elements])
        told = stack(views.expand(*stack.models, *views.shape))
        logits.append(told.unflatten(1, (len(elements), len(images))).cpu())
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
