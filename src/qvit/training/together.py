"""What the loop trains at a time behind one interface: one model as it is, or a stack of models."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from qvit.data.arrays import Split
from qvit.data.views import Views, views_of
from qvit.errors import ConfigError, ModelError, QvitError, TrainingError
from qvit.models.stack import alone, member, part, stacked
from qvit.models.vit import Classifier, ViT
from qvit.training.batches import Epoch, augmentation_group, load_together, shuffled
from qvit.training.diagnose import not_finite
from qvit.training.distributed import Team
from qvit.training.objective import Objective, Stackable, objective_of, stacked_objective
from qvit.training.optimizer import AdamW, StackedAdamW
from qvit.training.prediction import predict_stack
from qvit.training.records import EpochRecord, Validation
from qvit.training.saved import copied
from qvit.training.seeding import NOISE, generator, seeded
from qvit.training.state import Member
from qvit.training.step import decayed_or_not, make_optimizer, stack_step, train_step
from qvit.training.validation import figures_of_views, group_of_views, validation_figures

# Options that all models of a stack have in common.
SHARED = ("device", "threads", "augment", "tta", "loss", "label_smoothing", "class_weights")


class Together(ABC):
    """Members that take their steps together, from the states that they are in.

    `module` and `objective` are those of all members, in a stack with an axis in front.
    """

    members: Sequence[Member]
    module: nn.Module
    objective: Objective
    views: dict[Split, Views]

    def epochs(self) -> list[Epoch]:
        """Return each member's next epoch."""
        return [Epoch(one, self.views[one.data.train]) for one in self.members]

    @abstractmethod
    def noise(self) -> AbstractContextManager[None]:
        """Return a block in which dropout and the like draw what they should in the next epoch."""

    @abstractmethod
    def step(self, epochs: Sequence[Epoch], places: Sequence[int], step: int) -> Tensor:
        """Take step number `step`, from 0, of the members at `places`; return their losses."""

    @abstractmethod
    def validate(self) -> list[Validation | None]:
        """Return each member's figures on its validation split; None of one that has failed."""

    @abstractmethod
    def update(self, place: int, record: EpochRecord, seconds: float) -> None:
        """Record an epoch in a member's state, with what it has learned."""


class Alone(Together):
    """One model, trained as it is, perhaps by several processes."""

    def __init__(self, model: nn.Module, one: Member, team: Team) -> None:
        self.members, self.module, self._team = [one], model, team
        config = one.config
        self.views = views_of([one.data.train], augmentation_group(one.data, config))
        self.objective = objective_of(one.objective, one.data, config)
        self._own = learning_part(self.objective, config.device)
        both = nn.ModuleList([model, self._own])
        team.join_norms(both, config.device, lambda: shuffled(one.data.train, config, generator(one.seed)))
        self.optimizer: AdamW = make_optimizer(both, config)
        if not one.state.blank:
            load_weights(one, model, self._own)
            with _of_this_model():
                self.optimizer.load_state_dict(one.state.optimizer)

    def noise(self) -> AbstractContextManager[None]:
        """Return a block in which all is drawn by the seed and the epoch."""
        (one,) = self.members
        fixed = isinstance(self.module, Classifier) and self.module.draws
        return seeded(one.seed, NOISE, one.state.epoch, *self._team.place, alone=fixed)

    def step(self, epochs: Sequence[Epoch], places: Sequence[int], step: int) -> Tensor:
        """Take one step; raises `TrainingError` if the loss or a gradient is not finite."""
        (one,), (epoch,) = self.members, epochs
        batch = epoch.load(step, self._team)
        loss = train_step(
            self.module,
            batch,
            self.objective,
            self.optimizer,
            lr=epoch.lr(step),
            clip_norm=one.config.clip_norm,
            epoch=one.state.epoch + 1,
            step=step + 1,
            team=self._team,
        )
        if loss.ndim:
            raise TrainingError(
                f"Expected an objective with one loss per image, found losses of {tuple(loss.shape)} models, which can "
                "be trained by `fit_many` only."
            )
        return loss[None]

    def validate(self) -> list[Validation | None]:
        """Return the figures of the one model."""
        (one,) = self.members
        return [validation_figures(self.module, one.data, one.config, self._team)]

    def update(self, place: int, record: EpochRecord, seconds: float) -> None:
        """Record an epoch."""
        learned = {"model": self.module.state_dict(), "objective": self._own.state_dict()}
        _update(self.members[place], record, seconds, **learned, optimizer=self.optimizer.state_dict())


class Stack(Together):
    """Several models in one module, each on images of its own."""

    module: ViT
    objective: Stackable

    def __init__(self, models: Sequence[ViT], members: Sequence[Member]) -> None:
        check_shared(members)
        self.members, first, device = members, members[0], members[0].config.device
        self.views = views_of([one.data.train for one in members], augmentation_group(first.data, first.config))
        self._judged = views_of([one.data.val for one in members], group_of_views(first.data, first.config))
        objectives = [objective_of(one.objective, one.data, one.config) for one in members]
        for model, one, objective in zip(models, members, objectives, strict=True):
            own = learning_part(objective, device)
            if not one.state.blank:
                load_weights(one, model, own)
        self.module, self.objective = stacked(models).to(device), stacked_objective(objectives)
        self._own = learning_part(self.objective, device)
        decay, both = [one.config.weight_decay for one in members], nn.ModuleList([self.module, self._own])
        self.optimizer = StackedAdamW(*decayed_or_not(both), weight_decay=decay)
        for place, one in enumerate(members):
            if not one.state.blank:
                with _of_this_model():
                    self.optimizer.load_state_of(place, one.state.optimizer)

    def noise(self) -> AbstractContextManager[None]:
        """Return a block that does nothing: no model that can be stacked draws numbers."""
        return nullcontext()

    def step(self, epochs: Sequence[Epoch], places: Sequence[int], step: int) -> Tensor:
        """Take one step; members whose loss or gradient is not finite keep their error, and are left as they are."""
        batch, whole = load_together([epochs[place] for place in places], step), len(places) == len(self.members)
        losses, failed = stack_step(
            self.module if whole else part(self.module, places),
            batch,
            self.objective if whole else self.objective.part(places),
            self.optimizer,
            places=places,
            still=[place for place in places if self.members[place].error is not None],
            lr=[epochs[place].lr(step) for place in places],
            clip_norm=[self.members[place].config.clip_norm for place in places],
        )
        for place in failed:
            at = places.index(place)
            self._keep_error(place, batch.images[at], losses[at], epochs[place], step)
        return losses

    def _keep_error(self, place: int, images: Tensor, loss: Tensor, epoch: Epoch, step: int) -> None:
        one = self.members[place]
        if one.error is None:
            where: Any = {"epoch": epoch.number + 1, "step": step + 1, "lr": epoch.lr(step)}
            one.error = not_finite(alone(self.module, place), images, loss, **where)

    def validate(self) -> list[Validation | None]:
        """Return each member's figures; one whose predictions cannot be judged keeps the error."""
        views = [self._judged[one.data.val] for one in self.members]
        logits = predict_stack(self.module, views, device=self.members[0].config.device)
        found: list[Validation | None] = [None] * len(self.members)
        for place, (one, own) in enumerate(zip(self.members, logits, strict=True)):
            if one.error is None:
                try:
                    found[place] = figures_of_views(own, one.data, one.config)
                except QvitError as error:
                    one.error = error
        return found

    def update(self, place: int, record: EpochRecord, seconds: float) -> None:
        """Record an epoch; nothing is recorded of a member that has failed."""
        learned = {"model": member(self.module.state_dict(), place), "objective": member(self._own.state_dict(), place)}
        _update(self.members[place], record, seconds, **learned, optimizer=self.optimizer.state_of(place))


def _update(one: Member, record: EpochRecord, seconds: float, **learned: dict[str, Any]) -> None:
    averaged = one.config.averaged(record.epoch)
    one.state.update(record, seconds, **learned, keep=one.config.keep, averaged=averaged)


def check_shared(members: Sequence[Member]) -> None:
    """Raise `ConfigError` unless the members of a stack have those options in common that a stack has once."""
    for name in SHARED:
        values = list(dict.fromkeys(getattr(one.config, name) for one in members))
        if len(values) > 1:
            raise ConfigError(
                f"Expected models of a stack to have the same {name}, got {' and '.join(map(str, values))}; "
                "train them apart."
            )
    groups = {augmentation_group(one.data, one.config) for one in members}
    if len(groups) > 1:
        raise ConfigError(
            f"Expected images of a stack to be seen under the same symmetries, got {' and '.join(sorted(groups))}; "
            "train these models apart."
        )


def check_state(one: Member, model: nn.Module) -> None:
    """Raise `ModelError` unless a member's state is that of a model and an optimizer like this one; loads it."""
    if not one.state.blank:
        own = learning_part(one.objective, "cpu")
        load_weights(one, model, own)
        with _of_this_model():
            make_optimizer(nn.ModuleList([model, own]), one.config).load_state_dict(one.state.optimizer)


def load_weights(one: Member, model: nn.Module, own: nn.Module) -> None:
    """Load what a member, with its objective's `own` part, has learned so far.

    Raises `ModelError` for a state of another model, or a damaged one.
    """
    with _of_this_model():
        model.load_state_dict(copied(one.state.model))
        own.load_state_dict(copied(one.state.objective))


def learning_part(objective: object, device: str) -> nn.Module:
    """Return an objective on a device if it has parameters that may be trained, else a module that has none."""
    return objective.to(device) if isinstance(objective, nn.Module) else nn.Module()


@contextmanager
def _of_this_model() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            "The state to go on from is not that of this model, objective and optimizer; start again from the first "
            "epoch, for a run by deleting its state.pt."
        ) from error
