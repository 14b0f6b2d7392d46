"""`qvit push`: share a trained run through a Hugging Face hub."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qvit.cli.console import heavy_imports, print_json, say
from qvit.cli.options import Json


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
