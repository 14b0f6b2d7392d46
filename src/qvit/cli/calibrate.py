"""`qvit calibrate`: how sure a model's answers are, and by which threshold they are given."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qvit.cli.console import heavy_imports, print_json, print_table, say
from qvit.cli.data import Moved, Root
from qvit.cli.options import Json
from qvit.errors import ConfigError


def calibrate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    sensitivity: Annotated[
        float | None, typer.Option(help="Answer yes such that this share of positives is found on validation.")
    ] = None,
    specificity: Annotated[
        float | None, typer.Option(help="Answer yes such that this share of negatives is spared on validation.")
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Forget the sensitivity or specificity chosen before.")
    ] = False,
    root: Root = None,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Learn from the validation images how sure a run's answers are, and choose an operating point for yes and no."""
    if clear and (sensitivity is not None or specificity is not None):
        raise ConfigError("Both --clear and a value were given; use one of them.")
    with heavy_imports():
        from qvit.answers.choosing import calibrated
    told = calibrated(run, sensitivity=sensitivity, specificity=specificity, clear=clear, root=root, data=data)
    if json:
        print_json(told)
        return
    rows = [[name.replace("_", " "), _shown_value(value)] for name, value in told.items() if name != "notes"]
    print_table(f"{run}, on validation images", ["measure", "value"], rows)
    for note in told["notes"]:
        say(f"Note: {note}")


def _shown_value(value: Any) -> str:
    return "none" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
