"""Pools, drivers and a real Ray as processes that are killed in earnest."""

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

from qvit.errors import RunError
from qvit.study.pool import Event, LocalPool, await_workers
from qvit.study.store import Store
from qvit.study.work import Work, execute
from qvit.training.folder import Run
from qvit.training.places import located

MakeNpz = Callable[..., Path]
TOO_LONG = 600.0  # seconds: ends what hangs, on any machine
WITH_PROC = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")


@pytest.fixture(autouse=True)
def few_will_do() -> None:
    """Nothing: workers are processes of their own, and compare as users' do."""


@WITH_PROC
@pytest.mark.processes
@pytest.mark.slow("starts two workers, each of which has to import torch")
def test_a_killed_worker_is_replaced_and_its_run_goes_on(make_npz: MakeNpz, tmp_path: Path) -> None:
    options = {"dataset": str(make_npz()), "model": "vit_4q1h", "epochs": 100_000}
    work = Work("a", "a", options, tmp_path / "a", tmp_path / "outputs", download=False)
    pool, deadline = LocalPool(1, tmp_path, threads=1), time.monotonic() + TOO_LONG

    def until(done: Callable[[list[Event]], bool]) -> list[Event]:
        events: list[Event] = []
        while not done(events):
            assert time.monotonic() < deadline, events
            events += pool.events(0.2)
        return events

    try:
        pool.submit(work)
        until(lambda events: len(events) > 2)
        process = pool._workers[0].process
        assert b"OMP_NUM_THREADS=1" in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        with pytest.raises(RunError, match="still at work"):
            await_workers(tmp_path, patience=0.0)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        event = until(lambda events: bool(events) and events[-1].kind != "epoch")[-1]
        assert event == Event("lost", "a", "worker 1", "its process was killed by SIGKILL")
        other = pool._workers[0].process
        assert other.pid != process.pid
        pool.submit(work)
        first, *_ = until(bool)
        assert first.told[1] > 2, "not from the first epoch"
    finally:
        pool.close()
    assert not other.is_alive(), "whatever it was doing"
    await_workers(tmp_path, patience=0.0)


def study_of(npz: Path, folder: Path, **said: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(json.dumps({"datasets": [str(npz)], "baselines": "never"} | said))
    return path


def start(file: Path, out: Path, *options: object) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "qvit", "study", "run", *map(str, (file, "--out", out, *options))]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@WITH_PROC
@pytest.mark.processes
@pytest.mark.slow("starts a driver with two workers, each of which has to import torch")
def test_workers_end_with_a_killed_driver_which_leaves_whole_runs(make_npz: MakeNpz, tmp_path: Path) -> None:
    """That the next driver goes on with them is tested in test_driver.py."""
    file = study_of(make_npz(), tmp_path, models=["vit_4q1h", "cosine_4q1h"], seeds=9, options={"epochs": 40})
    process = start(file, tmp_path / "out", "--workers", 2)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[1/18]"):
            break
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    await_workers(tmp_path / "out", patience=TOO_LONG)
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists() or b"qvit" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    with Store.read(tmp_path / "out") as store:
        jobs = {job.identity: job for job in store.jobs()}
        ended = [one.identity for one in store.attempts() if one.outcome == "finished"]
    done = [identity for identity, job in jobs.items() if job.status == "finished"]
    assert sorted(ended) == sorted(done)
    assert 1 <= len(done) < len(jobs)
    for identity in done:
        assert Run(jobs[identity].folder).result == jobs[identity].result


def ray_task(driver: int) -> int | None:
    """Return a process of a local Ray that does a task."""
    todo, seen = [driver], set()
    while todo:
        pid = todo.pop()
        seen.add(pid)
        todo += [child for child in children(pid) if child not in seen]
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_task"):
                return pid
        except OSError:
            continue
    return None


@WITH_PROC
@pytest.mark.trains
@pytest.mark.processes
@pytest.mark.slow("starts Ray, a driver, and workers twice")
def test_ray_gives_the_same_though_a_worker_is_killed(make_npz: MakeNpz, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    short = {"epochs": 2}
    file = study_of(
        make_npz(),
        tmp_path,
        models=["vit_4q1h"],
        teachers={"big": [{"arch": "vit_8q1h"} | short]},
        regimes={"kd": {"teacher": "big", "mixtures": 0, "pretrain": short, "finetune": short}},
    )
    process, victim, deadline = start(file, tmp_path / "out", "--ray", "local", "--workers", 1), None, time.monotonic()
    while victim is None:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline + TOO_LONG
        victim = ray_task(process.pid)
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=TOO_LONG)
    assert process.returncode == 0, err
    with Store.read(tmp_path / "out") as store:
        teacher, student = store.jobs()
    assert (teacher.status, student.status) == ("finished", "finished")
    options = {job.name: job.options | {"dataset": str(make_npz())} for job in (teacher, student)}
    alone = Work("t", "t", options[teacher.name], tmp_path / "t", tmp_path / "outputs", download=False)
    assert execute(alone).result == teacher.result
    taught = Work("s", "s", options[student.name], tmp_path / "s", tmp_path / "outputs", (tmp_path / "t",), None, False)
    assert execute(taught).result == student.result
    finetune = json.loads((student.folder / "finetune" / "config.json").read_text())
    # Told as if it had been done here: where the images lie, and the run that it started from.
    assert located(finetune["dataset"], student.folder / "finetune") == make_npz()
    assert finetune["origin"]["found_at"] == "../pretrain"
    guide = json.loads((student.folder / "pretrain" / "config.json").read_text())["guide"]
    assert guide["teacher"]["found_at"] == [f"../../{teacher.folder.name}"]
    assert not list(student.folder.rglob("state.pt"))
