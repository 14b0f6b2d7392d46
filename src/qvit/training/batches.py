"""Batches of training images: whose turn it is in an epoch, under which symmetry, for one model or a stack."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import random_elements
from qvit.data.views import Views
from qvit.training.config import TrainConfig
from qvit.training.distributed import ALONE, Team
from qvit.training.schedules import SCHEDULES
from qvit.training.seeding import ORDER, generator
from qvit.training.state import Member


@dataclass(frozen=True)
class Batch:
    """One batch: augmented images and labels on the device of training, and where they come from, on the CPU.

    `index` is each image's place in the training split, `elements` that of its symmetry in the augmentation group.
    In a stack all four have an axis in front, as each model has a batch of its own.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    elements: Tensor


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


def load_batch(views: Views, index: Tensor, order: torch.Generator, device: str, team: Team = ALONE) -> Batch:
    """Return the batch at `index`, or this process's share, on a device, each image under a symmetry from `order`."""
    elements = random_elements(len(index), views.group, order)
    index, elements = team.share(index), team.share(elements)
    return Batch(*views.batch(index, elements, device), index, elements)


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
        """Return the batch of a step; they have to be asked for in order, as each draws symmetries."""
        return load_batch(self.views, self.batches[step], self.order, self.member.config.device, team)


def alike(epochs: Sequence[Epoch], step: int) -> Iterator[list[int]]:
    """Yield the places of epochs that have batches of one size at a step, so that these can be taken together."""
    sizes = [len(epoch.batches[step]) if step < len(epoch.batches) else 0 for epoch in epochs]
    for size in sorted(set(sizes) - {0}, reverse=True):
        yield [place for place, own in enumerate(sizes) if own == size]


def load_together(epochs: Sequence[Epoch], step: int) -> Batch:
    """Return the batches of several epochs at a step, which have one size, as one with an axis in front.

    Each holds the images that `Epoch.load` would return: every member draws from a stream of its own.
    """
    index = torch.stack([epoch.batches[step] for epoch in epochs])
    elements = torch.stack([random_elements(index.shape[1], epoch.views.group, epoch.order) for epoch in epochs])
    device, views = epochs[0].member.config.device, epochs[0].views
    if all(epoch.views is views for epoch in epochs):
        images, labels = views.batch(index.flatten(), elements.flatten(), device)
    else:
        each = zip(epochs, index, elements, strict=True)
        parts = [epoch.views.batch(own, turned, device) for epoch, own, turned in each]
        images, labels = (torch.cat(values) for values in zip(*parts, strict=True))
    return Batch(images.unflatten(0, index.shape), labels.unflatten(0, index.shape), index, elements)
