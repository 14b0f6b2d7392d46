"""Layer normalisation with correct derivatives of every order, of one model's tokens or of a stack's."""

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qvit.cpu.parts import VECTOR_BYTES, in_parts
from qvit.models.reverse import Hook, differentiable, replacing
from qvit.torch_private import plain, transformed, unwatched

WIDEST = 64  # features: beyond, the rows of a vector of tokens leave the first cache
IMAGES_A_PART = 16
Gradients = tuple[Tensor, Tensor, Tensor]


class LayerNorm(nn.LayerNorm):
    """torch's layer normalisation over the last dimension, with third and higher derivatives corrected.

    torch (2.13) treats the mean and the deviation as constants in the gradient of its gradient, so that its third
    derivatives are silently wrong. A stack of m models has weights `(m, d)` and tokens `(m, b, n, d)`. For `across` see
    `layer_norm`.
    """

    def __init__(self, dim: int, *, across: bool = False) -> None:
        super().__init__(dim)  # with weights, and of one dimension: what `_slopes` is written for
        self.across = across

    def forward(self, input: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:  # noqa: A002 - torch's name
        """Return (x − mean)/√(variance + eps)·weight + bias."""
        if self.weight.ndim + 2 != input.ndim:
            return _by_torch(input, self.weight, self.bias, self.eps)
        return layer_norm(input, self.weight, self.bias, self.eps, across=self.across)


def layer_norm(
    tokens: Float[Tensor, "*m b n d"],
    weight: Float[Tensor, "*m d"],
    bias: Float[Tensor, "*m d"],
    eps: float,
    *,
    across: bool = False,
) -> Float[Tensor, "*m b n d"]:
    """Return (x − mean)/√(variance + eps)·weight + bias, mean and variance of each token's features.

    A kernel reads float32 tokens whose `mT` is contiguous, and lays out what it returns, gradients included, alike; if
    `across`, it lays out the result feature by feature, `(*m, d, b, n)`, as circuits read their inputs.
    """
    tokens, weight, bias = plain(tokens), plain(weight), plain(bias)
    if _is_for_kernel(tokens, weight, bias):
        return _Normalised.apply(tokens.mT, weight, bias, eps, across).mT  # type: ignore[no-untyped-call]
    return _by_torch(tokens, weight, bias, eps)


def norm_mean(
    tokens: Float[Tensor, "*m b n d"], weight: Float[Tensor, "*m d"], bias: Float[Tensor, "*m d"], eps: float
) -> Float[Tensor, "*m b d"]:
    """Return the mean over tokens of their layer normalisation, which the kernel never writes to memory."""
    tokens, weight, bias = plain(tokens), plain(weight), plain(bias)
    if _is_for_kernel(tokens, weight, bias):
        return _Averaged.apply(tokens.mT, weight, bias, eps)  # type: ignore[no-untyped-call]
    return _by_torch(tokens, weight, bias, eps).mean(dim=-2)


def _is_for_kernel(tokens: Tensor, weight: Tensor, bias: Tensor) -> bool:
    return (
        unwatched(tokens, weight, bias)  # first: a traced call must not ask for sizes
        and tokens.dtype == weight.dtype == bias.dtype == torch.float32
        and tokens.shape[-1] <= WIDEST
        and tokens.numel() > 0
        and tokens.mT.is_contiguous()
        and not torch.is_autocast_enabled("cpu")
    )


def _by_torch(tokens: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the same by operations that torch can trace, transform and differentiate to any order."""
    if weight.ndim > 1 or transformed():
        return _centred(tokens, eps)[0] * _each(weight) + _each(bias)
    return differentiable(F.layer_norm(tokens, weight.shape, weight, bias, eps), _hook(eps))


def _each(weight: Tensor) -> Tensor:
    """Return a weight `(*m, d)` so that it broadcasts against tokens `(*m, b, n, d)`; one model's as it is."""
    return weight if weight.ndim == 1 else weight[..., None, None, :]


@lru_cache
def _hook(eps: float) -> Hook:
    return replacing(partial(_of_torch, eps))


def _centred(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the features with mean 0 and deviation 1, and what they were multiplied by."""
    moved = features - features.mean(dim=-1, keepdim=True)
    factor = (moved.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    return moved * factor, factor


def _slopes(tokens: Tensor, weight: Tensor, gradient: Tensor, eps: float) -> Gradients:
    """Return the gradients of features, weight and bias by operations that can be differentiated and batched."""
    normal, factor = _centred(tokens, eps)
    inner = gradient * _each(weight)
    slope = inner - inner.mean(dim=-1, keepdim=True) - normal * (inner * normal).mean(dim=-1, keepdim=True)
    lead = tuple(range(weight.ndim - 1, gradient.ndim - 1))
    return slope * factor, (gradient * normal).sum(dim=lead), gradient.sum(dim=lead)


def _of_torch(eps: float, _node: Any, found: tuple[Tensor | None, ...], gradient: Tensor) -> Gradients | None:
    """Return the gradients of features, weight and bias; None where torch's are correct."""
    again = None if found[0] is None else found[0].grad_fn  # torch's gradient of its gradient
    if again is None:  # the gradient is linear in everything that requires one
        return None
    # From what this node has saved, not the first one: checkpointing gives each of those tensors back only once.
    return _slopes(again._saved_input, again._saved_weight, gradient, eps)  # type: ignore[attr-defined]


class _Normalised(torch.autograd.Function):
    """Layer normalisation of tokens-last memory on the CPU, by a compiled kernel."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Float[Tensor, "*m b d n"], weight: Float[Tensor, "*m d"], bias: Float[Tensor, "*m d"],
        eps: float, across: bool,
    ) -> Float[Tensor, "*m b d n"]:  # fmt: skip
        """Return the normalised tokens."""
        from qvit.models import norm_kernel

        work = _Work(tokens)
        out, kept = _across(tokens) if across and tokens.ndim <= 4 else tokens.new_empty(tokens.shape), work.moments()
        given = work.tokens(tokens), work.weights(weight), work.weights(bias)
        made = *work.laid_out(out), kept.numpy()

        def run(first: int, last: int) -> None:
            norm_kernel.forward(*given, np.float32(eps), work.share, work.room(), *made, first, last, IMAGES_A_PART)

        in_parts(run, work.parts, 8.0 * tokens.numel())
        ctx.save_for_backward(tokens, weight, kept)
        ctx.work, ctx.eps = work, eps
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "*m b d n"]) -> tuple[Tensor | None, ...]:
        """Return the gradients of tokens, weight and bias."""
        from qvit.models import norm_kernel

        tokens, weight, kept = ctx.saved_tensors
        if torch.is_grad_enabled() or not unwatched(gradient):  # a second derivative is wanted, or many at once
            found, *others = _slopes(tokens.mT, weight, gradient.mT, ctx.eps)
            return found.mT, *others, None, None
        work = ctx.work
        found, sums = tokens.new_empty(tokens.shape), work.sums()
        gradient = gradient if gradient.stride(-1) == 1 and gradient.ndim <= 4 else gradient.contiguous()
        given = work.tokens(tokens), *work.laid_out(gradient), work.weights(weight), work.share
        made = kept.numpy(), work.tokens(found), sums.numpy()

        def run(first: int, last: int) -> None:
            norm_kernel.backward(*given, work.room(2), work.totals(), *made, first, last, IMAGES_A_PART)

        in_parts(run, work.parts, 16.0 * tokens.numel())
        return found, *work.of_weights(sums, weight), None, None


def _across(tokens: Tensor) -> Tensor:
    """Return an empty tensor `(*m, b, d, n)` in the memory of one `(*m, d, b, n)`."""
    *lead, b, d, n = tokens.shape
    steps = [n, b * n, 1] if not lead else [d * b * n, n, b * n, 1]
    return torch.empty_strided(tokens.shape, steps, dtype=tokens.dtype, device=tokens.device)


class _Averaged(torch.autograd.Function):
    """The mean over tokens of the layer normalisation of tokens-last memory on the CPU, by a compiled kernel."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Float[Tensor, "*m b d n"], weight: Float[Tensor, "*m d"], bias: Float[Tensor, "*m d"],
        eps: float,
    ) -> Float[Tensor, "*m b d"]:  # fmt: skip
        """Return the means."""
        from qvit.models import norm_kernel

        work = _Work(tokens)
        out, normals = (tokens.new_empty(tokens.shape[:-1]) for _ in range(2))
        kept = work.moments()
        given = work.tokens(tokens), work.weights(weight), work.weights(bias)
        made = out.numpy(), normals.numpy(), kept.numpy()

        def run(first: int, last: int) -> None:
            numbers, room = (np.float32(eps), work.share), (work.room(), work.totals())
            norm_kernel.forward_mean(*given, *numbers, *room, *made, first, last, IMAGES_A_PART)

        in_parts(run, work.parts, 8.0 * tokens.numel())
        ctx.save_for_backward(tokens, weight, normals, kept)
        ctx.work, ctx.eps = work, eps
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "*m b d"]) -> tuple[Tensor | None, ...]:
        """Return the gradients of tokens, weight and bias."""
        from qvit.models import norm_kernel

        tokens, weight, normals, kept = ctx.saved_tensors
        if torch.is_grad_enabled() or not unwatched(gradient):
            every = (gradient / tokens.shape[-1])[..., None, :].expand(tokens.mT.shape)
            found, *others = _slopes(tokens.mT, weight, every, ctx.eps)
            return found.mT, *others, None
        work = ctx.work
        found, sums = tokens.new_empty(tokens.shape), work.sums()
        given = work.tokens(tokens), gradient.contiguous().numpy(), work.weights(weight), work.share
        made = normals.numpy(), kept.numpy(), work.tokens(found), sums.numpy()

        def run(first: int, last: int) -> None:
            norm_kernel.backward_mean(*given, work.room(), work.slopes(), *made, first, last, IMAGES_A_PART)

        in_parts(run, work.parts, 12.0 * tokens.numel())
        return found, *work.of_weights(sums, weight), None


class _Work:
    """Sizes of a call of the kernel, from tokens `(*m, b, d, n)`, and the arrays that it takes."""

    def __init__(self, tokens: Tensor) -> None:
        self.b, self.d, self.n = tokens.shape[-3:]
        self.lanes = VECTOR_BYTES // tokens.element_size()
        self.models = tokens.numel() // (self.b * self.d * self.n)
        self.parts = self.models * -(-self.b // IMAGES_A_PART)
        self.stride = max(self.n, self.lanes)
        self.share = np.float32(1.0 / self.d)

    def tokens(self, tokens: Tensor) -> np.ndarray:
        return tokens.detach().view(self.models, self.b, self.d, self.n).numpy()

    def laid_out(self, tokens: Tensor) -> tuple[np.ndarray, tuple[int, int, int]]:
        """Return all numbers of a tensor, and how far models, images and features are apart."""
        tokens = tokens.detach()
        if tokens.ndim > 4:
            tokens = tokens.view(self.models, self.b, self.d, self.n)
        length = 1 + sum((size - 1) * step for size, step in zip(tokens.shape, tokens.stride(), strict=True))
        model, image, feature = (0, *tokens.stride())[-4:-1]
        return tokens.as_strided((length,), (1,)).numpy(), (model, image, feature)

    def weights(self, weight: Tensor) -> np.ndarray:
        return weight.detach().reshape(self.models, self.d).contiguous().numpy()

    def moments(self) -> Tensor:
        return torch.empty(self.models, self.b, 2, self.stride)

    def sums(self) -> Tensor:
        return torch.empty(self.parts, 2, self.d)

    def of_weights(self, sums: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of weight and bias from those of all parts."""
        each = sums.view(self.models, -1, 2, self.d).sum(dim=1, dtype=torch.float64).to(sums.dtype)
        return each[:, 0].reshape(weight.shape), each[:, 1].reshape(weight.shape)

    def room(self, images: int = 1) -> np.ndarray:
        """Return scratch for images of fewer tokens than a vector has lanes."""
        return torch.empty(images * self.d * self.lanes if self.n < self.lanes else 0).numpy()

    def totals(self) -> np.ndarray:
        return torch.empty(2 * self.d * self.lanes).numpy()

    def slopes(self) -> np.ndarray:
        return torch.empty(self.d).numpy()
