"""All models: wrong names, options, sizes and images are refused with a message that helps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.errors import CircuitError, ConfigError, ModelError, QvitError
from qvit.models import NetworkConfig, ViT, ViTConfig, count_parameters, create_model, model_config
from qvit.models.projections import Linear, Projection, Quantum, make_projection
from qvit.models.zoo import read_config


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("qvit_4q_2h", {}, r"no model 'qvit_4q_2h'\. Did you mean 'qvit_4q2h'\?.*Names are \{qvit\|vit\|"),
        ("vitt_4q2h", {}, r"no model 'vitt_4q2h'\. Did you mean 'vit_4q2h'\?"),
        ("no_entanglr_4q2h", {}, r"no model 'no_entanglr_4q2h'\. Did you mean 'no_entangler_4q2h'\?"),
        ("noentangler_4q2h", {}, r"Did you mean 'no_entangler_4q2h'\? .*\|identity\|no_entangler\|frozen\|givens\|"),
        ("quantum_4q2h", {}, r"no model 'quantum_4q2h'"),
        ("_4q2h", {}, r"no model '_4q2h'"),
        ("qvit", {}, r"no model 'qvit'\."),
        ("", {}, r"no model ''\. Names are"),
        ("qvit_4q2h_matched", {}, r"matched to the qvit, .* itself; use vit_4q2h_matched, say"),
        ("qvit_4q2h", {"matched": True}, r"matched to the qvit, .* itself; use vit_4q2h_matched, say"),
        ("qvit_4q2h", {"dept": 2}, r"Models have no option 'dept'\. Did you mean 'depth'\? Known: img_size, "),
        ("qvit_4q2h", {"n_layer": 2}, r"no option 'n_layer'\. Did you mean 'n_layers'\?"),
        ("qvit_4q2h", {"kind": "linear"}, r"Models have no option 'kind'"),
        ("vit_4q2h", {"n_layers": 2}, r"linear projection has no option 'n_layers' \(it takes bias\)"),
        ("qvit_4q2h", {"bias": False}, r"quantum .* no option 'bias' \(it takes n_layers, ansatz, readout, engine\)"),
        ("cosine_4q2h", {"ansatz": "ry_ring"}, r"cosine .* no option 'ansatz' \(it takes readout\)"),
        ("identity_4q2h", {"bias": True}, r"identity projection has no option 'bias'"),
        ("no_entangler_4q2h", {"ansatz": "x"}, r"no option 'ansatz' \(it takes n_layers, readout, engine\)"),
        ("frozen_4q2h", {"network": "x"}, r"no option 'network' \(it takes n_layers, ansatz, readout, engine\)"),
        ("givens_4q2h", {"n_layers": 2}, r"givens projection has no option 'n_layers' \(it takes network\)"),
        ("givens_4q2h", {"netwrok": "x"}, r"Models have no option 'netwrok'\. Did you mean 'network'\?"),
        ("circulant_4q2h", {"engine": "auto"}, r"circulant .* no option 'engine' \(it takes bias\)"),
        ("unlu_4q2h", {"ansatz": "unlu_v"}, r"unlu .* no option 'ansatz' \(it takes n_layers, engine\)"),
        ("givens_4q2h", {"network": "ring"}, r"Option network='ring': Input should be 'pyramid', 'butterfly' or 'x'"),
        ("unlu_4q2h", {"n_layers": "two"}, r"Option n_layers='two': Input should be a valid integer"),
        ("qvit_4q2h", {"num_classes": "two"}, r"Option num_classes='two': Input should be a valid integer"),
        ("qvit_4q2h", {"depth": 1.5}, r"Option depth=1\.5: Input should be a valid integer"),
        ("qvit_4q2h", {"patch_size": "big"}, r"Option patch_size='big'"),
        ("qvit_4q2h", {"dropout": "much"}, r"Option dropout='much': Input should be a valid number"),
        (
            "qvit_4q2h",
            {"pool": "min"},
            r"Option pool='min': Input should be 'mean', 'max', 'meanmax', 'all', 'cls' or 'attention'",
        ),
        ("qvit_4q2h", {"n_layers": "two"}, r"Option n_layers='two': Input should be a valid integer"),
        ("vit_4q2h", {"bias": "perhaps"}, r"Option bias='perhaps': Input should be a valid boolean"),
    ],
)
def test_names_and_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(name, **options)


@pytest.mark.parametrize(
    ("name", "matched", "key", "value"),
    [
        ("qvit_4q2h", False, "dim", 8),
        ("qvit_4q2h", False, "heads", 2),
        ("vit_4q2h", False, "projection", Linear()),
        ("vit_2q1h_matched", False, "heads", 4),
        ("vit_2q1h", True, "dim", 12),
        ("identity_8q1h", False, "projection", Quantum()),
    ],
    ids=str,
)
@pytest.mark.parametrize("build", [model_config, create_model])
def test_a_name_cannot_lie(build: Callable[..., object], name: str, matched: bool, key: str, value: object) -> None:
    """What the name says is no option, not even where both agree."""
    with pytest.raises(ConfigError) as caught:
        build(name, matched=matched, **{key: value})
    assert str(caught.value) == (
        f"The name '{name}' already says the {key}; choose another name, such as qvit_6q3h or cosine_4q2h, "
        "or build ViT(ViTConfig(…))."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, r"num_classes must be at least 1, got 0"),
        ({"in_chans": 0}, r"in_chans must be at least 1, got 0"),
        ({"img_size": 0}, r"img_size must be at least 1, got 0"),
        ({"depth": 0}, r"depth must be at least 1, got 0"),
        ({"mlp_dim": -1}, r"mlp_dim must be at least 1, got -1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0\.1"),
        ({"dropout": float("nan")}, r"dropout must be in \[0, 1\), got nan"),
        ({"patch_size": 5}, r"img_size=28 is not divisible by patch_size=5; .*: 1, 2, 4, 7, 14, 28\."),
        ({"patch_size": 0}, r"patch_size must be at least 1, got 0"),
        ({"depth": 1_000_000}, r"depth must be at most 256, got 1,000,000\. Models have limits"),
        ({"mlp_dim": 10**18}, r"mlp_dim must be at most 65,536"),
        ({"in_chans": 10**18}, r"in_chans must be at most 1,024"),
        ({"num_classes": 10**18}, r"num_classes must be at most 100,000"),
        ({"img_size": 10**18}, r"img_size must be at most 4,096"),
        ({"patch_size": 10**18}, r"patch_size must be at most 4,096"),
        ({"img_size": 4096, "patch_size": 1}, r"number of patches of an image must be at most 65,536, got 16,777,216"),
        ({"img_size": 29}, r"No patch size suits images of 29 pixels .*; pass patch_size, or resize"),
        ({"img_size": 7}, r"No patch size suits images of 7 pixels"),
    ],
)
@pytest.mark.parametrize("name", ["qvit_4q2h", "vit_4q2h"])
def test_sizes_that_do_not_fit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **options)
    with pytest.raises(ModelError, match=message):
        ViTConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, r"dim must be at least 1, got 0"),
        ({"dim": -8}, r"dim must be at least 1, got -8"),
        ({"heads": 0}, r"heads must be at least 1, got 0"),
        ({"dim": 9}, r"dim=9 cannot be split among heads=2; use a multiple"),
        ({"dim": 8, "heads": 3}, r"dim=8 cannot be split among heads=3; use a multiple"),
    ],
)
@pytest.mark.parametrize("projection", [Quantum(), Linear()], ids=str)
def test_widths_that_do_not_fit(projection: Projection, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ViT(ViTConfig(projection=projection, **options))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: create_model("qvit_0q2h"), ModelError, r"dim must be at least 1"),
        (lambda: create_model("vit_4q0h"), ModelError, r"at least 1, got 0"),
        (lambda: create_model("qvit_999999q1h"), ModelError, r"dim must be at most 16,384, got 999,999"),
        (lambda: create_model("vit_1q9999h"), ModelError, r"heads must be at most 1,024, got 9,999"),
        (lambda: create_model(f"vit_{'9' * 5000}q1h"), ConfigError, r"There is no model 'vit_999"),
        (lambda: create_model("qvit_300q1h"), ModelError, r"dim / heads, must be at most 256, got 300"),
        (lambda: create_model("givens_300q1h"), ModelError, r"dim / heads, must be at most 256, got 300"),
        (
            lambda: create_model("givens_128q1h"),
            ModelError,
            r"angles of 'pyramid' in a head of width 128 must be at most 5,000, got 8,128",
        ),
        (lambda: create_model("qvit_128q1h", ansatz="pyramid"), ModelError, r"at most 5,000, got 8,128"),
        (lambda: create_model("unlu_4q1h", n_layers=1000), ModelError, r"n_layers must be at most 256, got 1,000"),
        (lambda: create_model("qvit_8q1h", n_layers=200), ModelError, r"times n_layers must be at most 1,024"),
        (lambda: create_model("vit_16384q1h_matched"), ModelError, r"dim / heads, must be at most 256"),
        (
            lambda: ViTConfig(dim=16384, mlp_dim=65536, depth=100),
            ModelError,
            r"number of weights must be at most 2,147,483,648, got 322,",
        ),
        (lambda: create_model("vit_4q2h", depth=10**5000), ConfigError, r"depth: .*at most 64 bits"),
        (lambda: ViTConfig(depth=True), ModelError, r"depth must be a whole number, got True"),
        (lambda: NetworkConfig("resnet18", img_size=10**9), ModelError, r"img_size must be at most 4,096"),
        (lambda: NetworkConfig("resnet18", resize=10**9), ModelError, r"resize must be at most 4,096"),
        (lambda: NetworkConfig("timm/hf-hub:someone/something"), ModelError, r"There is no network 'timm/hf-hub"),
        (lambda: read_config({"depht": 2}), ConfigError, r"Models have no option 'depht'"),
        (
            lambda: read_config({"projection": {"kind": "linear", "layers": 2}}),
            ConfigError,
            r"Models have no option 'projection.layers'",
        ),
        (lambda: create_model("qvit_4q2h", ansatz="ring"), CircuitError, r"no ansatz 'ring'\. Did you mean"),
        (lambda: create_model("qvit_4q2h", engine="fast"), CircuitError, r"no engine 'fast'"),
        *(
            (lambda kind=kind: create_model(f"{kind}_4q2h", n_layers=0), CircuitError, r"n_layers must be .*, got 0")
            for kind in ("qvit", "no_entangler", "frozen", "unlu")
        ),
        (lambda: create_model("unlu_4q2h", engine="fast"), CircuitError, r"no engine 'fast'"),
        (lambda: create_model("frozen_4q2h", ansatz="ring"), CircuitError, r"no ansatz 'ring'\. Did you mean"),
        (
            lambda: create_model("qvit_4q2h", ansatz="dense_ring"),
            ModelError,
            r"ansatz 'dense_ring' takes 8 feature\(s\) to 4 value\(s\) on 4 qubit\(s\), but attention needs 4 to 4 in "
            r"heads of width 4; use another ansatz, such as 'ry_ring'\.",
        ),
        (
            lambda: create_model("frozen_3q1h", ansatz="amplitude_ring"),
            ModelError,
            r"'amplitude_ring' takes 8 feature\(s\) to 3 value\(s\) on 3 qubit\(s\), but attention needs 3 to 3",
        ),
        (
            lambda: count_parameters(model_config("qvit_4q2h", ansatz="unlu_qk", n_layers=2)),
            ModelError,
            r"'unlu_qk' takes 4 feature\(s\) to 1 value\(s\) on 4 qubit\(s\), but attention needs 4 to 4",
        ),
        (lambda: create_model("qvit_6q1h", ansatz="butterfly"), CircuitError, r"needs 2, 4, 8, … wires, got 6"),
        (lambda: create_model("givens_6q1h", network="butterfly"), CircuitError, r"needs 2, 4, 8, … wires, got 6"),
        (lambda: create_model("givens_1q2h"), CircuitError, r"at least two wires, got 1"),
        (lambda: create_model("givens_1q2h", network="x"), CircuitError, r"at least two wires, got 1"),
        (lambda: create_model("qvit_4q2h").reset_classifier(-1), ModelError, r"not be negative, got -1"),
        (
            lambda: make_projection("linaer"),
            ConfigError,
            r"no projection 'linaer'\. Did you mean 'linear'\? Known: quantum, linear, cosine, identity, no_entangler, "
            r"frozen, givens, circulant, unlu\.",
        ),
        (lambda: make_projection("linear", bias="perhaps"), ConfigError, r"Option bias='perhaps': .* valid boolean"),
        (lambda: make_projection("linear", bia=True), ConfigError, r"no option 'bia' .*Did you mean 'bias'\?"),
        (lambda: make_projection("givens", netwrok="x"), ConfigError, r"givens .*Did you mean 'network'\?"),
        (lambda: make_projection("unlu", n_layer=2), ConfigError, r"unlu .*Did you mean 'n_layers'\?"),
        (lambda: create_model("vit_1q4h_matched"), ModelError, r"No ViT of width up to 4 with 4 head.*choose"),
    ],
)
def test_other_calls(call: Callable[[], object], error: type[QvitError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 28, 28), r"Expected images \(b, 3, 28, 28\), got \(2, 1, 28, 28\)"),
        (torch.zeros(2, 3, 28, 32), r"Expected images \(b, 3, 28, 28\), got \(2, 3, 28, 32\)"),
        (torch.zeros(2, 28, 28, 3), r"Expected images \(b, 3, 28, 28\), got \(2, 28, 28, 3\)"),
        (torch.zeros(3, 28, 28), r"Expected images \(b, 3, 28, 28\), got \(3, 28, 28\)"),
        (torch.zeros(1, 2, 3, 28, 28), r"Expected images .*, got \(1, 2, 3, 28, 28\)"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.int64), r"uint8 images or floats in \[0, 1\], got torch\.int64"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.bool), r"uint8 images or floats in \[0, 1\], got torch\.bool"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.complex64), r"uint8 images .*, got torch\.complex64"),
    ],
)
def test_images(images: Tensor, message: str) -> None:
    model = create_model("vit_2q1h")
    for entry in (model.forward, model.forward_features, model.forward_with_attention):
        with pytest.raises(ModelError, match=message):
            entry(images)
