"""QuantumLinear: a parameterised circuit as an ordinary torch layer."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import CircuitError, CircuitWarning
from qvit.quantum.ansatz import Ansatz, build_circuit, get_ansatz
from qvit.quantum.engines import Explanation, evaluate, explain, make_plan
from qvit.quantum.limits import MOST_GROUPS, MOST_LAYERS, MOST_WIRES, whole
from qvit.quantum.program import analyse
from qvit.torch_private import sizes


def uniform_angles(weights: Tensor) -> Tensor:
    """Fill `weights` from U(0, 2π), in place, as PennyLane's TorchLayer does."""
    return nn.init.uniform_(weights, 0.0, 2.0 * math.pi)


class QuantumLinear(nn.Module):
    """A map `(…, n_inputs) → (…, n_outputs)`: features become angles, expectation values in [−1, 1] come out.

    `n_qubits` is n, `n_layers` the depth of the trainable part, `ansatz` a name from `quantum.ansatz` or an `Ansatz`;
    most have n inputs and the n outputs ⟨Zᵢ⟩. `groups` makes a layer of several circuits with weights of their own,
    evaluated in one call: with `groups=(3, h)` inputs `(…, 3 or 1, h, n)` give outputs `(…, 3, h, n)`.
    `engine` is one of `quantum.engines.ENGINES`; every engine is exact. `init_method` fills the weights in place,
    U(0, 2π) by default. Half-precision inputs are computed in float32; the output has the input's dtype.

    The one parameter is `weights`, of shape `(*groups, *ansatz.weight_shape(n, n_layers))`, in radians.
    Warns (`CircuitWarning`) of inputs and weights that cannot influence any output, unless on the meta device. Raises
    `CircuitError` for an impossible size, an unknown name, an engine that cannot run the circuit, or inputs of the
    wrong width or dtype.
    """

    def __init__(
        self,
        n_qubits: int,
        *,
        n_layers: int = 1,
        ansatz: str | Ansatz = "ry_ring",
        groups: tuple[int, ...] = (),
        engine: str = "auto",
        init_method: Callable[[Tensor], Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(groups, tuple | list):
            raise CircuitError(f"groups must be a tuple such as (3, 2), got {groups!r}.")
        n_qubits = whole("n_qubits", n_qubits, least=1, most=MOST_WIRES)
        n_layers = whole("n_layers", n_layers, least=1, most=MOST_LAYERS)
        groups = tuple(whole("groups", value, least=1, most=MOST_GROUPS) for value in groups)
        whole("The number of circuits in groups", math.prod(groups), least=1, most=MOST_GROUPS)
        if not isinstance(ansatz, str | Ansatz):
            raise CircuitError(f"ansatz must be a name or an Ansatz, got {ansatz!r:.80}.")
        row = get_ansatz(ansatz) if isinstance(ansatz, str) else ansatz
        self.n_qubits, self.n_layers, self.ansatz = n_qubits, n_layers, row.name
        self.groups, self.engine = groups, engine
        self.models = 1  # whose circuits these are, see `models.stack`: then the first of the groups
        self.circuit = build_circuit(row, n_qubits, n_layers)
        self._plan = make_plan(self.circuit, engine)
        on = torch.get_default_device() if device is None else torch.device(device)
        for complaint in analyse(self.circuit).complaints() if on.type != "meta" else ():  # there it is only counted
            warnings.warn(f"{row.name} on {n_qubits} qubit(s): {complaint}", CircuitWarning, stacklevel=2)
        shape = (*self.groups, *row.weight_shape(n_qubits, n_layers))
        self.weights = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self._init_method = init_method or uniform_angles
        self.reset_parameters()

    @property
    def n_inputs(self) -> int:
        """The number of features."""
        return self.circuit.n_inputs

    @property
    def n_outputs(self) -> int:
        """The number of expectation values."""
        return len(self.circuit.observables)

    def explain(self, *, tokens: int = 1568, measure: bool = True) -> Explanation:
        """Return how a batch of `tokens` is run, with each engine's predicted and measured cost, to be printed."""
        return explain(
            self.circuit,
            tokens=tokens,
            groups=math.prod(self.groups),
            dtype=self.weights.dtype,
            device=self.weights.device.type,
            measure=measure,
        )

    def reset_parameters(self) -> None:
        """Draw fresh weights."""
        with torch.no_grad():
            self._init_method(self.weights)

    def forward(self, inputs: Tensor) -> Float[Tensor, "*out o"]:
        """Return the expectation values for inputs `(…, n_inputs)`, or `(…, *groups, n_inputs)` with groups."""
        self._check(inputs)
        weights = self.weights.reshape(*self.groups, self.circuit.n_weights)
        return evaluate(self._plan, inputs, weights, models=self.models)

    def _check(self, inputs: Tensor) -> None:
        shape = sizes(inputs)
        if inputs.ndim < 1 or shape[-1] != self.n_inputs:
            raise CircuitError(f"Expected inputs (…, {self.n_inputs}), got {tuple(inputs.shape)}.")
        if not inputs.is_floating_point():
            raise CircuitError(f"Expected floating-point angles in radians, got {inputs.dtype}.")
        lead = shape[:-1][-len(self.groups) :] if self.groups else ()
        if len(lead) < len(self.groups) or any(
            have not in (1, want) for have, want in zip(lead, self.groups, strict=True)
        ):
            raise CircuitError(
                f"Expected inputs (…, {', '.join(map(str, self.groups))}, {self.n_inputs}) for groups "
                f"{self.groups} (1 where circuits share their input), got {tuple(inputs.shape)}."
            )

    def __getstate__(self) -> dict[str, Any]:
        # Plans hold tables of size 2ⁿ and are made again from the circuit.
        return {key: value for key, value in self.__dict__.items() if key != "_plan"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._plan = make_plan(self.circuit, self.engine)

    def extra_repr(self) -> str:
        """Describe the circuit in the module's repr."""
        groups = f", groups={self.groups}" if self.groups else ""
        return f"{self.n_qubits}, n_layers={self.n_layers}, ansatz='{self.ansatz}'{groups}"
