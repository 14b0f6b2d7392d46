"""Work that is spread: everything once and in order, by whoever has time, few results in memory."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from qvit.answers import spread
from qvit.answers.spread import ALONE, File, Part, in_order, start_if_many
from qvit.errors import RunError


def parts(count: int, taken: list[int] | None = None) -> Iterator[Part]:
    for place in range(count):
        if taken is not None:
            taken.append(place)
        yield place, []


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four processors, and threads in place of three processes."""
    with ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(spread, "_processors", lambda: 4)
        monkeypatch.setattr("joblib.externals.loky.get_reusable_executor", lambda **_: pool)
        yield


def here(place: int, _: list[File]) -> tuple[str, int]:
    return "here", place


def there(place: int, _: list[File]) -> tuple[str, int]:
    return "there", place


@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_everything_is_done_once_and_in_order(count: int, four: None) -> None:
    assert [place for _, place in in_order(parts(count), here, there)] == [*range(count)]
    assert [*in_order(parts(count), here, None)] == [("here", place) for place in range(count)]


def test_one_processor_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_processors", lambda: 1)
    assert [*in_order(parts(3), here, there)] == [("here", place) for place in range(3)]


def test_this_process_works_while_others_do(four: None) -> None:
    go = Event()

    def waiting(place: int, _: list[File]) -> tuple[str, int]:
        assert go.wait(60)
        return "there", place

    def working(place: int, _: list[File]) -> tuple[str, int]:
        if place == 9:  # six wait for the others, and three were done here
            go.set()
        return "here", place

    found = [*in_order(parts(50), working, waiting)]
    assert [place for _, place in found] == [*range(50)]
    assert [who for who, _ in found[:10]] == ["there"] * 6 + ["here"] * 4


def test_few_results_wait(four: None) -> None:
    taken: list[int] = []
    found = in_order(parts(10_000, taken), here, there)
    for _ in range(5):
        next(found)
    assert len(taken) <= 5 + spread._room(3)
    found.close()  # type: ignore[attr-defined]


def test_a_process_that_is_ended_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def submit(self, *_: Any) -> Future[Any]:
            broken: Future[Any] = Future()
            broken.set_exception(BrokenProcessPool())
            return broken

    monkeypatch.setattr(spread, "_processors", lambda: 2)
    monkeypatch.setattr("joblib.externals.loky.get_reusable_executor", lambda **_: Broken())
    with pytest.raises(RunError, match=r"^A process that reads pictures was ended, perhaps for want of memory\."):
        [*in_order(parts(3), here, there)]


def test_an_error_of_the_work_is_raised_and_the_rest_is_left(four: None) -> None:
    def wrong(place: int, _: list[File]) -> tuple[str, int]:
        if place == 3:
            raise RunError("no")
        return "", place

    found = in_order(parts(10_000), wrong, wrong)
    assert [next(found)[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RunError, match=r"^no$"):
        next(found)


class Pool:
    """In place of processes: what it is given to do."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def submit(self, work: Any) -> None:
        self.given.append(work)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    made = Pool()
    monkeypatch.setattr(spread, "_processors", lambda: 3)
    monkeypatch.setattr("joblib.externals.loky.get_reusable_executor", lambda **_: made)
    return made


def large(path: Path, size: int = ALONE) -> Path:
    """A file of a size that takes no room on the disk."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("named", ["a.png", "in", "in/of", "long.txt"])
def test_processes_are_started_early_for_many_files(pool: Pool, tmp_path: Path, named: str) -> None:
    large(tmp_path / "a.png")
    large(tmp_path / "in" / "b.png")
    large(tmp_path / "in" / "of" / "c.png")
    large(tmp_path / "long.txt", 1 << 20)
    start_if_many([str(tmp_path / named)])
    assert len(pool.given) == 2
    pool.given[0]()
    assert "qvit.answers.members" in sys.modules, "what takes long"


def test_many_small_files_are_many(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "ALONE", 30_000)
    for place in range(9):
        (tmp_path / f"{place}.png").touch()
    start_if_many([str(tmp_path)])
    assert not pool.given
    for place in range(9, 11):
        (tmp_path / f"{place}.png").touch()
    start_if_many([str(tmp_path), "more"])
    assert pool.given


@pytest.mark.parametrize("words", [[], ["-"], ["none.png", "a.txt", "\0", "none"]])
def test_for_few_files_nothing_is_started(pool: Pool, words: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    large(tmp_path / "a.txt", 1000)
    start_if_many(words)
    assert not pool.given


def test_one_processor_starts_nothing(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_processors", lambda: 1)
    start_if_many([str(large(tmp_path / "a.png"))])
    assert not pool.given
