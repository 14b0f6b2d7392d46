"""The first comparison: a QViT, its dense twin, its parameter-matched twin and two controls on real images.

    python benchmarks/first_light.py retinamnist breastmnist --out runs/first-light [--seeds 5] [--workers 2]

Trains every model with every seed (finished runs are kept, interrupted ones go on) and prints one table a dataset:
mean over seeds with Student-t intervals. All options are the defaults.
"""

import argparse
import multiprocessing
from pathlib import Path

from qvit.cli.console import print_table, say
from qvit.report.compare import GROUP_COLUMNS, group_cells, group_rows, read_rows
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run

MODELS = ("qvit_4q2h", "vit_4q2h", "vit_4q2h_matched", "cosine_4q2h", "identity_4q2h")


def train_one(job: tuple[str, str, int, Path]) -> Path:
    """Train one model, unless that is done, and return its folder."""
    dataset, model, seed, out = job
    folder = out / f"{dataset}-{model}-s{seed}"
    config = resolve({"dataset": dataset, "model": model, "seed": seed})
    run = train_run(config, folder, resume=True)
    say(f"{folder.name}: test AUC {run.result.test.auc:.3f}, {run.seconds:.1f} s")
    return folder


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/first-light"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [
        (dataset, model, seed, arguments.out)
        for dataset in arguments.datasets
        for model in MODELS
        for seed in range(arguments.seeds)
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        folders = pool.map(train_one, jobs, chunksize=1)
    for dataset in arguments.datasets:
        runs = [Run(folder) for job, folder in zip(jobs, folders, strict=True) if job[0] == dataset]
        groups = group_rows(read_rows(runs))
        print_table(
            f"{dataset}, seeds 0–{arguments.seeds - 1}", GROUP_COLUMNS, [group_cells(group) for group in groups]
        )


if __name__ == "__main__":
    main()
