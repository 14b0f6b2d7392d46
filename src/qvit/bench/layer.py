"""Time the layer against its peers: forward and backward of one group of circuits on a batch of tokens."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from qvit.bench.peers import installed, pennylane_layer, tensorcircuit_layer
from qvit.errors import ConfigError
from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines import make_plan
from qvit.timing import median_milliseconds
from qvit.training.seeding import seeded

PEERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "pennylane": ("pennylane", pennylane_layer),
    "tensorcircuit": ("tensorcircuit", tensorcircuit_layer),
}
DEFAULT_SIZES = ((4, 1), (4, 2), (8, 1), (8, 2), (8, 4), (12, 4))
AGREEMENT = 2e-4  # float32


@dataclass(frozen=True)
class LayerRow:
    """Median milliseconds of forward and backward; None for a peer that was not run."""

    ansatz: str
    qubits: int
    layers: int
    tokens: int
    engine: str
    ours: float
    pennylane: float | None = None
    tensorcircuit: float | None = None
    linear: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row with the ratios of the peers to ours."""
        ratios = {
            f"{peer}_ratio": None if getattr(self, peer) is None else getattr(self, peer) / self.ours for peer in PEERS
        }
        return asdict(self) | ratios


def bench_layer(
    ansatz: str, qubits: int, layers: int, *, tokens: int = 1568, engine: str = "auto", peers: tuple[str, ...] = ()
) -> LayerRow:
    """Time one size; raises `ConfigError` if a peer is not installed or its values differ from ours."""
    circuit = build_circuit(get_ansatz(ansatz), qubits, layers)
    plan = make_plan(circuit, engine)
    with seeded(0):
        x = torch.randn(tokens, circuit.n_inputs)
        w = torch.rand(circuit.n_weights) * 6.0
        grad = torch.randn(tokens, len(circuit.observables))
        dense = torch.nn.Linear(circuit.n_inputs, len(circuit.observables))
    leaf_x, leaf_w = x.clone().requires_grad_(), w.clone().requires_grad_()

    def ours() -> None:
        torch.autograd.grad(plan.expectations(leaf_x, leaf_w), (leaf_x, leaf_w), grad)

    def linear() -> None:
        torch.autograd.grad(dense(leaf_x), (leaf_x, dense.weight, dense.bias), grad)

    values = plan.expectations(x, w)
    found: dict[str, float] = {}
    for peer in peers:
        package, make = PEERS[peer]
        if not installed(package):
            raise ConfigError(f"{peer} is not installed; install it, or leave it out of --peers.")
        run, theirs = make(circuit, x, w, grad)
        difference = float((theirs.float() - values).abs().max())
        if difference > AGREEMENT:
            raise ConfigError(
                f"{peer} differs from us by {difference:.1e} on {ansatz}, {qubits} qubits; leave it out of --peers."
            )
        (found[peer],) = median_milliseconds([run], repeats=15, warm_up=2)
    found["ours"], found["linear"] = median_milliseconds([ours, linear], repeats=100, warm_up=5)
    chosen = plan.choose(tokens) if engine == "auto" and hasattr(plan, "choose") else engine
    return LayerRow(ansatz, qubits, layers, tokens, chosen, **found)
