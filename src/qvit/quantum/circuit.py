"""Circuits as values: gates, angles that are linear in inputs and weights, products of Pauli-Z as outputs.

A circuit starts in |0…0⟩. Wire 0 is the most significant bit of a basis state, as in PennyLane.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qvit.errors import CircuitError, nearest

ROTATIONS = ("RX", "RY", "RZ")
FIXED = ("H", "X", "Y", "Z", "S", "T")
ENTANGLERS = ("CNOT", "CZ", "SWAP")
GATE_WIRES = dict.fromkeys(ROTATIONS + FIXED, 1) | dict.fromkeys(ENTANGLERS, 2)

Terms = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Angle:
    """A rotation angle in radians, θ = Σ aᵢ·xᵢ + Σ bₖ·wₖ + c.

    `inputs` and `weights` hold (index, coefficient) pairs; `constant` is c.
    """

    inputs: Terms = ()
    weights: Terms = ()
    constant: float = 0.0

    def __add__(self, other: "Angle") -> "Angle":
        return Angle(self.inputs + other.inputs, self.weights + other.weights, self.constant + other.constant)


def x(index: int) -> Angle:
    """Return the angle that is input feature `index` itself."""
    return Angle(inputs=((index, 1.0),))


def w(index: int) -> Angle:
    """Return the angle that is weight `index` itself."""
    return Angle(weights=((index, 1.0),))


@dataclass(frozen=True)
class Gate:
    """One gate: its name (a key of `GATE_WIRES`), the wires it acts on, and an angle for a rotation.

    A rotation is exp(−iθP/2). A CNOT's first wire is the control.
    """

    name: str
    wires: tuple[int, ...]
    angle: Angle | None = None


@dataclass(frozen=True)
class Circuit:
    """An immutable circuit from (`n_inputs`, `n_weights`) numbers to one expectation value per observable.

    `observables` are tuples of wires; each stands for the product of Pauli-Z on those wires.
    The default is ⟨Z⟩ of every wire. Raises `CircuitError` for a gate, wire or index that does not exist.
    """

    n_wires: int
    n_inputs: int
    n_weights: int
    gates: tuple[Gate, ...]
    observables: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.n_wires < 1:
            raise CircuitError(f"A circuit needs at least one wire, got {self.n_wires}.")
        if not self.observables:
            object.__setattr__(self, "observables", tuple((wire,) for wire in range(self.n_wires)))
        for gate in self.gates:
            self._check_gate(gate)
        for wires in self.observables:
            self._check_wires("An observable", wires)

    @cached_property
    def _hash(self) -> int:
        return hash((self.n_wires, self.n_inputs, self.n_weights, self.gates, self.observables))

    def __hash__(self) -> int:
        return self._hash  # engines look plans up by circuit at every call; walk the gates only once

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        # Hashes of strings differ between processes, so the cached one must not travel.
        return Circuit, (self.n_wires, self.n_inputs, self.n_weights, self.gates, self.observables)

    def _check_gate(self, gate: Gate) -> None:
        if gate.name not in GATE_WIRES:
            raise CircuitError(
                f"There is no gate '{gate.name}'.{nearest(gate.name, GATE_WIRES)} Known gates: {', '.join(GATE_WIRES)}."
            )
        if len(gate.wires) != GATE_WIRES[gate.name]:
            raise CircuitError(f"{gate.name} acts on {GATE_WIRES[gate.name]} wire(s), got {gate.wires}.")
        self._check_wires(gate.name, gate.wires)
        if (gate.angle is not None) != (gate.name in ROTATIONS):
            raise CircuitError(f"{gate.name} {'needs an' if gate.angle is None else 'takes no'} angle.")
        if gate.angle is not None:
            self._check_index("input", gate.angle.inputs, self.n_inputs)
            self._check_index("weight", gate.angle.weights, self.n_weights)

    def _check_wires(self, what: str, wires: tuple[int, ...]) -> None:
        in_range = all(0 <= wire < self.n_wires for wire in wires)
        if not wires or len(set(wires)) != len(wires) or not in_range:
            raise CircuitError(f"{what} acts on wires {wires}; expected distinct wires from 0 to {self.n_wires - 1}.")

    @staticmethod
    def _check_index(kind: str, terms: Terms, count: int) -> None:
        for index, _ in terms:
            if not 0 <= index < count:
                raise CircuitError(f"An angle uses {kind} {index}; this circuit has {count} {kind}(s).")


def ring(wires: Sequence[int], *, reach: int = 1) -> tuple[Gate, ...]:
    """Return CNOTs from each wire to the one `reach` further on, round the ring; none for a single wire."""
    n = len(wires)
    if n < 2:
        return ()
    return tuple(Gate("CNOT", (wires[i], wires[(i + reach) % n])) for i in range(n))
