"""Workers: real processes, killed in earnest; and a real Ray on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvit.errors import ConfigError, RunError
from qvit.study import ray_pool
from qvit.study.pool import LOCK, Event, LocalPool, _ending, attempt, await_workers, cores
from qvit.study.ray_pool import RayPool, read_files, write_files
from qvit.study.store import Store
from qvit.study.work import Outcome, Work, execute, read_outcome

MakeNpz = Callable[..., Path]
TOO_LONG = 600.0  # seconds: ends what hangs, on any machine


@pytest.fixture(autouse=True)
def few_will_do() -> None:
    """Nothing: workers are processes of their own, and compare as users' do."""


def work_of(npz: Path, folder: Path, **options: Any) -> Work:
    given = {"dataset": str(npz), "model": "vit_4q1h", "epochs": 2} | options
    return Work(folder.name, folder.name, given, folder, folder.parent / "outputs", download=False)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[LocalPool]:
    """One worker."""
    made = LocalPool(1, tmp_path)
    yield made
    made.close()


def until(pool: LocalPool, done: Callable[[list[Event]], bool]) -> list[Event]:
    """Collect events until there is enough of them."""
    events: list[Event] = []
    deadline = time.monotonic() + TOO_LONG
    while not done(events):
        assert time.monotonic() < deadline, events
        events += pool.events(0.2)
    return events


def over(events: list[Event]) -> bool:
    return bool(events) and events[-1].kind != "epoch"


def test_a_worker_does_runs_and_survives_their_errors(pool: LocalPool, make_npz: MakeNpz, tmp_path: Path) -> None:
    assert pool.idle == 1
    assert pool.submit(work_of(make_npz(), tmp_path / "a")) == "worker 1"
    assert pool.idle == 0
    events = until(pool, over)
    assert [event.told for event in events[:-1]] == [("train", 1, 2), ("train", 2, 2)]
    assert (events[-1].kind, events[-1].identity) == ("finished", "a")
    assert isinstance(events[-1].told, Outcome)
    alone = execute(work_of(make_npz(), tmp_path / "alone"))
    assert events[-1].told.result == alone.result

    pool.submit(work_of(make_npz(), tmp_path / "b", model="vit_5q3"))
    (event,) = until(pool, over)
    line, trace = event.told
    assert event.kind == "failed"
    assert line.startswith("ConfigError: There is no model 'vit_5q3'")
    assert "Traceback" in trace
    pool.submit(work_of(make_npz(), tmp_path / "c"))
    assert until(pool, over)[-1].kind == "finished"


def test_a_killed_worker_is_replaced_and_its_run_goes_on(pool: LocalPool, make_npz: MakeNpz, tmp_path: Path) -> None:
    work = work_of(make_npz(), tmp_path / "a", epochs=300)
    pool.submit(work)
    until(pool, lambda events: len(events) > 2)
    process = pool._workers[0].process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    event = until(pool, over)[-1]
    assert (event.kind, event.identity, event.told) == ("lost", "a", "its process was killed by SIGKILL")
    assert pool.idle == 1
    assert pool._workers[0].process.pid != process.pid
    pool.submit(work)
    events = until(pool, over)
    assert events[0].told[1] > 2  # not from the first epoch
    assert events[-1].told.result == execute(work_of(make_npz(), tmp_path / "alone", epochs=300)).result


def test_close_ends_workers_whatever_they_do(make_npz: MakeNpz, tmp_path: Path) -> None:
    pool = LocalPool(2, tmp_path)
    pool.submit(work_of(make_npz(), tmp_path / "a", epochs=100000))
    until(pool, bool)
    processes = [worker.process for worker in pool._workers]
    with pytest.raises(RunError, match="still at work"):
        await_workers(tmp_path, patience=0.2)
    pool.close()
    assert not any(process.is_alive() for process in processes)
    await_workers(tmp_path, patience=5.0)
    assert (tmp_path / LOCK).exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_compute_with_as_many_threads_as_they_are_given(make_npz: MakeNpz, tmp_path: Path) -> None:
    pool = LocalPool(1, tmp_path, threads=1)
    try:
        pid = pool._workers[0].process.pid
        environment = b""
        while b"PATH=" not in environment:  # until it has begun
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"OMP_NUM_THREADS=1" in environment.split(b"\0")
    finally:
        pool.close()


def test_attempt_tells_what_went_wrong() -> None:
    assert attempt(lambda a, b: a + b, 1, 2) == ("finished", 3)
    kind, (line, trace) = attempt(lambda: [][0])
    assert (kind, line) == ("failed", "IndexError: list index out of range")
    assert "Traceback" in trace
    with pytest.raises(KeyboardInterrupt):
        attempt(_interrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_endings_are_named() -> None:
    assert _ending(-9) == "its process was killed by SIGKILL"
    assert _ending(1) == "its process ended with code 1"
    assert cores() >= 1


TINY = {
    "models": ["vit_4q1h", "cosine_4q1h"],
    "options": {"epochs": 20},
    "seeds": 2,
    "teachers": {"big": [{"arch": "vit_8q1h", "epochs": 5}]},
    "regimes": {
        "scratch": None,
        "kd": {"teacher": "big", "mixtures": 0, "pretrain": {"epochs": 20}, "finetune": {"epochs": 20}},
    },
}


@pytest.fixture(scope="module")
def study_file(make_npz: MakeNpz, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(json.dumps(TINY | {"datasets": [str(make_npz())]}))
    return path


@pytest.fixture(scope="module")
def undisturbed(study_file: Path) -> dict[str, Any]:
    """The results of the study, done by one worker whom nobody disturbs."""
    folder = study_file.parent / "whole"
    finish(start(study_file, folder, "--workers", 1))
    return results(folder)


def start(file: Path, out: Path, *options: object) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "qvit", "study", "run", *map(str, (file, "--out", out, *options))]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return err


def results(folder: Path) -> dict[str, Any]:
    with Store.read(folder) as store:
        return {job.name: job.result for job in store.jobs()}


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_driver_and_the_study_goes_on(
    study_file: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = start(study_file, out, "--workers", 2)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[3/9]"):
            break
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    await_workers(out, patience=10.0)
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists() or b"qvit" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    written = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}
    assert len(written) >= 3
    finish(start(study_file, out, "--workers", 2))
    assert results(out) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in written} == written
    with Store.read(out) as store:
        ended: set[str] = set()
        for one in store.attempts():
            assert one["identity"] not in ended
            ended |= {one["identity"]} if one["outcome"] == "finished" else set()


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


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ray_gives_the_same_though_a_worker_is_killed(
    study_file: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "by-ray"
    process = start(study_file, out, "--ray", "local", "--workers", 2)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/9]"):
            break
    victim, deadline = None, time.monotonic() + TOO_LONG
    while victim is None:
        assert time.monotonic() < deadline
        victim = ray_task(process.pid)
    os.kill(victim, signal.SIGKILL)
    finish(process)
    assert results(out) == undisturbed
    with Store.read(out) as store:
        jobs = {job.name: job for job in store.jobs()}
        assert {job.status for job in jobs.values()} == {"finished"}
    student = jobs["first vit_4q1h kd seed 0"]
    finetune = json.loads((student.folder / "finetune" / "config.json").read_text())
    # Told as if it had been done here: where the images lie, and the run that it started from.
    assert [finetune["dataset"]] == json.loads(study_file.read_text())["datasets"]
    assert finetune["origin"]["found_at"] == str((student.folder / "pretrain").resolve())
    guide = json.loads((student.folder / "pretrain" / "config.json").read_text())["guide"]
    assert guide["teacher"]["found_at"] == [str(jobs["first vit_8q1h big seed 0"].folder.resolve())]
    assert not list(student.folder.rglob("state.pt"))


def test_ray_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'qvit\[ray\]'"):
        RayPool("local", tmp_path)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("cluster", "takes local, auto, or an address"),
        ("127.0.0.1:1", "no Ray cluster at '127.0.0.1:1'"),
        ("ray://127.0.0.1:1", "no Ray cluster"),
        ("127.0.0.1:99999999", "no Ray cluster"),
        (":6379", "takes local"),
    ],
)
def test_addresses_without_a_cluster_are_refused_at_once(tmp_path: Path, address: str, message: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=message):
        RayPool(address, tmp_path)


def test_files_travel_whole_and_the_result_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "finetune").mkdir(parents=True)
    contents = {"distillation.json": b"d", "finetune/result.json": b"r", "finetune/a.bin": b"\x00\xff", "z.txt": b""}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    (source / ".hidden.part").write_bytes(b"no")
    files = read_files(source)
    assert files == contents
    written: list[str] = []
    real = ray_pool.write_atomic
    monkeypatch.setattr(
        ray_pool, "write_atomic", lambda path, content: (written.append(path.name), real(path, content))
    )
    write_files(tmp_path / "target", files)
    assert read_files(tmp_path / "target") == contents
    assert written[-2:] == ["result.json", "distillation.json"]


def test_outcomes_are_read_from_folders(make_npz: MakeNpz, tmp_path: Path) -> None:
    work = work_of(make_npz(), tmp_path / "a")
    assert read_outcome(work.folder, distilled=False) is None
    done = execute(work)
    found = read_outcome(work.folder, distilled=False)
    assert found is not None
    assert (found.result, found.seconds) == (done.result, done.seconds)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "distillation.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        read_outcome(tmp_path / "b", distilled=True)


def test_warnings_of_a_run_are_kept(make_npz: MakeNpz, tmp_path: Path) -> None:
    work = work_of(make_npz(), tmp_path / "a", model="qvit_4q1h", ansatz="strongly_entangling")
    (said,) = execute(work).warnings
    assert "cannot influence" in said or "weight" in said


def test_what_a_machine_keeps_is_known_by_its_content(make_npz: MakeNpz, tmp_path: Path, monkeypatch: Any) -> None:
    """A file or a teacher that was made anew in the same place is another, though an earlier one still lies there."""
    npz, teacher = tmp_path / "own.npz", tmp_path / "teacher"
    teacher.mkdir()
    work = Work("x" * 64, "name", {"dataset": str(npz)}, tmp_path / "run", tmp_path / "outputs", (teacher,))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda content: content))
    for number, options in enumerate(({}, {"seed": 5})):
        shutil.copy(make_npz("again" * number or "first", **options), npz)
        (teacher / "model.safetensors").write_bytes(bytes([number]))
        pool = RayPool.__new__(RayPool)
        pool._refs, pool._ray = {}, SimpleNamespace(put=lambda content: content)
        sent = ray_pool._Sent({"dataset": pool._put(npz)}, (pool._put(teacher),))
        here, places = ray_pool._unpacked(work, sent, tmp_path / "machine")
        assert Path(here.options["dataset"]).read_bytes() == npz.read_bytes()
        assert (here.teachers[0] / "model.safetensors").read_bytes() == bytes([number])
        assert places[here.options["dataset"]] == str(npz)
        assert (Path(here.options["dataset"]).name, here.teachers[0].name) == ("own.npz", "teacher")
