"""The output of commands: tables and JSON on stdout, progress on stderr, live on a terminal and plain elsewhere."""

import gc
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from qvit.cli.streams import shows_unicode, tell

if TYPE_CHECKING:
    from qvit.training.records import EpochRecord

PLAIN_LINES = 20  # about this many lines per run if progress cannot be drawn

OnEpoch = Callable[["EpochRecord", float], None]


class Group(TyperGroup):
    """A group of commands whose help shows the whole first paragraph of each command, as it is written."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; click's own version cuts off what does not fit on a line."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                first = inspect.cleandoc(command.help or "").partition("\n\n")[0]
                rows.append((name, " ".join(first.split()).rstrip(".")))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def speaks(rank: str = "RANK") -> bool:
    """Return whether this process prints: of several that torchrun started, only the first does.

    With "LOCAL_RANK" the first on each machine does, for errors that other machines do not know of.
    """
    return os.environ.get("WORLD_SIZE", "1") in ("", "1") or os.environ.get(rank, "0") in ("", "0")


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    if speaks():
        typer.echo(json.dumps(value, indent=2, ensure_ascii=not shows_unicode(sys.stdout)))


def print_table(title: str, columns: list[str], rows: list[list[str]], *, caption: str | None = None) -> None:
    """Print a table of text; every column but the first is right-aligned.

    Rows and columns are swapped if the table only fits the terminal that way.
    """
    if not speaks():
        return
    from rich.console import Console  # a quarter of the time that a help text takes, which needs none of it
    from rich.table import Table

    # A table folded at 80 columns in a log is useless; if the output is not a terminal it may be wide.
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
    with console.capture() as drawn:  # captured, as rich exits silently with 1 if the reader is gone
        console.print(table)
    typer.echo(drawn.get(), nl=False)


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Return how wide a table of these lines is, borders included."""
    return sum(3 + max(map(len, column)) for column in zip(*lines, strict=True)) + 1


def say(text: str) -> None:
    """Print a line to stderr."""
    if speaks():
        tell(text)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Disable garbage collection during imports in the block, and exclude what was imported from later collections.

    Nothing imported becomes garbage before the process ends, and torch makes a million objects to scan: this saves over
    half a second of the two that starting and exiting take, and a sixth of a second per collection during training.
    """
    enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
        if len(sys.modules) > known:  # else nothing was imported, and freezing would only keep garbage
            gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def epoch_progress(label: str, epochs: int, *, quiet: bool = False) -> Iterator[OnEpoch | None]:
    """Yield a callback that shows the progress of epochs on stderr; None if `quiet`."""
    if quiet or not speaks():
        yield None
    elif sys.stderr.isatty():
        with _live(label, epochs) as callback:
            yield callback
    else:
        yield _plain(label, epochs)


@contextmanager
def _live(label: str, epochs: int) -> Iterator[OnEpoch]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),  # square brackets in a user's names are not markup
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
