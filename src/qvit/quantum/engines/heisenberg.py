"""The Heisenberg engine: observables propagated back through the rotations, exact at any number of qubits.

A rotation by θ about P does not change a string S that commutes with P; any other becomes cos θ·S + sin θ·iPS.
On |0…0⟩ a string of Z has the value 1, any other 0. Values are shared among observables, branches that can no
longer end in a string of Z are never opened, and a Z on a wire that nothing turns any more is dropped. One ring
layer then takes one product of cosines per output: ⟨Zᵢ⟩ = ∏_{j≤i} cos(xⱼ + wⱼ) for i ≥ 1 and ∏_{j≥1} for i = 0.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.cpu.parts import VECTOR_BYTES
from qvit.errors import CircuitError
from qvit.quantum.engines.call import KernelCall
from qvit.quantum.engines.engine import Engine, Forecast, Prices, blocks
from qvit.quantum.engines.layout import Constant, LinearAngles
from qvit.quantum.engines.operator import Arrays, Operator, Prepared, by_source, cos_sin, define, per_group
from qvit.quantum.pauli import Pauli
from qvit.quantum.program import PauliProgram, compile_circuit

MAX_NODES = 4096
ZERO, ONE, FIRST = 0, 1, 2  # places of the constants and of the first node
_HEADER = 3
_BLOCKS_AT_ONCE, _BLOCKS_A_PART = 2, 16


@dataclass(frozen=True)
class Node:
    """The value cos θ·(value `along`) + sign·sin θ·(value `across`), θ the angle of `rotation`.

    Values are places: `ZERO`, `ONE`, or `FIRST` + k for an earlier node k.
    """

    rotation: int
    along: int
    across: int
    sign: int


class HeisenbergCall(Prepared):
    """One call of the Heisenberg engine's kernel."""

    def __init__(
        self,
        inputs: Tensor,
        weights: Tensor,
        amplitudes: Tensor,
        source: Tensor,
        code: Tensor,
        n_wires: int,
        n_outputs: int,
    ):
        super().__init__(inputs, weights, amplitudes, n_outputs, _BLOCKS_A_PART, _BLOCKS_AT_ONCE)
        self.tensors += (cos_sin(weights.detach()),)
        self.code, self.order = code.numpy(), by_source(source, self.sources)
        self.nodes = len(self.code) // 4
        self.work = 8.0 * self.padded * self.groups * self.nodes

    def run_forward(self, arrays: Arrays, out: np.ndarray, first: int, last: int) -> None:
        """Write the expectation values of some parts."""
        from qvit.quantum.engines import heisenberg_kernel

        heisenberg_kernel.forward(
            self.code, *arrays, *self.order, *self._scratch(2, 1), out, first, last, self.per_part
        )

    def run_backward(
        self,
        arrays: Arrays,
        grad: np.ndarray,
        grad_x: np.ndarray,
        grad_w: np.ndarray,
        grad_a: np.ndarray,
        first: int,
        last: int,
    ) -> None:
        """Write the gradients of inputs and weights; this engine loads no amplitudes."""
        from qvit.quantum.engines import heisenberg_kernel

        room = self._scratch(3, 2)
        heisenberg_kernel.backward(
            self.code, *arrays, *self.order, *room, grad, grad_x, grad_w, first, last, self.per_part
        )

    def _scratch(self, rotations: int, nodes: int) -> Arrays:
        """Return arrays: one of two rows per column, `rotations` of a row per rotation, `nodes` of a row per place.

        All of them are for each of the blocks at once.
        """
        rows = 2 * self.columns, *[self.rotations] * rotations, *[self.nodes + FIRST] * nodes
        return self.room(*(_BLOCKS_AT_ONCE * count for count in rows))


def run_in_torch(
    inputs: Tensor,
    weights: Tensor,
    amplitudes: Tensor,
    source: Tensor,
    code: Tensor | np.ndarray,
    n_wires: int,
    n_outputs: int,
) -> Tensor:
    """Return what the operator returns, by torch operations that are differentiable to any order."""
    numbers = code.tolist()
    start, nodes, outputs = numbers[:_HEADER]
    columns = numbers[start:nodes]
    angles = per_group(inputs, weights, source, columns)
    cos, sin = [angle.cos() for angle in angles], [angle.sin() for angle in angles]
    blank = inputs.new_zeros(len(source), inputs.shape[-1])
    values: list[Tensor] = [blank, blank + 1.0]
    for k in range(nodes, outputs, 4):
        r, along, across, sign = numbers[k : k + 4]
        value = cos[r] * values[along]
        values.append(value + sign * sin[r] * values[across] if across != ZERO else value)
    return torch.stack([sign * values[place] for place, sign in _pairs(numbers[outputs:])], dim=1)


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def forward_flops(groups: int, tokens: int, code: Tensor, n_wires: int, n_outputs: int) -> float:
    """Return the operations of a forward pass: one or four per node, three per rotation to add its angles."""
    start, nodes, outputs = code[:_HEADER].tolist()
    across = code[nodes:outputs].reshape(-1, 4)[:, 2]
    return float(groups * tokens) * (3.0 * (nodes - start) + len(across) + 3.0 * int((across != ZERO).sum()))


OPERATOR = Operator("heisenberg", HeisenbergCall, run_in_torch, forward_flops, 4.0)
_traceable = define(OPERATOR)


@dataclass(frozen=True, eq=False)
class HeisenbergPlan:
    """Nodes in order of evaluation; `outputs` is the place and the sign of each observable."""

    angles: LinearAngles
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[int, int], ...]
    call: KernelCall

    @classmethod
    def of(
        cls, angles: LinearAngles, nodes: list[Node], outputs: tuple[tuple[int, int], ...], n_wires: int
    ) -> "HeisenbergPlan":
        """Encode the circuit as the operator takes it: a header of three places, then columns, nodes, outputs."""
        rows = [[node.rotation, node.along, node.across, node.sign] for node in nodes]
        parts = [angles.columns.array, np.array(rows, dtype=np.int64).ravel(), np.array(outputs).ravel()]
        starts = _HEADER + np.cumsum([0, len(parts[0]), len(parts[1])])
        code = np.concatenate([starts, *parts]).astype(np.int32)
        call = KernelCall(OPERATOR, _traceable, angles, Constant(code), n_wires, len(outputs))
        return cls(angles, tuple(nodes), outputs, call)

    def forecast(self, tokens: int, groups: int, itemsize: int, *, kernel: bool) -> Forecast:
        """Return the cost of a batch, forward and backward."""
        nodes, rotations = len(self.nodes), self.angles.weights.matrix.rows
        if not kernel:
            moved = float(tokens * groups * itemsize) * (12 * nodes + 12 * rotations)
            return Forecast(10.0 + 2 * nodes + len(self.outputs), 0.0, moved)
        rows = 15.0 * nodes + 5.0 * rotations  # vectors read and written for a block, forward and backward
        return Forecast(1.0, 0.0, VECTOR_BYTES * rows * blocks(tokens, groups, itemsize))

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit; leading dimensions of inputs and weights broadcast against each other."""
        return self.call(inputs, weights)


class _Propagation:
    """Follows strings backwards through the rotations, opening each once, and collects the nodes."""

    def __init__(self, program: PauliProgram, max_nodes: int) -> None:
        self.strings = [rotation.pauli for rotation in program.rotations]
        self.max_nodes = max_nodes
        self.nodes: list[Node] = []
        self.known: dict[tuple[int, int, int], int] = {}
        self.basis: dict[int, tuple[int, int]] = {}  # leading bit → (vector, rotation that brought it)
        self.touched = [0]  # wires that the rotations before r can flip
        for r, string in enumerate(self.strings):
            self.touched.append(self.touched[-1] | string.x)
            rest = string.x
            while rest and rest.bit_length() in self.basis:
                rest ^= self.basis[rest.bit_length()][0]
            if rest:
                self.basis[rest.bit_length()] = (rest, r)

    def value(self, string: Pauli) -> int:
        """Return the place of a string's value at the end of the circuit, opening strings depth first."""
        end = len(self.strings)
        place, missing = self._place(string, end)
        stack = [] if missing is None else [missing]
        while stack:
            waiting = self._open(*stack[-1])
            if not waiting:
                stack.pop()
            stack.extend(waiting)
            if len(self.nodes) > self.max_nodes or len(self.known) + len(stack) > 4 * self.max_nodes:
                raise CircuitError(
                    f"The heisenberg engine would need more than {self.max_nodes} products for this circuit; "
                    "use engine='statevector' or 'auto'."
                )
        return place if missing is None else self._place(string, end)[0]

    def _open(self, string: Pauli, r: int) -> list[tuple[Pauli, int]]:
        """Make the node of a string that rotation r acts on, or return the strings that must be opened first."""
        key = (string.x, string.z, r)
        if key in self.known:
            return []
        k, turned = self.strings[r].times(string)
        (along, open_along), (across, open_across) = self._place(string, r), self._place(turned, r)
        waiting = [item for item in (open_along, open_across) if item is not None]
        if not waiting:
            self.known[key] = ZERO
            if along != ZERO or across != ZERO:
                self.known[key] = FIRST + len(self.nodes)
                self.nodes.append(Node(r, along, across, 1 if (k + 1) % 4 == 0 else -1))
        return waiting

    def _place(self, string: Pauli, before: int) -> tuple[int, tuple[Pauli, int] | None]:
        """Return a value's place, and the string and rotation to open before it is known, or None."""
        settled = self._settle(string, before)
        if settled is None:
            return ZERO, None
        if settled[1] < 0:
            return ONE, None
        key = (settled[0].x, settled[0].z, settled[1])
        return self.known.get(key, ZERO), (None if key in self.known else settled)

    def _settle(self, string: Pauli, before: int) -> tuple[Pauli, int] | None:
        """Return the string without idle Z and the first rotation that acts on it, −1 for none; None if it is zero."""
        while True:
            if not self._can_end(string.x, before):
                return None
            string = Pauli(string.x, string.z & self.touched[before])
            last = before - 1
            while last >= 0 and self.strings[last].commutes(string):
                last -= 1
            if last < 0:
                return (string, last) if string.x == 0 else None
            if self.touched[last + 1] == self.touched[before]:
                return string, last
            before = last + 1

    def _can_end(self, x: int, before: int) -> bool:
        """Return whether the mask x is a sum of x masks of rotations before `before`."""
        while x:
            vector, brought = self.basis.get(x.bit_length(), (0, before))
            if brought >= before:
                return False
            x ^= vector
        return True


@lru_cache(maxsize=256)
def heisenberg_plan(program: PauliProgram, max_nodes: int = MAX_NODES) -> HeisenbergPlan:
    """Return the plan; raises `CircuitError` if it would take more than `max_nodes` products."""
    if program.amplitudes:
        raise CircuitError("The heisenberg engine starts in |0…0⟩; use engine='statevector' for loaded amplitudes.")
    propagation = _Propagation(program, max_nodes)
    outputs = tuple((propagation.value(Pauli(o.x, o.z)), o.sign) for o in program.observables)
    angles = [rotation.angle for rotation in program.rotations]
    linear = LinearAngles.of(angles, program.n_inputs, program.n_weights)
    return HeisenbergPlan.of(linear, propagation.nodes, outputs, program.n_wires)


ENGINE = Engine(
    lambda circuit: heisenberg_plan(compile_circuit(circuit)),
    cpu=Prices(1.9e-4, 0.0, 8.2e-12),
    gpu=Prices(3e-5, 0.0, 1e-12),
)
