"""Engines: exact, differentiable ways to turn (circuit, inputs, weights) into expectation values."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.errors import CircuitError, nearest
from qvit.quantum.circuit import Circuit
from qvit.quantum.engines.explain import Explanation, explain
from qvit.quantum.engines.plan import ENGINES, auto_plan, exact_plan

__all__ = ["ENGINES", "Explanation", "Plan", "expectations", "explain", "make_plan"]


@runtime_checkable
class Plan(Protocol):
    """A circuit prepared for one engine, or for a choice of them."""

    def expectations(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectation value of every observable for tensors that are known to fit."""


def make_plan(circuit: Circuit, engine: str = "auto") -> Plan:
    """Prepare a circuit for an engine, one of `ENGINES`; "auto" chooses for every batch size.

    Raises `CircuitError` for an unknown engine, or one that cannot run this circuit.
    """
    if engine not in ENGINES:
        raise CircuitError(
            f"There is no engine '{engine}'.{nearest(engine, ENGINES)} Known engines: {', '.join(ENGINES)}."
        )
    return auto_plan(circuit) if engine == "auto" else exact_plan(circuit, engine)


def expectations(
    circuit: Circuit,
    inputs: Tensor,
    weights: Tensor,
    *,
    engine: str = "auto",
) -> Float[Tensor, "*batch_and_groups o"]:
    """Return the exact expectation value of every observable.

    `inputs` `(…, n_inputs)` and `weights` `(…, n_weights)`, radians, broadcast over their leading dimensions,
    so that weights `(g, n_weights)` run g circuits on inputs `(…, g or 1, n_inputs)` at once. Half precision is
    computed in float32.
    Raises `CircuitError` as `make_plan` does, and for tensors that do not fit the circuit.
    """
    plan = make_plan(circuit, engine)
    _check(circuit, inputs, weights)
    compute = torch.promote_types(inputs.dtype, torch.float32)
    return plan.expectations(inputs.to(compute), weights.to(compute)).to(inputs.dtype)


def _check(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    for name, tensor, n in (("inputs", inputs, circuit.n_inputs), ("weights", weights, circuit.n_weights)):
        if tensor.ndim < 1 or tensor.shape[-1] != n:
            raise CircuitError(f"Expected {name} (…, {n}) for this circuit, got {tuple(tensor.shape)}.")
        if not tensor.is_floating_point() or tensor.dtype != inputs.dtype:
            raise CircuitError(
                f"Expected inputs and weights of one floating-point dtype, got {inputs.dtype} and {weights.dtype}."
            )
    if inputs.device != weights.device:
        raise CircuitError(f"Inputs are on {inputs.device} and weights on {weights.device}; move them together.")
    try:
        np.broadcast_shapes(inputs.shape[:-1], weights.shape[:-1])
    except ValueError as error:
        raise CircuitError(
            f"Inputs {tuple(inputs.shape)} and weights {tuple(weights.shape)} do not broadcast over their leading "
            "dimensions; groups of weights come last among those of the inputs."
        ) from error
