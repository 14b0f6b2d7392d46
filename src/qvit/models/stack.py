"""Stacks: m models of one architecture in one module, so that each operation computes something for all of them.

In a stack every parameter and buffer has an axis in front, and so have images, tokens and logits: each model computes
with its own parameters on its own images. No operation mixes models, so what a model computes does not depend, bit for
bit, on the others nor on their number.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qvit.errors import ModelError
from qvit.models.attention import NARROW
from qvit.models.baselines import BaselineConfig
from qvit.models.stacked_layers import StackedLinear, StackedPatches
from qvit.models.vit import ViT, ViTConfig
from qvit.models.zoo import ModelConfig
from qvit.quantum import QuantumLinear

M = TypeVar("M", bound=nn.Module)


def unstackable(config: ModelConfig) -> str | None:
    """Return why models of this configuration cannot be stacked, in words; None if they can."""
    if isinstance(config, BaselineConfig):
        return f"{config.arch} is fitted, not trained, and takes no steps"
    if not isinstance(config, ViTConfig):
        return f"{config.arch} is not a ViT of ours: its layers have no axis for several models"
    if config.dropout > 0.0:
        return "dropout draws from one random stream, and models of a stack may not share one"
    return None


def bytes_of_training(config: ViTConfig, batch: int) -> int:
    """Return about how much memory a training step of one model of a stack takes, for `batch` images.

    Measured: an image's pixels are there twice, and once as places of eight bytes under its symmetry; its tokens twelve
    times, and nine times for each block. Heads that no kernel of ours is for keep their scores.
    """
    pixels = config.img_size**2 * (2 * config.in_chans + 8)
    if config.features != "raw":  # whose pixels are numbers of four bytes, there six times
        pixels += 24 * config.in_chans * config.img_size**2
    depth = config.depth * config.loops
    tokens = 4 * config.tokens * (config.dim * (12 + 6 * depth) + 3 * config.values * depth)
    scores = 20 * config.heads * config.tokens**2 * depth if config.values // config.heads > NARROW else 0
    return batch * (pixels + tokens + scores)


_STACKED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: StackedLinear, nn.Conv2d: StackedPatches}
_ALONE = {stacked: alone for alone, stacked in _STACKED.items()}


def stacked(models: Sequence[ViT]) -> ViT:
    """Return one module of all models, with copies of their parameters and buffers, each `(m, …)`.

    Its state has the names of a single model's. Raises `ModelError` unless all models have one configuration, which
    can be stacked, and the same layers.
    """
    if not models:
        raise ModelError("Expected at least one model to stack, got none.")
    first = models[0]
    reason = unstackable(first.config)
    if reason is not None:
        raise ModelError(f"These models cannot be stacked: {reason}. Train them one by one.")
    if any(model.config != first.config for model in models):
        raise ModelError("Expected models of one configuration to stack, got different ones; stack them separately.")
    return stacked_modules(models)


def stacked_modules(modules: Sequence[M]) -> M:
    """Return one module of several, with copies of their parameters and buffers `(m, …)`; all else is the first's.

    Raises `ModelError` unless all have the same layers.
    """
    if any(_shapes(module) != _shapes(modules[0]) for module in modules):
        raise ModelError("Expected models with the same layers, dtypes and frozen parameters; stack them separately.")
    stack = copy.deepcopy(modules[0])
    parts = [dict(module.named_modules()) for module in modules]
    for name, module in stack.named_modules():
        alike = [part[name] for part in parts]
        for own, value in module._parameters.items():
            if value is not None:
                values = torch.stack([getattr(one, own).detach() for one in alike])
                module._parameters[own] = nn.Parameter(values, requires_grad=value.requires_grad)
        for own, value in module._buffers.items():
            if value is not None:
                module._buffers[own] = torch.stack([getattr(one, own) for one in alike])
        if isinstance(module, QuantumLinear):
            module.groups, module.models = (len(modules), *module.groups), len(modules)
        kind = _STACKED.get(type(module))
        if kind is not None:
            module.__class__ = kind
    return stack


def part(stack: M, places: Sequence[int]) -> M:
    """Return the stack of the models at some places of another, whose parameters are functions of the other's.

    What is differentiated through it gives gradients to the whole stack. A place may be given several times.
    """
    return _changed(stack, lambda values: values[torch.tensor(places, device=values.device)])


def alone(stack: ViT, place: int) -> ViT:
    """Return one model of a stack as a model like any other, with copies of its parameters and their gradients."""

    def taken(values: Tensor) -> Tensor:
        if not isinstance(values, nn.Parameter):
            return values[place].clone()
        own = nn.Parameter(values[place].detach().clone(), requires_grad=values.requires_grad)
        own.grad = None if values.grad is None else values.grad[place].clone()
        return own

    found = _changed(stack, taken)
    for module in found.modules():
        if type(module) in _ALONE:
            module.__class__ = _ALONE[type(module)]
    return found


def _changed(module: M, change: Callable[[Tensor], Tensor]) -> M:
    """Return a module like this one, with all parameters and buffers changed."""
    other: Any = copy.copy(module)
    other._parameters = {name: None if value is None else change(value) for name, value in module._parameters.items()}
    other._buffers = {name: None if value is None else change(value) for name, value in module._buffers.items()}
    other._modules = {name: child and _changed(child, change) for name, child in module._modules.items()}
    if isinstance(module, QuantumLinear):
        of_circuit = module.weights.ndim - len(module.groups)
        other.groups = tuple(other.weights.shape[: other.weights.ndim - of_circuit])
        other.models = other.groups[0] if len(other.groups) == len(module.groups) else 1
    return other


def _shapes(model: nn.Module) -> list[tuple[Any, ...]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    layers = [(name, type(module)) for name, module in model.named_modules()]
    return [*layers, *((name, value.shape, value.dtype, value.device, value.requires_grad) for name, value in named)]


def member(stacked_state: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
    """Return the state of one model from that of a stack, as views."""
    return {name: value[place] for name, value in stacked_state.items()}
