"""`--seeds` and `--folds`: one command, a folder for each run, one table; who failed is told."""

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


@pytest.mark.long
@pytest.mark.usefixtures("untrained")
def test_baselines_are_fitted_fold_by_fold(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    """And their runs can be asked together, like any others."""
    told = qvit("train", npz, "--model", "logistic", "--folds", 2, "--seeds", 2, "--out", tmp_path / "all")
    assert told.code == 0, told.err
    assert (
        "These models are trained one after the other: logistic is fitted, not trained, and takes no steps." in told.err
    )
    assert "small-logistic-s1-f2: epoch 1/1  loss" in told.err
    folders = [tmp_path / "all" / f"s{seed}-f{fold}" for seed in range(2) for fold in (1, 2)]
    assert [str(Run(folder).fold) for folder in folders] == ["fold 1 of 2", "fold 2 of 2"] * 2
    assert "Means over folds" in told.out
    refused = qvit("train", npz, "--model", "logistic", "--epochs", 3, "--out", tmp_path / "other")
    assert refused.code == 2
    assert "logistic is fitted, not trained by steps, so it takes no epochs (got 3)" in refused.err


@pytest.mark.trains
def test_each_fold_has_a_folder_and_all_have_a_table(train: Qvit, qvit: Qvit, tmp_path: Path) -> None:
    told = train(tmp_path / "all", "--folds", 3, "--seeds", 2)
    assert told.code == 0
    folders = [tmp_path / "all" / f"s{seed}-f{fold}" for seed in range(2) for fold in (1, 2, 3)]
    configs = [Run(folder).config for folder in folders]
    assert [(one["seed"], one["fold"], one["folds"]) for one in configs] == [
        (seed, fold, 3) for seed in range(2) for fold in (1, 2, 3)
    ]
    assert all(one["stacked"] and one["train"]["keep"] == "last" for one in configs)
    assert {one["train"]["tta"] for one in configs} == {"always"}
    assert "Means over folds" in told.out
    assert "test AUC" not in told.out
    for folder in folders:
        assert f"{Run(folder).result.test.auc:.3f}" in told.out
    assert "small-vit_4q1h, 2 seeds, 3 folds: epoch 1/1  loss" in told.err
    again = train(tmp_path / "all", "--folds", 3, "--seeds", 2, "--resume", "--json")
    said = json.loads(again.out)
    assert said == json.loads(qvit("compare", *folders, "--json").out)
    [mean] = said["means"]
    assert (mean["folds"], mean["seeds"], mean["runs"]) == (3, [0, 1], 6)


@pytest.mark.usefixtures("untrained")
def test_folds_are_trained_one_by_one_as_well(train: Qvit, tmp_path: Path) -> None:
    told = train(tmp_path / "all", "--folds", 2, "--set", "dropout=0.5", "--set", "tta=never")
    assert told.code == 0
    assert "small-vit_4q1h-s0-f2: epoch 1/1" in told.err
    runs = [Run(tmp_path / "all" / f"s0-f{fold}") for fold in (1, 2)]
    assert [run.config["train"]["tta"] for run in runs] == ["never", "never"]
    assert not any("stacked" in run.config for run in runs)


@pytest.mark.usefixtures("untrained")
def test_the_fold_that_fails_is_named_and_many_folders_are_not_listed(train: Qvit, tmp_path: Path) -> None:
    place = tmp_path / "all" / "s0-f2"
    place.mkdir(parents=True)
    (place / "letter.txt").touch()
    told = train(tmp_path / "all", "--folds", 9)
    assert told.code == 2
    assert "1 of 9 runs failed, the others are done. seed 0, fold 2: " in told.err
    (place / "letter.txt").unlink()
    again = train(tmp_path / "all", "--folds", 9, "--resume")
    assert again.err.endswith(f"Everything is in {tmp_path / 'all' / 's0-f1'} to {tmp_path / 'all' / 's0-f9'}\n")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--folds", 3, "--set", "fold=2"),
            "--folds trains all folds, but the option fold was given as well; use one of them.",
        ),
        (
            ("--folds", 3, "--set", "tta=auto"),
            "A fold that is held out is measured, so nothing may be chosen by it: set keep=last, and tta=always or "
            "tta=never, got keep=last and tta=auto.",
        ),
        (("--folds", 20, "--seeds", 51), "--seeds times --folds must be at most 1,000 runs, got 51 times 20."),
        (("--folds", 50), "HERE: expected at least 50 images for 50 folds, found 40. Ask for fewer."),
    ],
)
def test_folds_that_cannot_be(train: Qvit, npz: Path, tmp_path: Path, arguments: tuple[object, ...], line: str) -> None:
    told = train(tmp_path / "all", *arguments)
    assert (told.code, told.err.replace(str(npz), "HERE")) == (2, f"Error: {line}\n")
    assert not (tmp_path / "all").exists()


@pytest.fixture
def distil(qvit: Qvit, npz: Path, tmp_path: Path) -> Qvit:
    """Distil a teacher for an epoch a stage."""

    def run(*more: object) -> Any:
        short = ["--student", "vit_4q1h", "--epochs", 1, "--mixtures", 0, "--finetune", "epochs=1"]
        places = ["--teacher", tmp_path / "teacher", "--out", tmp_path / "kd", "--cache", tmp_path / "cache"]
        return qvit("distill", npz, *short, *places, *more)

    return run


@pytest.mark.trains
@pytest.mark.slow("trains a teacher, and two students in three stages, twice")
def test_students_of_several_seeds_are_distilled_together(train: Qvit, distil: Qvit, tmp_path: Path) -> None:
    assert train(tmp_path / "teacher").code == 0
    told = distil("--seed", 5, "--seeds", 2)
    assert told.code == 0, told.err
    folders = [tmp_path / "kd" / f"s{seed}" for seed in (5, 6)]
    for folder in folders:
        assert (folder / "distillation.json").exists()
        assert Run(folder / "finetune").config["stacked"] is True
        assert f"{Run(folder / 'finetune').result.test.auc:.3f}" in told.out
    assert "Means over seeds" in told.out
    for words in ("vit_4q1h (taught by vit_4q1h)", "vit_4q1h (pre-trained on vit_4q1h)"):
        assert words in told.out
    for stage in ("scratch", "pretrain", "finetune"):
        assert told.err.count(f"{stage}: epoch 1/1") == 1, "how far the furthest is"
    assert told.err.count("Asking the teacher about 24 views") == 1
    assert told.err.endswith(f"Everything is in {folders[0]}, {folders[1]}\n")
    (tmp_path / "kd" / "s7").mkdir()
    (tmp_path / "kd" / "s7" / "letter.txt").touch()
    more = distil("--seed", 5, "--seeds", 3, "--resume", "--json")
    assert more.code == 2
    assert [run["seed"] for run in json.loads(more.out)["runs"]] == [5, 6] * 3
    assert "1 of 3 runs failed, the others are done. seed 7: " in more.err


@pytest.mark.long
@pytest.mark.usefixtures("untrained")
def test_students_that_cannot_be_stacked_are_distilled_one_by_one(train: Qvit, distil: Qvit, tmp_path: Path) -> None:
    assert train(tmp_path / "teacher").code == 0
    told = distil("--seeds", 2, "--set", "dropout=0.5", "--no-scratch")
    assert told.code == 0, told.err
    assert "These students are distilled one after the other: dropout draws from one random stream" in told.err
    runs = [Run(tmp_path / "kd" / f"s{seed}" / "finetune") for seed in range(2)]
    assert [run.finished for run in runs] == [True, True]
    assert not any("stacked" in run.config for run in runs)
