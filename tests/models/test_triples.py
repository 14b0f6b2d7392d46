"""Queries, keys and values as slices of one tensor, and their gradients."""

import torch

from qvit.models.block import MixWeights, mix
from qvit.models.triples import AXIS, restacked, unstacked


def test_slices_and_their_gradients() -> None:
    stacked = torch.randn(2, 3, 2, 2, 5, 3, requires_grad=True)
    for one, other in zip(unstacked(stacked), stacked.unbind(1), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() == other.data_ptr()
    small = torch.randn(3, 1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unstacked, small)
    assert torch.autograd.gradgradcheck(unstacked, small)
    (found,) = torch.autograd.grad(unstacked(stacked)[1].sum(), stacked)
    assert found.sum() == found[:, 1].sum() == stacked[:, 1].numel()


def test_only_slices_of_one_tensor_at_equal_distances_are_put_together() -> None:
    whole = torch.randn(2, 4, 2, 2, 5, 3)
    first, second, third, fourth = whole.unbind(AXIS)
    found = restacked((second, third, fourth))
    assert found is not None
    assert torch.equal(found, whole[:, 1:])
    assert found.data_ptr() == second.data_ptr()
    assert restacked((first, second, fourth)) is None
    assert restacked((third, second, first)) is None
    assert restacked((first, first, first)) is None
    assert restacked((first, second, third.clone())) is None
    assert restacked((first, second, third.mT.contiguous().mT)) is None
    assert restacked((first, second, third[:1])) is None


def test_the_kernel_of_a_block_gives_gradients_that_need_no_copy() -> None:
    m, b, h, n, q, f = 2, 3, 2, 19, 3, 5
    d = h * q
    shapes = (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,)
    weights = MixWeights(*(torch.randn(m, *shape) for shape in shapes))  # type: ignore[arg-type]
    tokens, stacked = torch.randn(m, b, d, n).mT, torch.randn(m, 3, h, q, b, n).permute(0, 1, 4, 2, 5, 3)
    slices = unstacked(stacked.requires_grad_())
    apart = [one.detach().clone().requires_grad_() for one in slices]
    gradient = torch.randn(m, b, n, d)
    found = torch.autograd.grad(mix(tokens, *slices, weights), slices, gradient)
    wanted = torch.autograd.grad(mix(tokens, *apart, weights), apart, gradient)
    whole = restacked(found)
    assert whole is not None
    assert whole.stride() == stacked.stride()
    assert torch.equal(whole, torch.stack(wanted, AXIS))
    assert restacked(wanted) is None
