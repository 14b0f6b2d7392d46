"""What float32 loses at large angles, by engine, and what it costs to lose nothing.

    python benchmarks/large_angles.py [--repeats 200]

Inputs and weights of a size S, drawn from ±S in float32. The error is the largest difference of any expectation value
from the reference's in float64 for the same float32 numbers; the time is that of a forward and backward pass of 1,568
tokens, one thread, beside that of a pass of usual angles (S = 1), the two in alternation, medians.
"""

import argparse
import statistics
import time

import torch

from qvit.errors import CircuitError
from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.circuit import Circuit
from qvit.quantum.engines import Plan, make_plan

CIRCUITS = (("ry_ring", 4, 1), ("ry_ring", 4, 2), ("basic_entangler", 8, 2), ("reupload", 4, 2), ("pyramid", 4, 1))
ENGINES = ("heisenberg", "statevector", "unitary", "subspace")
SIZES = (1e4, 1e6, 1e8)
TOKENS = 1568
CHECKED = 64  # tokens that the reference computes, a matrix a gate and token


def numbers(circuit: Circuit, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and weights between −size and size."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(TOKENS, circuit.n_inputs, generator=generator)
    weights = torch.rand(circuit.n_weights, generator=generator)
    return (2 * inputs - 1) * size, (2 * weights - 1) * size


def error(circuit: Circuit, plan: Plan, size: float) -> float:
    """Return the largest difference from the reference."""
    inputs, weights = numbers(circuit, size)
    inputs = inputs[:CHECKED]
    expected = make_plan(circuit, "reference").expectations(inputs.double(), weights.double())
    return float((plan.expectations(inputs, weights).double() - expected).abs().max())


def ratio(circuit: Circuit, plan: Plan, size: float, repeats: int) -> float:
    """Return the time of a pass at this size over that at usual angles."""
    operands = [[tensor.requires_grad_() for tensor in numbers(circuit, s)] for s in (1.0, size)]
    seconds: list[list[float]] = [[], []]
    for k in range(repeats + 20):
        for which, pair in enumerate(operands):
            start = time.perf_counter()
            torch.autograd.grad(plan.expectations(*pair).sum(), pair, allow_unused=True)
            if k >= 20:
                seconds[which].append(time.perf_counter() - start)
    usual, large = map(statistics.median, seconds)
    return large / usual


def main() -> None:
    """Print a line a circuit and engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{'circuit':22} {'engine':12}" + "".join(f"{f'error {s:.0e}':>14} {'time':>6}" for s in SIZES))
    for ansatz, qubits, layers in CIRCUITS:
        circuit = build_circuit(get_ansatz(ansatz), qubits, layers)
        for engine in ENGINES:
            try:
                plan = make_plan(circuit, engine)
            except CircuitError:
                continue
            found = [(error(circuit, plan, size), ratio(circuit, plan, size, repeats)) for size in SIZES]
            print(f"{ansatz} {qubits}x{layers}".ljust(22), engine.ljust(12), end="")
            print("".join(f"{e:14.1e} {r:6.3f}" for e, r in found), flush=True)


if __name__ == "__main__":
    main()
