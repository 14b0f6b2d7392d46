"""Circuits as values: gates, angles that are linear in inputs and weights, Pauli strings as outputs.

A circuit starts in |0…0⟩, or in a state whose amplitudes are its inputs. Wire 0 is the most significant bit of a
basis state, as in PennyLane.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

from qvit.errors import CircuitError, nearest
from qvit.files import shown
from qvit.quantum.limits import (
    MOST_GATES,
    MOST_NUMBERS,
    MOST_OBSERVABLES,
    MOST_STATES,
    MOST_WIRES,
    series,
    whole,
)
from qvit.quantum.pauli import Pauli, Z

ROTATIONS = ("RX", "RY", "RZ", "RXX", "RYY", "RZZ", "CRX", "CRY", "CRZ", "RBS", "PauliRot")
FIXED = ("H", "X", "Y", "Z", "S", "T")
ENTANGLERS = ("CNOT", "CZ", "SWAP")
GATE_WIRES = (
    dict.fromkeys(("RX", "RY", "RZ", *FIXED), 1)
    | dict.fromkeys(("RXX", "RYY", "RZZ", "CRX", "CRY", "CRZ", "RBS", *ENTANGLERS), 2)
    | {"PauliRot": 0}  # one per letter of its word
)

Terms = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Angle:
    """A rotation angle in radians, θ = Σ aᵢ·xᵢ + Σ bₖ·wₖ + c.

    `inputs` and `weights` hold (index, coefficient) pairs; `constant` is c. Angles add, and multiply with numbers:
    `2 * x(0) + w(1) + 0.5`.
    """

    inputs: Terms = ()
    weights: Terms = ()
    constant: float = 0.0

    def __post_init__(self) -> None:
        for name, terms in (("inputs", self.inputs), ("weights", self.weights)):
            object.__setattr__(self, name, _sum(name, terms))
        numbers = [self.constant, *(factor for _, factor in self.inputs + self.weights)]
        if not all(map(_finite, numbers)):
            raise CircuitError(f"An angle needs finite numbers, got {numbers!r:.80}.")
        object.__setattr__(self, "constant", float(self.constant))

    def __add__(self, other: "Angle | float") -> "Angle":
        if not isinstance(other, Angle):
            other = Angle(constant=float(other))
        return Angle(self.inputs + other.inputs, self.weights + other.weights, self.constant + other.constant)

    __radd__ = __add__

    def __mul__(self, factor: float) -> "Angle":
        inputs, weights = (
            tuple((index, factor * coefficient) for index, coefficient in terms)
            for terms in (self.inputs, self.weights)
        )
        return Angle(inputs, weights, factor * self.constant)

    __rmul__ = __mul__

    def __neg__(self) -> "Angle":
        return self * -1.0

    def __sub__(self, other: "Angle | float") -> "Angle":
        return self + -other

    def __rsub__(self, other: float) -> "Angle":
        return -self + other

    def __truediv__(self, divisor: float) -> "Angle":
        return self * (1.0 / divisor)

    def __str__(self) -> str:
        names = [(f"x{i}", a) for i, a in self.inputs] + [(f"w{k}", b) for k, b in self.weights]
        text = ""
        for name, factor in [*names, ("", self.constant)] if self.constant or not names else names:
            size = f"{abs(factor):.4g}"
            shown = size if not name else name if size == "1" else f"{size}·{name}"
            text += (("-" if factor < 0 else "") if not text else (" - " if factor < 0 else " + ")) + shown
        return text


def _finite(number: Any) -> bool:
    if type(number) is float:  # the usual case, and quick
        return math.isfinite(number)
    try:
        return isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _sum(name: str, terms: Terms) -> Terms:
    """Return one term per index, in ascending order, without zero coefficients."""
    sums: dict[int, float] = {}
    for term in series(f"The {name} of an angle", terms, most=MOST_NUMBERS):
        if not isinstance(term, tuple | list) or len(term) != 2 or not _finite(term[1]):
            raise CircuitError(f"An angle needs pairs of an index and a finite number, got {term!r:.80}.")
        index = whole("An index of an angle", term[0], least=-MOST_NUMBERS, most=MOST_NUMBERS)
        sums[index] = sums.get(index, 0.0) + term[1]
    return tuple((index, sums[index]) for index in sorted(sums) if sums[index] != 0.0)


def x(index: int) -> Angle:
    """Return the angle that is input feature `index` itself."""
    return Angle(inputs=((index, 1.0),))


def w(index: int) -> Angle:
    """Return the angle that is weight `index` itself."""
    return Angle(weights=((index, 1.0),))


@dataclass(frozen=True)
class Gate:
    """One gate: its name (a key of `GATE_WIRES`), the wires it acts on, and an angle for a rotation.

    A rotation is exp(−iθP/2): P is X for RX, XX for RXX, and `word` for PauliRot, one letter per wire. The first wire
    of a CNOT or a controlled rotation is the control. RBS(θ) is the reconfigurable beam splitter of Cherrat et al.
    2024: |10⟩ ↦ cos θ|10⟩ + sin θ|01⟩, |01⟩ ↦ cos θ|01⟩ − sin θ|10⟩, nothing else moves.
    """

    name: str
    wires: tuple[int, ...]
    angle: Angle | None = None
    word: str = ""

    def __post_init__(self) -> None:
        wires = series("The wires of a gate", self.wires, most=MOST_WIRES)
        object.__setattr__(
            self, "wires", tuple(whole("A wire", wire, least=-MOST_WIRES, most=MOST_WIRES - 1) for wire in wires)
        )
        if not isinstance(self.name, str) or not isinstance(self.word, str):
            raise CircuitError(f"Gates have names and words of letters, got {self.name!r:.80} and {self.word!r:.80}.")
        if self.angle is not None and not isinstance(self.angle, Angle):
            raise CircuitError(f"The angle of {shown(self.name)} must be an Angle such as w(0) or Angle(constant=0.5).")


@dataclass(frozen=True)
class Circuit:
    """An immutable circuit that maps inputs and weights to one expectation value per observable.

    `observables` are Pauli strings; the default is ⟨Z⟩ of every wire. With `amplitudes` the circuit does not start
    in |0…0⟩ but in the state with amplitude xᵢ/‖x‖ at basis state `amplitudes[i]`, over the first inputs (amplitude
    encoding); all-zero inputs give the zero state, whose expectation values are 0.
    Raises `CircuitError` for a gate, wire, index or basis state that does not exist.
    """

    n_wires: int
    n_inputs: int
    n_weights: int
    gates: tuple[Gate, ...]
    observables: tuple[Pauli, ...] = ()
    amplitudes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Convert to Python's own numbers: NumPy's overflow in 2ⁿ and cannot count bits.
        wires = whole("The number of wires of a circuit", self.n_wires, least=1, most=MOST_WIRES)
        object.__setattr__(self, "n_wires", wires)
        for name in ("n_inputs", "n_weights"):
            number = whole(f"{name} of a circuit", getattr(self, name), least=0, most=MOST_NUMBERS)
            object.__setattr__(self, name, number)
        for name, kind, most in (
            ("gates", Gate, MOST_GATES),
            ("observables", Pauli, MOST_OBSERVABLES),
            ("amplitudes", Integral, MOST_STATES),
        ):
            values = series(f"The {name} of a circuit", getattr(self, name), most=most)
            for value in values:
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise CircuitError(f"The {name} of a circuit cannot hold {value!r:.80}.")
            object.__setattr__(self, name, tuple(map(int, values)) if kind is Integral else values)
        if not self.observables:
            object.__setattr__(self, "observables", tuple(map(Z, range(self.n_wires))))
        for gate in self.gates:
            self._check_gate(gate)
        for observable in self.observables:
            if observable.support:  # the identity has no wires, and the value 1
                self._check_wires("An observable", observable.wires)
        self._check_amplitudes()

    @cached_property
    def _hash(self) -> int:
        return hash((self.n_wires, self.n_inputs, self.n_weights, self.gates, self.observables, self.amplitudes))

    def __hash__(self) -> int:
        return self._hash  # engines look plans up by circuit at every call; walk the gates only once

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        # Hashes of strings differ between processes, so the cached one must not travel.
        return Circuit, (self.n_wires, self.n_inputs, self.n_weights, self.gates, self.observables, self.amplitudes)

    def _check_gate(self, gate: Gate) -> None:
        if gate.name not in GATE_WIRES:
            raise CircuitError(
                f"There is no gate '{shown(gate.name)}'.{nearest(gate.name, GATE_WIRES)} "
                f"Known gates: {', '.join(GATE_WIRES)}."
            )
        if gate.word and gate.name != "PauliRot":
            raise CircuitError(f"{gate.name} takes no Pauli word; PauliRot does.")
        if gate.name == "PauliRot" and (not gate.word or not Pauli.of(gate.word, gate.wires).support):
            raise CircuitError("PauliRot needs a Pauli word with a letter per wire, at least one of them X, Y or Z.")
        if len(gate.wires) != (GATE_WIRES[gate.name] or len(gate.word)):
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

    def _check_amplitudes(self) -> None:
        states = self.amplitudes
        if len(states) > self.n_inputs or len(set(states)) != len(states):
            raise CircuitError(
                f"Amplitude encoding names {len(states)} basis states, {len(set(states))} of them distinct, for "
                f"{self.n_inputs} input(s); it needs distinct states and an input for each."
            )
        if any(not 0 <= state < 2**self.n_wires for state in states):
            last = str(2**self.n_wires - 1) if self.n_wires <= 20 else f"2^{self.n_wires} - 1"
            raise CircuitError(f"Basis states of {self.n_wires} wire(s) go from 0 to {last}.")

    @staticmethod
    def _check_index(kind: str, terms: Terms, count: int) -> None:
        for index, _ in terms:
            if not 0 <= index < count:
                raise CircuitError(f"An angle uses {kind} {index}; this circuit has {count} {kind}(s).")


class CircuitBuilder:
    """Collects gates one call at a time; `build()` gives the circuit.

    >>> circuit = CircuitBuilder(2).add("RY", 0, angle=x(0)).add("CNOT", 0, 1).measure(Z(1)).build()

    The numbers of inputs and weights follow from the indices that the angles use.
    """

    def __init__(self, n_wires: int) -> None:
        self.n_wires = n_wires
        self._gates: list[Gate] = []
        self._observables: list[Pauli] = []
        self._amplitudes: tuple[int, ...] = ()

    def add(self, name: str, *wires: int, angle: Angle | float | None = None, word: str = "") -> "CircuitBuilder":
        """Append a gate; a number as `angle` is a constant, in radians."""
        if angle is not None and not isinstance(angle, Angle):
            angle = Angle(constant=float(angle))
        self._gates.append(Gate(name, wires, angle, word))
        return self

    def extend(self, gates: Sequence[Gate]) -> "CircuitBuilder":
        """Append gates."""
        self._gates.extend(gates)
        return self

    def load_amplitudes(self, *basis_states: int) -> "CircuitBuilder":
        """Start in the state with amplitude xᵢ/‖x‖ at `basis_states[i]`."""
        self._amplitudes = basis_states
        return self

    def measure(self, *observables: Pauli) -> "CircuitBuilder":
        """Append observables; without any, ⟨Z⟩ of every wire is read out."""
        self._observables.extend(observables)
        return self

    def build(self) -> Circuit:
        """Return the circuit; raises `CircuitError` as `Circuit` does."""
        angles = [gate.angle for gate in self._gates if gate.angle is not None]
        n_inputs = max([i + 1 for angle in angles for i, _ in angle.inputs], default=0)
        n_weights = max([k + 1 for angle in angles for k, _ in angle.weights], default=0)
        return Circuit(
            self.n_wires,
            max(n_inputs, len(self._amplitudes)),
            n_weights,
            tuple(self._gates),
            tuple(self._observables),
            self._amplitudes,
        )


def ring(wires: Sequence[int], *, reach: int = 1) -> tuple[Gate, ...]:
    """Return CNOTs from each wire to the one `reach` further on, round the ring; none for a single wire."""
    n = len(wires)
    if n < 2:
        return ()
    return tuple(Gate("CNOT", (wires[i], wires[(i + reach) % n])) for i in range(n))
