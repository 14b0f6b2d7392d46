"""Find where numbers stopped being finite."""

import math

import torch
from torch import Tensor, nn

from qvit.errors import TrainingError
from qvit.training.distributed import ALONE, Team


def check_finite(
    model: nn.Module,
    images: Tensor,
    loss: Tensor,
    gradient_norm: Tensor,
    *,
    epoch: int,
    step: int,
    lr: float,
    own_loss: Tensor | None = None,
    team: Team = ALONE,
) -> None:
    """Raise `TrainingError` with step, learning rate and the offending layer unless loss and gradient are finite.

    In a `team`, each process has the same loss and gradient, but its own images and `own_loss`, which says with whose
    images to look for the layer.
    """
    total = loss.detach() + gradient_norm
    if total.isfinite().all() if total.ndim else math.isfinite(total):  # of one model, the quicker way
        return
    raise not_finite(model, images, loss, epoch=epoch, step=step, lr=lr, own_loss=own_loss, team=team)


def not_finite(
    model: nn.Module,
    images: Tensor,
    loss: Tensor,
    *,
    epoch: int,
    step: int,
    lr: float,
    own_loss: Tensor | None = None,
    team: Team = ALONE,
) -> TrainingError:
    """Return the error of `check_finite` for a model whose loss, or else a gradient, is not finite."""
    if torch.isfinite(loss).all():
        what, culprit = "The gradient", find_gradient(model)
    else:
        here = own_loss is not None and not torch.isfinite(own_loss).all()
        found = team.collect((here, find_culprit(model, images)))
        what, culprit = "The loss", max(found, key=lambda one: one[0])[1]
    return TrainingError(
        f"{what} is no longer finite at epoch {epoch}, step {step}, learning rate {lr:.3g}: {culprit}. "
        "Train again in another folder with a lower lr or a clip_norm, or look at the images of this batch."
    )


def find_gradient(model: nn.Module) -> str:
    """Return words for the last parameter whose gradient is not finite: gradients flow backwards, so it began there."""
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of '{name}' is the first in the backward pass that is not finite"
    return "every gradient is finite, so their norm overflows"


@torch.no_grad()
def find_culprit(model: nn.Module, images: Tensor) -> str:
    """Return words for the first thing that is not finite: the images, a parameter, or a layer's output."""
    if images.is_floating_point() and not torch.isfinite(images).all():
        return "the images of the batch hold NaN or infinity"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weights '{name}' hold NaN or infinity"
    culprits: list[str] = []
    hooks = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: (
                culprits.append(name) if isinstance(output, Tensor) and not torch.isfinite(output).all() else None
            )
        )
        for name, module in model.named_modules()
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if culprits:
        return f"layer '{culprits[0] or 'model'}' is the first whose output is not finite"
    return "every layer's output is finite, so the loss itself overflows"
