"""`qvit recipes`: the recipes that come with qvit, what they are for, and where they came from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qvit.cli.console import heavy_imports, print_json, print_table
from qvit.cli.data import Root
from qvit.cli.options import Data, GroupBy, Json, Label, Size, Task, dataset_option

Of = Annotated[str | None, typer.Argument(help="Count parameters on this dataset.", show_default="counts none")]


def recipes(
    dataset: Of = None,
    data: Data = None,
    task: Task = None,
    size: Size = None,
    label: Label = None,
    group_by: GroupBy = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """List the recipes that come with qvit: what for, with how many parameters, and where they came from.

    `qvit train --config NAME` trains by one; `qvit tune DATASET` finds one and writes it down.
    """
    from qvit.training.recipes import read_recipe, shipped_recipes

    found = [read_recipe(name) for name in shipped_recipes()]
    own = {"dataset": dataset_option(dataset, data), "task": task, "size": size, "label": label, "group_by": group_by}
    given = {key: value for key, value in own.items() if value is not None}
    counts = _counts([one.options for one in found], given, root) if "dataset" in given else None
    rows: list[dict[str, Any]] = [
        {"recipe": one.name, "about": one.about, "source": one.source, "options": one.options} for one in found
    ]
    for place, count in enumerate(counts or ()):
        rows[place]["parameters"] = count
    if json:
        print_json(rows)
        return
    keys = ["recipe", *(["parameters"] if counts else []), "about", "source"]
    heads = {"about": "what for", "source": "where from"}
    lines = [[f"{row[key]:,}" if key == "parameters" else row[key] for key in keys] for row in rows]
    print_table("Recipes", [heads.get(key, key) for key in keys], lines, caption="qvit train … --config NAME")


def _counts(recipes: list[dict[str, Any]], given: dict[str, Any], root: Path | None) -> list[int]:
    """Return the parameters of each recipe's model on a dataset; of an official one no file is needed."""
    with heavy_imports():
        from qvit.data.registry import get_info, is_path
        from qvit.models.zoo import count_parameters
        from qvit.training.options import resolve

    first = resolve(given)
    if is_path(first.dataset):
        loaded = first.load_whole(root, download=False)
        info, side = loaded.info, loaded.size
    else:
        info, side = get_info(first.dataset), first.size
    return [count_parameters(resolve(given | options).architecture(info, side)) for options in recipes]
