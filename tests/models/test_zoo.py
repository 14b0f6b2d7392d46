"""Names, parameter counts and matched twins; every knob changes something."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.errors import CircuitError
from qvit.models import ViT, ViTConfig, count_parameters, create_model, list_models, model_config
from qvit.models.projections import PROJECTIONS, Cosine, Identity, Linear, Quantum

Images = Callable[..., Tensor]

KINDS = ["qvit", "vit", "cosine", "identity"]


def test_shipped_models() -> None:
    sizes = ("4q1h", "4q2h", "8q1h", "8q2h")
    expected = {f"{kind}_{size}" for kind in KINDS for size in sizes} | {f"vit_{s}_matched" for s in sizes}
    assert set(list_models()) == expected
    assert len(list_models()) == len(expected)


# --- parameter counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "in_chans", "num_classes", "count"),
    [
        ("qvit_4q2h", 3, 5, 1117),
        ("qvit_4q2h", 1, 2, 834),
        ("vit_4q2h", 3, 5, 1309),
    ],
)
def test_pinned_counts(name: str, in_chans: int, num_classes: int, count: int) -> None:
    assert count_parameters(create_model(name, in_chans=in_chans, num_classes=num_classes)) == count


@pytest.mark.parametrize("size", ["4q1h", "4q2h", "8q1h", "8q2h"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("in_chans", "num_classes", "img_size"), [(3, 5, 28), (1, 2, 28), (3, 9, 64)])
def test_counts_by_formula(kind: str, size: str, in_chans: int, num_classes: int, img_size: int) -> None:
    d = int(size[0]) * int(size[2])
    patch = {28: 4, 64: 8}[img_size]
    embedding = (in_chans * patch**2 + 1) * d + (img_size // patch) ** 2 * d
    projection = {"qvit": 3 * d, "vit": 3 * (d * d + d), "cosine": 3 * d, "identity": 0}[kind]
    block = 2 * 2 * d + projection + (d * d + d) + 2 * (d * d + d)
    expected = embedding + block + 2 * d + (d + 1) * num_classes
    model = create_model(f"{kind}_{size}", in_chans=in_chans, num_classes=num_classes, img_size=img_size)
    assert count_parameters(model) == expected
    assert count_parameters(model.config) == expected


def test_only_trainable_parameters_count() -> None:
    model = create_model("qvit_4q2h")
    before = count_parameters(model)
    model.pos_embed.requires_grad_(False)
    assert count_parameters(model) == before - 49 * 8


@pytest.mark.parametrize(
    ("in_chans", "num_classes", "img_size"),
    [(3, 5, 28), (1, 2, 28), (1, 11, 28), (3, 2, 64), (3, 9, 224), (1, 14, 224)],
)
@pytest.mark.parametrize("size", ["4q1h", "4q2h", "8q1h", "8q2h"])
def test_matched_twins(size: str, in_chans: int, num_classes: int, img_size: int) -> None:
    task = {"in_chans": in_chans, "num_classes": num_classes, "img_size": img_size}
    quantum, twin = model_config(f"qvit_{size}", **task), model_config(f"vit_{size}_matched", **task)
    target = count_parameters(quantum)
    assert abs(count_parameters(twin) - target) <= 0.03 * target
    plain = model_config(f"vit_{size}", **task)
    if count_parameters(plain) <= 1.03 * target:
        assert twin == plain  # nothing to match
    else:
        assert twin.dim < plain.dim
        assert twin.mlp_dim >= plain.mlp_dim / 2
    assert replace(twin, dim=quantum.dim, mlp_dim=quantum.mlp_dim, projection=Quantum()) == quantum
    assert twin.projection == Linear()
    assert model_config(f"vit_{size}", matched=True, **task) == twin


def test_a_twin_keeps_the_other_options() -> None:
    twin = model_config("vit_4q2h", matched=True, depth=2, pool="cls", bias=False)
    quantum = model_config("qvit_4q2h", depth=2, pool="cls")
    assert (twin.depth, twin.pool, twin.projection) == (2, "cls", Linear(bias=False))
    assert abs(count_parameters(twin) - count_parameters(quantum)) <= 0.03 * count_parameters(quantum)


def test_other_sizes_and_options() -> None:
    config = model_config("qvit_6q3h", depth=2, patch_size=7, n_layers=3, ansatz="reupload")
    assert (config.dim, config.heads, config.mlp_dim) == (18, 3, 18)
    assert (config.depth, config.patch_size) == (2, 7)
    assert config.projection == Quantum(n_layers=3, ansatz="reupload")
    assert model_config("qvit_4q2h") == ViTConfig()
    assert [model_config(f"{kind}_4q2h").projection for kind in KINDS] == [
        Quantum(),
        Linear(),
        Cosine(),
        Identity(),
    ]
    assert model_config("vit_4q2h", bias=False).projection == Linear(bias=False)
    assert model_config("qvit_4q2h", depth="3").depth == 3  # as a command line gives it


# --- knobs bite --------------------------------------------------------------------------------------------

KNOBS: dict[str, tuple[Any, str]] = {
    "img_size": (32, "parameters"),
    "in_chans": (1, "parameters"),
    "num_classes": (7, "shape"),
    "patch_size": (7, "parameters"),
    "dim": (12, "parameters"),
    "heads": (4, "output"),
    "depth": (2, "parameters"),
    "mlp_dim": (11, "parameters"),
    "pool": ("cls", "parameters"),
    "dropout": (0.5, "output"),
    "projection": (Identity(), "parameters"),
}
NAMED = ("dim", "heads", "projection")  # a model's name says them, so no option does
PROJECTION_KNOBS: dict[tuple[str, str], tuple[Any, str]] = {
    ("quantum", "n_layers"): (2, "parameters"),
    ("quantum", "ansatz"): ("no_entangler", "output"),
    ("quantum", "engine"): ("product", "refusal"),  # engines agree, so only a refusal tells them apart
    ("linear", "bias"): (False, "parameters"),
}


def run(config: ViTConfig, pixels: Tensor) -> Tensor:
    """Logits in training mode, from one seed."""
    torch.manual_seed(3)
    model = ViT(config)
    torch.manual_seed(4)
    return model(pixels)


def assert_bites(base: ViTConfig, changed: ViTConfig, what: str, images: Images) -> None:
    if what == "parameters":
        assert count_parameters(ViT(changed)) != count_parameters(ViT(base))
        assert run(changed, images(changed)).shape == (5, changed.num_classes)
        return
    pixels = images(base)
    before, after = run(base, pixels), run(changed, pixels)
    if what == "shape":
        assert after.shape == (5, changed.num_classes) != before.shape
    else:
        assert count_parameters(ViT(changed)) == count_parameters(ViT(base))
        assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize("field", [field.name for field in fields(ViTConfig)])
def test_every_field_bites(field: str, images: Images) -> None:
    value, what = KNOBS[field]
    base = model_config("qvit_4q2h")
    changed = ViTConfig(**{field: value})
    if field not in NAMED:
        assert model_config("qvit_4q2h", **{field: value}) == changed
    assert_bites(base, changed, what, images)


@pytest.mark.parametrize(
    ("kind", "option"),
    [(kind, field.name) for kind, row in PROJECTIONS.items() for field in fields(row) if field.name != "kind"],
)
def test_every_projection_option_bites(kind: str, option: str, images: Images) -> None:
    value, what = PROJECTION_KNOBS[kind, option]
    name = {"quantum": "qvit_4q2h", "linear": "vit_4q2h"}[kind]
    if what == "refusal":
        config = model_config(name, n_layers=2)
        run(config, images(config))
        with pytest.raises(CircuitError, match="not a product of cosines"):
            run(model_config(name, n_layers=2, **{option: value}), images(config))
    else:
        assert_bites(model_config(name), model_config(name, **{option: value}), what, images)


def test_create_model_builds_what_model_config_says() -> None:
    options = {
        "in_chans": 1,
        "num_classes": 7,
        "img_size": 32,
        "patch_size": 8,
        "depth": 2,
        "mlp_dim": 5,
        "pool": "cls",
        "dropout": 0.25,
        "n_layers": 2,
        "ansatz": "reupload",
        "engine": "dense",
    }
    model = create_model("qvit_4q3h", **options)
    assert model.config == model_config("qvit_4q3h", **options)
    said = {"dim": 12, "heads": 3, "projection": Quantum(n_layers=2, ansatz="reupload", engine="dense")}
    assert set(said) == set(NAMED)
    assert {name: getattr(model.config, name) for name in KNOBS} == {
        name: said[name] if name in said else options[name] for name in KNOBS
    }
    assert model.num_features == 12
    assert len(model.blocks) == 2
    assert model.blocks[0].mlp[0].out_features == 5
    assert model.blocks[1].dropout.p == 0.25
    assert create_model("vit_4q2h", matched=True).config == create_model("vit_4q2h_matched").config


def test_a_twin_is_matched_to_the_circuit_described() -> None:
    deep = {"n_layers": 12, "ansatz": "strongly_entangling"}
    target = count_parameters(model_config("qvit_4q2h", **deep))
    twin = model_config("vit_4q2h_matched", **deep)
    assert target > 1.2 * count_parameters(model_config("qvit_4q2h"))
    assert abs(count_parameters(twin) - target) <= 0.03 * target
    assert twin.projection.kind == "linear"
