"""All models: every field of a configuration changes something, and the tables say what."""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.errors import CircuitError
from qvit.models import Network, NetworkConfig, ViT, ViTConfig, count_parameters, create_model, model_config
from qvit.models.projections import PROJECTIONS, Identity, Linear
from qvit.models.zoo import KINDS, SAID_BY_NAME, build_without_numbers

Images = Callable[..., Tensor]
NAMES = {kind: name for name, kind in KINDS.items()}  # of projections, as models are called

# A value of each field, and what it changes in `ViTConfig()`: the number of parameters, which is 1090, to another; or
# with as many parameters the logits, or with other parameters their shape as well.
KNOBS: dict[str, tuple[Any, int | str]] = {
    "img_size": (32, 1090 + 15 * 8),  # 64 patches for 49
    "in_chans": (1, 1090 - 2 * 16 * 8),
    "num_classes": (7, 1090 + 5 * 9),
    "patch_size": (7, 1090 + 3 * 33 * 8 - 33 * 8),  # of 49 pixels for 16, and 16 patches for 49
    "dim": (12, 1678),
    "heads": (4, "output"),
    "depth": (2, 1090 + 4 * 8 + 24 + 72 + 2 * 72),
    "loops": (2, "output"),
    "mlp_dim": (11, 1090 + 3 * 17),
    "features": ("contrast", 1090 - 3 * (16 - 8) * 8),
    "positions": ("d4", 1090 - (49 - 10) * 8),
    "pool": ("cls", 1090 + 2 * 8),
    "attention_scale": (9.0, "output"),
    "learned_scale": (True, 1090 + 2),
    "dropout": (0.5, "output"),
    "projection": (Identity(), 1090 - 24),
}
# Likewise for one option of a projection: the number of its own parameters, in two heads of four features.
PROJECTION_KNOBS: dict[tuple[str, str], tuple[Any, int | str]] = {
    ("quantum", "n_layers"): (2, 6 * 8),
    ("quantum", "ansatz"): ("no_entangler", "output"),
    ("quantum", "readout"): ("zz", "pairs"),
    ("quantum", "engine"): ("subspace", "refusal"),  # engines agree, so only a refusal tells them apart
    ("linear", "bias"): (False, 3 * 64),
    ("no_entangler", "n_layers"): (2, 6 * 8),
    ("cosine", "readout"): ("zz", "pairs"),
    ("no_entangler", "readout"): ("zz", "pairs"),
    ("no_entangler", "engine"): ("subspace", "refusal"),
    ("frozen", "n_layers"): (2, "output"),
    ("frozen", "ansatz"): ("no_entangler", "output"),
    ("frozen", "readout"): ("zz", "pairs"),
    ("frozen", "engine"): ("subspace", "refusal"),
    ("givens", "network"): ("butterfly", 6 * 4),
    ("circulant", "bias"): (True, 6 * 8),
    ("unlu", "n_layers"): (2, 2 * 24 + 4 * 25),
    ("unlu", "engine"): ("subspace", "refusal"),
}
# A value of each field of a classical network, the network that shows it, and whether it changes the shapes of weights
# or, with the same weights, the outputs.
NETWORK_KNOBS: dict[str, tuple[Any, str, str]] = {
    "arch": ("resnet50", "resnet18", "shapes"),
    "img_size": (12, "monai_vit", "shapes"),
    "in_chans": (1, "resnet18", "shapes"),
    "num_classes": (5, "resnet18", "shapes"),
    "resize": (12, "resnet18", "outputs"),
    "stem": ("imagenet", "resnet18", "shapes"),
    "width": (0.5, "resnet18", "shapes"),
    "dropout": (0.5, "resnet18", "outputs"),
    "precision": ("bfloat16", "resnet18", "outputs"),
    "pretrained": ("imagenet", "resnet18", "shapes"),  # the published stem
}


def test_every_field_has_its_row() -> None:
    assert KNOBS.keys() == {field.name for field in fields(ViTConfig)}
    assert NETWORK_KNOBS.keys() == {field.name for field in fields(NetworkConfig)}
    options = {(kind, field.name) for kind, row in PROJECTIONS.items() for field in fields(row)}
    assert PROJECTION_KNOBS.keys() == {(kind, name) for kind, name in options if name != "kind"}


def test_what_is_there_unless_said() -> None:
    assert asdict(ViTConfig()) == {
        "img_size": 28, "in_chans": 3, "num_classes": 2, "patch_size": None, "dim": 8, "heads": 2, "depth": 1,
        "loops": 1, "mlp_dim": 8, "features": "raw", "positions": "learned", "pool": "mean",
        "attention_scale": 1.0, "learned_scale": False, "dropout": 0.0,
        "projection": {"kind": "quantum", "n_layers": 1, "ansatz": "ry_ring", "readout": "z", "engine": "auto"},
    }  # fmt: skip
    assert asdict(NetworkConfig("resnet18")) == {
        "arch": "resnet18", "img_size": 28, "in_chans": 3, "num_classes": 2, "resize": None, "stem": "auto",
        "width": 1.0, "dropout": 0.0, "precision": "float32", "pretrained": None,
    }  # fmt: skip
    assert create_model("vit_2q1h").config == ViTConfig(dim=2, heads=1, mlp_dim=2, projection=Linear())
    assert {kind: asdict(row()) for kind, row in PROJECTIONS.items()} == {
        "quantum": {"kind": "quantum", "n_layers": 1, "ansatz": "ry_ring", "readout": "z", "engine": "auto"},
        "linear": {"kind": "linear", "bias": True},
        "cosine": {"kind": "cosine", "readout": "z"},
        "identity": {"kind": "identity"},
        "no_entangler": {"kind": "no_entangler", "n_layers": 1, "readout": "z", "engine": "auto"},
        "frozen": {"kind": "frozen", "n_layers": 1, "ansatz": "ry_ring", "readout": "z", "engine": "auto"},
        "givens": {"kind": "givens", "network": "pyramid"},
        "circulant": {"kind": "circulant", "bias": False},
        "unlu": {"kind": "unlu", "n_layers": 1, "engine": "auto"},
    }


def run(config: ViTConfig, pixels: Tensor) -> Tensor:
    """Logits in training mode, from one seed."""
    torch.manual_seed(3)
    model = ViT(config)
    torch.manual_seed(4)
    return model(pixels)


def assert_outputs_differ(base: ViTConfig, changed: ViTConfig, images: Images) -> None:
    pixels = images(base)
    assert count_parameters(changed) == count_parameters(base)
    assert (run(changed, pixels) - run(base, pixels)).abs().max() > 1e-3


@pytest.mark.parametrize("field", KNOBS)
def test_every_field_of_a_vit_bites(field: str, images: Images) -> None:
    value, what = KNOBS[field]
    base, changed = ViTConfig(), ViTConfig(**{field: value})
    if field not in SAID_BY_NAME:
        assert model_config("qvit_4q2h", **{field: value}) == changed
    if what == "output":
        assert_outputs_differ(base, changed, images)
    else:
        assert count_parameters(base) == 1090
        assert count_parameters(changed) == what
        assert run(changed, images(changed)).shape == (5, changed.num_classes)


@pytest.mark.parametrize(("kind", "option"), PROJECTION_KNOBS)
def test_every_option_of_a_projection_bites(kind: str, option: str, images: Images) -> None:
    value, what = PROJECTION_KNOBS[kind, option]
    name = f"{NAMES[kind]}_4q2h"
    base, changed = model_config(name, img_size=8), model_config(name, img_size=8, **{option: value})
    if what == "refusal":
        with pytest.raises(CircuitError, match=r"^The subspace engine takes unary amplitude encoding"):
            run(changed, images(base))
    elif what == "output":
        assert_outputs_differ(base, changed, images)
    elif what == "pairs":  # 10 values of a head for 4
        assert count_parameters(changed) - count_parameters(base) == 2 * 6 * 8
        assert run(changed, images(changed)).shape == (5, 2)
    else:
        assert count_parameters(base, within="attention.project.") != what
        assert count_parameters(changed, within="attention.project.") == what
        assert run(changed, images(changed)).shape == (5, 2)


@pytest.mark.parametrize("field", NETWORK_KNOBS)
def test_every_field_of_a_network_bites(field: str, images: Images) -> None:
    value, arch, what = NETWORK_KNOBS[field]
    plain = {"arch": arch, "img_size": 8, "num_classes": 3}
    if what == "outputs":
        plain["width"] = 0.25
    base, changed = NetworkConfig(**plain), NetworkConfig(**(plain | {field: value}))
    assert model_config(changed.arch, **{k: v for k, v in (plain | {field: value}).items() if k != "arch"}) == changed
    if what == "shapes":
        before, after = (
            {name: tensor.shape for name, tensor in build_without_numbers(config).state_dict().items()}
            for config in (base, changed)
        )
        assert before != after
        return
    torch.manual_seed(3)
    first, pixels = Network(base), images(base)
    second = Network(changed)
    second.load_state_dict(first.state_dict())
    before, after = first(pixels), second(pixels)
    assert before.shape == after.shape == (5, 3)
    assert (after - before).abs().max() > 1e-4
