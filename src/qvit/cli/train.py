"""`qvit train`: one model on one dataset, into a run folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qvit.cli.console import epoch_progress, heavy_imports, print_json, print_table, say
from qvit.cli.data import Root


def train(
    dataset: Annotated[
        str | None,
        typer.Argument(help="A dataset's name (see `qvit data list`), or the path of an .npz file."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model's name, see `qvit models`.", show_default="qvit_4q2h")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything random.", show_default="0")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.", show_default="100")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/DATASET-MODEL-sSEED")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of `key: value` options.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any option; may be repeated.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Your own .npz file in MedMNIST's layout.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of your own file, where labels do not show it.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="28")] = None,
    root: Root = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not download a missing file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, no progress.")] = False,
) -> None:
    """Train a model on a dataset, evaluate it once on the test images, and keep everything in a run folder.

    Options come from --config, then --set, then the named ones; a later one wins.

    --set takes options of training (lr, batch_size, augment, tta, …)

    and of the model (depth, patch_size, pool, mlp_dim, n_layers, …).
    """
    from qvit.errors import ConfigError

    with heavy_imports():
        from qvit.study.compare import COLUMNS, cells, read_row
        from qvit.training.options import parse_assignment, read_options, resolve
        from qvit.training.run import train_run

    if data is not None and dataset is not None:
        raise ConfigError(f"Both a dataset ('{dataset}') and --data ({data}) were given; use one of them.")
    path = (
        None if data is None else str(data) if data.suffix == ".npz" else str(data.expanduser().absolute())
    )  # never a name
    named = {"dataset": path or dataset, "model": model, "seed": seed, "epochs": epochs}
    named |= {"task": task, "size": size}
    options: dict[str, Any] = read_options(config) if config else {}
    options |= dict(parse_assignment(text) for text in assign or ())
    options |= {key: value for key, value in named.items() if value is not None}
    resolved = resolve(options)

    name = f"{Path(resolved.dataset).stem}-{resolved.model}-s{resolved.seed}"
    folder = out or Path("runs") / name
    with epoch_progress(name, resolved.train.epochs, quiet=json) as on_epoch:
        run = train_run(resolved, folder, root=root, download=not offline, resume=resume, on_epoch=on_epoch)
    if json:
        print_json({"folder": str(run.folder), **run.result, "seconds": round(run.seconds, 2)})
        return
    print_table("Result", COLUMNS, [cells(read_row(run))])
    say(f"Everything is in {run.folder}")
