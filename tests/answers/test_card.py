"""A run's card: its header as Hugging Face reads it, all figures, no paths, names from outside as text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from answers.conftest import copied
from qvit.answers.card import NAME, TITLES, card, write_card
from qvit.answers.choosing import calibrated
from qvit.models import BaselineConfig
from qvit.training.folder import Run


def header(text: str) -> dict[str, object]:
    _, found, _ = text.split("---\n", 2)
    read = yaml.safe_load(found)
    assert isinstance(read, dict)
    return read


def test_the_header_has_figures_and_intervals(run: Run) -> None:
    found = header(card(run))
    [model] = found["model-index"]  # type: ignore[misc]
    [result] = model["results"]
    assert result["task"] == {"type": "image-classification", "name": "multi-class"}
    assert result["dataset"] == {"name": "squares", "type": "squares", "split": "test"}
    told = {metric["type"]: metric for metric in result["metrics"]}
    test = run.result.test
    assert told["roc_auc"]["value"] == pytest.approx(test.auc, abs=5e-5)
    assert told["accuracy"]["value"] == pytest.approx(test.acc, abs=5e-5)
    if None not in test.auc_interval:
        assert told["roc_auc"]["args"]["interval_95"] == pytest.approx(test.auc_interval, abs=5e-5)
    assert found["pipeline_tag"] == "image-classification"


def test_the_text_has_all_that_is_known(run: Run) -> None:
    text = card(run)
    for title in TITLES.values():
        assert f"| {title} | " in text
    assert f"| AUC | {run.result.val.auc:.3f}" in text
    for name, sensitivity in zip(("bright", "dark", "red"), run.result.test.sensitivity_by_class or (), strict=True):
        assert f"| {name} | {sensitivity:.3f} | " in text
    for said in (
        "Not a medical device",
        "12 x 12 pixels, in colour",
        "multi-class; 3 classes: bright; dark; red",
        "seed 0",
    ):
        assert said in text
    assert f"{run.result.parameters:,} parameters" in text
    assert "Not calibrated: the folder keeps no predictions" in text
    calibrated(run.folder)
    assert "scaled by the temperature" in card(run)


def test_a_baseline_has_no_epoch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "architecture", BaselineConfig("nearest", num_classes=3))
    text = card(run)
    assert "- **Fitted** at once; seed 0." in text
    assert "epoch" not in text


def test_a_fold_that_was_held_out_is_no_test(run: Run) -> None:
    path = run.folder / "config.json"
    said = json.loads(path.read_text())
    said["train"]["keep"] = "last"
    path.write_text(json.dumps(said))
    assert "- **Chosen**: epoch 1, the last one; seed 0." in card(Run(run.folder))
    path.write_text(json.dumps(said | {"train": said["train"] | {"epochs": 4, "average": 3}}))
    told = "the last one, with the mean of the weights after each of the last 3 epochs; seed 0."
    assert f"- **Chosen**: epoch 1, {told}" in card(Run(run.folder))
    path.write_text(json.dumps(said | {"folds": 5, "fold": 2}))
    text = card(Run(run.folder))
    assert "| | held out: fold 2 of 5 |\n|---|---|\n| AUC | " in text
    assert "its training and validation images but those of fold 2 of 5, drawn by its seed. Digest" in text
    assert "On the images held out, each class against the rest" in text
    assert "test images" not in text
    [model] = header(text)["model-index"]  # type: ignore[misc]
    assert model["results"][0]["dataset"]["split"] == "fold 2 of 5"


def test_it_holds_no_paths(run: Run, tmp_path: Path) -> None:
    path = write_card(run)
    assert path == run.folder / NAME
    assert str(tmp_path) not in path.read_text()
    assert path.read_text() == card(run)


def test_an_operating_point_is_told(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = copied(trained("binary"), tmp_path / "binary")
    calibrated(run.folder, sensitivity=0.9)
    assert "- Yes or no is decided such that the sensitivity on validation is at least 0.9." in card(run)


def test_names_from_outside_are_text(run: Run) -> None:
    path = run.folder / "config.json"
    config = json.loads(path.read_text())
    config["classes"] = ["<b>a</b>", "*b*|c", "![d](http://e)"]
    path.write_text(json.dumps(config))
    text = card(Run(run.folder))
    assert "\\<b\\>a\\</b\\>" in text.replace("\\/", "/")
    assert "\\*b\\*\\|c" in text
    assert "![d](" not in text


def test_official_data_have_licence_and_citation(run: Run) -> None:
    path = run.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": "dermamnist"}))
    text = card(Run(run.folder))
    assert "# vit_4q1h on DermaMNIST" in text
    assert "The data's licence, CC BY-NC 4.0, may bind" in text
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": "phantom"}))
    assert "These images are synthetic" in card(Run(run.folder))
