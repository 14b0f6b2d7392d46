"""Compile a circuit into a list of Pauli rotations, simplify it, and say what can and cannot reach the outputs.

Every gate is a Clifford gate or a rotation exp(−iθP/2) about a Pauli string P. Clifford gates are moved to the end
of the circuit by conjugating what they pass; there they turn each observable into another Pauli string. What is left,
the `PauliProgram`, is what the engines run: CNOTs cost nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from qvit.quantum.circuit import ENTANGLERS, Angle, Circuit, Gate
from qvit.quantum.pauli import CLIFFORDS, Frame, Pauli, bits, quarter_turn

_QUARTER = math.pi / 2


@dataclass(frozen=True)
class Rotation:
    """The rotation exp(−iθP/2) about the string `pauli`, whose sign is +1."""

    pauli: Pauli
    angle: Angle


@dataclass(frozen=True)
class PauliProgram:
    """Rotations on |0…0⟩ (or on the loaded `amplitudes`), in order of application, then observables.

    `amplitudes` are basis states as masks: bit w is wire w.
    """

    n_wires: int
    n_inputs: int
    n_weights: int
    rotations: tuple[Rotation, ...]
    observables: tuple[Pauli, ...]
    amplitudes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """What a circuit cannot do, found without running it.

    `dead_inputs` and `dead_weights` cannot influence any output. `cones` are, for each output, the wires it depends
    on, after compilation. `entangling_matters` is whether leaving out CNOT, CZ, SWAP and rotations on several wires
    changes the compiled circuit. `real` is whether the amplitudes can be kept real.
    """

    dead_inputs: tuple[int, ...]
    dead_weights: tuple[int, ...]
    cones: tuple[tuple[int, ...], ...]
    entangling_matters: bool
    real: bool

    def complaints(self) -> list[str]:
        """Return a sentence for each part of the circuit that does nothing."""
        found = []
        for kind, dead in (("input", self.dead_inputs), ("weight", self.dead_weights)):
            if dead:
                shown = ", ".join(map(str, dead[:12])) + (", …" if len(dead) > 12 else "")
                found.append(f"{len(dead)} {kind}(s) cannot influence any output: {shown}.")
        return found


def gate_rotations(gate: Gate) -> Iterator[Rotation]:
    """Yield the commuting Pauli rotations that make up a non-Clifford gate, up to a global phase."""
    angle = gate.angle or Angle(constant=math.pi / 4)  # T
    parts: tuple[tuple[str, float], ...]
    match gate.name:
        case "RX" | "RY" | "RZ" | "RXX" | "RYY" | "RZZ":
            parts = ((gate.name[1:], 1.0),)
        case "T":
            parts = (("Z", 1.0),)
        case "PauliRot":
            parts = ((gate.word, 1.0),)
        case "CRX" | "CRY" | "CRZ":
            parts = (("I" + gate.name[2:], 0.5), ("Z" + gate.name[2:], -0.5))
        case _:  # RBS, from (XY − YX)|10⟩ = 2i|01⟩
            parts = (("XY", 1.0), ("YX", -1.0))
    for word, factor in parts:
        yield Rotation(Pauli.of(word, gate.wires), angle * factor)


@lru_cache(maxsize=256)
def compile_circuit(circuit: Circuit) -> PauliProgram:
    """Return the circuit as a simplified Pauli program."""
    return _simplified(_without_cliffords(circuit))


def _without_cliffords(circuit: Circuit) -> PauliProgram:
    frame = Frame(circuit.n_wires)
    rotations = []
    for gate in circuit.gates:
        if gate.name in CLIFFORDS:
            frame.apply(gate.name, gate.wires)
            continue
        for rotation in gate_rotations(gate):
            string = frame.pull(rotation.pauli)
            rotations.append(Rotation(replace(string, sign=1), rotation.angle * string.sign))
    n = circuit.n_wires
    masks = tuple(sum((state >> (n - 1 - w) & 1) << w for w in range(n)) for state in circuit.amplitudes)
    observables = tuple(frame.pull(observable) for observable in circuit.observables)
    return PauliProgram(n, circuit.n_inputs, circuit.n_weights, tuple(rotations), observables, masks)


def _simplified(program: PauliProgram) -> PauliProgram:
    """Merge, drop and absorb rotations until nothing changes."""
    while True:
        simpler = _without_unseen(_without_phases(_merged(_without_quarter_turns(program))))
        if simpler == program:
            return program
        program = simpler


def _without_quarter_turns(program: PauliProgram) -> PauliProgram:
    """Absorb rotations by constant multiples of π/2, which are Clifford gates, into what follows."""
    axes: list[tuple[Pauli, int]] = []
    kept = []

    def pull(string: Pauli) -> Pauli:
        for axis, turns in axes:
            string = quarter_turn(axis, turns, string)
        return string

    for rotation in program.rotations:
        string, angle = pull(rotation.pauli), rotation.angle
        turns = round(angle.constant / _QUARTER)
        if (
            not angle.inputs
            and not angle.weights
            and abs(angle.constant - turns * _QUARTER) < 1e-14 * max(1, abs(turns))
        ):
            axes.append((replace(string, sign=1), turns * string.sign))
        else:
            kept.append(Rotation(replace(string, sign=1), angle * string.sign))
    if not axes:
        return program
    return replace(program, rotations=tuple(kept), observables=tuple(map(pull, program.observables)))


def _merged(program: PauliProgram) -> PauliProgram:
    """Merge rotations about the same string if it commutes with every rotation between them."""
    kept: list[Rotation] = []
    places: dict[Pauli, int] = {}
    for rotation in program.rotations:
        place = places.get(rotation.pauli)
        if place is not None and all(
            rotation.pauli.commutes(kept[later].pauli) for later in range(len(kept) - 1, place, -1)
        ):
            kept[place] = Rotation(rotation.pauli, kept[place].angle + rotation.angle)
        else:
            places[rotation.pauli] = len(kept)
            kept.append(rotation)
    return replace(program, rotations=tuple(rotation for rotation in kept if rotation.angle != Angle()))


def _without_phases(program: PauliProgram) -> PauliProgram:
    """Drop rotations that only give |0…0⟩ a phase: strings of Z that commute with all before them."""
    if program.amplitudes:
        return program
    kept: list[Rotation] = []
    for rotation in program.rotations:
        if rotation.pauli.x or not all(rotation.pauli.commutes(earlier.pauli) for earlier in kept):
            kept.append(rotation)
    return replace(program, rotations=tuple(kept))


def _without_unseen(program: PauliProgram) -> PauliProgram:
    """Drop rotations outside the light cones of all observables."""
    seen = np.flatnonzero(light_cones(program).any(axis=0))
    return replace(program, rotations=tuple(program.rotations[r] for r in seen))


@lru_cache(maxsize=16)
def light_cones(program: PauliProgram) -> np.ndarray:
    """Return `(o, r)`: whether rotation r can matter to observable o.

    It can if it fails to commute with the observable, or with a later rotation that matters to it.
    """
    strings = [rotation.pauli for rotation in program.rotations]
    clash = _anticommuting(strings, strings, program.n_wires)
    cones = _anticommuting(list(program.observables), strings, program.n_wires)
    for r in range(len(strings) - 1, -1, -1):
        later = r + 1 + np.flatnonzero(clash[r + 1 :, r])
        if len(later):
            cones[:, r] |= cones[:, later].any(axis=1)
    return cones


def _anticommuting(left: list[Pauli], right: list[Pauli], n: int) -> np.ndarray:
    """Return the matrix of whether left[i] and right[j] anticommute."""

    def unpacked(masks: list[int]) -> np.ndarray:
        if not masks:
            return np.zeros((0, n), dtype=np.float32)
        size = (n + 7) // 8
        raw = np.frombuffer(b"".join(mask.to_bytes(size, "little") for mask in masks), dtype=np.uint8)
        return np.unpackbits(raw.reshape(len(masks), size), axis=1, count=n, bitorder="little").astype(np.float32)

    x, z = unpacked([p.x for p in left]), unpacked([p.z for p in left])
    right_x, right_z = unpacked([p.x for p in right]).T, unpacked([p.z for p in right]).T
    found = np.empty((len(left), len(right)), dtype=bool)
    for start in range(0, len(left), 1024):  # counts are floats, for speed; all at once would take much memory
        rows = slice(start, start + 1024)
        found[rows] = (x[rows] @ right_z + z[rows] @ right_x) % 2
    return found


def phase_frame(program: PauliProgram) -> int | None:
    """Return the wires on which an S gate makes every rotation real, as a mask, or None if no choice does.

    exp(−iθP/2) is real if P has an odd number of Y. S turns X into Y and Y into −X, keeps Z, and leaves |0…0⟩ alone,
    so whether it helps is a system of linear equations over GF(2): Σ_w x_w s_w = 1 + (number of Y).
    """
    rows: dict[int, int] = {}  # leading bit → equation; bit n holds the right-hand side
    n = program.n_wires
    for rotation in program.rotations:
        row = rotation.pauli.x | (1 - rotation.pauli.n_y % 2) << n
        if program.amplitudes and row >> n:
            return None  # an S gate would change the loaded state
        while unknown := row & ~(1 << n):
            lead = unknown.bit_length() - 1
            if lead not in rows:
                rows[lead] = row
                break
            row ^= rows[lead]
        else:
            if row:
                return None
    solution = 0
    for lead in sorted(rows):
        row = rows[lead]
        solution |= ((row >> n & 1) ^ (row & solution & ~(1 << n)).bit_count() & 1) << lead
    return solution


@lru_cache(maxsize=256)
def analyse(circuit: Circuit) -> Analysis:
    """Return what the circuit cannot do; every input or weight named is certain to have no influence.

    The converse is not promised: angles may still cancel at run time.
    """
    program = compile_circuit(circuit)
    angles = [rotation.angle for rotation in program.rotations]
    inputs = {i for angle in angles for i, _ in angle.inputs} | set(range(len(program.amplitudes)))
    weights = {k for angle in angles for k, _ in angle.weights}
    cones = light_cones(program)
    strings = [rotation.pauli for rotation in program.rotations]
    reach = []
    for cone, observable in zip(cones, program.observables, strict=True):
        mask = observable.support
        for index in np.flatnonzero(cone):
            mask |= strings[index].support
        reach.append(bits(mask))
    return Analysis(
        dead_inputs=tuple(sorted(set(range(circuit.n_inputs)) - inputs)),
        dead_weights=tuple(sorted(set(range(circuit.n_weights)) - weights)),
        cones=tuple(reach),
        entangling_matters=compile_circuit(_disentangled(circuit)) != program,
        real=phase_frame(program) is not None,
    )


def _disentangled(circuit: Circuit) -> Circuit:
    """Return the circuit without any gate on more than one wire."""
    gates = tuple(g for g in circuit.gates if g.name not in ENTANGLERS and len(g.wires) == 1)
    return replace(circuit, gates=gates)
