"""Projections without a circuit: the classical maps that a quantum projection is compared with.

Each is a small immutable value whose `build(dim, heads)` makes a module from tokens to queries, keys and values; see
`models.projections`, which names them all.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from qvit.models.dense import may_project, project
from qvit.models.limits import check_circuit
from qvit.models.stacked_layers import StackedLinear, products
from qvit.models.triples import QueriesKeysValues, unstacked
from qvit.quantum import get_ansatz
from qvit.quantum.ansatz import build_circuit
from qvit.quantum.engines.subspace import subspace_plan
from qvit.quantum.layer import uniform_angles
from qvit.torch_private import unhooked

Tokens = Float[Tensor, "*m b n d"]
Readout = Literal["z", "zz"]  # of a head's features, or of their pairs as well


@dataclass(frozen=True)
class Linear:
    """The usual dense projection: a d × d matrix and a bias for each of Q, K and V; 3·(d² + d) parameters."""

    kind: Literal["linear"] = "linear"
    bias: bool = True

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return LinearProjection(self, dim, heads)


@dataclass(frozen=True)
class Cosine:
    """cos(x + w) feature by feature, 3·d parameters: what is left of a one-layer circuit without entangling gates.

    With the `readout` "zz" the products of two features of a head come after them, as ⟨ZᵢZⱼ⟩ of such a circuit are.
    """

    kind: Literal["cosine"] = "cosine"
    readout: Readout = "z"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return CosineProjection(dim, heads, self.readout)


@dataclass(frozen=True)
class Identity:
    """Q = K = V = x, no parameters: the attention that remains when nothing is projected."""

    kind: Literal["identity"] = "identity"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return IdentityProjection(heads)


@dataclass(frozen=True)
class Givens:
    """x·W with an orthogonal q × q matrix W per head for each of Q, K and V, a product of plane rotations.

    `network` says which planes turn: those of the quantum ansatz of that name (Cherrat et al. 2024, arXiv:2209.08167),
    which applies the same W to x/‖x‖ and squares the result. The parameters are 3·h·r angles, r = q(q−1)/2 for
    "pyramid", (q/2)·log₂ q for "butterfly" (q a power of two), 2q − 3 for "x". Building raises `CircuitError` for
    other widths.
    """

    kind: Literal["givens"] = "givens"
    network: Literal["pyramid", "butterfly", "x"] = "pyramid"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return GivensProjection(self, dim, heads)


@dataclass(frozen=True)
class Circulant:
    """Circular convolution of a head's q features with a learned kernel, for each of Q, K and V; 3·d parameters.

    yᵢ = Σⱼ k₍ᵢ₋ⱼ₎ xⱼ, indices modulo q: a linear map that mixes all features with as many weights as a circuit of one
    layer has. `bias` adds 3·d more.
    """

    kind: Literal["circulant"] = "circulant"
    bias: bool = False

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return CirculantProjection(self, dim, heads)


def per_head(tokens: Tokens, matrices: Float[Tensor, "*m 3 h q p"]) -> Float[Tensor, "*m 3 h p b n"]:
    """Return x·M for the features x of each head and its own three matrices M."""
    features, b = rearrange(tokens, "... b n (h q) -> (... h) q (b n)", h=matrices.shape[-3]), tokens.shape[-3]
    out = products(rearrange(matrices, "... t h q p -> (... h) (t p) q"), features)
    shape = {"b": b, "h": matrices.shape[-3], "t": 3}
    out = rearrange(out, "(m h) (t p) (b n) -> m t h p b n", **shape)
    return out if matrices.ndim > 4 else out[0]


def of_heads(stacked: Float[Tensor, "*m 3 h q b n"]) -> QueriesKeysValues:
    """Return queries, keys and values as views of what is laid out as the kernels before and after read it."""
    return unstacked(rearrange(stacked, "... three h q b n -> ... three b h n q"))


class LinearProjection(nn.Module):
    """Dense queries, keys and values from one matrix product."""

    def __init__(self, options: Linear, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.dense = nn.Linear(dim, 3 * dim, bias=options.bias)

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        layer = self.dense
        plain = type(layer) in (nn.Linear, StackedLinear) and unhooked(layer)
        if plain and may_project(tokens, layer.weight, layer.bias):
            dense = project(tokens, layer.weight, layer.bias)
        else:  # one image in another layout would take another product than several
            dense = layer(tokens.contiguous())
        return unstacked(rearrange(dense, "... b n (three h q) -> ... three b h n q", three=3, h=self.heads))


class CosineProjection(nn.Module):
    """cos(x + w) for each of Q, K and V; angles start at U(0, 2π) like those of a circuit."""

    def __init__(self, dim: int, heads: int, readout: Readout = "z") -> None:
        super().__init__()
        self.weights = nn.Parameter(uniform_angles(torch.empty(3, 1, heads, 1, dim // heads)))
        self.pairs = readout == "zz"

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        features = rearrange(tokens, "... b n (h q) -> ... 1 h q b n", h=self.weights.shape[-3]).contiguous()
        values = torch.cos(features + rearrange(self.weights, "... t 1 h 1 q -> ... t h q 1 1"))
        if self.pairs:
            first, second = torch.triu_indices(values.shape[-3], values.shape[-3], 1, device=values.device)
            products_of_two = values.index_select(-3, first) * values.index_select(-3, second)
            values = torch.cat((values, products_of_two), dim=-3)
        return of_heads(values)


class IdentityProjection(nn.Module):
    """The tokens themselves as queries, keys and values."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        features = rearrange(tokens, "... b n (h q) -> ... b h n q", h=self.heads)
        return features, features, features


class GivensProjection(nn.Module):
    """Orthogonal maps; `weights` `(3, heads, rotations)` are angles, from U(0, 2π) like those of a circuit."""

    def __init__(self, options: Givens, dim: int, heads: int) -> None:
        super().__init__()
        check_circuit(options.network, dim // heads)
        circuit = build_circuit(get_ansatz(options.network), dim // heads, 1)
        with torch.device("cpu"):  # plans are shared by all models, so none may hold meta tensors
            self._plan = subspace_plan(circuit)
        self.weights = nn.Parameter(uniform_angles(torch.empty(3, heads, circuit.n_weights)))

    def matrices(self) -> Float[Tensor, "*m 3 h q q"]:
        """Return the orthogonal matrices W."""
        return self._plan.matrix(self.weights.flatten(0, -2)).unflatten(0, self.weights.shape[:-1])

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        return of_heads(per_head(tokens, self.matrices()))


class CirculantProjection(nn.Module):
    """Circular convolutions; `weights` `(3, heads, q)` are the kernels, from N(0, 1/q), which keeps the scale of x."""

    def __init__(self, options: Circulant, dim: int, heads: int) -> None:
        super().__init__()
        width = dim // heads
        self.weights = nn.Parameter(nn.init.normal_(torch.empty(3, heads, width), std=width**-0.5))
        self.bias: nn.Parameter | None = None
        if options.bias:  # as in a dense layer of this width
            self.bias = nn.Parameter(nn.init.uniform_(torch.empty(3, 1, heads, 1, width), -(width**-0.5), width**-0.5))

    def matrices(self) -> Float[Tensor, "*m 3 h q q"]:
        """Return the circulant matrices, Mⱼᵢ = k₍ᵢ₋ⱼ₎."""
        place = torch.arange(self.weights.shape[-1], device=self.weights.device)
        return self.weights[..., (place - place[:, None]) % len(place)]

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        mixed = per_head(tokens, self.matrices())
        if self.bias is not None:
            mixed = mixed + rearrange(self.bias, "... t 1 h 1 q -> ... t h q 1 1")
        return of_heads(mixed)
