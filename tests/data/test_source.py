"""Where data come from: an own file under any name, or the official one, which is checked first."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data import source as loading
from qvit.data.arrays import load_dataset, verify
from qvit.errors import ConfigError, DataError

Arrays = dict[str, Any]
Save = Callable[..., Path]


def test_a_dataset_is_recognised_by_what_it_holds_and_not_by_its_file(
    arrays: Arrays, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dataset(save(arrays)).digest
    (tmp_path / "there").mkdir()
    np.savez_compressed(tmp_path / "there" / "other.npz", **dict(reversed(arrays.items())), more=np.zeros(3))
    assert load_dataset(tmp_path / "there" / "other.npz").digest == first
    monkeypatch.setattr(loading, "MAP_ABOVE", 0)
    monkeypatch.setattr("qvit.data.arrays._CHUNK", 5 * 3 * 28 * 28)
    assert load_dataset(save(arrays), root=tmp_path).digest == first
    found = {first}
    for key in arrays:
        changed = arrays[key].copy()
        changed[3] = changed[3] ^ 1 if "images" in key else (changed[3] + 1) % 5
        found.add(load_dataset(save(arrays | {key: changed}, "changed.npz"), root=tmp_path).digest)
    swapped = {key: arrays[key.replace("val", "?").replace("test", "val").replace("?", "test")] for key in arrays}
    found.add(load_dataset(save(swapped, "swapped.npz"), root=tmp_path).digest)
    assert len(found) == 1 + 6 + 1
    assert re.fullmatch("[0-9a-f]{32}", first)


def test_official_file_is_checked_by_md5_first(
    arrays: Arrays, save: Save, official: Callable[..., None], tmp_path: Path
) -> None:
    path = save(arrays, "retinamnist.npz")
    official(path)
    data = load_dataset("retinamnist", root=tmp_path)
    assert data.info.title == "RetinaMNIST"
    report = verify("retinamnist", root=tmp_path)
    assert report["md5"] == data.info.md5[28]
    assert report["official"]
    assert report["splits"]["val"]["per_label"] == np.bincount(arrays["val_labels"][:, 0], minlength=5).tolist()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:500], b"", whole[:900] + b"?" + whole[901:], b"text"):
        path.write_bytes(damaged)
        message = rf"MD5 {report['md5']}, found \w+ \({len(damaged)} bytes\). .*left untouched: move it away and run"
        for check in (load_dataset, verify):
            with pytest.raises(DataError, match=message):
                check("retinamnist", root=tmp_path)
        assert path.read_bytes() == damaged
        assert [p.name for p in tmp_path.iterdir()] == ["retinamnist.npz"]


def test_official_file_must_hold_what_its_row_says(
    arrays: Arrays, save: Save, official: Callable[..., None], tmp_path: Path
) -> None:
    """Also where it has been changed so that its MD5 is right."""
    path = save(arrays, "retinamnist.npz")
    official(path, task="multi-label")
    with pytest.raises(DataError, match=r"5 column\(s\) in train_labels for the task multi-label, found 1"):
        load_dataset("retinamnist", root=tmp_path)
    with pytest.raises(ConfigError, match="has the task multi-label, not binary; leave the task out"):
        load_dataset("retinamnist", root=tmp_path, task="binary")
    for way in (load_dataset, verify):
        with pytest.raises(ConfigError, match=r"^Dataset 'retinamnist' has no files of size 29; expected one of 28"):
            way("retinamnist", 29, root=tmp_path)
    with pytest.raises(ConfigError, match="made on the spot"):
        verify("phantom")
