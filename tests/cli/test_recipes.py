"""`qvit recipes`: what there is, what for, and how large."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.models.zoo import count_parameters, model_config
from qvit.training import recipes

Qvit = Callable[..., Any]


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recipes that come with the package."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "deep.yaml").write_text("recipe: deep\nabout: Many images.\nsource: A guess.\ndepth: 2\n")
    (folder / "plain.yaml").write_text("recipe: plain\nabout: All else.\nsource: Ours.\n")
    monkeypatch.setattr(recipes, "_shipped", lambda: folder)


def test_recipes_are_listed(qvit: Qvit) -> None:
    told = qvit("recipes")
    assert told.code == 0
    for words in ("deep", "Many images.", "A guess.", "plain", "qvit train … --config NAME"):
        assert words in told.out
    assert "parameters" not in told.out
    assert json.loads(qvit("recipes", "--json").out)[0] == {
        "recipe": "deep", "about": "Many images.", "source": "A guess.", "options": {"depth": 2},
    }  # fmt: skip


def test_parameters_are_those_on_a_dataset(qvit: Qvit, npz: Path) -> None:
    of = {"in_chans": 1, "num_classes": 2, "img_size": 28}
    counts = [count_parameters(model_config("qvit_4q2h", **of, depth=depth)) for depth in (2, 1)]
    told = qvit("recipes", "breastmnist", "--json")  # no file is needed
    assert [row["parameters"] for row in json.loads(told.out)] == counts
    of = {"in_chans": 3, "num_classes": 3, "img_size": 12}
    told = qvit("recipes", "--data", npz)
    assert f"{count_parameters(model_config('qvit_4q2h', **of, depth=2)):,}" in told.out


def test_a_recipe_trains(qvit: Qvit, npz: Path, tmp_path: Path, untrained: None) -> None:
    told = qvit("train", npz, "--config", "deep", "--epochs", 1, "--out", tmp_path / "run", "--json")
    assert told.code == 0, told.err
    said = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (said["recipe"], said["model_config"]["depth"]) == ("deep", 2)
    told = qvit("train", npz, "--config", "dep", "--out", tmp_path / "other")
    assert "Did you mean 'deep'?" in told.err
