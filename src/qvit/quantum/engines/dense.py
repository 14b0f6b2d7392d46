"""Dense linear algebra: exact for every circuit, batched over inputs and groups of weights, differentiable.

Amplitudes are a tensor `(g, t, 2ⁿ)`: g groups with weights of their own, t inputs each. The gates before the
first entangler leave a product state, built wire by wire. Every later stretch of gates that does not depend
on the inputs is multiplied out once per group into a matrix and applied to all inputs by one GEMM.
Amplitudes stay real where every gate is real.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from qvit.errors import CircuitError
from qvit.quantum.circuit import ENTANGLERS, Angle, Circuit, Gate
from qvit.quantum.engines.angles import LinearAngles

MAX_WIRES = 14
_COMPLEX_GATES = {"RX", "RZ", "Y", "S", "T"}
_PERMUTATIONS = {"X", "CNOT", "SWAP"}

Amplitudes = Float[Tensor, "g t a"] | Complex[Tensor, "g t a"]


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive gates that all do, or all do not, depend on the inputs, and the angles of its rotations."""

    gates: tuple[Gate, ...]
    angles: LinearAngles
    dynamic: bool

    @classmethod
    def of(cls, gates: Iterable[Gate], circuit: Circuit) -> "Stretch":
        """Collect the gates' angles."""
        gates = tuple(gates)
        angles = [gate.angle for gate in gates if gate.angle is not None]
        linear = LinearAngles.of(angles, circuit.n_inputs, circuit.n_weights)
        return cls(gates, linear, any(angle.inputs for angle in angles))

    @property
    def moves_only(self) -> bool:
        """Whether the gates merely permute amplitudes."""
        return all(gate.name in _PERMUTATIONS for gate in self.gates)


@dataclass(frozen=True, eq=False)
class DensePlan:
    """A circuit prepared for this engine: product-state part, stretches after it, readout signs `(a, o)`."""

    n_wires: int
    real: bool
    prefix: tuple[Stretch, ...]
    stretches: tuple[Stretch, ...]
    signs: np.ndarray

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit; leading dimensions of inputs and weights broadcast against each other."""
        lead = np.broadcast_shapes(inputs.shape[:-1], weights.shape[:-1])
        group_shape = lead[len(lead) - (weights.ndim - 1) :]
        groups, tokens = math.prod(group_shape), math.prod(lead[: len(lead) - len(group_shape)])
        weights = weights.expand(*group_shape, -1).reshape(groups, 1, weights.shape[-1])
        inputs = inputs.expand(*lead, -1).reshape(tokens, groups, inputs.shape[-1]).transpose(0, 1)

        state = _product_state(self, inputs, weights)
        for stretch in self.stretches:
            state = _advance(stretch, state, inputs, weights, self.n_wires)
        signs = torch.as_tensor(self.signs, dtype=inputs.dtype, device=inputs.device)
        probabilities = state.square() if self.real else state.real.square() + state.imag.square()
        return (probabilities @ signs).transpose(0, 1).reshape(*lead, signs.shape[-1])


def _merged(gates: Sequence[Gate]) -> list[Gate]:
    """Return one wire's gates with neighbouring rotations about the same axis merged into one."""
    merged: list[Gate] = []
    for gate in gates:
        if merged and gate.angle is not None and merged[-1].name == gate.name:
            previous = merged.pop()
            gate = Gate(gate.name, gate.wires, (previous.angle or Angle()) + gate.angle)
        merged.append(gate)
    return merged


@lru_cache(maxsize=256)
def dense_plan(circuit: Circuit) -> DensePlan:
    """Return the circuit prepared for this engine; raises `CircuitError` where 2ⁿ amplitudes are too many."""
    n = circuit.n_wires
    if n > MAX_WIRES:
        raise CircuitError(
            f"The dense engine holds 2ⁿ amplitudes per token and takes up to {MAX_WIRES} wires, got {n}. "
            "Use fewer qubits per head and more heads, or one ry_ring layer, which has a closed form."
        )
    prefix: list[list[Gate]] = [[] for _ in range(n)]
    entangled: set[int] = set()
    rest: list[Gate] = []
    for gate in circuit.gates:
        if gate.name in ENTANGLERS or entangled.intersection(gate.wires):
            entangled.update(gate.wires)
            rest.append(gate)
        else:
            prefix[gate.wires[0]].append(gate)
    basis = np.arange(2**n)
    bits = basis[:, None] >> np.arange(n - 1, -1, -1) & 1
    signs = np.stack([1.0 - 2.0 * (bits[:, list(wires)].sum(1) % 2) for wires in circuit.observables], axis=1)
    dynamic = groupby(rest, key=lambda gate: gate.angle is not None and bool(gate.angle.inputs))
    return DensePlan(
        n_wires=n,
        real=not any(gate.name in _COMPLEX_GATES for gate in circuit.gates),
        prefix=tuple(Stretch.of(_merged(gates), circuit) for gates in prefix),
        stretches=tuple(Stretch.of(gates, circuit) for _, gates in dynamic),
        signs=signs,
    )


def _product_state(plan: DensePlan, inputs: Tensor, weights: Tensor) -> Amplitudes:
    """Return the state after every wire's own first gates, as the tensor product of single-qubit states."""
    dtype = inputs.dtype if plan.real else torch.promote_types(inputs.dtype, torch.complex64)
    zero = torch.zeros(*inputs.shape[:-1], 2, dtype=dtype, device=inputs.device)
    zero[..., 0] = 1
    state = torch.ones(*inputs.shape[:-1], 1, dtype=dtype, device=inputs.device)
    for stretch in plan.prefix:
        alone = tuple(Gate(gate.name, (0,), gate.angle) for gate in stretch.gates)
        qubit = _evolve(alone, zero, stretch.angles(inputs, weights), 1)
        state = (state[..., :, None] * qubit[..., None, :]).flatten(-2)
    return state


def _advance(stretch: Stretch, state: Amplitudes, inputs: Tensor, weights: Tensor, n: int) -> Amplitudes:
    """Apply a stretch to every input: gate by gate, or as one matrix where that is less work."""
    if stretch.dynamic:
        return _evolve(stretch.gates, state, stretch.angles(inputs, weights), n)
    groups, tokens, size = state.shape
    angles = stretch.angles(inputs.new_zeros(groups, 1, inputs.shape[-1]), weights)
    if stretch.moves_only or tokens <= size:
        return _evolve(stretch.gates, state, angles, n)
    basis = torch.eye(size, dtype=state.dtype, device=state.device).expand(groups, size, size)
    return state @ _evolve(stretch.gates, basis, angles, n)


def _evolve(gates: Sequence[Gate], state: Amplitudes, angles: Float[Tensor, "g #t r"], n: int) -> Amplitudes:
    """Apply gates one after another; neighbouring permutations become a single gather."""
    rotations = iter(angles.unbind(-1))
    for permutes, run in groupby(gates, key=lambda gate: gate.name in _PERMUTATIONS):
        if permutes:
            index = _permutation(tuple(run), n)
            state = state[..., torch.as_tensor(index, device=state.device)]
        else:
            for gate in run:
                theta = next(rotations)[..., None, None] if gate.angle is not None else None
                state = _apply(gate, state, theta, n)
    return state


@lru_cache(maxsize=1024)
def _permutation(gates: tuple[Gate, ...], n: int) -> np.ndarray:
    """Return for every basis state after the gates the basis state that its amplitude comes from."""
    source = np.arange(2**n)
    for gate in reversed(gates):
        places = [n - 1 - wire for wire in gate.wires]
        if gate.name == "X":
            source = source ^ (1 << places[0])
        elif gate.name == "CNOT":
            source = source ^ ((source >> places[0] & 1) << places[1])
        else:
            differ = (source >> places[0] ^ source >> places[1]) & 1
            source = source ^ (differ << places[0] | differ << places[1])
    return source


def _apply(gate: Gate, state: Amplitudes, theta: Tensor | None, n: int) -> Amplitudes:
    """Apply one gate that is not a permutation; `theta` is `(g, t or 1, 1, 1)`."""
    if gate.name == "CZ":
        a, b = (np.arange(2**n) >> (n - 1 - wire) & 1 for wire in gate.wires)
        return state * torch.as_tensor(1 - 2 * (a & b), dtype=state.dtype, device=state.device)
    before = 2 ** gate.wires[0]
    pairs = state.reshape(*state.shape[:-1], before, 2, state.shape[-1] // (2 * before))
    zero, one = pairs[..., 0, :], pairs[..., 1, :]
    if theta is not None:
        zero, one = _rotate(gate.name, zero, one, theta / 2)
    elif gate.name == "H":
        zero, one = (zero + one) * 0.5**0.5, (zero - one) * 0.5**0.5
    elif gate.name == "Y":
        zero, one = one * -1j, zero * 1j
    else:
        one = one * {"Z": -1, "S": 1j, "T": complex(0.5**0.5, 0.5**0.5)}[gate.name]
    return torch.stack((zero, one), dim=-2).flatten(-3)


def _rotate(name: str, zero: Tensor, one: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two halves of the amplitudes after exp(−i·half·P)."""
    cos, sin = half.cos(), half.sin()
    if name == "RY":
        return cos * zero - sin * one, sin * zero + cos * one
    if name == "RX":
        return cos * zero - 1j * sin * one, cos * one - 1j * sin * zero
    phase = torch.complex(cos, sin)
    return zero * phase.conj(), one * phase
