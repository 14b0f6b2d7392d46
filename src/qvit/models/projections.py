"""What turns tokens into queries, keys and values: the one place where quantum and classical models differ.

A projection is a small immutable value; `build(dim, heads)` makes its module, which maps tokens `(b, n, d)` to queries
and keys `(b, h, n, k)` and values `(b, h, n, q)`, where q = d/h unless more is read out of a circuit (`values_of`). All
but `Unlu` have k = q. Every head of every projection sees
the same interface, so two arms of a comparison share all other code. In a stack of models (see `models.stack`) all of
these, and all parameters, have an axis m in front.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import torch
from einops import rearrange
from pydantic import Field
from torch import nn

from qvit.errors import ConfigError, ModelError, nearest
from qvit.models.controls import Circulant, Cosine, Givens, Identity, Linear, Readout, Tokens
from qvit.models.limits import check_circuit
from qvit.models.triples import QueriesKeysValues, unstacked
from qvit.quantum import QuantumLinear, Z, get_ansatz
from qvit.quantum.ansatz import Ansatz, build_circuit, with_pairs
from qvit.validate import validated

__all__ = [
    "PROJECTIONS",
    "Circulant",
    "Cosine",
    "Frozen",
    "Givens",
    "Identity",
    "Linear",
    "NoEntangler",
    "Projection",
    "Quantum",
    "QueriesKeysValues",
    "Readout",
    "Tokens",
    "Unlu",
    "make_projection",
    "projection_options",
    "values_of",
]


@dataclass(frozen=True)
class Quantum:
    """One circuit per head for each of Q, K and V, on q = d/h qubits; 3·h·q parameters per layer of "ry_ring".

    `n_layers` and `ansatz` describe the circuit, `engine` how it is simulated (see `QuantumLinear`). The `readout` "zz"
    is not just all ⟨Zᵢ⟩ but all ⟨ZᵢZⱼ⟩ as well: q(q + 1)/2 values of a head for each of Q, K and V. Building raises
    `ModelError` for an ansatz that does not take q features to q values ⟨Zᵢ⟩, and warns as `QuantumLinear` does.
    """

    kind: Literal["quantum"] = "quantum"
    n_layers: int = 1
    ansatz: str = "ry_ring"
    readout: Readout = "z"
    engine: str = "auto"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return QuantumProjection(self, dim, heads)


@dataclass(frozen=True)
class NoEntangler:
    """Control: the quantum projection without its CNOTs, so that no feature meets another.

    With any `n_layers` it is cos(x + Σ w): `Cosine` is its one-layer case, computed without a circuit.
    """

    kind: Literal["no_entangler"] = "no_entangler"
    n_layers: int = 1
    readout: Readout = "z"
    engine: str = "auto"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        options = Quantum(n_layers=self.n_layers, ansatz="no_entangler", readout=self.readout, engine=self.engine)
        return QuantumProjection(options, dim, heads)


@dataclass(frozen=True)
class Frozen:
    """Control: random circuits that are not trained, different in each block; no trainable parameters.

    Their weights are saved with the model, but need no gradient. Options and errors as for `Quantum`.
    """

    kind: Literal["frozen"] = "frozen"
    n_layers: int = 1
    ansatz: str = "ry_ring"
    readout: Readout = "z"
    engine: str = "auto"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        options = Quantum(n_layers=self.n_layers, ansatz=self.ansatz, readout=self.readout, engine=self.engine)
        return QuantumProjection(options, dim, heads).requires_grad_(False)


@dataclass(frozen=True)
class Unlu:
    """The attention of Unlu et al. 2024 (arXiv:2402.00776): scores −(qᵢ − kⱼ)² of one number per token, not of vectors.

    Values come from a circuit of the ansatz "unlu_v" per head, q and k from ⟨Z₀⟩ of two of "unlu_qk"; with L layers
    on d/h qubits these are 9·L·d + 2·h parameters.
    """

    kind: Literal["unlu"] = "unlu"
    n_layers: int = 1
    engine: str = "auto"

    def build(self, dim: int, heads: int) -> nn.Module:
        """Return the module."""
        return UnluProjection(self, dim, heads)


_ALL: tuple[type[Any], ...] = (Quantum, Linear, Cosine, Identity, NoEntangler, Frozen, Givens, Circulant, Unlu)
PROJECTIONS: dict[str, type[Any]] = {row.kind: row for row in _ALL}
if TYPE_CHECKING:
    Projection = Any
else:
    Projection = Annotated[Union[_ALL], Field(discriminator="kind")]  # noqa: UP007


def projection_options() -> list[str]:
    """Return the options that any projection takes, sorted."""
    return sorted({name for row in PROJECTIONS.values() for name in row.__dataclass_fields__} - {"kind"})


def values_of(projection: Any, width: int) -> int:
    """Return how many values a projection gives of a head's `width` features."""
    return width * (width + 1) // 2 if getattr(projection, "readout", "z") == "zz" else width


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
        check_circuit(options.ansatz, dim // heads, options.n_layers)
        _check_fits(options, dim // heads)
        row = get_ansatz(options.ansatz)
        row = with_pairs(row) if options.readout == "zz" else row
        self.circuits = _circuits(options, row, dim // heads, (3, heads))

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries, keys and values."""
        angles = rearrange(tokens, "... b n (h q) -> b n ... 1 h q", h=self.heads)
        return unstacked(rearrange(self.circuits(angles), "b n ... three h q -> ... three b h n q"))


class UnluProjection(nn.Module):
    """Values from h circuits, the numbers q and k from 2·h others.

    Scores are −(qᵢ − kⱼ)² = 2·qᵢ·kⱼ − kⱼ² − qᵢ², of which softmax over keys j does not see −qᵢ². The rest is a dot
    product of queries √2·(2q, −1) and keys (k, k²), for an attention that divides scores by the root of their width, 2.
    """

    def __init__(self, options: Unlu, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        check_circuit("unlu_v", dim // heads, options.n_layers)
        self.score_circuits = _circuits(options, "unlu_qk", dim // heads, (2, heads))
        self.value_circuits = _circuits(options, "unlu_v", dim // heads, (heads,))

    def forward(self, tokens: Tokens) -> QueriesKeysValues:
        """Return queries and keys `(*m, b, h, n, 2)`, and values `(*m, b, h, n, q)`."""
        angles = rearrange(tokens, "... b n (h q) -> b n ... h q", h=self.heads)
        q, k = rearrange(self.score_circuits(angles[..., None, :, :]), "b n ... two h 1 -> two ... b h n")
        values = rearrange(self.value_circuits(angles), "b n ... h q -> ... b h n q")
        queries = math.sqrt(2.0) * torch.stack((2.0 * q, -torch.ones_like(q)), -1)
        return queries, torch.stack((k, k.square()), -1), values


def _circuits(options: Quantum | Unlu, ansatz: str | Ansatz, width: int, groups: tuple[int, ...]) -> QuantumLinear:
    """Return circuits with parameters on torch's default device.

    Engines keep their tables for all models, so these must not be made on the meta device, where models are counted.
    """
    device = torch.get_default_device()
    with torch.device("cpu"):
        return QuantumLinear(
            width, n_layers=options.n_layers, ansatz=ansatz, engine=options.engine, groups=groups, device=device
        )


def _check_fits(options: Quantum, width: int) -> None:
    if not isinstance(options.n_layers, Integral) or options.n_layers < 1:
        return  # QuantumLinear refuses these
    circuit = build_circuit(get_ansatz(options.ansatz), width, options.n_layers)
    have = circuit.n_inputs, len(circuit.observables)
    if have != (width, width) or (options.readout == "zz" and circuit.observables != tuple(map(Z, range(width)))):
        raise ModelError(
            f"The ansatz '{options.ansatz}' takes {have[0]} feature(s) to {have[1]} value(s) on {width} qubit(s), but "
            f"attention needs {width} to {width} in heads of width {width}; use another ansatz, such as 'ry_ring'."
        )
