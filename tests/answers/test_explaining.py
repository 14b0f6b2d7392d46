"""Files explained by a run: the class that maps are of, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from answers.conftest import pictures
from qvit.answers import explaining
from qvit.answers.explaining import Explainer
from qvit.answers.maps import maps_of
from qvit.answers.predictor import load
from qvit.errors import DataError
from qvit.training.folder import Run


def test_the_likeliest_class_is_explained_or_the_one_asked_for(run: Run, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "new", 3)
    explainer = Explainer(run.folder)
    expected = load(run.folder).predict(paths)
    found = [*explainer.cases([tmp_path / "new"])]
    assert [case.prediction for case in found] == expected
    assert [case.target for case in found] == [each.label for each in expected]
    [red] = explainer.cases(paths[:1], target="red")
    assert red.target == "red"
    maps = maps_of(run.load_model(), explainer.needs.squares(paths[0])[0], "multi-class", 2)
    assert np.array_equal(red.maps.saliency, maps.saliency)
    assert set(explainer.unlearnt()) == {"rollout", "saliency", "occlusion"}
    assert all(0 <= value <= 1 for value in explainer.unlearnt().values())


def test_what_cannot_be_explained(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "new", 3)
    explainer = Explainer(run.folder)
    with pytest.raises(DataError, match=r"^Expected a class that the run knows \(bright, dark, red\), got 'blue'\.$"):
        [*explainer.cases(paths, target="blue")]
    paths[1].write_bytes(b"text")
    with pytest.raises(DataError, match=r"01\.png: expected a PNG, .* found text"):
        [*explainer.cases(paths)]
    monkeypatch.setattr(explaining, "MOST_CASES", 2)
    with pytest.raises(DataError, match=r"^Expected at most 2 pictures to explain, got 3\. Name fewer\.$"):
        [*explainer.cases(paths)]
