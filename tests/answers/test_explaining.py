"""Images explained by a run: the class that maps are of, which images of a split are shown, and what is refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from answers.conftest import NAMES, images, pictures
from qvit.answers import explaining
from qvit.answers.explaining import KINDS, of_split, picked, unlearnt
from qvit.answers.maps import maps_of
from qvit.answers.predictor import load
from qvit.errors import ConfigError, DataError
from qvit.training.folder import Run


def test_the_likeliest_class_is_explained_or_the_one_asked_for(run: Run, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "new", 3)
    predictor = load(run.folder)
    expected = [one for path in paths for one in predictor.predict(path)]  # as one image is rounded by itself
    found = predictor.explain(tmp_path / "new")
    assert [case.prediction for case in found] == expected
    assert [case.target for case in found] == [each.label for each in expected]
    [red] = predictor.explain(paths[0], target="red")
    assert red.target == "red"
    maps = maps_of(run.load_model(), predictor.needs.squares(paths[0])[0], "multi-class", 2)
    assert np.array_equal(red.maps.saliency, maps.saliency)


def test_files_arrays_and_tensors_are_explained_alike(run: Run, tmp_path: Path) -> None:
    predictor = load(run.folder)
    given = images(np.arange(2) % 3, seed=9)
    by_file = predictor.explain(iter(pictures(tmp_path / "new", 2, side=12)))
    for found in (predictor.explain(given), predictor.explain(torch.from_numpy(given).permute(0, 3, 1, 2))):
        assert [case.prediction.source for case in found] == ["image 0", "image 1"]
        for case, other in zip(found, by_file, strict=True):
            assert case.prediction.probabilities == other.prediction.probabilities
            assert np.array_equal(case.image, other.image)
            assert np.array_equal(case.maps.occlusion, other.maps.occlusion)
    assert predictor.explain([]) == []


def test_maps_of_a_run_that_has_learnt_nothing_are_those_of_random_weights(
    trained: Callable[..., Path], tmp_path: Path
) -> None:
    paths = pictures(tmp_path / "new", 3)
    for seed, same in ((0, True), (1, False)):  # the weights that are compared with are those of seed 0
        predictor = load(trained(seed=seed))
        told = unlearnt(predictor, predictor.explain(paths))
        assert set(told) == {"rollout", "saliency", "occlusion"}
        assert all((value == pytest.approx(1)) == same and value >= 0 for value in told.values())


def half_right(said: list[object]) -> np.ndarray:
    """Labels by which every second answer is right."""
    several = isinstance(said[0], tuple)
    found = [[name in one for name in NAMES[:2]] if several else [NAMES.index(one)] for one in said]  # type: ignore[operator,arg-type]
    labels = np.array(found).astype(np.int64)
    labels[1::2] = 1 - labels[1::2].clip(0, 1)
    return labels


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_of_a_split_those_it_is_most_and_least_sure_of_are_shown(trained: Callable[..., Path], task: str) -> None:
    run = Run(trained(task))
    predictor, split = load(run.folder), run.load_data().test
    said = predictor.predict(np.array(split.images.transpose(0, 2, 3, 1)))
    split = replace(split, labels=half_right([one.label for one in said]))
    if task == "multi-label":
        truths = [tuple(np.array(NAMES[:2])[label == 1].tolist()) for label in split.labels]
    else:
        truths = [NAMES[label] for label in split.labels[:, 0]]
    right = [one.label == truth for one, truth in zip(said, truths, strict=True)]
    found = picked(predictor, split, each=3)
    seen = {kind: [one.position for one in found if one.kind == kind] for kind in KINDS}
    sure = np.array([one.confidence for one in said])
    for kind, good in zip(KINDS[:2], (True, False), strict=True):
        of_kind = np.flatnonzero(np.array(right) == good)
        assert sorted(sure[seen[kind]], reverse=True) == sorted(sure[of_kind], reverse=True)[:3]
        assert all(right[place] == good for place in seen[kind])
    assert sum(right) == 15
    assert sure[seen[KINDS[2]]].max() <= np.sort(sure)[2]
    for one in found:
        truth = truths[one.position]
        assert one.truth == (truth if isinstance(truth, str) else ", ".join(truth) or "none")
    cases = [*of_split(predictor, split, "test", found)]
    assert [case.prediction.source for case in cases] == [f"test {one.position}" for one in found]
    assert [case.prediction.label for case in cases] == [said[one.position].label for one in found]


def test_no_image_is_shown_twice_and_of_a_small_split_a_third_of_each_kind(run: Run) -> None:
    predictor, split = load(run.folder), run.load_data().test
    found = picked(predictor, split, each=30)
    assert len({one.position for one in found}) == len(found)
    assert max(Counter(one.kind for one in found).values()) == 10
    assert sum(one.kind == KINDS[2] for one in found) == 10


def test_a_split_is_asked_in_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, split = load(run.folder), run.load_data().test
    expected = picked(predictor, split)
    monkeypatch.setattr(explaining, "_PART", 7)
    assert picked(predictor, split) == expected
    assert len(expected) == 18


def test_what_cannot_be_explained(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "new", 3)
    predictor = load(run.folder)
    with pytest.raises(DataError, match=r"^Expected a class that the run knows \(bright, dark, red\), got 'blue'\.$"):
        predictor.explain(paths, target="blue")
    with pytest.raises(ConfigError, match=r"^Expected one run to explain, got 2\. Explain them one by one\.$"):
        load([run.folder, run.folder]).explain(paths)
    paths[1].write_bytes(b"text")
    with pytest.raises(DataError, match=r"01\.png: expected a PNG, .* found text"):
        predictor.explain(paths)
    monkeypatch.setattr(explaining, "MOST_CASES", 2)
    with pytest.raises(DataError, match=r"^Expected at most 2 pictures to explain, got 3\. Name fewer\.$"):
        predictor.explain(paths)
