"""Mixup (Zhang et al. 2018, arXiv:1710.09412): images of a batch blended with each other, to learn from both labels."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from qvit.cpu.parts import in_parts

LEAST, MOST = 1e-3, 100.0  # α: below, next to nothing is mixed, above, all by halves


def random_partners(
    b: int, alpha: float, generator: torch.Generator | None = None
) -> tuple[Int64[Tensor, " b"], Float[Tensor, " b"]]:
    """Draw for each of `b` images its partner among them, by a permutation, and its own share λ in the mixture.

    λ is drawn for each image from Beta(α, α). An α of 0 draws nothing: each image is its own partner, with λ = 1.
    """
    if alpha == 0.0:
        return torch.arange(b), torch.ones(b)
    partners = torch.randperm(b, generator=generator)
    # torch draws from no generator for this distribution, in public.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return partners, torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, b)).float()


def mix(
    images: UInt8[Tensor, "b c h w"], others: UInt8[Tensor, "b c h w"], shares: Float[Tensor, " b"]
) -> UInt8[Tensor, "b c h w"]:
    """Return λ·image + (1 − λ)·other for each image, on the CPU, rounded to bytes, by the λ in `shares`."""
    from qvit.data.mixup_kernel import mix_images

    first, second = (values.contiguous().view(-1).numpy() for values in (images, others))
    out, size, by = torch.empty(images.shape, dtype=torch.uint8), math.prod(images.shape[1:]), shares.float().numpy()
    in_parts(
        lambda *part: mix_images(first, second, by, size, out.view(-1).numpy(), *part), len(images), len(first) / 8
    )
    return out
