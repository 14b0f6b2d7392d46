"""Sizes have bounds: each up to which it is allowed, and what is allowed at its most."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from qvit.errors import ModelError
from qvit.models import NetworkConfig, ViTConfig, count_parameters, create_model, model_config
from qvit.models.limits import LARGEST, check_circuit, check_size

BOUNDS = {
    "img_size": 4096,
    "resize": 4096,
    "patch_size": 4096,
    "in_chans": 1024,
    "num_classes": 100_000,
    "dim": 16_384,
    "heads": 1024,
    "depth": 256,
    "loops": 256,
    "mlp_dim": 65_536,
    "n_layers": 256,
    "filters": 4096,
    "pooled": 65_536,
    "stages": 64,
    "trees": 10_000,
    "neighbours": 10_000,
}


def test_every_size_has_its_bound() -> None:
    assert BOUNDS == LARGEST


@pytest.mark.parametrize("name", BOUNDS)
def test_a_size_reaches_from_one_to_its_bound(name: str) -> None:
    most = BOUNDS[name]
    check_size(name, 1)
    check_size(name, most)
    with pytest.raises(ModelError, match=rf"^{name} must be at least 1, got 0\.$"):
        check_size(name, 0)
    with pytest.raises(ModelError, match=rf"^{name} must be at most {most:,}, got {most + 1:,}\. Models have limits"):
        check_size(name, most + 1)


@pytest.mark.parametrize(
    ("ansatz", "most", "layers"), [("ry_ring", 256, 1), ("pyramid", 100, 1), ("ry_ring", 4, 256), ("ry_ring", 8, 128)]
)
def test_what_is_simulated_in_time_is_not_refused(ansatz: str, most: int, layers: int) -> None:
    """A ring of one layer has exact values at any width."""
    check_circuit(ansatz, most, layers)
    with pytest.raises(ModelError, match=r"must be at most .* Models have limits"):
        check_circuit(ansatz, most + (layers == 1), layers + (layers > 1))


@pytest.mark.parametrize(
    "options",
    [
        {"arch": "resnet18", "width": 8.0},
        {"arch": "resnet50", "width": 1 / 64},
        {"arch": "densenet121", "width": 1.0, "img_size": 8},
        {"arch": "densenet121", "img_size": 29, "stem": "imagenet"},
        {"arch": "monai_vit", "stem": "auto"},
        {"arch": "timm/vit_tiny.patch16-224"},
        *({"arch": "resnet18", "pretrained": "imagenet", "in_chans": in_chans} for in_chans in (1, 3)),
        {"arch": "resnet18", "pretrained": "imagenet", "stem": "imagenet", "dropout": 0.0},
    ],
    ids=str,
)
def test_networks_that_are_just_allowed(options: dict[str, Any]) -> None:
    config = NetworkConfig(**options)
    assert {name: getattr(config, name) for name in options} == options


def test_a_wide_circuit_can_be_built() -> None:
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        assert create_model("qvit_40q1h", img_size=8).config.dim == 40


@pytest.mark.parametrize(
    "options",
    [
        {"features": "dct", "positions": "mirror", "pool": "all"},
        {"features": "contrast", "positions": "sincos", "pool": "cls", "readout": "zz"},
        {"positions": "factored", "pool": "attention", "learned_scale": True, "depth": 2, "loops": 3},
        {"positions": "d4", "pool": "cls"},
    ],
)
def test_weights_are_counted_before_a_model_is_built(options: dict[str, Any]) -> None:
    config = model_config("cosine_4q2h", in_chans=3, num_classes=4, **options)
    assert isinstance(config, ViTConfig)
    of_projections = 3 * config.dim * config.depth
    assert count_parameters(config) == config.weights_without_circuits + of_projections


def test_the_most_weights_and_patches_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three weights for each pair of features of a block's projections, as a dense one has, and all others."""
    config = ViTConfig(img_size=8, patch_size=4, in_chans=1, dim=4, heads=1, depth=2, mlp_dim=3, num_classes=3)
    # 17 numbers a feature to embed a patch, four positions, two blocks (two norms, 20 behind attention, an MLP of
    # 15 + 16), the last norm and the head; with a class token its position and itself besides.
    assert config.weights_without_circuits == 4 * 17 + 4 * 4 + 2 * (16 + 20 + 31) + 8 + 15 == 241
    assert replace(config, pool="cls").weights_without_circuits == 241 + 2 * 4
    for name, most in (("MOST_WEIGHTS", 241 + 2 * 48), ("MOST_TOKENS", 4)):
        with monkeypatch.context() as patched:
            patched.setattr(f"qvit.models.vit.{name}", most)
            replace(config)
            patched.setattr(f"qvit.models.vit.{name}", most - 1)
            with pytest.raises(ModelError, match=rf"must be at most {most - 1}, got {most}\."):
                replace(config)
