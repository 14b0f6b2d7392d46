"""The oracle: every gate as a full 2ⁿ × 2ⁿ matrix in complex128, one after another.

Slow and plain on purpose; it shares no code with the engines that are checked against it.
"""

from functools import reduce

import numpy as np
from jaxtyping import Float

from qvit.quantum.circuit import Angle, Circuit, Gate

_I = np.eye(2)
_X = np.array([[0, 1], [1, 0]])
_Y = np.array([[0, -1j], [1j, 0]])
_Z = np.diag([1, -1])
_ONE_WIRE = {
    "H": (_X + _Z) / np.sqrt(2),
    "X": _X,
    "Y": _Y,
    "Z": _Z,
    "S": np.diag([1, 1j]),
    "T": np.diag([1, np.exp(1j * np.pi / 4)]),
}
_PAULI = {"RX": _X, "RY": _Y, "RZ": _Z}


def _kron(factors: dict[int, np.ndarray], n: int) -> np.ndarray:
    """Return the tensor product over n wires with `factors` on the wires named and identities elsewhere."""
    return reduce(np.kron, [factors.get(wire, _I) for wire in range(n)])


def _angle(angle: Angle, x: np.ndarray, w: np.ndarray) -> float:
    return (
        sum(coefficient * x[i] for i, coefficient in angle.inputs)
        + sum(coefficient * w[k] for k, coefficient in angle.weights)
        + angle.constant
    )


def gate_matrix(gate: Gate, n: int, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the 2ⁿ × 2ⁿ matrix of one gate for inputs `x` and flat weights `w`."""
    if gate.angle is not None:
        theta, pauli = _angle(gate.angle, x, w), _kron({gate.wires[0]: _PAULI[gate.name]}, n)
        return np.cos(theta / 2) * np.eye(2**n) - 1j * np.sin(theta / 2) * pauli
    if gate.name in _ONE_WIRE:
        return _kron({gate.wires[0]: _ONE_WIRE[gate.name]}, n)
    a, b = gate.wires
    if gate.name == "SWAP":
        return np.sum([_kron({a: p, b: p}, n) for p in (_I, _X, _Y, _Z)], axis=0) / 2
    zero, one = np.diag([1, 0]), np.diag([0, 1])
    return _kron({a: zero}, n) + _kron({a: one, b: {"CNOT": _X, "CZ": _Z}[gate.name]}, n)


def expectations(circuit: Circuit, x: Float[np.ndarray, " i"], w: Float[np.ndarray, " k"]) -> Float[np.ndarray, " o"]:
    """Return the expectation value of each observable for one input vector and one flat weight vector."""
    n = circuit.n_wires
    state = np.zeros(2**n, dtype=np.complex128)
    state[0] = 1
    for gate in circuit.gates:
        state = gate_matrix(gate, n, x, w) @ state
    observables = [_kron(dict.fromkeys(wires, _Z), n) for wires in circuit.observables]
    return np.array([np.vdot(state, observable @ state).real for observable in observables])
