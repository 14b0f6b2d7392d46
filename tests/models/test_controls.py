"""Classical controls against their definitions, written out."""

import math

import pytest
import torch
from torch import Tensor, nn

from qvit.models.attention import Attention
from qvit.models.projections import Circulant, Givens, Identity, Linear, Quantum
from qvit.quantum import get_ansatz

BATCH, TOKENS, HEADS, WIDTH = 2, 7, 3, 5
DIM = HEADS * WIDTH
NETWORKS = ["pyramid", "butterfly", "x"]


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(BATCH, TOKENS, DIM, dtype=torch.float64)


def test_identity_is_plain_softmax_attention(tokens: Tensor) -> None:
    attention = Attention(Identity().build(DIM, HEADS), DIM).double()
    heads = [torch.softmax(part @ part.mT / math.sqrt(WIDTH), dim=-1) @ part for part in tokens.split(WIDTH, -1)]
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
            own = dense(tokens)[..., h * WIDTH : (h + 1) * WIDTH]
            torch.testing.assert_close(out[:, h], own, atol=1e-12, rtol=0)


def test_a_dense_layer_that_is_watched_or_replaced_is_called(tokens: Tensor) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
            return 2.0 * super().forward(input)

    project, seen = Linear().build(DIM, HEADS).double(), list[Tensor]()
    expected = project(tokens)
    hook = project.dense.register_forward_hook(lambda _module, _given, out: seen.append(out))
    torch.testing.assert_close(project(tokens), expected, atol=1e-12, rtol=0)
    assert [out.shape for out in seen] == [(BATCH, TOKENS, 3 * DIM)]
    hook.remove()
    project.dense.__class__ = Doubled
    torch.testing.assert_close(project(tokens)[1], 2.0 * expected[1], atol=1e-12, rtol=0)


# --- orthogonal maps ---------------------------------------------------------------------------------------


def beam_splitter(n: int, a: int, b: int, theta: float) -> Tensor:
    """RBS(θ) on unary states: eₐ ↦ cos θ·eₐ + sin θ·e_b, e_b ↦ cos θ·e_b − sin θ·eₐ; rows are what e is sent to."""
    matrix = torch.eye(n, dtype=torch.float64)
    matrix[a, a] = matrix[b, b] = math.cos(theta)
    matrix[a, b], matrix[b, a] = math.sin(theta), -math.sin(theta)
    return matrix


@pytest.mark.parametrize(
    ("network", "width", "count"),
    [
        ("pyramid", 2, 1),
        ("pyramid", 5, 10),
        ("pyramid", 8, 28),
        ("butterfly", 4, 4),
        ("butterfly", 8, 12),
        ("x", 5, 7),
        ("x", 8, 13),
    ],
)
def test_givens_is_a_product_of_beam_splitters(network: str, width: int, count: int) -> None:
    project = Givens(network=network).build(HEADS * width, HEADS).double()
    assert project.weights.shape == (3, HEADS, count)
    tokens = torch.randn(BATCH, TOKENS, HEADS * width, dtype=torch.float64)
    pairs = [gate.wires for gate in get_ansatz(network).build(width, 1).gates]
    for row, part in enumerate(project(tokens)):
        for h, features in enumerate(tokens.split(width, -1)):
            matrix = torch.eye(width, dtype=torch.float64)
            for (a, b), theta in zip(pairs, project.weights[row, h].tolist(), strict=True):
                matrix = matrix @ beam_splitter(width, a, b, theta)
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(width, dtype=torch.float64), atol=1e-12, rtol=0)
            torch.testing.assert_close(part[:, h], features @ matrix, atol=1e-12, rtol=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_givens_keeps_lengths_and_angles(network: str) -> None:
    tokens = torch.randn(BATCH, TOKENS, 16, dtype=torch.float64)
    for part in Givens(network=network).build(16, 2).double()(7.0 * tokens):
        for h, features in enumerate(tokens.split(8, -1)):
            torch.testing.assert_close(part[:, h] @ part[:, h].mT, 49.0 * features @ features.mT)


@pytest.mark.parametrize("network", NETWORKS)
def test_givens_is_the_quantum_layer_before_it_is_squared(network: str) -> None:
    """The circuit of the same network reads 1 − 2(Wx/‖x‖)ᵢ²; here its full 2ⁿ-dimensional state is simulated."""
    givens = Givens(network=network).build(8, 2).double()
    quantum = Quantum(ansatz=network, engine="reference").build(8, 2).double()
    quantum.circuits.load_state_dict({"weights": givens.weights[:, :, None]})
    tokens = torch.randn(BATCH, TOKENS, 8, dtype=torch.float64)
    lengths = torch.stack([part.norm(dim=-1, keepdim=True) for part in tokens.split(4, -1)], 1)
    for ours, theirs in zip(givens(tokens), quantum(tokens), strict=True):
        torch.testing.assert_close(1 - 2 * (ours / lengths).square(), theirs, atol=1e-12, rtol=0)


def test_a_pyramid_reaches_every_rotation() -> None:
    """q(q−1)/2 angles are as many as rotations of q dimensions have, and none of them is idle."""
    project = Givens().build(4, 1).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda weights: torch.func.functional_call(project, {"weights": weights}, torch.eye(4).double()[None])[0],
        project.weights.detach(),
    )
    own = jacobian[0, 0, :, :, 0, 0].reshape(16, 6)  # queries of the one head by their own angles
    assert torch.linalg.matrix_rank(own) == 6


def test_angles_of_givens_start_anywhere() -> None:
    weights = Givens().build(64, 8).weights
    assert 0 <= weights.min() < 0.1
    assert 2 * math.pi - 0.1 < weights.max() < 2 * math.pi


# --- circular convolutions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_circulant_is_a_circular_convolution(width: int, bias: bool) -> None:
    project = Circulant(bias=bias).build(HEADS * width, HEADS).double()
    assert {name: tuple(p.shape) for name, p in project.named_parameters()} == {"weights": (3, HEADS, width)} | (
        {"bias": (3, 1, HEADS, 1, width)} if bias else {}
    )
    tokens = torch.randn(BATCH, TOKENS, HEADS * width, dtype=torch.float64)
    for row, part in enumerate(project(tokens)):
        for h, features in enumerate(tokens.split(width, -1)):
            matrix = torch.empty(width, width, dtype=torch.float64)
            for i in range(width):
                for j in range(width):
                    matrix[i, j] = project.weights[row, h, (i - j) % width].item()
            expected = features @ matrix.T + (project.bias[row, 0, h, 0] if bias else 0.0)
            torch.testing.assert_close(part[:, h], expected, atol=1e-12, rtol=0)


def test_circulant_is_a_product_of_spectra(tokens: Tensor) -> None:
    project = Circulant().build(DIM, HEADS).double()
    features = torch.stack(tokens.split(WIDTH, -1), 1)
    for kernel, part in zip(project.weights, project(tokens), strict=True):
        spectra = torch.fft.rfft(features) * torch.fft.rfft(kernel)[:, None]
        torch.testing.assert_close(part, torch.fft.irfft(spectra, n=WIDTH), atol=1e-12, rtol=0)


@pytest.mark.parametrize("width", [2, 5, 16])
def test_circulant_starts_at_the_scale_of_its_input(width: int) -> None:
    heads = 512 // width
    tokens = torch.randn(16, 64, heads * width)
    for part in Circulant().build(heads * width, heads)(tokens):
        assert part.square().mean().item() == pytest.approx(1.0, abs=0.3)
