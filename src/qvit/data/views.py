"""Images of a split under the symmetries of a group, as training and validation see them epoch after epoch."""

import math
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from qvit.data.arrays import Split
from qvit.data.augment import apply_element, augment, group_size

MOST = 2**27  # bytes that the views of all images may take


class Views:
    """The images of a split under every element of a group (see `data.augment`).

    All are computed once if they take at most `most` bytes, as copying them is ten times as fast as moving pixels;
    otherwise, and for images that are read from a file as they are asked for, each when it is asked for. The images
    are the same, and must not be changed meanwhile.
    """

    def __init__(self, split: Split, group: str, *, most: int = MOST) -> None:
        self.split, self.group = split, group
        self._are_kept = 1 < group_size(group) <= most / max(1, math.prod(split.shape)) and not split.mapped

    @cached_property
    def _kept(self) -> UInt8[Tensor, "v c h w"]:
        """All images under the first element, then all under the next one."""
        images = self.split.batch(np.arange(len(self.split)))[0]
        return torch.cat([apply_element(images, element, self.group) for element in range(group_size(self.group))])

    def batch(
        self, index: Int64[Tensor, " b"], elements: Int64[Tensor, " b"], device: torch.device | str = "cpu"
    ) -> tuple[UInt8[Tensor, "b c h w"], Int64[Tensor, "b k"]]:
        """Return on a device the images at these places, each under its own element, and their labels."""
        if self._are_kept:
            images = self._kept.index_select(0, elements * len(self.split) + index)
            return images.to(device), torch.from_numpy(self.split.labels[index.numpy()]).to(device)
        images, labels = (values.to(device) for values in self.split.batch(index))
        if group_size(self.group) > 1:
            images = augment(images, elements.to(device), self.group)
        return images, labels

    def under_all(self, index: Int64[Tensor, " b"], device: torch.device | str = "cpu") -> UInt8[Tensor, "v c h w"]:
        """Return on a device the images at these places, all under the first element, then all under the next one."""
        elements = torch.arange(group_size(self.group))
        if self._are_kept:
            return self._kept.index_select(0, (elements[:, None] * len(self.split) + index).flatten()).to(device)
        images = self.split.batch(index)[0].to(device)
        return torch.cat([apply_element(images, element, self.group) for element in elements.tolist()])


def views_of(splits: Iterable[Split], group: str, *, most: int = MOST) -> dict[Split, Views]:
    """Return the views of several splits, perhaps the same ones, which share the memory."""
    distinct = dict.fromkeys(splits)
    return {split: Views(split, group, most=most // len(distinct)) for split in distinct}
