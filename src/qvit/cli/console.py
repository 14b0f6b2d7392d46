"""What commands print: tables and JSON on stdout, progress on stderr, live on a terminal and plain elsewhere."""

import gc
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from qvit.cli.streams import shows_unicode, tell

if TYPE_CHECKING:
    from qvit.training.records import EpochRecord

PLAIN_LINES = 20  # about so many lines a run where progress cannot be drawn

OnEpoch = Callable[["EpochRecord", float], None]


class Group(TyperGroup):
    """A group whose help says of each command all that its first paragraph says, as it is written."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; click's own cuts what does not fit on a line."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                first = inspect.cleandoc(command.help or "").partition("\n\n")[0]
                rows.append((name, " ".join(first.split()).rstrip(".")))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def speaks(rank: str = "RANK") -> bool:
    """Return whether this process is to be heard: of several that torchrun started, the first of all alone.

    With "LOCAL_RANK" it is the first of each machine, for errors that no other machine knows of.
    """
    return os.environ.get("WORLD_SIZE", "1") in ("", "1") or os.environ.get(rank, "0") in ("", "0")


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    if speaks():
        typer.echo(json.dumps(value, indent=2, ensure_ascii=not shows_unicode(sys.stdout)))


def print_table(title: str, columns: list[str], rows: list[list[str]], *, caption: str | None = None) -> None:
    """Print a table; numbers are expected as text, every column but the first right-aligned.

    A few rows too wide for the terminal are shown as columns.
    """
    if not speaks():
        return
    # A table folded at 80 columns in a log is of no use; away from a terminal it may be as wide as it likes.
    width = None if sys.stdout.isatty() else 200
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    lines = [columns, *rows]
    if _width(lines) > console.width >= _width(list(zip(*lines, strict=True))):
        columns, *rows = [list(line) for line in zip(*lines, strict=True)]
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    with console.capture() as drawn:  # rich exits with 1, without a word, where a reader has left
        console.print(table)
    typer.echo(drawn.get(), nl=False)


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Return how wide a table of these lines is, borders included."""
    return sum(3 + max(map(len, column)) for column in zip(*lines, strict=True)) + 1


def say(text: str) -> None:
    """Print a line of news to stderr."""
    if speaks():
        tell(text)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import inside the block without garbage collections, and keep what was imported out of all later ones.

    None of it is garbage before the process ends, and torch brings a million objects to look through: this saves
    over half a second of two on the way in and out, and a sixth whenever a collection falls into training.
    """
    enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
        if len(sys.modules) > known:  # otherwise it was all there already, and garbage would be kept for nothing
            gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def epoch_progress(label: str, epochs: int, *, quiet: bool = False) -> Iterator[OnEpoch | None]:
    """Yield a callback that shows epoch after epoch on stderr; None if quiet."""
    if quiet or not speaks():
        yield None
    elif sys.stderr.isatty():
        with _live(label, epochs) as callback:
            yield callback
    else:
        yield _plain(label, epochs)


@contextmanager
def _live(label: str, epochs: int) -> Iterator[OnEpoch]:
    columns = (
        TextColumn("{task.description}", markup=False),  # a user's names: square brackets are no markup
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[news]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=epochs, news="")
        best = 0.0

        def callback(record: "EpochRecord", _seconds: float) -> None:
            nonlocal best
            best = max(best, record.val_auc)
            news = f"loss {record.train_loss:.3f}  val AUC {record.val_auc:.3f} (best {best:.3f})"
            progress.update(task, completed=record.epoch, news=news)

        yield callback


def _plain(label: str, epochs: int) -> OnEpoch:
    every = max(1, epochs // PLAIN_LINES)

    def callback(record: "EpochRecord", seconds: float) -> None:
        if record.epoch % every == 0 or record.epoch == epochs:
            say(
                f"{label}: epoch {record.epoch}/{epochs}  loss {record.train_loss:.3f}  "
                f"val AUC {record.val_auc:.3f}  val ACC {record.val_acc:.3f}  {seconds:.2f} s"
            )

    return callback
