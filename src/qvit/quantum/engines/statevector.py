"""The statevector engine: amplitudes of a block of tokens at a time, gradients by the adjoint method.

It has a Numba kernel on the CPU (`statevector_kernel.py`) and uses plain torch on other devices, where a rotation is a
handful of operations on all tokens. Memory does not depend on depth in either.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.cpu.parts import VECTOR_BYTES, in_blocks
from qvit.errors import CircuitError
from qvit.quantum.engines.call import KernelCall
from qvit.quantum.engines.engine import Engine, Forecast, Prices, blocks
from qvit.quantum.engines.layout import Constant
from qvit.quantum.engines.operator import Arrays, Operator, Prepared, by_source, cos_sin, define, per_group
from qvit.quantum.engines.real import Partners, RealProgram, observe, product_state, real_program, rotate
from qvit.quantum.engines.tables import encode, section
from qvit.quantum.program import PauliProgram, compile_circuit

MAX_WIRES = 20


class StatevectorCall(Prepared):
    """One call of the statevector engine's kernel."""

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
        super().__init__(inputs, weights, amplitudes, n_outputs, max(1, 8 >> max(0, n_wires - 9)))
        self.tensors += (cos_sin(0.5 * weights.detach()),)
        self.amplitudes = in_blocks(amplitudes.detach()).numpy()
        self.code, self.order = code.numpy(), by_source(source, self.sources)
        self.size = 2**n_wires
        self.work = float(self.padded) * weights.numel() * self.size

    def run_forward(self, arrays: Arrays, out: np.ndarray, first: int, last: int) -> None:
        """Write the expectation values of some parts."""
        from qvit.quantum.engines import statevector_kernel

        statevector_kernel.forward(
            self.code, *arrays, self.amplitudes, *self.order, *self._scratch(2), out, first, last, self.per_part
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
        """Write the gradients."""
        from qvit.quantum.engines import statevector_kernel

        given, made = (self.code, *arrays, self.amplitudes, *self.order), (grad, grad_x, grad_w, grad_a)
        statevector_kernel.backward(*given, *self._scratch(3), *made, first, last, self.per_part)

    def _scratch(self, states: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scratch arrays for cosines and sines, and for states, of one block."""
        trig, psi = self.room(2 * self.columns, states * self.size)
        return trig, psi.reshape(states, -1)


@dataclass(frozen=True)
class _Decoded:
    """An encoded program, as far as the torch path needs it."""

    rotations: list[tuple[int, int]]
    columns: list[int]
    observables: list[tuple[int, int, int]]
    loads: list[int]
    n_prefix: int
    n_wires: int

    @classmethod
    def of(cls, code: Tensor | np.ndarray, n_wires: int) -> "_Decoded":
        array = code if isinstance(code, np.ndarray) else code.cpu().numpy()
        rotations = section(array, "rotations").reshape(-1, 3).tolist()
        observables = section(array, "observables").reshape(-1, 3).tolist()
        masks, columns = [(x, z) for x, z, _ in rotations], [column for _, _, column in rotations]
        return cls(
            masks, columns, [(x, z, s) for x, z, s in observables], section(array, "loads").tolist(), int(array[1]),
            n_wires,
        )  # fmt: skip

    def initial(self, halves: list[Tensor], amplitudes: Tensor, source: Tensor) -> Float[Tensor, "g t a"]:
        """Return the loaded amplitudes, or the product state of the prefix's half angles."""
        groups, tokens = len(source), amplitudes.shape[-1]
        if self.loads:
            state = amplitudes.new_zeros(groups, tokens, 2**self.n_wires)
            place = torch.tensor(self.loads, device=amplitudes.device)
            return state.index_copy(-1, place, amplitudes[source.long().to(amplitudes.device)].transpose(1, 2))
        if not halves:
            return torch.nn.functional.pad(amplitudes.new_ones(groups, tokens, 1), (0, 2**self.n_wires - 1))
        stacked = torch.stack([half.expand(groups, tokens) for half in halves], dim=-1)
        wires = [x.bit_length() - 1 for x, _ in self.rotations[: self.n_prefix]]
        return product_state(stacked.cos(), stacked.sin(), wires, self.n_wires)

    def observed(self, state: Float[Tensor, "g t a"]) -> Float[Tensor, "g o t"]:
        """Return all expectation values."""
        values = [observe(state, Partners.of(x, z, self.n_wires), sign) for x, z, sign in self.observables]
        return torch.stack(values, dim=1)

    def partners(self) -> list[Partners]:
        """Return the partners under each rotation after the prefix."""
        return [Partners.of(x, z, self.n_wires) for x, z in self.rotations[self.n_prefix :]]


def run_in_torch(
    inputs: Tensor,
    weights: Tensor,
    amplitudes: Tensor,
    source: Tensor,
    code: Tensor | np.ndarray,
    n_wires: int,
    n_outputs: int,
) -> Tensor:
    """Return what the operator returns, by torch operations differentiable to any order; memory grows with depth."""
    program = _Decoded.of(code, n_wires)
    halves = [0.5 * angle for angle in per_group(inputs, weights, source, program.columns)]
    p = program.n_prefix
    state = program.initial(halves[:p], amplitudes, source)
    for partners, half in zip(program.partners(), halves[p:], strict=True):
        state = rotate(state, half.cos()[..., None], half.sin()[..., None], partners)
    return program.observed(state)


def adjoint_in_torch(
    grad: Tensor,
    inputs: Tensor,
    weights: Tensor,
    amplitudes: Tensor,
    source: Tensor,
    code: Tensor,
    n_wires: int,
    n_outputs: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of inputs, weights and amplitudes by the adjoint method in torch operations."""
    program = _Decoded.of(code, n_wires)
    halves = [0.5 * angle for angle in per_group(inputs, weights, source, program.columns)]
    p = program.n_prefix
    psi = program.initial(halves[:p], amplitudes, source)
    turns = list(zip(program.partners(), halves[p:], strict=True))
    for partners, half in turns:
        psi = rotate(psi, half.cos()[..., None], half.sin()[..., None], partners)
    with torch.enable_grad():  # λ = ½ d⟨O⟩/dψ
        leaf = psi.detach().requires_grad_()
        (lam,) = torch.autograd.grad(program.observed(leaf), leaf, 0.5 * grad)
    slopes = []
    for partners, half in reversed(turns):
        cos, sin = half.cos()[..., None], -half.sin()[..., None]
        psi, lam = rotate(psi, cos, sin, partners), rotate(lam, cos, sin, partners)
        slopes.append((lam * partners.applied(psi)).sum(-1))
    with torch.enable_grad():
        leaves = [half.expand(lam.shape[:2]).detach().requires_grad_() for half in halves[:p]]
        if leaves:
            slopes += torch.autograd.grad(program.initial(leaves, amplitudes, source), leaves, lam)[::-1]
    slopes.reverse()
    return _credited(slopes, lam, program, inputs, weights, amplitudes, source)


def _credited(
    slopes: list[Tensor],
    lam: Tensor,
    program: _Decoded,
    inputs: Tensor,
    weights: Tensor,
    amplitudes: Tensor,
    source: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum slopes `(g, t)` of the rotations, and λ of the loaded amplitudes, into gradients."""
    where = source.long().to(inputs.device)
    grad_x, grad_a = torch.zeros_like(inputs), torch.zeros_like(amplitudes)
    for slope, column in zip(slopes, program.columns, strict=True):
        if column >= 0:
            grad_x[:, column] = torch.zeros_like(grad_x[:, column]).index_add(0, where, slope)
    if program.loads:
        place = torch.tensor(program.loads, device=lam.device)
        grad_a = grad_a.index_add(0, where, 2.0 * lam[..., place].transpose(1, 2))
    grad_w = torch.stack([slope.sum(-1) for slope in slopes], dim=1) if slopes else torch.zeros_like(weights)
    return grad_x, grad_w, grad_a


def forward_flops(groups: int, tokens: int, code: Tensor, n_wires: int, n_outputs: int) -> float:
    """Return the operations of a forward pass.

    They are six per pair and rotation, and per amplitude three to start, three to read, and two for each observable
    that is not folded.
    """
    array = code.cpu().numpy()
    turns = len(section(array, "rotations")) // 3 - int(array[1])
    direct = len(section(array, "direct"))
    return float(groups * tokens) * 2**n_wires * (3.0 * turns + 6.0 + 2.0 * direct)


OPERATOR = Operator(
    "statevector",
    StatevectorCall,
    run_in_torch,
    forward_flops,
    11.0 / 3.0,  # the circuit again (6 per pair), undone on ψ and λ (12), the slope (4)
    adjoint_in_torch,
)
_traceable = define(OPERATOR)


@dataclass(frozen=True, eq=False)
class StatevectorPlan:
    """A circuit prepared for this engine; its index tables are made on first use."""

    program: RealProgram
    _kept: list[KernelCall] = field(default_factory=list)  # no cached_property: torch.compile cannot enter its lock

    @property
    def call(self) -> KernelCall:
        """The operator and this circuit, encoded."""
        if not self._kept:
            program = self.program
            sizes = program.n_wires, len(program.observables), program.loads.rows
            self._kept.append(KernelCall(OPERATOR, _traceable, program.angles, Constant(encode(program)), *sizes))
        return self._kept[0]

    def forecast(self, tokens: int, groups: int, itemsize: int, *, kernel: bool) -> Forecast:
        """Return the cost of a batch, forward and backward."""
        size, turns = 2.0**self.program.n_wires, self.program.n_rotations - self.program.n_prefix
        operations = 28.0 * size / 2 * turns  # per token: 6 forward, twice, and 16 back for each pair
        if not kernel:
            values = float(groups * tokens)
            return Forecast(20.0 + 20 * turns, values * operations, values * size * itemsize * 12.0 * turns)
        n_blocks = blocks(tokens, groups, itemsize)
        rows = 12.0 * size + 300.0  # vectors of a block besides those of rotations: start, read-out, λ
        around = VECTOR_BYTES * (n_blocks * rows + 70.0 * (n_blocks / 8 + 1) * self.program.n_rotations)
        return Forecast(1.0, n_blocks * (VECTOR_BYTES / 4) * operations, around)

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit; leading dimensions of inputs and weights broadcast against each other."""
        return self.call(inputs, weights)


@functools.lru_cache(maxsize=64)
def statevector_plan(program: PauliProgram) -> StatevectorPlan:
    """Return the circuit prepared; raises `CircuitError` where 2ⁿ amplitudes are too many."""
    real = real_program(program) if program.n_wires <= MAX_WIRES else None
    if real is None or real.n_wires > MAX_WIRES:
        raise CircuitError(
            f"The statevector engine holds 2ⁿ real amplitudes per token, n up to {MAX_WIRES}; this circuit needs "
            f"n={program.n_wires} or one more. Use fewer qubits per head and more heads, or one ry_ring layer, "
            "which needs no amplitudes."
        )
    return StatevectorPlan(real)


ENGINE = Engine(
    lambda circuit: statevector_plan(compile_circuit(circuit)),
    cpu=Prices(1.9e-4, 5.8e-12, 8.2e-12),
    gpu=Prices(2e-5, 5e-14, 1e-12),
    warm=lambda plan: plan.call,  # makes its tables now, not inside a trace
)
