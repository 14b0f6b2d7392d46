"""What is tried: a menu in a YAML file, and the candidates that follow from it for a dataset.

menu → entries as they stand, then draws by a seed → each within the parameters, and fit for the data's task
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from qvit.data.arrays import Dataset
from qvit.data.options import IMPORT_KEYS
from qvit.data.registry import DatasetInfo
from qvit.documents import read_yaml
from qvit.errors import CircuitError, ConfigError, FileError, ModelError, nearest
from qvit.models.vit import ViTConfig
from qvit.models.zoo import KINDS, MATCHED, ModelConfig, count_parameters, parse_name
from qvit.training.config import TrainConfig
from qvit.training.losses import make_loss
from qvit.training.options import RunConfig, model_keys, option_keys, resolve
from qvit.training.recipes import NOT_OF_RECIPES, Recipe, read_recipe

KEYS = ("entries", "baselines", "draws")
ENTRY_KEYS = ("recipe", "model", "options")
DRAW_KEYS = ("recipes", "changes", "variants", "kinds", "sizes", "options")
USUAL = 1100  # parameters, unless the defaults have more
FRUITLESS = 200  # draws in a row that give no new candidate, after which there are none
NOTHING_CHOSEN = {"keep": "last", "tta": "always"}  # by a fold that is held out
MODEL = "qvit_4q2h"
DATA_KEYS = ("dataset", "size", "task", *IMPORT_KEYS)


@dataclass(frozen=True)
class Entry:
    """A candidate that is tried as it stands: a recipe, perhaps with another model and other options."""

    recipe: Recipe
    model: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Menu:
    """What is tried.

    `entries` come first, the first of which is what others are compared with; `baselines` are models that are shown
    beside them. Draws start from one of `recipes`, with a model of `kinds` and `sizes`, and fewer than so many
    `changes` of the model's `options` and of training's, each a list of values. Each model is drawn so many `variants`
    of: models alike are trained together, which takes less time.
    """

    entries: tuple[Entry, ...]
    baselines: tuple[str, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    changes: tuple[int, ...] = (2,)
    variants: int = 1
    kinds: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    options: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One recipe that is tried: flat options for `qvit train`, without those of the data; `about` tells them in words.

    A baseline is not chosen. `parameters` are those of its model on the dataset.
    """

    name: str
    about: str
    options: dict[str, Any]
    parameters: int
    baseline: bool = False


def read_menu(path: str | Path | None = None) -> Menu:
    """Return the menu in a YAML file, None for the one that comes with qvit; raises `ConfigError` for what is none."""
    place = Path(str(files("qvit.tune") / "menu.yaml")) if path is None else Path(path)
    try:
        said = read_yaml(place)
    except FileError as error:
        raise ConfigError(f"{error} Give the YAML file of a menu, or leave --menu out.") from error
    said = _mapping(said, f"The menu {place}", KEYS)
    draws = _mapping(said.get("draws") or {}, "draws of the menu", DRAW_KEYS)
    entries = tuple(_entry(one) for one in _several(said.get("entries"), "entries"))
    if not entries:
        raise ConfigError(f"The menu {place} has no entries; the first is what others are compared with.")
    options = _mapping(draws.get("options") or {}, "options of the menu", None)
    return Menu(
        entries=entries,
        baselines=tuple(map(str, _several(said.get("baselines"), "baselines"))),
        recipes=tuple(read_recipe(str(one)) for one in _several(draws.get("recipes"), "recipes")),
        changes=tuple(_counts(_several(draws.get("changes", [2]), "changes"))),
        variants=next(_counts([draws.get("variants", 1)], "variants")),
        kinds=tuple(_kind(one) for one in _several(draws.get("kinds"), "kinds")),
        sizes=tuple(map(str, _several(draws.get("sizes"), "sizes"))),
        options={_option(key): _several(values, key) for key, values in options.items()},
    )


def _mapping(said: Any, what: str, known: Sequence[str] | None) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise ConfigError(f"{what} must hold `key: value` lines, got {said!r:.80}.")
    for key in said:
        if known is not None and key not in known:
            raise ConfigError(f"{what} has no key '{key}'.{nearest(key, known)} Known: {', '.join(known)}.")
    return said


def _several(said: Any, what: str) -> list[Any]:
    if said is not None and not isinstance(said, list):
        raise ConfigError(f"{what} of the menu must be a list, such as [1, 2], got {said!r:.80}.")
    return said or []


def _counts(said: list[Any], what: str = "changes") -> Iterator[int]:
    for number in said:
        if type(number) is not int or number < 1:
            raise ConfigError(f"{what} of the menu must be whole numbers of at least 1, got {number!r:.80}.")
        yield number


def _kind(said: Any) -> str:
    if str(said).removesuffix(MATCHED) not in KINDS:
        raise ConfigError(f"There is no kind '{said}'.{nearest(said, KINDS)} Known: {', '.join(KINDS)}.")
    return str(said)


def _option(key: str) -> str:
    """Return the name of an option that recipes may set; raises `ConfigError` for any other."""
    known = [one for one in option_keys() if one not in NOT_OF_RECIPES]
    if key not in known:
        raise ConfigError(f"The menu has the option '{key}', which no recipe has.{nearest(key, known)}")
    return key


def _entry(said: Any) -> Entry:
    said = _mapping(said, "an entry of the menu", ENTRY_KEYS)
    if "recipe" not in said:
        raise ConfigError(f"An entry of the menu needs a recipe, such as `recipe: defaults`, got {said!r:.80}.")
    options = _mapping(said.get("options") or {}, "options of an entry", None)
    model = said.get("model")
    return Entry(
        read_recipe(str(said["recipe"])),
        None if model is None else str(model),
        {_option(key): value for key, value in options.items()},
    )


class Kitchen:
    """Makes candidates of a menu for a dataset: each is checked, and its parameters are counted.

    `given` are options of every candidate, above all others, with the dataset's; `model` is the only kind of model to
    try, None for all of the menu; `most` the parameters allowed, None for `USUAL`, or those of the first entry if it
    has more.
    """

    def __init__(
        self, menu: Menu, data: Dataset, given: dict[str, Any], *, model: str | None, most: int | None
    ) -> None:
        self.menu, self.given, self.model = menu, given, model
        self._info: DatasetInfo = data.info
        self._side = data.size
        first = self.candidate(self._named(menu.entries[0]), menu.entries[0].options, menu.entries[0].recipe)
        self.most = max(USUAL, first.parameters) if most is None else most
        self.first = first

    def entries(self) -> list[Candidate]:
        """Return the candidates that stand in the menu; the first even if it has too many parameters."""
        found = [self.first]
        for entry in self.menu.entries[1:]:
            if entry.model is not None and self.model is not None and _kind_of(entry.model) != _kind_of(self.model):
                continue
            try:
                made = self.candidate(self._named(entry), entry.options, entry.recipe, entry.model)
            except (ModelError, CircuitError):  # sizes that these images have no model of
                continue
            if made.parameters <= self.most and all(self._same(made) != self._same(other) for other in found):
                found.append(made)
        if self.first.parameters > self.most and len(found) == 1 and not self.menu.recipes:
            raise ConfigError(
                f"No recipe of the menu has at most {self.most:,} parameters on this dataset: the defaults have "
                f"{self.first.parameters:,}. Allow more with --parameters."
            )
        return found

    def baselines(self) -> list[Candidate]:
        """Return the plain models that are shown beside the candidates."""
        blank = Recipe("", "", "")
        made = [self.candidate(model, {}, blank, model, own=True) for model in self.menu.baselines]
        return [replace(one, baseline=True, about="a plain baseline") for one in made]

    def draws(self, seed: int, besides: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield candidates that are drawn by a seed, each another than all before it and those `besides`."""
        source, seen = random.Random(seed), [self._same(one) for one in besides]
        fruitless, number = 0, 0
        while self.menu.recipes and fruitless < FRUITLESS:
            fruitless += 1
            recipe, model = source.choice(self.menu.recipes), self._drawn_model(source)
            of_model = self._changes(source, recipe, [key for key in self.menu.options if key in model_keys()])
            for _ in range(self.menu.variants):
                others = [key for key in self.menu.options if key not in model_keys()]
                changes = of_model | self._changes(source, recipe, others)
                try:
                    made = self.candidate(f"draw-{number + 1}", changes, recipe, model)
                except (ConfigError, ModelError, CircuitError):  # options that do not fit together, or this task
                    continue
                if made.parameters <= self.most and self._same(made) not in seen:
                    fruitless, number = 0, number + 1
                    seen.append(self._same(made))
                    yield made

    def _changes(self, source: random.Random, recipe: Recipe, keys: Sequence[str]) -> dict[str, Any]:
        """Draw fewer changes of some options than the menu says."""
        changed = source.sample(sorted(keys), min(source.choice(self.menu.changes) - 1, len(keys)))
        found, usual = {}, vars(TrainConfig()) | vars(ViTConfig()) | recipe.options
        for key in changed:
            others = [value for value in self.menu.options[key] if key not in usual or value != usual[key]]
            if others:
                found[key] = source.choice(others)
        return found

    def _drawn_model(self, source: random.Random) -> str | None:
        """Return a model of the menu's sizes and kinds, or of the one kind that is wanted; None for the usual one."""
        kinds = self.menu.kinds if self.model is None else (_kind_of(self.model),)
        if not kinds or not self.menu.sizes or (self.model is not None and parse_name(self.model) is None):
            return None
        kind, size = source.choice(kinds), source.choice(self.menu.sizes)
        return f"{kind.removesuffix(MATCHED)}_{size}{MATCHED * kind.endswith(MATCHED)}"

    def candidate(
        self, name: str, changes: dict[str, Any], recipe: Recipe, model: str | None = None, *, own: bool = False
    ) -> Candidate:
        """Return a candidate: a recipe with changes, and a model; raises for options that do not fit.

        A model of its `own` takes none of the given options but the data's.
        """
        chosen = {"model": model or self.model or recipe.options.get("model", MODEL)}
        above = {} if own else {key: value for key, value in self.given.items() if key not in DATA_KEYS}
        options = recipe.options | chosen | changes | above
        options |= {key: value for key, value in NOTHING_CHOSEN.items() if key not in options}
        config, architecture = self.resolved(options)
        make_loss(self._info.task, name=config.train.loss)
        told = [f"{key}={value}" for key, value in changes.items()]
        about = " with ".join(part for part in (recipe.name, ", ".join(told)) if part)
        return Candidate(name, about, options, count_parameters(architecture))

    def resolved(self, options: dict[str, Any]) -> tuple[RunConfig, ModelConfig]:
        """Return the configuration of a run by some options on the dataset, and that of its model."""
        config = resolve(self.with_data(options))
        return config, config.architecture(self._info, self._side)

    def _same(self, one: Candidate) -> tuple[Any, ...]:
        """Return what two candidates have in common that train the same, however their options are written."""
        config, architecture = self.resolved(one.options)
        return config.train, architecture

    def with_data(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return options, with those that say what the data are."""
        return {key: value for key, value in self.given.items() if key in DATA_KEYS} | options

    def _named(self, entry: Entry) -> str:
        told = [entry.model] if entry.model else []
        told += [f"{key}={value}" for key, value in entry.options.items()]
        return " ".join([entry.recipe.name, *told])


def _kind_of(model: str) -> str:
    """Return what a model's name says besides its size: `vit_matched` of `vit_4q2h_matched`."""
    found = parse_name(model)
    return model if found is None else found.kind + MATCHED * found.matched
