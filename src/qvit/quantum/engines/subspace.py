"""The subspace engine: one excitation among n wires, moved by beam splitters, is a vector of n amplitudes.

A unary state has one wire in |1⟩; RBS gates keep it so and turn pairs of its n amplitudes, so a network of them is
an orthogonal n × n matrix (Cherrat et al. 2024, arXiv:2209.08167). Nothing of size 2ⁿ is ever made.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.errors import CircuitError
from qvit.quantum.circuit import Circuit, Gate
from qvit.quantum.engines.call import loaded
from qvit.quantum.engines.engine import Engine, Forecast, Prices
from qvit.quantum.engines.layout import Batching, Constant, LinearAngles


@dataclass(frozen=True, eq=False)
class Layer:
    """RBS gates that share no wire: for each wire its partner, the gate that turns it (−1 for none) and the sign."""

    partner: Constant
    gate: Constant
    sign: Constant


@dataclass(frozen=True, eq=False)
class SubspacePlan:
    """A circuit prepared for this engine; `signs` `(n, o)` are the observables' values on each unary state."""

    angles: LinearAngles
    layers: tuple[Layer, ...]
    wires: tuple[int, ...]
    signs: Constant

    def matrix(self, weights: Float[Tensor, "g k"]) -> Float[Tensor, "g n n"]:
        """Return the orthogonal matrices that the networks apply: amplitudes `(…, n)` @ matrix."""
        theta = torch.nn.functional.pad(self.angles.of_weights(weights), (0, 1))[:, None, :]  # 0 for "no gate"
        cos, sin, n = theta.cos(), theta.sin(), self.signs.rows
        rows = torch.eye(n, dtype=weights.dtype, device=weights.device).expand(weights.shape[0], n, n)
        for layer in self.layers:
            partner, gate, sign = (
                table.tensor().to(weights.device) for table in (layer.partner, layer.gate, layer.sign)
            )
            rows = cos[..., gate] * rows + (sign * sin[..., gate]) * rows[..., partner]
        return rows

    def forecast(self, tokens: int, groups: int, itemsize: int, *, kernel: bool) -> Forecast:
        """Return the cost of a batch, forward and backward."""
        n, depth, values = self.signs.rows, len(self.layers), float(tokens * groups)
        return Forecast(12 + 7 * depth, 6 * values * n * n, itemsize * (12 * values * n + 12 * depth * groups * n * n))

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit; leading dimensions of inputs and weights broadcast against each other."""
        batching = Batching.of(inputs, weights)
        features = batching.split_inputs(inputs)[batching.source().to(inputs.device)]
        start = loaded(features, len(self.wires)).transpose(1, 2)
        amplitudes = start @ self.matrix(batching.split_weights(weights))[:, list(self.wires)]
        values = amplitudes.square() @ self.signs.tensor().to(amplitudes)
        return batching.join(values.transpose(1, 2))


def _unary_wires(circuit: Circuit) -> tuple[int, ...] | None:
    """Return the wire that each loaded state has in |1⟩, or None unless each has exactly one."""
    if not circuit.amplitudes or any(state.bit_count() != 1 for state in circuit.amplitudes):
        return None
    return tuple(circuit.n_wires - state.bit_length() for state in circuit.amplitudes)


def _layers(gates: tuple[Gate, ...], n: int) -> tuple[Layer, ...]:
    """Put every gate into the first layer after the last gate on its wires."""
    depth = [0] * n
    layers: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for place, gate in enumerate(gates):
        a, b = gate.wires
        level = max(depth[a], depth[b])
        if level == len(layers):
            layers.append((np.arange(n), np.full(n, -1), np.ones(n, dtype=np.int64)))
        partner, turner, sign = layers[level]
        partner[a], partner[b] = b, a
        turner[a] = turner[b] = place
        sign[a] = -1
        depth[a] = depth[b] = level + 1
    return tuple(Layer(*map(Constant, layer)) for layer in layers)


@lru_cache(maxsize=64)
def subspace_plan(circuit: Circuit) -> SubspacePlan:
    """Return the circuit prepared; raises `CircuitError` unless it is RBS gates by weights alone on a unary state."""
    wires = _unary_wires(circuit)
    fits = all(gate.name == "RBS" and gate.angle is not None and not gate.angle.inputs for gate in circuit.gates)
    if wires is None or not fits or any(observable.x for observable in circuit.observables):
        raise CircuitError(
            "The subspace engine takes unary amplitude encoding, RBS gates that depend on weights only, and "
            "observables of I and Z; use engine='statevector' or 'auto'."
        )
    n = circuit.n_wires
    signs = [[o.sign * (1 - 2 * (o.z >> wire & 1)) for o in circuit.observables] for wire in range(n)]
    angles = [gate.angle for gate in circuit.gates if gate.angle is not None]
    linear = LinearAngles.of(angles, circuit.n_inputs, circuit.n_weights)
    return SubspacePlan(linear, _layers(circuit.gates, n), wires, Constant(np.array(signs, dtype=np.float64)))


ENGINE = Engine(subspace_plan, cpu=Prices(1.0e-5, 1.1e-11, 7.0e-11), gpu=Prices(3e-5, 5e-14, 1e-12))
