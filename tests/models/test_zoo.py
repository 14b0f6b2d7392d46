"""Names, parameter counts, and what every model can do."""

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvit.errors import CircuitWarning
from qvit.models import NetworkConfig, ViT, ViTConfig, count_parameters, create_model, list_models, model_config
from qvit.models.cost import cost_of
from qvit.models.projections import (
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
from qvit.models.zoo import build_without_numbers, read_config
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


# Parameters for gray images of 28 pixels and two classes. With d features in all: (16 + 1)·d to embed a patch, 49·d for
# the positions, 2·2·d in two norms and 2·d in the last, d² + d behind attention, 2·(d² + d) in the MLP and 2·(d + 1) in
# the head; and the projections.
COUNTS = {
    "qvit": (370, 834, 834, 2050),
    "vit": (418, 1026, 1026, 2818),
    "cosine": (370, 834, 834, 2050),
    "identity": (358, 810, 810, 2002),
    "no_entangler": (370, 834, 834, 2050),
    "frozen": (358, 810, 810, 2002),
    "givens": (376, 846, 894, 2170),
    "circulant": (370, 834, 834, 2050),
    "unlu": (396, 886, 884, 2150),
}
MATCHED = {"vit_4q1h_matched": 373, "vit_4q2h_matched": 828, "vit_8q1h_matched": 841, "vit_8q2h_matched": 2051}
SHIPPED = {
    f"{kind}_{size}": count
    for kind, counts in COUNTS.items()
    for size, count in zip(("4q1h", "4q2h", "8q1h", "8q2h"), counts, strict=True)
} | MATCHED


def test_shipped_models() -> None:
    assert list_models() == list(SHIPPED)


# --- parameter counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_counts_of_shipped_models(name: str) -> None:
    config = model_config(name, in_chans=1, num_classes=2)
    assert count_parameters(config) == SHIPPED[name]


@pytest.mark.parametrize(
    ("name", "task", "count"),
    [
        ("qvit_4q2h", {"num_classes": 5}, 1117),
        ("vit_4q2h", {"num_classes": 5}, 1309),
        ("qvit_8q2h", {"num_classes": 9, "img_size": 64}, 5225),
        ("vit_4q2h", {"num_classes": 9, "img_size": 224}, 8281),
        ("unlu_8q1h", {"num_classes": 5}, 1167),
        ("frozen_8q2h", {"num_classes": 5}, 2565),
        ("identity_8q1h", {"num_classes": 9, "img_size": 64}, 2401),
    ],
)
def test_counts_for_other_tasks(name: str, task: dict[str, int], count: int) -> None:
    model = create_model(name, **task)
    assert count_parameters(model) == count_parameters(model.config) == count


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("qvit", 6 * 4),
        ("vit", 3 * 72),
        ("cosine", 3 * 8),
        ("identity", 0),
        ("no_entangler", 6 * 4),
        ("frozen", 0),
        ("givens", 6 * 6),
        ("circulant", 3 * 8),
        ("unlu", 2 * 12 + 4 * 13),
    ],
)
def test_counts_of_projections(kind: str, count: int) -> None:
    config = model_config(f"{kind}_4q2h")
    assert count_parameters(config, within="attention.project.") == count
    assert count_parameters(replace(config, depth=3), within="attention.project.") == 3 * count


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("givens_4q2h", {"network": "butterfly"}, 6 * 4),
        ("givens_8q1h", {"network": "butterfly"}, 3 * 12),
        ("givens_4q2h", {"network": "x"}, 6 * 5),
        ("givens_8q1h", {"network": "x"}, 3 * 13),
        ("qvit_4q2h", {"ansatz": "strongly_entangling"}, 6 * 12),
        ("qvit_4q2h", {"ansatz": "unlu_v", "n_layers": 2}, 6 * 24),
        ("qvit_4q2h", {"ansatz": "pyramid", "n_layers": 2}, 6 * 12),
        ("frozen_4q2h", {"n_layers": 5}, 0),
    ],
)
def test_counts_of_projections_with_options(name: str, options: dict[str, Any], count: int) -> None:
    assert count_parameters(model_config(name, **options), within="attention.project.") == count


def test_counting_leaves_the_filters_of_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the whole process's: two threads that set and restore them leave one's settings behind."""
    config = model_config("qvit_4q2h", ansatz="reupload")
    cost_of(model_config("vit_2q1h"))  # torch imports what it needs for the meta device

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
        ("qvit_7q1h", {}),
        ("qvit_7q1h", {"ansatz": "x"}),
        ("no_entangler_7q1h", {}),
        ("frozen_9q1h", {"ansatz": "pyramid"}),
        ("givens_11q1h", {}),
        ("givens_13q1h", {"network": "x"}),
        ("circulant_7q1h", {}),
        ("unlu_6q1h", {}),
    ],
)
def test_a_model_that_was_counted_first_can_be_built(name: str, options: dict[str, Any], images: Images) -> None:
    """Counting builds on the meta device, where tensors hold nothing; what engines keep must not come from there.

    Engines keep one plan a circuit, so the widths are those of no other test.
    """
    config = model_config(name, img_size=8, **options)
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


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(img_size=8, dim=4, heads=1, projection=Circulant(bias=True)),
        NetworkConfig("resnet18", resize=32, width=0.5),
    ],
    ids=str,
)
def test_a_configuration_is_read_as_it_was_written(config: ViTConfig | NetworkConfig) -> None:
    written = json.loads(json.dumps(asdict(config)))
    assert read_config(written) == config
    del written["img_size"]
    assert read_config(written) == replace(config, img_size=28)


def test_who_takes_random_numbers_in_training_says_so() -> None:
    assert [create_model("vit_2q1h", img_size=8, dropout=rate).draws for rate in (0.0, 0.1)] == [False, True]
    assert build_without_numbers(NetworkConfig("resnet18", img_size=8)).draws


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
    assert model.config == ViTConfig(
        **said, **{key: value for key, value in options.items() if key not in ("n_layers", "ansatz", "engine")}
    )
    assert model.num_features == 12
    assert len(model.blocks) == 2
    assert model.blocks[0].mlp[0].out_features == 5
    assert model.blocks[1].dropout.p == 0.25


# --- every model works -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_every_trainable_number_gets_a_gradient(kind: str, options: dict[str, Any], images: Images) -> None:
    model = create_model(f"{kind}_4q2h", num_classes=3, depth=2, img_size=12, **options).double()
    logits = model(images(model.config, 6))
    assert logits.shape == (6, 3)
    nn.functional.cross_entropy(logits, torch.arange(6) % 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != (kind == "frozen" and "attention.project" in name), name
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
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
        return create_model(f"{kind}_2q2h", depth=3, img_size=8, **options)

    first, again, other = ([block.attention.project.state_dict() for block in build(seed).blocks] for seed in (5, 5, 6))
    assert (not first[0]) == (kind == "identity")
    for key, value in first[0].items():
        assert torch.equal(value, again[0][key])
        different = [value, first[1][key], first[2][key], other[0][key]]
        assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i]), key


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_copies_and_configurations_travel(kind: str, options: dict[str, Any], images: Images) -> None:
    model = create_model(f"{kind}_4q2h", img_size=8, **options)
    pixels = images(model.config, 2)
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


@pytest.mark.long
def test_a_frozen_projection_stays_while_the_rest_learns(images: Images) -> None:
    model = create_model("frozen_2q2h", num_classes=3, img_size=8)
    pixels, labels = images(model.config, 3), torch.arange(3)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    still = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert still == {"preprocess.mean", "preprocess.std", "blocks.0.attention.project.circuits.weights"}
    assert losses[-1] < 0.5 * losses[0]
