"""Counted operations against closed forms, and all costs of a model, which stays as it is."""

import copy
import json
import math
import warnings
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qvit.errors import CircuitWarning, ModelError
from qvit.models import ViT, ViTConfig, attention, create_model, model_config
from qvit.models.cost import Cost, cost_of, count_flops, si
from qvit.models.projections import Cosine, Linear, Quantum
from qvit.models.zoo import KINDS, build_without_numbers
from qvit.quantum import QuantumLinear


def vit(projection: Any, **options: Any) -> ViT:
    return ViT(ViTConfig(**{"img_size": 28, "in_chans": 3, "num_classes": 5, "projection": projection} | options))


def around_projections(config: ViTConfig) -> int:
    """Two operations a multiply-add in all but Q, K and V."""
    n, d = (config.img_size // config.patch) ** 2, config.dim
    embedding = 2 * n * config.in_chans * config.patch**2 * d
    tokens = n + (config.pool == "cls")
    scores_and_values = 2 * (2 * tokens**2 * d)
    block = scores_and_values + 2 * tokens * d * d + 2 * (2 * tokens * d * config.mlp_dim)
    return embedding + config.depth * block + 2 * d * config.num_classes


# 13 patches a side: enough scores for the kernel that no counter sees. The last: heads too wide for it.
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"in_chans": 1, "num_classes": 3, "dim": 6, "heads": 3, "mlp_dim": 11, "depth": 2},
        {"pool": "cls", "dim": 4, "heads": 1},
        {"img_size": 52, "patch_size": 4},
        {"dim": 24, "heads": 2},
    ],
)
def test_a_vit_is_counted_as_by_hand(options: dict[str, Any]) -> None:
    model = vit(Linear(), **options)
    config = model.config
    tokens = (config.img_size // config.patch) ** 2 + (config.pool == "cls")
    dense = config.depth * 3 * 2 * tokens * config.dim**2
    assert count_flops(model, config.in_chans, config.img_size) == around_projections(config) + dense
    element_by_element = vit(Cosine(), **options)
    assert count_flops(element_by_element, config.in_chans, config.img_size) == around_projections(config)


@pytest.mark.parametrize(("side", "groups"), [(17, 1), (8, 2)])
def test_a_plain_network_is_counted_as_torch_does(side: int, groups: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2, groups=groups),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).eval()  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 2, side, side))
    left = (side - 3) // 2 + 1
    by_hand = 2 * side**2 * 9 * 2 * 6 + 2 * left**2 * 9 * 6 * 4 // groups + 2 * 4 * 3
    assert count_flops(network, 2, side) == counter.get_total_flops() == by_hand


def test_evaluation_mode_and_the_models_own_type() -> None:
    """In training mode batch norm refuses a single vector; a convolution refuses numbers of another type."""
    network = nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten(), nn.BatchNorm1d(3)).train().double()
    network.places = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)  # comes first
    assert next(network.parameters()).dtype == torch.int64
    assert count_flops(network, 2, 4) == 2 * 32 * 3
    assert count_flops(nn.Flatten(), 2, 4) == 0


def test_torchs_fused_attention_is_counted() -> None:
    """On the CPU the fused kernels of nn.TransformerEncoder in evaluation mode count as nothing."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            return self.block(images[:, 0])

    n, d = 16, 16
    assert count_flops(Rows(), 1, n) == 4 * 2 * n * d * d + 2 * 2 * n * n * d + 2 * 2 * n * d * 32


@pytest.mark.long
def test_resnet18_of_monai() -> None:
    from monai.networks import nets  # takes seconds

    with torch.device("meta"):
        model = nets.ResNet(
            "basic", [2, 2, 2, 2], [64, 128, 256, 512],
            spatial_dims=2, n_input_channels=1, num_classes=2, conv1_t_size=3, conv1_t_stride=1, no_max_pool=True,
        )  # fmt: skip
    stem = 28**2 * 9 * 1 * 64
    stages = 4 * 28**2 * 9 * 64 * 64
    for side, width in ((14, 128), (7, 256), (4, 512)):
        before = width // 2
        stages += side**2 * (9 * before * width + 3 * 9 * width * width + before * width)  # the last: the short cut
    assert count_flops(model, 1, 28) == 2 * (stem + stages + 512 * 2) == 911_593_472
    ours = build_without_numbers(model_config("resnet18", in_chans=1, num_classes=2))
    assert count_flops(ours, 1, 28) == 911_593_472
    with pytest.raises(ModelError, match=r"a ResNet that takes \(1, 3, 28, 28\) images .* Check in_chans"):
        count_flops(model, 3, 28)


# --- circuits ---


@pytest.mark.parametrize(("engine", "a_token"), [("heisenberg", 57), ("statevector", 288)])
def test_circuits_count_as_their_engine_says(engine: str, a_token: int) -> None:
    """As documented, for Q, K and V of one head of 4 qubits."""
    model = vit(Quantum(engine=engine), dim=4, heads=1)
    assert count_flops(model, 3, 28) - around_projections(model.config) == 49 * a_token
    if engine == "heisenberg":  # the products that ⟨Z₀⟩ to ⟨Z₃⟩ take, with their prefixes shared, and three for angles
        products = 4 + 2
        assert a_token == 3 * (products + 1 + 3 * 4)


@pytest.mark.long
def test_auto_is_the_engine_of_the_cpu() -> None:
    """On the meta device itself "auto" would choose by the prices of a GPU."""
    counts = {}
    for n_layers in (1, 2):
        for engine in ("auto", "heisenberg", "statevector", "unitary"):
            model = vit(Quantum(n_layers=n_layers, engine=engine), img_size=12, dim=4)
            counts[engine, n_layers] = count_flops(model, 3, 12) - around_projections(model.config)
    assert counts["auto", 1] == counts["heisenberg", 1] == 54 * 9
    assert counts["auto", 2] == counts["heisenberg", 2] == 54 * 36
    assert counts["statevector", 2] == 54 * 48
    assert counts["unitary", 2] == 2736


@pytest.mark.long
@pytest.mark.parametrize("ansatz", ["ry_ring", "reupload", "strongly_entangling"])
def test_circuits_cost_more_with_more_layers(ansatz: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CircuitWarning)
        models = [vit(Quantum(ansatz=ansatz, n_layers=n_layers), img_size=8, dim=2, heads=1) for n_layers in (1, 2, 3)]
    one, two, three = (count_flops(model, 3, 8) - around_projections(model.config) for model in models)
    assert 0 < one < two < three


def test_a_lone_circuit() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.circuit = QuantumLinear(5)

        def forward(self, images: Tensor) -> Tensor:
            return self.circuit(images)

    assert count_flops(Alone(), 2, 5) == 2 * count_flops(Alone(), 1, 5) > 0


# Operations of a block's projections of 49 tokens, 2 heads and 4 qubits: a multiply-add is two, and circuits count as
# the engine that "auto" takes on the CPU. Unlu's are as measured.
PROJECTIONS_TAKE = {
    "qvit": 49 * 114,
    "vit": 49 * 2 * 3 * 8 * 8,
    "cosine": 0,
    "identity": 0,
    "no_entangler": 49 * 6 * (4 + 3 * 4),
    "frozen": 49 * 114,
    "givens": 49 * 2 * 3 * 2 * 4 * 4,
    "circulant": 49 * 2 * 3 * 2 * 4 * 4,
    "unlu": 29_956,
}


@pytest.mark.long
def test_every_kind_is_counted() -> None:
    assert PROJECTIONS_TAKE.keys() == KINDS.keys()
    counted = {}
    for kind in KINDS:
        config = model_config(f"{kind}_4q2h", in_chans=1, num_classes=2)
        counted[kind] = count_flops(build_without_numbers(config), 1, 28) - around_projections(config)
    assert counted == PROJECTIONS_TAKE


# --- the model stays as it is ---


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_model_is_left_alone(dtype: torch.dtype) -> None:
    class WithNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.vit = nn.BatchNorm2d(3), vit(Quantum(n_layers=2), dropout=0.5)

        def forward(self, images: Tensor) -> Tensor:
            return self.vit(self.norm(images))

    model = WithNorm().to(dtype).train()
    images = torch.rand(4, 3, 28, 28, dtype=dtype)
    model(images).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    random = torch.get_rng_state()

    counted = count_flops(model, 3, 28)

    assert counted == count_flops(copy.deepcopy(model).to(torch.float32), 3, 28)
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert gradients
    for name, parameter in model.named_parameters():
        assert parameter.device.type == "cpu"
        assert parameter.grad is None if name not in gradients else torch.equal(parameter.grad, gradients[name])
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    circuits = [layer for layer in model.modules() if isinstance(layer, QuantumLinear)]
    assert [layer.engine for layer in circuits] == ["auto"]
    assert model.eval()(images).isfinite().all()


# --- refusals ---


def test_what_cannot_be_counted() -> None:
    class Looks(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.sum().item() > 0 else -images

    for in_chans, img_size in ((0, 28), (3, 0)):
        with pytest.raises(ModelError, match=f"at least 1 channel and 1 pixel, got {in_chans} and {img_size}"):
            count_flops(Looks(), in_chans, img_size)
    with pytest.raises(ModelError, match=r"^Expected images \(b, 3, 28, 28\), got \(1, 1, 28, 28\)"):
        count_flops(vit(Linear()), 1, 28)
    with pytest.raises(ModelError, match=r"Looks that takes \(1, 1, 4, 4\).* a forward pass that looks at values") as e:
        count_flops(Looks(), 1, 4)
    assert "\n" not in str(e.value)


# --- numbers to read ---


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (7, "7"), (834, "834"), (999, "999"), (1000, "1k"), (1100, "1.1k"), (1117, "1.12k"),
        (23_456, "23.5k"), (999_499, "999k"), (999_600, "1M"), (11_172_810, "11.2M"), (870_000_000, "870M"),
        (911_593_472, "912M"), (1.8e9, "1.8G"), (54_315_321_344, "54.3G"), (2.5e13, "25T"), (1e15, "1P"),
        (4.2e18, "4.2E"), (4.2e21, "4200E"), (0.5, "0.5"),
    ],
)  # fmt: skip
def test_si(count: float, text: str) -> None:
    assert si(count) == text


# --- all costs of a model ---

RETINA = {"in_chans": 3, "num_classes": 5}
BREAST = {"in_chans": 1, "num_classes": 2}


def explicit(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention in operations that every counter sees."""
    return F.softmax(queries @ keys.mT / math.sqrt(queries.shape[-1]), dim=-1) @ values


def closed_form(config: ViTConfig, per_token: int = 0) -> int:
    """Two operations a multiply-add; `per_token` those of a block's projections."""
    n, d, patch = (config.img_size // config.patch) ** 2, config.dim, config.in_chans * config.patch**2
    embedding, tokens = 2 * n * patch * d, n + (config.pool == "cls")
    attended = 2 * tokens * tokens * d + 2 * tokens * tokens * d  # QKᵀ, then AV
    block = attended + 2 * tokens * d * d + 2 * tokens * (d * config.mlp_dim + config.mlp_dim * d)
    return embedding + config.depth * (block + tokens * per_token) + 2 * d * config.num_classes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qvit_4q1h", {}),
        ("qvit_2q2h", {"depth": 2, "mlp_dim": 5, "pool": "cls"}),
        ("vit_4q2h", BREAST),
        ("vit_2q3h", {"img_size": 64}),
    ],
)
def test_flops_of_a_forward_pass(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, and by torch's counter on a pass with real numbers."""
    model = create_model(name, **options).eval()
    config, found = model.config, cost_of(model)
    quantum = name.startswith("qvit")
    assert found.classical_flops == closed_form(config, 0 if quantum else 6 * config.dim**2)
    monkeypatch.setattr(attention, "attend", explicit)
    images = torch.rand(1, config.in_chans, config.img_size, config.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    assert found.flops == counter.get_total_flops() == found.classical_flops + found.simulation_flops
    assert (found.simulation_flops > 0) == quantum
    assert count_flops(model, config.in_chans, config.img_size) == found.flops


# An amplitude takes six operations around and three a rotation; the first layer is in the start state.
SIMULATED = [
    ("qvit_2q2h", {"depth": 2}, {"statevector": 108 * 4 * 6, "unitary": 108 * 4 * 2, "heisenberg": 108 * 9}),
    (
        "qvit_2q2h",  # one matrix a circuit, made row by row, and applied to all nine tokens
        {"depth": 2, "n_layers": 2},
        {
            "statevector": 108 * 4 * (6 + 6),
            "unitary": 12 * 4 * (2 * 9 + 6 * 4 + 2 * 9 * 4),
            "heisenberg": 108 * 36,
        },
    ),
    (
        "qvit_4q1h",  # no fewer rows than tokens: no matrix
        {"n_layers": 2},
        {"statevector": 27 * 16 * (6 + 12), "unitary": 27 * 16 * (2 + 12), "heisenberg": 5433},
    ),
    # x·W and the squares' signed sums, 4 × 4 each.
    ("qvit_4q1h", {"ansatz": "pyramid"}, {"statevector": 18576, "unitary": 16416, "subspace": 27 * 2 * (16 + 16)}),
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "options", "expected"), SIMULATED)
def test_simulation_by_engine(name: str, options: dict[str, Any], expected: dict[str, int]) -> None:
    """Of images of nine patches, by all engines that can, whichever the model names."""
    config = model_config(name, img_size=12, **options)
    found = cost_of(config)
    assert found.simulation_flops_by_engine == expected
    assert found.simulation_flops == expected[found.engine]
    other = next(engine for engine in expected if engine != found.engine)
    pinned = cost_of(model_config(name, img_size=12, engine=other, **options))
    assert (pinned.engine, pinned.simulation_flops) == (other, expected[other])
    assert pinned.simulation_flops_by_engine == expected
    assert pinned.classical_flops == found.classical_flops


def test_heisenberg_by_hand() -> None:
    """57 a token for three circuits, as documented; without CNOTs each wire is one cosine, and three for its angle."""
    assert cost_of(model_config("qvit_4q2h")).simulation_flops_by_engine["heisenberg"] == 49 * 6 * 19
    assert cost_of(model_config("no_entangler_4q2h")).simulation_flops == 49 * 6 * (4 + 3 * 4)


def test_engines_that_differ_within_a_model() -> None:
    model = create_model("unlu_2q1h", img_size=8)
    projection = model.blocks[0].attention.project
    projection.score_circuits.engine, projection.value_circuits.engine = "statevector", "heisenberg"
    found = cost_of(model)
    assert found.engine == "statevector + heisenberg"
    by_engine = found.simulation_flops_by_engine
    assert by_engine["heisenberg"] < found.simulation_flops < by_engine["statevector"]


def test_the_reference_is_named_but_not_counted_among_the_engines() -> None:
    named = cost_of(model_config("qvit_2q1h", img_size=8, engine="reference"))
    assert named.engine == "reference"
    assert set(named.simulation_flops_by_engine) == {"heisenberg", "unitary", "statevector"}


@pytest.mark.long
def test_parameters() -> None:
    found = cost_of(model_config("qvit_4q2h", depth=3, **RETINA))
    assert found.parameters == 1117 + 2 * (4 * 8 + 24 + 72 + 2 * 72)
    assert found.parameters_in_projections == 3 * 24
    assert found.parameters_in_attention == 3 * (24 + 72)  # without the norm before attention
    model = create_model("vit_4q2h", **RETINA)
    model.blocks[0].attention.out.requires_grad_(False)
    found = cost_of(model)
    assert (found.parameters, found.parameters_in_attention) == (1309 - 72, 216)
    found = cost_of(model_config("monai_vit", **RETINA))
    assert found.parameters > 1e6
    assert (found.parameters_in_projections, found.parameters_in_attention, found.hardware) == (0, 0, None)


@pytest.mark.parametrize(
    ("name", "parameters", "projections", "in_attention", "classical", "simulation", "circuits", "depth"),
    [
        ("qvit_4q1h", 513, 12, 32, 61_976, 2_793, 147, 6),
        ("qvit_4q2h", 1117, 24, 96, 133_360, 5_586, 294, 6),
        ("qvit_8q1h", 1117, 24, 96, 133_360, 5_733, 147, 10),
        ("qvit_8q2h", 2613, 48, 320, 304_352, 11_466, 294, 10),
        ("vit_4q2h_matched", 1119, 126, 168, 125_892, 0, None, None),
    ],
)
def test_pinned_costs(
    name: str,
    parameters: int,
    projections: int,
    in_attention: int,
    classical: int,
    simulation: int,
    circuits: int | None,
    depth: int | None,
) -> None:
    """As published: 99.99 % fewer parameters than 14.5 million, but for the widest."""
    found = cost_of(model_config(name, **RETINA))
    assert (found.parameters, found.parameters_in_projections) == (parameters, projections)
    assert found.parameters_in_attention == in_attention
    assert (found.classical_flops, found.simulation_flops) == (classical, simulation)
    needed = found.hardware
    assert (needed and needed.circuits, needed and needed.depth) == (circuits, depth)


@pytest.mark.long
def test_a_model_costs_what_its_configuration_does_and_stays_as_it_is() -> None:
    torch.manual_seed(3)
    model = create_model("unlu_2q1h", img_size=8).train()
    before, state = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    found = cost_of(model, accuracy=0.1)
    assert found == cost_of(model.config, accuracy=0.1)
    assert found.hardware is not None
    assert found.hardware.shots == 100 * found.hardware.circuits
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert found == cost_of(model.double(), accuracy=0.1)


def test_counting_a_configuration_does_not_warn() -> None:
    config = model_config("qvit_4q2h", ansatz="reupload")
    with pytest.warns(CircuitWarning, match="cannot influence any output"):
        create_model("qvit_4q2h", ansatz="reupload")
    assert cost_of(config).hardware is not None  # warnings are errors here


@pytest.mark.parametrize("name", ["unlu_4q2h", "vit_4q2h", "resnet18"])
def test_costs_are_json(name: str) -> None:
    found = cost_of(model_config(name, **BREAST))
    read = json.loads(json.dumps(asdict(found)))
    assert set(read) == set(Cost.__dataclass_fields__)
    assert read["flops"] == found.flops == found.classical_flops + found.simulation_flops
    if found.hardware is not None:
        assert Counter(read["hardware"]["gates"]) == Counter(found.hardware.gates)
        assert [kind["ansatz"] for kind in read["hardware"]["kinds"]] == [k.ansatz for k in found.hardware.kinds]


def test_resnet18_costs() -> None:
    found = cost_of(model_config("resnet18", **BREAST))
    assert (found.flops, found.classical_flops) == (911_593_472, 911_593_472)
