"""`qvit tune`: one command from a dataset to a recipe, told as tables, sentences, JSON and progress."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.cli import tune as module
from qvit.tune.race import TuneProgress
from tune.conftest import MENU

Qvit = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("untrained")


@pytest.fixture
def tune(qvit: Qvit, npz: Path, tmp_path: Path) -> Qvit:
    """Tune for an epoch on the made-up file, by this process."""
    (tmp_path / "menu.yaml").write_text(MENU)

    def run(*more: object, out: str = "tuned") -> Any:
        small = ["--model", "vit_4q1h", "--folds", 3, "--set", "epochs=1", "--workers", 1]
        return qvit("tune", npz, "--menu", tmp_path / "menu.yaml", *small, "--out", tmp_path / out, *more)

    return run


@pytest.mark.long
def test_a_table_sentences_and_a_recipe(tune: Qvit, qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    told = tune("--trials", 4)
    assert told.code == 0, told.err
    for words in ("Recipes", "defaults lr=0.02", "draw-1", "won", "Expect an AUC of", "One reading of 20 test images"):
        assert words in told.out
    assert "[12/12] rung 1: " in told.err
    assert told.err.endswith(f"Recipe: {tmp_path / 'tuned' / 'recipe.yaml'}\n")
    names = {path.name for path in (tmp_path / "tuned").iterdir() if not path.name.startswith(".")}
    assert names == {"tune.json", "trials.jsonl", "recipe.yaml", "front.svg", "front.png", "runs"}
    trained = qvit(
        "train", npz, "--config", tmp_path / "tuned" / "recipe.yaml", "--epochs", 1, "--out", tmp_path / "run"
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"] == "tuned-small"
    repeated = qvit(
        "tune", "--repeat", tmp_path / "tuned" / "tune.json", "--workers", 1, "--out", tmp_path / "again", "--json"
    )
    assert repeated.code == 0, repeated.err
    said, before = json.loads(repeated.out), json.loads((tmp_path / "tuned" / "tune.json").read_text())["result"]
    assert said["test_auc"] == before["test_auc"]
    assert said["verdict"]["expected"] == before["verdict"]["expected"]
    assert repeated.err == "", "nothing but the result"


@pytest.mark.long
def test_minutes_are_kept_and_a_tuning_goes_on(tune: Qvit, tmp_path: Path) -> None:
    told = tune("--minutes", 0.001, "--json")
    assert told.code == 0, told.err
    said = json.loads(told.out)
    assert [rung["folds"] for rung in said["rungs"]] == [3], "each image judges each candidate once in any case"
    assert tune("--minutes", 0.001).code == 2
    again = tune("--minutes", 0.001, "--resume", "--json")
    assert json.loads(again.out)["verdict"] == said["verdict"]


def test_the_model_may_stand_in_the_options(qvit: Qvit, npz: Path, tmp_path: Path) -> None:
    (tmp_path / "menu.yaml").write_text("entries: [{recipe: defaults}]")
    told = qvit(
        "tune", npz, "--menu", tmp_path / "menu.yaml", "--set", "model=vit_4q1h", "--set", "epochs=1", "--folds", 2,
        "--trials", 1, "--workers", 1, "--seed", 3, "--out", tmp_path / "t",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert "defaults won: no other recipe has a better mean." in told.out
    said = json.loads((tmp_path / "t" / "tune.json").read_text())
    assert (said["asked"]["model"], said["asked"]["seed"]) == ("vit_4q1h", 3)
    assert (tmp_path / "t" / "runs" / "s3" / "result.json").exists()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--trials", 3, "--minutes", 2), "--minutes and --trials both say how many recipes to try; use one of them."),
        (
            ("--set", "fold=1", "--trials", 3),
            "A tuning divides and stacks by itself, so it takes no option fold; leave it out.",
        ),
    ],
)
def test_mistakes_are_one_line(tune: Qvit, tmp_path: Path, more: tuple[object, ...], line: str) -> None:
    told = tune(*more)
    assert (told.code, told.out, told.err) == (2, "", f"Error: {line}\n")
    assert not (tmp_path / "tuned").exists()


def test_what_was_said_before_is_not_said_again(qvit: Qvit, tmp_path: Path) -> None:
    told = qvit("tune", "--repeat", tmp_path / "tune.json", "--trials", 3)
    assert told.err == "Error: --repeat does what was done before, so it takes no --trials; leave it out.\n"


def test_progress_is_drawn_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with module.tuning_progress(quiet=False) as tell:
        assert tell is not None
        tell(TuneProgress("rung 1", 0, 4, {"stack 1": (1, 2)}, "rung 1: [begins]"))
        tell(TuneProgress("rung 1", 4, 4, {}, ""))
    told = capsys.readouterr().err
    assert "rung 1: [begins]" in told
    assert "4/4" in told
    with module.tuning_progress(quiet=True) as tell:
        assert tell is None
