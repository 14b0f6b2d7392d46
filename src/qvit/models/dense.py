"""A dense layer on tokens laid out feature by feature, `(*m, d, b, n)` in memory, of one model or of a stack."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qvit.cpu.parts import VECTOR_BYTES, in_parts
from qvit.torch_private import unwatched

WIDEST = 64  # features: beyond, weights and the columns of a part leave the first cache
_VECTORS_A_PART = 16
_LANES = VECTOR_BYTES // 4


def may_project(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether `project` may be called: plain tensors of float32 on the CPU that fit together, none too wide."""
    given = (tokens, weight) if bias is None else (tokens, weight, bias)
    return (
        unwatched(*given)  # first: a traced call must not ask for sizes
        and all(tensor.dtype == torch.float32 for tensor in given)
        and tokens.ndim == weight.ndim + 1
        and weight.ndim in (2, 3)
        and tokens.shape[-1] == weight.shape[-1] <= WIDEST
        and tokens.shape[:-3] == weight.shape[:-2]
        and (bias is None or bias.shape == weight.shape[:-1])
        and tokens.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def project(
    tokens: Float[Tensor, "*m b n d"], weight: Float[Tensor, "*m o d"], bias: Float[Tensor, "*m o"] | None
) -> Float[Tensor, "*m b n o"]:
    """Return W·x + b by a kernel, laid out `(*m, o, b, n)` in memory; quickest for tokens `(*m, d, b, n)` in memory.

    What becomes of a token does not depend, bit for bit, on how many there are.
    """
    return _Projected.apply(tokens, weight, bias)  # type: ignore[no-untyped-call]


class _Projected(torch.autograd.Function):
    """The kernel as an operation that can be differentiated; twice by way of torch's operations."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the features of tokens."""
        from qvit.models import dense_kernel

        work = _Work(tokens, weight)
        columns = work.columns(tokens)
        first = weight.new_zeros(weight.shape[:-1]) if bias is None else bias
        laid = work.laid(first[..., None, :], weight.mT)
        out = work.empty(work.o)
        given = columns.numpy(), work.d, laid.numpy(), work.o, laid.shape[-1], out.numpy(), work.t

        def run(begin: int, end: int) -> None:
            dense_kernel.forward(*given, begin, end, _VECTORS_A_PART)

        in_parts(run, work.parts, work.updates)
        ctx.save_for_backward(tokens, weight, columns)
        ctx.work, ctx.biased = work, bias is not None
        return work.tokens(out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of tokens, weight and bias."""
        from qvit.models import dense_kernel

        tokens, weight, columns = ctx.saved_tensors
        if torch.is_grad_enabled() or not unwatched(gradient):  # a second derivative is wanted, or many at once
            to_tokens = gradient @ (weight if weight.ndim == 2 else weight[:, None])
            to_weight = (gradient.mT @ tokens).sum(dim=-3)
            return to_tokens, to_weight, gradient.sum(dim=(-3, -2)) if ctx.biased else None
        work = ctx.work
        slopes, found = work.columns(gradient), work.empty(work.d)
        laid = work.laid(weight.new_zeros(*weight.shape[:-2], 1, work.d), weight)
        r, c = -(-work.o // 4), -(-work.d // 4)
        sums = weight.new_empty(work.parts, r, c + 1, _LANES)
        given = columns.numpy(), work.d, laid.numpy(), slopes.numpy(), work.o, laid.shape[-1]
        made = found.numpy(), sums.numpy().reshape(-1), work.t

        def run(begin: int, end: int) -> None:
            dense_kernel.backward(*given, *made, begin, end, _VECTORS_A_PART)

        in_parts(run, work.parts, 2 * work.updates)
        whole = sums.view(work.models, -1, r, c + 1, 4, 4).sum(dim=1, dtype=torch.float64).float()
        to_weight = whole[:, :, :c].transpose(2, 3).reshape(work.models, 4 * r, 4 * c)[:, : work.o, : work.d]
        to_bias = whole[:, :, c, 0].reshape(work.models, 4 * r)[:, : work.o].reshape(weight.shape[:-1])
        return work.tokens(found), to_weight.reshape(weight.shape), to_bias if ctx.biased else None


class _Work:
    """Sizes of a call of the kernel, from tokens `(*m, b, n, d)` and weights `(*m, o, d)`, and the arrays it takes."""

    def __init__(self, tokens: Tensor, weight: Tensor) -> None:
        self.lead, (self.b, self.n), (self.o, self.d) = tokens.shape[:-3], tokens.shape[-3:-1], weight.shape[-2:]
        self.models = self.lead[0] if self.lead else 1
        self.known = self.b * self.n
        self.t = max(self.known, _LANES)
        self.parts = self.models * -(-self.t // (_LANES * _VECTORS_A_PART))
        self.updates = 0.2 * self.models * self.t * self.d * self.o

    def columns(self, tokens: Tensor) -> Tensor:
        """Return features one after another, `(m, d, t)`, not copied if they are laid out like that."""
        flat = tokens.detach().movedim(-1, -3).reshape(self.models, -1, self.known)
        flat = flat if self.known == self.t else F.pad(flat, (0, self.t - self.known))
        return flat.contiguous()

    def laid(self, first: Tensor, rows: Tensor) -> Tensor:
        """Return rows of weights after a first one, each filled up to a multiple of four."""
        whole = torch.cat((first, rows), dim=-2).detach()
        return F.pad(whole, (0, -whole.shape[-1] % 4)).contiguous()

    def empty(self, features: int) -> Tensor:
        return torch.empty(self.models, features, self.t)

    def tokens(self, columns: Tensor) -> Tensor:
        """Return columns as tokens, in a tensor that is no view."""
        steps = [columns.shape[1] * self.t, self.n, 1, self.t]
        shape = (*self.lead, self.b, self.n, columns.shape[1])
        return columns.new_empty(0).set_(columns.untyped_storage(), 0, shape, steps[-len(shape) :])
