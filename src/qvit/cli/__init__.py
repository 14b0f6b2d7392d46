"""The command line: one file per command group, with heavy imports inside the commands so that help is quick."""

import errno
import sys
import warnings
from contextlib import suppress
from typing import TextIO

from qvit.cli.streams import Stream, safe_streams, tell
from qvit.errors import QvitError, printable

DEBUG = "--debug"
INTERRUPTED = 130  # as shells count: 128 + SIGINT
# Texts of errors by torch, NumPy, the system's loader and Python's threads when no memory is left.
NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "failed to map segment",
    "can't start new thread",
    "could not create a primitive",  # oneDNN
)
ADVICE = {
    errno.ENOSPC: " Free some space, or choose another folder.",
    errno.EDQUOT: " Free some space, or choose another folder.",
    errno.EROFS: " Choose a folder that you may write to.",
    errno.EACCES: " Choose a file or folder that you may use.",
    errno.EPERM: " Choose a file or folder that you may use.",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    The exit code is 0 if all went well, 2 with one line on stderr for a user's mistake or a failure of the system, such
    as a full disk or too little memory, 1 if `qvit study run` leaves runs undone or `qvit predict` could not read an
    image, and 130 after Ctrl-C. Any other error
    is a bug and ends in a traceback.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in arguments
    before = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        with safe_streams() as streams:
            code = _run([argument for argument in arguments if argument != DEBUG], streams, debug=debug)
    finally:
        warnings.showwarning = before
    sys.exit(code)


def _run(arguments: list[str], streams: tuple[Stream, Stream], *, debug: bool) -> int:
    try:
        code = _call(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        failures = [stream.failure for stream in streams]
        if isinstance(error, BrokenPipeError) and error in failures:  # a reader that stopped reading, such as `head`
            return 0
        told = f"Cannot write the output: {error.strerror}." if error is failures[0] else _told(error)
        if debug or told is None:
            raise
        _say(f"Error: {told}")
        return 2
    if code == INTERRUPTED:
        _say("Interrupted. A run goes on with --resume, a study or an import by the same command.")
    return code


def _call(arguments: list[str]) -> int:
    """Run a command and return its exit code, without typer's own error handling, which sometimes exits with 0."""
    from typer.exceptions import Abort, Exit
    from typer.main import get_command

    from qvit.cli.app import app

    command = get_command(app)
    try:
        with command.make_context("qvit", arguments) as context:
            command.invoke(context)
    except Exit as end:
        return end.exit_code
    except Abort:
        return INTERRUPTED
    return 0


def _told(error: Exception) -> str | None:
    """Return one line for an error that a user can do something about; None for any other error."""
    from typer.exceptions import TyperException

    if isinstance(error, QvitError):
        return str(error)
    if isinstance(error, TyperException):
        return printable(" ".join(error.format_message().split()))
    text = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError, ImportError, SystemError))
        and any(said in text.lower() for said in NO_MEMORY)
    ):
        return f"There is too little memory: {printable(text.partition(chr(10))[0]) or 'none is left'}. " + (
            "Use smaller images, batches or models, or a machine with more memory."
        )
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or text or type(error).__name__
    place = "" if error.filename is None else f": {error.filename}"
    return printable(f"The system refused: {reason}{place}.{ADVICE.get(error.errno or 0, '')}")


def _say(line: str) -> None:
    from qvit.cli.console import speaks

    if speaks("LOCAL_RANK"):
        with suppress(BrokenPipeError):  # nobody listens
            tell(line)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say(f"Warning: {printable(message)}")
