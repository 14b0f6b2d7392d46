"""Files are read whole or refused in one line."""

import io
import os
from pathlib import Path
from typing import Any

import pytest

from qvit import files
from qvit.errors import ConfigError, FileError, RunError
from qvit.files import chosen, open_regular, printable, read_bytes, shown


def test_a_disk_that_fails_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    path = tmp_path / "a.json"
    path.write_bytes(b"{}")
    monkeypatch.setattr(files, "open_regular", lambda path: Failing())
    with pytest.raises(FileError) as caught:
        read_bytes(path, most=10)
    assert str(caught.value) == f"Cannot read {path}: Input/output error."
    assert (caught.value.found, caught.value.missing) == ("Input/output error", False)
    monkeypatch.undo()
    assert read_bytes(path, most=2) == b"{}"
    with pytest.raises(FileError, match=r"a\.json: expected at most 1 bytes, found more\.$"):
        read_bytes(path, most=1)


LATIN = os.fsdecode(b"h\xf4pital.npz")


def test_printable_raises_what_it_is_told(tmp_path: Path) -> None:
    assert printable(str(tmp_path / "new")) == tmp_path / "new"
    for raised in (FileError, RunError, ConfigError):
        with pytest.raises(raised, match="Rename that"):
            printable(tmp_path / "a\0b", raised=raised)


def test_shown_is_one_short_line() -> None:
    assert shown("train_images.npy") == "train_images.npy"
    assert shown("\x1b[2J\n") == r"'\x1b[2J\n'"
    assert shown(LATIN) == r"'h\udcf4pital.npz'"
    assert len(shown("x" * 10_000)) == 41


def test_regular_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with open_regular(path) as file:
        assert (file.name, file.read()) == (str(path), b"content")
    assert read_bytes(path, most=7) == b"content"
    with pytest.raises(FileError, match="at most 6 bytes, found more"):
        read_bytes(path, most=6)
    with pytest.raises(FileError, match="expected a regular file, found a folder"):
        read_bytes(tmp_path, most=6)
    with pytest.raises(FileError, match="There is no file") as caught:
        open_regular(tmp_path / "none")
    assert caught.value.missing


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, b"old")

    def fail(*args: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fail)
        with pytest.raises(RunError, match=r"Cannot write .*file: Input/output error"):
            files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(RunError, match=r"Cannot write .*no/file: No such file or directory"):
        files.write_atomic(tmp_path / "no" / "file", b"")


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    files.write_atomic(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_file_of_the_users_takes_the_place_of_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, found in ((tmp_path / "pipe", "a pipe or a device"), (Path(), "no name"), (Path("/dev/null"), "a pipe")):
        with pytest.raises(RunError, match=f"^Cannot write .*: expected the name of a file, found {found}"):
            chosen(path)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "new", tmp_path / "no" / "new", Path("a\0")):
        assert chosen(path) == path
