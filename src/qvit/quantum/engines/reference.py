"""The oracle: every gate as a full 2ⁿ × 2ⁿ matrix in complex128, one after another.

Slow and plain on purpose; it shares no code with the engines that are checked against it.
"""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from qvit.errors import CircuitError
from qvit.quantum.circuit import Angle, Circuit, Gate
from qvit.quantum.engines.engine import Engine, Forecast, Prices

MAX_WIRES = 11
MOST_ELEMENTS = 2**26  # a gibibyte
_C = torch.complex128
_I = torch.eye(2, dtype=_C)
_X = torch.tensor([[0, 1], [1, 0]], dtype=_C)
_Y = torch.tensor([[0, -1j], [1j, 0]], dtype=_C)
_Z = torch.tensor([[1, 0], [0, -1]], dtype=_C)
_LETTERS = {"I": _I, "X": _X, "Y": _Y, "Z": _Z}
_ONE_WIRE = {
    "H": (_X + _Z) / 2**0.5,
    "X": _X,
    "Y": _Y,
    "Z": _Z,
    "S": torch.tensor([[1, 0], [0, 1j]], dtype=_C),
    "T": torch.tensor([[1, 0], [0, (1 + 1j) / 2**0.5]], dtype=_C),
}
_ZERO = torch.tensor([[1, 0], [0, 0]], dtype=_C)
_ONE = torch.tensor([[0, 0], [0, 1]], dtype=_C)
_LOWER = torch.tensor([[0, 1], [0, 0]], dtype=_C)  # |0⟩⟨1|
_RAISE = _LOWER.T.contiguous()


@dataclass(frozen=True)
class ReferencePlan:
    """The circuit as it stands; nothing is prepared."""

    circuit: Circuit

    def forecast(self, tokens: int, groups: int, itemsize: int, *, kernel: bool) -> Forecast:
        """Return the cost of a batch, forward and backward."""
        return Forecast(math.inf, 0.0, 0.0)  # never worth it

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit in complex128; leading dimensions of inputs and weights broadcast."""
        lead = torch.broadcast_shapes(inputs.shape[:-1], weights.shape[:-1])
        x, w = (t.expand(*lead, -1).to(torch.float64) for t in (inputs, weights))
        circuit, n = self.circuit, self.circuit.n_wires
        if n > MAX_WIRES or math.prod(lead) * 4**n > MOST_ELEMENTS:
            raise CircuitError(
                f"The reference engine multiplies a matrix of 2ⁿ × 2ⁿ per token, for n up to {MAX_WIRES} and "
                f"{MOST_ELEMENTS:,} elements in all; got n={n} and {math.prod(lead)} token(s). Use engine='auto'."
            )
        state = _initial(circuit, x)
        for gate in circuit.gates:
            state = (gate_matrix(gate, n, x, w) @ state[..., None])[..., 0]
        values = []
        for pauli in circuit.observables:
            letters = {wire: _LETTERS[letter] for wire, letter in zip(pauli.wires, pauli.word, strict=True)}
            image = (_kron(letters, n).to(state.device) @ state[..., None])[..., 0]
            values.append(pauli.sign * (state.conj() * image).sum(-1).real)
        return torch.stack(values, dim=-1).to(inputs.dtype)


def _kron(factors: dict[int, Tensor], n: int) -> Complex[Tensor, "a a"]:
    """Return the tensor product over n wires with `factors` on the wires named and identities elsewhere."""
    return reduce(torch.kron, [factors.get(wire, _I) for wire in range(n)])


def _angle(angle: Angle, x: Tensor, w: Tensor) -> Float[Tensor, "*batch 1 1"]:
    theta = torch.full(x.shape[:-1], angle.constant, dtype=torch.float64, device=x.device)
    for values, terms in ((x, angle.inputs), (w, angle.weights)):
        for index, coefficient in terms:
            theta = theta + coefficient * values[..., index]
    return theta[..., None, None]


def gate_matrix(gate: Gate, n: int, x: Tensor, w: Tensor) -> Complex[Tensor, "*batch a a"]:
    """Return the 2ⁿ × 2ⁿ matrices of one gate for inputs and flat weights of equal leading dimensions."""
    if gate.angle is None:
        return _fixed_matrix(gate, n).to(x.device)
    theta = _angle(gate.angle, x, w)
    one = torch.eye(2**n, dtype=_C, device=x.device)
    if gate.name == "RBS":
        a, b = gate.wires
        both = _kron({a: _ZERO, b: _ONE}, n) + _kron({a: _ONE, b: _ZERO}, n)
        raised = _kron({a: _LOWER, b: _RAISE}, n)  # |01⟩⟨10|
        return one + (theta.cos() - 1) * both.to(x.device) + theta.sin() * (raised - raised.T).to(x.device)
    on = 1 if gate.name.startswith("CR") else 0  # where the word begins: after the control
    word = gate.word or gate.name[1 + on :]
    letters = {wire: _LETTERS[letter] for wire, letter in zip(gate.wires[on:], word, strict=True)}
    turned = (theta / 2).cos() * one - 1j * (theta / 2).sin() * _kron(letters, n).to(x.device)
    if not on:
        return turned
    zero, one = (_kron({gate.wires[0]: projector}, n).to(x.device) for projector in (_ZERO, _ONE))
    return zero + one @ turned


def _fixed_matrix(gate: Gate, n: int) -> Complex[Tensor, "a a"]:
    if gate.name in _ONE_WIRE:
        return _kron({gate.wires[0]: _ONE_WIRE[gate.name]}, n)
    a, b = gate.wires
    if gate.name == "SWAP":
        return torch.stack([_kron({a: p, b: p}, n) for p in _LETTERS.values()]).sum(0) / 2
    return _kron({a: _ZERO}, n) + _kron({a: _ONE, b: {"CNOT": _X, "CZ": _Z}[gate.name]}, n)


def _initial(circuit: Circuit, x: Float[Tensor, "*batch i"]) -> Complex[Tensor, "*batch a"]:
    states = list(circuit.amplitudes)
    first = torch.zeros(*x.shape[:-1], 2**circuit.n_wires, dtype=torch.float64, device=x.device)
    if not states:
        first[..., 0] = 1.0
        return first.to(_C)
    features = x[..., : len(states)]
    zero = features.detach().norm(dim=-1, keepdim=True) == 0
    norm = torch.where(zero, 1.0, features).norm(dim=-1, keepdim=True)  # of zeros, second derivatives are NaN
    place = torch.tensor(states, device=x.device)
    return first.index_copy(-1, place, features / torch.where(zero, 1.0, norm)).to(_C)


ENGINE = Engine(ReferencePlan, cpu=Prices(1.0, 0.0, 0.0), gpu=Prices(1.0, 0.0, 0.0))
