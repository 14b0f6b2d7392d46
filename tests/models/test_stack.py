"""Stacks: each model computes what it does alone, and nothing depends on the others."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvit.models import ViT, create_model
from qvit.models.networks import NetworkConfig
from qvit.models.stack import alone, bytes_of_training, member, part, stacked, unstackable
from qvit.models.vit import ViTConfig
from qvit.models.zoo import model_config

# Every kind of projection, pooling, depth and width, each at least once.
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("qvit_4q2h", {}),
    ("qvit_3q1h", {"n_layers": 2, "pool": "cls", "depth": 2}),
    ("qvit_8q1h", {"ansatz": "basic_entangler"}),
    ("vit_4q2h", {"mlp_dim": 5}),
    ("vit_4q2h", {"bias": False}),
    ("cosine_4q2h", {"pool": "cls"}),
    ("circulant_4q2h", {"bias": True}),
    ("givens_4q2h", {"depth": 2}),
    ("unlu_4q2h", {}),
    ("identity_4q2h", {}),
    ("frozen_4q2h", {}),
    ("no_entangler_4q2h", {"n_layers": 2}),
    ("qvit_4q2h", {"features": "contrast", "pool": "all", "attention_scale": 4.0, "loops": 2}),
    ("vit_4q2h", {"features": "dct", "pool": "attention", "learned_scale": True, "positions": "factored"}),
    ("cosine_3q2h", {"readout": "zz", "pool": "meanmax", "positions": "sincos"}),
    ("qvit_4q1h", {"readout": "zz", "pool": "cls", "positions": "d4"}),
]


def some(name: str, options: dict[str, Any], count: int = 3) -> list[ViT]:
    """Return models of one kind with different weights and statistics."""
    torch.manual_seed(0)
    models = [create_model(name, num_classes=3, img_size=12, **options) for _ in range(count)]
    for model in models:
        assert isinstance(model, ViT)
        model.preprocess.set_statistics(torch.rand(3), torch.rand(3) + 0.1)
    return models  # type: ignore[return-value]


def some_images(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 7, 3, 12, 12), dtype=torch.uint8)


def slopes(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("name", "options"), MODELS, ids=[f"{name} {options}" for name, options in MODELS])
def test_each_model_is_what_it_is_alone(name: str, options: dict[str, Any]) -> None:
    models, images = some(name, options), some_images()
    stack, given = stacked(models), torch.randn(3, 7, 3)
    logits = stack(images)
    assert stack.models == (3,)
    (logits * given).sum().backward()
    for place, model in enumerate(models):
        own = model(images[place])
        torch.testing.assert_close(logits[place], own)
        (own * given[place]).sum().backward()
        assert slopes(stack).keys() == slopes(model).keys()
        for key, slope in slopes(model).items():
            torch.testing.assert_close(slopes(stack)[key][place], slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), MODELS, ids=[f"{name} {options}" for name, options in MODELS])
@pytest.mark.parametrize("places", [(2, 0), (1, 1)])
def test_no_bit_depends_on_the_others(name: str, options: dict[str, Any], places: Sequence[int]) -> None:
    """Whoever else is in a stack, and wherever a model stands in it."""
    models, images, given = some(name, options), some_images(), torch.randn(3, 7, 3)
    whole, few = stacked(models), stacked([models[place] for place in places])
    for stack, chosen in ((whole, [0, 1, 2]), (few, list(places))):
        logits = stack(images[chosen])
        (logits * given[chosen]).sum().backward()
        if stack is whole:
            expected = logits
    assert torch.equal(logits, expected[list(places)])
    for key, slope in slopes(few).items():
        assert torch.equal(slope, slopes(whole)[key][list(places)]), key


def test_maps_of_attention_are_each_models_own() -> None:
    models, images = some("qvit_4q2h", {"pool": "cls"}), some_images()
    tokens, maps = stacked(models).forward_with_attention(images)
    for place, model in enumerate(models):
        own = model.forward_with_attention(images[place])
        torch.testing.assert_close((tokens[place], maps[place]), own)


def test_the_part_of_a_stack_hands_its_gradients_on() -> None:
    models, images = some("qvit_4q2h", {"depth": 2}), some_images()
    whole, few = stacked(models), stacked([models[2], models[0]])
    part(whole, [2, 0])(images[:2]).sum().backward()
    few(images[:2]).sum().backward()
    for key, slope in slopes(few).items():
        assert torch.equal(slopes(whole)[key], torch.stack([slope[1], torch.zeros_like(slope[1]), slope[0]])), key


def test_one_model_can_be_taken_out() -> None:
    models, images = some("qvit_4q2h", {"depth": 2}), some_images()
    stack = stacked(models)
    stack(images).sum().backward()
    one = alone(stack, 1)
    assert str(one) == str(models[1])
    assert torch.equal(one(images[1]), models[1](images[1]))
    for key, slope in slopes(one).items():
        assert torch.equal(slope, slopes(stack)[key][1])
    state = member(stack.state_dict(), 1)
    assert all(torch.equal(value, state[name]) for name, value in models[1].state_dict().items())
    with torch.no_grad():
        one.head.bias.add_(1.0)  # type: ignore[union-attr, operator]
    assert torch.equal(member(stack.state_dict(), 1)["head.bias"], models[1].state_dict()["head.bias"])


def test_the_models_are_copied() -> None:
    models = some("vit_4q2h", {})
    before = models[0].head.weight.clone()  # type: ignore[union-attr, operator]
    stack = stacked(models)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
    assert torch.equal(before, models[0].head.weight)  # type: ignore[arg-type]


def test_what_cannot_be_stacked_says_why() -> None:
    like = {"in_chans": 3, "num_classes": 2, "img_size": 28}
    assert unstackable(model_config("qvit_4q2h", **like)) is None
    assert unstackable(model_config("vit_4q2h", dropout=0.2, **like)) == (
        "dropout draws from one random stream, and models of a stack may not share one"
    )
    network = NetworkConfig("resnet18", **like)  # type: ignore[arg-type]
    assert unstackable(network) == "resnet18 is not a ViT of ours: its layers have no axis for several models"
    assert unstackable(model_config("dsconv")) == (
        "dsconv is not a ViT of ours: its layers have no axis for several models"
    )
    assert unstackable(model_config("nearest")) == "nearest is fitted, not trained, and takes no steps"


def test_memory_grows_with_all_that_takes_some() -> None:
    def of(name: str = "qvit_4q2h", batch: int = 8, **options: Any) -> int:
        config = model_config(name, in_chans=1, num_classes=2, **{"img_size": 28} | options)
        assert isinstance(config, ViTConfig)
        return bytes_of_training(config, batch)

    assert of(batch=16) == 2 * of()
    assert of() < min(of(img_size=56), of(depth=2), of("qvit_8q2h"), of(patch_size=2))
    assert of("vit_16q1h") - of("vit_8q2h") == 8 * 20 * 49**2, "the scores of a head that no kernel is for"
    assert 30_000 < of(batch=1) < 60_000, "as measured"
