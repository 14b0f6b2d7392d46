"""Attention for narrow heads against torch's, and where which of the two is used."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qvit.models import create_model
from qvit.models.attention import NarrowAttention, attend

SHAPES = [(64, 2, 49, 4), (7, 3, 101, 5), (1, 1, 211, 7), (13, 1, 50, 8), (3, 2, 197, 1)]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}


def _projected(shape: tuple[int, int, int, int], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Queries, keys and values in the layout in which circuits and matrices return them."""
    b, h, n, q = shape
    torch.manual_seed(0)
    leaf = (scale * torch.randn(b, n, 3, h, q, dtype=torch.float64)).to(dtype)
    return leaf.permute(2, 0, 3, 1, 4).requires_grad_()


def _attend(projected: Tensor) -> Tensor:
    return attend(*projected.unbind(0))


def _plain(projected: Tensor) -> Tensor:
    queries, keys, values = projected.unbind(0)
    return (queries @ keys.mT / projected.shape[-1] ** 0.5).softmax(-1) @ values


def _used(projected: Tensor) -> bool:
    """Whether `attend` took the path for narrow heads."""
    return _is_of_ours(_attend(projected))


def _is_of_ours(found: Tensor) -> bool:
    seen, todo = set(), [found.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return any("NarrowAttention" in type(node).__name__ for node in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_narrow_heads_agree_with_torch_in_values_and_gradients(
    shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    ours, theirs = _projected(shape, dtype), _projected(shape, torch.float64)
    assert _used(ours)
    found, expected = _attend(ours), F.scaled_dot_product_attention(*theirs.unbind(0))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(expected, _plain(theirs), rtol=0, atol=1e-14)
    weights = torch.randn(found.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(found, ours, weights.to(dtype))
    (wanted,) = torch.autograd.grad(expected, theirs, weights)
    torch.testing.assert_close(gradient.double(), wanted, rtol=0, atol=5 * TOLERANCE[dtype])


@pytest.mark.long
def test_narrow_heads_pass_gradcheck() -> None:
    torch.manual_seed(0)
    across = [torch.randn(2, 1, width, 5, dtype=torch.float64).requires_grad_() for width in (2, 2, 3)]
    assert torch.autograd.gradcheck(NarrowAttention.apply, across)


def test_scores_may_have_another_width_than_values() -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(8, 2, 49, width, dtype=torch.float64).requires_grad_() for width in (2, 2, 5)]
    found, expected = attend(*leaves), F.scaled_dot_product_attention(*leaves)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    weights = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, weights), torch.autograd.grad(expected, leaves, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [10.0, 1e3, 1e6])
def test_large_scores_neither_overflow_nor_vanish(dtype: torch.dtype, scale: float) -> None:
    """Most weights are 0 or 1 there; the oracle gets the numbers as rounded to `dtype`."""
    ours = _projected((16, 2, 49, 4), dtype, scale)
    theirs = ours.detach().double().requires_grad_()
    assert _used(ours)
    found, expected = _attend(ours), _plain(theirs)
    sharp = 1e-6 if dtype == torch.float32 else 1e-15  # scores are known to so many digits of themselves
    tolerance = scale * min(1.0, 30 * sharp * scale**2) + scale * TOLERANCE[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    (gradient,) = torch.autograd.grad(found.sum(), ours)
    assert torch.isfinite(gradient).all()


def test_equal_scores_of_any_size_are_shared_equally() -> None:
    values = torch.randn(16, 2, 49, 4)
    for size in (0.0, 1e4, 1e18):
        same = torch.full((16, 2, 49, 4), size)
        assert torch.allclose(attend(same, same, values), values.mean(2, keepdim=True).expand_as(values), atol=1e-5)


def test_nan_stays_nan() -> None:
    projected = _projected((16, 2, 49, 4), torch.float32).detach().clone()
    projected[0, 3, 1, 5, 2] = torch.nan
    found = _attend(projected)
    assert found[3, 1, 5].isnan().all()
    assert not found[4].isnan().any()


@pytest.mark.parametrize(
    ("shape", "ours"),
    [
        ((1, 1, 127, 2), False),
        ((1, 1, 128, 2), True),
        ((1, 1, 91, 2), False),
        ((1, 2, 91, 2), True),
        ((2, 1, 91, 2), True),
        ((2, 1, 91, 8), True),
        ((2, 1, 91, 9), False),
        ((2, 1, 91, 64), False),
        ((1, 1, 2048, 1), True),
        ((1, 1, 2049, 1), False),
        ((0, 2, 49, 4), False),
    ],
)
def test_narrow_heads_of_many_scores_are_ours_and_other_shapes_torchs(
    shape: tuple[int, int, int, int], ours: bool
) -> None:
    """Up to 8 features and 2,048 tokens, from 2¹⁴ scores on."""
    projected = _projected(shape, torch.float32)
    assert _used(projected) is ours
    torch.testing.assert_close(_attend(projected), F.scaled_dot_product_attention(*projected.unbind(0)))


@pytest.mark.parametrize(("scores", "values", "ours"), [(2, 8, True), (2, 9, False), (9, 2, False)])
def test_the_wider_of_scores_and_values_counts(scores: int, values: int, ours: bool) -> None:
    leaves = [torch.randn(2, 1, 91, width, requires_grad=True) for width in (scores, scores, values)]
    assert _is_of_ours(attend(*leaves)) is ours


def test_half_precision_and_autocast_go_to_torch() -> None:
    assert not _used(_projected((16, 2, 49, 4), torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not _used(_projected((16, 2, 49, 4), torch.float32))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_gradients_of_single_images_by_torch_func() -> None:
    torch.manual_seed(0)
    model = create_model("vit_4q2h", num_classes=3)
    parameters = dict(model.named_parameters())
    images = torch.randint(0, 256, (16, 3, 28, 28), dtype=torch.uint8)

    def loss(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (images,)).square().sum()

    single = torch.func.vmap(lambda p, image: torch.func.grad(loss)(p, image[None]), in_dims=(None, 0))
    summed = {name: value.sum(0) for name, value in single(parameters, images).items()}
    loss(parameters, images).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(summed[name], parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qvit_4q2h", "vit_4q2h", "identity_8q1h"])
def test_a_whole_model_is_the_same_either_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).double()
    images = torch.randint(0, 256, (12, 3, 28, 28), dtype=torch.uint8)
    results = []
    for scores in (2**14, 2**62):
        monkeypatch.setattr(import_module("qvit.models.attention"), "FEWEST_SCORES", scores)
        model.zero_grad()
        logits = model(images)
        logits.square().sum().backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
