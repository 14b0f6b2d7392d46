"""`qvit compare`: compare finished runs in one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qvit.cli.console import print_json, print_table, say
from qvit.cli.data import Moved, Root

if TYPE_CHECKING:
    from qvit.report.compare import Row
    from qvit.training.folder import Run


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    picture: Annotated[
        Path | None, typer.Option(help="Write learning curves and predicted test images to this PNG file.")
    ] = None,
    root: Root = None,
    data: Moved = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare runs: parameters, test AUC and accuracy with intervals; runs that differ only in seed are averaged."""
    from qvit.training.folder import Run

    opened = [Run(folder) for folder in runs]
    rows = print_runs(opened, json=json)
    if picture is not None:
        from qvit.report.pictures import draw_comparison

        draw_comparison(opened, rows, picture, root=root, file=data)
        say(f"Picture: {picture}")


def print_runs(runs: Sequence["Run"], *, json: bool) -> list["Row"]:
    """Print tables of finished runs, and of means over seeds and folds, or all as JSON; return the rows."""
    from qvit.report.compare import as_json, group_rows, read_rows, tables

    rows = read_rows(runs)
    groups = group_rows(rows)
    if json:
        print_json(as_json(rows, groups))
    else:
        for table in tables(rows, groups):
            print_table(table.title, table.columns, table.rows, caption=table.caption)
    return rows
