"""Time every engine over a grid of sizes and batches: is the engine that the cost model chooses the fastest?"""

from dataclasses import dataclass

import torch

from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines.choose import explain

QUBITS = (2, 4, 6, 8, 10, 12, 14, 16)
LAYERS = (1, 2, 4, 8)
TOKENS = (1, 64, 1568, 6272)


@dataclass(frozen=True)
class EngineRow:
    """Measured and predicted milliseconds by engine; None for an engine not run because it would be far too slow."""

    ansatz: str
    qubits: int
    layers: int
    tokens: int
    chosen: str
    measured: dict[str, float | None]
    predicted: dict[str, float]

    @property
    def best(self) -> str:
        """The engine that was fastest."""
        return min(
            (name for name, ms in self.measured.items() if ms is not None), key=lambda n: self.measured[n] or 0.0
        )

    @property
    def ratio(self) -> float:
        """The chosen engine's time divided by that of the fastest."""
        return (self.measured[self.chosen] or 0.0) / (self.measured[self.best] or 1.0)


def bench_engines(
    ansatz: str, qubits: int, layers: int, tokens: int, *, dtype: torch.dtype = torch.float32, repeats: int = 15
) -> EngineRow:
    """Time every engine that can run a circuit, `repeats` times."""
    found = explain(build_circuit(get_ansatz(ansatz), qubits, layers), tokens=tokens, dtype=dtype, repeats=repeats)
    measured = {row.engine: row.measured for row in found.engines}
    predicted = {row.engine: row.predicted for row in found.engines}
    return EngineRow(ansatz, qubits, layers, tokens, found.chosen, measured, predicted)
