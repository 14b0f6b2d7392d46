"""Recipes: read from files and by name, above what they name themselves, and written so that they can be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.cli.options import gather
from qvit.data.registry import get_info
from qvit.errors import ConfigError
from qvit.models.zoo import count_parameters
from qvit.training import recipes
from qvit.training.folder import Run
from qvit.training.options import RunConfig, read_options, resolve
from qvit.training.recipes import Recipe, read_recipe, shipped_recipes, with_recipe, write_recipe
from qvit.training.run import train_run

TEXT = "recipe: quick\nabout: To see something at once.\nsource: Ours.\nlr: 0.02\nepochs: 3\n"


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one recipe above is what comes with the package."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "quick.yaml").write_text(TEXT)
    monkeypatch.setattr(recipes, "_shipped", lambda: folder)


def test_a_file_with_about_is_a_recipe(quick: Path) -> None:
    assert read_recipe(quick) == Recipe("quick", "To see something at once.", "Ours.", {"lr": 0.02, "epochs": 3})
    assert read_options(quick) == {"lr": 0.02, "epochs": 3, "recipe": "quick"}
    config = resolve({"dataset": "phantom"} | read_options(quick))
    assert (config.recipe, config.train.lr, config.train.epochs) == ("quick", 0.02, 3)


@pytest.mark.usefixtures("shipped")
def test_a_shipped_recipe_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_recipes() == ["quick"]
    assert read_options(Path("quick"))["recipe"] == "quick"
    Path("quick").write_text("lr: 0.5\n")  # a file of that name is meant, if there is one
    assert read_options(Path("quick")) == {"lr": 0.5}


@pytest.mark.usefixtures("shipped")
def test_other_files_and_assignments_may_start_from_one(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("recipe: quick\nlr: 0.5\nseed: 3\n")
    assert read_options(path) == {"recipe": "quick", "lr": 0.5, "epochs": 3, "seed": 3}
    assert gather(path, ["recipe=quick", "batch_size=4"], {"epochs": 9}) == {
        "recipe": "quick", "lr": 0.02, "epochs": 9, "batch_size": 4, "seed": 3,
    }  # fmt: skip
    assert with_recipe({"lr": 0.5}) == {"lr": 0.5}
    assert with_recipe({"recipe": str(tmp_path / "shipped" / "quick.yaml"), "lr": 0.5})["recipe"] == "quick"


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    recipe = Recipe("mine-1", "For é and “quotes”: yes", "here # not a comment", {"lr": 1e-3, "clip_norm": None})
    write_recipe(tmp_path / "r.yaml", recipe)
    assert read_recipe(tmp_path / "r.yaml") == recipe
    assert resolve({"dataset": "phantom"} | read_options(tmp_path / "r.yaml")).train.clip_norm is None


def test_the_defaults_change_nothing() -> None:
    assert read_recipe("defaults").options == {}
    assert "defaults" in shipped_recipes()


BAD = "recipe must be a name of letters, digits and -_.+, such as small-features, got"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr: 0.1\n", "{path} is no recipe: expected lines `recipe: NAME` and `about: WHAT FOR`, found no about."),
        ("about: x\n", f"{{path}}: {BAD} None."),
        ("about: x\nrecipe: a b\n", f"{{path}}: {BAD} 'a b'."),
        ("about: x\nrecipe: 3\n", f"{{path}}: {BAD} 3."),
        ("about: 3\nrecipe: a\n", "{path}: about must be text, got 3."),
        ("about: x\nrecipe: a\nsource: [1]\n", "{path}: source must be text, got [1]."),
        (
            "about: x\nrecipe: a\nseed: 1\n",
            "{path}: a recipe is for any data and seed, so it cannot set seed; leave it out.",
        ),
    ],
)
def test_what_is_no_recipe_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert str(caught.value) == told.format(path=path)


@pytest.mark.usefixtures("shipped")
def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        with_recipe({"recipe": "quik"})
    assert str(caught.value) == (
        "Cannot read the options file quik: there is no such file. Did you mean 'quick'? Give a YAML file of "
        "`key: value` lines, such as `lr: 0.005` or one of: quick."
    )
    with pytest.raises(ConfigError, match="A run: recipe must be a name"):
        RunConfig("phantom", recipe="a b")


@pytest.mark.usefixtures("nudged")
def test_a_run_keeps_the_name_which_determines_nothing(
    config: Callable[..., RunConfig], tmp_path: Path, quick: Path
) -> None:
    run = train_run(config(**read_options(quick) | {"epochs": 1}), tmp_path / "run")
    said: Any = json.loads((run.folder / "config.json").read_text())
    assert said["recipe"] == Run(run.folder).config["recipe"] == "quick"
    (run.folder / "result.json").unlink()
    again = train_run(config(lr=0.02, epochs=1), tmp_path / "run", resume=True)  # the same options without the name
    assert again.config["recipe"] == "quick"
    plain = train_run(config(lr=0.02, epochs=1), tmp_path / "plain")
    assert "recipe" not in plain.config
    assert plain.weights_path.read_bytes() == run.weights_path.read_bytes()


@pytest.mark.parametrize(("name", "parameters"), [("defaults", 834), ("small-features", 818), ("tiny", 482)])
def test_each_that_comes_with_qvit_is_one_and_trains(name: str, parameters: int) -> None:
    recipe = read_recipe(name)
    assert (recipe.name, bool(recipe.about), bool(recipe.source)) == (name, True, True)
    config = resolve({"dataset": "breastmnist"} | recipe.named)
    assert count_parameters(config.architecture(get_info("breastmnist"), 28)) == parameters


def test_all_that_come_with_qvit_are_tried() -> None:
    assert shipped_recipes() == ["defaults", "small-features", "tiny"]
