"""Commands as processes of their own, which alone can show quick help, Ctrl-C, closed pipes, plain progress."""

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

pytestmark = pytest.mark.processes
Qvit = Callable[..., Any]
HEAVY = ("torch", "numpy", "matplotlib", "pydantic", "scipy", "pooch", "yaml", "einops")


def loaded(*lines: str) -> list[list[str]]:
    """Return, for each of some lines of Python run one after another, the packages then loaded, but Python's own."""
    told = "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names, file=sys.stderr)"
    code = "\n".join(["import sys", ASK, *(f"{line}\n{told}" for line in lines)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stderr.splitlines()]


ASK = """
def ask(*words):
    from qvit.cli import main
    try:
        main(list(words))
    except SystemExit as end:
        assert not end.code
"""


def test_importing_needs_nothing_heavy() -> None:
    for found in loaded("import qvit.data.registry", "import qvit.cli", "import qvit.cli.app"):
        assert not set(HEAVY) & set(found)


def test_help_and_short_commands_load_what_a_bare_command_line_does() -> None:
    """What makes help slow is what it imports: beyond typer's own, and pydantic, there is to be nothing but qvit."""
    bare, *found = loaded(
        "import pydantic.main, pydantic.fields, typer.completion, typer.rich_utils",
        *(f"ask{words}" for words in (("--help",), ("--version",), ("data", "list"), ("circuit", "--help"))),
        *(f"ask('{command}', '--help')" for command in ("train", "teacher", "distill", "evaluate", "compare", "tune")),
        *(f"ask('{group}', '--help')" for group in ("data", "study", "bench", "models")),
    )
    for packages in found:
        assert {name for name in set(packages) - set(bare) if not name.startswith("_")} == {"qvit"}


@pytest.mark.slow("a process that imports torch, to be interrupted")
@pytest.mark.trains
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
    assert err.splitlines()[-1] == "Interrupted. A run goes on with --resume, a study or an import by the same command."
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
        seen.append(record.epoch)
        raise Enough

    with pytest.raises(Enough):
        train_run(config, tmp_path / "run", resume=True, on_epoch=on_epoch)
    assert seen[0] in (done + 1, done + 2), "state.pt may be one epoch ahead of metrics.jsonl"


@pytest.mark.slow("processes that import torch, one for each way to end")
def test_what_processes_print(process: Qvit, npz: Path, tmp_path: Path) -> None:
    """JSON in a pipe, to be read by a script; a mistake is one line, unless asked for its traceback."""
    told = process("train", npz, "--model", "vit_4q1h", "--epochs", 1, "--out", tmp_path / "run", "--json")
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out)["best_epoch"] == 1
    told = process("evaluate", tmp_path / "nowhere", "--debug")
    assert told.code == 1
    assert told.err.startswith("Traceback (most recent call last)")
    assert told.err.splitlines()[-1].startswith("qvit.errors.RunError: ")
    told = process("evaluate", tmp_path / "nowhere")
    assert (told.code, told.out) == (2, "")
    assert told.err == f"Error: {tmp_path / 'nowhere'} is not a run folder: result.json is missing.\n"
