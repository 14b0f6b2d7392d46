"""`qvit evaluate`: evaluate a trained run on a split of its data."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qvit.cli.console import print_json, print_table
from qvit.cli.data import Moved, Root


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    root: Root = None,
    data: Moved = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load a run's weights, predict a split again, and print all measures with intervals."""
    from qvit.training.folder import Run
    from qvit.training.run import evaluate_run

    figures = asdict(evaluate_run(Run(run), split, root=root, file=data))
    if json:
        print_json(figures)
        return
    rows, told = [], True
    for name, value in figures.items():
        if not name.endswith("_interval"):
            ends = figures.get(f"{name}_interval")
            told = told and (ends is None or None not in ends)
            shown = "" if ends is None else "–" if None in ends else f"{ends[0]:.4f} – {ends[1]:.4f}"
            rows.append([name, f"{value:.4f}", shown])
    few = "No interval (–): too few images of a class, or in all, to tell how much chance is in them."
    print_table(f"{run} on {split}", ["measure", "value", "95 % interval"], rows, caption=None if told else few)
