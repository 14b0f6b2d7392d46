"""Fixed numbers that describe a patch, computed from its pixels without parameters, for a model to embed.

With a thousand parameters and some hundred images a model has better use for its weights than to learn what a patch's
slope and texture are. "dct" has the six lowest coefficients of the discrete cosine transform, and the mean absolute
difference of pixels next to each other in four directions. "contrast" has three coefficients, the four differences
after a blur is taken off, so that slow changes of brightness do not count, and the standard deviation.
"""

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from qvit.cpu.parts import in_parts
from qvit.errors import ModelError
from qvit.models.stacked_layers import products
from qvit.torch_private import unwatched

Features = Literal["raw", "dct", "contrast"]
COEFFICIENTS = {"dct": 6, "contrast": 3}
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # steps in rows and columns to the pixel that is compared
SMALLEST = 3  # pixels, which have six coefficients of degree 2 and less
BLUR = 0.5  # σ in patches
_LEAST = 1e-12  # variance of a pixel on the 0–1 scale, below which a patch is flat
Images = UInt8[Tensor, "*m b c s s"] | Float[Tensor, "*m b c s s"]


def count_features(kind: str) -> int:
    """Return how many numbers describe a patch and channel, of all kinds but "raw"."""
    return COEFFICIENTS[kind] + len(DIRECTIONS) + (kind == "contrast")


def check_features(kind: str, patch: int) -> None:
    """Raise `ModelError` for an unknown kind, and for patches of too few pixels."""
    if kind not in get_args(Features):
        *others, last = (f"'{name}'" for name in get_args(Features))
        raise ModelError(f"features must be {', '.join(others)} or {last}, got '{kind}'.")
    if kind != "raw" and patch < SMALLEST:
        raise ModelError(
            f"features='{kind}' describe patches of at least {SMALLEST} pixels, got patch_size={patch}; use larger "
            "patches, or features='raw'."
        )


def patch_features(images: Images, kind: str, patch: int) -> Float[Tensor, "*m b k v u"]:
    """Return the features of every patch and channel, k = c·f, those of a channel together, as maps of the image.

    Bytes are taken as 0 to 1. Coefficients are of the orthonormal transform (DCT-II), by degree and then by row,
    divided by the side of a patch, so that the first is the patch's mean. A kernel reads bytes and float32 on the CPU
    unless gradients of the images are wanted.
    """
    if _is_for_kernel(images):
        return _by_kernel(images, kind, patch)
    return _by_torch(images, kind, patch)


def _is_for_kernel(images: Tensor) -> bool:
    return (
        unwatched(images)  # first: a traced call must not ask for sizes
        and images.dtype in (torch.uint8, torch.float32)
        and not images.requires_grad
        and images.numel() > 0
    )


def _by_kernel(images: Tensor, kind: str, patch: int) -> Tensor:
    from qvit.models import features_kernel

    side, count = images.shape[-1], COEFFICIENTS[kind]
    planes, across = images.numel() // side**2, side // patch
    blur = _taps(BLUR * patch) if kind == "contrast" else np.zeros(1, np.float32)
    reach, sizes = len(blur) // 2, np.array([side, patch, count, len(blur) // 2])
    out = torch.empty(*images.shape[:-3], images.shape[-3] * count_features(kind), across, across)
    scale = np.float32(1.0 if images.is_floating_point() else 1.0 / 255.0)
    degrees, waves = _degrees(patch, count)
    given = images.contiguous().view(-1).numpy(), scale, sizes, degrees, waves, blur, np.float32(_LEAST)

    def run(first: int, last: int) -> None:
        room = np.zeros((2 * side + 11) * (side + 2 * features_kernel.LANES) + 2 * reach, np.float32)
        features_kernel.describe(*given, room, out.view(-1).numpy(), first, last)

    in_parts(run, planes, float(planes * side**2 * (6 + 2 * reach)))
    return out


def _by_torch(images: Images, kind: str, patch: int) -> Float[Tensor, "*m b k v u"]:
    """Return the same by operations that torch can trace, transform and differentiate to any order."""
    pixels = images if images.is_floating_point() else images.to(torch.float32) / 255.0
    patches = rearrange(pixels, "... (y i) (x j) -> ... y x i j", i=patch, j=patch)
    found = [_coefficients(patches, COEFFICIENTS[kind])]
    compared = patches
    if kind == "contrast":
        compared = rearrange(
            pixels - _blurred(pixels, BLUR * patch), "... (y i) (x j) -> ... y x i j", i=patch, j=patch
        )
        variance = (patches - patches.mean(dim=(-2, -1), keepdim=True)).square().mean(dim=(-2, -1))
        found.append(variance.clamp_min(_LEAST).sqrt()[..., None])
    found[1:1] = [_difference(compared, *step)[..., None] for step in DIRECTIONS]
    return rearrange(torch.cat(found, dim=-1), "... c y x f -> ... (c f) y x")


def _coefficients(patches: Float[Tensor, "*m b c y x p p"], count: int) -> Float[Tensor, "*m b c y x f"]:
    flat = rearrange(patches, "... b c y x i j -> ... (b c y x) (i j)")
    basis = _cosines(patches.shape[-1], count, patches.dtype, patches.device)
    found = flat @ basis if flat.ndim == 2 else products(flat, basis.expand(len(flat), -1, -1))
    return found.reshape(*patches.shape[:-2], count)


def _difference(patches: Float[Tensor, "... p p"], down: int, right: int) -> Float[Tensor, "..."]:
    """Return the mean absolute difference of a patch's pixels and those so many rows below and columns to the right."""
    p = patches.shape[-1]
    ahead = patches[..., down:, max(right, 0) : p + min(right, 0)]
    return (ahead - patches[..., : p - down, max(-right, 0) : p - max(right, 0)]).abs().mean(dim=(-2, -1))


def _blurred(pixels: Float[Tensor, "*m b c s s"], sigma: float) -> Float[Tensor, "*m b c s s"]:
    """Return images blurred by a Gaussian; beyond their edges they go on as in a mirror."""
    matrix = _gaussian(pixels.shape[-1], sigma, pixels.dtype, pixels.device)
    for _ in range(2):  # rows, then columns
        rows = rearrange(pixels, "... b c y x -> ... (b c y) x")
        mixed = rows @ matrix if rows.ndim == 2 else products(rows, matrix.expand(len(rows), -1, -1))
        pixels = mixed.reshape(pixels.shape).mT
    return pixels


@lru_cache(maxsize=64)
def _degrees(p: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the waves of each coefficient down and along a patch, and the waves, as the kernel takes them."""
    degrees = sorted(((v, u) for v in range(3) for u in range(3)), key=lambda each: (sum(each), each))[:count]
    return np.array(degrees).ravel(), _waves(p).astype(np.float32).ravel()


def _waves(p: int) -> np.ndarray:
    """Return the waves of degree 0, 1 and 2 `(3, p)`, of length 1, over √p."""
    degree, place = np.arange(3)[:, None], np.arange(p)
    waves: np.ndarray = np.cos(np.pi * (2 * place + 1) * degree / (2 * p)) * np.where(degree == 0, 1, math.sqrt(2)) / p
    return waves


@lru_cache(maxsize=64)
def _cosines(p: int, count: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "pixels f"]:
    with torch.inference_mode(False):  # kept beyond this call
        waves, degrees = _waves(p), _degrees(p, count)[0].reshape(-1, 2).astype(int)
        basis = np.stack([np.outer(waves[v], waves[u]).ravel() for v, u in degrees], axis=-1)
        return torch.from_numpy(basis).to(device, dtype)


@lru_cache(maxsize=64)
def _taps(sigma: float) -> np.ndarray:
    """Return the shares of a Gaussian, cut off at 3 σ, which add up to 1."""
    reach = math.ceil(3 * sigma)
    shares = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return (shares / shares.sum()).astype(np.float32)


@lru_cache(maxsize=64)
def _gaussian(side: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "s s"]:
    """Return the matrix G with which rows x become blurred rows x·G."""
    with torch.inference_mode(False):
        shares, matrix = _taps(sigma), np.zeros((side, side))
        for place in range(side):
            for step, share in enumerate(shares, -(len(shares) // 2)):
                source = (place + step) % (2 * side)
                matrix[min(source, 2 * side - 1 - source), place] += share
        return torch.from_numpy(matrix).to(device, dtype)
