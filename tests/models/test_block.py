"""What follows a block's projections, as one operation, against the same spelt out in float64."""

from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from qvit.models.block import MixWeights, may_mix, mix, spelt_out
from qvit.models.block_call import Call, Sizes, adjoining, planned

# Of models, images, heads, tokens, widths of queries and of values, d and f.
Shape = tuple[int | None, int, int, int, int, int, int, int]
SHAPES: list[Shape] = [
    (None, 11, 2, 49, 4, 4, 8, 8),
    (3, 9, 2, 50, 3, 1, 6, 7),
    (2, 5, 3, 7, 8, 5, 15, 9),
    (None, 3, 1, 64, 1, 8, 3, 2),
    (2, 1, 2, 75, 5, 8, 16, 33),
]


def given(shape: Shape, scale: float = 1.0) -> list[Tensor]:
    """Tokens, queries, keys and values with tokens last in memory, as circuits return them, and the weights."""
    m, b, h, n, k, q, d, f = shape
    lead = () if m is None else (m,)

    def of_heads(width: int) -> Tensor:
        return torch.randn(*lead, h, width, b, n).movedim(-2, -4).mT

    inputs = [torch.randn(*lead, b, d, n).mT, scale * of_heads(k), scale * of_heads(k), of_heads(q)]
    sizes = [(d, h * q), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,)]
    return [*inputs, *(0.5 * torch.randn(*lead, *size) for size in sizes)]


def used(values: Tensor) -> bool:
    """Whether the kernel made these values."""
    return "_Mix" in type(values.grad_fn).__name__


def results(tensors: list[Tensor], *, ours: bool) -> list[Tensor]:
    """The values and all gradients, ours or those in float64."""
    leaves = [(each if ours else each.double()).detach().requires_grad_() for each in tensors]
    out = (mix if ours else spelt_out)(*leaves[:4], MixWeights(*leaves[4:]))
    assert used(out) is ours
    factors = torch.linspace(-1.0, 1.7, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, factors)]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float = 5e-6) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert error <= tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_spelt_out(shape: Shape) -> None:
    tensors = given(shape)
    assert_near(results(tensors, ours=True), results(tensors, ours=False))


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]])
def test_large_scores_neither_overflow_nor_vanish(shape: Shape) -> None:
    """Up to ±200 and beyond, where most weights are 0 or 1: scores have so many digits of themselves."""
    tensors = given(shape, scale=12.0)
    queries, keys = tensors[1:3]
    scores = (queries @ keys.mT / queries.shape[-1] ** 0.5).abs().max()
    assert scores > 200
    assert_near(results(tensors, ours=True), results(tensors, ours=False), 5e-4)


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20])
def test_values_of_any_size_are_mixed(size: float) -> None:
    tensors = given(SHAPES[0])
    zero = [torch.zeros_like(each) for each in tensors]
    tensors = [zero[0], *tensors[1:3], size * tensors[3], tensors[4] / size**0.5, *zero[5:]]
    expected = spelt_out(*(each.double() for each in tensors[:4]), MixWeights(*(each.double() for each in tensors[4:])))
    found = mix(*tensors[:4], MixWeights(*tensors[4:]))
    torch.testing.assert_close(found.double() / size**0.5, expected / size**0.5, rtol=1e-5, atol=1e-6)


def test_a_score_far_below_all_others_does_not_make_all_exact_ones_wrong() -> None:
    tensors = given(SHAPES[0])
    tensors[1][0, 0, 5] *= 1e4
    tensors[2][1, 1, 48] *= -1e4
    assert_near(results(tensors, ours=True)[:1], results(tensors, ours=False)[:1])


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_what_is_no_number_is_not_hidden(odd: float, which: int) -> None:
    tensors = given(SHAPES[0])
    tensors[which][(3, 48, 2) if which == 0 else (3, 1, 48, 2)] = odd
    found = mix(*tensors[:4], MixWeights(*tensors[4:]))
    expected = spelt_out(*tensors[:4], MixWeights(*tensors[4:]))
    wrong = ~found.isfinite()
    assert (wrong | expected.isfinite()).all()
    assert wrong[3].any()
    assert not wrong[torch.arange(len(found)) != 3].any()


def test_gradients_that_are_no_numbers_are_not_hidden() -> None:
    tensors = given(SHAPES[0])
    leaves = [each.requires_grad_() for each in tensors]
    out = mix(*leaves[:4], MixWeights(*leaves[4:]))
    gradient = torch.randn_like(out)
    gradient[3, 48, 2] = torch.nan
    for slope in torch.autograd.grad(out, leaves, gradient):
        assert slope.isnan().any()


def test_no_model_sees_another_and_no_thread_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: the same numbers alone, in any company, and shared among any number of threads."""
    tensors = given((5, 19, 2, 49, 4, 4, 8, 8))
    together = results(tensors, ours=True)
    alone = results([each[3] for each in tensors], ours=True)
    others = [torch.stack([each[3], torch.randn_like(each[3]) * 100]) for each in tensors]
    in_company = results(others, ours=True)
    monkeypatch.setattr(import_module("qvit.cpu.parts"), "_WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shared = results(tensors, ours=True)
    assert all(torch.equal(a, b) for a, b in zip(together, shared, strict=True))
    assert torch.equal(together[0][3], alone[0])
    assert torch.equal(in_company[0][0], alone[0])


def test_gradients_of_a_model_are_its_own() -> None:
    tensors = given((3, 19, 2, 50, 4, 4, 8, 8))
    gradient = torch.randn(3, 19, 50, 8)

    def slopes(which: list[Tensor], gradient: Tensor) -> tuple[Tensor, ...]:
        leaves = [each.detach().requires_grad_() for each in which]
        return torch.autograd.grad(mix(*leaves[:4], MixWeights(*leaves[4:])), leaves, gradient)

    together = slopes(tensors, gradient)
    alone = slopes([each[1] for each in tensors], gradient[1])
    assert all(torch.equal(a[1], b) for a, b in zip(together, alone, strict=True))


def test_scores_are_scaled() -> None:
    tensors, found = given(SHAPES[1]), []
    for function, dtype, scale, of_queries in (
        *((mix, torch.float32, 3.0, 1.0), (mix, torch.float32, 1.0, 3.0)),
        *((spelt_out, torch.float64, 3.0, 1.0), (spelt_out, torch.float64, 1.0, 3.0)),
    ):
        leaves = [each.to(dtype).detach().requires_grad_() for each in tensors]
        out = function(leaves[0], of_queries * leaves[1], *leaves[2:4], MixWeights(*leaves[4:], scale=scale))
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
    for ours in found[:3]:
        assert_near(ours, found[3], 2e-5)


def test_second_derivatives_are_those_spelt_out() -> None:
    tensors = given(SHAPES[1])
    found = []
    for function, dtype in ((mix, torch.float32), (spelt_out, torch.float64)):
        leaves = [each.to(dtype).requires_grad_() for each in tensors]
        out = function(*leaves[:4], MixWeights(*leaves[4:]))
        slopes = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(slope.sin().sum() for slope in slopes), leaves))
    assert_near(list(found[0]), list(found[1]), 1e-3)


def test_what_is_spelt_out_passes_gradcheck() -> None:
    tensors = [each.double().requires_grad_() for each in given((2, 1, 2, 3, 2, 1, 2, 3))]

    def function(*leaves: Tensor) -> Tensor:
        return spelt_out(*leaves[:4], MixWeights(*leaves[4:]))

    assert gradcheck(function, tensors, fast_mode=True)


def test_many_gradients_at_once() -> None:
    leaves = [each.requires_grad_() for each in given(SHAPES[1])]
    out = mix(*leaves[:4], MixWeights(*leaves[4:]))
    gradients = torch.randn(2, *out.shape)
    many = torch.autograd.grad(out, leaves, gradients, is_grads_batched=True, retain_graph=True)
    for k in range(2):
        for each, one in zip(many, torch.autograd.grad(out, leaves, gradients[k], retain_graph=True), strict=True):
            torch.testing.assert_close(each[k], one, rtol=1e-4, atol=1e-4)


def test_only_what_is_wanted_gets_a_gradient() -> None:
    tensors = given(SHAPES[1])
    expected = results(tensors, ours=True)[1:]
    for wanted in ([0], [2], [6], [0, 3], [1, 11]):
        leaves = [each.detach().requires_grad_(place in wanted) for place, each in enumerate(tensors)]
        out = mix(*leaves[:4], MixWeights(*leaves[4:]))
        factors = torch.linspace(-1.0, 1.7, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
        out.backward(factors)
        for place, leaf in enumerate(leaves):
            if place in wanted:
                assert leaf.grad is not None
                assert torch.equal(leaf.grad, expected[place])
            else:
                assert leaf.grad is None


def test_any_strides_give_the_same_and_gradients_lie_as_their_tensors_do() -> None:
    tensors = given(SHAPES[1])
    expected = results(tensors, ours=True)
    assert expected[0].mT.is_contiguous()
    assert expected[1].mT.is_contiguous()
    assert [each.stride() for each in expected[2:5]] == [each.stride() for each in tensors[1:4]]
    other = [each.contiguous() for each in tensors]
    assert all(torch.equal(a, b) for a, b in zip(results(other, ours=True), expected, strict=True))
    apart = [torch.stack([each.mT, each.mT], dim=1)[:, 1].mT for each in tensors]
    apart[4:] = tensors[4:]
    assert all(torch.equal(a, b) for a, b in zip(results(apart, ours=True), expected, strict=True))


def test_one_tensor_may_stand_for_three_and_for_all_images() -> None:
    m, b, h, n, k, _, d, f = SHAPES[0]
    tensors = given((m, b, h, n, k, k, d, f))
    tensors[1:4] = [tensors[3][:1].expand(b, -1, -1, -1)] * 3
    assert_near(results(tensors, ours=True), results(tensors, ours=False))


def test_tokens_last_are_read_where_they_are() -> None:
    tensors = given(SHAPES[0])
    plan = planned(tensors[0].shape, tensors[1].shape, tensors[3].shape, 8, 1.0)
    assert plan is not None
    call = Call(plan, [adjoining(tensor) for tensor in tensors[:4]], tensors[4:], 1e-5)
    assert call.memory[::2] == [tensor.data_ptr() for tensor in tensors]


def test_without_gradients_the_result_is_the_same() -> None:
    tensors = given(SHAPES[1])
    expected = results(tensors, ours=True)[0]
    assert torch.equal(mix(*tensors[:4], MixWeights(*tensors[4:])), expected)


def test_where_the_kernel_may_run() -> None:
    def may(shape: Shape, kind: torch.dtype = torch.float32, eps: float = 1e-5) -> bool:
        tensors = [each.to(kind) for each in given(shape)]
        return may_mix(*tensors[:4], MixWeights(*tensors[4:], eps))

    fitting: Shape = (None, 2, 2, 49, 4, 4, 8, 8)
    assert may(fitting)
    assert not may(fitting, torch.float64)
    assert not may(fitting, eps=0.0)
    assert not may((None, 2, 2, 49, 9, 4, 8, 8))
    assert not may((None, 2, 2, 49, 4, 9, 8, 8))
    assert not may((None, 2, 2, 49, 4, 4, 8, 65))
    assert not may((None, 0, 2, 49, 4, 4, 8, 8))
    assert not may((None, 1, 1, 2049, 1, 1, 1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not may(fitting)


def test_what_does_not_fit_together_never_reaches_the_kernel() -> None:
    """It would read what is not there."""
    fitting = given((2, 3, 2, 49, 4, 4, 8, 8))
    assert may_mix(*fitting[:4], MixWeights(*fitting[4:]))
    for place, tensor in enumerate(fitting):
        for axis in range(tensor.ndim):
            shorter = [*fitting]
            shorter[place] = tensor.narrow(axis, 0, tensor.shape[axis] - 1)
            assert not may_mix(*shorter[:4], MixWeights(*shorter[4:])), (place, axis)
    for place in range(4, 12):
        assert not may_mix(*fitting[:4], MixWeights(*fitting[4:])._replace(**{MixWeights._fields[place - 4]: None}))


def test_scratch_is_as_large_as_the_kernel_thinks() -> None:
    from qvit.models import block_kernel

    for d, f, h, w in ((8, 8, 2, 4), (3, 7, 3, 8), (64, 63, 16, 4)):
        sizes = Sizes(1, 1, 50, d, f, h, w, w)
        assert block_kernel.places_of_sums(d, f, h * w)[-1] == sizes.sums
        assert block_kernel.places_of_weights(d, f, h * w)[-1] <= sizes.room()[0]
