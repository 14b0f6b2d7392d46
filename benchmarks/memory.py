"""Peak memory of a forward and backward pass does not depend on depth.

    python benchmarks/memory.py [--qubits 12] [--tokens 1568] [--layers 2,16]
    python benchmarks/memory.py --qubits 16 --tokens 256 --layers 4

Each depth runs in a process of its own: imports, compilation of the kernel and a small warm-up first, then the peak of
the resident memory is reset to what is in use, then one pass. Printed are the peak of the process and what the pass
added to it.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path


def peak_mib() -> float:
    """Return the peak of this process's resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(qubits: int, layers: int, tokens: int) -> tuple[float, float]:
    """Run one pass; return the peak of the process and what the pass added, in MiB."""
    import torch

    from qvit.quantum.ansatz import build_circuit, get_ansatz
    from qvit.quantum.engines import make_plan

    plans = [make_plan(build_circuit(get_ansatz("ry_ring"), n, layers), "statevector") for n in (2, qubits)]
    before = 0.0
    for n, batch, plan in ((2, 16, plans[0]), (qubits, tokens, plans[1])):
        x = torch.randn(batch, n, requires_grad=True)
        w = torch.randn(layers * n, requires_grad=True)
        before = _current_mib()
        plan.expectations(x, w).sum().backward()
    return peak_mib(), peak_mib() - before


def _current_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Measure each depth in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qubits", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=1568)
    parser.add_argument("--layers", default="2,16")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(*measure(arguments.qubits, arguments.one, arguments.tokens))
        return
    peaks = []
    for layers in map(int, arguments.layers.split(",")):
        command = [sys.executable, __file__, "--qubits", str(arguments.qubits), "--tokens", str(arguments.tokens)]
        done = subprocess.run([*command, "--one", str(layers)], capture_output=True, text=True, check=True)
        peak, added = map(float, done.stdout.split())
        peaks.append(peak)
        print(f"{arguments.qubits} qubits, {layers:2} layers, {arguments.tokens} tokens: peak {peak:.0f} MiB, "
              f"{added:.0f} MiB by the pass")  # fmt: skip
    if len(peaks) > 1:
        print(f"peak of the last over the first: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
