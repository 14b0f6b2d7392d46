"""`qvit evaluate` on other data than a run was trained on, and by class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Qvit = Callable[..., Any]
NAMES = ("0", "1", "2")


def folder_of(path: Path, names: tuple[str, ...], count: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for place in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"p{name}{place % 3}-{place}.png")
    return path


def test_rates_of_each_class_are_told(qvit: Qvit, run: Path) -> None:
    told = qvit("evaluate", run, "--no-copies")
    found = json.loads(qvit("evaluate", run, "--no-copies", "--json").out)
    lines = told.out[told.out.index("by class") :].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    rates = zip(found["sensitivity_by_class"], found["specificity_by_class"], strict=True)
    assert rows == [[name, f"{one:.4f}", f"{other:.4f}"] for name, (one, other) in zip(NAMES, rates, strict=True)]
    assert np.mean(found["sensitivity_by_class"]) == pytest.approx(found["sensitivity"])
    assert np.mean(found["specificity_by_class"]) == pytest.approx(found["specificity"])


def test_data_that_were_moved_are_no_other_data(
    qvit: Qvit, run: Path, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    npz.rename("moved.npz")
    assert qvit("evaluate", "run", "--data", "moved.npz", "--no-copies").out.startswith("run on test")


def test_other_data_are_an_external_test(
    qvit: Qvit, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = folder_of(Path("elsewhere"), (*NAMES, "unknown"))
    (path / "2" / "p9-broken.png").write_text("text")
    told = qvit("evaluate", "run", "--data", path, "--group-by", "(p[a-z]*[0-9]+)-")
    assert told.code == 0
    assert "run on other data, 18 images of elsewhere" in " ".join(told.out.split())
    assert "over 9 groups, whose probabilities are averaged" in " ".join(told.out.split())
    assert "Left out, as the run does not know it: unknown (6 images have it)." in told.out
    assert "1 file could not be read: " in told.out
    assert told.out.endswith("Convert it, or leave it out.\n")
    found = json.loads(qvit("evaluate", "run", "--data", path, "--json").out)
    assert (found["images"], found["groups"], found["by_group"]) == (18, None, None)
    assert found["unknown"] == {"unknown": 6}
    assert 0 <= found["figures"]["auc"] <= 1


@pytest.mark.filterwarnings("ignore::qvit.evaluation.AbsentClassWarning")
def test_missing_classes_are_told(qvit: Qvit, run: Path, tmp_path: Path) -> None:
    told = qvit("evaluate", run, "--data", folder_of(tmp_path / "elsewhere", ("0", "2")))
    assert "Not in these data: 1." in told.out
    assert "–" in told.out, "in the place of its sensitivity"


def test_an_official_dataset_by_its_name(qvit: Qvit, run: Path, small_phantom: None) -> None:
    told = qvit("evaluate", run, "--data", "phantom")
    assert (told.code, told.err.split(", got")[0]) == (2, "Error: phantom: expected an even size of at least 28 pixels")
