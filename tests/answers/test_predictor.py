"""What is said of new images: the same as evaluation says, calibrated, with what is possible and what is unlike."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import qvit
from answers.conftest import NAMES, copied, images, pictures
from qvit.answers.calibrated import UNKNOWN, Answering
from qvit.answers.predictor import CalibrationWarning, ImageWarning, Prediction, Predictor, load
from qvit.errors import ConfigError, DataError, RunError
from qvit.evaluation.calibration import tempered
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run


@pytest.mark.trains
def test_classes_that_were_learnt_are_seen(run: Run, tmp_path: Path) -> None:
    options = {"dataset": run.dataset, "task": "multi-class", "model": "vit_4q1h", "patch_size": 4}
    learnt = train_run(resolve(options | {"epochs": 4, "lr": 0.02, "batch_size": 16}), tmp_path / "learnt")
    predictor = qvit.load(learnt.folder)
    found = predictor.predict(pictures(tmp_path / "new"))
    assert [each.label for each in found] == [*NAMES, *NAMES]
    limit = predictor.calibration.furthest
    assert 0 < limit < np.inf
    data = run.load_data()
    val = predictor.predict(np.array(data.val.images.transpose(0, 2, 3, 1)))
    assert [each.unlike for each in val] == [(each.distance or 0) > limit for each in val]
    assert sum(each.unlike is True for each in val) == 2, "the largest two of 60: 61 · 0.95, rounded up, may not be"


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_probabilities_are_those_of_evaluation_tempered(trained: Callable[..., Path], task: str, tta: str) -> None:
    run = Run(trained(task, tta=tta))
    predictor = load(run.folder)
    found = predictor.predict(np.array(run.load_data().test.images.transpose(0, 2, 3, 1)))
    expected = tempered(run.predictions("test"), predictor.calibration.temperature, task)
    assert [each.source for each in found] == [f"image {place}" for place in range(30)]
    for each, row in zip(found, expected, strict=True):
        assert each.probabilities == pytest.approx(dict(zip(NAMES, row.tolist(), strict=False)), abs=1e-5)
        assert each.error is None
        if task == "multi-label":
            assert each.label == tuple(name for name, p in zip(NAMES, row, strict=False) if p > 0.5)
        else:
            assert each.label == NAMES[row.argmax()]
            assert each.confidence == pytest.approx(row.max(), abs=1e-5)


def test_files_folders_arrays_and_tensors_are_answered_alike(run: Run, tmp_path: Path) -> None:
    predictor = load(run.folder)
    paths = pictures(tmp_path / "new", 4, side=12)
    given = images(np.arange(4) % 3, seed=9)

    def without_source(found: list[Prediction]) -> list[Prediction]:
        return [replace(each, source="") for each in found]

    expected = predictor.predict(paths)
    assert [each.source for each in expected] == [*map(str, paths)]
    assert predictor.predict(tmp_path / "new") == predictor.predict([str(tmp_path / "new")]) == expected
    for other in (given, list(given), torch.from_numpy(given).permute(0, 3, 1, 2), given / 255):
        assert without_source(predictor.predict(other)) == without_source(expected)
    assert predictor.predict(given[:0]) == []
    assert predictor.predict(iter(paths)) == expected
    assert [*predictor.stream(tmp_path / "new")] == expected
    with pytest.raises(DataError, match=r"^Expected paths or images, got both\."):
        predictor.predict([paths[0], given[0]])
    assert [*predictor.stream(["-"], map(str, paths))] == expected


def test_broken_files_are_rows_and_the_rest_goes_on(run: Run, tmp_path: Path) -> None:
    paths = pictures(tmp_path, 3)
    paths[1].write_bytes(b"text")
    found = load(run.folder).predict(paths)
    assert [each.error is None for each in found] == [True, False, True]
    assert found[1] == Prediction(str(paths[1]), error=found[1].error)
    assert found[2].label is not None
    paths[0].write_bytes(b"")
    paths[2].unlink()
    assert [each.label for each in load(run.folder).predict(paths)] == [None] * 3


def test_answers_are_withheld(run: Run) -> None:
    data = run.load_data()
    predictor = load(run.folder, coverage=0.5)
    found = predictor.predict(np.array(data.val.images.transpose(0, 2, 3, 1)))
    least = predictor.calibration.least
    assert sum(not each.withheld for each in found) == 30
    for each in found:
        assert each.withheld == (each.label is None) == ((each.confidence or 0) < least)
        assert each.probabilities is not None, "all the same"


def test_possible_classes(run: Run) -> None:
    data = run.load_data()
    val = np.array(data.val.images.transpose(0, 2, 3, 1))
    for by_class in (False, True):
        predictor = load(run.folder, sets=0.8)
        found = predictor.predict(val)
        possible = [each.possible_by_class if by_class else each.possible for each in found]
        held = [NAMES[label] in names for label, names in zip(data.val.labels[:, 0], possible, strict=True)]
        assert np.mean(held) >= 0.8, "on the images that it was learnt from"
        assert all(each.label in names for each, names in zip(found, possible, strict=True))
        limits = predictor.calibration.by_class if by_class else predictor.calibration.overall
        expected = [
            {name for name, p, most in zip(NAMES, row, limits, strict=True) if 1 - p <= most or p == max(row)}
            for row in run.predictions("val").tolist()
        ]
        assert [*map(set, possible)] == expected


def test_an_operating_point_decides(trained: Callable[..., Path]) -> None:
    run = Run(trained("binary"))
    data = run.load_data()
    found = load(run.folder, sensitivity=1.0).predict(np.array(data.val.images.transpose(0, 2, 3, 1)))
    positive = data.val.labels[:, 0] == 1
    assert all(each.label == NAMES[1] for each, yes in zip(found, positive, strict=True) if yes)
    for each in found:
        assert each.label in each.possible
        assert each.confidence == (each.probabilities or {})[str(each.label)]


def test_an_ensemble_averages_probabilities(trained: Callable[..., Path]) -> None:
    runs = [Run(trained(seed=seed)) for seed in (0, 1)]
    predictor = load([run.folder for run in runs])
    assert predictor.title == f"{runs[0].folder} and {runs[1].folder}"
    found = predictor.predict(np.array(runs[0].load_data().test.images.transpose(0, 2, 3, 1)))
    mean = sum(run.predictions("test") for run in runs) / 2
    expected = tempered(mean, predictor.calibration.temperature, "multi-class")
    given = np.array([list((each.probabilities or {}).values()) for each in found])
    assert given == pytest.approx(expected, abs=1e-5)
    assert all(each.distance is not None for each in found)


def test_runs_that_are_no_ensemble(trained: Callable[..., Path]) -> None:
    with pytest.raises(RunError, match=r"^Expected runs that tell the same classes apart, but those of .* are others"):
        load([trained(), trained("binary")])
    with pytest.raises(RunError, match=r"^Expected runs on images of one size and kind, but those of .* are others"):
        load([trained(), trained(channels=1)])
    with pytest.raises(RunError, match=r"^Expected at least one run folder, got none\.$"):
        load([])


@pytest.mark.filterwarnings("ignore::qvit.answers.predictor.CalibrationWarning")
def test_runs_of_several_folds_are_no_ensemble(trained: Callable[..., Path], tmp_path: Path) -> None:
    """What one has not seen, another was trained on; whole runs neither."""
    runs = [copied(trained(), tmp_path / name).folder for name in ("one", "two", "whole")]
    for number, folder in enumerate(runs[:2], 1):
        said = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(said | {"folds": 3, "fold": number}))
    for pair in (runs[:2], runs[1:]):
        with pytest.raises(RunError) as caught:
            load(pair)
        assert str(caught.value) == (
            "Expected runs that held out the same images, by which their answers are calibrated together, but "
            f"{pair[1]} held out others. Ask runs of different folds one by one."
        )
    assert len(load([runs[0], runs[0]]).members) == 2


def test_a_run_without_its_data_answers_and_says_what_it_lacks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda _: [])
    shutil.move(run.folder, tmp_path / "alone")
    shutil.rmtree(tmp_path / "there")
    assert not (tmp_path / "alone" / "calibration.json").exists()
    with pytest.warns(CalibrationWarning) as told:
        predictor = load(tmp_path / "alone")
    assert [str(each.message) for each in told] == [UNKNOWN]
    found = predictor.predict(images(np.array([0])))[0]
    assert (found.unlike, found.distance) == (None, None)
    assert found.possible == NAMES


def test_a_run_keeps_what_answers_need(run: Run, tmp_path: Path) -> None:
    given = images(np.array([0, 1, 2]))
    expected = load(run.folder).predict(given)
    shutil.move(run.folder, tmp_path / "alone")
    shutil.rmtree(tmp_path / "there")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path / "alone").predict(given) == expected


def test_swapped_colours_are_told_of(run: Run) -> None:
    predictor = load(run.folder)
    red = images(np.full(20, 2), seed=5)
    predictor.predict(red)
    usual = np.array([[[60, 120, 190]]], np.uint8)
    predictor.members[0].model.preprocess.mean.copy_(torch.tensor([60, 120, 190]) / 255)
    with pytest.warns(ImageWarning, match="may be in the order blue, green, red"):
        predictor.predict(np.broadcast_to(usual[..., ::-1], (12, 12, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict(np.broadcast_to(usual, (12, 12, 3)))


def test_wrong_options_and_images(run: Run) -> None:
    with pytest.raises(ConfigError, match="sets"):
        load(run.folder, sets=2)
    with pytest.raises(ConfigError, match=r"^Answers have no option 'set'\. Did you mean 'sets'\? Known: sets, cov"):
        load(run.folder, set=0.9)
    with pytest.raises(DataError, match="found a grey one"):
        load(run.folder).predict(np.zeros((12, 12), np.uint8))
    with pytest.raises(RunError, match="is not a run folder"):
        load(run.folder / "none")
    assert Predictor([run.folder]).options == Answering()
