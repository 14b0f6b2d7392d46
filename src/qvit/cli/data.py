"""`qvit data`: list, describe, download, check, import, export and look at datasets."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import Group, print_json, print_table, say
from qvit.cli.options import Assign, GroupBy, Label, Task
from qvit.data.registry import DATASETS, TABLES, get_info, is_path, name_of
from qvit.errors import ConfigError, QvitError, nearest
from qvit.files import PART, expanded

if TYPE_CHECKING:
    from qvit.data.arrays import Dataset
    from qvit.data.options import ImportOptions
    from qvit.data.source import Asked, Groups

app = typer.Typer(cls=Group, help="List, describe, download, check, import, export and look at datasets.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[
    str,
    typer.Argument(help="A dataset's name, or the path of an .npz file, or of a folder or table of pictures."),
]
Size = Annotated[int, typer.Option(help="Side of the images in pixels: 28, 64, 128 or 224; of pictures, any.")]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the official files.", show_default="$QVIT_DATA, else your cache folder")
]
Moved = Annotated[
    Path | None, typer.Option("--data", help="Your own data, if not where they were when the run was trained.")
]


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """List, describe, download, check, import, export and look at datasets."""
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
def info(name: Name, label: Label = None, group_by: GroupBy = None, json: Json = False) -> None:
    """Describe one dataset: task, labels, splits, files, licence, citation; for your own data, what they hold."""
    if is_path(name):
        from qvit.data.arrays import verify as check

        described = check(name, importing=_importing(None, label=label, group_by=group_by)) | {"path": name}
        if _of_pictures(name):
            del described["md5"]  # of the file that they were imported into
    else:
        described = _described(name)
        if (label, group_by) != (None, None):
            _importing(None, label=label, group_by=group_by).refuse_for(f"Dataset '{name}'")
    if json:
        print_json(described)
        return
    for key, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(f"{place}: {label}" for place, label in enumerate(value))
        typer.echo(f"{key:12} {value}")


@app.command()
def get(name: Name, size: Size = 28, root: Root = None) -> None:
    """Download a dataset if it is missing, and check it."""
    from qvit.data.arrays import load_dataset

    dataset = load_dataset(name, size=size, root=root)
    typer.echo(f"{dataset.info.title} is at {dataset.path}" if dataset.path else "Made at run time; nothing to get.")


@app.command("import")
def import_(
    path: Annotated[str, typer.Argument(help="A folder of pictures (FOLDER/CLASS/*), or a table of them (CSV).")],
    out: Annotated[Path | None, typer.Option(help="The .npz file to write.", show_default="NAME.npz")] = None,
    size: Size = 28,
    label: Label = None,
    group_by: GroupBy = None,
    task: Task = None,
    fit: Annotated[str | None, typer.Option(help="Make pictures square: crop or pad.", show_default="crop")] = None,
    channels: Annotated[str | None, typer.Option(help="grey, rgb, or auto: as they are.", show_default="auto")] = None,
    max_bad: Annotated[
        int | None, typer.Option(help="So many files may be unreadable; they are listed.", show_default="0")
    ] = None,
    assign: Assign = None,
    root: Root = None,
) -> None:
    """Turn a folder or a table of pictures into one .npz file: checked, resized, split by patient.

    Other commands take the folder or table itself just as well, and import it when they first see it.

    --set takes shares ([0.7, 0.1, 0.2]), split_seed, bits (that are used of 16, such as 12) and frames (first or all,
    of a DICOM file).
    """
    import os
    import shutil

    import numpy as np

    from qvit.data.packing import Packer

    if not _of_pictures(path):
        raise ConfigError(f"Expected a folder, or a table that ends in {' or '.join(TABLES)}, got {path}.")
    target = out or Path(f"{name_of(path)}.npz")
    if target.suffix != ".npz":
        raise ConfigError(f"Expected a name that ends in .npz with --out, got {target}.")
    if os.path.lexists(target):
        raise ConfigError(f"There is already a file {target}; move it away, or choose another name with --out.")
    named = {"label": label, "group_by": group_by, "fit": fit, "channels": channels, "max_bad": max_bad}
    with _made(target.parent):
        dataset = _load(_asked(Path(path), size, root, task, assign, **named))
    assert dataset.path is not None
    part = target.with_name(f".{target.name}{PART}")
    try:
        shutil.copyfile(dataset.path, part)
        if task is not None:
            with Packer(part, more=True) as packer:
                packer.add("task", np.array(task))
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ConfigError(f"Cannot write {target}: {error.strerror or error}. Choose another with --out.") from error
    counts = ", ".join(f"{split} {len(part)}" for split, part in dataset.splits.items())
    classes, groups = dataset.info.num_classes, _groups_told(dataset.groups)
    say(f"{target}: {counts} images of {size} x {size} pixels, {classes} classes{groups}")
    typer.echo(dataset.digest)


@app.command()
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    size: Size = 28,
    root: Root = None,
    label: Label = None,
    group_by: GroupBy = None,
    task: Task = None,
    assign: Assign = None,
) -> None:
    """Write a dataset as pictures, FOLDER/CLASS/*.png, and a table, FOLDER/data.csv: the inverse of an import."""
    from qvit.data.exporting import check_empty, export_dataset, import_command

    asked = _asked(name, size, root, task, assign, label=label, group_by=group_by)
    check_empty(folder)
    with _made(folder, outside=name):
        dataset = _load(asked)
        table = export_dataset(dataset, folder)
    typer.echo(f"{sum(map(len, dataset.splits.values())):,} pictures are in {folder}, and listed in {table}")
    typer.echo(f"To import them again: {import_command(dataset, table)}")


@app.command()
def verify(
    name: Name,
    size: Size = 28,
    root: Root = None,
    label: Label = None,
    group_by: GroupBy = None,
    task: Task = None,
    assign: Assign = None,
    copies: Annotated[bool, typer.Option(help="Look for near-duplicate images.")] = True,
    json: Json = False,
) -> None:
    """Check a dataset: its file, labels and images, near-duplicates across splits, groups in several, and more."""
    from qvit.data.arrays import describe
    from qvit.data.duplicates import find_duplicates
    from qvit.data.fetch import check_size
    from qvit.data.findings import NOTHING, find

    asked = _asked(name, size, root, task, assign, label=label, group_by=group_by)
    if not is_path(name):
        check_size(name, size)  # a dataset made at run time has no file
    dataset = _load(asked)
    findings = find(dataset, find_duplicates(dataset) if copies else None)
    told = findings.told(dataset)
    report = describe(dataset) | ({"path": name} if is_path(name) else {})
    if json:
        print_json(report | {"findings": told} | findings.summary())
        return
    splits = ", ".join(f"{split} {part['images']}" for split, part in report["splits"].items())
    md5 = f", MD5 {report['md5']}" if report["md5"] else ""
    typer.echo(f"{name} is sound: {report['task']}, {splits} images, digest {report['digest']}{md5}")
    for line in told or [NOTHING]:
        typer.echo(f"- {line}")


@app.command()
def preview(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the picture and the page.", show_default="preview-NAME")
    ] = None,
    size: Size = 28,
    root: Root = None,
    label: Label = None,
    group_by: GroupBy = None,
    task: Task = None,
    assign: Assign = None,
) -> None:
    """Look at a dataset: images by class and split, counts, means, intensities, near-duplicates; one PNG, one HTML."""
    from qvit.data.duplicates import find_duplicates
    from qvit.data.findings import find
    from qvit.report.preview import preview as draw

    asked = _asked(name, size, root, task, assign, label=label, group_by=group_by)
    folder = out or Path(f"preview-{name_of(name)}")
    with _made(folder, outside=name, by=" with --out"):
        dataset = _load(asked)
        written = draw(dataset, folder, findings=find(dataset, find_duplicates(dataset)))
    for path in written:
        typer.echo(f"Written: {path}")


@contextmanager
def _made(folder: Path, *, outside: str = "", by: str = "") -> Iterator[None]:
    """Make a folder, before anything is computed that could not be written to it; remove it if that fails.

    Raises ConfigError for one that cannot be made, or that lies in the folder of the dataset `outside`; `by` says which
    option names another.
    """
    try:
        new = not folder.exists()
        if _within(folder, outside):
            raise ConfigError(
                f"{folder} lies in the dataset's own folder, {outside}, and pictures there would be taken for the "
                f"dataset's. Choose a folder outside{by}."
            )
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Cannot use {folder} as a folder: {reason}. Choose another.") from error
    try:
        yield
    except QvitError:
        if new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _of_pictures(path: str) -> bool:
    import os

    return os.path.isdir(path) or path.lower().endswith(TABLES)  # noqa: PTH112 - Path.is_dir raises for some names


def _within(folder: Path, dataset: str) -> bool:
    """Return whether a folder lies in that of a dataset, or is it; a name, a file or a table has none."""
    import os

    if not (is_path(dataset) and os.path.isdir(expanded(dataset))):  # noqa: PTH112 - Path.is_dir raises for some names
        return False
    return folder.resolve().is_relative_to(expanded(dataset).resolve())


def _groups_told(groups: "Groups | None") -> str:
    """Return how groups stand in the splits, if they are known; whoever divided the images."""
    from qvit.data.findings import shared_groups

    if groups is None:
        return ""
    count = len({name for names in groups.values() for name in names.tolist()})
    shared = len(shared_groups(groups))
    return f", {count:,} groups, " + (f"{shared:,} of them in several splits" if shared else "each in one split")


def _importing(assign: list[str] | None, **named: Any) -> "ImportOptions":
    """Return how pictures become a dataset, as `--set` and options of other names say; those win."""
    from qvit.data.options import IMPORT_KEYS, ImportOptions
    from qvit.validate import validated

    options: dict[str, Any] = {}
    if assign:
        from qvit.training.options import parse_assignment  # imports models, which these commands do not need else

        options = dict(parse_assignment(text) for text in assign)
    options |= {key: value for key, value in named.items() if value is not None}
    for key in options:
        if key not in IMPORT_KEYS:
            raise ConfigError(
                f"There is no option '{key}'.{nearest(key, IMPORT_KEYS)} Known: {', '.join(IMPORT_KEYS)}."
            )
    return validated(ImportOptions, options)


def _asked(
    name: str | Path, size: int, root: Path | None, task: str | None, assign: list[str] | None, **named: Any
) -> "Asked":
    from qvit.data.source import Asked

    return Asked(name, size, root, download=False, task=task, importing=_importing(assign, **named))


def _load(asked: "Asked") -> "Dataset":
    from qvit.data.arrays import load_dataset

    return load_dataset(**vars(asked))


def _plain(value: Any) -> str:
    """Return what a field holds as text; of a split of one's own data the images, and those of each label."""
    return f"{value['images']} ({', '.join(map(str, value['per_label']))})" if isinstance(value, dict) else str(value)


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
