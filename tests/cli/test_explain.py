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
    Path("other").mkdir()
    shutil.copytree("one", "other/one")
    found = json.loads(qvit("explain", "one", pictures[0], "--beside", "other/one", "--json").out)
    assert [case["run"] for case in found["cases"]] == ["one", "other/one"], "of the same last name"
    told = qvit("explain", "one", pictures[0], "--beside", "one")
    assert (told.code, told.err) == (2, "Error: Expected two runs, got one twice. Leave --beside out.\n")


def test_images_of_a_split_on_a_contact_sheet(qvit: Qvit, run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qvit.answers.explaining.SHOWN", 1)
    run.rename("one")
    shutil.copytree("one", "two")
    found = json.loads(qvit("explain", "one", "--split", "test", "--beside", "two", "--out", "e", "--json").out)
    assert [case["run"] for case in found["cases"]] == ["one", "two"] * (len(found["cases"]) // 2)
    firsts = found["cases"][::2]
    assert {case["kind"] for case in firsts} <= {"Right, and most sure", "Wrong, and most sure", "Least sure"}
    assert sorted(Path("e").iterdir()) == sorted([*(Path(case["picture"]) for case in firsts), Path("e/sheet.png")])
    assert firsts[0]["picture"] == f"e/001-{firsts[0]['image'].replace(' ', '-')}.png"
    assert found["sheet"] == "e/sheet.png"
    with Image.open("e/sheet.png") as sheet:
        assert min(sheet.size) > 300
    told = qvit("explain", "one", "--split", "test")
    assert "All of them: explained/sheet.png" in told.out
    assert "Least sure" in told.out


@pytest.mark.usefixtures("untrained")
def test_runs_on_other_images_are_not_compared(qvit: Qvit, run: Path, npz: Path, arrays: Any) -> None:
    np.savez(npz.with_name("other.npz"), **{name: array[::-1] for name, array in arrays.items()})
    other = npz.with_name("other")
    qvit("train", npz.with_name("other.npz"), "--model", "vit_4q1h", "--epochs", 1, "--out", other)
    told = qvit("explain", run, "--split", "test", "--beside", other)
    assert told.code == 2
    assert "Expected runs on the same images to compare, found other data. Leave --beside out." in told.err


@pytest.mark.parametrize("more", [[], ["new/a.png", "--split", "test"]])
def test_pictures_or_a_split(qvit: Qvit, run: Path, pictures: list[str], more: list[str]) -> None:
    told = qvit("explain", run, *more)
    assert told.code == 2
    assert told.err == "Error: Expected either pictures to explain, or --split, the images of which are chosen.\n"
    assert not Path("explained").exists()


@pytest.mark.parametrize("words", [["empty.txt"], ["-"]])
def test_nothing_to_explain(qvit: Qvit, run: Path, words: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    told = qvit("explain", run, *words)
    assert told.code == 2
    assert told.err.endswith("Error: Expected pictures to explain, got none. Name pictures, or folders of pictures.\n")
    assert not Path("explained").exists()


def test_a_run_of_any_name_is_drawn(qvit: Qvit, run: Path, pictures: list[str]) -> None:
    run.rename("a$\\bad$")
    assert qvit("explain", "a$\\bad$", pictures[0]).code == 0


def test_runs_of_several_folds_are_not_compared(qvit: Qvit, run: Path) -> None:
    """Their images may have equal labels and be others."""
    shutil.copytree(run, run.with_name("fold"))
    said = json.loads((run.with_name("fold") / "config.json").read_text())
    (run.with_name("fold") / "config.json").write_text(json.dumps(said | {"folds": 2, "fold": 1}))
    told = qvit("explain", run, "--split", "val", "--beside", run.with_name("fold"))
    line = "Expected runs on the same images to compare, found other data. Leave --beside out."
    assert (told.code, told.err.splitlines()[-1]) == (2, f"Error: {line}")
