"""Agreement with the oracles: circuits with PennyLane's default.qubit, metrics with medmnist's own code.

    python benchmarks/agreement.py

Circuits: 200 random ones of all gates on 2 to 9 wires, values and gradients, by every engine that takes them; every
ansatz on 1 to 6 wires and 1 to 3 layers.
Metrics: AUC and accuracy of random and of tied scores for every task. Prints the largest absolute differences.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qvit.bench.peers import pennylane_node
from qvit.errors import CircuitError
from qvit.evaluation.metrics import accuracy, auc
from qvit.quantum import ANSATZE, ENGINES, Angle, Circuit, Gate, Pauli, QuantumLinear
from qvit.quantum.ansatz import build_circuit
from qvit.quantum.circuit import GATE_WIRES, ROTATIONS
from qvit.quantum.engines import make_plan

TASKS = {
    "binary": "binary-class",
    "multi-class": "multi-class",
    "ordinal": "ordinal-regression",
    "multi-label": "multi-label, binary-class",
}


def random_circuit(rng: np.random.Generator, n: int, n_gates: int) -> Circuit:
    """Return a circuit of any gates with affine angles, observed in random Pauli strings."""
    n_inputs, n_weights = int(rng.integers(1, 5)), int(rng.integers(1, 6))

    def angle() -> Angle:
        inputs, weights = (
            tuple((int(i), float(rng.normal())) for i in rng.choice(count, rng.integers(0, 2), replace=False))
            for count in (n_inputs, n_weights)
        )
        return Angle(inputs, weights, float(rng.choice([0.0, rng.normal(), np.pi / 2])))

    gates = []
    for name in rng.choice(list(GATE_WIRES), n_gates):
        count = GATE_WIRES[name] or int(rng.integers(1, n + 1))
        wires = tuple(int(wire) for wire in rng.permutation(n)[:count])
        word = "".join(rng.choice(list("XYZ"), count)) if name == "PauliRot" else ""
        gates.append(Gate(str(name), wires, angle() if name in ROTATIONS else None, word))
    strings = []
    for _ in range(4):
        wires = tuple(int(wire) for wire in rng.permutation(n)[: rng.integers(1, n + 1)])
        strings.append(Pauli.of("".join(rng.choice(list("XYZ"), len(wires))), wires))
    return Circuit(n, n_inputs, n_weights, tuple(gates), tuple(strings))


def with_gradients(run: Callable[..., Tensor], circuit: Circuit, seed: int) -> list[Tensor]:
    """Return the values for one random token, and the gradients of a random combination of them."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(circuit.n_inputs, generator=draw, dtype=torch.float64, requires_grad=True)
    w = torch.randn(circuit.n_weights, generator=draw, dtype=torch.float64, requires_grad=True)
    out = run(x, w)
    grad = torch.randn(len(circuit.observables), generator=draw, dtype=torch.float64)
    slopes = torch.autograd.grad(out, (x, w), grad, allow_unused=True) if out.requires_grad else (None, None)
    found = [torch.zeros_like(t) if s is None else s for t, s in zip((x, w), slopes, strict=True)]
    return [out.detach(), *found]


def circuit_differences(circuits: int = 200) -> dict[str, float]:
    """Return the largest difference of each engine, in values and gradients, from PennyLane and the reference."""
    rng = np.random.default_rng(0)
    worst: dict[str, float] = {}
    for number in range(circuits):
        n = 2 + number % 8
        circuit = random_circuit(rng, n, n_gates=24 if n < 7 else 14)
        node = pennylane_node(circuit)
        oracles = {"pennylane": with_gradients(lambda x, w, node=node: torch.stack(node(x, w)), circuit, number)}
        engines = {}
        for name in ENGINES:
            try:
                engines[name] = with_gradients(make_plan(circuit, name).expectations, circuit, number)
            except CircuitError:
                continue  # an engine that cannot run this circuit says so
        oracles["reference"] = engines["reference"]
        for oracle, expected in oracles.items():
            for name, found in engines.items():
                gap = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True) if a.numel())
                key = f"{name} against {oracle}"
                worst[key] = max(worst.get(key, 0.0), gap)
    return worst


def ansatz_difference() -> float:
    """Return the largest difference from PennyLane of every ansatz on 1 to 6 wires and 1 to 3 layers, in float32."""
    worst = 0.0
    for name, row in ANSATZE.items():
        for n in range(1, 7):
            for layers in (1, 2, 3):
                try:
                    circuit = build_circuit(row, n, layers)
                except CircuitError:
                    continue  # not at this size
                layer = QuantumLinear(n, n_layers=layers, ansatz=name)
                x = torch.randn(3, layer.n_inputs)
                weights = layer.weights.detach().double().flatten()
                expected = torch.stack(pennylane_node(circuit)(x.double(), weights), dim=-1)
                worst = max(worst, float((layer(x).detach().double() - expected).abs().max()))
    return worst


def metric_difference(repeats: int = 100) -> float:
    """Return the largest difference in AUC and accuracy over random and tied scores of every task."""
    from medmnist.evaluator import getACC, getAUC

    rng = np.random.default_rng(0)
    worst = 0.0
    for task, theirs in TASKS.items():
        for repeat in range(repeats):
            images, classes = int(rng.integers(40, 400)), 2 if task == "binary" else int(rng.integers(3, 12))
            scores = rng.random((images, classes))
            if repeat % 2:
                scores = scores.round(1)
            if task == "multi-label":
                labels = (rng.random((images, classes)) < 0.4).astype(np.int64)
            else:
                labels = rng.permutation(np.arange(images) % classes)[:, None]
            for ours, oracle in ((auc, getAUC), (accuracy, getACC)):
                worst = max(worst, abs(ours(labels, scores, task) - oracle(labels, scores, theirs)))
    return worst


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for pair, gap in sorted(circuit_differences().items()):
        print(f"200 random circuits, values and gradients, float64: {pair:30} {gap:.1e}")
    print(f"named ansätze against PennyLane, float32: {ansatz_difference():.1e}")
    print(f"AUC and accuracy against medmnist:   {metric_difference():.1e}")


if __name__ == "__main__":
    main()
