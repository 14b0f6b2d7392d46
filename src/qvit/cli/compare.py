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
    """Print a table of finished runs, and one of means if there are several seeds, or both as JSON; return the rows."""
    from qvit.report.compare import COLUMNS, GROUP_COLUMNS, as_json, caption, cells, group_cells, group_rows, read_rows

    rows = read_rows(runs)
    groups = group_rows(rows)
    if json:
        print_json(as_json(rows, groups))
    else:
        print_table("Runs", COLUMNS, [cells(row) for row in rows], caption=caption(rows))
    if not json and any(len(group.seeds) > 1 for group in groups):
        print_table(
            "Means over seeds",
            GROUP_COLUMNS,
            [group_cells(group) for group in groups],
            caption="Intervals: 95 %, Student's t over seeds, the same test images for all.",
        )
    return rows
