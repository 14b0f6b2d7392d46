"""`qvit predict`: what a model says of new images."""

import csv
import io
import json as json_
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from qvit.answers.spread import start_if_many
from qvit.cli.console import heavy_imports, print_table, say
from qvit.cli.data import Moved, Root
from qvit.cli.options import RUN, Alarms, Coverage, Json, Sets, Wrong
from qvit.cli.streams import shows_unicode
from qvit.errors import ConfigError, printable

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from qvit.answers.grouped import Grouping, GroupPrediction
    from qvit.answers.predictor import Prediction, Predictor

MOST_ROWS = 200  # of a table on the terminal
COLUMNS = ("image", "answer", "probability", "withheld", "possible", "possible_by_class", "distance", "unlike", "error")
GROUP_COLUMNS = ("group", "images", "answer", "probability", "withheld", "error")
ERRORS = 1  # the exit code if an image could not be read
Answer: TypeAlias = "Prediction | GroupPrediction"
Show = Callable[[Answer], None]
Write = Callable[[Answer, str | None], None]  # an answer, and the group of an image


def predict(
    run: Annotated[str, typer.Argument(help=RUN)],
    images: Annotated[
        list[str], typer.Argument(help="Pictures, folders of pictures, lists of paths (.txt), or - for stdin.")
    ],
    ensemble: Annotated[
        list[str] | None,
        typer.Option("--with", help="Another run whose probabilities count as much; may be repeated."),
    ] = None,
    sets: Sets = 0.9,
    coverage: Coverage = None,
    error: Wrong = None,
    alarms: Alarms = 0.05,
    group_by: Annotated[
        str | None,
        typer.Option(help="Pattern for paths that names the patient: each gets an answer, the mean over its images."),
    ] = None,
    root: Root = None,
    data: Moved = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="Write a table of all images to this file; one of groups goes beside it (t.csv, t-groups.csv).",
        ),
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per image.")] = False,
    json: Json = False,
) -> None:
    """Say what a trained model sees in images: classes, calibrated probabilities, possible classes, and warnings.

    How sure it may be is learnt from the validation images, once, and kept in the run's folder. A file that cannot be
    read gets an error in its row, the others go on, and the exit code is 1.
    """
    if json and jsonl:
        raise ConfigError("Both --json and --jsonl were given; use one of them.")
    start_if_many(images)
    with heavy_imports():
        from qvit.answers.grouped import Grouping, GroupPrediction
        from qvit.answers.predictor import load
    options = {"sets": sets, "coverage": coverage, "error": error, "alarms": alarms}
    predictor = load([run, *(ensemble or ())], root=root, data=data, **options)
    grouping = None if group_by is None else Grouping(predictor, group_by)
    grouped = grouping is not None
    failed = asked = 0
    heard = True
    with _shown(predictor, grouped, json=json, jsonl=jsonl) as show, _written(table, predictor, grouped) as write:
        for answer, group in _answers(predictor, grouping, images):
            try:
                if heard:
                    show(answer)
            except BrokenPipeError:  # the reader is gone; a table that is written is finished all the same
                if table is None:
                    raise
                heard = False
            write(answer, group)
            if not isinstance(answer, GroupPrediction):
                asked += 1
                failed += answer.error is not None
    _say_what_is_missing(asked, failed, 0 if grouping is None else grouping.unmatched)


def _answers(
    predictor: "Predictor", grouping: "Grouping | None", images: list[str]
) -> Iterator[tuple[Answer, str | None]]:
    """Yield the answers about images, each with its group, and then those about groups."""
    lines = sys.stdin or ()
    if grouping is None:
        yield from ((prediction, None) for prediction in predictor.stream(images, lines))
    else:
        yield from grouping.stream(images, lines)
        yield from ((prediction, None) for prediction in grouping.predictions())


def _say_what_is_missing(asked: int, failed: int, unmatched: int) -> None:
    if not asked:
        say("No image was named.")
    if failed > unmatched:
        say(f"{failed - unmatched:,} {'file' if failed - unmatched == 1 else 'files'} could not be read.")
    if unmatched:
        say(f"{unmatched:,} {'image has' if unmatched == 1 else 'images have'} no group in the path.")
    if failed:
        raise typer.Exit(ERRORS)


@contextmanager
def _shown(predictor: "Predictor", grouped: bool, *, json: bool, jsonl: bool) -> Iterator[Show]:
    if jsonl:
        yield lambda answer: typer.echo(_line(answer))
    elif json:
        with _document(predictor, grouped) as show:
            yield show
    else:
        with _table(predictor) as show:
            yield show


def _line(answer: Answer) -> str:
    line = json_.dumps(asdict(answer), ensure_ascii=not shows_unicode(sys.stdout))
    return line if line.isprintable() else json_.dumps(asdict(answer))  # bytes of a path that are no text


@contextmanager
def _document(predictor: "Predictor", grouped: bool) -> Iterator[Show]:
    """Print one JSON document, image after image, so that memory does not grow."""
    head = json_.dumps(_told(predictor), indent=2, ensure_ascii=not shows_unicode(sys.stdout)).removesuffix("\n}")
    typer.echo(f'{head},\n  "predictions": [', nl=False)
    before, lists = ["\n    "], ["groups"] if grouped else []  # what stands before a line, and lists still to come

    def begin() -> None:
        typer.echo(f'\n  ],\n  "{lists.pop()}": [', nl=False)
        before[0] = "\n    "

    def show(answer: Answer) -> None:
        if lists and _is_group(answer):
            begin()
        typer.echo(before[0] + _line(answer), nl=False)
        before[0] = ",\n    "

    yield show
    if lists:
        begin()
    typer.echo("\n  ]\n}")


def _is_group(answer: Answer) -> "TypeIs[GroupPrediction]":
    from qvit.answers.grouped import GroupPrediction

    return isinstance(answer, GroupPrediction)


def _told(predictor: "Predictor") -> dict[str, Any]:
    calibration, needs = predictor.calibration, predictor.needs
    ece = calibration.ece
    return {
        "task": needs.task,
        "classes": list(needs.classes),
        "sets": predictor.options.sets,
        "temperature": calibration.temperature,
        "ece": None if ece is None else {"before": ece[0], "after": ece[1]},
        "notes": list(calibration.notes),
    }


@contextmanager
def _table(predictor: "Predictor") -> Iterator[Show]:
    rows: list[list[str]] = []
    groups: list[list[str]] = []
    counts: Counter[str] = Counter()
    more: Counter[str] = Counter()  # than are shown

    def show(answer: Answer) -> None:
        if _is_group(answer):
            kept, what, row = groups, "groups", _group_row(answer)
        else:
            kept, what, row = rows, "images", _row(answer)
            counts[row[1]] += 1
        if len(kept) < MOST_ROWS:
            kept.append(row)
        else:
            more[what] += 1

    def hidden(what: str) -> str | None:
        return f"{more[what]:,} more {what} are not shown; --csv FILE and --jsonl give all." if more[what] else None

    yield show
    if rows:
        columns = ["image", "answer", "probability", "possible", "unlike"]
        print_table(f"Predictions of {predictor.title}", columns, rows, caption=hidden("images"))
        typer.echo(", ".join(f"{name}: {count:,}" for name, count in counts.most_common()))
    if groups:
        columns = ["group", "images", "answer", "probability"]
        print_table("By group, of the mean probabilities", columns, groups, caption=hidden("groups"))


def _row(prediction: "Prediction") -> list[str]:
    source = printable(prediction.source)
    if prediction.error is not None:
        return [source, "error", "", prediction.error, ""]
    unlike = "" if not prediction.unlike else "yes"
    return [source, *_told_of(prediction), ", ".join(prediction.possible) or "none", unlike]


def _group_row(found: "GroupPrediction") -> list[str]:
    told = [found.error, ""] if found.error is not None else _told_of(found)
    return [printable(found.group), f"{found.images:,}", *told]


def _told_of(answer: Answer) -> list[str]:
    label = answer.label
    told = "withheld" if label is None else label if isinstance(label, str) else ", ".join(label) or "none"
    return [told, f"{answer.confidence:.3f}"]


@contextmanager
def _written(path: Path | None, predictor: "Predictor", grouped: bool) -> Iterator[Write]:
    """Write a table of images, and beside it one of groups, whole or not at all."""
    if path is None:
        yield lambda answer, group: None
        return
    names = predictor.needs.classes
    probabilities = [f"p_{name}" for name in names]
    with ExitStack() as stack:
        rows = stack.enter_context(_rows(path, [*COLUMNS, *(["group"] if grouped else []), *probabilities]))
        groups = None
        if grouped:
            beside = path.with_stem(f"{path.stem}-groups")
            groups = stack.enter_context(_rows(beside, [*GROUP_COLUMNS, *probabilities]))

        def write(answer: Answer, group: str | None) -> None:
            told = answer.probabilities or {}
            values = [told.get(name, "") for name in names]
            if not _is_group(answer):
                rows.writerow([*_cells(answer), *([group or ""] if grouped else []), *values])
            elif groups is not None:
                groups.writerow([*_group_cells(answer), *values])

        yield write


@contextmanager
def _rows(path: Path, header: Sequence[object]) -> Iterator[Any]:
    from qvit.files import chosen, written_whole

    with written_whole(chosen(path)) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(header)
        yield rows
        text.detach()


def _cells(prediction: "Prediction") -> Sequence[object]:
    sets = "|".join(prediction.possible), "|".join(prediction.possible_by_class)
    values = prediction.source, _answer(prediction), prediction.confidence, prediction.withheld, *sets
    more = prediction.distance, prediction.unlike, prediction.error
    return ["" if value is None else value for value in (*values, *more)]


def _group_cells(found: "GroupPrediction") -> Sequence[object]:
    values = found.group, found.images, _answer(found), found.confidence, found.withheld, found.error
    return ["" if value is None else value for value in values]


def _answer(answer: Answer) -> str:
    label = answer.label
    return "" if label is None else label if isinstance(label, str) else "|".join(label)
