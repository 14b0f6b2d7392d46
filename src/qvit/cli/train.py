"""`qvit train` and `qvit teacher`: train one model on one dataset into a run folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from qvit.cli.console import epoch_progress, heavy_imports, print_json, print_table, say, speaks
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

Out = Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/DATASET-MODEL-sSEED")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]


def train(
    dataset: Dataset = None,
    model: Annotated[
        str | None, typer.Option(help="A model's name, see `qvit models`.", show_default="qvit_4q2h")
    ] = None,
    seed: Seed = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Train with so many seeds, from --seed on, all at once.", show_default="1"),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Divide training and validation images, and hold out each part once.", show_default="none"),
    ] = None,
    memory: Memory = 1.0,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.", show_default="100")] = None,
    out: Out = None,
    config: Config = None,
    assign: Assign = None,
    data: Data = None,
    task: Task = None,
    size: Size = None,
    label: Label = None,
    group_by: GroupBy = None,
    root: Root = None,
    resume: Resume = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Train a model on a dataset, evaluate it once on the test images, and keep everything in a run folder.

    Options come from --config, then --set, then the options below; a later one wins.

    With --seeds there is a run folder for each seed, in the folder of --out or in runs. The models are trained
    together, as a stack, which takes a fraction of the time; each is the one that it would be in any other stack.

    With --folds 5, training and validation images are divided into five parts, anew for each seed. Each part is held
    out once, and measured after the last epoch of a run on the others (keep=last, tta=always). Groups such as patients
    are not divided. Test images are not looked at.

    --set takes options of training (lr, batch_size, augment, distort, mixup, tta, average, …), of the model (depth,

    patch_size, pool, mlp_dim, n_layers, …), and of pictures (fit, channels, shares, split_seed, frames, bits, max_bad).
    """
    named = {"dataset": dataset_option(dataset, data), "model": model, "seed": seed, "epochs": epochs}
    named |= {"task": task, "size": size, "label": label, "group_by": group_by}
    options = gather(config, assign, named)
    if seeds is not None or folds is not None:
        from qvit.cli.seeds import train_several

        common: dict[str, Any] = {"root": root, "resume": resume, "offline": offline, "json": json}
        train_several(options, 1 if seeds is None else seeds, folds, out, memory=memory, **common)
    else:
        _run(options, out, root=root, resume=resume, offline=offline, json=json)


def teacher(
    dataset: Dataset = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="resnet18, resnet50, densenet121, efficientnet_b0, monai_vit, vit, timm/NAME, or one of our models.",
            show_default="resnet18",
        ),
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from ImageNet's weights.")] = False,
    seed: Seed = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.", show_default="40")] = None,
    out: Out = None,
    config: Config = None,
    assign: Assign = None,
    data: Data = None,
    task: Task = None,
    size: Size = None,
    label: Label = None,
    group_by: GroupBy = None,
    root: Root = None,
    resume: Resume = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Train a strong classical network for others to learn from: `qvit train` with a teacher's defaults.

    The training loop and the run folder are the same; give the folder to `qvit distill --teacher`.

    --set takes options of training, and of the network (width, stem, resize, dropout, precision, …).
    """
    from qvit.distill.options import teacher_options

    defaults = teacher_options(arch or "resnet18")
    named = {"dataset": dataset_option(dataset, data), "seed": seed, "epochs": epochs, "task": task, "size": size}
    named |= {"label": label, "group_by": group_by}
    named |= {"pretrained": "imagenet" if pretrained else None, "model": defaults["model"] if arch else None}
    _run(defaults | gather(config, assign, named), out, root=root, resume=resume, offline=offline, json=json)


def _run(
    options: dict[str, Any], out: Path | None, *, root: Path | None, resume: bool, offline: bool, json: bool
) -> None:
    with heavy_imports():
        from qvit.report.compare import read_row, tables
        from qvit.training.folder import short_name
        from qvit.training.options import resolve
        from qvit.training.run import train_run

    resolved = resolve(options)
    name = f"{name_of(resolved.dataset)}-{short_name(resolved.model)}-{resolved.called}"
    folder = out or Path("runs") / name
    with epoch_progress(name, resolved.epochs, quiet=json) as on_epoch:
        run = train_run(resolved, folder, root=root, download=not offline, resume=resume, on_epoch=on_epoch)
    if not speaks():  # another process, which may not have the folder on its machine
        return
    if json:
        fold = {} if run.fold is None else {"held_out": str(run.fold)}
        print_json({"folder": str(run.folder)} | fold | asdict(run.result) | {"seconds": round(run.seconds, 2)})
        return
    (table,) = tables([read_row(run)])
    print_table("Result", table.columns, table.rows, caption=table.caption)
    say(f"Everything is in {run.folder}")
