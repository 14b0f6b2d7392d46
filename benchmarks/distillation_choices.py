"""How to distil, compared by cross-validation within the training and validation images; no test image is read.

    python benchmarks/distillation_choices.py breastmnist [--folds 3] [--seeds 2] [--out runs/distillation-choices]

Training and validation images are divided into five stratified folds; each of the first `--folds` is held out in turn.
A teacher is trained on the others, and students learn from it in every way below. Checkpoints are chosen on the fold
that is held out, which favours every row alike. Printed are measures of all held-out folds' predictions together.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from qvit.cli.console import print_table, say
from qvit.data.arrays import load_dataset
from qvit.distill import Teacher, distill, resolve_distillation
from qvit.distill.options import teacher_options
from qvit.evaluation.metrics import evaluate
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run

FOLDS = 5
TEACHERS: dict[str, dict[str, Any]] = {
    "breastmnist": teacher_options("resnet18") | {"width": 0.5, "precision": "bfloat16"},
    "retinamnist": teacher_options("vit"),
}
MIXED = {"mixtures": 4000, "pretrain": {"epochs": 60}}
WAYS: dict[str, dict[str, Any]] = {
    "training images, T = 2": {"mixtures": 0},
    "training images, T = 6": {"mixtures": 0, "temperature": 6.0},
    "training images, mse": {"mixtures": 0, "kd_loss": "mse"},
    "4,000 mixtures, T = 2": MIXED,
    "4,000 mixtures, T = 4": MIXED | {"temperature": 4.0},
    "4,000 mixtures, T = 2, 100 epochs": {"mixtures": 4000},
}


def write_folds(dataset: str, out: Path, folds: int) -> list[Path]:
    """Write each fold as a dataset of its own, the held-out images as validation and, for form's sake, test split."""
    data = load_dataset(dataset)
    images = np.concatenate([data.train.images, data.val.images]).transpose(0, 2, 3, 1)
    images = images[..., 0] if data.info.channels == 1 else images
    labels = np.concatenate([data.train.labels, data.val.labels])
    paths = []
    division = StratifiedKFold(FOLDS, shuffle=True, random_state=7).split(images, labels[:, 0])
    for fold, (learned, held) in list(enumerate(division))[:folds]:
        path = out / f"{dataset}-fold{fold}.npz"
        splits = {"train": learned, "val": held, "test": held}
        arrays = {f"{split}_images": images[rows] for split, rows in splits.items()}
        np.savez(path, **arrays, **{f"{split}_labels": labels[rows] for split, rows in splits.items()})
        paths.append(path)
    return paths


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(TEACHERS))
    parser.add_argument("--student", default="qvit_8q2h")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/distillation-choices"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    info = load_dataset(arguments.dataset).info
    held: dict[str, list[list[Run]]] = {}
    for path in write_folds(arguments.dataset, arguments.out, arguments.folds):
        common = {"dataset": str(path), "task": info.task, "augment": info.augment}
        folder = arguments.out / path.stem
        teacher = train_run(resolve(common | TEACHERS[arguments.dataset]), folder / "teacher", resume=True)
        held.setdefault("teacher", []).append([teacher])
        for number, (way, options) in enumerate(WAYS.items()):
            of_way = []
            for seed in range(arguments.seeds):
                config = resolve_distillation(
                    common | {"student": arguments.student, "seed": seed, "scratch": number == 0} | options
                )
                taught = Teacher.of_runs([teacher.folder])
                done = distill(config, taught, folder / f"way{number}-s{seed}", resume=True)
                of_way.append(done.final)
                if number == 0:
                    held.setdefault("scratch", [[] for _ in range(arguments.folds)])[len(held["teacher"]) - 1].append(
                        done.runs["scratch"]
                    )
            held.setdefault(way, []).append(of_way)
            say(f"{path.stem}: {way}")
    rows = [[way, *figures(folds, info.task)] for way, folds in held.items()]
    print_table(f"{arguments.dataset}, {arguments.student}", ["", "AUC", "ACC", "log loss"], rows)


def figures(folds: list[list[Run]], task: str) -> list[str]:
    """Return the measures of all folds' predictions together, averaged over seeds."""
    labels = np.concatenate([runs[0].load_data().val.labels for runs in folds])
    found = []
    for of_seed in zip(*folds, strict=True):
        scores = np.concatenate([run.predictions("val") for run in of_seed])
        measured = evaluate(labels, scores, task)
        found.append([measured[name] for name in ("auc", "acc", "log_loss")])
    return [f"{value:.3f}" for value in np.mean(found, axis=0)]


if __name__ == "__main__":
    main()
