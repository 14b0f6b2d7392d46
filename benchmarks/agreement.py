"""Agreement with the oracles: circuits with PennyLane's default.qubit, metrics with medmnist's own code.

    python benchmarks/agreement.py

Circuits: every ansatz on 1 to 6 wires and 1 to 3 layers, inputs and weights at random, both engines where they apply.
Metrics: AUC and accuracy of random and of tied scores for every task. Prints the largest absolute differences.
"""

import warnings

import numpy as np
import torch

from qvit.evaluation.metrics import accuracy, auc
from qvit.quantum import ANSATZE, Circuit, QuantumLinear
from qvit.quantum.circuit import Angle

TASKS = {
    "binary": "binary-class",
    "multi-class": "multi-class",
    "ordinal": "ordinal-regression",
    "multi-label": "multi-label, binary-class",
}


def pennylane_expectations(circuit: Circuit, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the circuit's outputs by PennyLane, gate by gate, in double precision."""
    import pennylane as qml

    def value(angle: Angle) -> float:
        inputs = sum(coefficient * x[i] for i, coefficient in angle.inputs)
        weights = sum(coefficient * w[k] for k, coefficient in angle.weights)
        return float(inputs + weights + angle.constant)

    @qml.qnode(qml.device("default.qubit", wires=circuit.n_wires))  # type: ignore[untyped-decorator]
    def run() -> list[object]:
        for gate in circuit.gates:
            operation = getattr(qml, {"H": "Hadamard", "X": "PauliX", "Y": "PauliY"}.get(gate.name, gate.name))
            operation(*([] if gate.angle is None else [value(gate.angle)]), wires=gate.wires)
        return [qml.expval(qml.prod(*(qml.PauliZ(wire) for wire in wires))) for wires in circuit.observables]

    return np.array(run())


def circuit_difference(dtype: torch.dtype) -> float:
    """Return the largest difference over all ansätze, sizes and engines."""
    worst = 0.0
    for name in ANSATZE:
        for n in range(1, 7):
            for layers in (1, 2, 3):
                for engine in ("auto", "dense"):
                    layer = QuantumLinear(n, n_layers=layers, ansatz=name, engine=engine, dtype=dtype)
                    x = torch.randn(n, dtype=dtype)
                    weights = layer.weights.detach().double().flatten().numpy()
                    expected = pennylane_expectations(layer.circuit, x.double().numpy(), weights)
                    ours = layer(x[None])[0].detach().double().numpy()
                    worst = max(worst, float(np.abs(ours - expected).max()))
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
    print(f"circuits against PennyLane, float64: {circuit_difference(torch.float64):.1e}")
    print(f"circuits against PennyLane, float32: {circuit_difference(torch.float32):.1e}")
    print(f"AUC and accuracy against medmnist:   {metric_difference():.1e}")


if __name__ == "__main__":
    main()
