"""The one training loop. Distillation, controls and teachers hand it another model or objective, never an `if`."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import augment, group_size, random_elements
from qvit.errors import ConfigError, ModelError, TrainingError
from qvit.evaluation.metrics import accuracy, auc, log_loss
from qvit.models.convolutions import differentiate, unstrided
from qvit.models.vit import Classifier
from qvit.training.diagnose import check_finite
from qvit.training.distributed import ALONE, Team
from qvit.training.losses import Loss, balanced_weights, make_loss
from qvit.training.optimizer import AdamW
from qvit.training.prediction import predict_logits, probabilities_of_views
from qvit.training.saved import copied
from qvit.training.schedules import SCHEDULES
from qvit.training.seeding import NOISE, ORDER, generator, seeded
from qvit.training.surroundings import surroundings

MOST_EPOCHS = 100_000  # of which a run's records can be read back
MOST_THREADS = 1024  # more than that end the process
MOST_IMAGES = 1_000_000  # in a batch


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are those of every figure we report.

    `batch_size=None` is 64, halved while an epoch would have fewer than 16 steps: with a few hundred images a small
    model needs many steps more than it needs smooth gradients; several processes share a batch. `lr` is the schedule's
    peak, `warmup` the fraction of all steps before it; `clip_norm` the largest gradient norm. `loss`: "auto", "ce",
    "bce" or "emd" (ordinal). `class_weights`: "balanced" weighs classes inversely to their frequency. `augment`: a
    group of `data.augment`, or "auto" for the dataset's own. `tta` averages predictions over that group: "always",
    "never", or "auto" where the validation AUC is better for it. `patience`: stop after so many epochs without a
    better checkpoint. `threads`: CPU threads of torch in a process; small models are fastest on one.
    Raises `ConfigError` for values out of range.
    """

    epochs: int = 100
    batch_size: int | None = None
    lr: float = 5e-3
    weight_decay: float = 0.01
    schedule: Literal["one_cycle", "warmup_cosine", "constant"] = "one_cycle"
    warmup: float = 0.3
    clip_norm: float | None = 1.0
    loss: Literal["auto", "ce", "bce", "emd"] = "auto"
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    augment: Literal["auto", "none", "mirror", "d4"] = "auto"
    tta: Literal["auto", "always", "never"] = "auto"
    patience: int | None = None
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, most in (("epochs", MOST_EPOCHS), ("threads", MOST_THREADS), ("batch_size", MOST_IMAGES)):
            value = getattr(self, name)
            if value is None:  # a batch size that depends on the data
                continue
            _require(value >= 1, name, "at least 1", value)
            _require(value <= most, name, f"at most {most:,}", value)
        _require(0.0 < self.lr < math.inf, "lr", "positive", self.lr)
        _require(0.0 <= self.weight_decay < math.inf, "weight_decay", "zero or more", self.weight_decay)
        _require(0.0 <= self.warmup < 1.0, "warmup", "in [0, 1)", self.warmup)
        _require(
            self.clip_norm is None or 0.0 < self.clip_norm < math.inf, "clip_norm", "positive or null", self.clip_norm
        )
        _require(0.0 <= self.label_smoothing < 1.0, "label_smoothing", "in [0, 1)", self.label_smoothing)
        _require(self.patience is None or self.patience >= 1, "patience", "at least 1 or null", self.patience)


def _require(holds: bool, name: str, expected: str, value: Any) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {value}.")


def check_device(name: str) -> None:
    """Raise `ConfigError` unless torch can compute on the device of this name on this machine."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device='{name}' cannot be used here: {reason} Use cpu, or cuda where there is one."
        ) from error


@dataclass(frozen=True)
class Batch:
    """One batch: augmented images and labels on the device of training, and where they come from, on the CPU.

    `index` is each image's place in the training split, `elements` that of its symmetry in the augmentation group.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    elements: Tensor


# What is minimised, example by example. One that is a module has its own parameters trained along with the model's.
Objective = Callable[[nn.Module, Batch], Float[Tensor, " b"]]


@dataclass
class TrainState:
    """All that a run needs to go on: what has been learned, and what has been seen so far."""

    epoch: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
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

    Goes on from `state` if one is given. `on_epoch(state)` is called after each epoch. Of epochs with equal
    validation AUC the one with the lower validation loss is kept; `state.best["tta"]` says over which symmetries
    its predictions were averaged. The test split is not touched. Returns the final state. Raises `TrainingError` as
    soon as the loss or a gradient is not finite, or if nothing can be learned, `ModelError` for a model with another
    number of outputs than the data has classes, `ConfigError` for a device that is not there.

    All processes of a `team` have to call this with the same arguments and weights. They get the numbers of one
    process up to rounding, but for dropout and the like, which every process draws for its share by itself.
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
        # Again, as `on_epoch` may do what it likes.
        alone = isinstance(model, Classifier) and model.draws
        with surroundings(config.threads), seeded(seed, *noise, alone=alone), unstrided(model, objective):
            record = train_epoch(model, data, config, objective, optimizer, seed=seed, epoch=state.epoch, team=team)
            record |= validation_figures(model, data, config, team)
        _update(state, model, own, optimizer, record)
        state.seconds.append(time.perf_counter() - start)
        if on_epoch is not None:
            on_epoch(state)

    model.load_state_dict(copied(state.best["model"]))
    return state


def _restore(state: TrainState, model: nn.Module, objective: nn.Module, optimizer: AdamW) -> None:
    """Take up a state; raises `ModelError` for one of another model or objective, or one that is damaged."""
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
) -> dict[str, Any]:
    """Take the steps of one epoch, `epoch` of them being behind; returns its number, last rate and mean loss."""
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
        total += loss * len(index)
    return {"epoch": epoch + 1, "lr": lr, "train_loss": total.item() / len(data.train)}


def reuse_memory() -> None:
    """Have blocks of memory up to 16 MB stay with this process when they are freed.

    glibc hands blocks larger than any that was freed before back to the system, and gets them again page by page:
    500 page faults a step, a third of its time, unless validation has freed one. A block never touched will do.
    """
    torch.empty(2**24, dtype=torch.uint8)


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
) -> Float[Tensor, ""]:
    """Take one step at the rate `lr` on the mean of `objective` over a batch; returns that mean.

    Of a `team`, `batch` is this process's share. Gradients are scaled down to a total norm of `clip_norm` if they
    exceed it. Raises `TrainingError`, which names `epoch` and `step`, before anything is changed if the loss or a
    gradient is not finite, or if the loss depends on no parameter.
    """
    part = team.part(objective(model, batch))
    if not part.requires_grad:
        raise TrainingError(
            f"The loss at epoch {epoch}, step {step} depends on no parameter that can be trained, so there is nothing "
            "to learn; is the model's output detached, or computed under torch.no_grad?"
        )
    optimizer.zero_grad()
    differentiate(part)
    loss = team.combine(part.detach(), optimizer.parameters, images=len(batch.index))
    gradients = [parameter.grad for parameter in optimizer.parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.cat([loss.new_zeros(1), *(gradient.flatten() for gradient in gradients)]))
    check_finite(model, batch.images, loss, norm, epoch=epoch, step=step, lr=lr, own_loss=part, team=team)
    factor = 1.0 if clip_norm is None else clip_norm / (norm + 1e-6)  # as torch's clip_grad_norm_ does
    if factor < 1.0:  # only now: clipping by a NaN would spoil the trace
        for gradient in gradients:
            gradient.mul_(factor)
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
    """Return the images at `index`, or this process's share, on a device, each under an element drawn by `order`."""
    elements = random_elements(len(index), group, order)
    index, elements = team.share(index), team.share(elements)
    images, labels = (values.to(device) for values in split.batch(index))
    if group_size(group) > 1:
        images = augment(images, elements.to(device), group)
    return Batch(images, labels, index, elements)


def make_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """Return AdamW that decays the matrices only: not biases, norms, positions, or angles, which are periodic."""
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


def validation_figures(model: nn.Module, data: Dataset, config: TrainConfig, team: Team = ALONE) -> dict[str, Any]:
    """Return log loss, AUC and accuracy on the validation split, and as `tta` what predictions were averaged over.

    With `config.tta` "auto" that is the augmentation group or "none", whichever gives the better AUC.
    """
    group = "none" if config.tta == "never" else augmentation_group(data, config)
    labels, task = data.val.labels, data.info.task
    logits = predict_logits(model, data.val, group=group, device=config.device, team=team)
    views = {group: logits} | ({"none": logits[:1]} if config.tta == "auto" else {})

    def figures(tta: str) -> dict[str, Any]:
        scores = probabilities_of_views(views[tta], task)
        loss, area = log_loss(labels, scores, task), auc(labels, scores, task)
        return {"val_loss": loss, "val_auc": area, "val_acc": accuracy(labels, scores, task), "tta": tta}

    # One process says it for all: machines that differ in a last bit would choose, and stop, differently.
    return team.lead(lambda: max(map(figures, views), key=_merit))


def _merit(figures: dict[str, Any]) -> tuple[float, float]:
    return figures["val_auc"], -figures["val_loss"]


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
            f"{f'one whose {frozen} are all frozen' if frozen else 'one without parameters'}. "
            "Call requires_grad_(True) on what shall learn."
        )


def _shuffled(split: Split, config: TrainConfig, order: torch.Generator) -> tuple[Tensor, ...]:
    batch_size = config.batch_size or default_batch_size(len(split))
    batches = torch.randperm(len(split), generator=order).split(batch_size)
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:  # batch norm knows no variance of one image
        return (*batches[:-2], torch.cat(batches[-2:]))
    return batches


def _update(
    state: TrainState, model: nn.Module, objective: nn.Module, optimizer: AdamW, record: dict[str, Any]
) -> None:
    """Record an epoch, and keep its weights if they are the best so far."""
    state.epoch = record["epoch"]
    state.history.append(record)
    state.model = copied(model.state_dict())
    state.objective = copied(objective.state_dict())
    state.optimizer = optimizer.state_dict()
    if not state.best or _merit(record) > _merit(state.best):
        state.best = record | {"model": state.model}


def _out_of_patience(state: TrainState, config: TrainConfig) -> bool:
    return config.patience is not None and bool(state.best) and (state.epoch - state.best["epoch"] >= config.patience)
