"""Files as squares: what words name, broken files in their place, parts of a size that fits into memory."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from answers.conftest import pictures
from qvit.answers import reading
from qvit.answers.needs import Needs
from qvit.answers.reading import block, in_parts, named
from qvit.answers.spread import File, weight
from qvit.data.options import ImportOptions
from qvit.errors import DataError

NEEDS = Needs(8, 3, "binary", ("no", "yes"), "none", ImportOptions())


def files_of(words: Iterable[str | Path], lines: Iterable[str] = ()) -> list[Path]:
    found = [*named(words, lines)]
    assert all(why is None for _, why in found)
    return [Path(path) for path, _ in found]


def given(files: Iterable[Path]) -> Iterator[File]:
    return ((str(file), None) for file in files)


def read(files: Iterable[Path]) -> tuple[list[str], list[str | None], np.ndarray]:
    found = [block(NEEDS, *part) for part in in_parts(given(files), NEEDS)[0]]
    assert [place for each in found for place in each.files] == sorted(place for each in found for place in each.files)
    errors = [error for each in found for error in each.errors]
    return [s for each in found for s in each.sources], errors, np.concatenate([each.squares for each in found])


def test_words_name_pictures_folders_lists_and_lines(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "some", 3)
    nested = pictures(tmp_path / "some" / "more", 1)
    (tmp_path / "list.txt").write_bytes("\ufeffsome/01.png\r\n\nsome/a\u2028b.png\nsome/00.png".encode())
    assert files_of([paths[2]]) == [paths[2]]
    assert files_of([tmp_path / "some"]) == [*paths, *nested]
    listed = [paths[1], tmp_path / "some" / "a\u2028b.png", paths[0]]
    assert files_of([str(tmp_path / "list.txt")]) == listed, "relative to the list"
    assert files_of(["-"], io.StringIO("a.png\nb c.png\n")) == [Path("a.png"), Path("b c.png")]
    assert files_of([paths[0], "-", paths[1]], ["x"]) == [paths[0], Path("x"), paths[1]]


def test_words_that_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paths = pictures(tmp_path / "some", 1)
    [empty, *rest] = named([tmp_path / "empty", *paths], ())
    assert empty[0] == str(tmp_path / "empty")
    assert empty[1] == "expected a folder of pictures, found no .png or .jpg or .jpeg in it. Name another."
    assert rest == [(str(paths[0]), None)], "the others go on"
    found = block(NEEDS, 0, [empty, *rest])
    assert [error is None for error in found.errors] == [False, True]
    with pytest.raises(DataError, match=r"^Expected a picture, a folder or a list, got an empty name\."):
        [*named([""], ())]
    with pytest.raises(DataError, match=r"^There is no file .*none\.txt\.$"):
        [*named([tmp_path / "none.txt"], ())]
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="expected text in UTF-8"):
        [*named([tmp_path / "list.txt"], ())]


def test_relative_paths_are_below_the_folder_that_is_said(tmp_path: Path) -> None:
    [path] = pictures(tmp_path / "some", 1)
    found = block(NEEDS, 0, [("some/00.png", None)], folder=tmp_path)
    assert found.sources == ("some/00.png",)
    assert found.squares[0].tolist() == NEEDS.squares(path)[0].tolist()


def test_broken_files_are_told_of_in_their_place(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 4)
    paths[1].write_bytes(b"text")
    paths[2].write_bytes(paths[3].read_bytes()[:300])
    asked = [*paths, tmp_path / "missing.png"]
    sources, errors, squares = read(asked)
    assert sources == [str(path) for path in asked]
    assert [error is None for error in errors] == [True, False, False, True, False]
    assert "found text" in (errors[1] or "")
    assert "expected a sound picture, found damage" in (errors[2] or "")
    assert "nothing there" in (errors[4] or "")
    assert squares.tolist() == [NEEDS.squares(paths[place])[0].tolist() for place in (0, 3)]


def test_each_frame_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = pictures(tmp_path, 1)
    square = NEEDS.squares(path)[0]
    monkeypatch.setattr(Needs, "squares", lambda *_: [square, square])
    sources, errors, squares = read([path])
    assert sources == [f"{path}#1", f"{path}#2"]
    assert errors == [None, None]
    assert len(squares) == 2


def sizes(files: Iterable[Path]) -> list[tuple[int, int]]:
    return [(start, len(part)) for start, part in in_parts(given(files), NEEDS)[0]]


def test_parts_are_small_for_large_squares_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path, 5)
    assert sizes(paths) == [(0, 5)]
    monkeypatch.setattr(reading, "BLOCK_BYTES", 2 * 3 * 8 * 8)
    assert sizes(paths) == [(0, 2), (2, 2), (4, 1)]
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1)
    assert sizes(paths) == [(place, 1) for place in range(5)]
    monkeypatch.undo()
    length = weight(str(paths[0]))
    monkeypatch.setattr(reading, "BLOCK_READ", int(2.5 * length))
    assert sizes([paths[0]] * 7) == [(0, 3), (3, 3), (6, 1)]
    monkeypatch.setattr(reading, "MOST_FILES", 2)
    assert sizes([paths[0]] * 3) == [(0, 2), (2, 1)]
    assert sizes([]) == []


def test_many_files_and_large_ones_are_worth_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing, taken = tmp_path / "missing.png", [0]

    def endless() -> Iterator[Path]:
        while True:
            taken[0] += 1
            yield missing

    monkeypatch.setattr(reading, "ALONE", 30_000)
    assert not in_parts(given([missing] * 10), NEEDS)[1]
    assert in_parts(given([missing] * 11), NEEDS)[1]
    large = tmp_path / "large.png"
    large.write_bytes(bytes(30_000))
    assert in_parts(given([large]), NEEDS)[1]
    parts, many = in_parts(given(endless()), NEEDS)
    assert many
    assert taken[0] == 11, "no more are taken than it needs to tell"
    next(parts)
    assert taken[0] <= reading.MOST_FILES + 1
