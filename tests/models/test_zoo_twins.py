"""Models matched to a QViT by their number of parameters."""

from dataclasses import replace
from typing import Any

import pytest

from qvit.errors import CircuitError, ConfigError, ModelError
from qvit.models import ViTConfig, count_parameters, create_model, model_config
from qvit.models.projections import Circulant, Frozen, Linear, Quantum, Unlu
from qvit.models.zoo import KINDS, SIZES

# Name, channels, classes and pixels; parameters of the QViT of that size, of the model as it stands, and of its twin,
# whose width and MLP follow. Counts can be had by hand, see `test_zoo`.
TWINS = [
    ("vit_4q1h", (3, 9, 64), 1169, 1217, 1170, 3, 42),
    ("vit_4q2h", (3, 5, 28), 1117, 1309, 1119, 6, 22),
    ("vit_8q1h", (1, 2, 28), 834, 1026, 841, 7, 6),
    ("vit_8q2h", (3, 5, 28), 2613, 3381, 2624, 12, 27),
    ("vit_2q1h", (3, 2, 28), 238, 250, 245, 2, 1),  # half of the MLP is just enough to keep the width
    ("vit_4q2h", (3, 9, 224), 8089, 8281, 8281, 8, 8),  # within 3 % as it stands: the embedding is large
    ("cosine_8q1h", (3, 9, 64), 2425, 2425, 2425, 8, 8),
    ("no_entangler_4q1h", (1, 2, 28), 370, 370, 370, 4, 4),
    ("identity_4q1h", (1, 2, 28), 370, 358, 367, 4, 5),  # smaller than the QViT: the MLP grows
    ("frozen_8q2h", (3, 5, 28), 2613, 2565, 2565, 16, 16),
    ("givens_8q2h", (1, 2, 28), 2050, 2170, 2038, 16, 12),  # 168 for 48 in Q, K and V; a unit of the MLP has 33
    ("circulant_4q2h", (3, 5, 28), 1117, 1117, 1117, 8, 8),
    ("unlu_4q2h", (1, 2, 28), 834, 886, 835, 8, 5),  # 76 numbers for 24; a unit has 17
]


def test_every_kind_and_every_size_has_a_twin_here() -> None:
    names = [name for name, *_ in TWINS]
    assert {name.rpartition("_")[0] for name in names} == KINDS.keys() - {"qvit"}
    assert {name.rpartition("_")[2] for name in names} >= set(SIZES)


@pytest.mark.parametrize(("name", "task", "target", "before", "after", "dim", "mlp_dim"), TWINS)
def test_twins(
    name: str, task: tuple[int, int, int], target: int, before: int, after: int, dim: int, mlp_dim: int
) -> None:
    options = dict(zip(("in_chans", "num_classes", "img_size"), task, strict=True))
    plain, twin = model_config(name, **options), model_config(f"{name}_matched", **options)
    assert count_parameters(model_config(f"qvit_{name.rpartition('_')[2]}", **options)) == target
    assert (count_parameters(plain), count_parameters(twin)) == (before, after)
    assert abs(after - target) <= 0.03 * target
    assert twin == replace(plain, dim=dim, mlp_dim=mlp_dim)
    assert model_config(name, matched=True, **options) == twin


def test_the_twin_that_is_built_is_the_one_described() -> None:
    assert create_model("vit_2q1h", matched=True, img_size=8).config == model_config("vit_2q1h_matched", img_size=8)
    assert create_model("vit_2q1h", img_size=8).config == model_config("vit_2q1h", img_size=8)


def test_the_bound_is_three_in_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly as far away as allowed is near enough, both of a model as it stands and of a candidate."""
    plain = count_parameters(model_config("identity_4q1h", in_chans=1))
    assert (plain, count_parameters(model_config("qvit_4q1h", in_chans=1))) == (358, 370)
    monkeypatch.setattr("qvit.models.zoo.MATCH_TOLERANCE", 12 / 370)
    assert model_config("identity_4q1h_matched", in_chans=1).mlp_dim == 4
    monkeypatch.setattr("qvit.models.zoo.MATCH_TOLERANCE", 3 / 370)  # with another unit it has 367
    assert model_config("identity_4q1h_matched", in_chans=1).mlp_dim == 5


def test_widths_that_a_projection_does_not_have_are_passed_over() -> None:
    """One head of 8 features can shrink to 4 and 2 only."""
    options: dict[str, Any] = {"network": "butterfly", "in_chans": 1, "depth": 3, "img_size": 8}
    assert count_parameters(model_config("givens_8q1h", **options)) == 1054
    twin = model_config("givens_8q1h_matched", **options)
    assert count_parameters(model_config("qvit_8q1h", in_chans=1, depth=3, img_size=8)) == 1018
    assert (count_parameters(twin), twin.dim, twin.mlp_dim) == (1003, 8, 7)
    with pytest.raises(CircuitError, match=r"needs 2, 4, 8, … wires, got 6"):
        model_config("givens_6q2h_matched", network="butterfly")


@pytest.mark.parametrize(
    ("name", "matched", "error", "message"),
    [
        (
            "qvit_4q2h_matched",
            False,
            ConfigError,
            "Other kinds are matched to the qvit, which cannot be matched itself; use vit_4q2h_matched, say.",
        ),
        (
            "qvit_6q3h",
            True,
            ConfigError,
            "Other kinds are matched to the qvit, which cannot be matched itself; use vit_6q3h_matched, say.",
        ),
        (
            "resnet18",
            True,
            ConfigError,
            "Only a ViT, such as vit_4q2h, can be matched to its qvit, not 'resnet18'.",
        ),
        (
            "vit_1q4h_matched",
            False,
            ModelError,
            "No ViT of width up to 4 with 4 head(s) and the linear projection comes within 3% of 498 parameters; "
            "choose another size.",
        ),
    ],
)
def test_what_cannot_be_matched(name: str, matched: bool, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        model_config(name, matched=matched)
    assert str(caught.value) == message


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "of_quantum", "projection", "target", "count", "dim", "mlp_dim"),
    [
        # Options that both have describe both, all others the one that has them.
        ("unlu", {"n_layers": 3, "ansatz": "reupload"}, ("n_layers", "ansatz"), Unlu(n_layers=3), 250, 251, 2, 25),
        (
            "frozen",
            {"n_layers": 3, "ansatz": "reupload"},
            ("n_layers", "ansatz"),
            Frozen(n_layers=3, ansatz="reupload"),
            250,
            250,
            4,
            12,
        ),
        ("circulant", {"bias": True, "n_layers": 5}, ("n_layers",), Circulant(bias=True), 238, 238, 4, 8),
        ("circulant", {"bias": True}, (), Circulant(bias=True), 190, 193, 4, 3),
        ("vit", {"n_layers": 3, "ansatz": "strongly_entangling"}, ("n_layers", "ansatz"), Linear(), 286, 283, 4, 9),
        ("vit", {}, (), Linear(), 190, 191, 2, 21),
    ],
)
def test_options_of_a_twin_describe_it_and_the_qvit(
    name: str,
    options: dict[str, Any],
    of_quantum: tuple[str, ...],
    projection: Any,
    target: int,
    count: int,
    dim: int,
    mlp_dim: int,
) -> None:
    task = {"img_size": 8, "in_chans": 1}
    quantum = model_config("qvit_2q2h", **task, **{key: options[key] for key in of_quantum})
    twin = model_config(f"{name}_2q2h_matched", **task, **options)
    assert twin == ViTConfig(**task, dim=dim, heads=2, mlp_dim=mlp_dim, projection=projection)
    assert (count_parameters(quantum), count_parameters(twin)) == (target, count)


def test_a_twin_keeps_the_other_options() -> None:
    task = {"img_size": 12, "depth": 2, "pool": "cls", "dropout": 0.25}
    twin = model_config("vit_2q2h", matched=True, bias=False, **task)
    assert twin == ViTConfig(heads=2, projection=Linear(bias=False), dim=twin.dim, mlp_dim=twin.mlp_dim, **task)
    target = count_parameters(ViTConfig(heads=2, dim=4, mlp_dim=4, projection=Quantum(), **task))
    assert abs(count_parameters(twin) - target) <= 0.03 * target
