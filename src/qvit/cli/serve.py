"""`qvit serve`: a page on which a trained model is tried."""

import sys
from contextlib import suppress
from typing import Annotated

import typer

from qvit.cli.console import heavy_imports, say
from qvit.cli.data import Moved, Root
from qvit.cli.options import RUN, Alarms, Coverage, Sets, Wrong
from qvit.errors import ConfigError


def serve(
    run: Annotated[str, typer.Argument(help=RUN)],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any.")] = 8000,
    megabytes: Annotated[float, typer.Option(help="Most megabytes of a file.")] = 20,
    megapixels: Annotated[float, typer.Option(help="Most megapixels of a picture.")] = 25,
    sets: Sets = 0.9,
    coverage: Coverage = None,
    error: Wrong = None,
    alarms: Alarms = 0.05,
    root: Root = None,
    data: Moved = None,
) -> None:
    """Serve a page on which an image is dropped, and answered with probabilities, warnings and maps.

    It listens on this machine alone unless --host says otherwise. Images stay in memory until they are answered, and
    are never written to disk. Ctrl-C stops it.
    """
    with heavy_imports():
        from qvit.answers.predictor import load
        from qvit.serve.desk import Desk, Limits

        try:
            from qvit.serve.app import application, is_loopback
            from qvit.serve.server import address_of, listen, server
        except ModuleNotFoundError as missing:
            raise ConfigError(f"This needs the package {missing.name}: pip install 'qvit[serve]'.") from missing
    limits = Limits(megabytes, megapixels)
    predictor = load(run, root=root, data=data, sets=sets, coverage=coverage, error=error, alarms=alarms)
    with listen(host, port) as listening:
        if not is_loopback(host):
            say("Warning: whoever reaches this machine can ask the model; nothing is encrypted, nobody is asked for.")
        typer.echo(f"{run} answers at {address_of(listening)}, Ctrl-C stops it.")
        sys.stdout.flush()  # whoever reads it through a pipe waits for it
        with suppress(KeyboardInterrupt):
            server(application(Desk(predictor, limits), host)).run(sockets=[listening])
