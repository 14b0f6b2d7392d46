"""Dataset names without folders: in a study's folder, a user's file is known by its name and digest, not by its path.

A study's folder records no paths of data. They are read from the study's file whenever runs are done, so that file,
data and folder may each be moved.
"""

from pathlib import Path
from typing import Any

from qvit.data.registry import is_path

OF_IMAGES = ("dataset", "transfer_set")  # options that name files of images


def named(dataset: str) -> str:
    """Return a dataset's name without its folder: an official name, or a file name, recognisable as a path."""
    if not is_path(dataset):
        return dataset
    name = Path(dataset).name
    return name if is_path(name) else f"./{name}"


def without_places(options: dict[str, Any]) -> dict[str, Any]:
    """Return options, nested ones too, without the folders of the user's files."""
    return {
        key: without_places(value)
        if isinstance(value, dict)
        else named(value)
        if key in OF_IMAGES and isinstance(value, str)
        else value
        for key, value in options.items()
    }
