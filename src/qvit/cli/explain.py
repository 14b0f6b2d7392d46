"""`qvit explain`: where in an image a trained model finds what it says of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qvit.cli.console import heavy_imports, print_json, print_table
from qvit.cli.data import Moved, Root
from qvit.cli.options import Json
from qvit.errors import RunError
from qvit.files import make_folder


def explain(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    images: Annotated[list[str], typer.Argument(help="Pictures, folders of pictures, or lists of paths (.txt).")],
    out: Annotated[Path, typer.Option(help="Folder of the pictures, one per image.")] = Path("explained"),
    target: Annotated[
        str | None, typer.Option("--class", help="The class that is explained.", show_default="the likeliest")
    ] = None,
    beside: Annotated[Path | None, typer.Option(help="Another run, such as the classical twin, drawn below.")] = None,
    root: Root = None,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Draw where a model finds what it says: attention, gradients, occlusion, and what its quantum circuits measure.

    A table says how alike each kind of map is to that of a model with random weights: one that hardly changes tells
    nothing of what was learnt.
    """
    with heavy_imports():
        from qvit.answers.explaining import CHANGED, Explainer
        from qvit.report.explanation import draw_case
    explainers = {
        folder.name or str(folder): Explainer(folder, root=root, data=data) for folder in (run, beside) if folder
    }
    if beside is not None and len(explainers) == 1:
        raise RunError(f"Expected two run folders of different names, got {run} and {beside}. Rename one.")
    make_folder(out, f"use {out} as a folder", "Choose another with --out.")
    rows: list[dict[str, Any]] = []
    each = [explainer.cases(images, target) for explainer in explainers.values()]
    for place, cases in enumerate(zip(*each, strict=True), 1):
        path = out / f"{place:03}-{Path(cases[0].prediction.source).stem[:60]}.png"
        draw_case([*zip(explainers, cases, strict=True)]).savefig(path, dpi=130)
        for name, case in zip(explainers, cases, strict=True):
            found = case.prediction.probabilities or {}
            row = {"image": case.prediction.source, "run": name, "class": case.target, "picture": str(path)}
            rows.append(row | {"probability": found[case.target]})
    unlearnt = {name: explainer.unlearnt() for name, explainer in explainers.items()}
    if json:
        print_json({"cases": rows, "alike_random_weights": unlearnt})
        return
    columns = ["image", "run", "class", "probability", "picture"]
    told = [[row["image"], row["run"], row["class"], f"{row['probability']:.3f}", row["picture"]] for row in rows]
    print_table("Explained", columns, told)
    checks = [
        [name, map_, f"{value:.2f}", "hardly" if value >= CHANGED else "yes"]
        for name, values in unlearnt.items()
        for map_, value in values.items()
    ]
    caption = "Mean size of the rank correlation of each map with that of a model with random weights."
    print_table("Do the maps depend on what was learnt?", ["run", "map", "alike", "depends"], checks, caption=caption)
