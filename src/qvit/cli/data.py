"""`qvit data`: list, describe, download and check datasets."""

from pathlib import Path
from typing import Annotated

import typer

from qvit.cli.console import Group, print_json, print_table
from qvit.data.registry import DATASETS, get_info, is_path

app = typer.Typer(cls=Group, help="List, describe, download and check datasets.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A dataset's name, or the path of your own .npz file.")]
Size = Annotated[int, typer.Option(help="Side of the images in pixels: 28, 64, 128 or 224.")]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the official files.", show_default="$QVIT_DATA, else your cache folder")
]
Moved = Annotated[
    Path | None, typer.Option("--data", help="Your own .npz file, if it is not where it was when the run was trained.")
]


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """List, describe, download and check datasets."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_(json: Json = False) -> None:
    """List the datasets by name."""
    if json:
        print_json([_described(name) for name in DATASETS])
        return
    rows = [
        [
            info.name,
            info.task,
            str(info.num_classes),
            "RGB" if info.channels == 3 else "grey",
            " / ".join(f"{count:,}" for count in info.splits.values()),
            info.licence,
        ]
        for info in DATASETS.values()
    ]
    print_table("Datasets", ["name", "task", "classes", "images", "train / val / test", "licence"], rows)


@app.command()
def info(name: Name, json: Json = False) -> None:
    """Describe one dataset: task, labels, splits, files, licence, citation; for your own file, its contents."""
    if is_path(name):
        from qvit.data.arrays import verify as check

        described = check(name)
    else:
        described = _described(name)
    if json:
        print_json(described)
        return
    for key, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}: {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(f"{place}: {label}" for place, label in enumerate(value))
        typer.echo(f"{key:12} {value}")


@app.command()
def get(name: Name, size: Size = 28, root: Root = None) -> None:
    """Download a dataset if it is missing, and check it."""
    from qvit.data.arrays import load_dataset

    dataset = load_dataset(name, size=size, root=root)
    typer.echo(f"{dataset.info.title} is at {dataset.path}" if dataset.path else "Made at run time; nothing to get.")


@app.command()
def verify(name: Name, size: Size = 28, root: Root = None, json: Json = False) -> None:
    """Check a file against everything known about it: MD5, arrays, types, shapes, labels."""
    from qvit.data.arrays import verify as check

    report = check(name, size=size, root=root)
    if json:
        print_json(report)
        return
    splits = ", ".join(f"{split} {part['images']}" for split, part in report["splits"].items())
    typer.echo(f"{report['path']} is sound: MD5 {report['md5']}, {report['task']}, {splits} images")


def _described(name: str) -> dict[str, object]:
    row = get_info(name)
    return {
        "name": row.name,
        "title": row.title,
        "description": row.description,
        "task": row.task,
        "labels": list(row.labels),
        "channels": row.channels,
        "splits": dict(row.splits),
        "synthetic": row.synthetic,
        "augment": row.augment,
        "files": {} if row.synthetic else {str(size): row.url(size) for size in row.md5},
        "md5": {str(size): md5 for size, md5 in row.md5.items()},
        "licence": row.licence,
        "citation": row.citation,
    }
