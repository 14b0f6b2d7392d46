"""Augmentation of whole batches by groups of symmetries of the square: exact, nothing is interpolated.

Element `e` of "d4" mirrors an image left to right if `e >= 4`, then turns it by `e % 4` quarter turns
anticlockwise; "mirror" has only 0 (nothing) and 1 (mirror), "none" only 0. Elements act on the last two axes,
on any number type and device.
"""

from functools import lru_cache

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from qvit.errors import ConfigError, nearest

GROUPS = {"none": 1, "mirror": 2, "d4": 8}


def group_size(group: str) -> int:
    """Return the number of elements of a group: 1 for "none", 2 for "mirror", 8 for "d4".

    Raises ConfigError for any other name.
    """
    if group not in GROUPS:
        raise ConfigError(
            f"Unknown augmentation group '{group}'.{nearest(group, GROUPS)} Expected one of: {', '.join(GROUPS)}."
        )
    return GROUPS[group]


def apply_element(images: Tensor, element: int, group: str) -> Shaped[Tensor, "b c h w"]:
    """Apply one element of a group to every image `(b, c, h, w)`; element 0 changes nothing.

    Raises ConfigError for an element the group does not have, and for images that are not square with "d4".
    """
    _check(images, group)
    if not 0 <= element < GROUPS[group]:
        raise ConfigError(f"Group '{group}' has elements 0 to {GROUPS[group] - 1}, got {element}.")
    if group == "mirror":
        return torch.flip(images, (-1,)) if element else images
    turned = torch.flip(images, (-1,)) if element >= 4 else images
    return torch.rot90(turned, element % 4, (-2, -1)) if element % 4 else turned


def augment(images: Tensor, elements: Tensor, group: str) -> Shaped[Tensor, "b c h w"]:
    """Apply to each image of `(b, c, h, w)` its own element of a group, given as int64 `(b,)`.

    Raises ConfigError as `apply_element` does, and unless there is one element for each image.
    """
    _check(images, group)
    b, c, h, w = images.shape
    if elements.shape != (b,):
        raise ConfigError(
            f"Expected one element for each of {b} images, got elements of shape {tuple(elements.shape)}."
        )
    size = GROUPS[group]
    # Looking at the values would stall an accelerator's queue; there index_select refuses bad ones.
    if b and elements.device.type == "cpu" and not 0 <= int(elements.min()) <= int(elements.max()) < size:
        found = f"{int(elements.min())} to {int(elements.max())}"
        raise ConfigError(f"Group '{group}' has elements 0 to {size - 1}, got {found}.")
    if size == 1:
        return images
    sources = _sources(group, h, w, images.device).index_select(0, elements)
    # One gather, its index shared by the channels: 2.5 times as fast as one flip or turn for each element.
    return images.reshape(b, c, h * w).gather(2, sources[:, None].expand(b, c, h * w)).reshape(b, c, h, w)


@lru_cache(maxsize=16)
def _sources(group: str, h: int, w: int, device: torch.device) -> Int64[Tensor, "elements pixels"]:
    """Return, for each element, the source pixel of every pixel of its result."""
    # Cached beyond this call, so it must not be a tensor of a caller's inference mode.
    with torch.inference_mode(False):
        grid = torch.arange(h * w, device=device).reshape(1, 1, h, w)
        moved = [apply_element(grid, element, group).reshape(-1) for element in range(GROUPS[group])]
        return torch.stack(moved)


def random_elements(b: int, group: str, generator: torch.Generator | None = None) -> Int64[Tensor, " b"]:
    """Draw `b` elements of a group, each with the same chance, on the generator's device."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(group_size(group), (b,), generator=generator, device=device)


def _check(images: Tensor, group: str) -> None:
    group_size(group)
    if images.ndim != 4:
        raise ConfigError(f"Expected a batch of images (b, c, h, w), got shape {tuple(images.shape)}.")
    if group == "d4" and images.shape[-1] != images.shape[-2]:
        h, w = images.shape[-2:]
        raise ConfigError(
            f"Group 'd4' turns images by 90 degrees and so needs square ones, got {h} x {w}; "
            f"crop them, or use 'mirror' or 'none'."
        )
