"""The loss for learning from a teacher, used by the same training loop as every other loss."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.distill import objectives
from qvit.distill.outputs import Outputs, check_offers, outputs
from qvit.distill.teacher import Teacher
from qvit.distill.teacher_cache import OnViews, TeacherOutputs, teacher_outputs
from qvit.errors import ConfigError, ModelError
from qvit.models.stack import part, stacked_modules
from qvit.training.batches import Batch, augmentation_group
from qvit.training.config import TrainConfig
from qvit.training.objective import Objective, Supervised, supervised
from qvit.training.seeding import GUIDE, seeded
from qvit.validate import require

# The distillation losses that fit each task.
KD_LOSSES_OF_TASK = {
    "binary": ("soft", "mse", "decoupled"),
    "multi-class": ("soft", "mse", "decoupled"),
    "ordinal": ("soft", "ordinal", "mse", "decoupled"),
    "multi-label": ("soft", "mse"),
}


@dataclass(frozen=True)
class DistillConfig:
    """How to learn from a teacher: the loss is α · (the teacher's) + (1 − α) · (the labels').

    `kd_loss` names a function of `distill.objectives`: "soft" targets (for multi-label tasks one per label), "ordinal"
    ones, "mse" of logits, or "decoupled"; "none" is none of them. `temperature` softens teacher and student in all but
    "mse". `beta` weighs the part of "decoupled" about the classes that are not the target; the target is the label, or
    the teacher's decision if α = 1, where labels are not used. `feature_weight` and `attention_weight` add the
    distances of features, after a learned linear map of the student's, and of attention maps. Raises `ConfigError` for
    values out of range.
    """

    kd_loss: Literal["soft", "ordinal", "mse", "decoupled", "none"] = "soft"
    temperature: float = 2.0
    alpha: float = 1.0
    beta: float = 2.0
    feature_weight: float = 0.0
    attention_weight: float = 0.0

    def __post_init__(self) -> None:
        require(0.0 < self.temperature < math.inf, "temperature", "positive", self.temperature)
        require(0.0 <= self.alpha <= 1.0, "alpha", "from 0 (labels alone) to 1 (the teacher alone)", self.alpha)
        for name in ("beta", "feature_weight", "attention_weight"):
            require(0.0 <= getattr(self, name) < math.inf, name, "zero or more", getattr(self, name))
        if self.kd_loss == "none" and not (self.feature_weight or self.attention_weight) and self.alpha:
            raise ConfigError("kd_loss='none' leaves nothing to learn from; set feature_weight or attention_weight.")


class DistillationObjective(nn.Module):
    """The weighted sum of a teacher's losses and the labels' loss, per example, as an objective of `training.fit`.

    It owns the map of features, if there is one. It holds the teacher's outputs, not the teacher: those for each image
    under its symmetry. With `distort` they remain those of the image without distortion; of mixed images (`mixup`) both
    have their losses, by their shares.
    """

    mixes = True

    def __init__(
        self,
        taught: TeacherOutputs,
        config: DistillConfig,
        *,
        task: str,
        labels: Supervised,
        student_width: int = 0,
    ) -> None:
        super().__init__()
        self.taught, self.config, self.task, self.labels = taught, config, task, labels
        self.map: nn.Linear | None = None
        if config.feature_weight:
            assert taught.features is not None
            self.mean, self.deviation = taught.statistics
            self.map = nn.Linear(student_width, taught.features.shape[-1])

    def forward(self, model: nn.Module, batch: Batch) -> Float[Tensor, "*m b"]:
        """Return the loss of each example."""
        wanted = {"features": bool(self.config.feature_weight), "attention": bool(self.config.attention_weight)}
        student = outputs(model, batch.images, **wanted)
        return batch.losses(lambda one: self._losses(student, one))

    def _losses(self, student: Outputs, batch: Batch) -> Float[Tensor, "*m b"]:
        config, teacher = self.config, self.taught.of(batch)
        loss = self._of_logits(student.logits, teacher.logits, batch.labels)
        if config.feature_weight:
            loss = loss + config.feature_weight * self._of_features(student, teacher)
        if config.attention_weight:
            assert student.attention is not None
            assert teacher.attention is not None
            loss = loss + config.attention_weight * objectives.attention_distance(student.attention, teacher.attention)
        if config.alpha == 1.0:
            return loss
        return config.alpha * loss + (1.0 - config.alpha) * self.labels.loss(student.logits, batch.labels)

    def stacked(self, others: Sequence["DistillationObjective"]) -> "DistillationObjective":
        """Return the objective of a stack, whose first student has this one; all learn the same from the same teacher.

        Raises `ModelError` if they do not.
        """
        if any((other.taught.key, other.config) != (self.taught.key, self.config) for other in others):
            raise ModelError(
                "Expected students of a stack to learn from one teacher, on the same images and in the same way; train "
                "these apart."
            )
        stack = stacked_modules([self, *others])
        stack.labels = self.labels.stacked([other.labels for other in others])
        return stack

    def part(self, places: Sequence[int]) -> "DistillationObjective":
        """Return the objective of the students at some places of a stack that this one is of."""
        few = part(self, places)
        few.labels = self.labels.part(places)
        return few

    def _of_logits(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Float[Tensor, "*m b"]:
        config = self.config
        match config.kd_loss:
            case "none":
                return student.new_zeros(student.shape[:-1])
            case "mse":
                return objectives.logit_mse(student, teacher)
            case "ordinal":
                return objectives.ordinal_soft_targets(student, teacher, temperature=config.temperature)
            case "decoupled":
                target = teacher.argmax(dim=-1) if config.alpha == 1.0 else labels[..., 0]
                return objectives.decoupled(student, teacher, target, temperature=config.temperature, beta=config.beta)
        soft = objectives.binary_soft_targets if self.task == "multi-label" else objectives.soft_targets
        return soft(student, teacher, temperature=config.temperature)

    def _of_features(self, student: Outputs, teacher: Outputs) -> Float[Tensor, "*m b"]:
        assert self.map is not None
        assert student.features is not None
        assert teacher.features is not None
        mean, deviation = self.mean.to(student.features), self.deviation.to(student.features)
        return objectives.feature_distance(self.map(student.features), (teacher.features - mean) / deviation)


@dataclass(frozen=True, eq=False)
class TeacherGuide:
    """A teacher as the guide of a run (see `training.run.train_run`).

    `transfer` holds unlabelled images to learn on instead of the dataset's, with the digest that identifies them;
    `cache` is the folder where outputs are kept; `on_views(done, all)` is called while they are computed.
    """

    teacher: Teacher
    config: DistillConfig
    transfer: tuple[Split, str] | None = None
    cache: Path | None = None
    on_views: OnViews | None = None
    # What was read last, by digest and symmetries: the students of a stack learn the same.
    _read: dict[tuple[str, str], TeacherOutputs] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.transfer is not None and self.config.alpha < 1.0:
            raise ConfigError(
                f"A transfer set has no labels, so alpha must be 1 there, got {self.config.alpha}; learn from the "
                "teacher alone first, and from labels afterwards."
            )

    @property
    def described(self) -> dict[str, Any]:
        """What determines the run, as plain values."""
        transfer = None if self.transfer is None else self.transfer[1]
        return {"teacher": self.teacher.described, **asdict(self.config), "transfer_set": transfer}

    def check(self, student: nn.Module, data: Dataset) -> None:
        """Raise `ConfigError` unless teacher, student, task and losses fit together."""
        wants = {"features": self.config.feature_weight > 0, "attention": self.config.attention_weight > 0}
        choices = KD_LOSSES_OF_TASK[data.info.task]
        if self.config.kd_loss not in (*choices, "none"):
            raise ConfigError(
                f"kd_loss='{self.config.kd_loss}' does not fit a {data.info.task} task; use {', '.join(choices)}."
            )
        check_offers(student, "student", **wants)
        self.teacher.check_fits(data, **wants)

    def prepare(self, model: Any, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        """Return the data to train on and the objective to minimise; the teacher's outputs are computed if needed."""
        self.check(model, data)
        if self.config.alpha == 0.0:
            return data, supervised(data, config)
        digest = f"{data.digest}/train"
        to_learn = data
        if self.transfer is not None:
            images, digest = self.transfer
            to_learn = replace(data, train=images)
        taught = self._outputs(to_learn.train, digest, augmentation_group(data, config))
        with seeded(seed, GUIDE):
            objective = DistillationObjective(
                taught,
                self.config,
                task=data.info.task,
                labels=supervised(data, config),
                student_width=getattr(model, "num_features", 0),
            )
        return to_learn, objective

    def _outputs(self, images: Split, digest: str, group: str) -> TeacherOutputs:
        """Return the teacher's outputs for images, which are read and checked once for all students of a stack."""
        if (digest, group) not in self._read:
            self._read.clear()
            self._read[digest, group] = teacher_outputs(
                self.teacher,
                images,
                images_digest=digest,
                group=group,
                features=self.config.feature_weight > 0,
                attention=self.config.attention_weight > 0,
                folder=self.cache,
                on_views=self.on_views,
            )
        return self._read[digest, group]
