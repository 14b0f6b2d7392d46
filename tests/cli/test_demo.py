"""`qvit demo`: what it leaves, and what it says of the phantom."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]


@pytest.mark.long
def test_demo(qvit: Qvit, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "demo"
    for again in (False, True):  # a second one replaces the first
        if again:
            monkeypatch.setattr("qvit.report.pictures.draw_comparison", lambda *_, **__: None)  # takes two seconds
        told = qvit("demo", npz, "--epochs", 1, "--out", out)
        assert told.code == 0
        assert "qvit_4q2h" in told.out
        assert re.search(r"│ vit_4q2h", told.out)
        assert sorted(path.name for path in out.iterdir()) == ["demo.png", "qvit_4q2h", "vit_4q2h"]
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    for model in ("qvit_4q2h", "vit_4q2h"):
        result = json.loads((out / model / "result.json").read_text())
        assert f" {result['test']['auc']:.3f} " in told.out
        assert f"{result['parameters']:,}" in told.out
        assert len((out / model / "metrics.jsonl").read_text().splitlines()) == 1, "as many epochs as asked for"
    assert "synthetic" not in told.out


@pytest.mark.long
def test_the_demo_declares_the_phantom_synthetic(
    qvit: Qvit, small_phantom: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvit.report.pictures.draw_comparison", lambda *_, **__: None)
    told = qvit("demo", "--epochs", 1, "--out", tmp_path / "demo")
    assert told.code == 0
    assert "phantom (synthetic images): a QViT and its classical twin" in told.out
