"""What only a process of its own can show: quick help, Ctrl-C, closed pipes, plain progress."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Qvit = Callable[..., Any]
HEAVY = ("torch", "numpy", "matplotlib", "pydantic", "scipy", "pooch", "yaml", "einops")


@pytest.mark.parametrize("module", ["qvit.cli", "qvit.cli.app", "qvit.data.registry"])
def test_help_needs_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["data", "list"], ["--version"]], ids=" ".join)
def test_quick_commands_load_nothing_heavy(arguments: list[str]) -> None:
    heavy = [name for name in HEAVY if name != "pydantic"]  # typer itself brings that where it is installed
    code = (
        "import sys\nfrom qvit.cli import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"heavy = [name for name in {heavy} if name in sys.modules]\nsys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupt_gives_130_and_a_run_that_goes_on(npz: Path, tmp_path: Path, qvit: Qvit, process: Qvit) -> None:
    options = ["--model", "vit_4q1h", "--epochs", 3000, "--set", "batch_size=4", "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "qvit", "train", *map(str, [npz, *options])]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell's background jobs, and what they start, ignore Ctrl-C; the tests may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not metrics.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=600)
    assert started.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == "Interrupted. An unfinished run goes on with --resume, a study by the same command."
    assert "Traceback" not in err
    done = len(metrics.read_text().splitlines())
    # it would take too long to the end: that it begins where it stopped is what counts
    from qvit.training.options import resolve
    from qvit.training.run import train_run

    config = resolve({"dataset": str(npz), "model": "vit_4q1h", "epochs": 3000, "batch_size": 4})
    seen: list[int] = []

    class Enough(Exception):  # noqa: N818 - not an error
        pass

    def on_epoch(record: dict[str, Any], _seconds: float) -> None:
        seen.append(record["epoch"])
        raise Enough

    with pytest.raises(Enough):
        train_run(config, tmp_path / "run", resume=True, on_epoch=on_epoch)
    assert seen[0] in (done + 1, done + 2), "state.pt may be one epoch ahead of metrics.jsonl"


def test_json_in_a_pipe(process: Qvit, npz: Path, tmp_path: Path) -> None:
    told = process("train", npz, "--model", "vit_4q1h", "--epochs", 1, "--out", tmp_path / "run", "--json")
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out)["best_epoch"] == 1
    again = process("evaluate", tmp_path / "run", "--json")
    assert json.loads(again.out) == json.loads(told.out)["test"]


def test_a_reader_that_leaves_is_no_error() -> None:
    code = f"'{sys.executable}' -m qvit data list --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_progress_is_plain_lines_away_from_a_terminal(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    told = qvit("train", npz, "--model", "vit_4q1h", "--epochs", 45, "--out", tmp_path / "run")
    lines = [line for line in told.err.splitlines() if "epoch" in line]
    assert 20 <= len(lines) <= 24
    assert lines[-1].startswith("small-vit_4q1h-s0: epoch 45/45  loss ")
    assert "\x1b" not in told.err + told.out
    assert "\r" not in told.err
