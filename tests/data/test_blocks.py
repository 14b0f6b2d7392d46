"""Blocks of pictures on their way: what is kept of each file. How imports go on is in test_importing."""

import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from data.picture_folders import class_folder, picture
from qvit.data import blocks
from qvit.data.blocks import Read, read_blocks
from qvit.data.options import ImportOptions
from qvit.errors import RunError


def read_all(folder: Path, files: list[str], kept: Path) -> list[blocks.Block]:
    stamps = [((folder / file).stat().st_size, 0) for file in files]
    return read_blocks(folder, files, stamps, kept, size=4, options=ImportOptions(), enough=99)


def test_blocks_hold_pictures_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    class_folder(tmp_path / "x", {"a": 20})
    picture(tmp_path / "x" / "grey.png", mode="L")
    (tmp_path / "x" / "bad.png").write_text("no picture")
    files = [*(f"a/{place:02}.png" for place in range(20)), "grey.png", "bad.png"]
    kept = tmp_path / "kept"
    kept.mkdir()
    found = read_all(tmp_path / "x", files, kept)
    assert [len(block.reads) for block in found] == [8, 8, 6]
    assert [read.file for block in found for read in block.reads] == list(range(22))
    assert [len(block.pixels()) for block in found] == [8, 8, 5]
    last = found[-1]
    assert last.reads[3].colour == "rgb"
    assert last.reads[4] == Read(20, images=1, colour="grey")
    assert last.reads[5].why is not None
    assert last.reads[5].images == 0
    pixels = last.pixels()
    assert (pixels[4] == pixels[4][:, :, :1]).all(), "grey three times"
    again = read_all(tmp_path / "x", files, kept)
    assert again == found
    assert np.array_equal(again[0].pixels(), found[0].pixels())


def test_a_colour_picture_of_greys_is_both(tmp_path: Path) -> None:
    from PIL import Image

    picture(tmp_path / "grey.png", mode="L")
    Image.open(tmp_path / "grey.png").convert("RGB").save(tmp_path / "rgb.png")
    [block] = read_all(tmp_path, ["grey.png", "rgb.png"], tmp_path)
    assert [read.colour for read in block.reads] == ["grey", "both"]
    first, second = block.pixels()
    assert np.array_equal(first, second)


def test_blocks_of_large_files_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_FILES", 8)
    monkeypatch.setattr(blocks, "BLOCK_READ", 30)
    for name in "abcdefghijklmnopqr":
        (tmp_path / name).write_bytes(bytes(10))
    (tmp_path / "c").write_bytes(bytes(21))
    (tmp_path / "f").write_bytes(bytes(99))
    for name in "ijklmnopqr":
        (tmp_path / name).write_bytes(b"")
    read = [[each.file for each in block.reads] for block in read_all(tmp_path, list("abcdefghijklmnopqr"), tmp_path)]
    assert read == [[0, 1], [2], [3, 4], [5], [6, 7, 8, 9, 10, 11, 12, 13], [14, 15, 16, 17]]


SCRIPT = """
import sys
from pathlib import Path

from qvit.data import blocks
from qvit.data.options import ImportOptions

folder, kept, files = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
blocks.ALONE, blocks.BLOCK_BYTES = 0, 1
stamps = [((folder / file).stat().st_size, 0) for file in files]
found = blocks.read_blocks(folder, files, stamps, kept, size=4, options=ImportOptions(), enough=9)
print([(read.file, read.why) for block in found for read in block.reads])
"""


@pytest.mark.slow("starts Python, and processes of it")
@pytest.mark.processes
def test_processes_read_what_one_does_and_need_no_main_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    class_folder(tmp_path, {"a": 40})
    (tmp_path / "bad.png").write_text("no picture")
    files = [*(f"a/{place:02}.png" for place in range(40)), "bad.png"]
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    found = read_all(tmp_path, files, tmp_path / "one")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    line = [sys.executable, str(script), str(tmp_path), str(tmp_path / "many"), *files]
    run = subprocess.run(line, capture_output=True, text=True, check=True, env=os.environ | {"LOKY_MAX_CPU_COUNT": "2"})
    assert run.stdout.strip() == str([(read.file, read.why) for block in found for read in block.reads])
    assert run.stderr == ""
    for block in found:
        assert (tmp_path / "many" / block.path.name).read_bytes() == block.path.read_bytes()


def test_a_process_that_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(blocks, "ALONE", 0)
    monkeypatch.setattr("joblib.Parallel.__call__", ended)
    class_folder(tmp_path, {"a": 2})
    with pytest.raises(RunError) as told:
        read_all(tmp_path, ["a/00.png", "a/01.png"], tmp_path)
    assert str(told.value) == (
        "A process that reads pictures was ended, perhaps for want of memory. Run it again: it goes on."
    )
