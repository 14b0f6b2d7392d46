"""Circuits of a stack of models in one call: to the last bit what each model does alone."""

import pytest
import torch
from torch import Tensor

from qvit.cpu import parts
from qvit.quantum import QuantumLinear

MODELS, IMAGES, TOKENS, HEADS, QUBITS = 3, 19, 31, 2, 4  # more tokens than a part has, and no whole number of blocks


def with_gradients(layer: QuantumLinear, memory: Tensor) -> list[Tensor]:
    """Values for tokens-last memory `(m, b, h, q, n)`, and gradients from one that is a function of the values."""
    values = layer(memory.permute(1, 4, 0, 2, 3)[:, :, :, None])
    return [values, *torch.autograd.grad(values, (memory, layer.weights), values.detach().sin())]


@pytest.mark.parametrize("engine", ["heisenberg", "statevector"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_bits_depend_neither_on_other_models_nor_on_threads(
    engine: str, n_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = QuantumLinear(QUBITS, n_layers=n_layers, groups=(MODELS, 3, HEADS), engine=engine)
    memory = torch.randn(MODELS, IMAGES, HEADS, QUBITS, TOKENS).mul_(3.0).requires_grad_()
    together = with_gradients(layer, memory)
    assert together[0].shape == (IMAGES, TOKENS, MODELS, 3, HEADS, QUBITS)
    monkeypatch.setattr(parts, "_WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for one, other in zip(with_gradients(layer, memory), together, strict=True):
        assert torch.equal(one, other)
    for model in range(MODELS):
        alone = QuantumLinear(QUBITS, n_layers=n_layers, groups=(1, 3, HEADS), engine=engine)
        with torch.no_grad():
            alone.weights.copy_(layer.weights[model : model + 1])
        own = memory.detach()[model : model + 1].clone().requires_grad_()
        values, to_inputs, to_weights = with_gradients(alone, own)
        assert torch.equal(values, together[0][:, :, model : model + 1])
        assert torch.equal(to_inputs, together[1][model : model + 1])
        assert torch.equal(to_weights, together[2][model : model + 1])


def test_outputs_lie_in_memory_by_model_with_all_tokens_last() -> None:
    layer = QuantumLinear(QUBITS, groups=(MODELS, 3, HEADS))
    memory = torch.randn(MODELS, 8, HEADS, QUBITS, 16)
    values = layer(memory.permute(1, 4, 0, 2, 3)[:, :, :, None])
    assert values.permute(2, 3, 4, 5, 0, 1).is_contiguous()
