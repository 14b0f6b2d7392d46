"""Where runs find their data: a run folder says it relative to itself, without the names of users and machines."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qvit.data.fetch import user_cache
from qvit.data.registry import is_path
from qvit.documents import read_json
from qvit.errors import FileError, RunError
from qvit.files import write_atomic

MOST_PLACES = 64  # of one dataset
LONGEST = 100_000  # bytes of all of them
FOUND_AT = "found_at"  # keys of this name say where something lay, and not what it is


def recorded(place: str | Path, folder: Path) -> str:
    """Return what the run folder `folder` says of a place: its path from there, which is never read as a name.

    If that path would lead through the folder of all users' homes, or on another drive of Windows, only the last name
    is said, and `remembered` is needed to find it.
    """
    lies, here = os.path.realpath(place), os.path.realpath(folder)
    text = Path(lies).name
    with suppress(ValueError):  # another drive
        if not _above_home(os.path.commonpath([lies, here])):
            text = os.path.relpath(lies, here).replace(os.sep, "/")
    return text if is_path(text) else f"./{text}"


def _above_home(folder: str) -> bool:
    """Return whether the user's home folder lies below a folder."""
    home = Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - Path.home raises where there is none
    return home != Path(folder) and home.is_relative_to(folder)


def located(text: str, folder: Path) -> Path:
    """Return the absolute path of what `recorded` says; an absolute one, of an earlier version, is returned."""
    return Path(os.path.normpath(Path(os.path.realpath(folder)) / text))


def with_places(values: Any, change: Callable[[str], str]) -> Any:
    """Return the contents of a config.json with each place changed: the user's data, and what was found somewhere."""
    if isinstance(values, dict):
        return {key: _changed(key, value, change) for key, value in values.items()}
    return [with_places(value, change) for value in values] if isinstance(values, list) else values


def _changed(key: str, value: Any, change: Callable[[str], str]) -> Any:
    if key == FOUND_AT:
        return [change(place) for place in value] if isinstance(value, list) else change(value)
    if key == "dataset" and isinstance(value, str):
        return change(value) if is_path(value) else value
    return with_places(value, change)


def remember(digest: str, place: str | Path) -> None:
    """Note in the user's cache where data lie, by their digest, so that runs that are moved away still find them."""
    with suppress(OSError, RunError):
        note = _note(digest)
        note.parent.mkdir(parents=True, exist_ok=True)
        places = dict.fromkeys([os.path.realpath(place), *remembered(digest)])
        write_atomic(note, json.dumps(list(places)[:MOST_PLACES]).encode(), durable=False)


def remembered(digest: str) -> list[str]:
    """Return where data of a digest lay when they were trained on, on this machine, the last place first."""
    try:
        found = read_json(_note(digest), most=LONGEST)
    except FileError:
        return []
    return [place for place in found if isinstance(place, str)] if isinstance(found, list) else []


def _note(digest: str) -> Path:
    return user_cache() / "places" / hashlib.sha256(digest.encode()).hexdigest()[:32]
