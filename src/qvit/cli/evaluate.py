"""`qvit evaluate`: evaluate a trained run on a split of its data."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import print_json, print_table, say
from qvit.cli.data import Root
from qvit.cli.options import RUN, GroupBy, Label, check_picture
from qvit.data.registry import DATASETS
from qvit.errors import ConfigError

if TYPE_CHECKING:
    from qvit.answers.external import External
    from qvit.training.evaluated import Apart
    from qvit.training.folder import Run
    from qvit.training.measured import Measured
    from qvit.training.records import Figures


def evaluate(
    run: Annotated[str, typer.Argument(help=RUN)],
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
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw the confusion matrix, ROC, precision–recall and reliability: .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load a run's weights, predict a split again, and print all measures with intervals.

    If groups such as patients are known, all are given over these, too, whose images' probabilities are averaged.

    All are given again without the images that have a near-duplicate among those trained on or chosen by.

    Of other data (--data), classes are matched by name, all pictures of a folder or table without splits are taken, and
    --group-by says what the groups are.
    """
    from qvit.answers.hub import folder_of
    from qvit.training.evaluated import evaluate_split
    from qvit.training.folder import Run

    check_picture(picture)
    if picture is not None and not picture.parent.is_dir():
        raise ConfigError(f"--picture needs a folder that is there, and {picture.parent} is none.")
    opened = Run(folder_of(run))
    if data is not None and not opened.is_of(data, root):
        if not copies:
            raise ConfigError(f"--no-copies is for the data that the run was trained on, and {data} holds others.")
        _external(opened, run, data, split, label, group_by, root, picture, json=json)
        return
    if label is not None or group_by is not None:
        raise ConfigError("--label and --group-by are for other data than the run was trained on, given with --data.")
    split = split or "test"
    found = evaluate_split(opened, split, root=root, file=data, copies=copies)
    if opened.fold is not None and split != "train":
        split = f"{opened.fold}, which it held out"
    title = f"{run} on {split}"
    if json:
        print_json(_told(found.measured) | _told_apart(found.apart))
    else:
        _print_measured(title, found.measured)
        if found.apart is not None:
            _print_apart(found.apart, split)
    _draw(picture, opened, found.measured, f"{title}, {len(found.measured.predicted.labels):,} images")


def _external(
    opened: "Run",
    run: str,
    data: Path,
    split: str | None,
    label: str | None,
    group_by: str | None,
    root: Path | None,
    picture: Path | None,
    *,
    json: bool,
) -> None:
    from qvit.answers.external import evaluate_external

    other: str | Path = str(data) if str(data) in DATASETS else data
    found = evaluate_external(opened, other, split=split, label=label, group_by=group_by, root=root)
    title = f"{run} on other data, {len(found.measured.predicted.labels):,} images of {data}"
    if json:
        more = {"absent": found.absent, "unknown": found.unknown, "broken": found.broken}
        print_json(_told(found.measured) | more)
    else:
        _print_measured(title, found.measured)
        _print_left_out(found)
    _draw(picture, opened, found.measured, title)


def _draw(picture: Path | None, run: "Run", measured: "Measured", title: str) -> None:
    if picture is None:
        return
    from qvit.report.curves import decide_as, draw_decisions
    from qvit.report.drawing import write_picture

    write_picture(draw_decisions(decide_as(run, measured.predicted), title), picture)
    say(f"Picture: {picture}")


def _told(measured: "Measured") -> dict[str, Any]:
    return {
        "images": len(measured.predicted.labels),
        "classes": measured.predicted.classes,
        "figures": asdict(measured.figures),
        "groups": measured.groups,
        "mixed": measured.mixed,
        "by_group": None if measured.by_group is None else asdict(measured.by_group),
    }


def _told_apart(apart: "Apart | None") -> dict[str, Any]:
    if apart is None:
        return {}
    without = None if apart.without is None else asdict(apart.without)
    return {"near_duplicates": apart.copies, "exact_only": apart.exact_only, "without": without}


def _print_measured(title: str, measured: "Measured") -> None:
    classes = measured.predicted.classes
    _print(title, measured.figures)
    _print_by_class(measured.figures, classes)
    if measured.by_group is not None:
        _print(f"over {measured.groups:,} groups, whose probabilities are averaged", measured.by_group)
        _print_by_class(measured.by_group, classes)
    elif measured.groups is not None:
        typer.echo(f"Groups whose images have equal labels: {measured.groups:,}, too few or too alike to be measured.")
    if measured.mixed:
        count = measured.mixed + (measured.groups or 0)
        typer.echo(f"Left out of {count:,} groups, as their labels differ: {measured.mixed:,}.")


def _print_left_out(found: "External") -> None:
    from qvit.answers.external import SHOWN

    if found.absent:
        typer.echo(f"Not in these data: {', '.join(found.absent)}.")
    for name, count in found.unknown.items():
        typer.echo(f"Left out, as the run does not know it: {name} ({count:,} images have it).")
    if found.broken:
        files = "1 file" if len(found.broken) == 1 else f"{len(found.broken):,} files"
        typer.echo(f"{files} could not be read: {'; '.join(found.broken[:SHOWN])}")


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
