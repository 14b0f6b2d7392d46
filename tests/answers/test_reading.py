"""Files as squares: what words name, blocks in order, broken files in their place, processes and memory."""

import io
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from answers.conftest import pictures
from qvit.answers import reading
from qvit.answers.needs import Needs
from qvit.answers.reading import Block, named, read
from qvit.data.options import ImportOptions
from qvit.errors import DataError, RunError

NEEDS = Needs(8, 3, "binary", ("no", "yes"), "none", ImportOptions())


def of(blocks: Iterator[Block]) -> tuple[list[str], list[str | None], np.ndarray]:
    found = [*blocks]
    errors = [error for block in found for error in block.errors]
    return [s for b in found for s in b.sources], errors, np.concatenate([b.squares for b in found])


def test_words_name_pictures_folders_lists_and_lines(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "some", 3)
    nested = pictures(tmp_path / "some" / "more", 1)
    (tmp_path / "list.txt").write_text("some/01.png\r\n\nsome/00.png\n")
    assert [*named([paths[2]], ())] == [paths[2]]
    assert [*named([tmp_path / "some"], ())] == [*paths, *nested]
    assert [*named([str(tmp_path / "list.txt")], ())] == [paths[1], paths[0]], "relative to the list"
    assert [*named(["-"], io.StringIO("a.png\nb c.png\n"))] == [Path("a.png"), Path("b c.png")]
    assert [*named([paths[0], "-", paths[1]], ["x"])] == [paths[0], Path("x"), paths[1]]


def test_words_that_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected a folder of pictures, found no \.png or \.jpg or \.jpeg in it"):
        [*named([tmp_path / "empty"], ())]
    with pytest.raises(DataError, match=r"^There is no file .*none\.txt\.$"):
        [*named([tmp_path / "none.txt"], ())]
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="expected text in UTF-8"):
        [*named([tmp_path / "list.txt"], ())]


def test_broken_files_are_told_of_in_their_place(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 4)
    paths[1].write_bytes(b"text")
    paths[2].write_bytes(paths[3].read_bytes()[:300])
    given = [*paths, tmp_path / "missing.png"]
    sources, errors, squares = of(read(given, NEEDS))
    assert sources == [str(path) for path in given]
    assert [error is None for error in errors] == [True, False, False, True, False]
    assert "found text" in (errors[1] or "")
    assert "expected a sound picture, found damage" in (errors[2] or "")
    assert "nothing there" in (errors[4] or "")
    assert squares.tolist() == [NEEDS.squares(paths[place])[0].tolist() for place in (0, 3)]


def test_each_frame_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = pictures(tmp_path, 1)
    square = NEEDS.squares(path)[0]
    monkeypatch.setattr(Needs, "squares", lambda *_: [square, square])
    sources, errors, squares = of(read([path], NEEDS))
    assert sources == [f"{path}#1", f"{path}#2"]
    assert errors == [None, None]
    assert len(squares) == 2


def test_blocks_are_small_for_large_squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path, 5)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 2 * 3 * 8 * 8)
    assert [len(block.squares) for block in read(paths, NEEDS)] == [2, 2, 1]
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1)
    assert [len(block.squares) for block in read(paths, NEEDS)] == [1] * 5


@pytest.mark.processes
@pytest.mark.slow("starts processes that read")
def test_many_files_are_read_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path, 40)
    paths[7].write_bytes(b"")
    alone = of(read(paths, NEEDS))
    monkeypatch.setattr(reading, "ALONE", 10_000)
    monkeypatch.setattr(reading, "MOST_FILES", 3)
    blocks = read(iter(paths), NEEDS)
    first = next(blocks)
    assert len(first.sources) == 3
    rest = of(blocks)
    assert [*first.sources, *rest[0]] == alone[0]
    assert [*first.errors, *rest[1]] == alone[1]
    assert np.concatenate([first.squares, rest[2]]).tolist() == alone[2].tolist()


def test_a_process_that_is_ended_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> None:
        raise BrokenProcessPool

    paths = pictures(tmp_path, 4)
    monkeypatch.setattr(reading, "ALONE", 0)
    monkeypatch.setattr(Done, "result", ended)
    monkeypatch.setattr("joblib.externals.loky.get_reusable_executor", lambda **_: AtOnce())
    with pytest.raises(RunError, match=r"^A process that reads pictures was ended, perhaps for want of memory\."):
        [*read(paths, NEEDS)]


def test_no_more_files_are_taken_than_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with their number: of an endless list a few blocks are taken."""
    [path] = pictures(tmp_path, 1)
    taken = [0]

    def endless() -> Iterator[Path]:
        while True:
            taken[0] += 1
            yield path

    monkeypatch.setattr(reading, "MOST_FILES", 2)
    monkeypatch.setattr(reading, "ALONE", 20_000)
    monkeypatch.setattr("joblib.externals.loky.get_reusable_executor", lambda **_: AtOnce())
    blocks = read(endless(), NEEDS)
    for _ in range(10):
        next(blocks)
    assert taken[0] < 60


class AtOnce:
    """Does what it is handed at once."""

    def submit(self, work: object, *given: object) -> "Done":
        return Done(work(*given))  # type: ignore[operator]


class Done:
    def __init__(self, result: object) -> None:
        self._result = result

    def result(self) -> object:
        return self._result

    def cancel(self) -> None:
        pass
