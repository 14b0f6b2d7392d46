"""The measures of a distillation: how good teacher and students are, how much they agree, what each costs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from qvit.data.arrays import Dataset
from qvit.distill.teacher import Teacher
from qvit.errors import ModelError
from qvit.evaluation.agreement import agreement, divergence, gap_closed
from qvit.evaluation.metrics import evaluate
from qvit.models.cost import count_flops
from qvit.models.zoo import count_parameters
from qvit.training.config import TrainConfig
from qvit.training.folder import Run

MEASURES = ("auc", "acc", "ece", "log_loss")
GAPS = ("auc", "acc")


@dataclass(frozen=True)
class Network:
    """A teacher or student: its name, trainable parameters, and FLOPs of one image (None if they cannot be counted)."""

    name: str
    parameters: int
    flops: int | None


@dataclass(frozen=True)
class Measures:
    """What a distillation came to: figures on the test split, of the teacher and of the student's run of each stage."""

    teacher: Network
    student: Network
    taught: dict[str, float]
    test: dict[str, dict[str, float | None]]

    def as_json(self) -> dict[str, Any]:
        """Return what distillation.json holds."""
        return {"teacher": asdict(self.teacher) | self.taught, "student": asdict(self.student), "test": self.test}


def measures(teacher: Teacher, runs: Mapping[Any, Run], data: Dataset, config: TrainConfig) -> Measures:
    """Return how good teacher and students are on the test split, how much they agree, and what each costs.

    Every stage's run has AUC, accuracy, calibration error and log loss; the share of its decisions that equal the
    teacher's, and the divergence from the teacher in nats; and, if there is a run from scratch, the share that it
    closed of the gap between that run and the teacher (None where the teacher is not better).
    """
    labels, task = data.test.labels, data.info.task
    taught = teacher.scores(data, "test", config)
    of_teacher = evaluate(labels, taught, task)
    scores = {stage: run.predictions("test") for stage, run in runs.items()}
    figures = {stage: evaluate(labels, scores[stage], task) for stage in runs}
    students: dict[str, dict[str, float | None]] = {
        stage: {
            **{name: figures[stage][name] for name in MEASURES},
            "agreement": agreement(scores[stage], taught, task),
            "divergence": divergence(scores[stage], taught, task),
        }
        for stage in runs
    }
    if "scratch" in runs:
        scratch = figures["scratch"]
        for stage in runs:
            for name in GAPS:
                closed = gap_closed(scratch[name], figures[stage][name], of_teacher[name])
                students[stage][f"{name}_gap_closed"] = closed
    any_run = next(iter(runs.values()))
    return Measures(
        teacher=Network(
            teacher.name,
            sum(count_parameters(member) for member in teacher.members),
            _flops(teacher.members, data),
        ),
        student=Network(any_run.config["model"], any_run.result.parameters, _flops([any_run.load_model()], data)),
        taught={name: of_teacher[name] for name in MEASURES},
        test=students,
    )


def _flops(models: Sequence[nn.Module], data: Dataset) -> int | None:
    """Return the FLOPs of an image's forward pass through all models; None if a model cannot be counted."""
    try:
        return sum(count_flops(model, data.info.channels, data.size) for model in models)
    except ModelError:
        return None
