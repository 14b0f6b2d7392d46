"""All that takes a name of a file: what cannot be written down or could block for ever is refused."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.arrays import load_dataset, verify
from qvit.data.transfer import load_images
from qvit.errors import DataError, FileError

Save = Callable[..., Path]
LATIN = os.fsdecode(b"h\xf4pital.npz")
BAD = {
    LATIN: "found bytes that are no UTF-8 in '.*pital.npz'",
    "two\nlines.npz": r"found the character '\\n' in ",
    "screen\x1b[2J.npz": r"found the character '\\x1b' in ",
    "a\u2028b.npz": r"found the character '\\u2028' in ",
}
WAYS: dict[str, Callable[[Path], Any]] = {
    "load": load_dataset,
    "load a text": lambda path: load_dataset(str(path)),
    "verify": verify,
    "images": lambda path: load_images(path, size=28, channels=3),
}


@pytest.mark.parametrize(
    ("name", "way"), [*((name, "load") for name in BAD), *((LATIN, way) for way in list(WAYS)[1:])]
)
def test_a_name_that_cannot_be_written_down(name: str, way: str, arrays: dict, save: Save) -> None:
    path = save(arrays, name)
    with pytest.raises(DataError, match=f"a path whose name can be written down, {BAD[name]}.*Rename that") as caught:
        WAYS[way](path)
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


def test_the_name_that_counts_is_the_whole_one(
    arrays: dict, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(arrays, f"{os.fsdecode(bytes([0xE9]))}/own.npz")
    (tmp_path / "link.npz").symlink_to(path)
    monkeypatch.chdir(path.parent)
    for given in ("own.npz", tmp_path / "link.npz"):
        with pytest.raises(DataError, match="bytes that are no UTF-8"):
            load_dataset(given)
    monkeypatch.undo()


def test_unusual_names_that_can(arrays: dict, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Bild 1\u202fPM – 測試 [x] {y} 'z' ß.npz", "~.npz", "-n.npz"):
        assert load_dataset(save(arrays, name)).info.name == name.removesuffix(".npz")
    long = "ü" * 120 + ".npz"  # 244 bytes
    monkeypatch.setattr("qvit.data.source.MAP_ABOVE", 0)
    assert load_dataset(save(arrays, long), root=tmp_path / "cache").train.mapped
    with pytest.raises(FileError, match="Write the home folder in full"):
        load_dataset("~nobody-of-this-name/own.npz")
    with pytest.raises(FileError, match="Write the home folder in full"):
        load_dataset("retinamnist", root="~nobody-of-this-name", download=False)
    with pytest.raises(DataError, match="found File name too long"):
        load_dataset("ü" * 200 + ".npz")


# --- what is no file ---


def make(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))  # its address may have 107 bytes


KINDS = {
    "pipe": "a readable file, found a pipe or a device. Check its kind",
    "device": "a readable file, found a pipe or a device",
    "socket": "a readable file, found No such device or address",
    "folder": "a folder of pictures, found no .png",
    "loop": "a readable file, found Too many levels of symbolic links",
}


def in_time(attempt: Callable[[], Any]) -> BaseException | None:
    """Return what an attempt raises; fails if it is still waiting for somebody after long."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            attempt()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits"
    return raised[0] if raised else None


@pytest.mark.parametrize(
    ("kind", "way"), [*((kind, "load") for kind in KINDS), *(("pipe", way) for way in list(WAYS)[1:])]
)
def test_what_is_no_file_is_not_waited_for(
    kind: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.npz"
    make(kind, path)
    error = in_time(lambda: WAYS[way](path))
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path}: expected {KINDS[kind]}")


def test_an_official_file_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "retinamnist.npz")
    for way in (load_dataset, verify):
        error = in_time(lambda way=way: way("retinamnist", root=tmp_path))  # type: ignore[misc]
        assert isinstance(error, DataError)
        assert "found a pipe or a device" in str(error)


def test_an_official_file_in_a_folder_of_any_name(
    arrays: dict, save: Save, official: Callable[..., None], tmp_path: Path
) -> None:
    """Its path is recorded nowhere, and a home may have any name."""
    path = save(arrays, os.fsdecode(b"\xe9/retinamnist.npz"))
    official(path)
    assert np.array_equal(load_dataset("retinamnist", root=path.parent).train.labels, arrays["train_labels"])
