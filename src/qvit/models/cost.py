"""What a forward pass costs, counted without computing anything."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qvit.errors import ModelError
from qvit.quantum import QuantumLinear
from qvit.quantum.engines.plan import auto_plan

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def count_flops(model: nn.Module, in_chans: int, img_size: int) -> int:
    """Return the floating-point operations of a forward pass of one image in evaluation mode; a multiply-add is two.

    Counted are matrix products, convolutions and attention, as `torch.utils.flop_counter` does. It leaves out what is
    done element by element: norms, softmax, activations, biases, pooling, normalised inputs, cosines and sines.

    Circuits count as their exact simulation, by the formulas of their engines. Engines differ: for three one-layer
    circuits of 4 qubits "heisenberg" takes 57 operations a token and "statevector" 288; of "subspace" and "unitary"
    only matrix products are seen. "auto" is taken as the engine that it chooses for a usual batch on the CPU, wherever
    the model is.

    The model stays as it is: a copy without numbers runs on the meta device. Raises `ModelError` for sizes below 1, or
    a model that cannot be run like this.
    """
    if in_chans < 1 or img_size < 1:
        raise ModelError(f"Expected images of at least 1 channel and 1 pixel, got {in_chans} and {img_size}.")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    images = torch.empty(1, in_chans, img_size, img_size, dtype=dtype, device="meta")
    try:
        twin = _without_numbers(model)
        with FlopCounterMode(display=False) as counter:
            twin(images)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"Expected a {type(model).__name__} that takes {tuple(images.shape)} images on torch's meta device, got: "
            f"{' '.join(str(error).split())}. Check in_chans and img_size; a forward pass that looks at values "
            "cannot be counted."
        ) from error
    return int(counter.get_total_flops())


def _without_numbers(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device, in evaluation mode, whose circuits all have a definite engine.

    On the meta device the attention kernel of the CPU, which no counter sees, is never taken.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    for layer in twin.modules():
        if isinstance(layer, QuantumLinear) and layer.engine == "auto":
            layer.engine = auto_plan(layer.circuit).typical
    return copy.deepcopy(twin)  # layers are prepared for their engine when they are copied


def si(count: float) -> str:
    """Return a count of 0 or more with three significant digits and a prefix: 834, 1.12k, 11.2M, 870M, 1.8G."""
    scaled, place = float(count), 0
    # Decided by what will be read: 999,600 is 1M, not 1000k.
    while float(f"{scaled:.3g}") >= 1000.0 and place < len(_PREFIXES) - 1:
        scaled, place = scaled / 1000.0, place + 1
    return f"{float(f'{scaled:.3g}'):g}{_PREFIXES[place]}"
