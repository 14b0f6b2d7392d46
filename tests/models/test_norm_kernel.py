"""Layer normalisation of tokens-last memory, and its mean: values and derivatives, one model or a stack."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.cpu import parts
from qvit.models.norm import IMAGES_A_PART, WIDEST, LayerNorm, layer_norm, norm_mean

BOTH = pytest.mark.parametrize("function", [layer_norm, norm_mean])
EPS = 1e-5


def given(lead: tuple[int, ...], b: int, n: int, d: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Tokens of tokens-last memory, weight and bias."""
    tokens = (3.0 + 2.0 * torch.randn(*lead, b, d, n, dtype=dtype)).mT
    others = [torch.randn(*lead, d, dtype=dtype) for _ in range(2)]
    return [tensor.requires_grad_() for tensor in (tokens, *others)]


def by_hand(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    moved = tokens - tokens.mean(-1, keepdim=True)
    deviation = (moved.square().mean(-1, keepdim=True) + EPS).sqrt()
    if weight.ndim > 1:
        weight, bias = weight[..., None, None, :], bias[..., None, None, :]
    return moved / deviation * weight + bias


def with_gradients(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    values = function(*leaves)
    factors = torch.linspace(-1.0, 1.7, values.numel(), dtype=torch.float64).sin().to(values.dtype)
    return [values, *torch.autograd.grad(values, leaves, factors.reshape(values.shape))]


def used_kernel(values: Tensor) -> bool:
    names, node = [], values.grad_fn
    while node is not None and len(names) < 3:
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    return any(name in ("_NormalisedBackward", "_AveragedBackward") for name in names)


@BOTH
@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
@pytest.mark.parametrize("sizes", [(5, 7, 3), (19, 49, 8), (2, 50, 1), (1, 64, 12), (3, 1, 5), (2, 16, 64)])
def test_values_and_gradients(function: Callable[..., Tensor], lead: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    leaves = given(lead, *sizes)
    found = with_gradients(lambda *each: function(*each, EPS), leaves)
    assert used_kernel(found[0])
    assert found[1].mT.is_contiguous()
    assert function is norm_mean or found[0].mT.is_contiguous()
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    wanted = with_gradients(lambda *each: by_hand(*each) if function is layer_norm else by_hand(*each).mean(-2), exact)
    scale = 1.0 / float((exact[0].detach().var(-1, correction=0) + EPS).min().sqrt())  # of what cancels in the slopes
    for one, other in zip(found, wanted, strict=True):
        size = scale if other.shape == exact[0].shape else float(other.detach().abs().max())
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6 * max(1.0, size))


@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
@pytest.mark.parametrize("sizes", [(5, 7, 3), (4, 49, 8), (3, 1, 5)])
def test_another_layout_changes_no_number(lead: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    leaves = given(lead, *sizes)
    values, across = layer_norm(*leaves, EPS), layer_norm(*leaves, EPS, across=True)
    assert torch.equal(values, across)
    assert len(lead) > 1 or across.mT.transpose(-3, -2).is_contiguous()
    gradient = torch.randn_like(values)
    as_results = torch.empty_like(across).copy_(gradient)
    assert as_results.stride() == across.stride()
    for found in (gradient, as_results, gradient.contiguous()):
        for one, other in zip(
            torch.autograd.grad(across, leaves, found, retain_graph=True),
            torch.autograd.grad(values, leaves, gradient, retain_graph=True),
            strict=True,
        ):
            assert torch.equal(one, other)


@BOTH
@pytest.mark.parametrize("n", [7, 49])
def test_bits_depend_neither_on_other_models_nor_on_threads(
    function: Callable[..., Tensor], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = given((3,), 2 * IMAGES_A_PART + 5, n, 8)
    together = with_factors(function, leaves)
    monkeypatch.setattr(parts, "_WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for one, other in zip(with_factors(function, leaves), together, strict=True):
        assert torch.equal(one, other)
    for model in range(3):
        alone = [leaf[model].detach().requires_grad_() for leaf in leaves]
        for one, other in zip(with_factors(function, alone), together, strict=True):
            assert torch.equal(one, other[model])


def with_factors(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """Values and gradients, from a gradient that is each model's own function of its values."""
    values = function(*leaves, EPS)
    return [values, *torch.autograd.grad(values, leaves, values.detach().sin())]


@BOTH
@pytest.mark.parametrize("lead", [(), (2,)])
def test_second_derivatives(function: Callable[..., Tensor], lead: tuple[int, ...]) -> None:
    def second(leaves: list[Tensor]) -> list[Tensor]:
        values = function(*leaves, EPS)
        found = torch.autograd.grad(values.sin().sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(sum(one.square().sum() for one in found), leaves))

    leaves = given(lead, 3, 7, 5)
    assert used_kernel(function(*leaves, EPS))
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    for one, other in zip(second(leaves), second(exact), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)
    assert torch.autograd.gradgradcheck(lambda *each: function(*each, EPS), tuple(given(lead, 2, 3, 2, torch.float64)))


@BOTH
def test_many_gradients_at_once(function: Callable[..., Tensor]) -> None:
    leaves = given((2,), 3, 7, 5)
    values = function(*leaves, EPS)
    many = torch.randn(4, *values.shape)
    found = torch.autograd.grad(values, leaves, many, is_grads_batched=True, retain_graph=True)
    for k in range(4):
        for one, other in zip(found, torch.autograd.grad(values, leaves, many[k], retain_graph=True), strict=True):
            torch.testing.assert_close(one[k], other, rtol=1e-4, atol=1e-5)


@BOTH
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("why", ["double", "tokens first", "wide", "empty", "autocast", "torch.func"])
def test_where_the_kernel_may_not_be_used(function: Callable[..., Tensor], lead: tuple[int, ...], why: str) -> None:
    leaves = given(lead, 0 if why == "empty" else 3, 7, WIDEST + 1 if why == "wide" else 5)
    if why == "double":
        leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    if why == "tokens first":
        leaves[0] = leaves[0].detach().contiguous().requires_grad_()
    with torch.autocast("cpu", enabled=why == "autocast"):
        if why == "torch.func":
            values = torch.func.vjp(lambda tokens: function(tokens, *leaves[1:], EPS), leaves[0])[0]
        else:
            values = function(*leaves, EPS)
            assert not used_kernel(values)
    wanted = by_hand(*leaves)
    torch.testing.assert_close(values.to(wanted.dtype), wanted if function is layer_norm else wanted.mean(-2))


def test_the_module_of_a_stack() -> None:
    norm: Any = LayerNorm(4)
    tokens, weight, bias = given((3,), 2, 20, 4)
    norm.weight, norm.bias = torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())
    assert torch.equal(norm(tokens), layer_norm(tokens, weight, bias, norm.eps))
    one = LayerNorm(4)
    for shape in ((4,), (2, 4), (5, 2, 3, 4)):
        features = torch.randn(shape)
        torch.testing.assert_close(one(features), by_hand(features, one.weight, one.bias))
