"""What a study survives, and what two workers are worth: each compared with the same study, undisturbed.

    python benchmarks/study_faults.py [kills] [workers] [ray] [--dataset breastmnist] [--kills 10] [--epochs 10]

kills     the driver is killed with SIGKILL at random moments, and begun again each time
workers   one worker against two: runs an hour, and the same numbers
ray       a local Ray of two workers, one of them killed while it trains

All compare the results table in full precision, and look for runs that were done again after they had finished.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from qvit.study.store import Store

STUDY = """
title: Faults
datasets: [{dataset}]
models:
  - {{kind: [qvit, vit_matched, cosine], qubits: [4, 8], heads: [1, 2]}}
seeds: 2
options: {{epochs: {epochs}}}
teachers:
  small: [{{arch: vit_8q2h, epochs: {epochs}}}]
regimes:
  scratch:
  kd: {{teacher: small, mixtures: 400, pretrain: {{epochs: {epochs}}}, finetune: {{epochs: {epochs}}}}}
"""
Table = dict[str, dict[str, Any]]


def command(study: Path, out: Path, *options: object) -> list[str]:
    """Return the command line that runs a study, or goes on with it."""
    return [sys.executable, "-m", "qvit", "study", "run", *map(str, (study, "--out", out, *options))]


def run(study: Path, out: Path, *options: object) -> float:
    """Run a study to its end; returns the seconds that took."""
    start = time.perf_counter()
    subprocess.run(command(study, out, *options), check=True, capture_output=True)
    return time.perf_counter() - start


def table(out: Path) -> Table:
    """Return every run's figures, in full precision."""
    with Store.read(out) as store:
        return {job.name: {"status": job.status, "result": job.result} for job in store.jobs()}


def differing(one: Table, other: Table) -> list[str]:
    """Return the names of runs whose figures are not exactly the same."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def finished(out: Path) -> dict[Path, int]:
    """Return when each finished run had its result written."""
    results = [*out.glob("runs/*/result.json"), *out.glob("runs/*/distillation.json")]
    return {path: path.stat().st_mtime_ns for path in results}


def done_twice(out: Path, seen: dict[Path, int]) -> list[str]:
    """Return the runs that were begun after they had finished, by the store, or written again, by their folders."""
    with Store.read(out) as store:
        folders = {job.identity: job.folder.name for job in store.jobs()}
        ended: Counter[str] = Counter()
        again = set()
        for attempt in store.attempts():
            if ended[attempt.identity]:
                again.add(folders[attempt.identity])
            ended[attempt.identity] += attempt.outcome == "finished"
    now = finished(out)
    return sorted(again | {path.parent.name for path, written in seen.items() if now.get(path) != written})


def kills(study: Path, folder: Path, count: int, whole: float) -> bool:
    """Kill the driver at random moments; returns whether all is as if nobody had."""
    out, survived = folder / "killed", 0
    seen: dict[Path, int] = {}
    while survived < count:
        process = subprocess.Popen(command(study, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(random.uniform(0.5, 0.5 + 2.2 * whole / count))
            print("the study was done before all kills", flush=True)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        survived += 1
        time.sleep(0.2)  # a worker that is writing ends within milliseconds
        seen |= {path: written for path, written in finished(out).items() if path not in seen}
        print(f"kill {survived}: {len(seen)} runs finished", flush=True)
    run(study, out)
    wrong, again = differing(table(folder / "whole"), table(out)), done_twice(out, seen)
    print(f"{survived} kills, {len(table(out))} runs; differing: {wrong or 'none'}; done twice: {again or 'none'}")
    return not wrong and not again


def workers(study: Path, folder: Path) -> bool:
    """Time one worker and two, in turns; returns whether the numbers are the same."""
    times: dict[int, list[float]] = {1: [], 2: []}
    tables = []
    for repeat in range(2):
        for count in (1, 2):
            out = folder / f"workers-{count}-{repeat}"
            times[count].append(run(study, out, "--workers", count))
            tables.append(table(out))
    one, two = min(times[1]), min(times[2])
    wrong = [name for other in tables[1:] for name in differing(tables[0], other)]
    print(
        f"{len(tables[0])} runs: one worker {one:.1f} s ({', '.join(f'{t:.1f}' for t in times[1])}), two {two:.1f} s "
        f"({', '.join(f'{t:.1f}' for t in times[2])}): {one / two:.2f} times the throughput; "
        f"differing: {wrong or 'none'}"
    )
    return not wrong


def ray(study: Path, folder: Path) -> bool:
    """Kill a worker of a local Ray while it trains; returns whether the numbers are the same."""
    out = folder / "ray"
    arguments = command(study, out, "--ray", "local", "--workers", 2)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("[3/"):
            break
    killed = kill_task(process.pid)
    rest = process.stderr.read()
    code = process.wait()
    wrong = differing(table(folder / "whole"), table(out)) if code == 0 else [rest[-500:]]
    print(f"ray: worker {killed} killed, exit code {code}; differing: {wrong or 'none'}")
    return killed is not None and not wrong


def kill_task(driver: int) -> int | None:
    """Kill a process that does a task for a driver of Ray's; returns its number."""
    for _ in range(200):
        for path in Path("/proc").glob("[0-9]*"):
            try:
                title = (path / "cmdline").read_bytes().replace(b"\0", b" ").strip()
            except OSError:
                continue
            if title.startswith(b"ray::_task") and descends(int(path.name), driver):
                os.kill(int(path.name), signal.SIGKILL)
                return int(path.name)
        time.sleep(0.05)
    return None


def descends(process: int, ancestor: int) -> bool:
    """Return whether a process was started by another, or by one that it started."""
    while process > 1:
        if process == ancestor:
            return True
        try:
            process = int((Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def main() -> None:
    """Run what was asked for; exit 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["kills", "workers", "ray"])
    parser.add_argument("--dataset", default="breastmnist")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    good = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "faults.yaml"
        study.write_text(STUDY.format(dataset=arguments.dataset, epochs=arguments.epochs))
        whole = run(study, folder / "whole")
        print(json.dumps({"runs": len(table(folder / "whole")), "undisturbed_seconds": round(whole, 1)}), flush=True)
        if "kills" in arguments.what:
            good.append(kills(study, folder, arguments.kills, whole))
        if "workers" in arguments.what:
            good.append(workers(study, folder))
        if "ray" in arguments.what:
            good.append(ray(study, folder))
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
