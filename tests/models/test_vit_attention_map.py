"""How much attention each patch receives: by hand, for every projection, and what gradients it has."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.models import ViT, ViTConfig
from qvit.models.projections import PROJECTIONS, Quantum

Images = Callable[..., Tensor]
KINDS = sorted(PROJECTIONS)
POOLS: list[Any] = ["mean", "cls"]
TINY = ViTConfig(img_size=20, in_chans=3, num_classes=3, patch_size=4, dim=8, heads=2, depth=2, mlp_dim=5)


def made(**options: Any) -> ViT:
    torch.manual_seed(0)
    model = ViT(replace(TINY, **options)).eval()
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.attention.project.parameters():
                parameter.mul_(4)  # maps that are not flat
    return model


def by_hand(model: ViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """One image, head, giver and receiver at a time; also what is received by all tokens."""
    tokens = model.embed(images)
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    queries, keys, _ = model.blocks[-1].attention.project(model.blocks[-1].norm_attention(tokens))
    b, h, n, width = queries.shape
    received = torch.zeros(b, n, dtype=torch.float64)
    for image in range(b):
        for head in range(h):
            for giver in range(n):
                scores = [
                    float(queries[image, head, giver] @ keys[image, head, j]) / math.sqrt(width) for j in range(n)
                ]
                shares = torch.tensor(scores, dtype=torch.float64).exp()
                received[image] += shares / shares.sum() / (h * n)
    first = n - 25
    patches = received[:, first:]
    return (patches / patches.sum(1, keepdim=True)).reshape(b, 5, 5), received


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_is_what_it_says(images: Images, kind: str, pool: Any) -> None:
    model = made(pool=pool, projection=PROJECTIONS[kind]())
    seen = images(model.config, 2)
    with torch.no_grad():
        features, maps = model.forward_with_attention(seen)
        expected, received = by_hand(model, seen)
        assert torch.equal(features, model.forward_features(seen))
    assert maps.shape == (2, 5, 5)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(2))
    assert received.shape == (2, 25 + (pool == "cls"))
    assert maps.std() > 1e-4, "the case is of no use if all maps are flat"


@pytest.mark.parametrize("pool", POOLS)
def test_a_patch_that_all_look_at_has_it_all(images: Images, pool: Any) -> None:
    model = made(pool=pool, depth=1, projection=PROJECTIONS["identity"]())
    seen = images(model.config, 3)

    def project(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, n, _ = tokens.shape
        queries, keys = torch.ones(b, 2, n, 4), torch.zeros(b, 2, n, 4)
        keys[:, :, n - 25 + 7] = 50.0  # row 1, column 2
        if pool == "cls":
            keys[:, :, 0] = 50.0  # and the class token, which is left out
        return queries, keys, torch.zeros(b, 2, n, 4)

    model.blocks[0].attention.project.forward = project
    _, maps = model.forward_with_attention(seen)
    expected = torch.zeros(3, 5, 5)
    expected[:, 1, 2] = 1.0
    torch.testing.assert_close(maps, expected)


def test_weights_say_who_gathers_from_whom(images: Images) -> None:
    model = made(projection=PROJECTIONS["linear"]())
    attention = model.blocks[0].attention
    tokens = torch.randn(3, 7, 8)
    weights = attention.weights(tokens)
    assert weights.shape == (3, 2, 7, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 7))
    _, _, values = attention.project(tokens)
    gathered = attention.out((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(gathered, attention(tokens))


@pytest.mark.parametrize("pool", POOLS)
def test_circuits_of_queries_and_keys_have_gradients_and_those_of_values_none(images: Images, pool: Any) -> None:
    model = made(pool=pool, projection=Quantum())
    _, maps = model.forward_with_attention(images(model.config, 3))
    maps.square().sum().backward()
    last, before = (block.attention for block in (model.blocks[1], model.blocks[0]))
    (weights,) = last.project.parameters()
    for_each = weights.grad.flatten(2).abs().amax(-1) if weights.grad.ndim > 2 else weights.grad.abs()
    assert weights.shape[:2] == (3, 2), "queries, keys, values; heads"
    assert for_each[:2].min() > 1e-9
    assert for_each[2].max() == 0
    assert last.out.weight.grad is None, "the map is made before"
    assert all(parameter.grad.abs().max() > 0 for parameter in before.project.parameters())
    assert model.patch_embed.weight.grad.abs().max() > 0


def test_dropout_draws_as_in_a_plain_pass(images: Images) -> None:
    model = made(dropout=0.5).train()
    seen = images(model.config, 3)
    torch.manual_seed(1)
    expected = model.forward_features(seen)
    torch.manual_seed(1)
    assert torch.equal(model.forward_with_attention(seen)[0], expected)


def test_no_images_have_no_maps(images: Images) -> None:
    model = made()
    features, maps = model.forward_with_attention(images(model.config, 0))
    assert (features.shape, maps.shape) == ((0, 25, 8), (0, 5, 5))
