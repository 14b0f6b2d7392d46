"""Named circuits: how features are loaded, which trainable gates act, what is read out."""

from collections.abc import Callable
from dataclasses import dataclass

from qvit.errors import CircuitError, nearest
from qvit.quantum.circuit import Circuit, Gate, ring, w, x


@dataclass(frozen=True)
class Ansatz:
    """One named family of circuits on n wires and L layers, n features in and n values ⟨Zᵢ⟩ out.

    `weight_shape(n, L)` is the shape of its weights; `build(n, L)` its circuit over the flattened weights.
    """

    name: str
    weight_shape: Callable[[int, int], tuple[int, ...]]
    build: Callable[[int, int], Circuit]


def _encode(gate: str, n: int) -> tuple[Gate, ...]:
    return tuple(Gate(gate, (i,), x(i)) for i in range(n))


def _rotate(gate: str, n: int, first: int, *, stride: int = 1) -> tuple[Gate, ...]:
    return tuple(Gate(gate, (i,), w(first + stride * i)) for i in range(n))


def _ring_family(encoding: str, rotation: str) -> Callable[[int, int], Circuit]:
    """Return the builder of: encoding(x); L × [rotation(w), CNOT ring]."""

    def build(n: int, n_layers: int) -> Circuit:
        gates = _encode(encoding, n)
        for layer in range(n_layers):
            gates += _rotate(rotation, n, layer * n) + ring(range(n))
        return Circuit(n, n, n_layers * n, gates)

    return build


def _no_entangler(n: int, n_layers: int) -> Circuit:
    gates = _encode("RY", n)
    for layer in range(n_layers):
        gates += _rotate("RY", n, layer * n)
    return Circuit(n, n, n_layers * n, gates)


def _strongly_entangling(n: int, n_layers: int) -> Circuit:
    """Return the circuit of Schuld et al. 2018 (arXiv:1804.00633) with PennyLane's cycle of CNOT ranges.

    The last layer's final RZ, n weights, only turns phases that ⟨Z⟩ cannot see; it is kept as the source has it.
    """
    gates = _encode("RY", n)
    for layer in range(n_layers):
        first = 3 * n * layer
        for offset, rotation in enumerate(("RZ", "RY", "RZ")):
            gates += _rotate(rotation, n, first + offset, stride=3)
        gates += ring(range(n), reach=layer % (n - 1) + 1) if n > 1 else ()
    return Circuit(n, n, 3 * n * n_layers, gates)


def _reupload(n: int, n_layers: int) -> Circuit:
    """Return data re-uploading (Pérez-Salinas et al. 2020, arXiv:1907.02085) with a CNOT ring per layer.

    The last layer's RZ, n weights, only turns phases that ⟨Z⟩ cannot see; they matter from two layers on.
    """
    gates: tuple[Gate, ...] = ()
    for layer in range(n_layers):
        first = 2 * n * layer
        gates += _encode("RY", n)
        for offset, rotation in enumerate(("RY", "RZ")):
            gates += _rotate(rotation, n, first + offset, stride=2)
        gates += ring(range(n))
    return Circuit(n, n, 2 * n * n_layers, gates)


ANSATZE: dict[str, Ansatz] = {
    ansatz.name: ansatz
    for ansatz in (
        Ansatz("ry_ring", lambda n, layers: (layers, n), _ring_family("RY", "RY")),
        Ansatz("rx_ring", lambda n, layers: (layers, n), _ring_family("RX", "RX")),
        Ansatz("basic_entangler", lambda n, layers: (layers, n), _ring_family("RY", "RX")),
        Ansatz("strongly_entangling", lambda n, layers: (layers, n, 3), _strongly_entangling),
        Ansatz("reupload", lambda n, layers: (layers, n, 2), _reupload),
        Ansatz("no_entangler", lambda n, layers: (layers, n), _no_entangler),
    )
}


def get_ansatz(name: str) -> Ansatz:
    """Return the ansatz called `name`; raises `CircuitError` with the nearest name if there is none."""
    if name not in ANSATZE:
        raise CircuitError(f"There is no ansatz '{name}'.{nearest(name, ANSATZE)} Known ansätze: {', '.join(ANSATZE)}.")
    return ANSATZE[name]
