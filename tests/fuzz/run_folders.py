"""Folders of runs whose files were damaged, exchanged, renamed or made up, read in every way that a user has."""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.harness import Kind
from qvit.errors import QvitError
from qvit.models import model_config
from qvit.models.zoo import count_parameters
from qvit.report.compare import as_json, cells, group_rows, read_rows
from qvit.training.checkpoint import load_state
from qvit.training.described import weights_digest
from qvit.training.evaluated import evaluate_run
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run

Folder = dict[str, bytes]
DIGITS = "@digits@"  # stands for a number of 5,000 digits, which json cannot write
KEPT = tempfile.TemporaryDirectory(prefix="qvit-fuzz-runs-")  # ends with the process
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 0.5, -0.0, 1e308, float("nan"), float("inf"), 10**9, 10**18, 2**63, 2**64),
    *(10**30, DIGITS, "", "a", "a\nb", "\x00", "\x1b[2J", "é\u2028", "../..", "/dev/zero", "/", "~", "x" * 10_000),
    *([], [1, 2], ["a"], {}, {"kind": "linear"}, {"kind": []}, {"a": {"b": 1}}, [[0.1, 0.2]] * 3),
    *("ordinal", "d4", "mirror", "auto", "qvit_999999q1h", "vit_4q1h", "resnet18", "timm/resnet18", "cpu", "cuda:7"),
)
ARCHITECTURES = (
    ("vit_4q1h", {}),
    ("vit_64q16h", {"depth": 12, "mlp_dim": 4096}),
    ("qvit_4q1h", {"n_layers": 64}),
    ("unlu_8q1h", {"n_layers": 4}),
    ("givens_8q1h", {"depth": 8}),
    ("resnet18", {"width": 2.0}),
    ("monai_vit", {}),
)
TEXTS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"7",
    b'"a"',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 5000,
    b'{"a":' * 5000,
    b"\x00",
)
PIECES = (
    b"9" * 5000,
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\n",
    b"\r",
    b"\xc2\xa0",
    b",",
    b'"',
    b"{",
    b"]",
    b"0",
    b"_",
    b"-",
)
SIZES = ((0).to_bytes(8, "little"), (2**40).to_bytes(8, "little"), (2**63).to_bytes(8, "little"), b"\xff" * 8)


@cache
def _made() -> tuple[list[Folder], Path]:
    """Return the files of some finished runs, and of one that is not, and the file of their data."""
    kept, random = Path(KEPT.name), np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 9), ("val", 8), ("test", 10)):
        arrays[f"{split}_images"] = random.integers(0, 256, (n, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8)[:, None] % 3
    data = kept / "cells.npz"
    np.savez(data, **arrays)
    options = {"dataset": str(data), "epochs": 2, "batch_size": 4, "task": "multi-class"}
    runs = [
        train_run(resolve(options | {"model": model} | extra), kept / f"run-{model}{len(extra)}")
        for model, extra in (("vit_4q1h", {}), ("qvit_4q1h", {}), ("vit_4q1h", {"depth": 2, "pool": "cls"}))
    ]
    runs.append(train_run(resolve(options | {"model": "vit_4q1h"}), kept / "next", origin=runs[0]))
    plain = {"dataset": str(data), "task": "multi-class"}
    runs += [
        train_run(resolve(plain | {"model": model} | extra), kept / f"run-{model}")
        for model, extra in (("extra_trees", {"trees": 3}), ("nearest", {"neighbours": 2}))
    ]
    folders = [_read(run.folder) for run in runs]
    folders.append(_interrupted(resolve(options | {"model": "vit_4q1h"}), kept / "interrupted"))
    return folders, data


def _interrupted(config: Any, folder: Path) -> Folder:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        train_run(config, folder, on_epoch=stop)
    return _read(folder)


def _read(folder: Path) -> Folder:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _pack(folder: Folder) -> bytes:
    return json.dumps({name: content.decode("latin-1") for name, content in folder.items()}).encode()


def _unpack(content: bytes) -> Folder:
    return {name: text.encode("latin-1") for name, text in json.loads(content).items()}


def _valid(random: Random) -> bytes:
    return _pack(random.choice(_made()[0][:-1]))


# --- damage ---


def _bytes(random: Random, content: bytes) -> bytes:
    place = random.randint(0, len(content))
    end = min(len(content), place + random.choice((0, 0, 1, 3, 20, 1000)))
    new = random.choice((*PIECES, random.randbytes(random.randint(1, 4)), content[:place][-30:], b""))
    return random.choice((content[:place] + new + content[end:], content[:place], content[place:]))


def _containers(value: Any) -> list[Any]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return ([value] if inner else []) + [deeper for one in inner for deeper in _containers(one)]


def _values(random: Random, text: bytes) -> bytes:
    """Change a value of a JSON text, take one away, or say it twice; damaged texts are changed as bytes."""
    try:
        said = json.loads(text)
        containers = _containers(said)
    except (ValueError, RecursionError):
        return _bytes(random, text)
    if not containers:
        return random.choice(TEXTS)
    inner = random.choice(containers)
    keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
    key, value = random.choice(keys), random.choice(VALUES)
    match random.randint(0, 5):
        case 0:
            del inner[key]
        case 1 if isinstance(inner, dict):
            inner[random.choice(("arch", "depth", "n_layers", "found_at", "kind", "a\nb", "", *map(str, keys)))] = value
        case 2:
            inner[key] = [inner[key]] * random.choice((1, 2, 1000))
        case _:
            inner[key] = value
    written = json.dumps(said, indent=random.choice((None, 2))).replace(f'"{DIGITS}"', "9" * 5000).encode()
    if random.random() < 0.05:  # a key that stands twice
        written = written.replace(b"{", b'{"' + str(key).encode() + b'": 1, ', 1)
    return written


def _lines(random: Random, content: bytes) -> bytes:
    """Change a line of a file, take one away, repeat, exchange or damage it."""
    lines = content.split(b"\n")
    place, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randint(0, 4):
        case 0:
            del lines[place]
        case 1:
            lines.insert(place, lines[other])
        case 2:
            lines[place], lines[other] = lines[other], lines[place]
        case 3:
            fields = lines[place].split(b",")
            fields[random.randrange(len(fields))] = random.choice((*PIECES, b"0.5", b"1", b"99999999999999999999"))
            lines[place] = b",".join(fields)
        case _:
            lines[place] = _values(random, lines[place])
    return b"\n".join(lines)


def _tensors(random: Random, content: bytes) -> bytes:
    """Change the header of a file of weights, or how long it says it is."""
    if len(content) < 8 or random.random() < 0.3:
        return random.choice(SIZES) + content[8:]
    length = min(int.from_bytes(content[:8], "little"), len(content) - 8)
    header = _values(random, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _architecture(random: Random, content: bytes) -> bytes:
    name, options = random.choice(ARCHITECTURES)
    try:
        said = json.loads(content)
        said["model_config"] = asdict(model_config(name, in_chans=1, num_classes=3, img_size=8, **options))
    except (ValueError, TypeError, RecursionError, QvitError):
        return content
    return json.dumps(said).encode()


def _exchange(random: Random, folder: Folder) -> None:
    """Rename, remove, or take from another run."""
    name, other = random.choice(sorted(folder)), random.choice(sorted(folder))
    match random.randint(0, 3):
        case 0:
            del folder[name]
        case 1:
            folder[name], folder[other] = folder[other], folder[name]
        case 2:
            folder |= {name: random.choice(_made()[0]).get(name, b"")}
        case _:
            parts = ("[AUC]", "1.500", "_", "@", ".csv", "9" * 60, "é", "\udcff", "test", "\n", "0.5")
            place = random.randint(0, len(name))
            folder[name[:place] + random.choice(parts) + name[place + random.randint(0, 4) :]] = folder.pop(name)


def _mutate(random: Random, content: bytes) -> bytes:
    folder = dict(random.choice(_made()[0])) if random.random() < 0.2 else _unpack(content)
    for _ in range(random.randint(1, 3)):
        if not folder or random.random() < 0.1:
            if folder:
                _exchange(random, folder)
            continue
        name = random.choice([*folder, *(n for n in folder if n.endswith((".json", "l")))])
        ways: list[Callable[[Random, bytes], bytes]] = [_bytes]
        if name.endswith(".json"):
            ways += [_values] * 4 + [_architecture] * (name == "config.json")
        elif name.endswith((".jsonl", ".csv")):
            ways += [_lines] * 3
        elif name.endswith(".safetensors"):
            ways += [_tensors] * 3
        folder[name] = random.choice(ways)(random, folder[name])
    return _pack(folder)


# --- what a user does ---


def _attempt(content: bytes, folder: Path) -> None:
    for name, part in _unpack(content).items():
        with suppress(OSError, ValueError):  # names that no file can have
            if "/" not in name:
                (folder / name).write_bytes(part)
    uses: tuple[Callable[[], object], ...] = (
        lambda: Run(folder).config,
        lambda: Run(folder).result,
        lambda: Run(folder).history,
        lambda: Run(folder).seconds,
        lambda: Run(folder).predictions("val"),
        lambda: Run(folder).predictions("test"),
        lambda: Run(folder).load_model(),
        lambda: weights_digest(Run(folder)),
        lambda: _compare(Run(folder)),
        lambda: evaluate_run(Run(folder), file=_made()[1]),
        lambda: load_state(folder / "state.pt") if (folder / "state.pt").exists() else None,
    )
    refusals = []
    for use in uses:
        try:
            use()
        except QvitError as error:  # each is another reader, so none may hide the next
            refusals.append(error)
    broken = [error for error in refusals if len(str(error).splitlines()) != 1]
    if refusals:
        raise (broken or refusals)[0]


def _compare(run: Run) -> None:
    rows = read_rows([run, run])
    groups = group_rows(rows)
    json.dumps([as_json(rows, groups), [cells(row) for row in rows]]).encode()


def _warm() -> None:
    _made()
    for name, options in ARCHITECTURES:  # imports MONAI
        count_parameters(model_config(name, in_chans=1, num_classes=3, img_size=8, **options))


KIND = Kind("run_folders", 30_000, _valid, _mutate, _attempt, _warm)
