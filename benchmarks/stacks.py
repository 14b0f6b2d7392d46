"""How much quicker models are trained as a stack than one after the other.

    python benchmarks/stacks.py [--models qvit_4q2h,vit_4q2h] [--stack 15] [--epochs 3] [--before SRC]

Two processes of one thread each, as a study's workers, share so many models of one kind, and train them on RetinaMNIST
for some epochs, validation included: one after the other (`fit`), and as one stack in each process (`fit_many`). With
`--before`, the `src` folder of an earlier checkout, the first is done by that code, too. All are measured in turn, in
several rounds; what counts is the median of each, and the ratio of two in one round.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

WORKERS = 2


def work(model: str, seeds: list[int], epochs: int, how: str) -> None:
    """Train models with these seeds, after one epoch of one that is not timed; print when it began and ended."""
    import torch

    from qvit.data.arrays import load_dataset
    from qvit.models.zoo import model_config
    from qvit.training.config import TrainConfig
    from qvit.training.loop import fit
    from qvit.training.run import build_model

    torch.set_num_threads(1)
    data = load_dataset("retinamnist")
    config = model_config(model, in_chans=3, num_classes=data.info.num_classes, img_size=28)
    models: dict[int, Any] = {seed: build_model(config, data, seed=seed) for seed in seeds}
    other: Any = build_model(config, data, seed=99)
    fit(other, data, TrainConfig(epochs=1), seed=99)
    options = TrainConfig(epochs=epochs, batch_size=64)
    if how == "stack":
        from qvit.training.loop import fit_many
        from qvit.training.state import Member

        fit_many([other], [Member(data, TrainConfig(epochs=1), 99)])
        began = time.time()
        fit_many(list(models.values()), [Member(data, options, seed) for seed in seeds])
    else:
        began = time.time()
        for seed, one in models.items():
            fit(one, data, options, seed=seed)
    print(json.dumps([began, time.time()]))


def seconds(model: str, count: int, epochs: int, how: str, source: Path | None) -> float:
    """Return how long two processes take from when both have begun."""
    environment = os.environ | ({} if source is None else {"PYTHONPATH": str(source)})
    running = []
    for worker in range(WORKERS):
        seeds = ",".join(map(str, range(worker, count, WORKERS)))
        command = [sys.executable, __file__, "--work", seeds, "--models", model, "--epochs", str(epochs), "--how", how]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
    times = [json.loads(one.communicate()[0].splitlines()[-1]) for one in running]
    return max(ended - began for began, ended in times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="qvit_4q2h,vit_4q2h,cosine_4q2h")
    parser.add_argument("--stack", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--how", default="alone", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.models, [int(seed) for seed in asked.work.split(",")], asked.epochs, asked.how)
        return
    images = 1080 * asked.stack * asked.epochs
    for model in asked.models.split(","):
        ways = {"alone": ("alone", None), "stack": ("stack", None)}
        if asked.before:
            ways = {"alone before": ("alone", asked.before), **ways}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, (how, source) in ways.items():
                taken[name].append(seconds(model, asked.stack, asked.epochs, how, source))
        for name, each in taken.items():
            ratios = [own / stack for own, stack in zip(each, taken["stack"], strict=True)]
            rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            told = f"{images / median(each):8.0f} images/s   {median(ratios):5.2f} × the stack's time ({rounds})"
            print(f"{model:12} {name:12} {told}", flush=True)


if __name__ == "__main__":
    main()
