"""A run of a fold: it learns without the fold, is measured on it, and never sees a test image."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from qvit.data.arrays import load_dataset
from qvit.errors import ConfigError, RunError
from qvit.evaluation.metrics import auc
from qvit.report.compare import read_row
from qvit.training.evaluated import evaluate_split
from qvit.training.folder import Run
from qvit.training.objective import Guide
from qvit.training.options import RunConfig
from qvit.training.run import train_run

MakeConfig = Callable[..., RunConfig]
Kept = Callable[[Path], dict[str, bytes]]
FOLD = {"folds": 3, "fold": 2, "keep": "last", "tta": "always"}


@pytest.fixture
def of_fold(config: MakeConfig) -> MakeConfig:
    """The run of a fold on a made-up file."""
    return lambda dataset=None, **options: config(dataset, **FOLD | options)


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_it_is_measured_on_the_fold(of_fold: MakeConfig, make_npz: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run(of_fold(), tmp_path / "run")
    whole = load_dataset(make_npz())
    said = json.loads((run.folder / "config.json").read_text())
    assert (said["folds"], said["fold"], said["data_digest"]) == (3, 2, whole.digest)
    data = run.load_data()
    assert data.digest != whole.digest
    assert len(data.train) + len(data.val) == len(whole.train) + len(whole.val)
    assert run.result.val == run.result.test
    assert run.result.test.auc == auc(data.val.labels, run.predictions("test"), "multi-class")
    assert np.array_equal(run.predictions("val"), run.predictions("test"))
    assert run.result.best_epoch == 2
    assert run.history[-1].val_auc == pytest.approx(run.result.test.auc)
    row = read_row(run)
    assert (row.fold, row.folds) == (2, 3)


@pytest.mark.trains
def test_test_images_change_nothing(of_fold: MakeConfig, make_arrays: Callable[..., Any], tmp_path: Path) -> None:
    """Nor do the images that are held out change what is learnt."""
    arrays, left = make_arrays(), []
    for name in ("plain", "others"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "own.npz", **arrays)
        run = train_run(of_fold(tmp_path / name / "own.npz"), tmp_path / name / "run")
        left.append((run.weights_path.read_bytes(), run.predictions("test").tolist(), run.config["data_digest"]))
        rng = np.random.default_rng(1)
        arrays["test_images"] = rng.integers(0, 256, arrays["test_images"].shape, np.uint8)
        arrays["test_labels"] = (arrays["test_labels"] + 1) % 4
    assert left[0][:2] == left[1][:2]
    assert left[0][2] != left[1][2]


@pytest.mark.trains
def test_what_is_held_out_changes_no_weight(
    of_fold: MakeConfig, make_arrays: Callable[..., Any], tmp_path: Path
) -> None:
    arrays, weights = make_arrays(), []
    for name in ("plain", "others"):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        run = train_run(of_fold(tmp_path / f"{name}.npz"), tmp_path / name)
        weights.append(run.weights_path.read_bytes())
        data = run.load_data()
        for place in data.val.rows:  # type: ignore[attr-defined] - a choice of images
            split, at = ("train", place) if place < 37 else ("val", place - 37)
            arrays[f"{split}_images"][at] = 255 - arrays[f"{split}_images"][at]
    assert weights[0] == weights[1]


@pytest.mark.trains
def test_a_resumed_run_of_a_fold_is_bit_identical(of_fold: MakeConfig, tmp_path: Path, kept: Kept) -> None:
    settings = of_fold()
    whole = train_run(settings, tmp_path / "whole")

    def stop(record: Any, _seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(settings, tmp_path / "parts", on_epoch=stop)
    with pytest.raises(RunError, match=r"holds a run with another configuration \(fold: 2 → 1\)"):
        train_run(replace(settings, fold=1), tmp_path / "parts", resume=True)
    run = train_run(settings, tmp_path / "parts", resume=True)
    assert kept(run.folder) == kept(whole.folder)


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_it_is_evaluated_again_without_being_its_own_copy(
    of_fold: MakeConfig, make_arrays: Callable[..., Any], tmp_path: Path
) -> None:
    """Three training images lie in validation as well; test images are not looked at."""
    arrays = make_arrays(noise=60.0)
    arrays["val_images"][:3], arrays["test_images"][:5] = arrays["train_images"][:3], arrays["train_images"][:5]
    np.savez(tmp_path / "own.npz", **arrays)
    run = train_run(of_fold(tmp_path / "own.npz"), tmp_path / "run")
    data = run.load_data()
    learnt = {image.tobytes() for image in data.train.images}
    copies = sum(image.tobytes() in learnt for image in data.val.images)
    assert copies
    for split in ("val", "test"):
        found = evaluate_split(run, split)
        assert found.measured.figures == run.result.test
        assert found.apart is not None
        assert found.apart.copies == copies
    trained = evaluate_split(run, "train")
    assert len(trained.measured.predicted.labels) == len(data.train)
    assert trained.apart is not None
    assert trained.apart.copies == copies


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_what_may_have_seen_the_fold_is_refused(of_fold: MakeConfig, config: MakeConfig, tmp_path: Path) -> None:
    class Known(Guide):
        described: ClassVar[dict[str, Any]] = {}

    told = (
        "A run of a fold learns from labels alone: another model may have seen the images that are held out. Leave out "
        "the guide and the run to start from, or folds and fold."
    )
    before = train_run(config(), tmp_path / "before")
    for more in ({"guide": Known()}, {"origin": before}):
        with pytest.raises(ConfigError) as caught:
            train_run(of_fold(tmp_path / "madeup.npz"), tmp_path / "run", **more)
        assert str(caught.value) == told
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_data_that_changed_are_no_fold(of_fold: MakeConfig, make_npz: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run(of_fold(), tmp_path / "run")
    make_npz(seed=5)
    with pytest.raises(RunError, match="was trained on other data"):
        Run(run.folder).load_data()
