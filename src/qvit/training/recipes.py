"""Recipes: options under a name, with what they are for and where they came from, one YAML file each.

    recipe: small-features
    about: Small sets of images, which the defaults learn by heart.
    source: Where these values come from, and what was measured.
    features: contrast
    lr: 0.01

A file with `about` is a recipe, whose name is `recipe`. In a file without it, and among options of the command line,
`recipe` names one to start from: its options are taken, and those that stand beside it win.
"""

import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from qvit.documents import read_yaml
from qvit.errors import ConfigError, FileError, nearest
from qvit.files import write_atomic

SAYING = ("about", "source")  # keys of a recipe that are no options
NOT_OF_RECIPES = ("dataset", "seed", "size", "task", "folds", "fold")  # what a run is about, not how it is done
MOST_LETTERS = 200  # of a name
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.+-]{{0,{MOST_LETTERS - 1}}}")


@dataclass(frozen=True)
class Recipe:
    """Options under a name; `about` says what they are for, `source` where they came from."""

    name: str
    about: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, Any]:
        """The options, with the name under which a run records them."""
        return self.options | {"recipe": self.name}


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _shipped().iterdir() if entry.name.endswith(".yaml"))


def _shipped() -> Any:
    return files("qvit") / "recipes"


def read_recipe(name: str | Path) -> Recipe:
    """Return a shipped recipe by name, or the one in a file; raises `ConfigError` for what is none."""
    path = found(Path(name))
    told = read_flat(path, [f"one of: {', '.join(shipped_recipes())}"])
    if "about" not in told:
        raise ConfigError(f"{path} is no recipe: expected lines `recipe: NAME` and `about: WHAT FOR`, found no about.")
    return recipe_of(told, str(path))


def found(path: Path) -> Path:
    """Return the file of a shipped recipe if that is what a path names and there is no such file, else the path."""
    if str(path) in shipped_recipes() and not path.is_file():
        return Path(str(_shipped() / f"{path}.yaml"))
    return path


def read_flat(path: Path, others: list[str]) -> dict[str, Any]:
    """Return the `key: value` lines of a YAML file; raises `ConfigError`, with what `others` may be named instead."""
    try:
        said = read_yaml(path)
    except FileError as error:
        missing = f"Cannot read the options file {path}: there is no such file.{nearest(path, shipped_recipes())}"
        advice = " or ".join(["a YAML file of `key: value` lines, such as `lr: 0.005`", *others])
        raise ConfigError(f"{missing if error.missing else error} Give {advice}.") from error
    if said is None:  # an empty file
        return {}
    if not isinstance(said, dict) or not all(isinstance(key, str) for key in said):
        raise ConfigError(f"{path} must hold `key: value` lines, such as `lr: 0.005`.")
    return said


def recipe_of(said: dict[str, Any], place: str) -> Recipe:
    """Return the recipe that flat values describe; raises `ConfigError` for a name or words that are none."""
    said = dict(said)
    name, words = check_name(said.pop("recipe", None), place), []
    for key in SAYING:
        text = said.pop(key, "")
        if not isinstance(text, str):
            raise ConfigError(f"{place}: {key} must be text, got {text!r:.80}.")
        words.append(" ".join(text.split()))
    for key in NOT_OF_RECIPES:
        if key in said:
            raise ConfigError(f"{place}: a recipe is for any data and seed, so it cannot set {key}; leave it out.")
    return Recipe(name, words[0], words[1], said)


def check_name(name: Any, place: str) -> str:
    """Return the name of a recipe; raises `ConfigError` for anything that is no short word."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{place}: recipe must be a name of letters, digits and -_.+, such as small-features, got {name!r:.80}."
        )
    return name


def with_recipe(options: dict[str, Any]) -> dict[str, Any]:
    """Return options, above those of the recipe that they name, if they do; raises as `read_recipe` does."""
    if options.get("recipe") is None:
        return options
    recipe = read_recipe(str(options["recipe"]))
    return recipe.options | options | {"recipe": recipe.name}


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe to a YAML file that `qvit train --config` takes; raises RunError if it cannot be written."""
    lines = {"recipe": recipe.name, "about": recipe.about, "source": recipe.source} | recipe.options
    text: str = yaml.safe_dump(lines, sort_keys=False, allow_unicode=True, width=100)
    write_atomic(path, text.encode())
