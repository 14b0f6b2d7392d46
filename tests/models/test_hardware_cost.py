"""Circuits, shots, gates and depth against slower counts and closed forms."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvit.errors import ConfigError
from qvit.models import model_config
from qvit.models.cost import cost_of
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
