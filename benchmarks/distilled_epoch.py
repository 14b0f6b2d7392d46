"""Epochs distilled from the cache against plain ones, training and validation, in turns in one process.

    python benchmarks/distilled_epoch.py breastmnist retinamnist [--rounds 30]

The teacher is a ResNet-18 with fresh weights: what it says is of no consequence to time. Each row is the median of an
epoch of `fit` with the same images, batches and steps; its first, which asks the teacher, is part of no epoch.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qvit.cli.console import print_table
from qvit.cpu.memory import reuse_memory
from qvit.data.arrays import Dataset, load_dataset
from qvit.distill import DistillConfig, Teacher, TeacherGuide
from qvit.models import create_model, model_config
from qvit.timing import median_milliseconds
from qvit.training.config import TrainConfig
from qvit.training.distributed import ALONE
from qvit.training.environment import environment
from qvit.training.loop import train_epoch
from qvit.training.objective import Objective, supervised
from qvit.training.run import build_model
from qvit.training.state import Member
from qvit.training.surroundings import surroundings
from qvit.training.together import Alone

STUDENTS = ("qvit_4q2h", "qvit_8q2h", "vit_8q2h_matched")
WAYS: dict[str, dict[str, Any]] = {
    "soft": {},
    "soft + labels": {"alpha": 0.5},
    "decoupled": {"kd_loss": "decoupled"},
    "soft + features": {"feature_weight": 1.0},
}


def make_epoch(student: str, data: Dataset, guide: TeacherGuide | None) -> Callable[[], Any]:
    """Return a function that trains a student for an epoch and validates it, plainly or guided by a teacher."""
    like: dict[str, Any] = {"in_chans": data.info.channels, "num_classes": data.info.num_classes, "img_size": data.size}
    model = build_model(model_config(student, **like), data, seed=0)
    config = TrainConfig()
    objective: Objective = supervised(data, config)
    if guide is not None:
        data, objective = guide.prepare(model, data, config, seed=0)
    trained = Alone(model, Member(data, config, seed=0, objective=objective), ALONE)

    def epoch() -> None:
        train_epoch(trained)
        trained.validate()

    return epoch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, surroundings(1):
        reuse_memory()
        for name in arguments.datasets:
            data = load_dataset(name)
            like: dict[str, Any] = {
                "in_chans": data.info.channels,
                "num_classes": data.info.num_classes,
                "img_size": data.size,
            }
            teacher = Teacher.of_module(create_model("resnet18", width=0.25, **like))
            guides = [TeacherGuide(teacher, DistillConfig(**way), cache=Path(folder)) for way in WAYS.values()]
            for student in STUDENTS:
                epochs = [make_epoch(student, data, guide) for guide in (None, *guides)]
                plain, *taught = median_milliseconds(epochs, repeats=arguments.rounds, budget=120.0)
                ratios = [f"{time:.0f} ({time / plain:.2f})" for time in taught]
                rows.append([f"{name}: {student}", f"{plain:.0f}", *ratios])
    columns = ["milliseconds an epoch (ratio to plain)", "plain", *WAYS]
    print_table("Distilled from cache against plain", columns, rows, caption=str(environment()))


if __name__ == "__main__":
    main()
