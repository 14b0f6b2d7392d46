"""Train the same run in one process and in several, and compare the figures of every epoch and the test predictions.

    python benchmarks/processes.py retinamnist --epochs 3 --processes 2 [--model qvit_4q2h] [--set KEY=VALUE …]

Exits with 1 if a loss differs by more than 1e-5. Seconds are those of the epochs; start-up is not in them.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from qvit.training import Run

LARGEST = 1e-5
LOSSES = ("train_loss", "val_loss")


def train(folder: Path, options: list[str], processes: int) -> Run:
    """Return the run that so many processes have trained in a folder."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    start = [sys.executable, *(several if processes > 1 else [])]
    done = subprocess.run(
        [*start, "-m", "qvit", "train", *options, "--out", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return Run(folder)


def main() -> None:
    """Train both, print both, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="retinamnist")
    parser.add_argument("--model", default="qvit_4q2h")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--set", action="append", default=[], help="further options of `qvit train`", metavar="KEY=VALUE"
    )
    arguments = parser.parse_args()
    options = [arguments.dataset, "--model", arguments.model, "--epochs", str(arguments.epochs)]
    options += [f"--set={assignment}" for assignment in arguments.set]
    with tempfile.TemporaryDirectory() as name:
        one, several = (train(Path(name) / str(count), options, count) for count in (1, arguments.processes))
        many = f"{arguments.processes:>12}"
        print(f"{'epoch':5}  {'train loss: 1':>14}  {many}  {'val loss: 1':>14}  {many}")
        differences = []
        for first, second in zip(one.history, several.history, strict=True):
            pairs = [(getattr(first, loss), getattr(second, loss)) for loss in LOSSES]
            differences += [abs(ours - theirs) for ours, theirs in pairs]
            print(f"{first.epoch:5}" + "".join(f"  {ours:14.8f}  {theirs:12.8f}" for ours, theirs in pairs))
        scores = np.abs(one.predictions("test") - several.predictions("test")).max()
        print(f"largest difference of losses {max(differences):.1e}, of test predictions {scores:.1e}")
        print(f"seconds: 1 process {one.seconds:.2f}, {arguments.processes} processes {several.seconds:.2f}")
        sys.exit(max(differences) > LARGEST)


if __name__ == "__main__":
    main()
