"""`qvit evaluate`: evaluate a trained run on a split of its data."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qvit.cli.console import print_json, print_table
from qvit.cli.data import Root
from qvit.cli.options import GroupBy, Label
from qvit.data.registry import DATASETS
from qvit.errors import ConfigError

if TYPE_CHECKING:
    from qvit.training.records import Figures
    from qvit.training.run import Apart


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[str | None, typer.Option(help="train, val or test.", show_default="test")] = None,
    root: Root = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Where your own data lie now; or other data to test on: a folder, a table, an .npz file."),
    ] = None,
    label: Label = None,
    group_by: GroupBy = None,
    copies: Annotated[
        bool, typer.Option(help="Measure again without images that have a near-duplicate in another split.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load a run's weights, predict a split again, and print all measures with intervals.

    All are given again without the images that have a near-duplicate among those trained on or chosen by.

    Of other data (--data), classes are matched by name, all pictures of a folder or table without splits are taken,

    and with --group-by all measures are given over patients, too.
    """
    from qvit.training.folder import Run, named_classes
    from qvit.training.run import evaluate_apart, evaluate_run

    if data is not None and not Run(run).is_of(data, root):
        _external(run, data, split, label, group_by, root, json=json)
        return
    if label is not None or group_by is not None:
        raise ConfigError("--label and --group-by are for other data than the run was trained on, given with --data.")
    split = split or "test"
    apart = evaluate_apart(Run(run), split, root=root, file=data) if copies else None
    figures = evaluate_run(Run(run), split, root=root, file=data) if apart is None else apart.figures
    if json:
        print_json(asdict(figures) | ({} if apart is None else _told(apart)))
        return
    _print(f"{run} on {split}", figures)
    _print_by_class(figures, named_classes(Run(run)))
    if apart is not None:
        _print_apart(apart, split)


def _external(
    run: Path,
    data: Path,
    split: str | None,
    label: str | None,
    group_by: str | None,
    root: Path | None,
    *,
    json: bool,
) -> None:
    from qvit.answers.external import SHOWN, evaluate_external
    from qvit.training.folder import Run

    other: str | Path = str(data) if str(data) in DATASETS else data
    found = evaluate_external(Run(run), other, split=split, label=label, group_by=group_by, root=root)
    if json:
        print_json(asdict(found))
        return
    _print(f"{run} on other data, {found.images:,} images of {data}", found.figures)
    _print_by_class(found.figures, found.classes)
    if found.by_group is not None:
        _print(f"over {found.groups:,} groups, whose probabilities are averaged", found.by_group)
        _print_by_class(found.by_group, found.classes)
    if found.mixed:
        typer.echo(
            f"Left out of {found.mixed + (found.groups or 0):,} groups, as their labels differ: {found.mixed:,}."
        )
    if found.absent:
        typer.echo(f"Not in these data: {', '.join(found.absent)}.")
    for name, count in found.unknown.items():
        typer.echo(f"Left out, as the run does not know it: {name} ({count:,} images have it).")
    if found.broken:
        files = "1 file" if len(found.broken) == 1 else f"{len(found.broken):,} files"
        typer.echo(f"{files} could not be read: {'; '.join(found.broken[:SHOWN])}")


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


def _print_by_class(figures: "Figures", names: Sequence[str]) -> None:
    found, recognised = figures.sensitivity_by_class, figures.specificity_by_class
    if found is None or recognised is None:
        return
    rates = zip(names[-len(found) :], found, recognised, strict=True)
    rows = [[name, *("–" if rate is None else f"{rate:.4f}" for rate in pair)] for name, *pair in rates]
    print_table("by class", ["class", "sensitivity", "specificity"], rows)


def _print(title: str, figures: "Figures") -> None:
    rows, told = [], True
    for name, value in asdict(figures).items():
        if not name.endswith(("_interval", "_by_class")):
            ends = getattr(figures, f"{name}_interval", None)
            told = told and (ends is None or None not in ends)
            shown = "" if ends is None else "–" if None in ends else f"{ends[0]:.4f} – {ends[1]:.4f}"
            rows.append([name, f"{value:.4f}", shown])
    few = "No interval (–): too few images of a class, or in all, to tell how much chance is in them."
    print_table(title, ["measure", "value", "95 % interval"], rows, caption=None if told else few)
