"""The unitary engine: rotations that do not depend on the inputs become one matrix per group, applied by one GEMM.

It uses plain torch on any device, and pays off where many tokens share a deep circuit on few qubits. Its memory holds
the state after every step, and the matrix after every rotation.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from qvit.errors import CircuitError
from qvit.quantum.engines.call import loaded
from qvit.quantum.engines.engine import Engine, Forecast, Prices
from qvit.quantum.engines.layout import Batching
from qvit.quantum.engines.real import Amplitudes, Partners, RealProgram, observe, product_state, real_program, rotate
from qvit.quantum.program import PauliProgram, compile_circuit
from qvit.torch_private import traced

MAX_WIRES = 12


@dataclass(frozen=True, eq=False)
class UnitaryPlan:
    """A circuit prepared for this engine, in stretches of rotations that do, or do not, depend on the inputs."""

    program: RealProgram
    stretches: tuple[tuple[bool, tuple[int, ...]], ...]
    prefix: tuple[int, ...]
    partners: dict[int, Partners]
    observed: tuple[tuple[Partners, int], ...]

    @classmethod
    def of(cls, program: RealProgram) -> "UnitaryPlan":
        """Prepare a program: its prefix as wires, index tables of its rotations and observables."""
        n, rest = program.n_wires, range(program.n_prefix, program.n_rotations)
        stretches = groupby(rest, key=lambda r: bool(program.dynamic[r] >= 0))
        return cls(
            program,
            tuple((dynamic, tuple(rotations)) for dynamic, rotations in stretches),
            tuple(int(x).bit_length() - 1 for x in program.x[: program.n_prefix]),
            {r: Partners.of(int(program.x[r]), int(program.z[r]), n) for r in rest},
            tuple((Partners.of(int(x), int(z), n), int(sign)) for x, z, sign in program.observables),
        )

    def forecast(self, tokens: int, groups: int, itemsize: int, *, kernel: bool) -> Forecast:
        """Return the cost of a batch, forward and backward."""
        size = 2**self.program.n_wires
        observables = len(self.program.observables)
        launches, moved = 21.0 + 3 * self.program.n_wires + 3 * observables, 12.0 * tokens * size
        moved += 6.0 * tokens * size * observables
        for dynamic, rotations in self.stretches:
            rows = tokens if dynamic or tokens <= size else size
            launches += 7.0 * len(rotations) + 1
            moved += 14.0 * rows * size * len(rotations) + 4.0 * tokens * size
        return Forecast(launches, 3 * self.flops(tokens, groups), groups * itemsize * moved)

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit; leading dimensions of inputs and weights broadcast against each other."""
        batching, program = Batching.of(inputs, weights), self.program
        features = batching.split_inputs(inputs)[batching.source().to(inputs.device)]
        split = batching.split_weights(weights)
        angles, still = program.angles(features, split) * 0.5, program.angles.of_weights(split)[:, None, :] * 0.5
        cos, sin = angles.cos(), angles.sin()
        state = self._initial(features, cos, sin)
        n = program.n_wires
        for dynamic, rotations in self.stretches:
            few = not traced() and state.shape[1] <= 2**n  # a trace holds for any batch
            if dynamic or few:
                for r in rotations:
                    c, s = (cos, sin) if dynamic else (still.cos(), still.sin())
                    state = rotate(state, c[..., r, None], s[..., r, None], self.partners[r])
            else:
                state = state @ self._matrix(still, rotations)
        values = [observe(state, partners, sign) for partners, sign in self.observed]
        return batching.join(torch.stack(values, dim=1))

    def _initial(self, features: Tensor, cos: Tensor, sin: Tensor) -> Amplitudes:
        program, (groups, _, tokens) = self.program, features.shape
        if program.loads.rows:
            state = features.new_zeros(groups, tokens, 2**program.n_wires)
            place = program.loads.tensor().to(features.device)
            return state.index_copy(-1, place, loaded(features, program.loads.rows).transpose(1, 2))
        p = program.n_prefix
        shape = (groups, tokens, p)
        return product_state(cos[..., :p].expand(shape), sin[..., :p].expand(shape), self.prefix, program.n_wires)

    def _matrix(self, half: Float[Tensor, "g 1 r"], rotations: tuple[int, ...]) -> Float[Tensor, "g a a"]:
        """Return the matrix that applies the rotations to a row of amplitudes."""
        matrix = torch.eye(2**self.program.n_wires, dtype=half.dtype, device=half.device).expand(half.shape[0], -1, -1)
        cos, sin = half.cos(), half.sin()
        for r in rotations:
            matrix = rotate(matrix, cos[..., r, None], sin[..., r, None], self.partners[r])
        return matrix

    def flops(self, tokens: int, groups: int) -> float:
        """Return the floating-point operations of a forward pass."""
        size = 2**self.program.n_wires
        total = 2.0 * tokens * size
        for dynamic, rotations in self.stretches:
            per_rotation = 3.0 * size * len(rotations)
            if dynamic or tokens <= size:
                total += per_rotation * tokens
            else:
                total += per_rotation * size + 2.0 * tokens * size * size
        return total * groups


@lru_cache(maxsize=64)
def unitary_plan(program: PauliProgram) -> UnitaryPlan:
    """Return the circuit prepared; raises `CircuitError` where 2ⁿ × 2ⁿ matrices are too large."""
    real = real_program(program) if program.n_wires <= MAX_WIRES else None
    if real is None or real.n_wires > MAX_WIRES:
        raise CircuitError(
            f"The unitary engine holds 2ⁿ × 2ⁿ matrices, n up to {MAX_WIRES}; this circuit needs n={program.n_wires} "
            "or one more. Use engine='statevector' or 'auto'."
        )
    return UnitaryPlan.of(real)


ENGINE = Engine(
    lambda circuit: unitary_plan(compile_circuit(circuit)),
    cpu=Prices(1.0e-5, 1.1e-11, 7.0e-11),
    gpu=Prices(3e-5, 5e-14, 1e-12),
)
