"""QuantumLinear: a parameterised circuit as a layer like any other."""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import CircuitError
from qvit.quantum.ansatz import get_ansatz
from qvit.quantum.engines import make_plan


def uniform_angles(weights: Tensor) -> Tensor:
    """Fill `weights` from U(0, 2π), in place, as PennyLane's TorchLayer does."""
    return nn.init.uniform_(weights, 0.0, 2.0 * math.pi)


class QuantumLinear(nn.Module):
    """A map `(…, n) → (…, n)`: features become rotation angles, ⟨Z⟩ of every qubit comes out, within [−1, 1].

    `n_qubits` is n, `n_layers` the depth of the trainable part, `ansatz` a name from `quantum.ansatz`.
    `groups` makes a layer of several circuits with weights of their own, evaluated in one call: with
    `groups=(3, h)` inputs `(…, 3 or 1, h, n)` give outputs `(…, 3, h, n)`.
    `engine` is one of `quantum.engines.ENGINES`; every engine is exact. `init_method` fills the weights in
    place, U(0, 2π) by default. Half-precision inputs are computed in float32; the output has the input's
    dtype.

    The one parameter is `weights`, of shape `(*groups, *ansatz.weight_shape(n, n_layers))`, in radians.
    Raises `CircuitError` for an impossible size, an unknown name, an engine that cannot run the circuit, or
    inputs of the wrong width or dtype.
    """

    def __init__(
        self,
        n_qubits: int,
        *,
        n_layers: int = 1,
        ansatz: str = "ry_ring",
        groups: tuple[int, ...] = (),
        engine: str = "auto",
        init_method: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_qubits", n_qubits), ("n_layers", n_layers), *(("groups", g) for g in groups)):
            if value < 1:
                raise CircuitError(f"{name} must be at least 1, got {value}.")
        row = get_ansatz(ansatz)
        self.n_qubits, self.n_layers, self.ansatz = n_qubits, n_layers, ansatz
        self.groups, self.engine = tuple(groups), engine
        self.circuit = row.build(n_qubits, n_layers)
        self._plan = make_plan(self.circuit, engine)
        shape = (*self.groups, *row.weight_shape(n_qubits, n_layers))
        self.weights = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self._init_method = init_method or uniform_angles
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights."""
        with torch.no_grad():
            self._init_method(self.weights)

    def forward(self, inputs: Tensor) -> Float[Tensor, "*out q"]:
        """Return ⟨Z⟩ of every qubit for inputs `(…, n)`, or `(…, *groups, n)` with groups."""
        self._check(inputs)
        weights = self.weights.flatten(len(self.groups))
        compute = torch.promote_types(torch.promote_types(inputs.dtype, weights.dtype), torch.float32)
        kind = inputs.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            out = self._plan.expectations(inputs.to(compute), weights.to(compute))
        return out.to(inputs.dtype)

    def _check(self, inputs: Tensor) -> None:
        if inputs.ndim < 1 or inputs.shape[-1] != self.n_qubits:
            raise CircuitError(
                f"Expected inputs (…, {self.n_qubits}), one feature per qubit, got {tuple(inputs.shape)}."
            )
        if not inputs.is_floating_point():
            raise CircuitError(f"Expected floating-point angles in radians, got {inputs.dtype}.")
        lead = inputs.shape[:-1][-len(self.groups) :] if self.groups else ()
        if len(lead) < len(self.groups) or any(
            have not in (1, want) for have, want in zip(lead, self.groups, strict=True)
        ):
            raise CircuitError(
                f"Expected inputs (…, {', '.join(map(str, self.groups))}, {self.n_qubits}) for groups "
                f"{self.groups} (1 where circuits share their input), got {tuple(inputs.shape)}."
            )

    def extra_repr(self) -> str:
        """Describe the circuit in the module's repr."""
        groups = f", groups={self.groups}" if self.groups else ""
        return f"{self.n_qubits}, n_layers={self.n_layers}, ansatz='{self.ansatz}'{groups}"
