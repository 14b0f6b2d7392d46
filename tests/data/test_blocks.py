"""Blocks of pictures on their way: what is kept of each file. How imports go on is in test_importing."""

from pathlib import Path

import numpy as np
import pytest

from data.picture_folders import class_folder, picture
from qvit.data import blocks
from qvit.data.blocks import Read, read_blocks
from qvit.data.options import ImportOptions


def test_blocks_hold_pictures_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    class_folder(tmp_path / "x", {"a": 20})
    picture(tmp_path / "x" / "grey.png", mode="L")
    (tmp_path / "x" / "bad.png").write_text("no picture")
    files = [*(f"a/{place:02}.png" for place in range(20)), "grey.png", "bad.png"]
    kept = tmp_path / "kept"
    kept.mkdir()
    found = read_blocks(tmp_path / "x", files, kept, size=4, options=ImportOptions(), enough=9)
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
    again = read_blocks(tmp_path / "x", files, kept, size=4, options=ImportOptions(), enough=9)
    assert again == found
    assert np.array_equal(again[0].pixels(), found[0].pixels())


def test_a_colour_picture_of_greys_is_both(tmp_path: Path) -> None:
    from PIL import Image

    picture(tmp_path / "grey.png", mode="L")
    Image.open(tmp_path / "grey.png").convert("RGB").save(tmp_path / "rgb.png")
    [block] = read_blocks(tmp_path, ["grey.png", "rgb.png"], tmp_path, size=4, options=ImportOptions(), enough=0)
    assert [read.colour for read in block.reads] == ["grey", "both"]
    first, second = block.pixels()
    assert np.array_equal(first, second)
