"""`qvit tune`: find the best recipe for a dataset, train it once, and read the test images once."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import heavy_imports, print_json, print_table, say
from qvit.cli.data import Root
from qvit.cli.options import (
    Assign,
    Config,
    Data,
    Dataset,
    GroupBy,
    Json,
    Label,
    Memory,
    Offline,
    Seed,
    Size,
    Task,
    dataset_option,
    gather,
)
from qvit.data.registry import name_of
from qvit.errors import ConfigError

if TYPE_CHECKING:
    from qvit.tune.race import TuneProgress
    from qvit.tune.tuned import Tuned
    from qvit.tune.tuner import Asked

SAID_BEFORE = ("model", "parameters", "minutes", "trials", "seed", "folds", "seeds", "menu", "config", "set")


def tune(
    dataset: Dataset = None,
    model: Annotated[
        str | None,
        typer.Option(help="Only this kind of model, such as cosine_4q2h.", show_default="all of the menu"),
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option(help="The most that a recipe may have.", show_default="1100, or as many as the defaults"),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="What may be used, about.", show_default="30")] = None,
    trials: Annotated[
        int | None, typer.Option(help="Try so many recipes, however long it takes.", show_default="what minutes allow")
    ] = None,
    seed: Seed = None,
    folds: Annotated[int | None, typer.Option(help="Parts, each of which is held out once.", show_default="5")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Train the chosen recipe with so many seeds in the end.", show_default="1")
    ] = None,
    menu: Annotated[
        Path | None, typer.Option(help="YAML file of what to try: see docs/tune.md.", show_default="qvit's own")
    ] = None,
    repeat: Annotated[
        Path | None, typer.Option(help="Do again what the tune.json of an earlier tuning says, to the same bits.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train.", show_default="as many as there are cores")
    ] = None,
    memory: Memory = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the tuning.", show_default="runs/tune-DATASET-sSEED")
    ] = None,
    config: Config = None,
    assign: Assign = None,
    data: Data = None,
    task: Task = None,
    size: Size = None,
    label: Label = None,
    group_by: GroupBy = None,
    root: Root = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted tuning.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Find the best recipe for a dataset: try many on folds of its training and validation images, then train one.

    All recipes of a menu are judged on a few folds, the better half of them on more, and so on. The test images are
    read once, by the recipe that was chosen. How sure the choice is, is said; the defaults stay where nothing is
    ahead of them by more than the noise.

    The folder of --out holds recipe.yaml, which `qvit train --config` takes, a picture of parameters against AUC, and
    all that was tried. How many recipes minutes allow depends on the machine: --trials gives the same result on
    others, and --repeat does again what was tried.

    --set and --config give options that all recipes have.
    """
    named = {"dataset": dataset_option(dataset, data), "seed": seed, "task": task, "size": size}
    named |= {"label": label, "group_by": group_by}
    limits = {"parameters": parameters, "minutes": minutes, "trials": trials, "folds": folds, "seeds": seeds}
    with heavy_imports():
        from qvit.report.front import draw_front
        from qvit.tune.tuner import repeated
        from qvit.tune.tuner import tune as find

    if repeat is None:
        asked = _asked(gather(config, assign, named), model, menu, limits)
    else:
        given = limits | {"model": model, "seed": seed, "menu": menu, "config": config, "set": assign or None}
        _refuse(given)
        asked = repeated(repeat, {key: value for key, value in named.items() if value is not None})
    folder = out or Path("runs") / f"tune-{name_of(str(asked.options.get('dataset')))}-s{asked.seed}"
    common: dict[str, Any] = {"workers": workers, "root": root, "download": not offline, "memory": memory}
    with tuning_progress(quiet=json) as on_news:
        tuned = find(asked, folder, **common, resume=resume, on_news=on_news)
    draw_front(tuned.verdict, f"{name_of(tuned.dataset)}: recipes that were tuned", folder, tuned.test)
    _print(tuned, json=json)


def _asked(options: dict[str, Any], model: str | None, menu: Path | None, limits: dict[str, Any]) -> "Asked":
    from qvit.training.options import resolve
    from qvit.tune.menu import read_menu
    from qvit.tune.tuner import Asked

    given = {key: value for key, value in limits.items() if value is not None}
    if "minutes" in given and "trials" in given:
        raise ConfigError("--minutes and --trials both say how many recipes to try; use one of them.")
    wanted = model or options.pop("model", None)
    seed = resolve({key: options[key] for key in ("dataset", "seed") if key in options}).seed
    return Asked(options, model=wanted, seed=seed, menu=read_menu(menu), **given)


def _refuse(given: dict[str, Any]) -> None:
    """Raise `ConfigError` for options that the file of an earlier tuning has said."""
    for name in SAID_BEFORE:
        if given.get(name) is not None:
            raise ConfigError(f"--repeat does what was done before, so it takes no --{name}; leave it out.")


def _print(tuned: "Tuned", *, json: bool) -> None:
    from qvit.report.tuned import sentences, table_of

    if json:
        print_json(tuned.as_json())
        return
    table = table_of(tuned.verdict)
    print_table(table.title, table.columns, table.rows, caption=table.caption)
    for line in sentences(tuned):
        typer.echo(line)
    say(
        f"{tuned.trainings:,} trainings in {tuned.seconds / 60:.1f} minutes, {tuned.share:.0%} of it in training. "
        f"Recipe: {tuned.folder / 'recipe.yaml'}"
    )


@contextmanager
def tuning_progress(*, quiet: bool) -> Iterator[Callable[["TuneProgress"], None] | None]:
    """Yield a callback that shows a tuning's progress on stderr; None if `quiet`."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _live() as callback:
            yield callback
    else:
        yield _plain


def _plain(progress: "TuneProgress") -> None:
    if progress.news:
        say(f"[{progress.done}/{progress.total}] {progress.news}")


@contextmanager
def _live() -> Iterator[Callable[["TuneProgress"], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    text = TextColumn("{task.description}", markup=False)
    with Progress(text, BarColumn(), MofNCompleteColumn(), console=Console(stderr=True)) as bars:
        whole = bars.add_task("tune", total=None)
        tasks: dict[str, Any] = {}

        def callback(progress: "TuneProgress") -> None:
            if progress.news:
                bars.console.print(progress.news, highlight=False, markup=False)
            bars.update(whole, description=progress.what, total=progress.total, completed=progress.done)
            for name in [name for name in tasks if name not in progress.doing]:
                bars.remove_task(tasks.pop(name))
            for name, (epoch, epochs) in progress.doing.items():
                if name not in tasks:
                    tasks[name] = bars.add_task(f"  {name}", total=epochs)
                bars.update(tasks[name], completed=epoch, total=epochs)

        yield callback
