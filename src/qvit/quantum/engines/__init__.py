"""Engines: exact, differentiable ways to turn (circuit, inputs, weights) into expectation values."""

from jaxtyping import Float
from torch import Tensor

from qvit.errors import CircuitError, nearest
from qvit.quantum.circuit import Circuit
from qvit.quantum.engines import dense, product

ENGINES = ("auto", "product", "dense")


def expectations(
    circuit: Circuit,
    inputs: Float[Tensor, "*#batch i"],
    weights: Float[Tensor, "*#groups k"],
    *,
    engine: str = "auto",
) -> Float[Tensor, "*batch_and_groups o"]:
    """Return the exact expectation value of every observable.

    `inputs` `(…, n_inputs)` and `weights` `(…, n_weights)`, radians, broadcast over their leading dimensions,
    so that weights `(g, n_weights)` run g circuits on inputs `(…, g or 1, n_inputs)` at once.
    `engine`: "product" (the closed form, where the circuit has one), "dense", or "auto" for the cheaper.
    Raises `CircuitError` for an unknown engine, or one that cannot run this circuit.
    """
    if engine not in ENGINES:
        raise CircuitError(
            f"There is no engine '{engine}'.{nearest(engine, ENGINES)} Known engines: {', '.join(ENGINES)}."
        )
    plan = product.product_plan(circuit) if engine != "dense" else None
    if plan is not None:
        return product.expectations(plan, inputs, weights)
    if engine == "product":
        raise CircuitError("This circuit is not a product of cosines; use engine='dense' or 'auto'.")
    return dense.expectations(dense.dense_plan(circuit), inputs, weights)
