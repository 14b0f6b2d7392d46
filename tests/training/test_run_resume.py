"""A run stopped anywhere and resumed ends with the bytes of one that was not."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qvit import files
from qvit.data.arrays import Dataset
from qvit.evaluation.statistics import Interval
from qvit.models import create_model
from qvit.training.checkpoint import load_state
from qvit.training.config import TrainConfig
from qvit.training.loop import fit
from qvit.training.options import RunConfig
from qvit.training.records import Validation
from qvit.training.run import Run, train_run
from qvit.training.state import TrainState

MakeConfig = Callable[..., RunConfig]
Kept = Callable[[Path], dict[str, bytes]]


class Killed(BaseException):
    """What stops a run in these tests; nothing catches it."""


def stop_after(epoch: int) -> Callable[[dict[str, Any], float], None]:
    def on_epoch(record: dict[str, Any], _seconds: float) -> None:
        if record.epoch == epoch:
            raise Killed

    return on_epoch


# --- with training ---


@pytest.mark.trains
@pytest.mark.parametrize(
    ("stops", "options"),
    [
        ([1, 2], {"model": "qvit_4q1h"}),  # the last stop is after the last epoch
        ([1], {"schedule": "warmup_cosine", "class_weights": "balanced", "label_smoothing": 0.1}),
        ([1], {"schedule": "constant", "model": "cosine_4q1h", "tta": "never"}),
        ([2, 3], {"epochs": 3, "keep": "last", "average": 3, "distort": 1.0, "mixup": 0.4}),  # in the mean, and after
    ],
)
def test_resumed_run_is_bit_identical(
    config: MakeConfig, tmp_path: Path, kept: Kept, stops: list[int], options: dict[str, Any]
) -> None:
    settings = config(**{"dropout": 0.3, "augment": "d4"} | options)
    whole = train_run(settings, tmp_path / "whole")
    for number, stop in enumerate(stops):
        begun = [] if number == 0 else Run(tmp_path / "parts").timings
        with pytest.raises(Killed):
            train_run(settings, tmp_path / "parts", resume=True, on_epoch=stop_after(stop))
        assert not Run(tmp_path / "parts").finished
        assert Run(tmp_path / "parts").timings[: len(begun)] == begun, "the seconds of before the stop are kept"
        torch.rand(7)  # what happens in between does not matter
    run = train_run(settings, tmp_path / "parts", resume=True)
    assert kept(run.folder) == kept(whole.folder)
    assert "state.pt" not in kept(run.folder)
    epochs = list(range(1, settings.train.epochs + 1))
    assert [line["epoch"] for line in run.timings] == [record.epoch for record in run.history] == epochs
    assert all(line["seconds"] > 0 for line in run.timings)


@pytest.mark.trains
def test_fit_goes_on_from_a_state(make_data: Callable[..., Dataset]) -> None:
    data, config = make_data(), TrainConfig(epochs=3, batch_size=16, tta="never")

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


# --- without ---


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_a_resumed_run_goes_on_from_where_it_was(config: MakeConfig, tmp_path: Path) -> None:
    settings, seen = config(epochs=3), list[int]()
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "run", on_epoch=stop_after(2))
    assert [record.epoch for record in Run(tmp_path / "run").history] == [1, 2]
    assert load_state(tmp_path / "run" / "state.pt").epoch == 2
    train_run(settings, tmp_path / "run", resume=True, on_epoch=lambda record, _: seen.append(record.epoch))
    assert seen == [3]


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_patience_counts_across_a_stop(
    config: MakeConfig, tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third epoch is the best; two more without a better one, and it is over."""
    settings, aucs = config(epochs=9, patience=2), [0.5, 0.6, 0.8, 0.7, 0.8]
    epochs = 0

    def figures(*args: Any) -> Validation:
        nonlocal epochs
        epochs += 1
        return Validation(val_auc=aucs[epochs - 1], val_loss=1.0, val_acc=0.5, tta="none")

    monkeypatch.setattr("qvit.training.together.validation_figures", figures)
    whole = train_run(settings, tmp_path / "whole")
    assert (whole.result.best_epoch, len(whole.history)) == (3, 5)
    for stop in (3, 4, 5):
        epochs = 0
        with pytest.raises(Killed):
            train_run(settings, tmp_path / str(stop), on_epoch=stop_after(stop))
        assert kept(train_run(settings, tmp_path / str(stop), resume=True).folder) == kept(whole.folder)


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_a_stop_at_any_write_loses_nothing(
    config: MakeConfig, tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before and after each renaming of a finished file, which is all that a kill can fall between."""
    settings = config(tta="never")
    none = {metric: Interval(0.5, None, None, 0.95, "few") for metric in ("auc", "acc")}
    monkeypatch.setattr(
        "qvit.training.measured.bootstrap_interval", lambda *args: none
    )  # takes long, and writes nothing
    monkeypatch.setattr("qvit.training.run.remember", lambda *args: None)  # writes to the cache
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
    whole = train_run(settings, tmp_path / "whole")
    writes = count
    # two at the start, three an epoch, timings and metrics again, weights, two CSVs, result
    assert writes == 2 + 3 * 2 + 2 + 1 + 2 + 1
    for place in [1, *range(-writes, 0)]:  # before a write is after the one before
        folder = tmp_path / str(place)
        count, limit = 0, place
        with pytest.raises(Killed):
            train_run(settings, folder)
        limit = 0
        run = train_run(settings, folder, resume=True)
        assert kept(folder) == kept(whole.folder), f"stopped at write {place}"
        assert (folder / "environment.json").exists(), f"stopped at write {place}"
        assert [line["epoch"] for line in run.timings] == [1, 2], f"stopped at write {place}"


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
@pytest.mark.parametrize(
    ("name", "content"),
    [("timings.jsonl", b'{"epoch": 1, "sec'), ("timings.jsonl", None), ("metrics.jsonl", b"\xff\xfe")],
)
def test_what_can_be_derived_again_does_not_block_a_resume(
    config: MakeConfig, tmp_path: Path, kept: Kept, name: str, content: bytes | None
) -> None:
    settings = config()
    whole = train_run(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "parts", on_epoch=stop_after(1))
    before = Run(tmp_path / "parts").timings
    path = tmp_path / "parts" / name
    path.unlink() if content is None else path.write_bytes(content)
    run = train_run(settings, tmp_path / "parts", resume=True)
    assert kept(run.folder) == kept(whole.folder)
    assert [line["epoch"] for line in run.timings] == [1, 2]
    assert run.timings[:1] == before, "the seconds of before the stop are kept"


# --- a real process, killed ---

PROGRAM = """
import sys, time
from pathlib import Path
from qvit.training.options import resolve
from qvit.training.run import train_run

def wait(record, seconds):  # to be killed while the next epoch would begin
    print(record.epoch, "torch._dynamo" in sys.modules, flush=True)
    if record.epoch == 2:
        time.sleep(600)

options = {"dataset": sys.argv[1], "model": "vit_4q1h", "epochs": 3, "batch_size": 16, "dropout": 0.3}
train_run(resolve(options), sys.argv[2], on_epoch=wait)
"""


@pytest.mark.slow("a process that imports torch, to be killed")
@pytest.mark.processes
@pytest.mark.trains
def test_a_killed_process_resumes_bit_identically(
    config: MakeConfig, make_npz: Callable[..., Path], tmp_path: Path, kept: Kept
) -> None:
    """It holds the folder while it lives, and has not imported torch's compiler, which takes over a second."""
    npz, parts = make_npz(), tmp_path / "parts"
    settings = config(npz, epochs=3, dropout=0.3)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(npz), str(parts)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["1 False\n", "2 False\n"]
        with pytest.raises(Exception, match="in use by another process; wait for it, or use another folder"):
            train_run(settings, parts, resume=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(Run(parts).history) == 2
    assert kept(train_run(settings, parts, resume=True).folder) == kept(train_run(settings, tmp_path / "whole").folder)
