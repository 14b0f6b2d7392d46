"""Engines: exact, differentiable ways to turn (circuit, inputs, weights) into expectation values."""

from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from qvit.errors import CircuitError, nearest
from qvit.files import shown
from qvit.quantum.circuit import Circuit
from qvit.quantum.engines.choose import ENGINES, AutoPlan, Explanation, auto_plan, exact_plan, explain
from qvit.quantum.engines.engine import Plan
from qvit.torch_private import plain, sizes

__all__ = ["ENGINES", "Explanation", "Plan", "evaluate", "expectations", "explain", "make_plan"]


def make_plan(circuit: Circuit, engine: str = "auto") -> Plan:
    """Prepare a circuit for an engine, one of `ENGINES`; "auto" chooses for every batch size.

    Raises `CircuitError` for an unknown engine, or one that cannot run this circuit.
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise CircuitError(
            f"There is no engine '{shown(str(engine))}'.{nearest(engine, ENGINES)} Known engines: {', '.join(ENGINES)}."
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
    return evaluate(plan, inputs, weights)


def evaluate(plan: Plan, inputs: Tensor, weights: Tensor, *, models: int = 1) -> Float[Tensor, "*batch_and_groups o"]:
    """Return a plan's expectation values for tensors that fit, in the dtype of the inputs.

    `models` is how many models of a stack the groups are of, which makes no difference for any of them. Values are
    computed in the wider of both dtypes, at least float32, and autocast is ignored. Subclasses of `Tensor`
    are treated as by torch's own functions: by `__torch_function__`, whose default gives a result of their type.
    """
    if has_torch_function((inputs, weights)):
        return handle_torch_function(evaluate, (inputs, weights), plan, inputs, weights, models=models)
    compute = torch.promote_types(torch.promote_types(inputs.dtype, weights.dtype), torch.float32)
    kind = inputs.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        given = plain(inputs).to(compute), plain(weights).to(compute)
        exact = plan.chosen(*given, models) if isinstance(plan, AutoPlan) else plan
        return exact.expectations(*given).to(inputs.dtype)


def _check(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    for name, tensor, n in (("inputs", inputs, circuit.n_inputs), ("weights", weights, circuit.n_weights)):
        if not isinstance(tensor, Tensor):
            raise CircuitError(f"Expected {name} as a tensor, got {type(tensor).__name__}.")
        if tensor.ndim < 1 or sizes(tensor)[-1] != n:
            raise CircuitError(f"Expected {name} (…, {n}) for this circuit, got {tuple(tensor.shape)}.")
        if not tensor.is_floating_point() or tensor.dtype != inputs.dtype:
            raise CircuitError(
                f"Expected inputs and weights of one floating-point dtype, got {inputs.dtype} and {weights.dtype}."
            )
    if inputs.device != weights.device:
        raise CircuitError(f"Inputs are on {inputs.device} and weights on {weights.device}; move them together.")
    try:
        np.broadcast_shapes(sizes(inputs)[:-1], sizes(weights)[:-1])
    except ValueError as error:
        raise CircuitError(
            f"Inputs {tuple(inputs.shape)} and weights {tuple(weights.shape)} do not broadcast over their leading "
            "dimensions; the groups of the weights must come last in those of the inputs."
        ) from error
