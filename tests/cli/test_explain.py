"""`qvit explain`: one picture per image, runs below each other, and whether maps depend on what was learnt."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Qvit = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore::qvit.answers.predictor.CalibrationWarning"),
    pytest.mark.long,
]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"new/{name}")
    return ["new/a.png", "new/b.png"]


def test_a_picture_of_each_image(qvit: Qvit, run: Path, pictures: list[str]) -> None:
    told = qvit("explain", run, "new", "--json")
    assert told.code == 0
    found = json.loads(told.out)
    assert [case["image"] for case in found["cases"]] == pictures
    for case, name in zip(found["cases"], ("001-a", "002-b"), strict=True):
        assert case["picture"] == f"explained/{name}.png"
        with Image.open(case["picture"]) as picture:
            assert min(picture.size) > 100
        assert 1 / 3 <= case["probability"] <= 1
    assert set(found["alike_random_weights"]["run"]) == {"rollout", "saliency", "occlusion"}
    out = qvit("explain", run, pictures[0]).out
    assert "Explained" in out
    assert "explained/001-a.png" in out
    assert "rollout" in out


def test_two_runs_beside_each_other(qvit: Qvit, run: Path, pictures: list[str]) -> None:
    run.rename("one")
    shutil.copytree("one", "two")
    found = json.loads(qvit("explain", "one", pictures[0], "--beside", "two", "--json").out)
    assert [case["run"] for case in found["cases"]] == ["one", "two"]
    assert found["cases"][0]["picture"] == found["cases"][1]["picture"]
    assert found["alike_random_weights"]["one"] == found["alike_random_weights"]["two"]
    told = qvit("explain", "one", pictures[0], "--beside", "../" + str(Path.cwd().name) + "/one")
    assert told.code == 2
    assert "Expected two run folders of different names" in told.err
