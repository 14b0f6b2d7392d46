"""Kill a training process with SIGKILL at random moments, resume it each time, and compare every byte.

    python benchmarks/kill_resume.py retinamnist --kills 5 [--epochs 100] [--seed 0] [--distill]

Moments are uniform over the time of the undisturbed run, its start-up and final evaluation included. With --distill it
is `qvit distill` that is killed, in one stage after another, each of so many epochs; its teacher is trained first.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPARED = ("config.json", "metrics.jsonl", "model.safetensors", "result.json", "*.csv", "distillation.json")
STAGES = ("scratch", "pretrain", "finetune")


def qvit(*arguments: object) -> list[str]:
    """Return the command line of a `qvit` command."""
    return [sys.executable, "-m", "qvit", *map(str, arguments)]


def training(dataset: str, folder: Path, epochs: int) -> list[str]:
    """Return the command line that trains, or goes on training, in `folder`."""
    return qvit("train", dataset, "--epochs", epochs, "--out", folder, "--resume")


def distilling(dataset: str, folder: Path, epochs: int, teacher: Path) -> list[str]:
    """Return the command line that distils, or goes on distilling, into `folder`; its teacher's outputs lie beside."""
    stages = ("--epochs", epochs, "--finetune", f"epochs={epochs}", "--mixtures", 0)
    cache = folder.with_name(f"{folder.name}-outputs")
    return qvit("distill", dataset, "--teacher", teacher, *stages, "--cache", cache, "--out", folder, "--resume")


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a command left behind, apart from times, machine, and where it was."""
    place = str(folder.resolve()).encode()
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(place, b"")
        for pattern in COMPARED
        for path in sorted(folder.rglob(pattern))
    }


def progress(folder: Path) -> str:
    """Return how many epochs of each stage are done."""
    counts = {path.parent: len(path.read_text().splitlines()) for path in sorted(folder.rglob("metrics.jsonl"))}
    told = [f"{count} epochs of {'the run' if stage == folder else stage.name}" for stage, count in counts.items()]
    return f"{', '.join(told) or 'no epoch'} done"


def moments(whole: Path, killed: Path, kills: int, duration: float) -> list[tuple[Path, float]]:
    """Return for each kill what must be there first, and the seconds from then on.

    Of a distillation that is by turns a stage's first epoch and its beginning, where the teacher may still be asked.
    """
    stages = [whole / stage for stage in STAGES if (whole / stage).exists()]
    if not stages:
        return [(killed.parent, random.uniform(0, duration / kills * 1.5)) for _ in range(kills)]
    chosen = [stages[kill * len(stages) // kills] for kill in range(kills)]
    seconds = {stage: sum(json.loads(line)["seconds"] for line in (stage / "timings.jsonl").open()) for stage in stages}
    first = [("metrics.jsonl", "config.json")[kill % 2] for kill in range(kills)]
    return [
        (killed / stage.name / name, random.uniform(0, seconds[stage]))
        for stage, name in zip(chosen, first, strict=True)
    ]


def run_killed(command: list[str], folder: Path, times: list[tuple[Path, float]]) -> int:
    """Run a command that is killed up to so many times, then to its end; returns how often it was."""
    for killed, (begun, seconds) in enumerate(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not begun.exists() and process.poll() is None:
            time.sleep(0.005)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"kill {killed + 1}: {progress(folder)}")
        else:
            return killed  # it was done before its time came
    subprocess.run(command, check=True, capture_output=True)
    return len(times)


def main() -> None:
    """Run undisturbed, run with kills, compare; exit 1 if a byte differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="retinamnist")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--distill", action="store_true", help="kill `qvit distill`")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        teacher, whole, killed = (Path(name) / part for part in ("teacher", "whole", "killed"))

        def command(folder: Path) -> list[str]:
            if arguments.distill:
                return distilling(arguments.dataset, folder, arguments.epochs, teacher)
            return training(arguments.dataset, folder, arguments.epochs)

        if arguments.distill:
            made = qvit("teacher", arguments.dataset, "--arch", "vit_8q2h", "--epochs", 5, "--out", teacher)
            subprocess.run(made, check=True, capture_output=True)
        start = time.perf_counter()
        subprocess.run(command(whole), check=True, capture_output=True)
        times = moments(whole, killed, arguments.kills, time.perf_counter() - start)
        kills = run_killed(command(killed), killed, times)
        expected, found = contents(whole), contents(killed)
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        print(f"{kills} kills, {len(expected)} files compared, differing: {', '.join(differing) or 'none'}")
        sys.exit(bool(differing))


if __name__ == "__main__":
    main()
