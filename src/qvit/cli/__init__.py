"""The command line: one file a command group, heavy imports inside the commands so that help is quick."""

import sys
import warnings
from typing import TextIO

from qvit.errors import QvitError

DEBUG = "--debug"
INTERRUPTED = 130  # as shells count: 128 + SIGINT


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 if all went well, 2 with one line on stderr for a user's mistake."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in arguments
    sys.exit(_run([argument for argument in arguments if argument != DEBUG], debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    from typer.exceptions import Abort, TyperException

    from qvit.cli.app import app
    from qvit.cli.console import speaks

    warnings.showwarning = _show_warning
    try:
        code = int(app(arguments, prog_name="qvit", standalone_mode=False) or 0)
    except (QvitError, TyperException) as error:
        if debug:
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        if speaks("LOCAL_RANK"):
            sys.stderr.write(f"Error: {' '.join(message.split())}\n")
        return 2
    except (Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        sys.stderr.close()
        return 0
    if code == INTERRUPTED and speaks("LOCAL_RANK"):  # typer turns Ctrl-C into this code, without a word
        sys.stderr.write("Interrupted. An unfinished run goes on with --resume, a study by the same command.\n")
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    from qvit.cli.console import speaks

    if speaks("LOCAL_RANK"):
        sys.stderr.write(f"Warning: {message}\n")
