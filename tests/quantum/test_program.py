"""Compilation into Pauli rotations: what is merged, dropped and absorbed, and that nothing changes its meaning."""

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.quantum import (
    Angle,
    Circuit,
    CircuitBuilder,
    Gate,
    Pauli,
    PauliProgram,
    X,
    Y,
    Z,
    compile_circuit,
    expectations,
    w,
    x,
)
from qvit.quantum.circuit import ring
from qvit.quantum.engines.reference import ReferencePlan
from qvit.quantum.program import Rotation, light_cones, phase_frame

HALF_TURN = math.pi
QUARTER_TURN = math.pi / 2


def rotations(builder: CircuitBuilder) -> list[tuple[str, str]]:
    program = compile_circuit(builder.build())
    return [(str(rotation.pauli), str(rotation.angle)) for rotation in program.rotations]


def build(n: int, *gates: tuple[str, tuple[int, ...], Angle | float | None], read: tuple[Pauli, ...]) -> CircuitBuilder:
    builder = CircuitBuilder(n).measure(*read)
    for name, wires, angle in gates:
        builder.add(name, *wires, angle=angle)
    return builder


@pytest.mark.parametrize(
    ("gates", "read", "expected"),
    [
        # rotations about one axis are one, also past a CNOT and past what commutes
        ([("RY", (0,), x(0)), ("RY", (0,), w(0))], Z(0), [("Y0", "x0 + w0")]),
        ([("RX", (0,), x(0)), ("RX", (0,), 0.5 * x(0) - w(0) + 1)], Z(0), [("X0", "1.5·x0 - w0 + 1")]),
        ([("RX", (1,), x(0)), ("CNOT", (0, 1), None), ("RX", (1,), w(0))], Z(1), [("X1", "x0 + w0")]),
        (
            [("RY", (0,), x(0)), ("RX", (1,), x(1)), ("RY", (0,), w(0))],
            Z(0) @ Z(1),
            [("Y0", "x0 + w0"), ("X1", "x1")],
        ),
        # but not past what does not
        (
            [("RX", (0,), x(0)), ("RY", (0,), w(0)), ("RX", (0,), x(0))],
            Z(0),
            [("X0", "x0"), ("Y0", "w0"), ("X0", "x0")],
        ),
        # opposite angles cancel, and what stood between them then meets
        ([("RY", (0,), x(0)), ("RY", (0,), -x(0))], Z(0), []),
        ([("RY", (0,), x(0)), ("RX", (0,), w(0)), ("RX", (0,), -w(0)), ("RY", (0,), x(1))], Z(0), [("Y0", "x0 + x1")]),
        # a Clifford gate turns the axis, or its sign
        ([("RX", (0,), x(0)), ("X", (0,), None), ("RY", (0,), w(0))], Z(0), [("X0", "x0"), ("Y0", "-w0")]),
        ([("H", (0,), None), ("RZ", (0,), x(0))], X(0), [("X0", "x0")]),
        ([("S", (0,), None), ("RX", (0,), x(0))], Z(0), [("Y0", "-x0")]),
        ([("CNOT", (0, 1), None), ("RX", (0,), x(0))], Z(0), [("X0·X1", "x0")]),
        # constant quarter turns are Clifford gates, whatever the gate
        ([("RX", (0,), QUARTER_TURN), ("RZ", (0,), x(0))], X(0), [("Y0", "x0")]),
        ([("RY", (0,), HALF_TURN), ("RX", (0,), -x(0)), ("RZ", (0,), 3 * HALF_TURN)], Z(0), [("X0", "x0")]),
        ([("CRX", (0, 1), HALF_TURN), ("RBS", (0, 1), QUARTER_TURN), ("RXX", (0, 1), -QUARTER_TURN)], Z(0), []),
        ([("RY", (0,), 0.0), ("RX", (0,), 4 * HALF_TURN)], Z(0), []),
        # so are two T gates, one is not; nor is a quarter turn that also has an input
        ([("H", (0,), None), ("T", (0,), None), ("T", (0,), None)], Y(0), []),
        ([("H", (0,), None), ("T", (0,), None)], Y(0), [("X0", "0.7854")]),
        ([("RX", (0,), x(0) + QUARTER_TURN)], Z(0), [("X0", "x0 + 1.571")]),
        # a phase of |0⟩, or what no observable sees
        ([("RZ", (0,), x(0)), ("RZZ", (0, 1), x(0)), ("RX", (0,), x(1))], Z(0), [("X0", "x1")]),
        ([("RX", (0,), x(0)), ("RZ", (0,), w(0))], Z(0), [("X0", "x0")]),
        ([("RY", (0,), x(0)), ("RY", (1,), x(1))], Z(1), [("Y1", "x1")]),
        ([("RY", (0,), x(0)), ("RZ", (0,), w(0))], X(0), [("Y0", "x0"), ("Z0", "w0")]),
        # controlled rotations and beam splitters are two rotations that commute
        ([("CRY", (0, 1), x(0))], Z(1), [("Y1", "0.5·x0"), ("Z0·Y1", "-0.5·x0")]),
        ([("RBS", (0, 1), x(0))], Z(0), [("X0·Y1", "x0"), ("Y0·X1", "-x0")]),
    ],
)  # fmt: skip
def test_simplified(
    gates: list[tuple[str, tuple[int, ...], Angle | float | None]], read: Pauli, expected: list[tuple[str, str]]
) -> None:
    assert rotations(build(2, *gates, read=(read,))) == expected


@pytest.mark.parametrize("n", [1, 2, 5])
def test_entanglers_cost_nothing(n: int) -> None:
    gates = (*ring(range(n)), *(Gate("H", (i,)) for i in range(n)), *ring(range(n), reach=max(1, n - 1)))
    program = compile_circuit(Circuit(n, 0, 0, gates))
    assert program.rotations == ()
    assert len(program.observables) == n


def test_observables_move_with_the_gates() -> None:
    circuit = CircuitBuilder(3).add("CNOT", 0, 1).add("H", 2).add("CNOT", 1, 2).measure(Z(1), -Z(2), X(0)).build()
    program = compile_circuit(circuit)
    assert [str(observable) for observable in program.observables] == ["Z0·Z1", "-Z0·Z1·X2", "X0·X1"]


def test_amplitudes_keep_their_phases() -> None:
    """On a loaded state a rotation about Z first is no global phase."""
    circuit = CircuitBuilder(2).load_amplitudes(0, 1).add("RZ", 1, angle=x(0)).measure(X(1)).build()
    program = compile_circuit(circuit)
    assert [str(rotation.pauli) for rotation in program.rotations] == ["Z1"]
    assert program.amplitudes == (0, 2)  # wire 1, the lower bit of a basis state, is bit 1 of a mask


def test_compiled_once() -> None:
    circuits = [Circuit(2, 1, 0, (Gate("RX", (0,), x(0)),)) for _ in range(2)]
    assert compile_circuit(circuits[0]) is compile_circuit(circuits[1])


# --- meaning -----------------------------------------------------------------------------------------------

LETTERS = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}


def dense(string: Pauli, n: int) -> np.ndarray:
    letters = dict(zip(string.wires, string.word, strict=True))
    return string.sign * reduce(np.kron, [LETTERS[letters.get(wire, "I")] for wire in range(n)])


def run(program: PauliProgram, x: Tensor, w: Tensor) -> np.ndarray:
    """Evaluate a program as its docstring says, with dense matrices."""
    n = program.n_wires
    state = np.zeros(2**n, dtype=complex)
    for k, mask in enumerate(program.amplitudes):
        state[sum((mask >> wire & 1) << (n - 1 - wire) for wire in range(n))] = x[k]
    state[0] += not program.amplitudes
    state /= np.linalg.norm(state)
    for rotation in program.rotations:
        theta = rotation.angle.constant + sum(a * float(x[i]) for i, a in rotation.angle.inputs)
        theta += sum(b * float(w[k]) for k, b in rotation.angle.weights)
        state = np.cos(theta / 2) * state - 1j * np.sin(theta / 2) * dense(rotation.pauli, n) @ state
    return np.array([(state.conj() @ dense(observable, n) @ state).real for observable in program.observables])


@pytest.mark.parametrize("seed", range(400, 414))
def test_a_program_means_what_its_circuit_means(seed: int, random_circuit: Callable[..., Circuit]) -> None:
    circuit = random_circuit(seed, loaded=bool(seed % 2), n=2 + seed % 3)
    inputs, weights = (torch.randn(n, dtype=torch.float64) for n in (circuit.n_inputs, circuit.n_weights))
    program = compile_circuit(circuit)
    expected = ReferencePlan(circuit).expectations(inputs, weights).numpy()
    np.testing.assert_allclose(run(program, inputs, weights), expected, atol=1e-12)
    assert all(rotation.pauli.sign == 1 for rotation in program.rotations)


@pytest.mark.parametrize("seed", range(440, 448))
def test_light_cones_by_their_definition(seed: int, random_circuit: Callable[..., Circuit]) -> None:
    program = compile_circuit(random_circuit(seed, n=3 + seed % 3))
    expected = np.zeros((len(program.observables), len(program.rotations)), dtype=bool)
    for o, observable in enumerate(program.observables):
        seen = [observable]
        for r in reversed(range(len(program.rotations))):
            if not all(program.rotations[r].pauli.commutes(string) for string in seen):
                expected[o, r] = True
                seen.append(program.rotations[r].pauli)
    np.testing.assert_array_equal(light_cones(program), expected)
    assert expected.any(axis=0).all()  # a rotation that nothing sees was dropped


@pytest.mark.parametrize("seed", range(500, 516))
def test_the_frame_in_which_amplitudes_are_real(seed: int) -> None:
    """Against every choice of wires: with S there, each rotation has an odd number of Y."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    words = ["".join(rng.choice(list("IXYZ"), n, p=[0.4, 0.2, 0.3, 0.1])) for _ in range(rng.integers(1, n + 2))]
    strings = [Pauli.of(word) for word in words if set(word) != {"I"}]
    program = PauliProgram(n, 0, 1, tuple(Rotation(string, w(0)) for string in strings), (Z(0),))

    def works(mask: int) -> bool:
        return all(sum((s.x >> i & 1) & ((s.z >> i & 1) ^ (mask >> i & 1)) for i in range(n)) % 2 for s in strings)

    found = phase_frame(program)
    possible = [mask for mask in range(2**n) if works(mask)]
    assert found in possible if possible else found is None


def test_real_and_complex_programs_both_occur() -> None:
    """Or the test above would say little."""
    real = Circuit(2, 2, 0, (Gate("RX", (0,), x(0)), Gate("RY", (1,), x(1))))
    mixed = Circuit(1, 2, 0, (Gate("RY", (0,), x(0)), Gate("RX", (0,), x(1))))
    loaded = CircuitBuilder(1).load_amplitudes(0, 1).add("RX", 0, angle=w(0)).build()
    assert phase_frame(compile_circuit(real)) == 0b01
    assert phase_frame(compile_circuit(mixed)) is None
    assert phase_frame(compile_circuit(loaded)) is None  # S would change the loaded state


@pytest.mark.parametrize("constant", [math.pi / 2 + 1e-9, 1001 * math.pi / 2 + 1e-6, 1e9, 37 * math.pi / 2, 1e-12])
def test_a_constant_near_a_quarter_turn_is_not_taken_for_one(constant: float) -> None:
    gates = (Gate("RY", (0,), x(0)), Gate("RX", (0,), Angle(constant=0.7)), Gate("RY", (0,), Angle(constant=constant)))
    circuit = Circuit(1, 1, 0, gates)
    inputs, none = torch.tensor([[0.4]], dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    expected = expectations(circuit, inputs, none, engine="reference")
    torch.testing.assert_close(expectations(circuit, inputs, none), expected, atol=1e-13 * max(1, constant), rtol=0)


@pytest.mark.long
def test_light_cones_in_blocks_are_those_of_one_block() -> None:
    """More than 1,024 rotations are compared in several blocks; here each matters on its own wire and on no other."""
    gates = tuple(Gate(("RX", "RY")[k // 3 % 2], (k % 3,), w(k)) for k in range(1100))
    program = compile_circuit(Circuit(3, 0, 1100, gates))
    assert len(program.rotations) == 1100
    expected = [[k % 3 == wire for k in range(1100)] for wire in range(3)]
    assert light_cones(program).tolist() == expected
