"""From images to tokens: patches, normalised, times weights, plus positions; of one model or of a stack."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from qvit.cpu.parts import VECTOR_BYTES, in_parts
from qvit.models.stacked_layers import products
from qvit.torch_private import plain, unwatched

WIDEST = 64  # features
IMAGES_A_PART = 16
_CACHED = 6144  # pixels worked on at once: what the first cache holds beside the weights
Images = UInt8[Tensor, "*m b c s s"] | Float[Tensor, "*m b c s s"]


def embed(
    images: Images,
    mean: Float[Tensor, "*m c"],
    std: Float[Tensor, "*m c"],
    weight: Float[Tensor, "*m d c p p"],
    bias: Float[Tensor, "*m d"],
    positions: Float[Tensor, "*m 1 n d"] | None,
    patch: int,
) -> Float[Tensor, "*m b n d"]:
    """Return positions + bias + weight · patch for each of an image's patches, row by row.

    Images are bytes, or floats in [0, 1]; mean and deviation, on that scale, are those to normalise by. A kernel reads
    bytes and float32 unless gradients of images, mean or deviation are wanted; what it returns has the tokens last in
    memory.
    """
    images, mean, std, weight, bias = plain(images), plain(mean), plain(std), plain(weight), plain(bias)
    positions = None if positions is None else plain(positions)
    if _is_for_kernel(images, mean, std, weight, bias, *(() if positions is None else (positions,))):
        return _Embedded.apply(images, mean, std, weight, bias, positions).mT  # type: ignore[no-untyped-call]
    return _by_torch(images, mean, std, weight, bias, positions)


def embed_maps(
    maps: Float[Tensor, "*m b k y x"],
    mean: Float[Tensor, "*m k"],
    std: Float[Tensor, "*m k"],
    weight: Float[Tensor, "*m d k 1 1"],
    bias: Float[Tensor, "*m d"],
    positions: Float[Tensor, "*m 1 n d"],
) -> Float[Tensor, "*m b n d"]:
    """Return positions + bias + weight · features for each point of maps, row by row; mean and deviation as in `embed`.

    Tokens are last in memory, and what becomes of an image does not depend, bit for bit, on the others.
    """
    scaled = weight.flatten(-3) / std[..., None, :]
    added = (bias - (scaled * mean[..., None, :]).sum(dim=-1))[..., None] + positions.squeeze(-3).mT
    columns = maps.flatten(-2)
    lead = columns.shape[:-2]
    each = scaled[..., None, :, :].expand(*lead, *scaled.shape[-2:])
    found = products(each.flatten(0, -3), columns.flatten(0, -3)).view(*lead, scaled.shape[-2], columns.shape[-1])
    return (found + added[..., None, :, :]).mT


def normalised(
    images: UInt8[Tensor, "*m b c y x"] | Float[Tensor, "*m b c y x"],
    mean: Float[Tensor, "*m c"],
    std: Float[Tensor, "*m c"],
) -> Float[Tensor, "*m b c y x"]:
    """Return images of mean 0 and deviation 1, as far as `mean` and `std` describe them."""
    scale = (1.0 if images.is_floating_point() else 1.0 / 255.0) / std
    shift = -mean / std
    scale, shift = (each[..., None, :, None, None] for each in (scale, shift))
    return (images.to(scale.dtype) * scale).add_(shift)


def _is_for_kernel(images: Tensor, mean: Tensor, std: Tensor, *parameters: Tensor) -> bool:
    return (
        unwatched(images, mean, std, *parameters)  # first: a traced call must not ask for sizes
        and images.dtype in (torch.uint8, torch.float32)
        and all(tensor.dtype == torch.float32 for tensor in (mean, std, *parameters))
        and not (images.requires_grad or mean.requires_grad or std.requires_grad)
        and parameters[1].shape[-1] <= WIDEST
        and images.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _by_torch(
    images: Tensor, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor, positions: Tensor | None
) -> Tensor:
    """Return the same by operations that torch can trace, transform and differentiate to any order."""
    pixels, patch = normalised(images, mean, std), weight.shape[-1]
    if weight.ndim == 4:
        tokens = rearrange(F.conv2d(pixels, weight, bias, stride=patch), "b d y x -> b (y x) d")
    else:
        patches = rearrange(pixels, "... b c (y i) (x j) -> ... b (y x) (c i j)", i=patch, j=patch)
        tokens = patches @ weight.flatten(-3).mT[..., None, :, :] + bias[..., None, None, :]
    # Positions come first, as the sum takes their layout in memory, token after token, not the convolution's.
    return tokens if positions is None else positions + tokens


class _Embedded(torch.autograd.Function):
    """The tokens of images on the CPU, by a compiled kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Images,
        mean: Float[Tensor, "*m c"],
        std: Float[Tensor, "*m c"],
        weight: Float[Tensor, "*m d c p p"],
        bias: Float[Tensor, "*m d"],
        positions: Float[Tensor, "*m 1 n d"] | None,
    ) -> Float[Tensor, "*m b d n"]:
        """Return the tokens, these last."""
        from qvit.models import embedding_kernel

        work = _Work(images, weight)
        out = weight.new_empty(*images.shape[:-3], work.d, work.n)
        each = bias[..., None].expand(*bias.shape, work.n)
        added = each if positions is None else each + positions.squeeze(-3).mT
        given = *work.images(images, mean, std), work.array(weight, 4), work.array(added, 2), work.sizes
        made = work.array(out, 3)

        def run(first: int, last: int) -> None:
            embedding_kernel.forward(*given, *work.room(), made, first, last, IMAGES_A_PART)

        in_parts(run, work.parts, work.updates)
        ctx.save_for_backward(images, mean, std, weight, bias, positions)
        ctx.work = work
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "*m b d n"]) -> tuple[Tensor | None, ...]:
        """Return the gradients of weight, bias and positions."""
        from qvit.models import embedding_kernel

        images, mean, std, weight, bias, positions = ctx.saved_tensors
        if torch.is_grad_enabled() or not unwatched(gradient):  # a second derivative is wanted, or many at once
            return None, None, None, *_slopes(images, mean, std, weight, bias, positions, gradient.mT)
        work = ctx.work
        to_weight = gradient.new_empty(work.parts, work.d, work.c, work.p, work.p)
        to_added = gradient.new_empty(work.parts, work.d, work.n)
        given = *work.images(images, mean, std), work.array(gradient, 3), work.sizes
        made = to_weight.numpy(), to_added.numpy()

        def run(first: int, last: int) -> None:
            embedding_kernel.backward(*given, *work.room(), *made, first, last, IMAGES_A_PART)

        in_parts(run, work.parts, work.updates)
        of_weight, of_added = work.over_parts(to_weight), work.over_parts(to_added)
        of_positions = None if positions is None else of_added.mT.reshape(positions.shape).to(weight.dtype)
        return (
            *(None, None, None, of_weight.reshape(weight.shape).to(weight.dtype)),
            of_added.sum(dim=-1).reshape(bias.shape).to(weight.dtype),
            of_positions,
        )


def _slopes(
    images: Tensor, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor, positions: Tensor | None, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of weight, bias and positions by operations that can be differentiated and batched."""
    p = weight.shape[-1]
    patches = rearrange(normalised(images, mean, std), "... b c (y i) (x j) -> ... (b y x) (c i j)", i=p, j=p)
    flat = gradient.reshape(*patches.shape[:-1], gradient.shape[-1])
    to_weight = (flat.mT @ patches).reshape(weight.shape)
    to_tokens = gradient.sum(dim=-3)
    to_positions = None if positions is None else to_tokens.reshape(positions.shape)
    return to_weight, to_tokens.sum(dim=-2), to_positions


class _Work:
    """Sizes of a call of the kernel, from images `(*m, b, c, s, s)` and weights `(*m, d, c, p, p)`."""

    def __init__(self, images: Tensor, weight: Tensor) -> None:
        (self.b, self.c, self.side), (self.d, self.p) = images.shape[-4:-1], (weight.shape[-4], weight.shape[-1])
        self.models = images.numel() // (self.b * self.c * self.side**2)
        self.parts = self.models * -(-self.b // IMAGES_A_PART)
        lanes, across = VECTOR_BYTES // weight.element_size(), self.side // self.p
        self.n, self.features = across**2, -(-self.d // 4) * 4
        width = min(lanes, max(2, 1 << (self.p - 1).bit_length()))
        self.lines = self.c * self.p * -(-self.p // width)
        room = max(1, _CACHED // (self.lines * across * width))
        rows = max(rows for rows in range(1, across + 1) if across % rows == 0 and rows <= room)
        self.length = -(-rows * across * width // (2 * lanes)) * 2 * lanes
        self.sizes = (self.side, width, rows, self.features)
        self.updates = float(self.models * self.b * self.n * self.d * self.c * self.p**2)

    def array(self, tensor: Tensor, dims: int) -> np.ndarray:
        """Return an array whose leading dimensions, all but `dims`, are one: the models."""
        return tensor.detach().reshape(self.models, *tensor.shape[-dims:]).contiguous().numpy()

    def images(self, images: Tensor, mean: Tensor, std: Tensor) -> tuple[Any, ...]:
        """Return all pixels, means, deviations, and the largest that a pixel may be."""
        most = np.float32(1.0 if images.is_floating_point() else 255.0)
        return images.reshape(-1).numpy(), self.array(mean, 1), self.array(std, 1), most

    def room(self) -> tuple[np.ndarray, ...]:
        """Return scratch: weights or their gradients, patches, sums."""
        lines, lanes = self.lines + self.lines % 2, VECTOR_BYTES // 4
        sizes = lines * self.features * lanes, lines * self.length, self.features * self.length
        whole = torch.zeros(sum(sizes)).numpy()  # torch's memory begins where a vector may
        return whole[: sizes[0]], whole[sizes[0] : -sizes[2]], whole[-sizes[2] :]

    def over_parts(self, sums: Tensor) -> Tensor:
        """Return the sums over all parts of a model, in float64."""
        flat = sums.view(self.models, self.parts // self.models, -1)
        return flat.sum(dim=1, dtype=torch.float64).reshape(self.models, *sums.shape[1:])
