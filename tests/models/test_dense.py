"""Dense layers on tokens laid out feature by feature: values and derivatives, one model or a stack."""

import pytest
import torch
from torch import Tensor

from qvit.cpu import parts
from qvit.models.controls import Linear
from qvit.models.dense import WIDEST, may_project, project


def given(lead: tuple[int, ...], b: int, n: int, d: int, o: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Tokens, laid out feature by feature, weight and bias."""
    tokens = torch.randn(*lead, d, b, n, dtype=dtype).movedim(-3, -1)
    leaves = tokens, torch.randn(*lead, o, d, dtype=dtype), torch.randn(*lead, o, dtype=dtype)
    return [leaf.requires_grad_() for leaf in leaves]


def by_hand(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = tokens @ weight.mT[..., None, :, :]
    return out if bias is None else out + bias[..., None, None, :]


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("sizes", [(5, 49, 8, 24), (1, 4, 6, 7), (13, 23, 5, 1), (2, 50, 1, 5)])
@pytest.mark.parametrize("tokens_first", [False, True])
def test_values_and_gradients(lead: tuple[int, ...], sizes: tuple[int, ...], tokens_first: bool) -> None:
    tokens, weight, bias = given(lead, *sizes)
    if tokens_first:
        tokens = tokens.detach().contiguous().requires_grad_()
    assert may_project(tokens, weight, bias)
    for leaves in ([tokens, weight, bias], [tokens, weight]):
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        own, others = (each if len(each) == 3 else [*each, None] for each in (leaves, exact))
        values, wanted = project(*own), by_hand(*others)  # type: ignore[arg-type]
        gradient = torch.randn_like(values)
        found = [values, *torch.autograd.grad(values, leaves, gradient)]
        slopes = [wanted, *torch.autograd.grad(wanted, exact, gradient.double())]
        for one, other in zip(found, slopes, strict=True):
            scale = 1e-6 * float(other.detach().abs().max())
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=max(2e-6, scale))
        assert sizes[0] * sizes[1] < 16 or values.movedim(-1, -3).is_contiguous()


def test_bits_depend_neither_on_other_tokens_nor_models_nor_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = given((3,), 23, 49, 8, 10)
    values = project(*leaves)
    gradient = torch.randn_like(values)
    together = [values, *torch.autograd.grad(values, leaves, gradient)]
    for place in range(3):
        own = [leaf[place].detach().requires_grad_() for leaf in leaves]
        alone = project(*own)
        found = [alone, *torch.autograd.grad(alone, own, gradient[place])]
        assert all(torch.equal(one, other[place]) for one, other in zip(found, together, strict=True))
        assert torch.equal(project(own[0][5:6], *own[1:]), alone[5:6])
        assert torch.equal(project(own[0][5:6, 7:12], *own[1:]), alone[5:6, 7:12])
    monkeypatch.setattr(parts, "_WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    again = project(*leaves)
    shared = [again, *torch.autograd.grad(again, leaves, gradient)]
    assert all(torch.equal(one, other) for one, other in zip(shared, together, strict=True))


@pytest.mark.parametrize("lead", [(), (2,)])
def test_second_derivatives_and_many_gradients_at_once(lead: tuple[int, ...]) -> None:
    leaves = given(lead, 3, 7, 5, 6)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]

    def second(values: Tensor, own: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(values.sin().sum(), own, create_graph=True)
        return list(torch.autograd.grad(sum(one.square().sum() for one in found), own))

    for one, other in zip(second(project(*leaves), leaves), second(by_hand(*exact), exact), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)
    values = project(*leaves)
    many = torch.randn(4, *values.shape)
    batched = torch.autograd.grad(values, leaves, many, is_grads_batched=True, retain_graph=True)
    for k in range(4):
        for one, other in zip(batched, torch.autograd.grad(values, leaves, many[k], retain_graph=True), strict=True):
            torch.testing.assert_close(one[k], other, rtol=1e-4, atol=1e-5)


def test_where_the_kernel_may_not_be_used() -> None:
    tokens, weight, bias = given((), 3, 7, 5, 6)
    assert may_project(tokens, weight, None)
    assert not may_project(tokens.double(), weight, bias)
    assert not may_project(tokens, weight[:, :4], bias)
    assert not may_project(tokens, weight, bias[:5])
    assert not may_project(tokens[0], weight, bias)
    assert not may_project(tokens[:0], weight, bias)
    assert not may_project(torch.randn(2, 3, 7, 5), weight.expand(3, -1, -1), bias.expand(3, -1))
    assert not may_project(*given((), 2, 3, WIDEST + 1, 4))
    with torch.autocast("cpu"):
        assert not may_project(tokens, weight, bias)


def test_a_projection_that_is_watched_is_computed_by_its_layer() -> None:
    projection, tokens = Linear().build(4, 2), torch.randn(2, 20, 4)
    expected, seen = projection(tokens), []
    projection.dense.register_forward_hook(lambda _module, _given, out: seen.append(out))
    for one, other in zip(projection(tokens), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert len(seen) == 1
