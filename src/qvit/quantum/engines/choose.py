"""The choice of an engine for a circuit, by an explicit model of costs that can be compared with measured ones.

A cost is a number of operator launches, of floating-point operations and of bytes moved; a machine has a price for
each. Prices were fitted to `qvit bench engines` on the two-core machine of the published figures; what matters is
their ratio, and the benchmark shows how far the choice is from the best engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qvit.errors import CircuitError
from qvit.quantum.circuit import Circuit
from qvit.quantum.engines import heisenberg, reference, statevector, subspace, unitary
from qvit.quantum.engines.engine import Engine, ExactPlan
from qvit.quantum.engines.heisenberg import heisenberg_plan
from qvit.quantum.engines.layout import Batching
from qvit.quantum.program import analyse, compile_circuit
from qvit.timing import median_milliseconds
from qvit.torch_private import traced

TYPICAL_TOKENS = 1568  # 32 images of 49 patches; assumed where the batch is not known, as in torch.export
_USUAL_TOKENS = (1, 64, TYPICAL_TOKENS, 6272)
AUTO_NODES = 256  # more products than this are never worth trying


_ENGINES: dict[str, Engine] = {
    "heisenberg": heisenberg.ENGINE,
    "unitary": unitary.ENGINE,
    "statevector": statevector.ENGINE,
    "subspace": subspace.ENGINE,
    "reference": reference.ENGINE,
}
ENGINES = ("auto", *_ENGINES)


def exact_plan(circuit: Circuit, engine: str) -> ExactPlan:
    """Return the circuit prepared for one engine; raises `CircuitError` if the engine cannot run it."""
    plan = _ENGINES[engine].make(circuit)
    _ENGINES[engine].warm(plan)
    return plan


@dataclass(frozen=True, eq=False)
class AutoPlan:
    """Every engine that can run a circuit, and the choice of the one that should be fastest for a batch.

    `typical` is the engine for a batch of usual size, used where the batch is not known.
    """

    circuit: Circuit
    plans: dict[str, ExactPlan]
    typical: str = ""
    _choices: dict[tuple[int, int, int, str], str] = field(default_factory=dict)

    def predicted(self, tokens: int, groups: int = 1, itemsize: int = 4, device: str = "cpu") -> dict[str, float]:
        """Return the predicted seconds of a forward and backward pass, by name of engine."""
        on_cpu, found = device == "cpu", {}
        for name, plan in self.plans.items():
            prices = _ENGINES[name].cpu if on_cpu else _ENGINES[name].gpu
            found[name] = plan.forecast(tokens, groups, itemsize, kernel=on_cpu).seconds(prices)
        return found

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
        return self.chosen(inputs, weights).expectations(inputs, weights)

    def chosen(self, inputs: Tensor, weights: Tensor, models: int = 1) -> ExactPlan:
        """Return the plan of the engine for a batch; that of a stack's circuits is the one for each of its models."""
        if len(self.plans) == 1:
            return next(iter(self.plans.values()))
        if traced():  # a trace has to hold for any batch
            return self.plans[self.typical]
        tokens, groups = Batching.of(inputs, weights).tokens, prod(weights.shape[:-1]) // models
        return self.plans[self.choose(tokens, groups, inputs.element_size(), inputs.device.type)]


@lru_cache(maxsize=256)
def auto_plan(circuit: Circuit) -> AutoPlan:
    """Return a plan of all engines worth considering; raises `CircuitError` if none can run the circuit."""
    plans: dict[str, ExactPlan] = {}
    reasons: dict[str, CircuitError] = {}
    for name in ("subspace", "heisenberg", "statevector", "unitary"):
        try:
            if name == "heisenberg":
                plans[name] = heisenberg_plan(compile_circuit(circuit), AUTO_NODES + 4 * circuit.n_wires)
            else:
                plans[name] = _ENGINES[name].make(circuit)
        except CircuitError as error:
            reasons[name] = error
        if name == "subspace" and plans:
            break  # n amplitudes instead of 2ⁿ
    if not plans:
        raise CircuitError(f"No engine can run this circuit. {reasons['statevector']}")
    plan = AutoPlan(circuit, plans, AutoPlan(circuit, plans).choose(TYPICAL_TOKENS))
    if any(plan.choose(tokens, groups) == "statevector" for tokens in _USUAL_TOKENS for groups in (1, 12)):
        exact_plan(circuit, "statevector")  # makes its tables, which are large, only if it may be chosen
    return plan


@dataclass(frozen=True)
class EngineCost:
    """Milliseconds of a forward and backward pass by one engine; `measured` is None if it was not run."""

    engine: str
    predicted: float
    measured: float | None
    flops: float


@dataclass(frozen=True)
class Explanation:
    """How a circuit is run; `str()` gives a table to read."""

    circuit: Circuit
    tokens: int
    groups: int
    chosen: str
    engines: tuple[EngineCost, ...]

    def __str__(self) -> str:
        program, analysis = compile_circuit(self.circuit), analyse(self.circuit)
        arithmetic = "real" if analysis.real else "complex, as real arithmetic on one wire more"
        lines = [
            f"{self.circuit.n_wires} wires, {len(self.circuit.gates)} gates → {len(program.rotations)} "
            f"Pauli rotations, {len(program.observables)} observables; {arithmetic}",
            *analysis.complaints(),
            f"{self.tokens} tokens × {self.groups} group(s), forward and backward:",
            f"  {'engine':12} {'predicted ms':>12} {'measured ms':>12}",
        ]
        for row in self.engines:
            measured = "not run" if row.measured is None else f"{row.measured:.3f}"
            mark = "  ← chosen" if row.engine == self.chosen else ""
            lines.append(f"  {row.engine:12} {row.predicted:12.3f} {measured:>12}{mark}")
        return "\n".join(lines)


def explain(
    circuit: Circuit,
    *,
    tokens: int = 1568,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    measure: bool = True,
    repeats: int = 15,
) -> Explanation:
    """Return the plan for a batch of `tokens` per group of weights, with each engine's predicted and measured cost.

    Measured costs are medians after warm-up, in milliseconds; with `measure=False` nothing runs. An engine predicted
    to take more than twenty times the chosen one's time, and more than a fifth of a second, is not run.
    """
    plan = auto_plan(circuit)
    itemsize = torch.empty((), dtype=dtype).element_size()
    predicted = plan.predicted(tokens, groups, itemsize, device)
    chosen = plan.choose(tokens, groups, itemsize, device)
    rows = []
    for name, one in plan.plans.items():
        hopeless = predicted[name] > 20 * predicted[chosen] and predicted[name] > 0.2
        taken = milliseconds(one, circuit, tokens, groups, dtype, device, repeats) if measure and not hopeless else None
        flops = one.forecast(tokens, groups, itemsize, kernel=device == "cpu").flops
        rows.append(EngineCost(name, 1e3 * predicted[name], taken, flops))
    return Explanation(circuit, tokens, groups, chosen, tuple(rows))


def milliseconds(
    plan: ExactPlan, circuit: Circuit, tokens: int, groups: int, dtype: torch.dtype, device: str, repeats: int
) -> float:
    """Return the median time of a forward and backward pass of a plan, after warm-up."""
    like: Any = {"dtype": dtype, "device": device, "generator": torch.Generator(device).manual_seed(0)}
    x = torch.randn(tokens, 1, circuit.n_inputs, requires_grad=True, **like)
    w = torch.randn(groups, circuit.n_weights, requires_grad=True, **like)
    grad = torch.randn(tokens, groups, len(circuit.observables), **like)
    wait: Callable[[], None] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def run() -> None:
        torch.autograd.grad(plan.expectations(x, w), (x, w), grad, allow_unused=True)
        wait()

    wait()
    return median_milliseconds([run], repeats=repeats, budget=2.0)[0]
