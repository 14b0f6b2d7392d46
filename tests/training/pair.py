"""What each of two real processes does; `test_distributed_runs.py` starts them. Each leaves a file with what it saw.

pair.py die FOLDER    train until the second process is killed, in the second epoch
pair.py go FOLDER     everything else, one after the other
"""

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from qvit.cli import main
from qvit.errors import QvitError
from qvit.training import together
from qvit.training.distributed import Team, assemble
from qvit.training.options import RunConfig, resolve
from qvit.training.run import train_run

RANK = int(os.environ["RANK"])
NOISY = {"model": "vit_4q1h", "epochs": 3, "batch_size": 16, "dropout": 0.3, "tta": "never"}


def settings(folder: Path) -> RunConfig:
    return resolve(NOISY | {"dataset": str(folder / "cells.npz")})


def die(folder: Path) -> Any:
    step = together.train_step

    def killed(*args: Any, epoch: int, **options: Any) -> Tensor:
        if epoch == 2 and RANK == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, epoch=epoch, **options)

    together.train_step = killed
    return told(lambda: train_run(settings(folder), folder / "killed"))


def go(folder: Path) -> Any:
    seen: dict[str, Any] = {"weights": []}
    evaluate = together.validation_figures

    def figures(model: Any, *args: Any) -> dict[str, Any]:
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        seen["weights"].append(hashlib.sha256(weights).hexdigest())
        return evaluate(model, *args)

    together.validation_figures = figures
    epochs: list[int] = []
    train_run(settings(folder), folder / "whole", on_epoch=lambda record, _: epochs.append(record.epoch))
    seen["epochs"] = epochs
    seen["killed"] = told(lambda: train_run(settings(folder), folder / "killed", resume=True))
    seen["stopped"] = told(lambda: train_run(settings(folder), folder / "stopped", on_epoch=stop))
    options = [f"--set={key}={value}" for key, value in NOISY.items()]
    command = ["train", str(folder / "cells.npz"), *options, "--out", str(folder / "stopped")]
    seen["refused"] = called([*command])
    seen["resumed"] = called([*command, "--resume", "--json"])
    dist.init_process_group("gloo")  # one's own group is used, and left
    with assemble("cpu") as team, assemble("cpu") as again:
        assert team == again == Team(RANK, 2, RANK)
        seen["shares"] = team.collect(team.share(torch.arange(5)).tolist())
        parts = team.share(torch.arange(3.0)).reshape(1, -1, 1)
        seen["gathered"] = team.gather(parts, 3).flatten().tolist()
    seen["group"] = dist.is_initialized()
    dist.destroy_process_group()
    return seen


def stop(record: dict[str, Any], _seconds: float) -> None:
    if record.epoch == 2:
        raise OSError("stopped")


def told(attempt: Callable[[], Any]) -> str | None:
    try:
        attempt()
    except (QvitError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def called(arguments: list[str]) -> list[Any]:
    """Return the exit code of a command, and what it says on stdout and on stderr."""
    out, errors = io.StringIO(), io.StringIO()
    sys.argv = ["qvit", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
    return [code, out.getvalue(), errors.getvalue()]


if __name__ == "__main__":
    warnings.simplefilter("error")
    what, place = sys.argv[1], Path(sys.argv[2])
    found = {"die": die, "go": go}[what](place)
    (place / f"{what}-{RANK}.json").write_text(json.dumps(found))
