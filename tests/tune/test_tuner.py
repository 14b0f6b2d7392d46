"""Tunings from what was asked to what was found: repeated, interrupted, refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.arrays import load_dataset
from qvit.errors import ConfigError, RunError, TrainingError
from qvit.training.options import read_options, resolve
from qvit.training.recipes import read_recipe
from qvit.training.run import train_run
from qvit.tune import tuner
from qvit.tune.menu import read_menu
from qvit.tune.planning import Timed
from qvit.tune.record import read_record
from qvit.tune.tuner import Asked, Tuned, repeated, tune

SMALL = {"model": "vit_4q1h", "folds": 3, "trials": 5}


@pytest.fixture
def go(npz: Path, menu_file: Path, tmp_path: Path) -> Callable[..., Tuned]:
    """Tune on the small dataset, by this process."""

    def run(name: str = "tune", *, options: dict[str, Any] | None = None, **more: Any) -> Tuned:
        own = {key: more.pop(key) for key in ("resume", "memory", "on_news", "on_epoch", "workers") if key in more}
        given = {"dataset": str(npz), "epochs": 1} | (options or {})
        asked = Asked(given, menu=read_menu(menu_file), **(SMALL | more))
        return tune(asked, tmp_path / name, **({"workers": 1} | own))

    return run


def trials(folder: Path) -> list[dict[str, Any]]:
    """Return what was judged, but for how long it took, in any order."""
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key not in ("seconds", "pace")} for line in lines]
    return sorted(kept, key=lambda line: (line["candidate"], line["place"]))


@pytest.mark.trains
@pytest.mark.slow("trains some fifty small models, twice")
def test_a_tuning_ends_in_a_recipe_a_run_and_a_record(go: Callable[..., Tuned], npz: Path, tmp_path: Path) -> None:
    epochs: list[int] = []
    found = go(on_epoch=lambda place, record, seconds: epochs.append(record.epoch), seeds=2)
    assert [(rung.folds, rung.entrants) for rung in found.rungs] == [(3, 5), (6, 3), (9, 3)]
    assert found.trainings == 5 * 3 + 3 * 3 + 3 * 3
    assert 0 < found.share <= 1
    assert epochs == [1, 1]
    # the recipe is what was chosen, and trains the run that was read
    chosen = next(one for one in read_record(found.folder).candidates if one.name == found.verdict.chosen)
    recipe = read_recipe(found.folder / "recipe.yaml")
    assert recipe == found.recipe
    assert recipe.name == f"tuned-{npz.stem}"
    assert recipe.options == chosen.options
    again = train_run(
        resolve({"dataset": str(npz), "seed": 1, "stacked": True} | read_options(found.folder / "recipe.yaml")),
        tmp_path / "run",
    )
    [first, second] = found.runs
    assert (first.folder, second.folder) == (found.folder / "runs" / "s0", found.folder / "runs" / "s1")
    assert second.config["recipe"] == f"tuned-{npz.stem}"
    assert again.weights_path.read_bytes() == second.weights_path.read_bytes()
    assert found.test == pytest.approx((first.result.test.auc + second.result.test.auc) / 2)
    assert f"AUC {found.verdict.of_chosen.auc:.3f} over" in recipe.source
    said = json.loads((found.folder / "tune.json").read_text())
    assert said["result"]["verdict"]["chosen"] == found.verdict.chosen
    assert said["asked"]["trials"] == 5
    assert said["asked"]["minutes"] is None
    assert str(tmp_path) not in json.dumps(said), "no absolute paths"
    # the same again: from what is written
    other = tune(repeated(found.folder / "tune.json", {}), tmp_path / "again", workers=1)
    assert trials(other.folder) == trials(found.folder)
    assert other.verdict.expected == found.verdict.expected
    assert other.recipe == found.recipe
    assert other.test == found.test


@pytest.mark.usefixtures("untrained")
@pytest.mark.long
def test_an_interrupted_tuning_goes_on_and_ends_as_if_it_had_not_stopped(
    go: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go("whole")
    lines = 0

    def stops(progress: Any) -> None:
        nonlocal lines
        lines += bool(progress.news)
        if lines == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(on_news=stops)
    before = trials(whole.folder.with_name("tune"))
    assert 0 < len(before) < len(trials(whole.folder))
    found = go(resume=True)
    assert trials(found.folder) == trials(whole.folder)
    assert found.recipe == whole.recipe
    assert [vars(rung) for rung in found.rungs] == [vars(rung) for rung in whole.rungs]
    # one that is finished is only read
    monkeypatch.setattr("qvit.training.loop.train_epoch", lambda _: pytest.fail("nothing is trained again"))
    assert go(resume=True).verdict == found.verdict
    with pytest.raises(RunError, match="already holds a tuning"):
        go()
    with pytest.raises(RunError, match="something else was asked"):
        go(resume=True, seed=3)


@pytest.mark.usefixtures("untrained")
@pytest.mark.long
@pytest.mark.parametrize("several", [False, True])
def test_other_tasks_and_patients(
    go: Callable[..., Tuned], make_npz: Callable[..., Path], several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_npz("tasks", several=several, classes=2 if several else 3)
    options = {"dataset": str(path)} | ({} if several else {"task": "ordinal"})
    plain = tuner.RunConfig.load_whole

    def with_groups(*given: Any, **named: Any) -> Any:
        data = plain(*given, **named)
        groups = {name: np.arange(len(split)) // 2 for name, split in data.splits.items()}
        groups["val"] = groups["val"] + 1000
        return tuner.replace(data, groups=groups)

    monkeypatch.setattr(tuner.RunConfig, "load_whole", with_groups)
    found = go(options=options, trials=2)
    assert found.verdict.of_chosen.folds == 9
    rows = np.concatenate([np.arange(24) // 2, 1000 + np.arange(16) // 2])
    data = load_dataset(path)
    held = tuner.held_of(tuner.RunConfig(str(path)).load_whole(), 3, seed=0, divisions=1)
    for place in held.rows:
        assert not set(rows[place]) & set(rows[np.setdiff1d(np.arange(40), place)]), "no patient on both sides"
    assert len(held.labels) == len(data.train) + len(data.val)


@pytest.mark.usefixtures("untrained")
def test_models_that_cannot_be_stacked_are_tuned_as_well(go: Callable[..., Tuned]) -> None:
    epochs: list[int] = []
    found = go(options={"dropout": 0.5}, trials=1, on_epoch=lambda place, record, _: epochs.append(record.epoch))
    assert "stacked" not in found.runs[0].config
    assert epochs == [1]


@pytest.mark.usefixtures("untrained")
def test_a_chosen_recipe_that_cannot_be_trained_is_told(
    go: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise TrainingError("diverged")

    monkeypatch.setattr(tuner, "train_run", fails)
    with pytest.raises(TrainingError) as caught:
        go(options={"dropout": 0.5}, trials=1)
    assert str(caught.value) == "The chosen recipe cannot be trained on the training images: diverged"


def test_minutes_and_numbers_make_plans(go: Callable[..., Tuned], npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Enough(Exception):  # noqa: N818 - not an error
        pass

    def race(record: Any, kitchen: Any, plan: Any, pool: Any, **_: Any) -> None:
        seen.append((plan, kitchen.most))
        raise Enough

    monkeypatch.setattr(tuner, "Race", race)
    for name, more in (("a", {"trials": None, "minutes": 2.0}), ("b", {"parameters": 50})):
        with pytest.raises(Enough):
            go(name, **more)
    (timed, most), (plan, few) = seen
    assert isinstance(timed, Timed)
    assert (timed.seconds, timed.folds, timed.workers, most) == (120.0, (3, 6, 9), 1, 1100)
    assert [rung.entrants for rung in plan.rungs] == [5, 3, 3]
    assert few == 50


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"parameters": 0}, "parameters must be at least 1, got 0."),
        ({"minutes": 0.0}, "minutes must be above 0 and at most 100,000, got 0.0."),
        ({"trials": 0}, "trials must be from 1 to 10,000, got 0."),
        ({"folds": 1}, "folds must be from 2 to 100, got 1."),
        ({"seeds": 0}, "seeds must be from 1 to 1,000, got 0."),
        ({"memory": 0.0}, "memory must be positive, got 0.0."),
        ({"workers": 0}, "workers must be at least 1, got 0."),
        (
            {"options": {"fold": 1}},
            "A tuning divides and stacks by itself, so it takes no option fold; leave it out.",
        ),
    ],
)
def test_what_cannot_be_asked(go: Callable[..., Tuned], tmp_path: Path, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        go(**more)
    assert str(caught.value) == told
    assert not (tmp_path / "tune").exists()


@pytest.mark.usefixtures("untrained")
def test_what_cannot_be_repeated(go: Callable[..., Tuned], make_npz: Callable[..., Path], tmp_path: Path) -> None:
    found = go(trials=1)
    file = found.folder / "tune.json"
    other = make_npz("other", seed=5)
    with pytest.raises(ConfigError) as caught:
        tune(repeated(file, {"dataset": str(other)}), tmp_path / "again", workers=1)
    digest = found.runs[0].config["data_digest"]
    assert str(caught.value) == (
        f"The tuning to repeat was on other data: expected {other} with digest {digest}, found "
        f"{load_dataset(other).digest}. Name the data with --data."
    )
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"rungs": []}))
    with pytest.raises(RunError) as caught:
        repeated(file, {})
    assert str(caught.value) == f"{file} is of a tuning that had not begun; there is nothing to repeat."
