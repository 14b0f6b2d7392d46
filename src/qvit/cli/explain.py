"""`qvit explain`: where in an image a trained model finds what it says of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import heavy_imports, print_json, print_table
from qvit.cli.data import Moved, Root
from qvit.cli.options import RUN, Json
from qvit.errors import ConfigError, RunError
from qvit.files import make_folder

if TYPE_CHECKING:
    from qvit.answers.explaining import Case, Picked
    from qvit.answers.predictor import Predictor

SHEET = "sheet.png"


def explain(
    run: Annotated[str, typer.Argument(help=RUN)],
    images: Annotated[
        list[str] | None, typer.Argument(help="Pictures, folders of pictures, or lists of paths (.txt).")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Instead of pictures, images of train, val or test: right and wrong ones that it is most sure of, and "
            "those it is least sure of, on a contact sheet, too."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures, one per image.")] = Path("explained"),
    target: Annotated[
        str | None, typer.Option("--class", help="The class that is explained.", show_default="the likeliest")
    ] = None,
    beside: Annotated[str | None, typer.Option(help="Another run, such as the classical twin, drawn below.")] = None,
    root: Root = None,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Draw where a model finds what it says: attention, gradients, occlusion, and what its quantum circuits measure.

    A table says how alike each kind of map is to that of a model with random weights: one that hardly changes tells
    nothing of what was learnt.
    """
    if (split is None) == (not images):
        raise ConfigError("Expected either pictures to explain, or --split, the images of which are chosen.")
    with heavy_imports():
        from qvit.answers.explaining import CHANGED, of_files, unlearnt
        from qvit.answers.predictor import load
        from qvit.report.drawing import write_picture
        from qvit.report.explanation import draw_case, draw_sheet
    if out.exists():
        _make(out)  # or says why not
    folders = [run] if beside is None else [run, beside]
    names = [Path(folder).name or folder for folder in folders]
    if len({*names}) < len(folders):
        names = folders
    if len({*names}) < len(folders):
        raise RunError(f"Expected two runs, got {run} twice. Leave --beside out.")
    predictors = {name: load(folder, root=root, data=data) for name, folder in zip(names, folders, strict=True)}
    shown: list[Picked] = []
    if split is None:
        each = [of_files(predictor, images or (), target) for predictor in predictors.values()]
    else:
        shown, each = _of_split(predictors, split, target, root, data)
    found: dict[str, list[Case]] = {name: [] for name in predictors}
    rows: list[dict[str, Any]] = []
    for place, cases in enumerate(zip(*each, strict=True)):
        named = [*zip(predictors, cases, strict=True)]
        name = Path(cases[0].prediction.source).stem[:60].replace(" ", "-")
        path = out / f"{place + 1:03}-{name}.png"
        if not rows:
            _make(out)
        write_picture(draw_case(named), path)
        for run_name, case in named:
            found[run_name].append(case)
            rows.append(_row(case, run_name, path) | (_picked(shown[place]) if shown else {}))
    if shown:
        columns = [[(name, cases[place]) for name, cases in found.items()] for place in range(len(shown))]
        write_picture(draw_sheet([*zip(shown, columns, strict=True)]), out / SHEET)
    changed = {name: unlearnt(predictor, found[name]) for name, predictor in predictors.items()}
    if json:
        sheet = {"sheet": str(out / SHEET)} if shown else {}
        print_json({"cases": rows, **sheet, "alike_random_weights": changed})
        return
    _print(rows)
    if shown:
        typer.echo(f"All of them: {out / SHEET}")
    checks = [
        [name, map_, f"{value:.2f}", "hardly" if value >= CHANGED else "yes"]
        for name, values in changed.items()
        for map_, value in values.items()
    ]
    caption = "Mean size of the rank correlation of each map with that of a model with random weights."
    print_table("Do the maps depend on what was learnt?", ["run", "map", "alike", "depends"], checks, caption=caption)


def _make(out: Path) -> None:
    make_folder(out, f"use {out} as a folder", "Choose another with --out.")


def _of_split(
    predictors: "Mapping[str, Predictor]", split: str, target: str | None, root: Path | None, data: Path | None
) -> "tuple[list[Picked], list[Iterator[Case]]]":
    """Return the images of a split that the first run shows, and their cases by each run."""
    import numpy as np

    from qvit.answers.explaining import of_split, picked

    runs = [one.members[0].run for one in predictors.values()]
    parts = [run.load_data(root, file=data)[split] for run in runs]
    if len({run.fold for run in runs}) > 1 or any(not np.array_equal(part.labels, parts[0].labels) for part in parts):
        raise RunError("Expected runs on the same images to compare, found other data. Leave --beside out.")
    shown = picked(next(iter(predictors.values())), parts[0])
    pairs = zip(predictors.values(), parts, strict=True)
    return shown, [of_split(one, part, split, shown, target) for one, part in pairs]


def _row(case: "Case", run: str, path: Path) -> dict[str, Any]:
    found = case.prediction.probabilities or {}
    source = case.prediction.source
    return {
        "image": source,
        "run": run,
        "class": case.target,
        "picture": str(path),
        "probability": found[case.target],
    }


def _picked(one: "Picked") -> dict[str, Any]:
    return {"kind": one.kind, "truth": one.truth}


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ["image", "run", "class", "probability", "picture"]
    columns += [name for name in ("kind", "truth") if name in rows[0]]
    told = [[f"{row[name]:.3f}" if name == "probability" else row[name] for name in columns] for row in rows]
    print_table("Explained", columns, told)
