"""Which engine runs a circuit: an explicit model of what each would cost.

A cost is a number of operator launches, of floating-point operations and of bytes moved; a machine has a price for
each. Prices were fitted to `qvit bench engines` on the two-core machine of the published figures; what matters is
their ratio, and the benchmark shows how far the choice is from the best engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

from jaxtyping import Float
from torch import Tensor

from qvit.errors import CircuitError
from qvit.quantum.circuit import Circuit
from qvit.quantum.engines.batching import Batching
from qvit.quantum.engines.heisenberg import HeisenbergPlan, heisenberg_plan
from qvit.quantum.engines.operators import VECTOR_BYTES
from qvit.quantum.engines.reference import ReferencePlan
from qvit.quantum.engines.statevector import StatevectorPlan, statevector_plan
from qvit.quantum.engines.subspace import SubspacePlan, subspace_plan
from qvit.quantum.engines.tracing import traced
from qvit.quantum.engines.unitary import UnitaryPlan, unitary_plan
from qvit.quantum.program import compile_circuit

ExactPlan = HeisenbergPlan | UnitaryPlan | StatevectorPlan | SubspacePlan | ReferencePlan
TYPICAL_TOKENS = 1568  # 32 images of 49 patches; assumed where the batch is not known, as in torch.export
_USUAL_TOKENS = (1, 64, TYPICAL_TOKENS, 6272)
AUTO_NODES = 256  # more products than this are never worth trying


@dataclass(frozen=True)
class Cost:
    """What a forward and backward pass takes: operator launches, floating-point operations, bytes moved."""

    launches: float
    flops: float
    bytes: float

    def seconds(self, prices: "Prices") -> float:
        """Return the time on a machine of these prices."""
        return self.launches * prices.launch + self.flops * prices.flop + self.bytes * prices.byte


@dataclass(frozen=True)
class Prices:
    """Seconds per launch, floating-point operation and byte."""

    launch: float
    flop: float
    byte: float


# In plain torch a launch is one differentiable operation, forward and backward; with a kernel it is the whole call.
CPU = {
    "heisenberg": Prices(1.9e-4, 0.0, 8.2e-12),
    "subspace": Prices(1.0e-5, 1.1e-11, 7.0e-11),
    "unitary": Prices(1.0e-5, 1.1e-11, 7.0e-11),
    "statevector": Prices(1.9e-4, 5.8e-12, 8.2e-12),
}
GPU = {  # not measured: orders of magnitude only
    "heisenberg": Prices(3e-5, 0.0, 1e-12),
    "subspace": Prices(3e-5, 5e-14, 1e-12),
    "unitary": Prices(3e-5, 5e-14, 1e-12),
    "statevector": Prices(2e-5, 5e-14, 1e-12),
}


def cost(plan: ExactPlan, tokens: int, groups: int, itemsize: int, *, kernel: bool = True) -> Cost:
    """Return what a plan costs for a batch, forward and backward; `kernel` is whether a CPU kernel runs it."""
    if isinstance(plan, HeisenbergPlan):
        return _heisenberg_cost(plan, tokens, groups, itemsize, kernel)
    if isinstance(plan, UnitaryPlan):
        return _unitary_cost(plan, tokens, groups, itemsize)
    if isinstance(plan, StatevectorPlan):
        return _statevector_cost(plan, tokens, groups, itemsize, kernel)
    if isinstance(plan, SubspacePlan):
        n, depth, values = plan.signs.rows, len(plan.layers), float(tokens * groups)
        return Cost(12 + 7 * depth, 6 * values * n * n, itemsize * (12 * values * n + 12 * depth * groups * n * n))
    return Cost(float("inf"), 0.0, 0.0)


def _blocks(tokens: int, groups: int, itemsize: int) -> int:
    return groups * -(-tokens // (VECTOR_BYTES // itemsize))


def _heisenberg_cost(plan: HeisenbergPlan, tokens: int, groups: int, itemsize: int, kernel: bool) -> Cost:
    nodes, rotations = len(plan.nodes), plan.angles.weights.matrix.rows
    if not kernel:
        moved = float(tokens * groups * itemsize) * (12 * nodes + 12 * rotations)
        return Cost(10.0 + 2 * nodes + len(plan.outputs), 0.0, moved)
    rows = 18.0 * nodes + 31.0 * rotations + 160.0  # vectors read and written for a block, forward and backward
    return Cost(1.0, 0.0, VECTOR_BYTES * rows * _blocks(tokens, groups, itemsize))


def _statevector_cost(plan: StatevectorPlan, tokens: int, groups: int, itemsize: int, kernel: bool) -> Cost:
    program = plan.program
    size, turns = 2.0**program.n_wires, program.n_rotations - program.n_prefix
    operations = 28.0 * size / 2 * turns  # per token: 6 forward, twice, and 16 back for each pair
    if not kernel:
        values = float(groups * tokens)
        return Cost(20.0 + 20 * turns, values * operations, values * size * itemsize * 12.0 * turns)
    blocks = _blocks(tokens, groups, itemsize)
    rows = 12.0 * size + 300.0  # vectors read and written for a block besides those of rotations: start, read-out, λ
    around = VECTOR_BYTES * (blocks * rows + 70.0 * (blocks / 8 + 1) * program.n_rotations)
    return Cost(1.0, blocks * (VECTOR_BYTES / 4) * operations, around)


def _unitary_cost(plan: UnitaryPlan, tokens: int, groups: int, itemsize: int) -> Cost:
    program = plan.program
    size = 2**program.n_wires
    launches, moved = 21.0 + 3 * program.n_wires + 3 * len(program.observables), 12.0 * tokens * size
    moved += 6.0 * tokens * size * len(program.observables)
    for dynamic, rotations in plan.stretches:
        rows = tokens if dynamic or tokens <= size else size
        launches += 7.0 * len(rotations) + 1
        moved += 14.0 * rows * size * len(rotations) + 4.0 * tokens * size
    return Cost(launches, 3 * plan.flops(tokens, groups), groups * itemsize * moved)


_MAKERS: dict[str, Callable[[Circuit], ExactPlan]] = {
    "heisenberg": lambda circuit: heisenberg_plan(compile_circuit(circuit)),
    "unitary": lambda circuit: unitary_plan(compile_circuit(circuit)),
    "statevector": lambda circuit: statevector_plan(compile_circuit(circuit)),
    "subspace": lambda circuit: subspace_plan(circuit),
    "reference": ReferencePlan,
}
ENGINES = ("auto", *_MAKERS)


def exact_plan(circuit: Circuit, engine: str) -> ExactPlan:
    """Return the circuit prepared for one engine; raises `CircuitError` if it cannot run it."""
    plan = _MAKERS[engine](circuit)
    if isinstance(plan, StatevectorPlan):
        _ = plan.call  # makes its tables: now, not inside a trace
    return plan


@dataclass(frozen=True, eq=False)
class AutoPlan:
    """Every engine that can run a circuit, and for each batch the one that should be fastest.

    `typical` is the choice for a batch of usual size, taken where the batch is not known.
    """

    circuit: Circuit
    plans: dict[str, ExactPlan]
    typical: str = ""
    _choices: dict[tuple[int, int, int, str], str] = field(default_factory=dict)

    def predicted(self, tokens: int, groups: int = 1, itemsize: int = 4, device: str = "cpu") -> dict[str, float]:
        """Return the predicted seconds of a forward and backward pass by engine."""
        prices, kernel = (CPU, True) if device == "cpu" else (GPU, False)
        return {
            name: cost(plan, tokens, groups, itemsize, kernel=kernel).seconds(prices[name])
            for name, plan in self.plans.items()
        }

    def choose(self, tokens: int, groups: int = 1, itemsize: int = 4, device: str = "cpu") -> str:
        """Return the engine of least predicted cost."""
        key = (tokens, groups, itemsize, device)
        if key not in self._choices:
            if len(self._choices) > 1000:
                self._choices.clear()
            predicted = self.predicted(*key)
            self._choices[key] = min(predicted, key=lambda name: predicted[name])
        return self._choices[key]

    def expectations(
        self, inputs: Float[Tensor, "*#batch i"], weights: Float[Tensor, "*#groups k"]
    ) -> Float[Tensor, "*batch_and_groups o"]:
        """Evaluate the circuit by the engine chosen for this batch."""
        if len(self.plans) == 1:
            return next(iter(self.plans.values())).expectations(inputs, weights)
        if traced():  # it holds for any batch
            return self.plans[self.typical].expectations(inputs, weights)
        tokens, groups = Batching.of(inputs, weights).tokens, prod(weights.shape[:-1])
        name = self.choose(tokens, groups, inputs.element_size(), inputs.device.type)
        return self.plans[name].expectations(inputs, weights)


@lru_cache(maxsize=256)
def auto_plan(circuit: Circuit) -> AutoPlan:
    """Return every engine that is worth considering; raises `CircuitError` if none can run the circuit."""
    plans: dict[str, ExactPlan] = {}
    reasons: dict[str, CircuitError] = {}
    for name in ("subspace", "heisenberg", "statevector", "unitary"):
        try:
            if name == "heisenberg":
                plans[name] = heisenberg_plan(compile_circuit(circuit), AUTO_NODES + 4 * circuit.n_wires)
            else:
                plans[name] = _MAKERS[name](circuit)
        except CircuitError as error:
            reasons[name] = error
        if name == "subspace" and plans:
            break  # n amplitudes instead of 2ⁿ
    if not plans:
        raise CircuitError(f"No engine can run this circuit. {reasons['statevector']}")
    plan = AutoPlan(circuit, plans, AutoPlan(circuit, plans).choose(TYPICAL_TOKENS))
    if any(plan.choose(tokens, groups) == "statevector" for tokens in _USUAL_TOKENS for groups in (1, 12)):
        exact_plan(circuit, "statevector")  # its tables are large; where it is never chosen they are not made
    return plan
