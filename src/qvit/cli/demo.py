"""`qvit demo`: train and compare a quantum vision transformer and its classical twin in one command."""

from pathlib import Path
from typing import Annotated

import typer

from qvit.cli.console import epoch_progress, print_table, say
from qvit.cli.data import Root
from qvit.cli.options import GroupBy, Label, Size
from qvit.data.registry import name_of

MODELS = ("qvit_4q2h", "vit_4q2h")
SAME = ("dataset", "seed", "best epoch")  # columns that are equal for both, or say little


def demo(
    dataset: Annotated[str, typer.Argument(help="A dataset's name or path; phantom needs no download.")] = "phantom",
    epochs: Annotated[int, typer.Option(help="Number of epochs; the default of `qvit train` is 100.")] = 20,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; runs of an earlier demo in it are replaced.", show_default="runs/demo-DATASET"),
    ] = None,
    root: Root = None,
    size: Size = None,
    label: Label = None,
    group_by: GroupBy = None,
) -> None:
    """Train qvit_4q2h and its dense twin vit_4q2h on a dataset, print a table and draw a picture."""
    from qvit.report.compare import COLUMNS, caption, cells, read_rows
    from qvit.report.pictures import draw_comparison
    from qvit.training.options import resolve
    from qvit.training.run import train_run

    given = {"size": size, "label": label, "group_by": group_by}
    own = {key: value for key, value in given.items() if value is not None}
    folder = out or Path("runs") / f"demo-{name_of(dataset)}"
    runs = []
    for model in MODELS:
        config = resolve({"dataset": dataset, "model": model, "seed": seed, "epochs": epochs} | own)
        with epoch_progress(model, config.train.epochs) as on_epoch:
            runs.append(train_run(config, folder / model, root=root, overwrite=True, on_epoch=on_epoch))
    rows = read_rows(runs)
    picture = folder / "demo.png"
    draw_comparison(runs, rows, picture, root=root)
    synthetic = " (synthetic images)" if dataset == "phantom" else ""
    shown = [place for place, column in enumerate(COLUMNS) if column not in SAME]
    print_table(
        f"{dataset}{synthetic}: a QViT and its classical twin",
        [COLUMNS[place] for place in shown],
        [[cells(row)[place] for place in shown] for row in rows],
        caption=f"{caption(rows)} One seed: no claim that either is better.",
    )
    say(f"Picture: {picture}\nRuns:    {', '.join(str(run.folder) for run in runs)}")
