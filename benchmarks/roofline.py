"""What the statevector kernel achieves of what this machine can do, in floating-point operations a second.

    python benchmarks/roofline.py [--qubits 8,12] [--layers 4] [--tokens 1568]

Operations of the kernel. A rotation turns 2ⁿ⁻¹ pairs of amplitudes by a' = a·c − b·s, b' = b·c + a·s: four
multiplications and two additions, of which two multiplications and both additions fuse, so that a pair takes four
instructions for six operations. Forward that is 6 operations a pair. The backward pass runs the circuit again (6),
undoes it on ψ and on λ (12), and sums the slope q·a − p·b (two multiplications, two additions: 4). Forward and
backward together: 28 operations, 18 instructions a pair, rotation and token. The product state, the read-out and λ
are not counted, nor is anything outside the kernel's rotations: the figure is of useful work over the whole call.

Peak. The same mix, without memory: many independent chains of a rotation of two registers, nothing loaded or stored
in the loop; six operations in four instructions (two multiplications, two fused multiply-adds) as above. It is
measured on one core and on as many as asked for.
"""

import argparse
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from qvit.cpu.compiled import jit
from qvit.cpu.vectors import lanes, load, splat, store
from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines.statevector import statevector_plan
from qvit.quantum.program import compile_circuit
from qvit.timing import median_milliseconds

OPERATIONS_A_PAIR = 28
CHAINS = 8


@jit
def _peak(rows: Any, cos: Any, sin: Any, rounds: Any) -> None:
    """Turn eight pairs of registers `rounds` times."""
    c: Any = splat(cos)  # type: ignore[call-arg]
    s: Any = splat(sin)
    a0, a1, a2, a3 = load(rows, 0), load(rows, 1), load(rows, 2), load(rows, 3)
    a4, a5, a6, a7 = load(rows, 4), load(rows, 5), load(rows, 6), load(rows, 7)
    b0, b1, b2, b3 = load(rows, 8), load(rows, 9), load(rows, 10), load(rows, 11)
    b4, b5, b6, b7 = load(rows, 12), load(rows, 13), load(rows, 14), load(rows, 15)
    for _ in range(rounds):
        a0, b0 = a0 * c - b0 * s, b0 * c + a0 * s
        a1, b1 = a1 * c - b1 * s, b1 * c + a1 * s
        a2, b2 = a2 * c - b2 * s, b2 * c + a2 * s
        a3, b3 = a3 * c - b3 * s, b3 * c + a3 * s
        a4, b4 = a4 * c - b4 * s, b4 * c + a4 * s
        a5, b5 = a5 * c - b5 * s, b5 * c + a5 * s
        a6, b6 = a6 * c - b6 * s, b6 * c + a6 * s
        a7, b7 = a7 * c - b7 * s, b7 * c + a7 * s
    store(rows, 0, a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7)
    store(rows, 8, b0 + b1 + b2 + b3 + b4 + b5 + b6 + b7)


def _seconds(run: Callable[[], object]) -> float:
    return median_milliseconds([run], repeats=25)[0] / 1e3


def peak_gflops(threads: int, rounds: int = 400_000) -> float:
    """Return the operations a second of the mix in registers alone, on `threads` threads at once."""
    rows = [np.ones(2 * CHAINS * lanes(4), dtype=np.float32) for _ in range(threads)]
    cos, sin = np.float32(np.cos(0.3)), np.float32(np.sin(0.3))

    def all_at_once() -> None:
        workers = [threading.Thread(target=_peak, args=(row, cos, sin, rounds)) for row in rows]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return threads * 6 * CHAINS * lanes(4) * rounds / _seconds(all_at_once) / 1e9


def kernel_gflops(qubits: int, layers: int, tokens: int) -> tuple[float, float]:
    """Return the operations a second of the operator, forward and backward, and its milliseconds."""
    plan = statevector_plan(compile_circuit(build_circuit(get_ansatz("ry_ring"), qubits, layers)))
    x, w = torch.randn(tokens, qubits, requires_grad=True), torch.randn(layers * qubits, requires_grad=True)
    grad = torch.randn(tokens, qubits)
    seconds = _seconds(lambda: torch.autograd.grad(plan.expectations(x, w), (x, w), grad))
    turns = plan.program.n_rotations - plan.program.n_prefix
    return OPERATIONS_A_PAIR * turns * 2 ** (plan.program.n_wires - 1) * tokens / seconds / 1e9, 1e3 * seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qubits", default="8,12")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1568)
    parser.add_argument("--threads", default="1,2")
    arguments = parser.parse_args()
    for threads in map(int, arguments.threads.split(",")):
        torch.set_num_threads(threads)
        peak = peak_gflops(threads)
        print(f"{threads} thread(s): peak of the mix {peak:.0f} GFLOP/s")
        for qubits in map(int, arguments.qubits.split(",")):
            achieved, milliseconds = kernel_gflops(qubits, arguments.layers, arguments.tokens)
            print(f"  {qubits:2} qubits, {arguments.layers} layers, {arguments.tokens} tokens: {milliseconds:.2f} ms, "
                  f"{achieved:.0f} GFLOP/s, {achieved / peak:.0%} of the peak")  # fmt: skip


if __name__ == "__main__":
    main()
