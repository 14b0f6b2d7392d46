"""Attention and each projection against plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.models.attention import Attention
from qvit.models.projections import Cosine, Identity, Linear, Quantum, make_projection
from qvit.quantum import QuantumLinear, get_ansatz
from qvit.quantum.engines import reference

PROJECTIONS = [Quantum(), Quantum(n_layers=2, ansatz="reupload"), Linear(), Cosine(), Identity()]
BATCH, TOKENS, HEADS, QUBITS = 2, 7, 3, 5
DIM = HEADS * QUBITS


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(BATCH, TOKENS, DIM, dtype=torch.float64)


def loop_attention(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """softmax(q·k/√width)·v for `(n, q)` arrays, one token at a time."""
    gathered = []
    for query in queries:
        scores = np.array([query @ key / math.sqrt(len(key)) for key in keys])
        shares = np.exp(scores) / np.exp(scores).sum()
        gathered.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    return np.array(gathered)


@pytest.mark.parametrize("projection", PROJECTIONS, ids=str)
def test_attention_is_a_loop_over_heads(projection: Quantum, tokens: Tensor) -> None:
    attention = Attention(projection.build(DIM, HEADS), DIM).double()
    qkv = attention.project(tokens)
    assert qkv.shape == (3, BATCH, HEADS, TOKENS, QUBITS)
    q, k, v = qkv.detach().numpy()
    expected = np.empty((BATCH, TOKENS, DIM))
    for b in range(BATCH):
        for h in range(HEADS):
            expected[b, :, h * QUBITS : (h + 1) * QUBITS] = loop_attention(q[b, h], k[b, h], v[b, h])
    weight, bias = attention.out.weight.detach().numpy(), attention.out.bias.detach().numpy()
    np.testing.assert_allclose(attention(tokens).detach().numpy(), expected @ weight.T + bias, atol=1e-12)


def test_identity_is_plain_softmax_attention(tokens: Tensor) -> None:
    attention = Attention(Identity().build(DIM, HEADS), DIM).double()
    heads = [torch.softmax(part @ part.mT / math.sqrt(QUBITS), dim=-1) @ part for part in tokens.split(QUBITS, -1)]
    torch.testing.assert_close(attention(tokens), attention.out(torch.cat(heads, -1)), atol=1e-12, rtol=0)
    assert not list(attention.project.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_three_dense_layers(bias: bool, tokens: Tensor) -> None:
    project = Linear(bias=bias).build(DIM, HEADS).double()
    for row, out in enumerate(project(tokens)):
        dense = nn.Linear(DIM, DIM, bias=bias).double()
        part = slice(row * DIM, (row + 1) * DIM)
        dense.load_state_dict({key: value[part] for key, value in project.dense.state_dict().items()})
        for h in range(HEADS):
            own = dense(tokens)[..., h * QUBITS : (h + 1) * QUBITS]
            torch.testing.assert_close(out[:, h], own, atol=1e-12, rtol=0)


@pytest.mark.parametrize("options", [Quantum(), Quantum(n_layers=2, ansatz="strongly_entangling")], ids=str)
def test_each_head_of_each_projection_is_its_own_circuit(options: Quantum, tokens: Tensor) -> None:
    project = options.build(DIM, HEADS).double()
    qkv, weights = project(tokens), project.circuits.weights
    assert weights.shape[:2] == (3, HEADS)
    circuit = get_ansatz(options.ansatz).build(QUBITS, options.n_layers)
    for row in range(3):
        for h in range(HEADS):
            features = tokens[..., h * QUBITS : (h + 1) * QUBITS]
            alone = QuantumLinear(QUBITS, n_layers=options.n_layers, ansatz=options.ansatz, dtype=torch.float64)
            alone.load_state_dict({"weights": weights[row, h]})
            torch.testing.assert_close(qkv[row, :, h], alone(features), atol=1e-12, rtol=0)
            by_hand = reference.expectations(
                circuit, features[1, 4].numpy(), weights[row, h].detach().flatten().numpy()
            )
            np.testing.assert_allclose(qkv[row, 1, h, 4].detach().numpy(), by_hand, atol=1e-12)
    assert len({tuple(w.flatten().tolist()) for w in weights.flatten(0, 1)}) == 3 * HEADS


def test_cosine_is_the_circuit_without_entangler(tokens: Tensor) -> None:
    cosine, quantum = (p.build(DIM, HEADS).double() for p in (Cosine(), Quantum(ansatz="no_entangler")))
    assert 0 <= cosine.weights.min() < 0.6
    assert 2 * math.pi - 0.6 < cosine.weights.max() < 2 * math.pi
    quantum.circuits.load_state_dict({"weights": cosine.weights.reshape(3, HEADS, 1, QUBITS)})
    torch.testing.assert_close(cosine(tokens), quantum(tokens), atol=1e-12, rtol=0)


def test_made_by_name() -> None:
    assert make_projection("quantum", n_layers=3, ansatz="reupload") == Quantum(n_layers=3, ansatz="reupload")
    assert make_projection("linear", bias="false") == Linear(bias=False)
    assert make_projection("cosine") == Cosine()
    assert make_projection("identity") == Identity()
