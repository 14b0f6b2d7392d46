"""Say which engine runs a circuit and why, with what it was predicted to cost and what it does cost here."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from qvit.quantum.circuit import Circuit
from qvit.quantum.engines.plan import ExactPlan, auto_plan, cost
from qvit.quantum.program import analyse, compile_circuit


@dataclass(frozen=True)
class EngineCost:
    """Milliseconds of a forward and backward pass by one engine; `measured` is None if it was not run."""

    engine: str
    predicted: float
    measured: float | None
    flops: float


@dataclass(frozen=True)
class Explanation:
    """How a circuit is run: `str()` of it is meant to be read."""

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

    Measured are medians after warm-up, in milliseconds; with `measure=False` nothing runs. An engine predicted to
    take more than twenty times the chosen one's time, and more than a fifth of a second, is not run.
    """
    plan = auto_plan(circuit)
    itemsize = torch.empty((), dtype=dtype).element_size()
    predicted = plan.predicted(tokens, groups, itemsize, device)
    chosen = plan.choose(tokens, groups, itemsize, device)
    rows = []
    for name, one in plan.plans.items():
        hopeless = predicted[name] > 20 * predicted[chosen] and predicted[name] > 0.2
        taken = (
            median_milliseconds(one, circuit, tokens, groups, dtype, device, repeats)
            if measure and not hopeless
            else None
        )
        flops = cost(one, tokens, groups, itemsize, kernel=device == "cpu").flops
        rows.append(EngineCost(name, 1e3 * predicted[name], taken, flops))
    return Explanation(circuit, tokens, groups, chosen, tuple(rows))


def median_milliseconds(
    plan: ExactPlan, circuit: Circuit, tokens: int, groups: int, dtype: torch.dtype, device: str, repeats: int
) -> float:
    """Return the median time of a forward and backward pass of a plan, after warm-up."""
    like: Any = {"dtype": dtype, "device": device, "generator": torch.Generator(device).manual_seed(0)}
    x = torch.randn(tokens, 1, circuit.n_inputs, requires_grad=True, **like)
    w = torch.randn(groups, circuit.n_weights, requires_grad=True, **like)
    grad = torch.randn(tokens, groups, len(circuit.observables), **like)
    wait: Callable[[], None] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for repeat in range(repeats + 3):
        wait()
        start = time.perf_counter()
        torch.autograd.grad(plan.expectations(x, w), (x, w), grad, allow_unused=True)
        wait()
        if repeat >= 3:
            times.append(1e3 * (time.perf_counter() - start))
        if sum(times) > 2000 and len(times) >= 3:
            break
    return statistics.median(times)
