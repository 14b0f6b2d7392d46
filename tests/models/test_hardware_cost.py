"""Circuits, shots, gates and depth against slower counts and closed forms; all costs of a model."""

import json
import math
import random
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from qvit.errors import CircuitWarning, ConfigError
from qvit.models import ViTConfig, attention, create_model, model_config
from qvit.models.cost import Cost, cost_of, count_flops
from qvit.models.hardware_cost import (
    CircuitCost,
    HardwareCost,
    circuit_cost,
    circuit_depth,
    hardware_cost,
    measurement_settings,
    shots_for,
)
from qvit.quantum import Angle, Circuit, Gate, Pauli, get_ansatz
from qvit.quantum.ansatz import build_circuit
from qvit.quantum.circuit import ENTANGLERS, FIXED

RETINA = {"in_chans": 3, "num_classes": 5}
BREAST = {"in_chans": 1, "num_classes": 2}


def ansatz(name: str, n: int, n_layers: int) -> Circuit:
    return build_circuit(get_ansatz(name), n, n_layers)


def hardware(name: str, **options: Any) -> HardwareCost:
    found = cost_of(model_config(name, **options)).hardware
    assert found is not None
    return found


# --- depth -------------------------------------------------------------------------------------------------


def longest_path(circuit: Circuit) -> int:
    """The longest chain of gates each of which shares a wire with the next, by comparing all pairs."""
    lengths: list[int] = []
    for place, gate in enumerate(circuit.gates):
        before = [lengths[k] for k in range(place) if set(circuit.gates[k].wires) & set(gate.wires)]
        lengths.append(1 + max(before, default=0))
    return max(lengths, default=0)


@pytest.mark.parametrize("seed", range(12))
def test_depth_is_the_longest_path(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.choice([1, 2, 3, 5, 7])
    names = list(FIXED) if n == 1 else [*FIXED, *ENTANGLERS, "RY", "RZZ", "PauliRot"]
    gates = []
    for _ in range(draw.choice([0, 1, 7, 31])):
        name = draw.choice(names)
        size = {"RZZ": 2, "PauliRot": min(n, 3), **dict.fromkeys(ENTANGLERS, 2)}.get(name, 1)
        angle = Angle(constant=0.3) if name in ("RY", "RZZ", "PauliRot") else None
        gates.append(Gate(name, tuple(draw.sample(range(n), size)), angle, "XYZ"[:size] if name == "PauliRot" else ""))
    circuit = Circuit(n, 0, 0, tuple(gates))
    assert circuit_depth(circuit) == longest_path(circuit)


@pytest.mark.parametrize(
    ("name", "n", "n_layers", "depth"),
    [
        # One layer encodes. A ring of CNOTs is a staircase, and the wire that it ends on is the one the next begins on.
        ("ry_ring", 2, 1, 4),
        ("ry_ring", 4, 1, 6),
        ("ry_ring", 4, 3, 16),
        ("no_entangler", 3, 1, 2),
        ("no_entangler", 3, 5, 6),
        ("pyramid", 2, 1, 1),
        ("pyramid", 5, 1, 7),
    ],
)
def test_depth_of_known_circuits(name: str, n: int, n_layers: int, depth: int) -> None:
    assert circuit_depth(ansatz(name, n, n_layers)) == depth


def test_a_wire_that_a_word_leaves_alone_is_not_waited_for() -> None:
    idle = Gate("PauliRot", (0, 1), Angle(constant=0.1), "ZI")
    assert circuit_depth(Circuit(2, 0, 0, (idle, Gate("H", (1,))))) == 1
    assert circuit_cost("", Circuit(2, 0, 0, (idle,)), 1).two_qubit_gates == 0
    assert circuit_cost("", Circuit(2, 0, 0, (replace(idle, word="ZX"),)), 1).two_qubit_gates == 1


# --- measurement settings ----------------------------------------------------------------------------------

WORDS = st.lists(st.text("IXYZ", min_size=4, max_size=4), max_size=9)


@pytest.mark.long
@given(WORDS)
def test_settings_by_letters(words: list[str]) -> None:
    """The same first fit on words, letter by letter; and no fewer than words that clash in pairs need."""
    groups: list[list[str]] = []
    for word in words:
        if word == "IIII":
            continue
        for group in groups:
            if all(a == b or "I" in (a, b) for other in group for a, b in zip(word, other, strict=True)):
                group.append(word)
                break
        else:
            groups.append([word])
    found = measurement_settings([Pauli.of(word) for word in words])
    assert found == len(groups)
    on_first = {word[0] for word in words} - {"I"}
    assert len(on_first) <= found <= len(words)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["ZII", "IZI", "IIZ"], 1),
        (["ZZI", "IZZ", "ZIZ"], 1),
        (["XII", "IZI", "IIY"], 1),
        (["ZII", "XII"], 2),
        (["ZII", "XII", "YII", "IXI"], 3),
        (["XXI", "ZZI"], 2),  # they commute, but not qubit by qubit
        (["III"], 0),
        ([], 0),
    ],
)
def test_known_settings(words: list[str], settings: int) -> None:
    signed = [-Pauli.of(word) for word in words]
    assert measurement_settings(signed) == settings


# --- shots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accuracy", [1.0, 0.5, 0.3, 0.2, 0.1, 0.07, 0.05, 0.01, 0.003, 0.001])
def test_shots_bound_the_deviation_and_one_fewer_does_not(accuracy: float) -> None:
    shots = shots_for(accuracy)
    for value in (-1.0, -0.3, 0.0, 0.99):  # outcomes ±1 of that mean
        assert math.sqrt((1.0 - value**2) / shots) <= accuracy * (1.0 + 1e-12)
    assert shots == 1 or math.sqrt(1.0 / (shots - 1)) > accuracy


def test_known_shots() -> None:
    wanted = {0.01: 10_000, 0.1: 100, 0.05: 400, 0.001: 1_000_000, 0.03: 1112, 1.0: 1, 1e-200: 10**400}
    assert {accuracy: shots_for(accuracy) for accuracy in wanted} == wanted


@pytest.mark.parametrize("accuracy", [0.0, -0.01, 1.01, math.nan, math.inf])
def test_an_impossible_accuracy(accuracy: float) -> None:
    for call in (shots_for, lambda accuracy: hardware_cost([], accuracy=accuracy)):
        with pytest.raises(ConfigError) as caught:
            call(accuracy)
        assert str(caught.value) == f"The accuracy of expectation values must be in (0, 1], got {accuracy}."


# --- the circuits of a model -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "circuits", "one", "depth", "in_sequence"),
    [
        ("qvit_4q1h", {}, 49 * 3, {"RY": 8, "CNOT": 4}, 6, 6),
        ("frozen_3q2h", {"depth": 3, "n_layers": 2}, 49 * 2 * 3 * 3, {"RY": 9, "CNOT": 6}, 9, 27),
        ("qvit_2q1h", {"pool": "cls"}, 50 * 3, {"RY": 4, "CNOT": 2}, 4, 4),
        ("qvit_4q3h", {"img_size": 24, "patch_size": 6}, 16 * 3 * 3, {"RY": 8, "CNOT": 4}, 6, 6),
    ],
)
def test_circuits_of_a_qvit(
    name: str, options: dict[str, Any], circuits: int, one: dict[str, int], depth: int, in_sequence: int
) -> None:
    """A circuit for each token, head, block, and each of Q, K and V."""
    found = hardware(name, **options)
    qubits = int(name.rpartition("_")[2][0])
    assert (found.circuits, found.qubits, found.shots_per_circuit) == (circuits, qubits, 10_000)
    assert found.shots == 10_000 * circuits
    assert found.gates == {gate: circuits * count for gate, count in one.items()}
    assert found.two_qubit_gates == circuits * one["CNOT"]
    assert (found.depth, found.depth_in_sequence) == (depth, in_sequence)
    (kind,) = found.kinds
    assert kind == CircuitCost(
        ansatz="ry_ring",
        qubits=qubits,
        amplitudes=0,
        evaluations=circuits,
        settings=1,
        circuits=circuits,
        gates=one,
        two_qubit_gates=one["CNOT"],
        depth=depth,
    )


@pytest.mark.long
def test_circuits_of_controls() -> None:
    plain = hardware("no_entangler_4q2h", depth=2)
    assert (plain.circuits, plain.gates, plain.two_qubit_gates, plain.depth) == (588, {"RY": 588 * 8}, 0, 2)
    both = hardware("unlu_4q2h", depth=2)
    scores, values = both.kinds
    assert (scores.ansatz, scores.circuits) == ("unlu_qk", 49 * 2 * 2 * 2)
    assert (values.ansatz, values.circuits) == ("unlu_v", 49 * 2 * 2)
    # RX to encode; RX, RY, a ring and RY; for the scores one more ring and RY
    assert values.gates == {"RX": 8, "RY": 8, "CNOT": 4}
    assert scores.gates == {"RX": 8, "RY": 9, "CNOT": 8}
    assert both.circuits == scores.circuits + values.circuits
    assert both.gates == {"RX": 8 * 588, "RY": 8 * 196 + 9 * 392, "CNOT": 4 * 196 + 8 * 392}
    assert (both.depth, both.depth_in_sequence) == (scores.depth, 2 * scores.depth)
    assert scores.depth > values.depth


@pytest.mark.parametrize("kind", ["vit", "cosine", "identity", "givens", "circulant"])
def test_controls_without_circuits_need_no_quantum_computer(kind: str) -> None:
    found = cost_of(model_config(f"{kind}_2q1h", img_size=8))
    assert (found.hardware, found.engine, found.simulation_flops) == (None, "", 0)
    assert found.simulation_flops_by_engine == {}


@pytest.mark.long
def test_loaded_amplitudes_are_named_and_not_counted_as_gates() -> None:
    (kind,) = hardware("qvit_4q2h", ansatz="pyramid").kinds
    assert (kind.amplitudes, kind.gates, kind.two_qubit_gates) == (4, {"RBS": 6}, 6)


def test_every_measurement_setting_is_a_circuit() -> None:
    circuit = Circuit(2, 0, 0, (Gate("H", (0,)), Gate("CNOT", (0, 1))), (Pauli.of("XX"), Pauli.of("ZZ")))
    found = hardware_cost([("bell", circuit, 5), ("bell", circuit, 2)], accuracy=0.1, blocks=3)
    assert found is not None
    assert (found.circuits, found.shots, found.gates) == (14, 1400, {"H": 14, "CNOT": 14})
    (kind,) = found.kinds
    assert (kind.evaluations, kind.settings, kind.circuits) == (7, 2, 14)
    assert (found.qubits, found.depth, found.depth_in_sequence) == (2, 2, 6)
    wide = hardware_cost([("bell", circuit, 1), ("idle", Circuit(5, 0, 0, ()), 1)])
    assert wide is not None
    assert (wide.qubits, wide.depth, wide.circuits, wide.two_qubit_gates) == (5, 2, 3, 2)
    assert hardware_cost([]) is None


# --- all costs ---------------------------------------------------------------------------------------------


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
