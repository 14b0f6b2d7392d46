"""Distillation on real images: teachers, and students from scratch against pre-trained on them and fine-tuned.

    python benchmarks/distillation.py breastmnist retinamnist --out runs/distillation [--seeds 5] [--workers 2]

Trains an ensemble of teachers for each dataset, then every student with every seed in these arms:

scratch    labels alone, all defaults
longer     labels alone, as many steps as both stages of distillation have
blended    as `finetune`, but pre-trained on the labels of what each mixture was made of, blended like the images, in
           place of what the teacher says of it: what the mixtures are worth without a teacher
pretrain   the first stage of `qvit distill`: what the teacher says of the mixtures
finetune   and the second: labels

Finished runs are kept, interrupted ones go on. Prints the figures, and writes them to distillation.json in the folder.
All choices were made on training and validation images.
"""

import argparse
import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from qvit.cli.console import print_table, say
from qvit.data.arrays import Dataset, load_dataset
from qvit.data.mixtures import mix_images
from qvit.distill import DistillationConfig, Teacher, distill, resolve_distillation
from qvit.distill.objectives import soft_targets
from qvit.distill.options import teacher_options
from qvit.distill.pipeline import FEW
from qvit.evaluation.statistics import Interval, mean_interval
from qvit.training.batches import Batch, default_batch_size
from qvit.training.config import TrainConfig
from qvit.training.folder import Run
from qvit.training.objective import Objective
from qvit.training.options import resolve
from qvit.training.run import train_run

STUDENTS = ("qvit_4q2h", "qvit_8q2h", "vit_4q2h_matched", "vit_8q2h_matched")
RESNET = {"arch": "resnet18", "precision": "bfloat16"}
TEACHERS: dict[str, list[dict[str, Any]]] = {
    "breastmnist": [RESNET | {"width": 0.5, "seed": seed} for seed in range(5)],
    "retinamnist": [
        *({"arch": "vit", "seed": seed} for seed in range(3)),
        *(RESNET | {"width": 0.25, "loss": "emd", "lr": 0.01, "epochs": 30, "seed": seed} for seed in range(2)),
    ],
}
LEARNING: dict[str, Any] = {"mixtures": FEW, "pretrain": {"epochs": 60}}
ARMS = ("scratch", "longer", "blended", "pretrain", "finetune")
METRICS = ("auc", "acc", "ece")
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00")  # Okabe and Ito's: told apart by everybody
MARKERS = ("o", "s", "^", "D", "v")

Job = tuple[str, str, int, Path]


def train_teacher(job: tuple[str, int, Path]) -> Path:
    """Train one member of a dataset's teacher, unless that is done, and return its folder."""
    dataset, number, out = job
    options = dict(TEACHERS[dataset][number])
    options = teacher_options(options.pop("arch")) | options
    folder = out / f"{dataset}-teacher-{number}"
    run = train_run(resolve({"dataset": dataset, **options}), folder, resume=True)
    say(f"{folder.name}: val AUC {run.result.val.auc:.3f}, {run.seconds:.0f} s")
    return folder


def teacher_folders(dataset: str, out: Path) -> list[Path]:
    """Return the folders of a dataset's teacher."""
    return [out / f"{dataset}-teacher-{number}" for number in range(len(TEACHERS[dataset]))]


def train_student(job: Job) -> dict[str, Any]:
    """Train one student in every arm, unless that is done, and return its figures by arm."""
    dataset, model, seed, out = job
    config = resolve_distillation({"dataset": dataset, "model": model, "seed": seed, **LEARNING})
    done = distill(
        config, Teacher.of_runs(teacher_folders(dataset, out)), out / f"{dataset}-{model}-s{seed}", resume=True
    )
    runs = {
        "longer": train_longer(config, out / f"{dataset}-{model}-longer-s{seed}"),
        "blended": train_blended(config, out / f"{dataset}-{model}-blended-s{seed}"),
    }
    figures = {arm: {name: getattr(run.result.test, name) for name in METRICS} for arm, run in runs.items()}
    figures |= done.measures.test
    say(f"{done.folder.name}: " + "  ".join(f"{arm} {figures[arm]['auc']:.3f}" for arm in ARMS))
    return {"dataset": dataset, "model": model, "seed": seed, **asdict(done.measures.student), "test": figures}


def train_longer(config: DistillationConfig, folder: Path) -> Run:
    """Train on labels alone for as many steps as both stages of a distillation take."""
    images = len(load_dataset(config.student.dataset).train)

    def steps(epochs: int, images: int) -> int:
        return epochs * math.ceil(images / default_batch_size(images))

    wanted = steps(config.of("pretrain").train.epochs, FEW) + steps(config.of("finetune").train.epochs, images)
    train = replace(config.student.train, epochs=round(wanted / steps(1, images)))
    return train_run(replace(config.student, train=train), folder, resume=True)


def train_blended(config: DistillationConfig, folder: Path) -> Run:
    """Train on mixtures with blended labels, then on labels."""
    first = train_run(config.of("pretrain"), folder / "pretrain", resume=True, guide=BlendedLabels())
    return train_run(config.of("finetune"), folder / "finetune", resume=True, origin=first)


class BlendedLabels:
    """Guides a run by the labels of what each mixture was made of: mixup (Zhang et al. 2018), one class an image."""

    described: ClassVar[dict[str, Any]] = {"labels": "blended", "mixtures": FEW}

    def prepare(self, model: nn.Module, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        """Return the mixtures, and the divergence from their blended labels."""
        mixed = mix_images(data.train, FEW)
        labels = torch.from_numpy(data.train.labels)[mixed.sources, 0]
        both = torch.nn.functional.one_hot(labels, data.info.num_classes).float()
        blended = torch.lerp(both[:, 1], both[:, 0], mixed.shares[:, None]).clamp_min(1e-6).log()

        def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
            return soft_targets(model(batch.images), blended[batch.index], temperature=1.0)

        return replace(data, train=mixed.images), objective


def main() -> None:
    """Train what is missing, print the figures and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", choices=sorted(TEACHERS))
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--teachers", action="store_true", help="train the teachers and stop")
    arguments = parser.parse_args()
    out: Path = arguments.out
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        members = [(d, number, out) for d in arguments.datasets for number in range(len(TEACHERS[d]))]
        pool.map(train_teacher, members, chunksize=1)
        if arguments.teachers:
            return
        # One student of each dataset first: it computes what the teacher says, for all others.
        jobs: list[Job] = [
            (d, model, seed, out) for seed in range(arguments.seeds) for model in STUDENTS for d in arguments.datasets
        ]
        first = len(arguments.datasets)
        results = pool.map(train_student, jobs[:first], chunksize=1) + pool.map(
            train_student, jobs[first:], chunksize=1
        )
    report = {dataset: report_on(dataset, results, out) for dataset in arguments.datasets}
    (out / "distillation.json").write_text(json.dumps({"report": report, "runs": results}, indent=2) + "\n")
    draw(report, out / "distillation.png")
    say(f"Figures and picture are in {out}")


def report_on(dataset: str, results: Sequence[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Print and return the figures of one dataset."""
    teacher = teacher_figures(dataset, out)
    print_table(
        f"{dataset}: the teacher, test images",
        ["", "parameters", "AUC", "ACC", "ECE"],
        [[f["name"], f"{f['parameters']:,}", *(f"{f[name]:.3f}" for name in METRICS)] for f in teacher],
    )
    of_model = {m: [r for r in results if (r["dataset"], r["model"]) == (dataset, m)] for m in STUDENTS}
    names = [*METRICS, "agreement", "divergence", "auc_gap_closed"]
    rows: list[list[str]] = []
    report: dict[str, Any] = {"teacher": teacher, "students": {}, "gains": {}, "differences": {}}
    for model, runs in of_model.items():
        for arm in ARMS:
            figures = {name: over_seeds(runs, figure_of(arm, name)) for name in names}
            rows.append([f"{model}: {arm}", f"{runs[0]['parameters']:,}", *(shown(figures[name]) for name in names)])
            report["students"][f"{model}/{arm}"] = {n: as_list(i) for n, i in figures.items()}
    print_table(f"{dataset}: students, test images, means over seeds", ["", "parameters", *names], rows)

    rows = []
    for model, runs in of_model.items():
        for arm in ("scratch", "longer", "blended"):
            gains = {name: over_seeds(runs, gain(name, arm)) for name in METRICS}
            rows.append([f"{model}: KD − {arm}", *(shown(gains[name], signed=True) for name in METRICS)])
            report["gains"][f"{model}/{arm}"] = {n: as_list(i) for n, i in gains.items()}
    print_table(f"{dataset}: gain of pre-training and fine-tuning, paired over seeds", ["", *METRICS], rows)

    rows = []
    for question, one, other in (
        ("QViT gains more than ViT, 4 qubits", "qvit_4q2h", "vit_4q2h_matched"),
        ("QViT gains more than ViT, 8 qubits", "qvit_8q2h", "vit_8q2h_matched"),
        ("8 qubits gain more than 4", "qvit_8q2h", "qvit_4q2h"),
    ):
        more = {name: difference(of_model[one], of_model[other], gain(name, "scratch")) for name in METRICS}
        rows.append([question, *(shown(more[name], signed=True) for name in METRICS)])
        report["differences"][question] = {n: as_list(i) for n, i in more.items()}
    print_table(f"{dataset}: difference of gains, paired over seeds", ["", *METRICS], rows)
    return report


def teacher_figures(dataset: str, out: Path) -> list[dict[str, Any]]:
    """Return the test figures of every member and of all together."""
    from qvit.evaluation.metrics import evaluate
    from qvit.models.zoo import count_parameters

    folders = teacher_folders(dataset, out)
    data = Run(folders[0]).load_data()
    figures = []
    for teacher in [Teacher.of_runs([folder]) for folder in folders] + [Teacher.of_runs(folders)]:
        scores = teacher.scores(data, "test", resolve({"dataset": dataset}).train)
        parameters = sum(count_parameters(member) for member in teacher.members)
        found = evaluate(data.test.labels, scores, data.info.task)
        figures.append({"name": teacher.name, "parameters": parameters, **{name: found[name] for name in METRICS}})
    return figures


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw test AUC by student and arm, with intervals, beside the teacher's."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(report), figsize=(5.5 * len(report), 4.2), squeeze=False, layout="constrained")
    for axis, (dataset, found) in zip(axes[0], report.items(), strict=True):
        for place, arm in enumerate(ARMS):
            values, lows, highs = zip(*(found["students"][f"{model}/{arm}"]["auc"] for model in STUDENTS), strict=True)
            heights = [row - 0.3 + 0.15 * place for row in range(len(STUDENTS))]
            spread = [
                [value - low for value, low in zip(values, lows, strict=True)],
                [high - value for value, high in zip(values, highs, strict=True)],
            ]
            axis.errorbar(values, heights, xerr=spread, fmt=MARKERS[place], color=COLOURS[place], label=arm, ms=5, lw=1)
        axis.axvline(found["teacher"][-1]["auc"], color="black", ls="--", lw=1, label="teacher")
        axis.set_yticks(range(len(STUDENTS)), STUDENTS)
        axis.invert_yaxis()
        axis.set_xlabel("test AUC, mean over seeds, 95 % interval")
        axis.set_title(dataset)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


Figure = Callable[[dict[str, Any]], float | None]


def figure_of(arm: str, name: str) -> Figure:
    """Return what a run's arm has of a measure."""
    return lambda run: run["test"][arm].get(name)


def gain(name: str, arm: str) -> Figure:
    """Return what a run's fine-tuned student has over an arm without a teacher."""
    return lambda run: run["test"]["finetune"][name] - run["test"][arm][name]


def over_seeds(runs: Sequence[dict[str, Any]], figure: Figure) -> Interval | None:
    """Return the mean over seeds of a figure that all runs have."""
    values = [figure(run) for run in runs]
    known = [value for value in values if value is not None]
    return mean_interval(known) if len(known) == len(values) else None


def difference(runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], figure: Figure) -> Interval | None:
    """Return the mean over seeds of the difference of a figure."""
    pairs = [(figure(run), figure(other)) for run, other in zip(runs, others, strict=True)]
    return mean_interval([one - other for one, other in pairs if one is not None and other is not None])


def shown(interval: Interval | None, *, signed: bool = False) -> str:
    """Return an interval as text."""
    if interval is None:
        return ""
    sign = "+" if signed else ""
    if interval.low is None or interval.high is None:
        return f"{interval.value:{sign}.3f}"
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def as_list(interval: Interval | None) -> list[float | None] | None:
    """Return value, low and high."""
    return None if interval is None else [interval.value, interval.low, interval.high]


if __name__ == "__main__":
    main()
