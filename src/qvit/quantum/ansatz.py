"""Named circuits: how features are loaded, which trainable gates act, what is read out.

`register_ansatz` adds your own; every name works wherever an ansatz is asked for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from qvit.errors import CircuitError, nearest
from qvit.files import shown
from qvit.quantum.circuit import Circuit, Gate, ring, w, x
from qvit.quantum.limits import MOST_GATES, MOST_LAYERS, MOST_WIRES, whole
from qvit.quantum.pauli import Z


@dataclass(frozen=True, eq=False)
class Ansatz:
    """One named family of circuits on n wires and L layers.

    `weight_shape(n, L)` is the shape of the weights; `build(n, L)` is the circuit over the flattened weights, the same
    at every call. Most circuits map n features to n values ⟨Zᵢ⟩; each says how many it has. `source` says where the
    family comes from.
    """

    name: str
    weight_shape: Callable[[int, int], tuple[int, ...]]
    build: Callable[[int, int], Circuit]
    source: str = ""


def angle_encoding(n: int, rotations: Sequence[str] = ("RY",), *, hadamard: bool = False) -> tuple[Gate, ...]:
    """Return gates that load len(rotations)·n features: rotation k of wire i takes feature k·n + i.

    `hadamard` puts an H on every wire first; with RX next, features then enter as a global phase only.
    """
    gates = [Gate("H", (i,)) for i in range(n)] if hadamard else []
    gates += [Gate(name, (i,), x(k * n + i)) for k, name in enumerate(rotations) for i in range(n)]
    return tuple(gates)


def rotation_layer(n: int, rotations: Sequence[str], first: int = 0) -> tuple[Gate, ...]:
    """Return trainable rotations on every wire: rotation k of wire i takes weight first + i·len(rotations) + k."""
    size = len(rotations)
    return tuple(Gate(name, (i,), w(first + size * i + k)) for k, name in enumerate(rotations) for i in range(n))


def _layers(
    encoding: Sequence[str], rotations: Sequence[str], *, entangled: bool = True
) -> Callable[[int, int], Circuit]:
    """Return the builder of: encoding(x); L × [rotations(w), CNOT ring]."""

    def build(n: int, n_layers: int) -> Circuit:
        size = len(rotations) * n
        gates = angle_encoding(n, encoding)
        for layer in range(n_layers):
            gates += rotation_layer(n, rotations, layer * size) + (ring(range(n)) if entangled else ())
        return Circuit(n, len(encoding) * n, n_layers * size, gates)

    return build


def _strongly_entangling(n: int, n_layers: int) -> Circuit:
    """Return RY(x); L × [RZ, RY, RZ(w), CNOTs]; ⟨Z⟩ cannot see the last RZ, n weights, kept as in the source."""
    gates = angle_encoding(n)
    for layer in range(n_layers):
        gates += rotation_layer(n, ("RZ", "RY", "RZ"), 3 * n * layer)
        gates += ring(range(n), reach=layer % (n - 1) + 1) if n > 1 else ()
    return Circuit(n, n, 3 * n * n_layers, gates)


def _reupload(n: int, n_layers: int) -> Circuit:
    """Return L × [RY(x), RY and RZ(w), CNOT ring]; ⟨Z⟩ cannot see the last layer's RZ, n weights."""
    gates: tuple[Gate, ...] = ()
    for layer in range(n_layers):
        gates += angle_encoding(n) + rotation_layer(n, ("RY", "RZ"), 2 * n * layer) + ring(range(n))
    return Circuit(n, n, 2 * n * n_layers, gates)


def _amplitude_ring(n: int, n_layers: int) -> Circuit:
    if n > 20:
        raise CircuitError(f"amplitude_ring takes 2ⁿ features, n up to 20, got n={n}.")
    gates: tuple[Gate, ...] = ()
    for layer in range(n_layers):
        gates += rotation_layer(n, ("RY",), layer * n) + ring(range(n))
    return Circuit(n, 2**n, n_layers * n, gates, (), tuple(range(2**n)))


def _unlu_gates(n: int, n_layers: int) -> tuple[Gate, ...]:
    """Return RX(x); L × [RX and RY(w), ring, RY(w)]; the source has H·RX(x), with which no output depends on x."""
    gates = angle_encoding(n, ("RX",))
    for layer in range(n_layers):
        first = 3 * n * layer
        gates += rotation_layer(n, ("RX", "RY"), first) + ring(range(n)) + rotation_layer(n, ("RY",), first + 2 * n)
    return gates


def _unlu_v(n: int, n_layers: int) -> Circuit:
    return Circuit(n, n, 3 * n * n_layers, _unlu_gates(n, n_layers))


def _unlu_qk(n: int, n_layers: int) -> Circuit:
    last = 3 * n * n_layers
    gates = (*_unlu_gates(n, n_layers), *ring(range(n)), Gate("RY", (0,), w(last)))
    return Circuit(n, n, last + 1, gates, (Z(0),))


@lru_cache(maxsize=64)  # so that a family has one, by which its circuits are kept
def with_pairs(ansatz: Ansatz) -> Ansatz:
    """Return the same family read out further: after its own n values ⟨Zᵢ⟩ all n(n−1)/2 ⟨ZᵢZⱼ⟩, i < j."""

    def build(n: int, n_layers: int) -> Circuit:
        circuit = ansatz.build(n, n_layers)
        pairs = tuple(Z(i) @ Z(j) for i in range(n) for j in range(i + 1, n))
        return replace(circuit, observables=circuit.observables + pairs)

    return replace(ansatz, name=f"{ansatz.name}+zz", build=build)


def _pyramid_pairs(n: int) -> list[tuple[int, int]]:
    """Return n(n−1)/2 pairs of neighbouring wires, in the order of the pyramid's steps."""
    return [(i, i + 1) for t in range(2 * n - 3) for i in range(t % 2, min(t, 2 * n - 4 - t) + 1, 2)]


def _butterfly_pairs(n: int) -> list[tuple[int, int]]:
    """Return (n/2)·log₂ n pairs of wires, with the strides n/2, n/4, …, 1."""
    if n & (n - 1) or n < 2:
        raise CircuitError(f"The butterfly network needs 2, 4, 8, … wires, got {n}; pyramid and x take any number.")
    strides = [n >> k for k in range(1, n.bit_length())]
    return [(i, i + s) for s in strides for i in range(n) if not i & s]


def _x_pairs(n: int) -> list[tuple[int, int]]:
    """Return 2n − 3 pairs of neighbouring wires along two diagonals, which share the pair where they cross."""
    pairs: list[tuple[int, int]] = []
    for t in range(n - 1):
        pairs.append((t, t + 1))
        mirrored = (n - 2 - t, n - 1 - t)
        if mirrored != (t, t + 1) and not (n % 2 and t == n // 2):
            pairs.append(mirrored)
    return pairs


ORTHOGONAL_NETWORKS: dict[str, Callable[[int], list[tuple[int, int]]]] = {
    "pyramid": _pyramid_pairs,
    "butterfly": _butterfly_pairs,
    "x": _x_pairs,
}


def _orthogonal(network: str) -> Ansatz:
    """Return a network of RBS gates on a unary state: an orthogonal n × n matrix W, read out as 1 − 2(Wx/‖x‖)ᵢ²."""
    pairs = ORTHOGONAL_NETWORKS[network]

    def shape(n: int, n_layers: int) -> tuple[int, ...]:
        return n_layers, len(pairs(n))

    def build(n: int, n_layers: int) -> Circuit:
        if n < 2:
            raise CircuitError(f"An orthogonal network needs at least two wires, got {n}.")
        gates = tuple(Gate("RBS", wires, w(k)) for k, wires in enumerate(pairs(n) * n_layers))
        return Circuit(n, n, len(gates), gates, (), tuple(1 << (n - 1 - i) for i in range(n)))

    return Ansatz(network, shape, build, "Cherrat et al. 2024, arXiv:2209.08167")


def _square(n: int, n_layers: int) -> tuple[int, ...]:
    return n_layers, n


ANSATZE: dict[str, Ansatz] = {
    ansatz.name: ansatz
    for ansatz in (
        Ansatz("ry_ring", _square, _layers(("RY",), ("RY",)), "Boucher et al. 2025, arXiv:2503.07294"),
        Ansatz("rx_ring", _square, _layers(("RX",), ("RX",)), "Di Sipio et al. 2022, arXiv:2110.06510"),
        Ansatz("basic_entangler", _square, _layers(("RY",), ("RX",)), "PennyLane's BasicEntanglerLayers"),
        Ansatz(
            "strongly_entangling",
            lambda n, layers: (layers, n, 3),
            _strongly_entangling,
            "Schuld et al. 2018, arXiv:1804.00633",
        ),
        Ansatz("reupload", lambda n, layers: (layers, n, 2), _reupload, "Pérez-Salinas et al. 2020, arXiv:1907.02085"),
        Ansatz("dense_ring", _square, _layers(("RY", "RZ"), ("RY",)), "two features per wire"),
        Ansatz("amplitude_ring", _square, _amplitude_ring, "2ⁿ features as amplitudes"),
        Ansatz("unlu_v", lambda n, layers: (layers * 3 * n,), _unlu_v, "Unlu et al. 2024, arXiv:2402.00776"),
        Ansatz("unlu_qk", lambda n, layers: (layers * 3 * n + 1,), _unlu_qk, "Unlu et al. 2024, arXiv:2402.00776"),
        Ansatz("no_entangler", _square, _layers(("RY",), ("RY",), entangled=False), "control: ry_ring without CNOTs"),
        *map(_orthogonal, ORTHOGONAL_NETWORKS),
    )
}


def register_ansatz(ansatz: Ansatz, *, replace: bool = False) -> Ansatz:
    """Register an ansatz of your own under its name, and return it.

    Raises `CircuitError` for a name that is taken (unless `replace`), or if `build(2, 1)` is not a circuit with the
    number of weights of `weight_shape(2, 1)`.
    """
    if ansatz.name in ANSATZE and not replace:
        raise CircuitError(f"There is an ansatz '{ansatz.name}' already; choose another name or pass replace=True.")
    build_circuit(ansatz, 2, 1)
    ANSATZE[ansatz.name] = ansatz
    return ansatz


def get_ansatz(name: str) -> Ansatz:
    """Return the ansatz called `name`; raises `CircuitError` with the nearest name if there is none."""
    if not isinstance(name, str) or name not in ANSATZE:
        raise CircuitError(
            f"There is no ansatz '{shown(str(name))}'.{nearest(name, ANSATZE)} Known ansätze: {', '.join(ANSATZE)}."
        )
    return ANSATZE[name]


@lru_cache(maxsize=16)  # a model asks for each of its circuits several times
def _built(ansatz: Ansatz, n: int, n_layers: int) -> Circuit:
    return ansatz.build(n, n_layers)


def build_circuit(ansatz: Ansatz, n: int, n_layers: int) -> Circuit:
    """Return an ansatz's circuit; raises `CircuitError` if its number of weights is not that of `weight_shape`."""
    n = whole("The number of qubits", n, least=1, most=MOST_WIRES)
    n_layers = whole("The number of layers", n_layers, least=1, most=MOST_LAYERS)
    count = math.prod(ansatz.weight_shape(n, n_layers))
    if count > MOST_GATES:
        raise CircuitError(
            f"The ansatz '{ansatz.name}' would have {count:,} weights on {n} wires in {n_layers} layer(s); "
            f"circuits have at most {MOST_GATES:,} gates."
        )
    circuit = _built(ansatz, n, n_layers)
    if not isinstance(circuit, Circuit) or circuit.n_weights != count:
        have = circuit.n_weights if isinstance(circuit, Circuit) else f"a {type(circuit).__name__}"
        raise CircuitError(
            f"The ansatz '{ansatz.name}' says that {n} wires and {n_layers} layer(s) have {count} weights, but builds "
            f"{have}."
        )
    return circuit
