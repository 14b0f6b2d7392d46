"""`qvit card` and `qvit push`: a trained run described for others, and shared through a Hugging Face hub."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qvit.cli.console import heavy_imports, print_json, say
from qvit.cli.options import Json


def card(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="RUN/README.md")] = None,
) -> None:
    """Write a run's model card: figures with intervals, data, use and limits, in the form of Hugging Face."""
    with heavy_imports():
        from qvit.answers.card import card as text
        from qvit.answers.card import write_card
        from qvit.files import chosen, write_atomic
        from qvit.training.folder import Run
    if out is None:
        out = write_card(Run(run))
    else:
        write_atomic(chosen(out), text(Run(run)).encode())
    typer.echo(f"Written: {out}")


def push(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    repo: Annotated[str, typer.Argument(help="A model repository: OWNER/NAME, or NAME for one of your own.")],
    public: Annotated[
        bool, typer.Option("--public", help="Show a new repository to everyone; one that is there stays as it is.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="A branch, made if it is not there.", show_default="main")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.", show_default="the model's name")] = None,
    json: Json = False,
) -> None:
    """Put a run into a repository of Hugging Face, from which others load it as hf://OWNER/NAME.

    It gets the card, configuration, result and weights, and what calibrates answers, with predictions and labels of
    the validation images. Images and places of files stay here. Who you are is said by HF_TOKEN, or `hf auth login`.
    """
    with heavy_imports():
        from qvit.answers import hub
        from qvit.training.folder import Run
    done = hub.push(Run(run), repo, public=public, revision=revision, message=message)
    if not done.calibrated:
        say(
            f"Not calibrated: {run} keeps no predictions of validation images. `qvit calibrate` makes them; push again."
        )
    if json:
        print_json(asdict(done) | {"calibrated": done.calibrated})
        return
    seen = "" if done.private is None else " (private)" if done.private else " (public)"
    typer.echo(f"Pushed: {done.address}{seen}\nCommit: {done.commit}\nLoad it: {done.name}")
