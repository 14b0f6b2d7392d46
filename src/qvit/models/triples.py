"""Queries, keys and values that are slices of one tensor: taken apart, and their gradients put together, uncopied."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qvit.torch_private import unwatched

AXIS = -5  # of a tensor `(*m, 3, b, h, n, q)`
QueriesKeysValues = tuple[Float[Tensor, "*m b h n k"], Float[Tensor, "*m b h n k"], Float[Tensor, "*m b h n q"]]


def unstacked(stacked: Float[Tensor, "*m 3 b h n q"]) -> QueriesKeysValues:
    """Return queries, keys and values as views.

    Their gradients are put together uncopied where they are slices of one tensor, too, as `block_call` makes them.
    """
    slices = _Apart.apply(stacked) if unwatched(stacked) else stacked.unbind(AXIS)  # type: ignore[no-untyped-call]
    queries, keys, values = slices
    return queries, keys, values


def restacked(slices: Sequence[Tensor]) -> Tensor | None:
    """Return the tensor `(*m, 3, b, h, n, q)` whose slices `(*m, b, h, n, q)`, at equal distances in memory, these are.

    None if there is no such tensor, as where they differ in their shapes.
    """
    first, second, *_ = slices
    place, step = first.storage_offset(), second.storage_offset() - first.storage_offset()
    alike = all(
        one.shape == first.shape
        and one.stride() == first.stride()
        and one.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and one.storage_offset() == place + k * step
        for k, one in enumerate(slices)
    )
    if not alike or step <= 0:
        return None
    lead = first.ndim + 1 + AXIS
    sizes, strides = [*map(int, first.shape)], [*map(int, first.stride())]
    sizes.insert(lead, len(slices))
    strides.insert(lead, int(step))
    return first.as_strided(sizes, strides)


class _Apart(torch.autograd.Function):
    """`unbind`, and a gradient that is not copied if it need not be."""

    @staticmethod
    def forward(_ctx: Any, stacked: Tensor) -> tuple[Tensor, ...]:
        """Return the slices."""
        return stacked.unbind(AXIS)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradients as one tensor."""
        whole = None if torch.is_grad_enabled() or not unwatched(*gradients) else restacked(gradients)
        return torch.stack(gradients, AXIS) if whole is None else whole
