"""What turns tokens into queries, keys and values: the one place where quantum and classical models differ.

A projection is a small immutable value; `build(dim, heads)` makes its module, which maps tokens
`(b, n, d)` to queries, keys and values `(3, b, h, n, d/h)`. Every head of every projection sees the same
interface, so two arms of a comparison share all other code.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from qvit.errors import ConfigError, nearest
from qvit.quantum import QuantumLinear
from qvit.validate import validated

Tokens = Float[Tensor, "b n d"]
QueriesKeysValues = Float[Tensor, "3 b h n q"]


@dataclass(frozen=True)
class Quantum:
    """One circuit per head for each of Q, K and V, on d/h qubits; 3·h·O(q) parameters.

    `n_layers` and `ansatz` describe the circuit, `engine` how it is simulated (see `QuantumLinear`).
    """

    kind: Literal["quantum"] = "quantum"
    n_layers: int = 1
    ansatz: str = "ry_ring"
    engine: str = "auto"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return QuantumProjection(self, dim, heads)


@dataclass(frozen=True)
class Linear:
    """The usual dense projection, each of Q, K and V a d × d matrix and a bias; 3·(d² + d) parameters."""

    kind: Literal["linear"] = "linear"
    bias: bool = True

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return LinearProjection(self, dim, heads)


@dataclass(frozen=True)
class Cosine:
    """cos(x + w) feature by feature: what is left of a one-layer circuit without its entangling gates."""

    kind: Literal["cosine"] = "cosine"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return CosineProjection(dim, heads)


@dataclass(frozen=True)
class Identity:
    """Q = K = V = x, no parameters: the attention that remains when nothing is projected."""

    kind: Literal["identity"] = "identity"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return IdentityProjection(heads)


Projection = Annotated[Quantum | Linear | Cosine | Identity, Field(discriminator="kind")]
PROJECTIONS: dict[str, type[Any]] = {
    "quantum": Quantum,
    "linear": Linear,
    "cosine": Cosine,
    "identity": Identity,
}


def projection_options() -> list[str]:
    """Return the options that any projection takes, sorted."""
    return sorted({name for row in PROJECTIONS.values() for name in row.__dataclass_fields__} - {"kind"})


def make_projection(kind: str, **options: Any) -> Any:
    """Return the projection value called `kind`; raises `ConfigError` for an unknown name or option."""
    if kind not in PROJECTIONS:
        raise ConfigError(
            f"There is no projection '{kind}'.{nearest(kind, PROJECTIONS)} Known: {', '.join(PROJECTIONS)}."
        )
    valid = [name for name in PROJECTIONS[kind].__dataclass_fields__ if name != "kind"]
    for name in options:
        if name not in valid:
            takes = f"takes {', '.join(valid)}" if valid else "takes no options"
            raise ConfigError(f"The {kind} projection has no option '{name}' (it {takes}).{nearest(name, valid)}")
    return validated(PROJECTIONS[kind], options)


class QuantumProjection(nn.Module):
    """All 3·h circuits of an attention layer, evaluated in one call."""

    def __init__(self, options: Quantum, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.circuits = QuantumLinear(
            dim // heads,
            n_layers=options.n_layers,
            ansatz=options.ansatz,
            engine=options.engine,
            groups=(3, heads),
        )

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        angles = rearrange(tokens, "b n (h q) -> b n 1 h q", h=self.heads)
        return rearrange(self.circuits(angles), "b n three h q -> three b h n q")


class LinearProjection(nn.Module):
    """Dense queries, keys and values from one matrix product."""

    def __init__(self, options: Linear, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.dense = nn.Linear(dim, 3 * dim, bias=options.bias)

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        return rearrange(self.dense(tokens), "b n (three h q) -> three b h n q", three=3, h=self.heads)


class CosineProjection(nn.Module):
    """cos(x + w) for each of Q, K and V; angles start at U(0, 2π) like those of a circuit."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(3, 1, heads, 1, dim // heads).uniform_(0.0, 2.0 * math.pi))

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        return torch.cos(rearrange(tokens, "b n (h q) -> b h n q", h=self.weights.shape[2]) + self.weights)


class IdentityProjection(nn.Module):
    """The tokens themselves, three times."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        return repeat(tokens, "b n (h q) -> three b h n q", three=3, h=self.heads)
