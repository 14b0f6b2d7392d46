"""Random circuits, and the slow reference over a batch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.quantum import Angle, Circuit, Gate
from qvit.quantum.circuit import ENTANGLERS, GATE_WIRES, ROTATIONS
from qvit.quantum.engines import reference


def _random_angle(rng: np.random.Generator, n_inputs: int, n_weights: int, scale: float) -> Angle:
    def terms(count: int) -> tuple[tuple[int, float], ...]:
        picked = rng.integers(0, max(count, 1), rng.integers(0, 3) if count else 0)
        return tuple((int(i), float(rng.normal())) for i in picked)

    return Angle(terms(n_inputs), terms(n_weights), float(scale * rng.normal() * rng.integers(0, 2)))


def _random_circuit(seed: int, *, product: bool = False, n_gates: int = 24) -> Circuit:
    rng = np.random.default_rng(seed)
    n, n_inputs, n_weights = 2 + seed % 5, int(rng.integers(0, 4)), int(rng.integers(0, 5))

    def wires(count: int) -> tuple[int, ...]:
        return tuple(int(wire) for wire in rng.permutation(n)[:count])

    def gate(name: str, on: tuple[int, ...] | None = None) -> Gate:
        angle = _random_angle(rng, n_inputs, n_weights, 1.0) if name in ROTATIONS else None
        return Gate(name, on or wires(GATE_WIRES[name]), angle)

    if product:
        axes = rng.choice(["RX", "RY"], n)
        turned = rng.integers(0, n, 2 * n)  # some wires more than once, some never
        gates = [gate(str(axes[wire]), (int(wire),)) for wire in turned]
        gates += [gate("CNOT") for _ in range(n_gates)]
    else:
        first = rng.choice([name for name in GATE_WIRES if name not in ENTANGLERS], n)
        gates = [gate(str(name)) for name in (*first, *rng.choice(list(GATE_WIRES), n_gates))]
    observables = tuple(wires(int(rng.integers(1, n + 1))) for _ in range(4))
    return Circuit(n, n_inputs, n_weights, tuple(gates), observables)


def _reference(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    lead = np.broadcast_shapes(inputs.shape[:-1], weights.shape[:-1])
    values = np.empty((*lead, len(circuit.observables)))
    xs = np.broadcast_to(inputs.detach().double().numpy(), (*lead, circuit.n_inputs))
    ws = np.broadcast_to(weights.detach().double().numpy(), (*lead, circuit.n_weights))
    for place in np.ndindex(*lead):
        values[place] = reference.expectations(circuit, xs[place], ws[place])
    return torch.from_numpy(values)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def random_circuit() -> Callable[..., Circuit]:
    """Circuits of every gate with affine angles, or with `product=True` of rotations followed by CNOTs."""
    return _random_circuit


@pytest.fixture(scope="session")
def by_reference() -> Callable[[Circuit, Tensor, Tensor], Tensor]:
    """The reference for `(…, n_inputs)` and `(…, n_weights)` that broadcast."""
    return _reference
