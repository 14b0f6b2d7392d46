"""The one training loop. Distillation, controls and teachers pass it another model or objective, never a flag.

It trains one model, or a stack of models that take their steps together; `training.together` knows the difference.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.cpu.memory import reuse_memory
from qvit.data.arrays import Dataset, Split
from qvit.errors import ModelError, QvitError, TrainingError
from qvit.models.convolutions import unstrided
from qvit.models.vit import ViT
from qvit.training.batches import alike
from qvit.training.config import TrainConfig
from qvit.training.distributed import ALONE, Team
from qvit.training.machine import check_device
from qvit.training.objective import Objective
from qvit.training.prediction import predict_logits
from qvit.training.records import EpochRecord
from qvit.training.saved import copied
from qvit.training.state import Member, TrainState
from qvit.training.surroundings import surroundings
from qvit.training.together import Alone, Stack, Together
from qvit.training.validation import validation_figures


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
    """Train `model` in place on `data.train`; leave it with the weights of the best validation AUC, or the last ones.

    Continues from `state` if one is given. `on_epoch(state)` is called after each epoch. Among epochs with equal
    validation AUC, the one with the lower validation loss is kept; `state.best.record.tta` says over which symmetries
    its predictions were averaged. Of a mean of the last weights (`config.average`), `state.best.record` has the figures
    on the validation split, and the history those of each epoch's own. The test split is not touched. Returns the final
    state. Raises `TrainingError` as soon as the loss or a gradient is not finite, or if nothing can be learned,
    `ModelError` for a model that does not have one output per class, or does not fit the state, `ConfigError` for a
    device that is not there, and for mixup with an objective that does not know of it.

    All processes of a `team` have to call this with the same arguments and weights. They get the numbers of one
    process up to rounding, except for dropout and the like, which every process draws for its own share.
    """
    one = Member(data, config, seed, objective, state or TrainState(), on_epoch)
    with surroundings(config.threads):
        _prepare(model, one)
        _train(lambda _: Alone(model, one, team), [one], team)
        _keep_best(model, one, team)
    return one.state


def fit_many(models: Sequence[ViT], members: Sequence[Member]) -> None:
    """Train several models of one configuration together, in place; each as `fit` would train it, up to rounding.

    `members` says for each model on what, how and by which seed it is trained, and holds its state afterwards; options
    may differ in all but `together.SHARED`. What becomes of a model does not depend, bit for bit, on the others, nor on
    how many they are. One that diverges keeps its `error`, and has the weights of its best epoch, if there was one; the
    others go on. Raises `ModelError` and `ConfigError` for models, objectives or options that cannot be stacked, and
    otherwise as `fit` does.
    """
    with surroundings(members[0].config.threads):
        for model, one in zip(models, members, strict=True):
            _prepare(model, one)
        of = {id(one): model for model, one in zip(models, members, strict=True)}
        _train(lambda going: Stack([of[id(one)] for one in going], going), members, ALONE)
        for model, one in zip(models, members, strict=True):
            try:
                _keep_best(model, one)
            except QvitError as error:
                one.error = error


def _prepare(model: nn.Module, one: Member) -> None:
    check_device(one.config.device)
    reuse_memory()
    model.to(one.config.device)
    _check_outputs(model, one.data, one.config)
    _check_trainable(model)


def _keep_best(model: nn.Module, one: Member, team: Team = ALONE) -> None:
    """Give a model the weights that are kept; what is said of a mean of several epochs' is found out now."""
    best = one.state.best
    assert best is not None or one.error is not None, "a configuration has an epoch at least"
    if best is not None:
        model.load_state_dict(copied(best.model))
        if one.error is None and one.config.averaged(best.record.epoch) > 1:
            figures = validation_figures(model, one.data, one.config, team)
            one.state.best = replace(best, record=replace(best.record, **vars(figures)))


def _train(together: Callable[[list[Member]], Together], members: Sequence[Member], team: Team) -> None:
    """Train epoch after epoch; when one of the members has enough, those that are left are put together anew."""
    while going := [one for one in members if one.goes_on]:
        trained = together(going)
        while all(one.goes_on for one in going):
            start = time.perf_counter()
            # Surroundings are set again, as `on_epoch` may have changed them.
            with surroundings(going[0].config.threads), trained.noise(), unstrided(trained.module, trained.objective):
                rates, losses = train_epoch(trained)
                figures = trained.validate()
            seconds = (time.perf_counter() - start) / len(going)
            for place, (one, found) in enumerate(zip(going, figures, strict=True)):
                if found is not None:
                    record = EpochRecord(one.state.epoch + 1, rates[place], losses[place].item(), **vars(found))
                    trained.update(place, record, seconds)
            for one in going:
                if one.error is None and one.on_epoch is not None:
                    one.on_epoch(one.state)


def train_epoch(trained: Together) -> tuple[list[float], Float[Tensor, " m"]]:
    """Take the steps of one epoch; return each member's last learning rate and mean loss."""
    epochs = trained.epochs()
    total = torch.zeros(len(epochs), device=trained.members[0].config.device)
    trained.module.train()
    for step in range(max(len(epoch.batches) for epoch in epochs)):
        for places in alike(epochs, step):
            losses = trained.step(epochs, places, step)
            total[places] += losses * len(epochs[places[0]].batches[step])
    images = torch.tensor([len(epoch.member.data.train) for epoch in epochs])
    return [epoch.lr(len(epoch.batches) - 1) for epoch in epochs], total.cpu().double() / images


def _check_outputs(model: nn.Module, data: Dataset, config: TrainConfig) -> None:
    images, labels = data.train.batch([0])
    one = Split(images.numpy(), labels.numpy())
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
