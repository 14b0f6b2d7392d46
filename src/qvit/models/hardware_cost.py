"""What a quantum computer would need for the circuits of a model, counted from their gates as written."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from qvit.errors import ConfigError
from qvit.quantum import Circuit, Gate, Pauli


@dataclass(frozen=True)
class CircuitCost:
    """The circuits of one ansatz in a model, for one image.

    `evaluations` is how often the model asks for this circuit's values, with different inputs or weights each time,
    and `settings` is how many measurements give all values of one, see `measurement_settings`; `circuits` is their
    product. `gates` (by name, including those that encode features), `two_qubit_gates` and `depth` are those of one
    circuit as the ansatz has them: before a compiler fits them to the gates and the couplings of a machine, and
    without the rotations that measure X or Y. `amplitudes` is how many features are loaded as amplitudes instead; the
    gates for that depend on the method and are not counted.
    """

    ansatz: str
    qubits: int
    amplitudes: int
    evaluations: int
    settings: int
    circuits: int
    gates: dict[str, int]
    two_qubit_gates: int
    depth: int


@dataclass(frozen=True)
class HardwareCost:
    """What a quantum computer needs for one image.

    `circuits` have to be run, on at most `qubits` qubits, each `shots_per_circuit` times, `shots` in all. `gates` and
    `two_qubit_gates` are those of all circuits, each run once. `depth` is that of the deepest circuit.
    `depth_in_sequence` adds up the blocks, which wait for each other; circuits of one block could run side by side.
    """

    circuits: int
    qubits: int
    shots_per_circuit: int
    shots: int
    gates: dict[str, int]
    two_qubit_gates: int
    depth: int
    depth_in_sequence: int
    kinds: tuple[CircuitCost, ...]


def hardware_cost(
    evaluations: Iterable[tuple[str, Circuit, int]], *, blocks: int = 1, accuracy: float = 0.01
) -> HardwareCost | None:
    """Return what circuits, given as (ansatz, circuit, number of evaluations), need for one image; None without any.

    `blocks` is how many layers of circuits follow one another. `accuracy` and its error are as in `shots_for`.
    """
    counts: Counter[tuple[str, Circuit]] = Counter()
    for ansatz, circuit, count in evaluations:
        counts[ansatz, circuit] += count
    each = shots_for(accuracy)
    kinds = tuple(circuit_cost(ansatz, circuit, count) for (ansatz, circuit), count in counts.items())
    if not kinds:
        return None
    gates: Counter[str] = Counter()
    for kind in kinds:
        gates.update({name: kind.circuits * count for name, count in kind.gates.items()})
    circuits, depth = sum(kind.circuits for kind in kinds), max(kind.depth for kind in kinds)
    return HardwareCost(
        circuits=circuits,
        qubits=max(kind.qubits for kind in kinds),
        shots_per_circuit=each,
        shots=circuits * each,
        gates=dict(gates),
        two_qubit_gates=sum(kind.circuits * kind.two_qubit_gates for kind in kinds),
        depth=depth,
        depth_in_sequence=blocks * depth,
        kinds=kinds,
    )


def circuit_cost(ansatz: str, circuit: Circuit, evaluations: int) -> CircuitCost:
    """Return the cost of one circuit that is evaluated `evaluations` times."""
    settings = measurement_settings(circuit.observables)
    return CircuitCost(
        ansatz=ansatz,
        qubits=circuit.n_wires,
        amplitudes=len(circuit.amplitudes),
        evaluations=evaluations,
        settings=settings,
        circuits=evaluations * settings,
        gates=dict(Counter(gate.name for gate in circuit.gates)),
        two_qubit_gates=sum(len(_acts_on(gate)) > 1 for gate in circuit.gates),
        depth=circuit_depth(circuit),
    )


def circuit_depth(circuit: Circuit) -> int:
    """Return how many layers of gates the circuit has if every gate comes as soon as possible.

    A gate goes into the first layer after the last gate on any of its wires, so the depth is the length of the longest
    path of gates along wires. Every gate counts as one layer, rotations on several wires too.
    """
    layers = [0] * circuit.n_wires
    for gate in circuit.gates:
        wires = _acts_on(gate)
        after = 1 + max(layers[wire] for wire in wires)
        for wire in wires:
            layers[wire] = after
    return max(layers)


def measurement_settings(observables: Sequence[Pauli]) -> int:
    """Return in how many ways the qubits have to be measured to read all observables.

    Observables share one if no qubit has to be measured in two of X, Y and Z (qubit-wise commuting): any number of ⟨Zᵢ⟩
    and their products take one. Each goes to the first group that it fits; that may not give the fewest groups, which
    are hard to find (Verteletskyi et al. 2020, arXiv:1907.03358). The identity needs no measurement.
    """
    groups: list[tuple[int, int]] = []  # which qubits are measured in X or Y, and in Z or Y
    for pauli in observables:
        if not pauli.support:
            continue
        for place, (x, z) in enumerate(groups):
            shared = (x | z) & pauli.support
            if not ((x ^ pauli.x) | (z ^ pauli.z)) & shared:
                groups[place] = (x | pauli.x, z | pauli.z)
                break
        else:
            groups.append((pauli.x, pauli.z))
    return len(groups)


def shots_for(accuracy: float) -> int:
    """Return how many shots keep the standard deviation of any Pauli string's ⟨P⟩ within `accuracy`.

    A mean of S outcomes ±1 has the variance (1 − ⟨P⟩²)/S, at most 1/S, so S = ⌈1/accuracy²⌉: 10,000 for 0.01.
    Raises `ConfigError` for an accuracy outside (0, 1].
    """
    if not 0.0 < accuracy <= 1.0:
        raise ConfigError(f"The accuracy of expectation values must be in (0, 1], got {accuracy}.")
    return math.ceil(1 / Fraction(str(float(accuracy))) ** 2)  # 0.1 as it is written gives 100


def _acts_on(gate: Gate) -> tuple[int, ...]:
    """Return the wires of a gate without those on which the word of a PauliRot has an I."""
    return tuple(wire for place, wire in enumerate(gate.wires) if not gate.word or gate.word[place] != "I")
