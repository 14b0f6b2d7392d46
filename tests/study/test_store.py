"""The state of a study: what is written is there whole or not at all, and damage is told as such."""

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import TypeCheckError

from qvit.errors import RunError
from qvit.study.places import named, without_places
from qvit.study.spec import Job
from qvit.study.store import FILE, Store, run_folder
from study.stores import COST, RESULT, TEXT, fill, jobs_of, read, refused

pytestmark = pytest.mark.usefixtures("options_are_not_the_point")


def test_what_is_planned_is_read_back(tmp_path: Path) -> None:
    jobs = jobs_of()
    with Store.open(tmp_path) as store:
        known = fill(store, jobs)
    found = read(tmp_path)
    assert len(found) == len(jobs) == 18
    for stored, job, identity in zip(found, jobs, known, strict=True):
        assert (stored.identity, stored.role, stored.dataset) == (identity, job.role, named(job.dataset))
        assert (stored.regime, stored.seed, stored.name) == (job.regime, job.seed, job.name)
        assert stored.options == without_places(job.options)
        assert stored.model == job.model
        assert (stored.distilled, len(stored.teachers)) == (job.regime == "kd", len(job.teachers))
        assert stored.folder == tmp_path / run_folder(identity, job)
        assert (stored.status, stored.error, stored.seconds, stored.result) == ("waiting", None, None, None)
    teacher = found[0].identity
    assert {stored.teachers for stored in found[:9] if stored.distilled} == {(teacher,)}
    assert len({stored.folder for stored in found}) == len(found)


def test_the_life_of_a_run(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        one, other, *_ = fill(store, jobs_of())

        def state(identity: str) -> tuple[Any, ...]:
            [found] = [job for job in store.jobs() if job.identity == identity]
            return found.status, found.error, found.seconds, found.result

        store.begin(one, "worker 1")
        assert state(one) == ("running", None, None, None)
        store.release(one, "lost: killed")
        assert state(one) == ("waiting", None, None, None)
        store.begin(one, "worker 2")
        store.fail(one, "no memory")
        assert state(one) == ("failed", "no memory", None, None)
        store.begin(one, "worker 1")
        assert state(one)[:2] == ("running", None), "its earlier error is over"
        store.finish(one, RESULT, 12.5)
        assert state(one) == ("finished", None, 12.5, RESULT)
        assert state(other) == ("waiting", None, None, None)
        told = [(a.worker, a.outcome, a.ended is not None) for a in store.attempts(one)]
        assert told == [
            ("worker 1", "lost: killed", True),
            ("worker 2", "failed: no memory", True),
            ("worker 1", "finished", True),
        ]
        assert all(attempt.began <= attempt.ended for attempt in store.attempts(one))
        store.begin(other, "worker 3")
        assert [(a.identity, a.ended) for a in store.attempts(other)] == [(other, None)]
        assert [a.identity for a in store.attempts()] == [one, one, one, other]
        store.release(one, "its file is gone")
        assert state(one)[::3] == ("waiting", None)
        assert len(store.attempts(one)) == 3, "only what had not ended ends"
        assert [a.outcome for a in store.attempts(one)][-1] == "finished"


def test_attempts_are_in_order_even_if_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([50.0, 51.0, 9.0, 10.0])
    monkeypatch.setattr("qvit.study.store.time.time", lambda: next(clock))
    with Store.open(tmp_path) as store:
        one, *_ = fill(store, jobs_of())
        for worker in ("first", "second"):
            store.begin(one, worker)
            store.release(one, "lost")
        assert [attempt.worker for attempt in store.attempts(one)] == ["first", "second"]


def test_a_second_plan_keeps_runs_and_changes_jobs(tmp_path: Path) -> None:
    jobs = jobs_of()
    with Store.open(tmp_path) as store:
        known = fill(store, jobs)
        store.begin(known[3], "worker 1")
        store.finish(known[3], RESULT, 2.0)
        before = {job.identity: job.folder for job in store.jobs()}
    more = jobs_of(TEXT.replace("seeds: 2", "seeds: [1, 5]"))
    with Store.open(tmp_path) as store:
        fill(store, more)
        again = store.jobs()
        assert [job.name for job in again] == [job.name for job in more]
        assert {job.seed for job in again if job.role == "student"} == {1, 5}
        fill(store, jobs)
        found = store.jobs()
        assert [job.name for job in found] == [job.name for job in jobs]
        assert {job.identity: job.folder for job in found} == before
        assert (found[3].status, found[3].result) == ("finished", RESULT)
        assert [job.status for job in found].count("waiting") == len(jobs) - 1
        assert len(store.attempts()) == 1


def test_one_run_may_answer_two_jobs(tmp_path: Path) -> None:
    first, second = jobs_of("datasets: phantom\nmodels: [qvit_4q2h, {name: qvit_4q2h, label: again}]")
    with Store.open(tmp_path) as store:
        store.plan([("x" * 64, first), ("x" * 64, second)], {})
        store.begin("x" * 64, "worker 1")
        store.finish("x" * 64, RESULT, 1.0)
        assert [(job.model.label, job.status) for job in store.jobs()] == [
            ("qvit_4q2h", "finished"),
            ("again", "finished"),
        ]


def test_values_and_costs(tmp_path: Path) -> None:
    other = replace(COST, of="another digest")
    with Store.open(tmp_path) as store:
        assert store.get("title") is None
        store.put(title="Größe: 5 %", machine={"cores": 2, "packages": {}})
        store.put(title="again")
        store.set_costs([("phantom", "a", COST), ("phantom", "b", COST)])
        store.set_costs([("phantom", "a", other)])
    with Store.read(tmp_path) as store:
        assert (store.get("title"), store.get("machine")) == ("again", {"cores": 2, "packages": {}})
        assert store.costs() == {("phantom", "a"): other, ("phantom", "b"): COST}


@pytest.mark.parametrize("name", ["100 %", "what?", "a#b", "%41", "ä ö", "it's", "a&b=c;d", "?mode=ro"])
def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with Store.open(folder) as store:
        fill(store, jobs_of())
    assert len(read(folder)) == 18
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - names as they are
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_folders_of_runs_have_plain_names() -> None:
    [job] = jobs_of("datasets: 'a b/ü & co.npz'\nmodels: timm/resnet10t")
    assert run_folder("0123456789abcdef", job) == "runs/ü---co-timm-resnet10t-scratch-s0-01234567"


# --- trouble ---


def test_no_study(tmp_path: Path) -> None:
    refused(tmp_path, f"{tmp_path} holds no study ({FILE} is missing); make one with `qvit study run`.", opened=False)
    refused(tmp_path / "nowhere", "holds no study", opened=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="cannot be used"), Store.open(tmp_path / "nowhere"):
        pass
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "holds no study", opened=False)


@pytest.mark.parametrize("content", [b"nonsense" * 100, b"SQLite format 3\x00" + b"\xff" * 2000])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    refused(
        tmp_path, "cannot be used", "delete it and run the study again: finished runs in its folder are found and kept"
    )
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize("tables", ["", "CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL)"])
def test_a_beginning_is_none_yet(tmp_path: Path, tables: str) -> None:
    """As a full disk left it, with an earlier version of ours."""
    connection = sqlite3.connect(tmp_path / FILE)
    connection.executescript(tables)
    connection.close()
    assert (tmp_path / FILE).exists()
    refused(tmp_path, f"{tmp_path} holds no study yet ({FILE} is empty); go on with `qvit study run`.", opened=False)
    with Store.open(tmp_path) as store:
        fill(store, jobs_of())
    assert len(read(tmp_path)) == 18


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leave room for so many pages."""
    real, room = sqlite3.connect, [0]

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real(*arguments, **options)
        connection.execute(f"PRAGMA max_page_count = {room[0]}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    return lambda pages: room.__setitem__(0, pages)


@pytest.mark.parametrize("pages", [1, 2, 5, 8])
def test_on_a_full_disk_it_is_made_whole_or_not_at_all(tmp_path: Path, disk: Callable[[int], None], pages: int) -> None:
    disk(pages)
    with pytest.raises(RunError, match=r"disk is full\. Free some space .* nothing was lost"), Store.open(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    disk(1000)
    with Store.open(tmp_path) as store:
        fill(store, jobs_of())
    assert len(read(tmp_path)) == 18


def test_a_disk_that_fills_later_takes_nothing_away(tmp_path: Path, disk: Callable[[int], None]) -> None:
    disk(15)
    with pytest.raises(RunError, match=r"disk is full\. Free some space"), Store.open(tmp_path) as store:
        store.finish(fill(store, jobs_of())[0], replace(RESULT, tta="x" * 40000), 1.0)
    assert [job.status for job in read(tmp_path)] == ["waiting"] * 18


def test_another_format(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.put(format=999)
    refused(tmp_path, f"{tmp_path / FILE} was made by another version of qvit; use that version, or another folder.")
    (tmp_path / FILE).unlink()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    kept = (tmp_path / FILE).read_bytes()
    refused(tmp_path, f"{tmp_path / FILE} is a database of something else; use another folder.")
    assert (tmp_path / FILE).read_bytes() == kept


@pytest.mark.long
def test_flipped_and_missing_bytes(tmp_path: Path) -> None:
    """Each is told as damage, or leaves what can be read; never another exception."""
    with Store.open(tmp_path) as store:
        one, *_ = fill(store, jobs_of())
        store.begin(one, "worker 1")
        store.finish(one, RESULT, 1.0)
        store.set_costs([("phantom", "a", COST)])
    whole = (tmp_path / FILE).read_bytes()
    told = 0
    places = range(0, len(whole), 311)
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 0x55
        (tmp_path / FILE).write_bytes(broken)
        try:
            with Store.read(tmp_path) as store:
                store.jobs(), store.costs(), store.attempts(), store.get("title")
        except RunError:
            told += 1
        except TypeCheckError:
            pass  # of a letter, as in "waiti;g", that nobody would notice
    assert told > 10
    for length in (1, 99, 4096, len(whole) // 2, len(whole) - 1):
        (tmp_path / FILE).write_bytes(whole[:length])
        refused(tmp_path, FILE, opened=False)


def test_text_that_is_not_json_is_damage(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, jobs_of())
        store.put(title="x")
    places = ("jobs", "options"), ("jobs", "model"), ("jobs", "teachers"), ("study", "value")
    for (table, column), text in product(places, ("{broken", "[" * 100_000)):
        kept = (tmp_path / FILE).read_bytes()
        connection = sqlite3.connect(tmp_path / FILE)
        with connection:
            connection.execute(f"UPDATE {table} SET {column} = ?", (text,))
        connection.close()
        advice = "It is damaged: delete it and run the study again: finished runs in its folder are found and kept."
        reason = {
            "{": "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            "[": "maximum recursion depth exceeded while decoding a JSON array from a unicode string",
        }[text[0]]
        damage = f"a value is not JSON ({reason})"
        refused(tmp_path, f"{tmp_path / FILE} cannot be used: {damage}. {advice}", opened=table == "jobs")
        (tmp_path / FILE).write_bytes(kept)
    assert len(read(tmp_path)) == 18


def test_reading_changes_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        one, *_ = fill(store, jobs_of())
    before = (tmp_path / FILE).read_bytes()
    with Store.read(tmp_path) as store:
        store.jobs()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store._db.execute("DELETE FROM jobs")
    with pytest.raises(RunError, match="cannot be used"), Store.read(tmp_path) as store:
        store.begin(one, "worker 1")
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


# --- names ---


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with Store.open(folder) as store:
        one, *_ = fill(store, jobs_of())
        store.begin(one, "worker 1")
        store.fail(one, f"Cannot write {folder}")
    assert "caf\\udce9" in str(read(folder)[0].error)


# --- several at a time, and kills ---


def test_reading_while_the_driver_writes(tmp_path: Path) -> None:
    """A reader sees each run before or after a change, never half of it."""
    jobs = jobs_of()
    with Store.open(tmp_path) as store:
        known = fill(store, jobs)
    seen: list[tuple[str, bool, bool]] = []
    done = threading.Event()
    trouble: list[BaseException] = []

    def look() -> None:
        try:
            while not done.is_set():
                with Store.read(tmp_path) as reader:
                    found = reader.jobs()
                assert len(found) == len(jobs)
                seen.extend((job.status, job.result is None, job.seconds is None) for job in found)
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    with Store.open(tmp_path) as store:
        for identity in known:
            store.begin(identity, "worker 1")
            store.finish(identity, RESULT, 1.0)
        fill(store, jobs)
    done.set()
    thread.join()
    assert trouble == []
    assert set(seen) <= {("waiting", True, True), ("running", True, True), ("finished", False, False)}
    assert {job.status for job in read(tmp_path)} == {"finished"}


def killed_within(folder: Path, jobs: list[Job], where: str) -> None:
    """Be a driver that is killed, between two transactions or within one."""
    with Store.open(folder) as store:
        store.plan([(f"{k:064x}", job) for k, job in enumerate(jobs)], {})
        store.begin(f"{0:064x}", "worker 1")
        store.finish(f"{0:064x}", RESULT, 1.0)
        store.begin(f"{1:064x}", "worker 1")
        if where == "within":
            # Not committed, and so much that a part is in the file already.
            store._db.execute("PRAGMA cache_size = 1")
            store._db.execute("UPDATE runs SET status = 'finished'")
            store._db.execute("DELETE FROM jobs")
            for _ in range(3000):
                store._db.execute("INSERT INTO attempts VALUES (?, ?, 1.0, NULL, NULL)", (f"{1:064x}", "w" * 100))
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("where", ["between", "within"])
def test_a_kill_leaves_whole_transactions(tmp_path: Path, where: str) -> None:
    jobs = jobs_of("datasets: phantom\nmodels: qvit_4q2h\nseeds: 3")
    child = os.fork()
    if child == 0:
        try:
            killed_within(tmp_path, jobs, where)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / f"{FILE}-journal").exists() == (where == "within"), "or the case is of no use"
    found = read(tmp_path)
    assert [(job.status, job.result) for job in found] == [
        ("finished", RESULT),
        ("running", None),
        ("waiting", None),
    ]
    with Store.open(tmp_path) as store:
        assert [attempt.outcome for attempt in store.attempts()] == ["finished", None]
        store.release(found[1].identity, "stopped with its driver")
        assert store.attempts()[1].outcome == "stopped with its driver"


def test_an_error_within_a_transaction_leaves_what_was(tmp_path: Path) -> None:
    jobs = jobs_of()
    with Store.open(tmp_path) as store:
        known = fill(store, jobs)
        broken = list(zip(known, jobs, strict=True))
        broken[5] = (known[5], replace(jobs[5], seed=2**70))
        with pytest.raises(OverflowError):
            store.plan(broken, {})
        assert [job.identity for job in store.jobs()] == known


def test_results_are_plain_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever opens the file with other tools."""
    with Store.open(tmp_path) as store:
        one, *_ = fill(store, jobs_of())
        store.finish(one, RESULT, 1.0)
    connection = sqlite3.connect(tmp_path / FILE)
    [(text,)] = connection.execute("SELECT result FROM runs WHERE status = 'finished'").fetchall()
    connection.close()
    assert json.loads(text)["test"]["auc_interval"] == [0.5, None]
