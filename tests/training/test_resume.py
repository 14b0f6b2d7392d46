"""A run stopped anywhere and resumed ends with the bytes of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qvit import files
from qvit.data.arrays import Dataset
from qvit.models import create_model
from qvit.training.loop import TrainConfig, TrainState, fit
from qvit.training.options import RunConfig
from qvit.training.run import Run, train_run

MakeConfig = Callable[..., RunConfig]
Kept = Callable[[Path], dict[str, bytes]]
LIVELY: dict[str, Any] = {"dropout": 0.3, "augment": "d4", "epochs": 4}


class Killed(BaseException):
    """What stops a run in these tests; nothing catches it."""


def stop_after(epoch: int) -> Callable[[dict[str, Any], float], None]:
    def on_epoch(record: dict[str, Any], _seconds: float) -> None:
        if record["epoch"] == epoch:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("stops", [[1], [2], [3], [4], [1, 2, 3, 4], [2, 2]])
def test_resumed_run_is_bit_identical(config: MakeConfig, tmp_path: Path, kept: Kept, stops: list[int]) -> None:
    settings = config(**LIVELY)
    whole = train_run(settings, tmp_path / "whole")
    for stop in stops:
        try:
            train_run(settings, tmp_path / "parts", resume=True, on_epoch=stop_after(stop))
        except Killed:
            assert not Run(tmp_path / "parts").finished
            torch.rand(7)  # what happens in between does not matter
    run = train_run(settings, tmp_path / "parts", resume=True)
    assert kept(run.folder) == kept(whole.folder)
    assert "state.pt" not in kept(run.folder)
    assert [line["epoch"] for line in run.timings] == [record["epoch"] for record in run.history] == [1, 2, 3, 4]
    assert all(line["seconds"] > 0 for line in run.timings)


def test_a_resumed_run_goes_on_from_where_it_was(config: MakeConfig, tmp_path: Path) -> None:
    settings = config(**LIVELY)
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "run", on_epoch=stop_after(3))
    assert [record["epoch"] for record in Run(tmp_path / "run").history] == [1, 2, 3]
    seen: list[int] = []
    train_run(settings, tmp_path / "run", resume=True, on_epoch=lambda record, _: seen.append(record["epoch"]))
    assert seen == [4]


def test_patience_counts_across_a_stop(config: MakeConfig, tmp_path: Path, kept: Kept) -> None:
    settings = config(epochs=12, patience=2, lr=0.5)
    whole = train_run(settings, tmp_path / "whole")
    last = len(whole.history)
    assert 3 <= last < 12, "the case is of no use if patience does not stop it"
    for stop in range(1, last + 1):
        folder = tmp_path / str(stop)
        with pytest.raises(Killed):
            train_run(settings, folder, on_epoch=stop_after(stop))
        assert kept(train_run(settings, folder, resume=True).folder) == kept(whole.folder)


@pytest.mark.parametrize("schedule", ["warmup_cosine", "constant"])
@pytest.mark.parametrize("model", ["vit_4q1h", "cosine_4q1h"])
def test_other_models_and_schedules(config: MakeConfig, tmp_path: Path, kept: Kept, schedule: str, model: str) -> None:
    settings = config(**LIVELY, schedule=schedule, model=model, class_weights="balanced", label_smoothing=0.1)
    whole = train_run(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "parts", on_epoch=stop_after(2))
    assert kept(train_run(settings, tmp_path / "parts", resume=True).folder) == kept(whole.folder)


def test_a_stop_at_any_write_loses_nothing(
    config: MakeConfig, tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before and after each renaming of a finished file, which is all that a kill can fall between."""
    settings = config(epochs=2, dropout=0.3)
    whole = train_run(settings, tmp_path / "whole")
    rename = Path.replace
    count, limit = 0, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == limit:
            raise Killed
        done = rename(self, target)
        if count == -limit:
            raise Killed
        return done

    monkeypatch.setattr(files.Path, "replace", replace)
    train_run(settings, tmp_path / "counted")
    writes = count
    # two at the start, three an epoch, timings and metrics again, weights, two CSVs, result
    assert writes == 2 + 3 * 2 + 2 + 1 + 2 + 1
    for place in [*range(1, writes + 1), *range(-writes, 0)]:
        folder = tmp_path / str(place)
        count, limit = 0, place
        with pytest.raises(Killed):
            train_run(settings, folder)
        limit = 0
        run = train_run(settings, folder, resume=True)
        assert kept(folder) == kept(whole.folder), f"stopped at write {place}"
        assert (folder / "environment.json").exists(), f"stopped at write {place}"
        assert [line["epoch"] for line in run.timings] == [1, 2], f"stopped at write {place}"
        assert run.seconds > 0


@pytest.mark.parametrize("content", [b"", b'{"epoch": 1, "sec', b"\xff\xfe", None])
@pytest.mark.parametrize("name", ["timings.jsonl", "metrics.jsonl"])
def test_what_can_be_derived_again_does_not_block_a_resume(
    config: MakeConfig, tmp_path: Path, kept: Kept, name: str, content: bytes | None
) -> None:
    settings = config(epochs=3)
    whole = train_run(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "parts", on_epoch=stop_after(2))
    before = Run(tmp_path / "parts").timings
    path = tmp_path / "parts" / name
    path.unlink() if content is None else path.write_bytes(content)
    run = train_run(settings, tmp_path / "parts", resume=True)
    assert kept(run.folder) == kept(whole.folder)
    assert [line["epoch"] for line in run.timings] == [1, 2, 3]
    assert run.timings[:2] == before, "the seconds of before the stop are kept"


def test_fit_goes_on_from_a_state(make_data: Callable[..., Dataset]) -> None:
    data, config = make_data(), TrainConfig(epochs=3, batch_size=8)

    def build(seed: int) -> Any:
        torch.manual_seed(seed)
        return create_model("vit_4q1h", img_size=data.size, num_classes=4, dropout=0.3)

    whole = build(0)
    history = fit(whole, data, config, seed=5).history
    stopped: list[TrainState] = []

    def on_epoch(state: TrainState) -> None:
        assert len(state.seconds) == state.epoch
        if state.epoch == 2:
            stopped.append(state)
            raise Killed

    with pytest.raises(Killed):
        fit(build(0), data, config, seed=5, on_epoch=on_epoch)
    other = build(1)  # what the weights were does not matter
    seconds = list(stopped[0].seconds)
    state = fit(other, data, config, seed=5, state=stopped[0])
    assert state.history == history
    assert len(state.seconds) == 3
    assert state.seconds[:2] == seconds
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in other.state_dict().items())


# --- a real process, killed ---


def _start(npz: Path, folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    options = ["--model", "qvit_4q1h", "--epochs", "20", "--set", "batch_size=1", "--set", "dropout=0.2"]
    command = [sys.executable, "-m", "qvit", "train", str(npz), *options, "--out", str(folder), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def _epochs(folder: Path) -> int:
    try:
        return len((folder / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def _kill_when(process: "subprocess.Popen[bytes]", ready: Callable[[], bool], delay: float) -> bool:
    """SIGKILL a process `delay` seconds after it is `ready`; returns whether it was still alive then."""
    deadline = time.monotonic() + 600
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_killed_processes_resume_bit_identically(make_npz: Callable[..., Path], tmp_path: Path, kept: Kept) -> None:
    npz, whole, parts = make_npz(), tmp_path / "whole", tmp_path / "parts"
    reference = _start(npz, whole)
    chance = random.Random(0)
    moments: list[tuple[Callable[[], bool], float]] = [
        ((lambda wanted=wanted: _epochs(parts) >= wanted), chance.uniform(0.0, 0.1)) for wanted in (2, 7, 12)
    ]
    moments.append((lambda: any(parts.glob("model.safetensors")), 0.0))  # in the final evaluation
    survived = 0
    for ready, delay in moments:
        alive = _kill_when(_start(npz, parts, "--resume"), ready, delay)
        survived += not alive
        assert alive or (parts / "result.json").exists()
    assert survived <= 1, "most of the kills must have hit a living process"
    _, errors = reference.communicate(timeout=600)
    assert reference.returncode == 0, errors
    last = _start(npz, parts, "--resume")
    _, errors = last.communicate(timeout=600)
    assert last.returncode == 0, errors
    assert kept(parts) == kept(whole)
    assert {"model.safetensors", "metrics.jsonl", "result.json", "config.json"} < kept(parts).keys()
    lines = {name: len((parts / name).read_text().splitlines()) for name in ("metrics.jsonl", "timings.jsonl")}
    assert lines == {"metrics.jsonl": 20, "timings.jsonl": 20}
    assert len(list(parts.glob("*.csv"))) == 2
    assert len(json.loads((parts / "environment.json").read_text())) > 3
