"""Handing runs out: what is done when one fails, a worker dies, or the driver is stopped; and how far it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.errors import ConfigError
from qvit.study import runner
from qvit.study.driver import LOST_AT_MOST, StudyProgress, error_file
from qvit.study.pool import Event
from qvit.study.runner import Summary, run_study
from qvit.study.spec import Study
from qvit.study.store import Store
from qvit.study.work import Work, execute
from study.inline import TAUGHT, InlinePool, lost, stored

Go = Callable[..., tuple[Summary, InlinePool]]
MakeStudy = Callable[..., Study]


def test_a_crash_is_recorded_and_stops_nobody(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    def crash(work: Work, number: int) -> Event | None:
        told = ("ValueError: out of luck", "Traceback …")
        return Event("failed", work.identity, "here", told) if "vit" in work.name else None

    summary, pool = go(study(), crash)
    name = "first vit_4q1h scratch seed 0"
    assert summary.failed == {name: "ValueError: out of luck"}
    assert summary.finished == 1
    job = stored(tmp_path / "study")[name]
    assert (job.status, job.error) == ("failed", "ValueError: out of luck")
    assert error_file(job).read_text() == "Traceback …"
    summary, pool = go(study())
    assert (summary.failed, pool.done) == ({}, [name])
    assert not error_file(job).exists()


@pytest.mark.long
def test_students_of_a_failed_teacher_fail_with_it(study: MakeStudy, go: Go) -> None:
    def crash(work: Work, number: int) -> Event | None:
        return Event("failed", work.identity, "here", ("E: no", "")) if "big" in work.name else None

    summary, pool = go(study(**TAUGHT), crash)
    assert summary.finished == 2
    assert len(summary.failed) == 3
    assert summary.failed["first vit_4q1h kd seed 0"] == "its teacher failed (first vit_8q1h big seed 0)"
    assert sorted(pool.tries) == [
        "first cosine_4q1h scratch seed 0",
        "first vit_4q1h scratch seed 0",
        "first vit_8q1h big seed 0",
    ]
    assert go(study(**TAUGHT))[0].finished == 5


@pytest.mark.trains
def test_a_real_error_of_a_run_is_recorded(study: MakeStudy, go: Go) -> None:
    summary, _ = go(
        study(overrides=[{"where": {"model": "vit*"}, "set": {"lr": 1e30, "clip_norm": None}}]), does=execute
    )
    assert summary.finished == 1
    (error,) = summary.failed.values()
    assert error.startswith("TrainingError: The")
    assert "no longer finite" in error


def test_a_run_whose_worker_dies_goes_on_with_another(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    summary, pool = go(study(), lambda work, number: lost(work) if number < 3 and "vit" in work.name else None)
    assert summary.finished == 2
    assert pool.tries == {"first vit_4q1h scratch seed 0": 3, "first cosine_4q1h scratch seed 0": 1}
    with Store.read(tmp_path / "study") as store:
        outcomes = [
            one.outcome for one in store.attempts(stored(tmp_path / "study")["first vit_4q1h scratch seed 0"].identity)
        ]
    assert outcomes == ["lost: its process was killed by SIGKILL"] * 2 + ["finished"]


def test_a_run_that_kills_every_worker_is_given_up(study: MakeStudy, go: Go) -> None:
    summary, pool = go(study(), lambda work, number: lost(work) if "vit" in work.name else None)
    assert pool.tries["first vit_4q1h scratch seed 0"] == LOST_AT_MOST
    assert summary.failed == {
        "first vit_4q1h scratch seed 0": "lost 3 workers; the last one: its process was killed by SIGKILL"
    }
    assert summary.finished == 1


class StoppedError(Exception):
    """The driver's end, wherever it was."""


@pytest.mark.long
@pytest.mark.parametrize(("moment", "left"), [("begin", 5), ("finish", 4), ("after", 2)])
def test_a_driver_that_is_stopped_anywhere_goes_on(
    study: MakeStudy, go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, left: int
) -> None:
    whole, _ = go(study(**TAUGHT), folder=tmp_path / "whole")
    real = {"begin": Store.begin, "finish": Store.finish}

    def stop(self: Store, *arguments: Any) -> None:
        if moment == "after":
            real["finish"](self, *arguments)
        raise StoppedError

    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(Store, "begin" if moment == "begin" else "finish", stop)
            with pytest.raises(StoppedError):
                go(study(**TAUGHT))
    summary, pool = go(study(**TAUGHT))
    assert summary.finished == whole.finished
    # What had finished before the driver could write it down is found, not done again.
    assert len(pool.done) == left
    expected, found = stored(tmp_path / "whole"), stored(tmp_path / "study")
    assert {name: job.result for name, job in found.items()} == {name: job.result for name, job in expected.items()}


@pytest.mark.long
def test_progress_counts_and_estimates(study: MakeStudy, go: Go) -> None:
    seen: list[tuple[int, int, int, float | None, str]] = []

    def look(progress: StudyProgress) -> None:
        seen.append((progress.total, progress.finished, len(progress.doing), progress.left, progress.news))

    go(study(seeds=2), on_news=look)
    assert {total for total, *_ in seen} == {4}
    assert [finished for _, finished, *_ in seen] == sorted(finished for _, finished, *_ in seen)
    assert seen[-1][1:4] == (4, 0, 0.0)
    assert seen[0][3] is None  # nobody knows yet
    news = [line for *_, line in seen if line]
    assert len(news) == 4
    assert news[0].startswith("first vit_4q1h scratch seed 0: test AUC 0.")
    seen.clear()
    go(study(seeds=3), on_news=look)
    assert seen[0][-1] == "4 of 6 runs are done already"
    assert seen[0][3] is not None


# --- stacks ---


def together(pool: InlinePool) -> list[list[str]]:
    """The runs that were begun together, without what all names have."""
    return [[one.name.removeprefix("first ").replace("scratch seed ", "") for one in work.all] for work in pool.seen]


def test_the_seeds_of_a_model_are_trained_together(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    summary, pool = go(study(seeds=3), stacks=True)
    assert (summary.finished, summary.done_now) == (6, 6)
    assert together(pool) == [
        ["vit_4q1h 0", "vit_4q1h 1", "vit_4q1h 2"],
        ["cosine_4q1h 0", "cosine_4q1h 1", "cosine_4q1h 2"],
    ]
    _, more = go(study(seeds=5), stacks=True)
    assert together(more) == [["vit_4q1h 3", "vit_4q1h 4"], ["cosine_4q1h 3", "cosine_4q1h 4"]]
    assert go(study(seeds=5))[1].seen == [], "by themselves they would be the same"
    assert len(go(study(seeds=5, stack="never"))[1].seen) == 10, "not computed as in a stack they are others"


def test_only_what_is_alike_is_trained_together(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    odd = [
        {"where": {"seed": 1}, "set": {"lr": 0.5}},
        {"where": {"seed": 2}, "set": {"dropout": 0.5}},
        {"where": {"seed": 4}, "set": {"stacked": False}},
    ]
    _, pool = go(study(models=["vit_4q1h"], seeds=6, overrides=odd), stacks=True)
    assert together(pool) == [["vit_4q1h 0", "vit_4q1h 3", "vit_4q1h 5"], *([f"vit_4q1h {seed}"] for seed in (1, 2, 4))]


def test_students_of_one_teacher_are_trained_together(study: MakeStudy, go: Go) -> None:
    two = TAUGHT["teachers"] | {"small": [{"arch": "vit_4q1h", "epochs": 1}]}
    regimes = TAUGHT["regimes"] | {"other": TAUGHT["regimes"]["kd"] | {"teacher": "small"}}
    _, pool = go(study(teachers=two, regimes=regimes, models=["vit_4q1h"], seeds=2), stacks=True)
    seen = {tuple(one.name.split(" ", 1)[1] for one in work.all): len(work.teachers) for work in pool.seen}
    teachers = [names for names in seen if len(names) == 1]
    assert len(teachers) == 2, "a teacher is trained by itself"
    assert {names: seen[names] for names in seen if len(names) > 1} == {
        tuple(f"vit_4q1h {regime} seed {seed}" for seed in range(2)): int(regime != "scratch")
        for regime in ("scratch", "kd", "other")
    }


def test_stacks_may_take_a_stated_memory(study: MakeStudy, go: Go) -> None:
    _, pool = go(study(seeds=2), stacks=True, memory=0.25)
    assert {one.memory for work in pool.seen for one in work.all} == {0.25}
    for memory in (0.0, float("inf")):
        with pytest.raises(ConfigError, match=r"^memory must be positive, got"):
            go(study(), memory=memory)


def test_workers_share_what_is_alike(study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(InlinePool):
        """Room for two, until something has been done."""

        @property
        def idle(self) -> int:
            return 2 - len(self.begun)

        def submit(self, work: Work) -> str:
            self.begun.append(work)
            return super().submit(work)

        def events(self, timeout: float) -> list[Event]:
            self.waiting = self.begun.pop(0)
            return super().events(timeout)

    def begun(**changes: Any) -> list[int]:
        pool = Two(stacks=True)
        pool.begun = []  # type: ignore[attr-defined]
        monkeypatch.setattr(runner, "_pool", lambda *arguments: pool)
        run_study(study(**changes), tmp_path / str(changes))
        return [len(work.all) for work in pool.seen]

    assert begun(models=["vit_4q1h"], seeds=5) == [3, 2], "half each"
    assert begun(seeds=5) == [5, 5], "a model each"


def test_each_run_of_a_stack_has_its_own_end(study: MakeStudy, go: Go, tmp_path: Path) -> None:
    """One fails, one loses its worker, and then goes on by itself."""

    def mishap(work: Work, number: int) -> Event | None:
        if work.name.endswith("vit_4q1h scratch seed 1"):
            return Event("failed", work.identity, "here", ("E: no", "Traceback"))
        return lost(work) if work.name.endswith("vit_4q1h scratch seed 2") and number == 1 else None

    summary, pool = go(study(models=["vit_4q1h"], seeds=4), mishap, stacks=True)
    assert summary.failed == {"first vit_4q1h scratch seed 1": "E: no"}
    assert summary.finished == 3
    assert together(pool) == [[f"vit_4q1h {seed}" for seed in range(4)], ["vit_4q1h 2"]]
    with Store.read(tmp_path / "study") as store:
        jobs = stored(tmp_path / "study")
        outcomes = [[one.outcome for one in store.attempts(job.identity)] for job in jobs.values()]
    killed = "lost: its process was killed by SIGKILL"
    assert outcomes == [["finished"], ["failed: E: no"], [killed, "finished"], ["finished"]]
