"""Names, parameter counts and matched twins; every knob changes something."""

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvit.errors import CircuitError, CircuitWarning, ConfigError, ModelError
from qvit.models import ViT, ViTConfig, count_parameters, create_model, list_models, model_config
from qvit.models.cost import cost_of
from qvit.models.projections import (
    PROJECTIONS,
    Circulant,
    Cosine,
    Frozen,
    Givens,
    Identity,
    Linear,
    NoEntangler,
    Quantum,
    Unlu,
)
from qvit.validate import validated

Images = Callable[..., Tensor]

KINDS = ["qvit", "vit", "cosine", "identity", "no_entangler", "frozen", "givens", "circulant", "unlu"]
OTHER_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("qvit", {"n_layers": 2}),
    ("qvit", {"ansatz": "pyramid"}),
    ("givens", {"network": "butterfly"}),
    ("givens", {"network": "x"}),
    ("circulant", {"bias": True}),
    ("unlu", {"n_layers": 2}),
]
VARIANTS = [(kind, {}) for kind in KINDS] + OTHER_OPTIONS


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
    q, h = int(size[0]), int(size[2])
    projection = {
        "qvit": 3 * d,
        "vit": 3 * (d * d + d),
        "cosine": 3 * d,
        "identity": 0,
        "no_entangler": 3 * d,
        "frozen": 0,
        "givens": 3 * h * q * (q - 1) // 2,
        "circulant": 3 * d,
        "unlu": 9 * d + 2 * h,
    }[kind]
    block = 2 * 2 * d + projection + (d * d + d) + 2 * (d * d + d)
    expected = embedding + block + 2 * d + (d + 1) * num_classes
    model = create_model(f"{kind}_{size}", in_chans=in_chans, num_classes=num_classes, img_size=img_size)
    assert count_parameters(model) == expected
    assert count_parameters(model.config) == expected
    assert count_parameters(model.config, within="attention.project.") == projection
    assert count_parameters(replace(model.config, depth=3), within="attention.project.") == 3 * projection


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("givens_4q2h", {"network": "butterfly"}, 6 * 4),
        ("givens_8q2h", {"network": "butterfly"}, 6 * 12),
        ("givens_4q2h", {"network": "x"}, 6 * 5),
        ("givens_8q2h", {"network": "x"}, 6 * 13),
        ("circulant_4q2h", {"bias": True}, 6 * 8),
        ("no_entangler_4q2h", {"n_layers": 3}, 6 * 12),
        ("unlu_4q2h", {"n_layers": 2}, 2 * 24 + 4 * 25),
        ("frozen_4q2h", {"n_layers": 5}, 0),
        ("qvit_4q2h", {"ansatz": "strongly_entangling"}, 6 * 12),
        ("qvit_4q2h", {"ansatz": "unlu_v", "n_layers": 2}, 6 * 24),
        ("qvit_4q2h", {"ansatz": "pyramid", "n_layers": 2}, 6 * 12),
    ],
)
def test_projection_counts_with_options(name: str, options: dict[str, Any], count: int) -> None:
    assert count_parameters(model_config(name, **options), within="attention.project.") == count


def test_counting_leaves_the_filters_of_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the whole process's: two threads that set and restore them leave one's settings behind."""
    config = model_config("qvit_4q2h", ansatz="reupload")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the filters of warnings were touched")

    with monkeypatch.context() as patched:  # pytest needs them itself
        patched.setattr(warnings, "catch_warnings", forbidden)
        patched.setattr(warnings, "simplefilter", forbidden)
        counted, cost = count_parameters(config), cost_of(config)
    assert counted == cost.parameters > 0


def test_counting_does_not_warn_and_building_warns_once_a_block() -> None:
    config = model_config("qvit_4q2h", ansatz="reupload", depth=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count_parameters(config)
        model_config("vit_4q2h_matched", ansatz="reupload")
        assert not caught
        model = ViT(config)
        count_parameters(model)
        copy.deepcopy(model)
    assert [w.category for w in caught] == [CircuitWarning] * 3
    assert {str(w.message) for w in caught} == {
        "reupload on 4 qubit(s): 4 weight(s) cannot influence any output: 1, 3, 5, 7."
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qvit_7q2h", {"n_layers": 2}),
        ("qvit_7q2h", {"ansatz": "x"}),
        ("frozen_9q2h", {"ansatz": "pyramid"}),
        ("givens_11q2h", {}),
        ("givens_13q2h", {"network": "x"}),
        *((f"{kind}_7q2h", {}) for kind in KINDS),
    ],
)
def test_a_model_that_was_counted_first_can_be_built(name: str, options: dict[str, Any], images: Images) -> None:
    """Counting builds on the meta device, where tensors hold nothing; what engines keep must not come from there.

    Engines keep one plan a circuit, so the widths are those of no other test.
    """
    config = model_config(name, **options)
    state = torch.get_rng_state()
    count = count_parameters(config)
    assert torch.equal(torch.get_rng_state(), state)
    model = ViT(config)
    assert count_parameters(model) == count
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    logits = model(images(config))
    assert logits.isfinite().all()


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


@pytest.mark.parametrize("size", ["4q1h", "4q2h", "8q1h", "8q2h"])
@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize(("in_chans", "num_classes", "img_size"), [(3, 5, 28), (1, 2, 28), (3, 9, 64)])
def test_any_kind_can_be_matched(kind: str, size: str, in_chans: int, num_classes: int, img_size: int) -> None:
    task = {"in_chans": in_chans, "num_classes": num_classes, "img_size": img_size}
    quantum, plain = model_config(f"qvit_{size}", **task), model_config(f"{kind}_{size}", **task)
    twin, target = model_config(f"{kind}_{size}_matched", **task), count_parameters(quantum)
    near = abs(count_parameters(plain) - target) <= 0.03 * target
    assert near == (twin == plain)
    assert abs(count_parameters(twin) - target) <= 0.03 * target
    assert replace(twin, dim=plain.dim, mlp_dim=plain.mlp_dim) == plain
    assert twin.dim <= plain.dim
    assert model_config(f"{kind}_{size}", matched=True, **task) == twin


@pytest.mark.parametrize(
    ("name", "in_chans", "num_classes", "before", "after", "dim", "mlp_dim"),
    [
        ("unlu_4q2h", 3, 5, 1169, 1118, 8, 5),  # 76 numbers for 24 in Q, K and V; a unit of the MLP has 17
        ("unlu_4q2h", 1, 2, 886, 835, 8, 5),
        ("givens_8q2h", 3, 5, 2733, 2601, 16, 12),  # 168 for 48; a unit has 33
        ("givens_8q2h", 1, 2, 2170, 2038, 16, 12),
        ("circulant_4q2h", 3, 5, 1117, 1117, 8, 8),
        ("circulant_4q2h", 1, 2, 834, 834, 8, 8),
        ("identity_4q1h", 1, 2, 358, 367, 4, 5),  # smaller than the QViT: the MLP grows
        ("vit_4q2h", 3, 5, 1309, 1119, 6, 22),
        ("vit_4q2h", 1, 2, 1026, 828, 6, 16),
    ],
)
def test_pinned_twins(
    name: str, in_chans: int, num_classes: int, before: int, after: int, dim: int, mlp_dim: int
) -> None:
    task = {"in_chans": in_chans, "num_classes": num_classes}
    twin = create_model(f"{name}_matched", **task)
    assert (count_parameters(model_config(name, **task)), count_parameters(twin)) == (before, after)
    assert (twin.config.dim, twin.config.mlp_dim) == (dim, mlp_dim)


def test_widths_that_a_projection_does_not_have_are_passed_over() -> None:
    """One head of 16 features can shrink to 8, 4 and 2 only."""
    config = model_config("givens_16q1h_matched", network="butterfly", in_chans=1, depth=9)
    target = count_parameters(model_config("qvit_16q1h", in_chans=1, depth=9))
    assert count_parameters(model_config("givens_16q1h", network="butterfly", in_chans=1, depth=9)) > 1.03 * target
    assert abs(count_parameters(config) - target) <= 0.03 * target
    assert config.dim == 16
    with pytest.raises(CircuitError, match=r"needs 2, 4, 8, … wires, got 6"):
        model_config("givens_6q2h_matched", network="butterfly")


def test_what_cannot_be_matched() -> None:
    for name, matched in (("qvit_4q2h_matched", False), ("qvit_4q2h", True)):
        with pytest.raises(ConfigError, match=r"matched to the qvit, .* itself; use vit_4q2h_matched, say"):
            model_config(name, matched=matched)
    with pytest.raises(ConfigError, match=r"Only a ViT, such as vit_4q2h, can be matched .* not 'resnet18'"):
        model_config("resnet18", matched=True)
    with pytest.raises(ModelError, match=r"No ViT of width up to 4 with 4 head\(s\) and the linear projection comes"):
        model_config("vit_1q4h_matched")
    with pytest.raises(ConfigError, match="cosine projection has no option 'bias'"):
        model_config("cosine_4q2h_matched", bias=True)


def test_options_of_a_twin_describe_it_and_the_qvit() -> None:
    """Those that both have describe both, all others the one that has them."""
    deep = model_config("unlu_4q2h_matched", n_layers=3, ansatz="reupload")
    assert deep.projection == Unlu(n_layers=3)
    target = count_parameters(model_config("qvit_4q2h", n_layers=3, ansatz="reupload"))
    assert abs(count_parameters(deep) - target) <= 0.03 * target
    frozen = model_config("frozen_4q2h_matched", n_layers=12, ansatz="reupload")
    assert frozen.projection == Frozen(n_layers=12, ansatz="reupload")
    wide = model_config("circulant_8q2h_matched", bias=True, n_layers=12)
    assert wide.projection == Circulant(bias=True)
    target = count_parameters(model_config("qvit_8q2h", n_layers=12))
    assert abs(count_parameters(wide) - target) <= 0.03 * target < count_parameters(wide) - 2613


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
        NoEntangler(),
        Frozen(),
        Givens(),
        Circulant(),
        Unlu(),
    ]
    assert model_config("givens_8q1h", network="butterfly").projection == Givens(network="butterfly")
    assert model_config("no_entangler_6q3h", n_layers=2).projection == NoEntangler(n_layers=2)
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
    ("quantum", "engine"): ("subspace", "refusal"),  # engines agree, so only a refusal tells them apart
    ("linear", "bias"): (False, "parameters"),
    ("no_entangler", "n_layers"): (2, "parameters"),
    ("no_entangler", "engine"): ("subspace", "refusal"),
    ("frozen", "n_layers"): (2, "output"),
    ("frozen", "ansatz"): ("no_entangler", "output"),
    ("frozen", "engine"): ("subspace", "refusal"),
    ("givens", "network"): ("butterfly", "parameters"),
    ("circulant", "bias"): (True, "parameters"),
    ("unlu", "n_layers"): (2, "parameters"),
    ("unlu", "engine"): ("subspace", "refusal"),
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
    name = {"quantum": "qvit_4q2h", "linear": "vit_4q2h"}.get(kind, f"{kind}_4q2h")
    if what == "refusal":
        config = model_config(name)
        run(config, images(config))
        with pytest.raises(CircuitError, match="The subspace engine takes unary amplitude encoding"):
            run(model_config(name, **{option: value}), images(config))
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
        "ansatz": "basic_entangler",
        "engine": "unitary",
    }
    model = create_model("qvit_4q3h", **options)
    assert model.config == model_config("qvit_4q3h", **options)
    said = {"dim": 12, "heads": 3, "projection": Quantum(n_layers=2, ansatz="basic_entangler", engine="unitary")}
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


# --- every model works -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_models())
def test_every_shipped_model_runs_forward_and_back(name: str, images: Images) -> None:
    model = create_model(name, num_classes=3)
    logits = model(images(model.config, 3))
    assert logits.shape == (3, 3)
    nn.functional.cross_entropy(logits, torch.arange(3)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad != (name.startswith("frozen") and "attention.project" in key), key
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_every_trainable_number_gets_a_gradient(kind: str, options: dict[str, Any], images: Images) -> None:
    model = create_model(f"{kind}_4q2h", num_classes=3, depth=2, **options).double()
    nn.functional.cross_entropy(model(images(model.config, 6)), torch.arange(6) % 3).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        alive = parameter.grad.abs() > 1e-10
        if name.endswith("attention.project.bias"):  # of keys: one number added to all scores of a query
            assert not alive[1].any()
            alive[1] = True
        if name.endswith("project.dense.bias"):
            alive[8:16] = True
        assert alive.all(), (name, parameter.grad)


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_blocks_and_seeds_differ(kind: str, options: dict[str, Any]) -> None:
    def build(seed: int) -> ViT:
        torch.manual_seed(seed)
        return create_model(f"{kind}_4q2h", depth=3, **options)

    first, again, other = ([block.attention.project.state_dict() for block in build(seed).blocks] for seed in (5, 5, 6))
    assert (not first[0]) == (kind == "identity")
    for key, value in first[0].items():
        assert torch.equal(value, again[0][key])
        different = [value, first[1][key], first[2][key], other[0][key]]
        assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i]), key


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_copies_and_configurations_travel(kind: str, options: dict[str, Any], images: Images) -> None:
    model = create_model(f"{kind}_4q2h", **options)
    pixels = images(model.config)
    expected = model(pixels)
    read = validated(ViTConfig, asdict(model.config))  # as from config.json
    assert read == model.config
    fresh = ViT(read)
    assert not torch.equal(fresh(pixels), expected)
    fresh.load_state_dict(model.state_dict())
    for twin in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(pixels), expected)
        assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(twin(pixels).float(), expected, atol=0.05, rtol=0)


def test_a_frozen_projection_stays_while_the_rest_learns(images: Images) -> None:
    model = create_model("frozen_4q2h", num_classes=3)
    pixels, labels = images(model.config, 9), torch.arange(9) % 3
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    still = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert still == {"preprocess.mean", "preprocess.std", "blocks.0.attention.project.circuits.weights"}
    assert losses[-1] < 0.5 * losses[0]
