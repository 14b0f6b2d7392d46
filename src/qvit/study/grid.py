"""The models of a study: names, or grids of kind × qubits × heads × layers × options."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from qvit.data.options import IMPORT_KEYS
from qvit.errors import ConfigError, nearest
from qvit.models.baselines import BASELINES
from qvit.models.dsconv import DSCONV
from qvit.models.projections import PROJECTIONS
from qvit.models.zoo import KINDS, MATCHED, parse_name
from qvit.study import values
from qvit.study.spec import StudyModel
from qvit.training.recipes import read_recipe, shipped_recipes

KEYS = ("name", "kind", "qubits", "heads", "layers", "recipe", "label", "options")
MOST_MODELS = 1000  # or runs per teacher; each model is built once, without weights, to check its options


def models_of(said: Any, folder: Path | None = None) -> list[StudyModel]:
    """Return the models that a study's `models` names; raises `ConfigError` for invalid entries.

    Paths of recipes are relative to `folder`.
    """
    models: list[StudyModel] = []
    for entry in values.several(said, "models", most=MOST_MODELS):
        models += _by_recipes(entry, folder or Path())
        values.check_number(len(models), "models", MOST_MODELS)
    for label, number in Counter(model.label for model in models).items():
        if number > 1:
            raise ConfigError(f"models names {label!r} twice; give one a label.")
    return models


def _by_recipes(entry: Any, folder: Path) -> list[StudyModel]:
    """Return the models of one entry, by each of the recipes that it names; their own options stand above."""
    if not isinstance(entry, dict) or "recipe" not in entry:
        return _models(entry)
    rest, found = {key: value for key, value in entry.items() if key != "recipe"}, []
    for name in values.several(entry["recipe"], "recipe"):
        said = values.line(name, "recipe")
        recipe = read_recipe(said if said in shipped_recipes() else folder / said)
        below = {key: value for key, value in recipe.named.items() if key != "model"}
        for model in _models(rest):
            told = model.label.removeprefix(model.name).strip(" ()")
            label = f"{model.name} ({', '.join(part for part in (recipe.name, told) if part)})"
            found.append(model_named(model.name, below | model.options, rest.get("label", label)))
    return found


def _models(entry: Any) -> list[StudyModel]:
    """Return the models of one entry: a name, or a grid of kind × qubits × heads × layers × options."""
    if isinstance(entry, str):
        return [model_named(entry, {}, None)]
    said = values.mapping(entry, "an entry of models", KEYS)
    several, label = _axes(values.options(said.get("options"), "a model's options")), said.get("label")
    layers = [values.whole(n, "layers", least=1) for n in values.several(said.get("layers", 1), "layers")]
    if ("name" in said) == ("kind" in said):
        raise ConfigError(f"An entry of models has either a name or a kind, got {entry!r}.")
    if "layers" in said and any("n_layers" in options for options in several):
        raise ConfigError(f"An entry of models has either layers or the option n_layers, got {entry!r}.")
    if "name" in said:
        if {"qubits", "heads"} & said.keys():
            raise ConfigError(f"The name {said['name']!r} says its qubits and heads; leave them out, or use kind.")
        names = [values.line(name, "name") for name in values.several(said["name"], "name", most=MOST_MODELS)]
    else:
        kinds = [values.line(kind, "kind") for kind in values.several(said["kind"], "kind")]
        for kind in kinds:
            if kind.removesuffix(MATCHED) not in KINDS:
                raise ConfigError(f"There is no kind '{kind}'.{nearest(kind, KINDS)} Known: {', '.join(KINDS)}.")
        heads = [values.whole(n, "heads", least=1) for n in values.several(said.get("heads", 2), "heads")]
        qubits = [values.whole(n, "qubits", least=1) for n in values.several(said.get("qubits", 4), "qubits")]
        values.check_number(len(kinds) * len(heads) * len(qubits) * len(layers), "models", MOST_MODELS)
        names = [
            f"{kind.removesuffix(MATCHED)}_{q}q{h}h{MATCHED * kind.endswith(MATCHED)}"
            for h, q, kind in product(heads, qubits, kinds)
        ]
    grid = [(name, n) for n in layers for name in names if n == layers[0] or _takes_layers(name)]
    number = len(grid) * len(several)
    values.check_number(number, "models", MOST_MODELS)
    if label is not None and number > 1:
        raise ConfigError(f"The label {label!r} would be that of {number} models; give each an entry of its own.")
    deep = {name for name in names if _takes_layers(name)}
    return [
        model_named(name, options | {"n_layers": n} if n > 1 and name in deep else options, label)
        for options in several
        for name, n in grid
    ]


def _axes(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return options in which every list has become one of its values, in all combinations; null leaves one out."""
    listed = {key for key, value in options.items() if isinstance(value, list) and key not in IMPORT_KEYS}
    axes = [values.several(value, key) if key in listed else [value] for key, value in options.items()]
    values.check_number(prod(map(len, axes)), "models", MOST_MODELS)
    found = [dict(zip(options, chosen, strict=True)) for chosen in product(*axes)]
    return [{key: value for key, value in one.items() if value is not None or key not in listed} for one in found]


def baselines_of(models: Sequence[StudyModel]) -> list[StudyModel]:
    """Return the plain baselines that a study is given besides its own models, without those that it has.

    The convolutional network has the parameter count of the first QViT, if there is one.
    """
    first = next((model for model in models if model.kind == "qvit"), None)
    plain = [model_named(name, {}, None) for name in BASELINES]
    if first is None:
        plain.append(model_named(DSCONV, {}, None))
    else:
        plain.append(model_named(f"{DSCONV}_{first.qubits}q{first.heads}h{MATCHED}", first.options, None))
    labels = {model.label for model in models}
    return [model for model in plain if model.label not in labels]


def _takes_layers(name: str) -> bool:
    found = parse_name(name)
    if found is None or found.kind not in KINDS:
        return False
    # A matched model has the parameter count of a QViT, which depends on layers.
    return found.matched or "n_layers" in PROJECTIONS[KINDS[found.kind]].__dataclass_fields__


def model_named(name: str, options: dict[str, Any], label: Any) -> StudyModel:
    """Return the model of a name and options; its label is `label`, or made from name and options if that is None."""
    found = parse_name(name)
    label = told(name, options) if label is None else label
    if found is None:
        return StudyModel(values.line(label, "label"), name, name, options=options)
    layers = values.whole(options.get("n_layers", 1), "n_layers", least=1) if _takes_layers(name) else None
    kind = found.kind + MATCHED * found.matched
    return StudyModel(values.line(label, "label"), name, kind, found.qubits, found.heads, layers, options=options)


def told(name: str, options: dict[str, Any]) -> str:
    """Return the default label of a model: its name, and its options in brackets."""
    parts = [f"{value} layers" if key == "n_layers" else f"{key}={value}" for key, value in options.items()]
    return f"{name} ({', '.join(parts)})" if parts else name
