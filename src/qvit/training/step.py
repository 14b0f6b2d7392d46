"""One step of training: the loss of a batch, gradients, clipping, and the optimiser, for one model or a stack."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import TrainingError
from qvit.models.convolutions import differentiate
from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.diagnose import check_finite
from qvit.training.distributed import ALONE, Team
from qvit.training.objective import Objective
from qvit.training.optimizer import AdamW, StackedAdamW

NOTHING = 1e-6  # added to a norm before it divides, as torch's clip_grad_norm_ does


def train_step(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    optimizer: AdamW,
    *,
    lr: float,
    clip_norm: float | None = None,
    epoch: int = 1,
    step: int = 1,
    team: Team = ALONE,
) -> Float[Tensor, "*m"]:
    """Take one step at the rate `lr` on each model's mean of `objective` over a batch; returns these means.

    In a `team`, `batch` is this process's share. The gradients of a model are scaled down to a total norm of
    `clip_norm` if they exceed it. Raises `TrainingError`, which names `epoch` and `step`, before anything is changed if
    the loss or a gradient is not finite, or if the loss depends on no parameter.
    """
    part = team.part(objective(model, batch))
    if not part.requires_grad:
        raise TrainingError(
            f"The loss at epoch {epoch}, step {step} depends on no parameter that can be trained, so there is nothing "
            "to learn; is the model's output detached, or computed under torch.no_grad?"
        )
    if part.ndim and any(parameter.shape[: part.ndim] != part.shape for parameter in optimizer.parameters):
        raise TrainingError(
            f"Expected an objective with one loss per image, {len(batch.index)} in all, found losses of the shape "
            f"{(*part.shape, len(batch.index))}, and parameters that are not those of so many models."
        )
    optimizer.zero_grad()
    differentiate(part.sum() if part.ndim else part)  # each model's parameters are in its own loss alone
    loss = team.combine(part.detach(), optimizer.parameters, images=len(batch.index))
    gradients = [parameter.grad for parameter in optimizer.parameters if parameter.grad is not None]
    own = [gradient.reshape(*loss.shape, -1) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.cat([loss.new_zeros(*loss.shape, 1), *own], dim=-1), dim=-1)
    check_finite(model, batch.images, loss, norm, epoch=epoch, step=step, lr=lr, own_loss=part, team=team)
    if clip_norm is not None:  # after the check: clipping by a NaN would hide where it came from
        factor = clip_norm / (norm + NOTHING)
        if (factor < 1.0).any():
            factor = factor.clamp(max=1.0)
            for gradient in gradients:
                axes = [1] * (gradient.ndim - loss.ndim) if loss.ndim else []  # a single number needs none
                gradient.mul_(factor.reshape([*loss.shape, *axes]) if axes else factor)
    optimizer.set_lr(lr)
    optimizer.step()
    return loss


def stack_step(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    optimizer: StackedAdamW,
    *,
    places: Sequence[int],
    still: Sequence[int] = (),
    lr: Sequence[float],
    clip_norm: Sequence[float | None],
) -> tuple[Float[Tensor, " p"], list[int]]:
    """Take one step with the models of a stack at `places`, of which `model`, batch, objective, rates and norms are.

    Returns their losses, and the places of those whose loss or gradient is not finite: these, and those that are to
    hold `still`, are left as they are.
    """
    means = objective(model, batch).mean(dim=-1)
    optimizer.zero_grad()
    differentiate(means.sum())  # each model's parameters are in its own loss alone
    losses, gradient = means.detach(), optimizer.gradient()
    norms = torch.linalg.vector_norm(gradient, dim=-1)
    finite = (losses + norms[list(places)]).isfinite()
    failed = [] if finite.all() else [place for place, well in zip(places, finite.tolist(), strict=True) if not well]
    limits = torch.tensor([torch.inf if limit is None else limit for limit in clip_norm]).to(norms)
    factors = torch.ones_like(norms)
    factors[list(places)] = (limits / (norms[list(places)] + NOTHING)).clamp(max=1.0)
    optimizer.set_lr(dict(zip(places, lr, strict=True)))
    going = [place for place in places if place not in failed and place not in still]
    optimizer.step(gradient * factors[:, None], going)
    return losses, failed


def make_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """Return AdamW with decay of matrices only: not of biases, norms, positions, or angles, which are periodic."""
    decayed, others = decayed_or_not(model)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW(groups, lr=config.lr)


def decayed_or_not(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters that are subject to weight decay, the matrices, and all others."""
    matrices = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if id(parameter) in matrices]
    return decayed, [parameter for parameter in trained if id(parameter) not in matrices]
