"""What is said of groups of images: the mean of their probabilities, then as of an image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from answers.conftest import NAMES, pictures
from qvit.answers.grouped import Grouping, GroupPrediction
from qvit.answers.needs import Needs
from qvit.answers.predictor import Prediction, load
from qvit.errors import ConfigError
from qvit.evaluation.calibration import tempered
from qvit.training.folder import Run
from qvit.training.measured import Predicted, measure

Trained = Callable[..., Path]
PATTERN = "(p[0-9])-"


def patients(folder: Path, count: int = 7, channels: int = 3) -> list[Path]:
    """Pictures of three patients in turn."""
    paths = pictures(folder, count, channels)
    return [path.rename(folder / f"p{place % 3}-{path.name}") for place, path in enumerate(paths)]


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_a_group_is_answered_by_the_mean_before_calibration(trained: Trained, task: str, tmp_path: Path) -> None:
    predictor = load(trained(task))
    paths = patients(tmp_path / "new")
    grouping = Grouping(predictor, PATTERN)
    told = [*grouping.stream(paths)]
    assert [prediction for prediction, _ in told] == predictor.predict(paths)
    assert [group for _, group in told] == ["p0", "p1", "p2", "p0", "p1", "p2", "p0"]
    scores = np.array([scored.scores for scored in predictor.scored(paths)])
    found = grouping.predictions()
    assert [(each.group, each.images) for each in found] == [("p0", 3), ("p1", 2), ("p2", 2)]
    for number, each in enumerate(found):
        [row] = tempered(scores[number::3].mean(axis=0, keepdims=True), predictor.calibration.temperature, task)
        assert each.probabilities == pytest.approx(dict(zip(NAMES, row.tolist(), strict=False)))
        if task == "multi-label":
            assert each.label == tuple(name for name, p in zip(NAMES, row, strict=False) if p > 0.5)
            assert each.confidence == pytest.approx(np.maximum(row, 1 - row).mean())
        else:
            assert (each.label, each.confidence) == (NAMES[row.argmax()], pytest.approx(row.max()))
        assert (each.withheld, each.error) == (False, None)


def test_one_image_alone_is_answered_as_it_is(trained: Trained, tmp_path: Path) -> None:
    predictor = load(trained(), coverage=0.5)
    paths = pictures(tmp_path / "new")
    grouping = Grouping(predictor, ".*")
    told = [prediction for prediction, _ in grouping.stream(tmp_path / "new")]
    for image, each in zip(told, grouping.predictions(), strict=True):
        same = (image.label, image.confidence, image.withheld, image.probabilities)
        assert (each.label, each.confidence, each.withheld, each.probabilities) == same
    assert [each.group for each in grouping.predictions()] == [path.name for path in paths]
    assert len({each.withheld for each in told}) == 2, "of this data some are withheld"


def test_an_operating_point_decides_of_groups_too(trained: Trained, tmp_path: Path) -> None:
    paths = patients(tmp_path / "new")
    for options, label in (({"sensitivity": 1.0}, None), ({"specificity": 1.0}, NAMES[0])):
        predictor = load(trained("binary"), **options)
        assert predictor.calibration.yes is not None
        grouping = Grouping(predictor, PATTERN)
        assert len([*grouping.stream(paths)]) == 7
        for each in grouping.predictions():
            assert each.probabilities is not None
            expected = NAMES[int(each.probabilities[NAMES[1]] >= predictor.calibration.yes[0])]
            assert each.label == expected
            assert label in (None, expected)


def test_evaluation_averages_likewise(trained: Trained, tmp_path: Path) -> None:
    run = Run(trained())
    predictor = load(run.folder)
    paths = patients(tmp_path / "new", 9)
    grouping = Grouping(predictor, PATTERN)
    groups = np.array([group for _, group in grouping.stream(paths)])
    scores = np.array([scored.scores for scored in predictor.scored(paths)])
    labels = np.arange(9)[:, None] % 3
    measured = measure(Predicted("multi-class", NAMES, labels, scores, groups))
    assert measured.by_group is not None
    likeliest = [NAMES.index(str(each.label)) for each in grouping.predictions()]
    assert measured.by_group.acc == np.mean(np.array(likeliest) == [0, 1, 2])


def test_broken_files_do_not_count_and_paths_without_a_group_are_errors(trained: Trained, tmp_path: Path) -> None:
    predictor = load(trained())
    paths = patients(tmp_path / "new", 5)
    whole = Grouping(predictor, PATTERN)
    assert len([*whole.stream([paths[0], paths[4]])]) == 2
    paths[1].write_text("text")
    paths[2].unlink()
    paths[3] = paths[3].rename(tmp_path / "other.png")
    grouping = Grouping(predictor, PATTERN)
    told = [*grouping.stream([*paths, tmp_path / "none.png"])]
    assert [group for _, group in told] == ["p0", "p1", "p2", None, "p1", None]
    assert told[3][0] == Prediction(
        str(paths[3]), error="expected a group in the path ('(p[0-9])-'), found none. Change the pattern, or the path."
    )
    assert grouping.unmatched == 1, "the last is broken in the first place"
    assert "nothing there" in str(told[5][0].error)
    first, second, third = grouping.predictions()
    assert [first, second] == whole.predictions()
    assert third == GroupPrediction("p2", 0, error="none of its files could be read")


def test_without_images_there_are_no_groups(trained: Trained, tmp_path: Path) -> None:
    grouping = Grouping(load(trained()), PATTERN)
    assert grouping.predictions() == []
    assert len([*grouping.stream(tmp_path / "p1-none.png")]) == 1
    assert grouping.predictions() == [GroupPrediction("p1", 0, error="none of its files could be read")]


def test_frames_of_a_file_are_one_group(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = load(trained())
    paths = [path.rename(tmp_path / f"a#{number}.png") for number, path in enumerate(pictures(tmp_path, 2))]
    real = Needs.squares
    monkeypatch.setattr(Needs, "squares", lambda self, path: real(self, path) * (2 if path == paths[0] else 1))
    assert [scored.file for scored in predictor.scored(paths)] == [str(paths[0]), str(paths[0]), str(paths[1])]
    grouping = Grouping(predictor, "[^/]+$")
    assert [prediction.source for prediction, _ in grouping.stream(paths)][:2] == [f"{paths[0]}#1", f"{paths[0]}#2"]
    assert [(each.group, each.images) for each in grouping.predictions()] == [("a#0.png", 2), ("a#1.png", 1)]


def test_a_pattern_that_is_none(trained: Trained) -> None:
    with pytest.raises(ConfigError, match=r"^group_by='\(' is no regular expression"):
        Grouping(load(trained()), "(")


def test_memory_grows_with_groups_alone(trained: Trained, tmp_path: Path) -> None:
    Image.new("RGB", (12, 12)).save(tmp_path / "p1-0.png")
    grouping = Grouping(load(trained()), PATTERN)
    assert sum(1 for _ in grouping.stream([tmp_path / "p1-0.png"] * 600)) == 600
    [found] = grouping.predictions()
    assert found.images == 600
    assert [len(held) for held in vars(grouping).values() if isinstance(held, dict)] == [1, 1]


def test_folders_above_the_one_that_is_named_say_nothing(trained: Trained, tmp_path: Path) -> None:
    pictures(tmp_path / "site7" / "p1", 2)
    pictures(tmp_path / "site7" / "p2", 1)
    grouping = Grouping(load(trained()), "([0-9])/")
    assert [group for _, group in grouping.stream([tmp_path / "site7"])] == ["1", "1", "2"]
    grouping = Grouping(load(trained()), "([0-9])/")
    told = [group for _, group in grouping.stream([tmp_path / "site7" / "p1", tmp_path / "site7"])]
    assert told == [None, None, None, None, "2"], "below the nearest folder that is named"
    grouping = Grouping(load(trained()), "site([0-9])/")
    assert [group for _, group in grouping.stream(tmp_path / "site7" / "p2" / "00.png")] == ["7"]
