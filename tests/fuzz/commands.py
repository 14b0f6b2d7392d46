"""Command lines, run in this process as `qvit` runs them, on small files of their own."""

import atexit
import io
import os
import shutil
import socket
import sys
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from fuzz.harness import Kind
from qvit.cli import main
from qvit.data.phantom import SPLITS
from qvit.errors import ConfigError

# Words that begin with @ stand for files of the scene, see `_scene`. Slow commands are left out: among them the others
# could take a hundred times as long as they do before anybody was told.
LINES = (
    "data list",
    "data list --json",
    "data info retinamnist",
    "data info phantom --json",
    "data info @small.npz",
    "data verify @small.npz --json",
    "data verify @small.npz --size 28",
    "circuit",
    "circuit --json --qubits 3",
    "circuit ry_ring --qubits 4 --layers 2",
    "circuit strongly_entangling --qubits 2 --json",
    "models --cost qvit_4q1h",
    "models --cost vit_4q2h --channels 1 --classes 2 --size 28 --json",
    "evaluate @run",
    "evaluate @run --split val --json",
    "compare @run @again",
    "compare @run --json",
    "study status @study",
    "study status @study --json",
    "study plan --help",
    "study run --help",
    "train --help",
    "distill --help",
    "bench --help",
    "--version",
    "train @small.npz --model vit_4q1h --set lr=0.01 --seed 1 --json",
    "train --data @small.npz --config @options.yaml --out out --task multi-class --offline",
)
WORDS = (
    *("--help", "--json", "--set", "--out", "--seed", "--size", "--model", "--epochs", "--config", "--data", "--split"),
    *("--resume", "--root", "--task", "--qubits", "--layers", "--ansatz", "--debug=", "--", "-", "-x", "--set=", "="),
    *("", "0", "-1", "2", "9999", "1000000000000", "1e400", "010", "1_0", "nan", "null", "[1", "lr=1_0", "epochs=yes"),
    *("model=resnet18", "depth=99999999", "patch_size=5", "seed=99999999999999999999", "a\nb=1", "lr=", "loss=emd"),
    *("é", "a\x00b", "\udcff\udcfe.npz", "\udcff", "\x1b[31m", "[bold]", ":smile:", "x" * 5000, "~nobody/x.npz", "."),
    *("/", "/dev/null", "/dev/zero", "/dev/zero/x.npz", "@broken.npz", "@pipe.npz", "@pipe.npz/x", "@run", "@empty"),
    *("@options.yaml", "@bytes.yaml", "@loop", "@small.npz", "phantom", "retinamnst", "qvit_4q2h", "vit_4q1h", "trian"),
)  # fmt: skip
TRAINING = ("train", "teacher", "distill", "demo")


def _valid(random: Random) -> bytes:
    return random.choice(LINES).replace(" ", "\0").encode()


def _mutate(random: Random, content: bytes) -> bytes:
    words = content.decode().split("\0")
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(words) + 1)
        word = random.choice((*WORDS, *random.choice(LINES).split(), random.randbytes(3).decode("latin-1")))
        words[place : place + random.choice((0, 1, 1, 2))] = random.choice(([word], [word], [word, word], []))
    return "\1".join(words).encode(errors="surrogateescape")


def _attempt(content: bytes, folder: Path) -> None:
    split = b"\1" if b"\1" in content else b"\0"
    words = [os.fsdecode(word) for word in content.split(split)]
    words = [str(_scene() / word[1:]) if word.startswith("@") else word for word in words]
    if words[0] in TRAINING:
        words += ["--epochs", "1"]  # the last one counts
    _call(words, folder)


def _call(words: list[str], folder: Path) -> None:
    """Run a command in a folder and check how it ended, as `_check` does."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    before, here = (sys.stdout, sys.stderr), Path.cwd()
    sys.stdout, sys.stderr = out, err
    os.chdir(folder)
    try:
        main(words)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout, sys.stderr = before
        os.chdir(here)
    out.flush()
    _check(code, err.buffer.getvalue().decode())


def _check(code: object, told: str) -> None:
    """Raise a refusal for exit code 2 and one line that says why; anything else but success is a defect."""
    errors = [line for line in told.splitlines() if line.startswith("Error: ")]
    assert code in (0, 2), f"exit code {code}: {told}"
    assert "Traceback" not in told, told
    assert len(errors) == (code == 2), f"exit code {code}: {told}"
    if code == 2:
        assert told.endswith(f"{errors[0]}\n"), told
        raise ConfigError(errors[0])


@cache
def _scene() -> Path:
    """Make the files of the commands, once a process; no network, and caches of their own."""
    folder = Path(tempfile.mkdtemp(prefix="qvit-commands-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {"QVIT_DATA": str(folder / "data"), "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "80"}

    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_FAIL, "there is no network here")

    socket.getaddrinfo = nobody  # type: ignore[assignment]
    SPLITS.update(train=40, val=20, test=20)  # a line that trains on the phantom is whole, and takes its time
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 16, "val": 8, "test": 8}.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 12, 12), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)
    np.savez(folder / "small.npz", **arrays)
    (folder / "broken.npz").write_bytes((folder / "small.npz").read_bytes()[:-200])
    os.mkfifo(folder / "pipe.npz")
    (folder / "options.yaml").write_text("model: vit_4q1h\nlr: 0.02\n")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe: 1")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "empty").mkdir()
    (folder / "study.yaml").write_text("datasets: small.npz\nmodels: vit_4q1h\noptions: {epochs: 1}\nseeds: 1\n")
    for name in ("run", "again"):
        _call(["train", "small.npz", "--model", "vit_4q1h", "--epochs", "1", "--out", name], folder)
    from qvit.study.reading import read_study
    from qvit.study.store import Store

    (folder / "study").mkdir()
    with Store.open(folder / "study") as store:
        store.plan([("0" * 64, job) for job in read_study(folder / "study.yaml").jobs], {})
    return folder


def _warm() -> None:
    for line in LINES:
        with tempfile.TemporaryDirectory() as name:
            _attempt(line.replace(" ", "\0").encode(), Path(name))


KIND = Kind("commands", 12_000, _valid, _mutate, _attempt, _warm)
