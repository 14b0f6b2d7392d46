"""What a run writes besides weights and predictions: its configuration, where it ran, and its history."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from qvit import files
from qvit.data.registry import is_path
from qvit.documents import one_line
from qvit.errors import FileError, RunError
from qvit.files import PART, printable, write_atomic
from qvit.training.environment import environment
from qvit.training.folder import Run, flatten
from qvit.training.places import FOUND_AT
from qvit.training.records import lines_of
from qvit.training.state import TrainState
from qvit.training.stored import ConfigFile, checked

NAMES = ("recipe",)  # keys of config.json that determine nothing


def check_recordable(described: ConfigFile) -> None:
    """Raise `RunError`, before there is a folder, for what config.json cannot hold, such as names not in UTF-8.

    Values that our own reader would refuse are found now as well, not when the run is finished and cannot be opened.
    """
    for key, value in flatten(described).items():
        for text in value if isinstance(value, list) else [value]:
            try:
                str(text).encode()
            except UnicodeEncodeError as error:
                raise RunError(
                    f"Expected names that can be written down, found bytes that are no UTF-8 in {key}: {text!a}. "
                    "Rename that file or folder."
                ) from error
    try:
        checked(json.loads(dump(described)), ConfigFile, "it")
    except FileError as error:
        raise RunError(
            f"Expected a run whose config.json can be read again, but {one_line(error)}. Change that option, or rename "
            "that file or folder."
        ) from error


def make_folder(folder: Path) -> None:
    """Make the folder of a run; raises `RunError` if that fails, and for names that no file could hold."""
    printable(folder, raised=RunError)
    files.make_folder(folder, f"use {folder} as a run folder", "Choose another with --out.")


def _empty(folder: Path) -> None:
    """Delete the files of a run: the result first, so that a half-emptied folder never looks finished."""
    paths = sorted(folder.iterdir(), key=lambda path: (path.name == "config.json") - (path.name == "result.json"))
    if any(path.is_dir() for path in paths):
        raise RunError(f"{folder} holds folders that no run makes; it was left as it is. Choose another with --out.")
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise RunError(f"Cannot empty {folder}: {error.strerror or error}. Choose another with --out.") from error


def claim(run: Run, described: ConfigFile, *, processes: int, resume: bool, overwrite: bool) -> None:
    """Make sure that the folder is new, or holds this very run and may be continued, or one that may be replaced.

    Writes config.json, as `described`, and environment.json if they are missing. Raises `RunError` for a folder with
    anything else.
    """
    if overwrite and (run.folder / "config.json").exists():
        earlier = Run(run.folder).config
        if earlier["model"] == described["model"] and (
            earlier["dataset"] == described["dataset"] or _same_file(earlier, described)
        ):
            _empty(run.folder)
    names = [entry.name for entry in run.folder.iterdir() if not entry.name.startswith(".")]
    if "config.json" in names:
        if not resume:
            raise RunError(
                f"{run.folder} already holds a {'finished' if run.finished else 'started'} run. "
                "Go on with it by --resume, or choose another folder with --out."
            )
        ours, theirs = flatten(described), flatten(run.config)
        differing = [key for key in dict.fromkeys([*ours, *theirs]) if theirs.get(key) != ours.get(key)]
        differing = [key for key in differing if key not in NAMES]
        moved = [key for key in differing if _is_place(key, run.config, described)]
        differing = [key for key in differing if key not in moved]
        if differing:
            changes = "; ".join(f"{key}: {theirs.get(key)} → {ours.get(key)}" for key in differing)
            raise RunError(f"{run.folder} holds a run with another configuration ({changes}). Choose another --out.")
        if "dataset" in moved:
            with suppress(RunError):  # a finished run can be used even if nothing can be written
                write_atomic(run.folder / "config.json", dump(described))
    elif names:
        raise RunError(f"{run.folder} is not empty and not a run folder; choose another with --out.")
    else:
        write_atomic(run.folder / "config.json", dump(described))
    for leftover in run.folder.glob(f".*{PART}"):
        leftover.unlink()
    if "environment.json" not in names:
        said: dict[str, object] = {"started": datetime.now(UTC).isoformat(timespec="seconds")} | environment()
        write_atomic(run.folder / "environment.json", dump(said | ({"processes": processes} if processes > 1 else {})))


def _is_place(key: str, theirs: ConfigFile, ours: ConfigFile) -> bool:
    """Return whether a value that differs only says where something lies; a digest beside it says what that is."""
    return key.endswith(FOUND_AT) or (key == "dataset" and _same_file(theirs, ours))


def _same_file(theirs: ConfigFile, ours: ConfigFile) -> bool:
    """Return whether two runs use the same file of the user's, wherever it lies, by the name that predictions have."""
    places = theirs["dataset"], ours["dataset"]
    return (
        all(isinstance(place, str) and is_path(place) for place in places)
        and Path(places[0]).name == Path(places[1]).name
        and theirs["data_digest"] == ours["data_digest"]
    )


def write_history(folder: Path, state: TrainState) -> None:
    """Write the figures and the seconds of each epoch."""
    timings = (
        f'{{"epoch": {epoch}, "seconds": {round(seconds, 4)}}}\n' for epoch, seconds in enumerate(state.seconds, 1)
    )
    write_atomic(folder / "timings.jsonl", "".join(timings).encode(), durable=False)
    write_atomic(folder / "metrics.jsonl", lines_of(state.history).encode(), durable=False)


def dump(value: Mapping[str, object]) -> bytes:
    """Return a record as indented JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
