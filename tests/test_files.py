"""Files are read whole or refused in one line."""

import io
from pathlib import Path

import pytest

from qvit import files
from qvit.errors import FileError
from qvit.files import read_bytes


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
