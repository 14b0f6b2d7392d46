"""The application that contains the command groups."""

from typing import Annotated

import typer

from qvit import __version__
from qvit.cli import (
    bench,
    calibrate,
    circuit,
    compare,
    data,
    demo,
    distill,
    evaluate,
    explain,
    models,
    predict,
    recipes,
    serve,
    share,
    study,
    train,
    tune,
)
from qvit.cli.console import Group

app = typer.Typer(
    cls=Group,
    help="Train, compare and understand quantum vision transformers on biomedical images.",
    epilog="Every command takes --help. --debug shows the traceback of an error.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # shows help as it is written: 'qvit[ray]' is not markup
)
app.add_typer(data.app, name="data")
app.command("models")(models.models)
app.command("circuit")(circuit.circuit)
app.command("train")(train.train)
app.command("teacher")(train.teacher)
app.command("distill")(distill.distill)
app.command("tune")(tune.tune)
app.command("recipes")(recipes.recipes)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("calibrate")(calibrate.calibrate)
app.command("explain")(explain.explain)
app.command("card")(share.card)
app.command("push")(share.push)
app.command("serve")(serve.serve)
app.add_typer(study.app, name="study")
app.command("compare")(compare.compare)
app.command("demo")(demo.demo)
app.add_typer(bench.app, name="bench")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Show the version, or the help if no command was given."""
    if version:
        typer.echo(f"qvit {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
