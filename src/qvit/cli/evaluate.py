"""`qvit evaluate`: evaluate a trained run on a split of its data."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qvit.cli.console import print_json, print_table
from qvit.cli.data import Moved, Root

if TYPE_CHECKING:
    from qvit.training.records import Figures
    from qvit.training.run import Apart


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    root: Root = None,
    data: Moved = None,
    copies: Annotated[
        bool, typer.Option(help="Measure again without images that have a near-duplicate in another split.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load a run's weights, predict a split again, and print all measures with intervals.

    All are given again without the images that have a near-duplicate among those trained on or chosen by.
    """
    from qvit.training.folder import Run
    from qvit.training.run import evaluate_apart, evaluate_run

    apart = evaluate_apart(Run(run), split, root=root, file=data) if copies else None
    figures = evaluate_run(Run(run), split, root=root, file=data) if apart is None else apart.figures
    if json:
        print_json(asdict(figures) | ({} if apart is None else _told(apart)))
        return
    _print(f"{run} on {split}", figures)
    if apart is not None:
        _print_apart(apart, split)


def _told(apart: "Apart") -> dict[str, object]:
    without = None if apart.without is None else asdict(apart.without)
    return {"near_duplicates": apart.copies, "exact_only": apart.exact_only, "without": without}


def _print_apart(apart: "Apart", split: str) -> None:
    from qvit.data.chance import FEWEST

    what = "an exact copy" if apart.exact_only else "a near-duplicate"
    if apart.without is not None:
        _print(f"without the {apart.copies} that have {what} in another split", apart.without)
    elif apart.copies:
        typer.echo(f"{apart.copies} have {what} in another split; too few others are left to be measured.")
    else:
        typer.echo(f"0 images of {split} have {what} in another split.")
    if apart.exact_only:
        typer.echo(f"Near-duplicates were not looked for: that takes {FEWEST} training images that differ.")


def _print(title: str, figures: "Figures") -> None:
    rows, told = [], True
    for name, value in asdict(figures).items():
        if not name.endswith("_interval"):
            ends = getattr(figures, f"{name}_interval", None)
            told = told and (ends is None or None not in ends)
            shown = "" if ends is None else "–" if None in ends else f"{ends[0]:.4f} – {ends[1]:.4f}"
            rows.append([name, f"{value:.4f}", shown])
    few = "No interval (–): too few images of a class, or in all, to tell how much chance is in them."
    print_table(title, ["measure", "value", "95 % interval"], rows, caption=None if told else few)
