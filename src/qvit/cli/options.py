"""The options that training commands share, and how options from several sources are combined."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qvit.errors import ConfigError
from qvit.files import expanded

Dataset = Annotated[
    str | None,
    typer.Argument(
        help="A dataset's name (see `qvit data list`), or the path of an .npz file, a folder or a table of pictures."
    ),
]
FORMATS = ("png", "svg", "pdf")  # of pictures
RUN = "A run folder, or hf://OWNER/NAME on a hub."
Seed = Annotated[int | None, typer.Option(help="Fixes everything random.", show_default="0")]
Config = Annotated[
    Path | None, typer.Option(help="YAML file of `key: value` options, or a recipe's name: see `qvit recipes`.")
]
Assign = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any option; may be repeated.")
]
Data = Annotated[Path | None, typer.Option(help="Your own data: an .npz file, a folder or a table.")]
Task = Annotated[str | None, typer.Option(help="Task of your own data, if its labels do not show it.")]
Label = Annotated[
    str | None,
    typer.Option(help="Column of a table that holds the classes; several, of 0 and 1, with commas between."),
]
GroupBy = Annotated[
    str | None,
    typer.Option(help="Column of a table, or pattern for paths, that names the patient: each stands in one split."),
]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="28")]
# How answers are given, see `answers.calibrated.Answering`.
Sets = Annotated[float, typer.Option(help="Share of images whose possible classes hold the true one.")]
Coverage = Annotated[
    float | None, typer.Option(help="Share of images to answer; others are withheld.", show_default="1")
]
Wrong = Annotated[
    float | None, typer.Option(help="Share of answers that may be wrong; others are withheld.", show_default="any")
]
Alarms = Annotated[
    float, typer.Option(help="Share of usual images that may be called unlike those trained on; 0 for no warning.")
]
Memory = Annotated[float, typer.Option(help="Gigabytes that models trained together may take in a process.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not download a missing file.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, no progress.")]


def check_picture(picture: Path | None) -> None:
    """Raise `ConfigError` for a picture's file that does not end as one that can be drawn."""
    if picture is not None and picture.suffix.lower()[1:] not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigError(f"--picture needs a file that ends in {endings}, got {picture}.")


def dataset_option(dataset: str | None, data: Path | None) -> str | None:
    """Return the dataset given by name or as a user's file; raises `ConfigError` if both are given."""
    if data is None:
        return dataset
    if dataset is not None:
        raise ConfigError(f"Both a dataset ('{dataset}') and --data ({data}) were given; use one of them.")
    return str(data) if data.suffix == ".npz" else str(expanded(data).absolute())  # a path, never read as a name


def gather(config: Path | None, assign: list[str] | None, named: dict[str, Any]) -> dict[str, Any]:
    """Return the options from a file, from `--set` and from the named options that are given; a later one wins."""
    from qvit.training.options import parse_assignment, read_options
    from qvit.training.recipes import with_recipe

    options: dict[str, Any] = read_options(config) if config else {}
    options |= with_recipe(dict(parse_assignment(text) for text in assign or ()))
    return options | {key: value for key, value in named.items() if value is not None}
