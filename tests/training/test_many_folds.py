"""Folds trained as a stack: each run is what it is by itself, and the file is read once."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.folds import folds_of
from qvit.errors import DataError, QvitError
from qvit.training.folder import Run
from qvit.training.many import Asked, train_many
from qvit.training.options import RunConfig
from qvit.training.run import train_run

MakeConfig = Callable[..., RunConfig]
Kept = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def asked(config: MakeConfig, tmp_path: Path) -> Callable[..., list[Asked]]:
    """The runs of three folds of two seeds."""

    def make(name: str = "many", **options: Any) -> list[Asked]:
        there = tmp_path / "madeup.npz"
        options = {"folds": 3, "fold": 1, "keep": "last", "tta": "always", "stacked": True} | options
        first = config(there if there.exists() else None, **options)
        return [
            Asked(replace(first, seed=seed, fold=fold), tmp_path / name / f"s{seed}-f{fold}")
            for seed in range(2)
            for fold in range(1, 4)
        ]

    return make


@pytest.mark.trains
def test_each_run_is_what_it_is_by_itself(asked: Callable[..., list[Asked]], tmp_path: Path, kept: Kept) -> None:
    runs = asked(class_weights="balanced")
    outcomes = train_many(runs)
    assert [one.folder for one in outcomes if isinstance(one, Run)] == [one.folder for one in runs]
    alone = train_run(runs[4].config, tmp_path / "alone" / "s1-f2")
    assert kept(alone.folder) == kept(runs[4].folder)
    assert len({kept(one.folder)["model.safetensors"] for one in runs}) == 6


@pytest.mark.trains
def test_stopped_folds_go_on_bit_for_bit(asked: Callable[..., list[Asked]], kept: Kept) -> None:
    whole, runs = asked("whole"), asked()
    train_many(whole)

    def stop(place: int, record: Any, _seconds: float) -> None:
        if (place, record.epoch) == (3, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_many(runs, on_epoch=stop)
    train_many(runs, resume=True)
    for ours, theirs in zip(runs, whole, strict=True):
        assert kept(ours.folder) == kept(theirs.folder)


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_the_file_is_read_and_divided_once(asked: Callable[..., list[Asked]], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    whole = RunConfig.load_whole
    monkeypatch.setattr(RunConfig, "load_whole", lambda self, *a, **o: (seen.append("file"), whole(self, *a, **o))[1])
    monkeypatch.setattr(
        "qvit.training.many.folds_of",
        lambda data, count, *, seed: (seen.append((count, seed)), folds_of(data, count, seed=seed))[1],
    )
    outcomes = train_many(asked())
    assert seen == ["file", (3, 0), (3, 1)]
    held = [one.load_data().val.rows.tolist() for one in outcomes if isinstance(one, Run)]  # type: ignore[attr-defined]
    for of_seed in (held[:3], held[3:]):
        assert sorted(chain(*of_seed)) == list(range(37 + 21))
    assert held[:3] != held[3:]


@pytest.mark.usefixtures("nudged")
def test_folds_that_cannot_be_are_told_of_each_run(asked: Callable[..., list[Asked]], tmp_path: Path) -> None:
    runs = asked(folds=100)
    outcomes = train_many(runs)
    assert all(isinstance(one, DataError) for one in outcomes)
    assert {str(one) for one in outcomes if isinstance(one, QvitError)} == {
        f"{tmp_path / 'madeup.npz'}: expected at least 100 images for 100 folds, found 58. Ask for fewer."
    }
    assert not (tmp_path / "many").exists()


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_a_whole_run_beside_folds_has_the_data_as_they_are(
    asked: Callable[..., list[Asked]], config: MakeConfig, tmp_path: Path
) -> None:
    fold = asked()[0]
    plain = Asked(config(tmp_path / "madeup.npz", tta="always", stacked=True), tmp_path / "plain")
    done = train_many([fold, plain])
    assert [isinstance(one, Run) for one in done] == [True, True]
    folds, whole = (Run(one.folder).load_data() for one in (fold, plain))
    assert (len(whole.train), len(whole.val), len(whole.test)) == (37, 21, 23)
    assert folds.whole is not None
    assert np.array_equal(folds.whole.train.images, whole.train.images)
