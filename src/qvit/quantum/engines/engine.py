"""The interface of engines: how one prepares a circuit, and what a batch would cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from qvit.cpu.parts import VECTOR_BYTES
from qvit.quantum.circuit import Circuit


@dataclass(frozen=True)
class Prices:
    """Seconds per launch, floating-point operation and byte.

    In plain torch a launch is one differentiable operation, forward and backward; with a kernel it is the whole call.
    """

    launch: float
    flop: float
    byte: float


@dataclass(frozen=True)
class Forecast:
    """The cost of a forward and backward pass: operator launches, floating-point operations, bytes moved."""

    launches: float
    flops: float
    bytes: float

    def seconds(self, prices: Prices) -> float:
        """Return the time on a machine of these prices."""
        return self.launches * prices.launch + self.flops * prices.flop + self.bytes * prices.byte


@runtime_checkable
class Plan(Protocol):
    """A circuit prepared for one engine, or for a choice of them."""

    def expectations(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectation value of every observable for tensors that are known to fit."""


@runtime_checkable
class ExactPlan(Plan, Protocol):
    """A circuit prepared for one engine."""

    def forecast(self, tokens: int, groups: int, itemsize: int, *, kernel: bool) -> Forecast:
        """Return the cost of a batch, forward and backward; `kernel` is whether a CPU kernel runs it."""


@dataclass(frozen=True)
class Engine:
    """How circuits are prepared, and prices on a CPU and on a GPU; the latter are orders of magnitude, not measured.

    `make` raises `CircuitError` for a circuit that the engine cannot run; `warm` does work that would otherwise be
    done, and perhaps traced, in the first call.
    """

    make: Callable[[Circuit], ExactPlan]
    cpu: Prices
    gpu: Prices
    warm: Callable[[Any], object] = lambda plan: None


def blocks(tokens: int, groups: int, itemsize: int) -> int:
    """Return how many vectors of tokens a kernel works on, one after the other."""
    return groups * -(-tokens // (VECTOR_BYTES // itemsize))
