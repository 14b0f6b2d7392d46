"""What a model costs: parameters, floating-point operations, and what a quantum computer would need."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qvit.errors import CircuitError, ModelError
from qvit.models.baselines import Baseline
from qvit.models.hardware_cost import HardwareCost, hardware_cost
from qvit.models.vit import ViTConfig
from qvit.models.zoo import Model, ModelConfig, build_without_numbers, count_parameters
from qvit.quantum import QuantumLinear
from qvit.quantum.engines.choose import ENGINES, auto_plan, exact_plan
from qvit.quantum.engines.unitary import UnitaryPlan

COUNTED_ENGINES = tuple(name for name in ENGINES if name not in ("auto", "reference"))  # the oracle is for tests
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


@dataclass(frozen=True)
class Cost:
    """The parameters of a model and the cost of a forward pass of one image; `dataclasses.asdict` of it is JSON.

    `parameters` are trainable ones: in all, in the projections to Q, K and V, and in attention altogether, which adds
    the output projection; the latter two are 0 for networks other than our ViT.

    FLOPs are counted as `count_flops` says: `classical_flops` without the circuits (patch embedding, attention, MLP
    and head), `simulation_flops` the exact simulation of the circuits by `engine`, and `flops` both. `engine` is the
    one that the model names, or that "auto" chooses: "a + b" if circuits use different ones, "" without circuits.
    `simulation_flops_by_engine` has all engines that can run all circuits, except the reference. `hardware` is what a
    quantum computer needs instead of a simulation; None without circuits.

    Of a plain baseline, parameters are the numbers stored, and FLOPs those of its rule, without its fixed features: 0
    of trees, which compare. Both depend on what it was fitted to, so ask of the model, not of a configuration.
    """

    parameters: int
    parameters_in_projections: int
    parameters_in_attention: int
    classical_flops: int
    engine: str
    simulation_flops: int
    simulation_flops_by_engine: dict[str, int]
    flops: int
    hardware: HardwareCost | None


def cost_of(model: Model | ModelConfig, *, accuracy: float = 0.01) -> Cost:
    """Return what a model, or the one that a configuration describes, costs for one image of its size.

    `accuracy` is the standard deviation that shots must reach in every expectation value, see `shots_for`. No numbers
    are computed, so large models take no longer. Raises `ConfigError` for an accuracy outside (0, 1].
    """
    if not isinstance(model, nn.Module):
        model = build_without_numbers(model)
    config = model.config
    if isinstance(model, Baseline):
        rule, none = model.head, hardware_cost([], blocks=1, accuracy=accuracy)
        return Cost(rule.numbers, 0, 0, rule.flops, "", 0, {}, rule.flops, none)
    classical, calls = _without_circuits(model, config.in_chans, config.img_size)
    simulated = sum(call.flops(call.engine) for call in calls)
    return Cost(
        parameters=count_parameters(model),
        parameters_in_projections=count_parameters(model, within=".attention.project."),
        parameters_in_attention=count_parameters(model, within=".attention."),
        classical_flops=classical,
        engine=" + ".join(dict.fromkeys(call.engine for call in calls)),
        simulation_flops=simulated,
        simulation_flops_by_engine=_by_engine(calls),
        flops=classical + simulated,
        hardware=hardware_cost(
            [(call.layer.ansatz, call.layer.circuit, call.evaluations) for call in calls],
            blocks=config.depth * config.loops if isinstance(config, ViTConfig) else 1,
            accuracy=accuracy,
        ),
    )


def count_flops(model: nn.Module, in_chans: int, img_size: int) -> int:
    """Return the floating-point operations of a forward pass of one image in evaluation mode; a multiply-add is two.

    Matrix products, convolutions and attention count, as in `torch.utils.flop_counter`. Operations element by element
    do not: norms, softmax, activations, biases, pooling, normalised inputs, cosines and sines.

    Circuits count as their exact simulation, by the formulas of their engines. Engines differ: for three one-layer
    circuits of 4 qubits "heisenberg" takes 57 operations per token and "statevector" 288. The read-out does not count
    for "unitary", nor do for "subspace" the matrices that it makes once per batch. "auto" counts as the engine that it
    chooses for a usual batch on the CPU, on whatever device the model is.

    The model stays as it is: a copy without numbers runs on the meta device. Raises `ModelError` for sizes below 1, or
    a model that cannot be run like this.
    """
    classical, calls = _without_circuits(model, in_chans, img_size)
    return classical + sum(call.flops(call.engine) for call in calls)


@dataclass(frozen=True)
class CircuitCall:
    """One call of a layer of circuits, on the meta device."""

    layer: QuantumLinear
    inputs: Tensor

    @property
    def engine(self) -> str:
        """The engine that the layer names."""
        return self.layer.engine

    @property
    def evaluations(self) -> int:
        """The number of circuits that run."""
        lead = self.inputs.shape[: self.inputs.ndim - 1 - len(self.layer.groups)]
        return math.prod(lead) * math.prod(self.layer.groups)

    def flops(self, engine: str) -> int:
        """Return the operations that an engine takes; raises `CircuitError` if it cannot run the circuit."""
        plan = exact_plan(self.layer.circuit, engine)
        if isinstance(plan, UnitaryPlan):  # torch's counter sees its matrix products only
            groups = math.prod(self.layer.groups)
            return round(plan.flops(self.evaluations // groups, groups))
        return self.counted(engine)

    def counted(self, engine: str) -> int:
        """Return the operations that torch's counter sees."""
        layer, weights = self.layer, self.layer.weights
        shape = (*layer.groups, layer.circuit.n_weights)
        with FlopCounterMode(display=False) as counter:
            exact_plan(layer.circuit, engine).expectations(self.inputs.float(), weights.reshape(shape).float())
        return int(counter.get_total_flops())


def _by_engine(calls: list[CircuitCall]) -> dict[str, int]:
    """Return the operations of all calls by every engine that can run all of them."""
    found = {}
    for engine in COUNTED_ENGINES if calls else ():
        try:
            found[engine] = sum(call.flops(engine) for call in calls)
        except CircuitError:
            continue
    return found


def _without_circuits(model: nn.Module, in_chans: int, img_size: int) -> tuple[int, list[CircuitCall]]:
    """Return the operations of a forward pass of one image without circuits, and the calls of circuits in it."""
    if in_chans < 1 or img_size < 1:
        raise ModelError(f"Expected images of at least 1 channel and 1 pixel, got {in_chans} and {img_size}.")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    images = torch.empty(1, in_chans, img_size, img_size, dtype=dtype, device="meta")
    calls: list[CircuitCall] = []

    def record(layer: nn.Module, positional: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        assert isinstance(layer, QuantumLinear)
        calls.append(CircuitCall(layer, positional[0] if positional else named["inputs"]))

    try:
        twin = _without_numbers(model)
        for layer in twin.modules():
            if isinstance(layer, QuantumLinear):
                layer.register_forward_pre_hook(record, with_kwargs=True)
        with FlopCounterMode(display=False) as counter:
            twin(images)
        return int(counter.get_total_flops()) - sum(call.counted(call.engine) for call in calls), calls
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"Expected a {type(model).__name__} that takes {tuple(images.shape)} images on torch's meta device, got: "
            f"{' '.join(str(error).split()).rstrip('.')}. Check in_chans and img_size; a forward pass that looks at "
            "values cannot be counted."
        ) from error


def _without_numbers(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device, in evaluation mode, whose circuits all have a definite engine.

    On the meta device the attention kernel of the CPU, which no counter sees, is never used.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    for layer in twin.modules():
        if isinstance(layer, QuantumLinear) and layer.engine == "auto":
            layer.engine = auto_plan(layer.circuit).typical
    return copy.deepcopy(twin)  # layers are prepared for their engine when they are copied


def si(count: float) -> str:
    """Return a count of 0 or more with three significant digits and a prefix: 834, 1.12k, 11.2M, 870M, 1.8G."""
    scaled, place = float(count), 0
    # The rounded count decides: 999,600 is 1M, not 1000k.
    while float(f"{scaled:.3g}") >= 1000.0 and place < len(_PREFIXES) - 1:
        scaled, place = scaled / 1000.0, place + 1
    return f"{float(f'{scaled:.3g}'):g}{_PREFIXES[place]}"
