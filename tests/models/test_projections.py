"""Attention and the quantum projections against plain loops and single circuits."""

import math
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qvit.errors import CircuitWarning, ConfigError
from qvit.models import projections
from qvit.models.attention import Attention
from qvit.models.projections import (
    Circulant,
    Cosine,
    Frozen,
    Givens,
    Identity,
    Linear,
    NoEntangler,
    Projection,
    Quantum,
    Unlu,
    make_projection,
)
from qvit.quantum import ANSATZE, QuantumLinear, expectations, get_ansatz

KINDS = projections.PROJECTIONS
PROJECTIONS = [
    Quantum(),
    Quantum(n_layers=2, ansatz="basic_entangler"),
    Quantum(ansatz="pyramid"),
    Linear(),
    Cosine(),
    Identity(),
    NoEntangler(),
    Frozen(),
    Givens(),
    Circulant(),
    Unlu(),
]
BATCH, TOKENS, HEADS, QUBITS = 2, 7, 3, 5
DIM = HEADS * QUBITS
SQUARE = [name for name in ANSATZE if name not in ("dense_ring", "amplitude_ring", "unlu_qk")]
DEAD_WEIGHTS = ("strongly_entangling", "reupload")


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(BATCH, TOKENS, DIM, dtype=torch.float64)


def head(tokens: Tensor, h: int) -> Tensor:
    """The features of one head."""
    return tokens[..., h * QUBITS : (h + 1) * QUBITS]


def alone(ansatz: str, weights: Tensor, n_layers: int = 1) -> QuantumLinear:
    """One circuit with these weights."""
    circuit = QuantumLinear(QUBITS, n_layers=n_layers, ansatz=ansatz, dtype=torch.float64)
    circuit.load_state_dict({"weights": weights.detach()})
    return circuit


def loop_attention(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """softmax(q·k/√width)·v for `(n, ·)` arrays, one token at a time."""
    gathered = []
    for query in queries:
        scores = np.array([query @ key / math.sqrt(len(key)) for key in keys])
        shares = np.exp(scores) / np.exp(scores).sum()
        gathered.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    return np.array(gathered)


# --- one interface -----------------------------------------------------------------------------------------


def test_every_kind_is_in_the_table() -> None:
    assert [type(projection) for projection in PROJECTIONS if projection == type(projection)()] == list(KINDS.values())
    for kind, row in KINDS.items():
        assert row().kind == kind


@pytest.mark.parametrize(
    ("projection", "shape"),
    [*((projection, (BATCH, TOKENS)) for projection in PROJECTIONS), (Quantum(), (5, 37)), (Unlu(), (5, 37))],
    ids=str,
)
def test_attention_is_a_loop_over_heads(projection: Projection, shape: tuple[int, int]) -> None:
    """Of a few tokens, and of so many that a kernel of ours attends."""
    batch, n = shape
    tokens = torch.randn(batch, n, DIM, dtype=torch.float64)
    attention = Attention(projection.build(DIM, HEADS), DIM).double()
    projected = attention.project(tokens)
    width = 2 if projection.kind == "unlu" else QUBITS
    assert [part.shape for part in projected] == [(batch, HEADS, n, k) for k in (width, width, QUBITS)]
    q, k, v = (part.detach().numpy() for part in projected)
    expected = np.empty((batch, n, DIM))
    for b in range(batch):
        for h in range(HEADS):
            expected[b, :, h * QUBITS : (h + 1) * QUBITS] = loop_attention(q[b, h], k[b, h], v[b, h])
    weight, bias = attention.out.weight.detach().numpy(), attention.out.bias.detach().numpy()
    np.testing.assert_allclose(attention(tokens).detach().numpy(), expected @ weight.T + bias, atol=1e-12)


@pytest.mark.parametrize("projection", PROJECTIONS, ids=str)
def test_queries_keys_and_values_differ(projection: Projection, tokens: Tensor) -> None:
    """Each has weights of its own, and so has each head: one head's features given to all come out differently."""
    same = head(tokens, 0).repeat(1, 1, HEADS)
    parts = projection.build(DIM, HEADS).double()(same)
    if projection.kind == "identity":
        assert all(torch.equal(part, parts[0]) for part in parts)
        return
    for a, b in ((0, 1), (1, 2), (0, 2)):
        if parts[a].shape == parts[b].shape:
            assert (parts[a] - parts[b]).abs().amax((0, 2, 3)).min() > 1e-3
            assert (parts[a][:, a] - parts[a][:, b]).abs().max() > 1e-3


@pytest.mark.parametrize("projection", [p for p in PROJECTIONS if p != Linear()], ids=str)
def test_heads_see_their_own_features_only(projection: Projection, tokens: Tensor) -> None:
    project = projection.build(DIM, HEADS).double()
    moved = tokens.clone()
    head(moved, 1).add_(1.0)
    for part, other in zip(project(tokens), project(moved), strict=True):
        assert torch.equal(part[:, [0, 2]], other[:, [0, 2]])
        assert (part[:, 1] - other[:, 1]).abs().max() > 1e-3


# --- circuits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [Quantum(), Quantum(n_layers=2, ansatz="basic_entangler"), Frozen(n_layers=2), NoEntangler()], ids=str
)
def test_each_head_of_each_projection_is_its_own_circuit(options: Quantum, tokens: Tensor) -> None:
    project = options.build(DIM, HEADS).double()
    qkv, weights = project(tokens), project.circuits.weights
    assert weights.shape[:2] == (3, HEADS)
    ansatz = getattr(options, "ansatz", "no_entangler")
    circuit = get_ansatz(ansatz).build(QUBITS, options.n_layers)
    for row in range(3):
        for h in range(HEADS):
            one = alone(ansatz, weights[row, h], options.n_layers)
            torch.testing.assert_close(qkv[row][:, h], one(head(tokens, h)), atol=1e-12, rtol=0)
            by_hand = expectations(circuit, head(tokens, h), weights[row, h].detach().flatten(), engine="reference")
            torch.testing.assert_close(qkv[row][:, h], by_hand, atol=1e-12, rtol=0)
    assert len({tuple(w.flatten().tolist()) for w in weights.flatten(0, 1)}) == 3 * HEADS


@pytest.mark.parametrize("ansatz", SQUARE)
def test_every_square_ansatz_attends(ansatz: str) -> None:
    """What comes out is attention over ⟨Z⟩ of the circuits that the ansatz describes, with gradients."""
    n_layers = 2
    options = Quantum(ansatz=ansatz, n_layers=n_layers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        project = options.build(8, 2)
    dead = [str(w.message) for w in caught if issubclass(w.category, CircuitWarning)]
    assert len(dead) == len(caught) == (ansatz in DEAD_WEIGHTS)
    assert all(f"{ansatz} on 4 qubit(s)" in text and "weight(s) cannot influence any output" in text for text in dead)
    attention = Attention(project, 8).double()
    tokens = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    parts = project(tokens)
    circuit, weights = get_ansatz(ansatz).build(4, n_layers), project.circuits.weights
    for row in range(3):
        assert parts[row].shape == (2, 2, 3, 4)
        for h in range(2):
            flat = weights[row, h].detach().flatten()
            expected = expectations(circuit, tokens[..., 4 * h : 4 * h + 4].detach(), flat, engine="reference")
            torch.testing.assert_close(parts[row][:, h].detach(), expected, atol=1e-12, rtol=0)
    attention(tokens).square().sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad.abs() > 1e-12).all()
    assert weights.grad is not None
    alive = weights.grad.abs() > 1e-12
    assert alive.any()
    assert alive.all() == (ansatz not in DEAD_WEIGHTS)


def test_cosine_is_the_circuit_without_entangler(tokens: Tensor) -> None:
    cosine, quantum = (p.build(DIM, HEADS).double() for p in (Cosine(), NoEntangler()))
    assert 0 <= cosine.weights.min() < 0.6
    assert 2 * math.pi - 0.6 < cosine.weights.max() < 2 * math.pi
    quantum.circuits.load_state_dict({"weights": cosine.weights.reshape(3, HEADS, 1, QUBITS)})
    for ours, theirs in zip(cosine(tokens), quantum(tokens), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_without_entangler_no_feature_meets_another(tokens: Tensor) -> None:
    moved = tokens.clone()
    moved[..., 3] += 1.0
    for options, reached in ((NoEntangler(n_layers=2), [3]), (Quantum(n_layers=2), [0, 1, 2, 3, 4])):
        project = options.build(DIM, HEADS).double()
        for part, other in zip(project(tokens), project(moved), strict=True):
            change = (part - other)[:, 0].abs().amax((0, 1))
            assert (change > 1e-6).nonzero().flatten().tolist() == reached


# --- frozen ------------------------------------------------------------------------------------------------


def test_a_frozen_projection_is_a_quantum_one_that_never_moves(tokens: Tensor) -> None:
    torch.manual_seed(1)
    frozen = Frozen(n_layers=2, ansatz="rx_ring").build(DIM, HEADS).double()
    torch.manual_seed(1)
    quantum = Quantum(n_layers=2, ansatz="rx_ring").build(DIM, HEADS).double()
    assert all(torch.equal(a, b) for a, b in zip(frozen(tokens), quantum(tokens), strict=True))
    for project, moves in ((frozen, False), (quantum, True)):
        attention = Attention(project, DIM).double()
        before = {name: parameter.clone() for name, parameter in attention.named_parameters()}
        optimizer = torch.optim.AdamW(attention.parameters(), lr=0.1, weight_decay=0.5)
        attention(tokens.clone().requires_grad_()).square().sum().backward()
        optimizer.step()
        moved = {name for name, parameter in attention.named_parameters() if not torch.equal(parameter, before[name])}
        assert moved == {"out.weight", "out.bias"} | ({"project.circuits.weights"} if moves else set())


def test_frozen_weights_travel_with_the_state() -> None:
    first, second = (Frozen().build(DIM, HEADS) for _ in range(2))
    assert not torch.equal(first.circuits.weights, second.circuits.weights)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.circuits.weights, second.circuits.weights)
    assert not any(parameter.requires_grad for parameter in second.parameters())
    with pytest.raises(RuntimeError, match="Missing key"):
        second.load_state_dict({})


# --- Unlu --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "n_layers"), [((BATCH, TOKENS), 1), ((5, 37), 2)], ids=["few tokens", "many tokens"])
def test_unlu_attends_by_squared_differences(shape: tuple[int, int], n_layers: int) -> None:
    tokens = torch.randn(*shape, DIM, dtype=torch.float64)
    attention = Attention(Unlu(n_layers=n_layers).build(DIM, HEADS), DIM).double()
    scores, values = (
        attention.project.get_parameter(f"{name}_circuits.weights").double() for name in ("score", "value")
    )
    assert scores.shape == (2, HEADS, 3 * QUBITS * n_layers + 1)
    assert values.shape == (HEADS, 3 * QUBITS * n_layers)
    heads = []
    for h in range(HEADS):
        q, k = (alone("unlu_qk", scores[row, h], n_layers)(head(tokens, h))[..., 0] for row in range(2))
        shares = torch.softmax(-((q[:, :, None] - k[:, None, :]) ** 2), dim=-1)
        heads.append(shares @ alone("unlu_v", values[h], n_layers)(head(tokens, h)))
    torch.testing.assert_close(attention(tokens), attention.out(torch.cat(heads, -1)), atol=1e-12, rtol=0)


# --- by name -----------------------------------------------------------------------------------------------


# Each option of each kind, said as a command line says it, and what it becomes.
SAID = {
    ("quantum", "n_layers"): ("3", 3),
    ("quantum", "ansatz"): ("reupload", "reupload"),
    ("quantum", "engine"): ("unitary", "unitary"),
    ("quantum", "readout"): ("zz", "zz"),
    ("cosine", "readout"): ("zz", "zz"),
    ("no_entangler", "readout"): ("zz", "zz"),
    ("frozen", "readout"): ("zz", "zz"),
    ("linear", "bias"): ("false", False),
    ("no_entangler", "n_layers"): ("2", 2),
    ("no_entangler", "engine"): ("reference", "reference"),
    ("frozen", "n_layers"): (2, 2),
    ("frozen", "ansatz"): ("x", "x"),
    ("frozen", "engine"): ("subspace", "subspace"),
    ("givens", "network"): ("butterfly", "butterfly"),
    ("circulant", "bias"): (True, True),
    ("unlu", "n_layers"): (2, 2),
    ("unlu", "engine"): ("statevector", "statevector"),
}


def test_every_option_can_be_said() -> None:
    assert set(SAID) == {(kind, field.name) for kind, row in KINDS.items() for field in fields(row)} - {
        (kind, "kind") for kind in KINDS
    }
    for (kind, option), (said, meant) in SAID.items():
        made = make_projection(kind, **{option: said})
        assert made == replace(KINDS[kind](), **{option: meant})
        assert made != KINDS[kind]()
    assert projections.projection_options() == ["ansatz", "bias", "engine", "n_layers", "network", "readout"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "quantom",
            {},
            "There is no projection 'quantom'. Did you mean 'quantum'? Known: quantum, linear, cosine, identity, "
            "no_entangler, frozen, givens, circulant, unlu.",
        ),
        (
            "quantum",
            {"n_layer": 2},
            "The quantum projection has no option 'n_layer' (it takes n_layers, ansatz, readout, engine). "
            "Did you mean 'n_layers'?",
        ),
        ("cosine", {"bias": True}, "The cosine projection has no option 'bias' (it takes readout)."),
    ],
)
def test_what_there_is_not(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_projection(kind, **options)
    assert str(caught.value) == message
