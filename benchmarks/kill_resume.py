"""Kill a training process with SIGKILL at random moments, resume it each time, and compare every byte.

    python benchmarks/kill_resume.py retinamnist --kills 5 [--epochs 100] [--seed 0]

Moments are uniform over the time of the undisturbed run, its start-up and final evaluation included.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPARED = ("config.json", "metrics.jsonl", "model.safetensors", "result.json", "*.csv")


def command(dataset: str, folder: Path, epochs: int) -> list[str]:
    """Return the command line that trains, or goes on training, in `folder`."""
    return [sys.executable, "-m", "qvit", "train", dataset, "--epochs", str(epochs), "--out", str(folder), "--resume"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a run left behind, apart from times and machine."""
    return {path.name: path.read_bytes() for pattern in COMPARED for path in sorted(folder.glob(pattern))}


def main() -> None:
    """Run undisturbed, run with kills, compare; exit 1 if a byte differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="retinamnist")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        start = time.perf_counter()
        subprocess.run(command(arguments.dataset, whole, arguments.epochs), check=True, capture_output=True)
        duration = time.perf_counter() - start
        kills = 0
        while kills < arguments.kills:
            process = subprocess.Popen(
                command(arguments.dataset, killed, arguments.epochs),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(timeout=random.uniform(0, duration / arguments.kills * 1.5))
                break  # it was done before its time came
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                metrics = killed / "metrics.jsonl"
                epochs = len(metrics.read_text().splitlines()) if metrics.exists() else 0
                print(f"kill {kills}: {epochs} epochs done")
        subprocess.run(command(arguments.dataset, killed, arguments.epochs), check=True, capture_output=True)
        expected, found = contents(whole), contents(killed)
        differing = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        print(f"{kills} kills, {len(expected)} files compared, differing: {', '.join(differing) or 'none'}")
        sys.exit(bool(differing))


if __name__ == "__main__":
    main()
