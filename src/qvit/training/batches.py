"""Batches of training images: whose turn it is in an epoch, how they are changed, for one model or a stack."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import random_elements
from qvit.data.distort import distort, random_distortions
from qvit.data.mixup import mix, random_partners
from qvit.data.views import Views
from qvit.training.config import TrainConfig
from qvit.training.distributed import ALONE, Team
from qvit.training.schedules import SCHEDULES
from qvit.training.seeding import ORDER, generator
from qvit.training.state import Member


@dataclass(frozen=True)
class Batch:
    """One batch: augmented images and labels on the device of training, and where they come from, on the CPU.

    `index` is each image's place in the training split, `elements` that of its symmetry in the augmentation group. If
    images are mixed, these and the labels are those of the image whose share, on the device, is in `shares`, and
    `partners` is a batch of the same mixed images with what belongs to the other one. In a stack all have an axis in
    front, as each model has a batch of its own.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    elements: Tensor
    shares: Tensor | None = None
    partners: "Batch | None" = None

    def losses(self, of: Callable[["Batch"], Tensor]) -> Tensor:
        """Return the losses `of` this batch (*m, b); if images are mixed, the means of both theirs, by their shares.

        What a model says of the images is the same for both, and need be computed only once.
        """
        own = of(self)
        if self.partners is None or self.shares is None:
            return own
        return self.shares * own + (1.0 - self.shares) * of(self.partners)


def default_batch_size(images: int) -> int:
    """Return the largest of 64, 32, 16, 8 that gives an epoch at least 16 steps, else 8."""
    return next((size for size in (64, 32, 16) if math.ceil(images / size) >= 16), 8)


def augmentation_group(data: Dataset, config: TrainConfig) -> str:
    """Return the name of the symmetry group that this run trains and averages over."""
    return data.info.augment if config.augment == "auto" else config.augment


def shuffled(split: Split, config: TrainConfig, order: torch.Generator) -> tuple[Tensor, ...]:
    """Return the places of the images of each batch of an epoch."""
    batch_size = config.batch_size or default_batch_size(len(split))
    batches = torch.randperm(len(split), generator=order).split(batch_size)
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:  # batch norm takes no variance of one image
        return (*batches[:-2], torch.cat(batches[-2:]))
    return batches


class Draws(NamedTuple):
    """What is drawn for a batch, a row for each image: where it is, how it is changed, and what it is mixed with.

    `places` are in the split, `partners` in the batch; the others are as in `Batch`, `data.distort` and `data.mixup`,
    None where no image is distorted, or mixed. Of a stack they are those of one batch after the other.
    """

    places: Tensor
    elements: Tensor
    distortions: Tensor | None
    partners: Tensor | None
    shares: Tensor | None


def draw(places: Tensor, group: str, order: torch.Generator, strength: float | None, alpha: float | None) -> Draws:
    """Draw what becomes of the images at `places`; what is off, 0 or None, draws nothing."""
    b = len(places)
    elements = random_elements(b, group, order)
    distortions = None if strength is None else random_distortions(b, strength, order)
    return Draws(places, elements, distortions, *((None, None) if alpha is None else random_partners(b, alpha, order)))


def load_batch(
    views: Views,
    index: Tensor,
    order: torch.Generator,
    device: str,
    team: Team = ALONE,
    *,
    strength: float = 0.0,
    alpha: float = 0.0,
) -> Batch:
    """Return the batch at `index`, or this process's share, on a device, each image under a symmetry from `order`.

    `strength` is that of `distort`, and `alpha` that of `mixup`, see `TrainConfig`. All processes of a team draw the
    same, and mix images with partners in the whole batch.
    """
    drawn = draw(index, views.group, order, strength or None, alpha or None)
    return _load(views.batch, drawn, team.share(torch.arange(len(index))), device)


def _load(
    load: Callable[[Tensor, Tensor, str], tuple[Tensor, Tensor]], drawn: Draws, own: Tensor, device: str
) -> Batch:
    """Return the batch of the rows `own` (*m, b) of what was drawn; `load` reads images by places and elements.

    Images are changed on the CPU, where bytes do not depend on the processor, whatever the device.
    """
    index, elements = drawn.places[own], drawn.elements[own]
    if drawn.partners is None or drawn.shares is None:
        at = "cpu" if drawn.distortions is not None else device
        images, labels = load(index.flatten(), elements.flatten(), at)
        if drawn.distortions is not None:
            images = distort(images, drawn.distortions[own.flatten()]).to(device)
        return Batch(images.unflatten(0, own.shape), labels.to(device).unflatten(0, own.shape), index, elements)
    partners, shares = drawn.partners[own], drawn.shares[own]
    rows, places = torch.unique(torch.stack([own, partners]), return_inverse=True)  # some may be in others' shares
    images, labels = load(drawn.places[rows], drawn.elements[rows], "cpu")
    if drawn.distortions is not None:
        images = distort(images, drawn.distortions[rows])
    mine, theirs = (images.index_select(0, at.flatten()) for at in places)
    mixed = mix(mine, theirs, shares.flatten()).unflatten(0, own.shape).to(device)
    labels, others = (labels[at].to(device) for at in places)
    mates = Batch(mixed, others, drawn.places[partners], drawn.elements[partners])
    return Batch(mixed, labels, index, elements, shares.to(device), mates)


class Epoch:
    """A member's next epoch: its batches in order, and the learning rate of each step."""

    def __init__(self, member: Member, views: Views) -> None:
        self.member, self.views, self.number = member, views, member.state.epoch
        self.order = generator(member.seed, ORDER, self.number)
        self.batches = shuffled(member.data.train, member.config, self.order)

    def lr(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        config, steps = self.member.config, len(self.batches)
        progress = (self.number * steps + step) / (config.epochs * steps)
        return config.lr * SCHEDULES[config.schedule](progress, config.warmup)

    def load(self, step: int, team: Team) -> Batch:
        """Return the batch of a step; they have to be asked for in order, as each draws what becomes of its images."""
        config = self.member.config
        how = {"strength": config.distort, "alpha": config.mixup}
        return load_batch(self.views, self.batches[step], self.order, config.device, team, **how)

    def draw(self, step: int, *, distorts: bool, mixes: bool) -> Draws:
        """Draw what becomes of the images of a step, as `load` does, also for a stack that distorts or mixes some."""
        config = self.member.config
        strength, alpha = config.distort if distorts else None, config.mixup if mixes else None
        return draw(self.batches[step], self.views.group, self.order, strength, alpha)


def alike(epochs: Sequence[Epoch], step: int) -> Iterator[list[int]]:
    """Yield the places of epochs that have batches of one size at a step, so that these can be taken together."""
    sizes = [len(epoch.batches[step]) if step < len(epoch.batches) else 0 for epoch in epochs]
    for size in sorted(set(sizes) - {0}, reverse=True):
        yield [place for place, own in enumerate(sizes) if own == size]


def load_together(epochs: Sequence[Epoch], step: int) -> Batch:
    """Return the batches of several epochs at a step, which have one size, as one with an axis in front.

    Each holds the images that `Epoch.load` would return: every member draws from a stream of its own.
    """
    configs, views = [epoch.member.config for epoch in epochs], [epoch.views for epoch in epochs]
    changes = {"distorts": any(one.distort for one in configs), "mixes": any(one.mixup for one in configs)}
    each = zip(*(epoch.draw(step, **changes) for epoch in epochs), strict=True)
    drawn = Draws._make(None if values[0] is None else torch.cat(values) for values in each)
    b = len(epochs[0].batches[step])
    own = torch.arange(len(epochs) * b).view(-1, b)
    if drawn.partners is not None:
        drawn = drawn._replace(partners=drawn.partners + own[:, :1].expand_as(own).flatten())  # in all batches

    def load(index: Tensor, elements: Tensor, device: str) -> tuple[Tensor, Tensor]:
        if all(one is views[0] for one in views):
            return views[0].batch(index, elements, device)
        each = zip(views, index.split(b), elements.split(b), strict=True)
        parts = [one.batch(places, turned, device) for one, places, turned in each]
        images, labels = (torch.cat(values) for values in zip(*parts, strict=True))
        return images, labels

    return _load(load, drawn, own, configs[0].device)
