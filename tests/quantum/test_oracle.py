"""All engines against the slow reference on random circuits: values and gradients."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qvit.quantum import Circuit, expectations, get_ansatz
from qvit.quantum.circuit import GATE_WIRES
from qvit.quantum.engines.unitary import UnitaryPlan

RandomCircuit = Callable[..., Circuit]
RandomBatch = Callable[..., tuple[Tensor, Tensor]]
EnginesFor = Callable[[Circuit], list[str]]

CASES = [(seed, seed % 7 < 2) for seed in range(40)]  # every size twice or more, some with loaded amplitudes


def values_and_gradients(circuit: Circuit, x: Tensor, w: Tensor, engine: str) -> list[Tensor]:
    """Values and the gradients of their sum, each with a factor of its own, by inputs and weights."""
    values = expectations(circuit, x, w, engine=engine)
    factors = torch.linspace(0.3, 1.7, values.numel(), dtype=values.dtype).reshape(values.shape)
    if not values.requires_grad:  # no angle and no amplitude takes an input or a weight
        return [values, torch.zeros_like(x), torch.zeros_like(w)]
    return [values, *torch.autograd.grad(values, (x, w), factors, allow_unused=True, materialize_grads=True)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float, note: str) -> None:
    for name, a, b in zip(("values", "inputs' gradients", "weights' gradients"), actual, expected, strict=True):
        assert a.shape == b.shape, (note, name)
        scale = max(1.0, b.abs().max().item()) if b.numel() else 1.0  # amplitudes near 0 have steep gradients
        worst = (a.double() - b).abs().max().item() if a.numel() else 0.0
        assert worst <= scale * tolerance, (note, name, worst)


@pytest.mark.parametrize(("seed", "loaded"), CASES)
def test_random_circuits(
    seed: int, loaded: bool, random_circuit: RandomCircuit, random_batch: RandomBatch, engines_for: EnginesFor
) -> None:
    circuit = random_circuit(seed, loaded=loaded)
    x, w = random_batch(circuit, seed)
    expected = values_and_gradients(circuit, x, w, "reference")
    engines = engines_for(circuit)
    assert {"auto", "statevector", "unitary"} <= set(engines)
    for engine in engines:
        assert_close(values_and_gradients(circuit, x, w, engine), expected, 1e-10, engine)
        if seed % 5 == 0:
            xs, ws = (t.detach().float().requires_grad_() for t in (x, w))
            assert_close(values_and_gradients(circuit, xs, ws, engine), expected, 2e-5, f"{engine} in float32")


@pytest.mark.long
def test_the_random_circuits_are_worth_their_name(
    random_circuit: RandomCircuit, random_batch: RandomBatch, engines_for: EnginesFor
) -> None:
    """Every gate, every size and engine occurs, and most of the outputs are neither 0 nor ±1."""
    circuits = [random_circuit(seed, loaded=loaded) for seed, loaded in CASES]
    names = Counter(gate.name for circuit in circuits for gate in circuit.gates)
    assert min(names[name] for name in GATE_WIRES) >= 15
    for loaded in (True, False):
        assert {circuit.n_wires for circuit in circuits if bool(circuit.amplitudes) == loaded} >= set(range(2, 8))
    assert {circuit.n_wires for circuit in circuits} == set(range(2, 10))
    assert Counter(engine for circuit in circuits for engine in engines_for(circuit))["heisenberg"] >= 20
    outputs = [expectations(circuit, *random_batch(circuit, seed)) for seed, circuit in enumerate(circuits)]
    values = torch.cat([output.flatten().abs() for output in outputs])
    assert ((values > 1e-3) & (values < 0.999)).double().mean() > 0.6


@pytest.mark.parametrize("name", ["ry_ring", "reupload", "amplitude_ring", "unlu_v", "strongly_entangling"])
def test_more_tokens_than_amplitudes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the unitary engine multiplies weights' rotations out into one matrix."""
    circuit = get_ansatz(name).build(2, 2)
    x = torch.randn(11, 1, circuit.n_inputs, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, circuit.n_weights, dtype=torch.float64, requires_grad=True)
    made = []
    matrix = UnitaryPlan._matrix
    monkeypatch.setattr(UnitaryPlan, "_matrix", lambda *arguments: made.append(1) or matrix(*arguments))
    ours = values_and_gradients(circuit, x, w, "unitary")
    assert made
    assert_close(ours, values_and_gradients(circuit, x, w, "reference"), 1e-12, name)
