"""The engine of a loaded excitation: which circuits are its own."""

import torch

from qvit.quantum import CircuitBuilder
from qvit.quantum.engines import make_plan
from qvit.quantum.engines.subspace import SubspacePlan


def test_the_subspace_takes_a_loaded_state_without_gates() -> None:
    circuit = CircuitBuilder(2).load_amplitudes(1, 2).build()
    plan = make_plan(circuit, "subspace")
    assert isinstance(plan, SubspacePlan)
    inputs = torch.tensor([0.6, 0.8], dtype=torch.float64)  # ⟨Z₁⟩ = 0.8² − 0.6², as state 1 is |01⟩
    expected = torch.tensor([-0.28, 0.28], dtype=torch.float64)
    torch.testing.assert_close(plan.expectations(inputs, torch.zeros(0, dtype=torch.float64)), expected)
