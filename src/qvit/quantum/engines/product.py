"""The closed form: outputs that are products of cosines, exact at any number of qubits.

A circuit that rotates each wire about one axis (X or Y) and then only applies CNOTs leaves every Z observable
equal to a product of Zs before the CNOTs (Z on a target becomes Z on control and target), and on a product
state that is ∏ cos θⱼ over the wires it touches. One `ry_ring` layer is the case that matters:
⟨Zᵢ⟩ = ∏_{j≤i} cos(xⱼ + wⱼ) for i ≥ 1, and ∏_{j≥1} for i = 0.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from qvit.quantum.circuit import Angle, Circuit
from qvit.quantum.engines.angles import LinearAngles


@dataclass(frozen=True)
class ProductPlan:
    """How to multiply n cosines into the outputs.

    Value k < n is cos θₖ; step s makes value n + s as the product of two earlier values; `outputs` names the
    value of each observable. Shared partial products are made once.
    """

    angles: LinearAngles
    steps: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit; leading dimensions of inputs and weights broadcast against each other."""
        values = list(self.angles(inputs, weights).cos().unbind(-1))
        for left, right in self.steps:
            values.append(values[left] * values[right])
        return torch.stack([values[k] for k in self.outputs], dim=-1)


def _wire_angles(circuit: Circuit) -> tuple[list[Angle], int] | None:
    """Return the angle of each wire and the number of rotation gates, or None if the form does not fit."""
    axes: dict[int, str] = {}
    angles = [Angle()] * circuit.n_wires
    for count, gate in enumerate(circuit.gates):
        if gate.name == "CNOT":
            return angles, count
        wire = gate.wires[0]
        if gate.angle is None or gate.name == "RZ" or axes.setdefault(wire, gate.name) != gate.name:
            return None
        angles[wire] += gate.angle
    return angles, len(circuit.gates)


def _multiply(masks: list[int], n: int) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Return steps and outputs that make the product over every mask, reusing the largest part at hand."""
    known = {1 << wire: wire for wire in range(n)}
    steps: list[tuple[int, int]] = []
    for mask in sorted(set(masks), key=int.bit_count):
        part = max((k for k in known if k & mask == k), key=int.bit_count)
        for wire in range(n):
            if (mask & ~part) >> wire & 1:
                steps.append((known[part], wire))
                part |= 1 << wire
                known[part] = n + len(steps) - 1
    return tuple(steps), tuple(known[mask] for mask in masks)


@lru_cache(maxsize=256)
def product_plan(circuit: Circuit) -> ProductPlan | None:
    """Return the plan for a circuit of this form, or None for any other."""
    found = _wire_angles(circuit)
    if found is None:
        return None
    angles, n_rotations = found
    cnots = circuit.gates[n_rotations:]
    if any(gate.name != "CNOT" for gate in cnots):
        return None
    masks = []
    for wires in circuit.observables:
        mask = sum(1 << wire for wire in wires)
        for gate in reversed(cnots):
            control, target = gate.wires
            mask ^= (mask >> target & 1) << control
        masks.append(mask)
    steps, outputs = _multiply(masks, circuit.n_wires)
    return ProductPlan(LinearAngles.of(angles, circuit.n_inputs, circuit.n_weights), steps, outputs)
