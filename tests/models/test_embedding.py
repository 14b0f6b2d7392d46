"""Images to tokens by the kernel and by torch: values and derivatives, one model or a stack."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qvit.cpu import parts
from qvit.models.embedding import IMAGES_A_PART, WIDEST, embed, normalised
from qvit.models.preprocess import Preprocess
from qvit.models.vit import ViT, ViTConfig

Given = tuple[Tensor, Tensor, Tensor, list[Tensor]]
KINDS = pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
SIZES = [  # images, channels, side, patch, width
    (5, 3, 28, 4, 8),
    (3, 1, 28, 7, 3),  # patches that do not divide a vector
    (2, 3, 64, 8, 12),
    (2, 3, 32, 16, 1),
    (2, 1, 8, 4, 5),  # rows shorter than a vector
    (2, 1, 6, 1, 2),
    (1, 3, 34, 17, 3),  # rows of patches longer than a vector
    (1, 3, 160, 16, 4),  # more than is worked on at once
]


def given(
    lead: tuple[int, ...],
    b: int,
    c: int,
    s: int,
    p: int,
    d: int,
    kind: torch.dtype,
    number: torch.dtype = torch.float32,
) -> Given:
    """Images, mean, deviation, and weight, bias, positions."""
    images = torch.randint(0, 256, (*lead, b, c, s, s), dtype=torch.uint8)
    if kind.is_floating_point:
        images = images.to(kind) / 255.0
    mean, std = torch.rand(*lead, c, dtype=number), 0.1 + torch.rand(*lead, c, dtype=number)
    shapes = (*lead, d, c, p, p), (*lead, d), (*lead, 1, (s // p) ** 2, d)
    return images, mean, std, [torch.randn(shape, dtype=number).requires_grad_() for shape in shapes]


def by_hand(images: Tensor, mean: Tensor, std: Tensor, parameters: list[Tensor]) -> Tensor:
    """One model after another."""
    weight, bias, positions = parameters
    if weight.ndim > 4:
        rows = [by_hand(images[k], mean[k], std[k], [each[k] for each in parameters]) for k in range(len(images))]
        return torch.stack(rows)
    pixels = images.to(weight.dtype) / (1.0 if images.is_floating_point() else 255.0)
    pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    return positions + F.conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).mT


def used_kernel(tokens: Tensor) -> bool:
    node = tokens.grad_fn
    return node is not None and any(
        follows and follows.name() == "_EmbeddedBackward" for follows, _ in node.next_functions
    )


def with_gradients(function: Callable[..., Tensor], *arguments: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    tokens = function(*arguments)
    return [tokens, *torch.autograd.grad(tokens, parameters, tokens.detach().sin())]


@KINDS
@pytest.mark.parametrize("lead", [(), (3,), (2, 1)])
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients(sizes: tuple[int, ...], lead: tuple[int, ...], kind: torch.dtype) -> None:
    images, mean, std, parameters = given(lead, *sizes, kind)  # type: ignore[arg-type]
    found = embed(images, mean, std, *parameters, sizes[3])
    assert used_kernel(found)
    assert found.mT.is_contiguous()
    factors = torch.randn(found.shape)
    slopes = torch.autograd.grad(found, parameters, factors)
    exact = [each.detach().double().requires_grad_() for each in parameters]
    pixels = images.double() if images.is_floating_point() else images
    wanted = by_hand(pixels, mean.double(), std.double(), exact)
    for one, other in zip(
        [found, *slopes], [wanted, *torch.autograd.grad(wanted, exact, factors.double())], strict=True
    ):
        assert (one.double() - other).abs().max() <= 1e-6 * other.abs().max()


def test_as_the_layers_of_a_vit() -> None:
    model = ViT(ViTConfig(img_size=28))
    images = torch.randint(0, 256, (4, 3, 28, 28), dtype=torch.uint8)
    model.preprocess.set_statistics(torch.tensor([0.1, 0.5, 0.7]), torch.tensor([0.3, 0.0, 0.2]))
    layer = model.patch_embed
    statistics = model.preprocess.mean, model.preprocess.std
    assert layer.bias is not None
    found = embed(images, *statistics, layer.weight, layer.bias, model.pos_embed, 4)
    torch.testing.assert_close(found, model.embed(images), rtol=1e-4, atol=1e-4)
    assert torch.equal(normalised(images, *statistics), model.preprocess(images))
    preprocess = Preprocess(3)
    assert torch.equal(normalised(images / 255.0, preprocess.mean, preprocess.std), preprocess(images / 255.0))


@KINDS
def test_bits_depend_neither_on_other_models_nor_on_threads(kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    images, mean, std, parameters = given((3,), IMAGES_A_PART + 5, 3, 28, 4, 8, kind)
    together = with_gradients(embed, images, mean, std, *parameters, 4, parameters=parameters)  # type: ignore[arg-type]
    monkeypatch.setattr(parts, "_WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    shared = with_gradients(embed, images, mean, std, *parameters, 4, parameters=parameters)  # type: ignore[arg-type]
    for one, other in zip(shared, together, strict=True):
        assert torch.equal(one, other)
    for model in range(3):
        own = [each[model].detach().requires_grad_() for each in parameters]
        alone = with_gradients(embed, images[model], mean[model], std[model], *own, 4, parameters=own)  # type: ignore[arg-type]
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one, other[model])


def test_what_is_not_a_number_stays_in_its_patch() -> None:
    images, mean, std, parameters = given((2,), 2, 1, 28, 4, 4, torch.float32)
    images[0, 1, 0, 9, 27] = torch.nan
    tokens = embed(images, mean, std, *parameters, 4)
    found = tokens.isnan()
    assert found[0, 1, 2 * 7 + 6].all()
    assert found.sum() == 4
    of_weight, of_bias, _ = torch.autograd.grad(tokens, parameters, torch.ones_like(tokens))
    assert of_weight[1].isfinite().all()
    assert of_bias.isfinite().all()


@pytest.mark.parametrize("lead", [(), (2,)])
def test_without_positions(lead: tuple[int, ...]) -> None:
    images, mean, std, parameters = given(lead, 3, 3, 28, 7, 5, torch.uint8)
    found = embed(images, mean, std, *parameters[:2], None, 7)
    assert used_kernel(found)
    wanted = by_hand(images, mean, std, [*parameters[:2], torch.zeros_like(parameters[2])])
    slopes = [torch.autograd.grad(each.square().sum(), parameters[:2]) for each in (found, wanted)]
    for one, other in zip([found, *slopes[0]], [wanted, *slopes[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.detach().abs().max()))


@pytest.mark.parametrize("lead", [(), (2,)])
def test_second_derivatives(lead: tuple[int, ...]) -> None:
    images, mean, std, parameters = given(lead, 3, 3, 8, 4, 5, torch.uint8)

    def second(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(function(leaves).sin().sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(sum(one.square().sum() for one in found), leaves))

    exact = [each.detach().double().requires_grad_() for each in parameters]
    assert used_kernel(embed(images, mean, std, *parameters, 4))
    found = second(lambda leaves: embed(images, mean, std, *leaves, 4), parameters)
    wanted = second(lambda leaves: by_hand(images, mean.double(), std.double(), leaves), exact)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_many_gradients_at_once() -> None:
    images, mean, std, parameters = given((2,), 3, 1, 8, 4, 5, torch.uint8)
    tokens = embed(images, mean, std, *parameters, 4)
    many = torch.randn(3, *tokens.shape)
    found = torch.autograd.grad(tokens, parameters, many, is_grads_batched=True, retain_graph=True)
    for k in range(3):
        for one, other in zip(found, torch.autograd.grad(tokens, parameters, many[k], retain_graph=True), strict=True):
            torch.testing.assert_close(one[k], other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("why", ["double", "wide", "autocast", "gradient of images", "of std", "torch.func", "empty"])
def test_where_the_kernel_may_not_be_used(lead: tuple[int, ...], why: str) -> None:
    number = torch.float64 if why == "double" else torch.float32
    d, b = WIDEST + 1 if why == "wide" else 3, 0 if why == "empty" else 2
    images, mean, std, parameters = given(lead, b, 1, 8, 4, d, number, number)
    images.requires_grad_(why == "gradient of images")
    std.requires_grad_(why == "of std")
    with torch.autocast("cpu", enabled=why == "autocast"):
        if why == "torch.func":
            found = torch.func.vjp(
                lambda bias: embed(images, mean, std, parameters[0], bias, parameters[2], 4), parameters[1]
            )[0]
        else:
            found = embed(images, mean, std, *parameters, 4)
            assert not used_kernel(found)
    wanted = by_hand(images, mean, std, parameters)
    close = 0.1 if why == "autocast" else 1e-5
    torch.testing.assert_close(found.to(number), wanted, rtol=close, atol=close)
    leaf = {"gradient of images": images, "of std": std}.get(why)
    if leaf is not None:
        slopes = [torch.autograd.grad(each.sin().sum(), leaf)[0] for each in (found, wanted)]
        torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-4)
