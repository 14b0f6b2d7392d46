"""`qvit train --seeds`: one command, a folder for each seed, one table; who failed is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.training.folder import Run

Qvit = Callable[..., Any]


@pytest.mark.trains
def test_each_seed_has_a_folder_and_all_have_a_table(train: Qvit, qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    told = train(tmp_path / "all", "--seed", 3, "--seeds", 2)
    assert told.code == 0
    folders = [tmp_path / "all" / f"s{seed}" for seed in (3, 4)]
    assert [Run(folder).config["seed"] for folder in folders] == [3, 4]
    assert all(Run(folder).config["stacked"] for folder in folders)
    assert "Means over seeds" in told.out
    for folder in folders:
        assert f"{Run(folder).result.test.auc:.3f}" in told.out
    assert told.err.endswith(f"Everything is in {folders[0]}, {folders[1]}\n")
    assert "small-vit_4q1h, 2 seeds: epoch 1/1  loss" in told.err

    again = train(tmp_path / "all", "--seed", 3, "--seeds", 3, "--resume", "--json")
    assert again.code == 0
    said = json.loads(again.out)
    assert [run["seed"] for run in said["runs"]] == [3, 4, 5]
    assert said["runs"] == json.loads(qvit("compare", *folders, tmp_path / "all" / "s5", "--json").out)["runs"]
    alone = qvit(
        "train",
        npz,
        "--model",
        "vit_4q1h",
        "--epochs",
        1,
        "--seed",
        4,
        "--set",
        "stacked=true",
        "--out",
        tmp_path / "a",
    )
    assert alone.code == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (folders[1], tmp_path / "a")]
    assert weights[0] == weights[1]


@pytest.mark.trains
def test_the_one_that_fails_is_named(train: Qvit, tmp_path: Path) -> None:
    (tmp_path / "all" / "s1").mkdir(parents=True)
    (tmp_path / "all" / "s1" / "letter.txt").touch()
    told = train(tmp_path / "all", "--seeds", 3)
    assert told.code == 2
    place = tmp_path / "all" / "s1"
    assert told.err.endswith(
        f"1 of 3 runs failed, the others are done. seed 1: {place} is not empty and not a run folder; choose another "
        "with --out.\n"
    )
    assert [Run(tmp_path / "all" / name).finished for name in ("s0", "s2")] == [True, True]
    (tmp_path / "all" / "s0" / "result.json").unlink()
    nothing = train(tmp_path / "all", "--seeds", 1)
    assert nothing.code == 2
    assert "already holds a started run" in nothing.err


@pytest.mark.usefixtures("untrained")
def test_models_that_cannot_be_stacked_are_trained_one_by_one(train: Qvit, tmp_path: Path) -> None:
    told = train(tmp_path / "all", "--seeds", 2, "--set", "dropout=0.5")
    assert told.code == 0
    assert "These models are trained one after the other: dropout draws from one random stream" in told.err
    runs = [Run(tmp_path / "all" / f"s{seed}") for seed in range(2)]
    assert [run.finished for run in runs] == [True, True]
    assert not any("stacked" in run.config for run in runs)
