"""Runs trained as a stack: each folder is what it would be by itself, and who fails is named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.arrays import Split
from qvit.errors import ConfigError, ModelError, QvitError, RunError, TrainingError
from qvit.training.evaluated import evaluate_run
from qvit.training.folder import Run
from qvit.training.many import Asked, train_many
from qvit.training.options import RunConfig
from qvit.training.run import train_run

pytestmark = pytest.mark.trains
MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def asked(config: MakeConfig, tmp_path: Path) -> Callable[..., list[Asked]]:
    """Runs that differ in the seed, in folders below one of the name given."""

    def make(name: str = "many", count: int = 3, **options: Any) -> list[Asked]:
        first = config(tmp_path / "madeup.npz" if (tmp_path / "madeup.npz").exists() else None, stacked=True, **options)
        return [Asked(replace(first, seed=seed), tmp_path / name / f"s{seed}") for seed in range(count)]

    return make


def kept(folder: Path) -> dict[str, bytes]:
    """The files of a run, but for those that say where and how quickly it ran."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("environment.json", "timings.jsonl")}


def test_each_folder_is_that_of_the_run_by_itself(asked: Callable[..., list[Asked]], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    runs = asked()
    outcomes = train_many(runs, on_epoch=lambda place, record, seconds: told.append((place, record.epoch)))
    assert told == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    assert [one.folder for one in outcomes if isinstance(one, Run)] == [one.folder for one in runs]
    alone = train_run(runs[1].config, tmp_path / "alone" / "s1")
    assert kept(alone.folder) == kept(runs[1].folder)
    assert len({kept(one.folder)["model.safetensors"] for one in runs}) == 3
    again = evaluate_run(alone)
    assert (again.auc, again.acc) == (alone.result.test.auc, alone.result.test.acc)
    plain = train_run(replace(runs[1].config, stacked=False), tmp_path / "plain" / "s1")
    assert plain.history[0].train_loss == pytest.approx(alone.history[0].train_loss, abs=1e-5)


def test_what_is_finished_is_left_and_what_has_begun_goes_on(asked: Callable[..., list[Asked]], tmp_path: Path) -> None:
    whole = asked("whole")
    train_many(whole)
    runs = asked()

    def stop(place: int, record: Any, _seconds: float) -> None:
        if (place, record.epoch) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_many(runs, on_epoch=stop)
    shutil.copytree(whole[2].folder, tmp_path / "finished")
    shutil.rmtree(runs[2].folder)
    shutil.copytree(tmp_path / "finished", runs[2].folder)
    outcomes = train_many(runs, resume=True)
    assert all(isinstance(one, Run) for one in outcomes)
    for ours, theirs in zip(runs, whole, strict=True):
        assert kept(ours.folder) == kept(theirs.folder)
    with pytest.raises(RunError, match="already holds a finished run"):
        raise next(one for one in train_many(runs) if isinstance(one, QvitError))


def test_one_that_fails_is_named_and_the_others_are_done(asked: Callable[..., list[Asked]]) -> None:
    runs = asked()
    huge = replace(runs[1].config.train, lr=1e38, clip_norm=None, warmup=0.4)
    runs[1] = replace(runs[1], config=replace(runs[1].config, train=huge))
    runs[0].folder.mkdir(parents=True)
    (runs[0].folder / "letter.txt").write_text("not a run")
    first, second, third = train_many(runs)
    assert isinstance(first, RunError)
    assert "is not empty and not a run folder" in str(first)
    assert isinstance(second, TrainingError)
    assert "no longer finite" in str(second)
    assert isinstance(third, Run)
    assert third.finished
    others = asked("others")
    train_many(others)
    assert kept(third.folder) == kept(others[2].folder)


def test_runs_that_are_no_stack_are_refused(asked: Callable[..., list[Asked]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^Expected at least one run to train, got none\.$"):
        train_many([])
    runs = asked()
    plain = replace(runs[0], config=replace(runs[0].config, stacked=False))
    with pytest.raises(ConfigError, match=r"^Expected runs with the option stacked, as that is what they will be"):
        train_many([plain, *runs[1:]])
    with pytest.raises(ConfigError, match=r"^Expected a folder for each run, got the same one twice\.$"):
        train_many([runs[0], runs[0]])
    dropping = replace(runs[0].config, model_options={"dropout": 0.5})
    told = (
        "stacked: vit_4q1h cannot be trained in a stack: dropout draws from one random stream, and models of a stack "
        "may not share one. Leave stacked out."
    )
    (error,) = train_many([Asked(dropping, tmp_path / "drops")])
    assert str(error) == told
    with pytest.raises(ConfigError) as caught:
        train_run(dropping, tmp_path / "drops")
    assert str(caught.value) == told


def test_models_of_several_widths_are_several_stacks(asked: Callable[..., list[Asked]]) -> None:
    runs = asked(count=2)
    runs[1] = replace(runs[1], config=replace(runs[1].config, model="vit_2q2h"))
    outcomes = train_many(runs)
    assert [one.config["model"] for one in outcomes if isinstance(one, Run)] == ["vit_4q1h", "vit_2q2h"]


def test_what_a_run_may_not_hold_is_said_in_its_config(asked: Callable[..., list[Asked]]) -> None:
    (one,) = train_many(asked(count=1))
    assert isinstance(one, Run)
    assert json.loads((one.folder / "config.json").read_text())["stacked"] is True
    assert np.isfinite(one.result.test.auc)
    assert isinstance(one.load_data().test, Split)


def test_what_does_not_fit_into_the_memory_is_trained_afterwards(asked: Callable[..., list[Asked]]) -> None:
    whole, parts = asked("whole"), asked("parts")
    train_many(whole)
    told: list[tuple[int, int]] = []
    train_many(parts, memory=1e-9, on_epoch=lambda place, record, _: told.append((place, record.epoch)))
    assert told == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert [kept(one.folder) for one in whole] == [kept(one.folder) for one in parts]


def test_a_state_of_another_model_stops_that_run_alone(asked: Callable[..., list[Asked]]) -> None:
    def stop(place: int, record: Any, _seconds: float) -> None:
        if place == 1:
            raise KeyboardInterrupt

    deeper, runs = asked("deeper", count=2, depth=2), asked(count=2)
    for some in (deeper, runs):
        with pytest.raises(KeyboardInterrupt):
            train_many(some, on_epoch=stop)
    shutil.copy(deeper[0].folder / "state.pt", runs[0].folder / "state.pt")
    first, second = train_many(runs, resume=True)
    assert isinstance(first, ModelError)
    assert str(first).startswith("The state to go on from is not that of this model")
    assert isinstance(second, Run)
    assert second.finished
