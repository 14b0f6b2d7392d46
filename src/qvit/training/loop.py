"""The one training loop. Distillation, controls and teachers pass it another model or objective, never a flag."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.cpu.memory import reuse_memory
from qvit.data.arrays import Dataset, Split
from qvit.data.augment import augment, group_size, random_elements
from qvit.errors import ModelError, TrainingError
from qvit.evaluation.metrics import accuracy, auc, log_loss
from qvit.models.convolutions import differentiate, unstrided
from qvit.models.vit import Classifier
from qvit.training.config import TrainConfig
from qvit.training.diagnose import check_finite
from qvit.training.distributed import ALONE, Team
from qvit.training.losses import Loss, balanced_weights, make_loss
from qvit.training.machine import check_device
from qvit.training.optimizer import AdamW
from qvit.training.prediction import predict_logits, probabilities_of_views
from qvit.training.records import Best, EpochRecord, Validation
from qvit.training.saved import copied
from qvit.training.schedules import SCHEDULES
from qvit.training.seeding import NOISE, ORDER, generator, seeded
from qvit.training.surroundings import surroundings


@dataclass(frozen=True)
class Batch:
    """One batch: augmented images and labels on the device of training, and where they come from, on the CPU.

    `index` is each image's place in the training split, `elements` that of its symmetry in the augmentation group.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    elements: Tensor


# What is minimised, example by example. The parameters of an objective that is a module are trained with the model's.
# A module that stacks m models has the losses (m, b) of each, and m first in the shape of every parameter.
Objective = Callable[[nn.Module, Batch], Float[Tensor, "*m b"]]


@dataclass
class TrainState:
    """Everything that the run of one model needs to be resumed: what has been learned, and the history so far."""

    epoch: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: Best | None = None
    history: list[EpochRecord] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def supervised(data: Dataset, config: TrainConfig) -> Objective:
    """Return the plain objective: the task's loss of the model's logits against the labels."""
    loss = label_loss(data, config)
    return lambda model, batch: loss(model(batch.images), batch.labels)


def label_loss(data: Dataset, config: TrainConfig) -> Loss:
    """Return the task's loss of logits against labels, as the configuration has it."""
    weights = None
    if config.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, data.info.task, data.info.num_classes).to(config.device)
    return make_loss(data.info.task, name=config.loss, smoothing=config.label_smoothing, class_weights=weights)


def fit(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    *,
    seed: int,
    objective: Objective | None = None,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState], None] | None = None,
    team: Team = ALONE,
) -> TrainState:
    """Train `model` in place on `data.train`; leave it with the weights of the best validation AUC.

    Continues from `state` if one is given. `on_epoch(state)` is called after each epoch. Among epochs with equal
    validation AUC, the one with the lower validation loss is kept; `state.best.record.tta` says over which symmetries
    its predictions were averaged. The test split is not touched. Returns the final state. Raises `TrainingError` as
    soon as the loss or a gradient is not finite, or if nothing can be learned, `ModelError` for a model that does not
    have one output per class, or does not fit the state, `ConfigError` for a device that is not there.

    All processes of a `team` have to call this with the same arguments and weights. They get the numbers of one
    process up to rounding, except for dropout and the like, which every process draws for its own share.
    """
    with surroundings(config.threads):
        check_device(config.device)
        reuse_memory()
        model.to(config.device)
        _check_outputs(model, data, config)
        _check_trainable(model)
        return _fit(model, data, config, seed, objective or supervised(data, config), state, on_epoch, team)


def _fit(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    seed: int,
    objective: Objective,
    state: TrainState | None,
    on_epoch: Callable[[TrainState], None] | None,
    team: Team,
) -> TrainState:
    own = objective.to(config.device) if isinstance(objective, nn.Module) else nn.Module()
    both = nn.ModuleList([model, own])
    team.join_norms(both, config.device, lambda: _shuffled(data.train, config, generator(seed)))
    optimizer = make_optimizer(both, config)
    if state is None:
        state = TrainState()
    else:
        _restore(state, model, own, optimizer)

    while state.epoch < config.epochs and not _out_of_patience(state, config):
        start = time.perf_counter()
        noise = NOISE, state.epoch, *team.place  # of dropout and the like
        # Surroundings are set again, as `on_epoch` may have changed them.
        alone = isinstance(model, Classifier) and model.draws
        with surroundings(config.threads), seeded(seed, *noise, alone=alone), unstrided(model, objective):
            lr, loss = train_epoch(model, data, config, objective, optimizer, seed=seed, epoch=state.epoch, team=team)
            found = validation_figures(model, data, config, team)
        if loss.ndim:
            raise TrainingError(
                f"Expected an objective with one loss per image, found losses of {tuple(loss.shape)} models, which can "
                "be trained one by one only."
            )
        _update(state, model, own, optimizer, EpochRecord(state.epoch + 1, lr, loss.item(), **vars(found)))
        state.seconds.append(time.perf_counter() - start)
        if on_epoch is not None:
            on_epoch(state)

    assert state.best is not None, "a configuration has an epoch at least"
    model.load_state_dict(copied(state.best.model))
    return state


def _restore(state: TrainState, model: nn.Module, objective: nn.Module, optimizer: AdamW) -> None:
    """Load a state; raises `ModelError` for one of another model or objective, or one that is damaged."""
    try:
        model.load_state_dict(copied(state.model))
        objective.load_state_dict(copied(state.objective))
        optimizer.load_state_dict(state.optimizer)
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            "The state to go on from is not that of this model, objective and optimizer; start again from the first "
            "epoch, for a run by deleting its state.pt."
        ) from error


def train_epoch(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    objective: Objective,
    optimizer: AdamW,
    *,
    seed: int,
    epoch: int,
    team: Team = ALONE,
) -> tuple[float, Float[Tensor, "*m"]]:
    """Take the steps of one epoch, after `epoch` others; return the last step's learning rate and the mean loss."""
    group, order = augmentation_group(data, config), generator(seed, ORDER, epoch)
    batches = _shuffled(data.train, config, order)
    total = torch.zeros((), device=config.device)
    model.train()
    for step, index in enumerate(batches):
        progress = (epoch * len(batches) + step) / (config.epochs * len(batches))
        lr = config.lr * SCHEDULES[config.schedule](progress, config.warmup)
        batch = load_batch(data.train, index, group, order, config.device, team)
        place = {"epoch": epoch + 1, "step": step + 1}
        loss = train_step(model, batch, objective, optimizer, lr=lr, clip_norm=config.clip_norm, team=team, **place)
        total = total + loss * len(index)
    return lr, total.cpu().double() / len(data.train)


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
        factor = clip_norm / (norm + 1e-6)  # as torch's clip_grad_norm_ does
        if (factor < 1.0).any():
            factor = factor.clamp(max=1.0)
            for gradient in gradients:
                axes = [1] * (gradient.ndim - loss.ndim) if loss.ndim else []  # a single number needs none
                gradient.mul_(factor.reshape([*loss.shape, *axes]) if axes else factor)
    for parameters in optimizer.param_groups:
        parameters["lr"] = lr
    optimizer.step()
    return loss


def default_batch_size(images: int) -> int:
    """Return the largest of 64, 32, 16, 8 that gives an epoch at least 16 steps, else 8."""
    return next((size for size in (64, 32, 16) if math.ceil(images / size) >= 16), 8)


def augmentation_group(data: Dataset, config: TrainConfig) -> str:
    """Return the name of the symmetry group that this run trains and averages over."""
    return data.info.augment if config.augment == "auto" else config.augment


def load_batch(
    split: Split, index: Tensor, group: str, order: torch.Generator, device: str, team: Team = ALONE
) -> Batch:
    """Return the batch at `index`, or this process's share, on a device, each image under a symmetry from `order`."""
    elements = random_elements(len(index), group, order)
    index, elements = team.share(index), team.share(elements)
    images, labels = (values.to(device) for values in split.batch(index))
    if group_size(group) > 1:
        images = augment(images, elements.to(device), group)
    return Batch(images, labels, index, elements)


def make_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """Return AdamW with decay of matrices only: not of biases, norms, positions, or angles, which are periodic."""
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in decayed].append(parameter)
    return AdamW(
        [
            {"params": groups[True], "weight_decay": config.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=config.lr,
    )


def validation_figures(model: nn.Module, data: Dataset, config: TrainConfig, team: Team = ALONE) -> Validation:
    """Return log loss, AUC and accuracy on the validation split, and what predictions were averaged over.

    With `config.tta` "auto" that is the augmentation group or "none", whichever gives the better AUC.
    """
    group = "none" if config.tta == "never" else augmentation_group(data, config)
    labels, task = data.val.labels, data.info.task
    logits = predict_logits(model, data.val, group=group, device=config.device, team=team)
    views = {group: logits} | ({"none": logits[:1]} if config.tta == "auto" else {})

    def figures(tta: str) -> Validation:
        scores = probabilities_of_views(views[tta], task)
        loss, area = log_loss(labels, scores, task), auc(labels, scores, task)
        return Validation(loss, area, accuracy(labels, scores, task), tta)

    # One process decides for all: machines that differ in a last bit could choose, and stop, differently.
    return team.lead(lambda: max(map(figures, views), key=lambda found: found.merit))


def _check_outputs(model: nn.Module, data: Dataset, config: TrainConfig) -> None:
    one = Split(data.train.images[:1], data.train.labels[:1])
    outputs = predict_logits(model, one, device=config.device).shape[-1]
    if outputs != data.info.num_classes:
        raise ModelError(
            f"The model has {outputs} outputs and {data.info.title} has {data.info.num_classes} classes; "
            f"build it with num_classes={data.info.num_classes}."
        )


def _check_trainable(model: nn.Module) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        frozen = len(list(model.parameters()))
        raise TrainingError(
            f"There is nothing to train: expected a model with parameters that require gradients, got "
            f"{f'one whose {frozen} parameters are all frozen' if frozen else 'one without parameters'}. "
            "Call requires_grad_(True) on the parameters to train."
        )


def _shuffled(split: Split, config: TrainConfig, order: torch.Generator) -> tuple[Tensor, ...]:
    batch_size = config.batch_size or default_batch_size(len(split))
    batches = torch.randperm(len(split), generator=order).split(batch_size)
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:  # batch norm takes no variance of one image
        return (*batches[:-2], torch.cat(batches[-2:]))
    return batches


def _update(state: TrainState, model: nn.Module, objective: nn.Module, optimizer: AdamW, record: EpochRecord) -> None:
    """Record an epoch, and keep its weights if they are the best so far."""
    state.epoch = record.epoch
    state.history.append(record)
    state.model = copied(model.state_dict())
    state.objective = copied(objective.state_dict())
    state.optimizer = optimizer.state_dict()
    if state.best is None or record.merit > state.best.record.merit:
        state.best = Best(record, state.model)


def _out_of_patience(state: TrainState, config: TrainConfig) -> bool:
    if config.patience is None or state.best is None:
        return False
    return state.epoch - state.best.record.epoch >= config.patience
