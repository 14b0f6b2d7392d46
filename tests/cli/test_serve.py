"""`qvit serve`: as a process that answers, keeps nothing, and ends by Ctrl-C; and why it may not start."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qvit import serve
from qvit.serve.server import listen

Qvit = Callable[..., Any]

# Tells of each file that is opened for writing, once the page answers.
WATCHED = """
import os, sys

def tell(event, arguments):
    if event == "open" and "answers at" in told:
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and path != os.devnull and "__pycache__" not in str(path):  # of compiled kernels
            os.write(2, f"WROTE {path}\\n".encode())

told = []
import typer
real = typer.echo
typer.echo = lambda text, **more: (real(text, **more), told.append("answers at") if "answers at" in text else None)
sys.addaudithook(tell)
from qvit.cli import main
main(sys.argv[1:])
"""


@pytest.mark.processes
@pytest.mark.slow("a process of its own imports torch")
def test_a_process_answers_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    files = [tmp_path / name for name in ("new.png", "new.tif", "new.jpg")]
    for file in files:
        Image.fromarray(pixels).save(file)
    assert files[0].stat().st_size > 5_000_000, "so large that what is kept in files at times would be"
    words = [sys.executable, "-B", "-W", "ignore", "-c", WATCHED, "serve", str(run), "--port", "0"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line.startswith(f"{run} answers at http://127.0.0.1:"), line
    port = int(line.split(":")[2].split(",")[0])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=100)) as connection:
        for file in files:
            connection.request("POST", "/answer", file.read_bytes())
            told = json.loads(connection.getresponse().read())
            assert sum(told["answers"][0]["probabilities"].values()) == pytest.approx(1)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=100)
    assert (started.returncode, out) == (0, "")
    assert [line for line in err.splitlines() if not line.startswith("Warning: ")] == []


@pytest.mark.filterwarnings("ignore::qvit.answers.predictor.CalibrationWarning")
def test_a_port_in_use_is_told(qvit: Qvit, run: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        told = qvit("serve", run, "--port", port)
    assert told.code == 2
    assert told.err.endswith(
        f"Error: Cannot listen on port {port} of 127.0.0.1: Address already in use. Choose another with --port; "
        "0 takes any that is free.\n"
    )


@pytest.mark.filterwarnings("ignore::qvit.answers.predictor.CalibrationWarning")
@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_who_lets_everybody_in_is_warned(
    qvit: Qvit, run: Path, monkeypatch: pytest.MonkeyPatch, host: str, warns: bool
) -> None:
    class Stopped:
        def run(self, sockets: list[Any]) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("qvit.serve.server.server", lambda _: Stopped())
    told = qvit("serve", run, "--port", 0, "--host", host)
    assert told.code == 0
    assert ("whoever reaches this machine can ask the model" in told.err) == warns


def test_without_its_packages_it_says_what_to_install(qvit: Qvit, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("app", "server"):
        monkeypatch.setattr(serve, name, getattr(serve, name))  # as it will be again, after another import
        monkeypatch.delitem(sys.modules, f"qvit.serve.{name}")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    told = qvit("serve", run)
    assert (told.code, told.out) == (2, "")
    assert told.err == "Error: This needs the package uvicorn: pip install 'qvit[serve]'.\n"
