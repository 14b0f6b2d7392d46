"""The barren-plateau probe: how the variance of a gradient shrinks with qubits and depth (McClean et al. 2018)."""

from dataclasses import dataclass

import torch

from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines import make_plan


@dataclass(frozen=True)
class GradientRow:
    """The variance of ∂⟨Z₀⟩/∂w over random circuits: for the first weight with an effect, and the mean over all."""

    ansatz: str
    qubits: int
    layers: int
    samples: int
    first: float
    mean: float


def gradient_variance(ansatz: str, qubits: int, layers: int, *, samples: int = 200, seed: int = 0) -> GradientRow:
    """Return the gradient variance of the first output over `samples` draws of weights and inputs from U(0, 2π)."""
    circuit = build_circuit(get_ansatz(ansatz), qubits, layers)
    draw = torch.Generator().manual_seed(seed)
    angles = [
        torch.rand(samples, k, generator=draw, dtype=torch.float64) for k in (circuit.n_inputs, circuit.n_weights)
    ]
    x, w = (2 * torch.pi * values for values in angles)
    w.requires_grad_()
    out = make_plan(circuit).expectations(x, w)[:, 0].sum()
    (slopes,) = torch.autograd.grad(out, w)
    variances = slopes.var(dim=0)
    alive = variances[variances > 1e-24]
    first = float(alive[0]) if len(alive) else 0.0
    return GradientRow(ansatz, qubits, layers, samples, first, float(variances.mean()))
