"""Find out where numbers stopped being finite."""

import torch
from torch import Tensor, nn

from qvit.errors import TrainingError


def check_finite(
    model: nn.Module, images: Tensor, loss: Tensor, gradient_norm: Tensor, *, epoch: int, step: int, lr: float
) -> None:
    """Raise `TrainingError` with step, learning rate and the offending layer unless loss and gradient are finite."""
    if torch.isfinite(loss + gradient_norm):
        return
    what = "The gradient" if torch.isfinite(loss) else "The loss"
    raise TrainingError(
        f"{what} is no longer finite at epoch {epoch}, step {step}, learning rate {lr:.3g}: "
        f"{find_culprit(model, images)}. Lower lr, set clip_norm, or look at the images of this batch; "
        "the run can be resumed from its last whole epoch."
    )


@torch.no_grad()
def find_culprit(model: nn.Module, images: Tensor) -> str:
    """Name the first thing that is not finite: an input, a parameter, a layer's output, or a gradient."""
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
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of '{name}' is not finite"
    return "every layer's output is finite, so the loss itself overflows"
