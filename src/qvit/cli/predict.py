"""`qvit predict`, `qvit calibrate` and `qvit card`: what a model says of new images, how sure, and for whom it is."""

import csv
import io
import json as json_
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import heavy_imports, print_json, print_table, say
from qvit.cli.data import Moved, Root
from qvit.cli.options import RUN, Json
from qvit.cli.streams import shows_unicode
from qvit.errors import ConfigError, printable

if TYPE_CHECKING:
    from qvit.answers.predictor import Prediction, Predictor

MOST_ROWS = 200  # of a table on the terminal
COLUMNS = ("image", "answer", "probability", "withheld", "possible", "possible_by_class", "distance", "unlike", "error")
ERRORS = 1  # the exit code if an image could not be read
Keep = Callable[["Prediction"], None]


def predict(
    run: Annotated[str, typer.Argument(help=RUN)],
    images: Annotated[
        list[str], typer.Argument(help="Pictures, folders of pictures, lists of paths (.txt), or - for stdin.")
    ],
    ensemble: Annotated[
        list[str] | None,
        typer.Option("--with", help="Another run whose probabilities count as much; may be repeated."),
    ] = None,
    sets: Annotated[float, typer.Option(help="Share of images whose possible classes hold the true one.")] = 0.9,
    coverage: Annotated[
        float | None, typer.Option(help="Share of images to answer; others are withheld.", show_default="1")
    ] = None,
    error: Annotated[
        float | None, typer.Option(help="Share of answers that may be wrong; others are withheld.", show_default="any")
    ] = None,
    alarms: Annotated[
        float, typer.Option(help="Share of usual images that may be called unlike those trained on; 0 for no warning.")
    ] = 0.05,
    root: Root = None,
    data: Moved = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Write a table of all images to this file.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per image.")] = False,
    json: Json = False,
) -> None:
    """Say what a trained model sees in images: classes, calibrated probabilities, possible classes, and warnings.

    How sure it may be is learnt from the validation images, once, and kept in the run's folder. A file that cannot be
    read gets an error in its row, the others go on, and the exit code is 1.
    """
    if json and jsonl:
        raise ConfigError("Both --json and --jsonl were given; use one of them.")
    with heavy_imports():
        from qvit.answers.predictor import load
    options = {"sets": sets, "coverage": coverage, "error": error, "alarms": alarms}
    predictor = load([run, *(ensemble or ())], root=root, data=data, **options)
    failed = asked = 0
    heard = True
    with _shown(predictor, json=json, jsonl=jsonl) as show, _written(table, predictor) as write:
        for prediction in predictor.stream(images, sys.stdin or ()):
            try:
                if heard:
                    show(prediction)
            except BrokenPipeError:  # the reader is gone; a table that is written is finished all the same
                if table is None:
                    raise
                heard = False
            write(prediction)
            asked += 1
            failed += prediction.error is not None
    if not asked:
        say("No image was named.")
    if failed:
        say(f"{failed:,} {'file' if failed == 1 else 'files'} could not be read.")
        raise typer.Exit(ERRORS)


@contextmanager
def _shown(predictor: "Predictor", *, json: bool, jsonl: bool) -> Iterator[Keep]:
    if jsonl:
        yield lambda prediction: typer.echo(_line(prediction))
    elif json:
        with _document(predictor) as show:
            yield show
    else:
        with _table(predictor) as show:
            yield show


def _line(prediction: "Prediction") -> str:
    line = json_.dumps(asdict(prediction), ensure_ascii=not shows_unicode(sys.stdout))
    return line if line.isprintable() else json_.dumps(asdict(prediction))  # bytes of a path that are no text


@contextmanager
def _document(predictor: "Predictor") -> Iterator[Keep]:
    """Print one JSON document, image after image, so that memory does not grow."""
    head = json_.dumps(_told(predictor), indent=2, ensure_ascii=not shows_unicode(sys.stdout)).removesuffix("\n}")
    typer.echo(f'{head},\n  "predictions": [', nl=False)
    before = ["\n    "]

    def show(prediction: "Prediction") -> None:
        typer.echo(before[0] + _line(prediction), nl=False)
        before[0] = ",\n    "

    yield show
    typer.echo("\n  ]\n}")


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
def _table(predictor: "Predictor") -> Iterator[Keep]:
    rows: list[list[str]] = []
    counts: Counter[str] = Counter()

    def show(prediction: "Prediction") -> None:
        row = _row(prediction)
        counts[row[1]] += 1
        if len(rows) < MOST_ROWS:
            rows.append(row)

    yield show
    if rows:
        columns = ["image", "answer", "probability", "possible", "unlike"]
        hidden = counts.total() - len(rows)
        more = f"{hidden:,} more images are not shown; --csv FILE and --jsonl give all." if hidden else None
        print_table(f"Predictions of {predictor.title}", columns, rows, caption=more)
        typer.echo(", ".join(f"{name}: {count:,}" for name, count in counts.most_common()))


def _row(prediction: "Prediction") -> list[str]:
    source = printable(prediction.source)
    if prediction.error is not None:
        return [source, "error", "", prediction.error, ""]
    label = prediction.label
    answer = "withheld" if label is None else label if isinstance(label, str) else ", ".join(label) or "none"
    unlike = "" if not prediction.unlike else "yes"
    return [source, answer, f"{prediction.confidence:.3f}", ", ".join(prediction.possible) or "none", unlike]


@contextmanager
def _written(path: Path | None, predictor: "Predictor") -> Iterator[Keep]:
    """Write a table, whole or not at all."""
    if path is None:
        yield lambda prediction: None
        return
    from qvit.files import written_whole

    with written_whole(path) as file:
        names = predictor.needs.classes
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow([*COLUMNS, *(f"p_{name}" for name in names)])

        def write(prediction: "Prediction") -> None:
            probabilities = prediction.probabilities or {}
            rows.writerow([*_cells(prediction), *(probabilities.get(name, "") for name in names)])

        yield write
        text.detach()


def _cells(prediction: "Prediction") -> Sequence[object]:
    def joined(names: tuple[str, ...]) -> str:
        return "|".join(names)

    label = prediction.label
    answer = "" if label is None else label if isinstance(label, str) else joined(label)
    sets = joined(prediction.possible), joined(prediction.possible_by_class)
    values = prediction.source, answer, prediction.confidence, prediction.withheld, *sets
    more = prediction.distance, prediction.unlike, prediction.error
    return ["" if value is None else value for value in (*values, *more)]


def calibrate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    sensitivity: Annotated[
        float | None, typer.Option(help="Answer yes such that this share of positives is found on validation.")
    ] = None,
    specificity: Annotated[
        float | None, typer.Option(help="Answer yes such that this share of negatives is spared on validation.")
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Forget the sensitivity or specificity chosen before.")
    ] = False,
    root: Root = None,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Learn from the validation images how sure a run's answers are, and choose an operating point for yes and no."""
    if clear and (sensitivity is not None or specificity is not None):
        raise ConfigError("Both --clear and a value were given; use one of them.")
    with heavy_imports():
        from qvit.answers.choosing import calibrated
    told = calibrated(run, sensitivity=sensitivity, specificity=specificity, clear=clear, root=root, data=data)
    if json:
        print_json(told)
        return
    rows = [[name.replace("_", " "), _shown_value(value)] for name, value in told.items() if name != "notes"]
    print_table(f"{run}, on validation images", ["measure", "value"], rows)
    for note in told["notes"]:
        say(f"Note: {note}")


def _shown_value(value: Any) -> str:
    return "none" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def card(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="RUN/README.md")] = None,
) -> None:
    """Write a run's model card: figures with intervals, data, use and limits, in the form of Hugging Face."""
    with heavy_imports():
        from qvit.answers.card import card as text
        from qvit.answers.card import write_card
        from qvit.files import write_atomic
        from qvit.training.folder import Run
    if out is None:
        out = write_card(Run(run))
    else:
        write_atomic(out, text(Run(run)).encode())
    typer.echo(f"Written: {out}")
