"""The one exception family: every error says what was expected, what came, and what to do next."""

import difflib
import unicodedata
from collections.abc import Iterable

LONGEST = 4000  # characters shown at each end of a message
LONGEST_NAME = 100  # characters that are compared with other names


class QvitError(Exception):
    """Base of every error raised on purpose by qvit; its message can be shown to a user as it is.

    The message is one line of text, whatever names and values it repeats; see `printable`.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class CircuitError(QvitError):
    """A quantum circuit that cannot be built or run as asked."""


class CircuitWarning(UserWarning):
    """A circuit that runs, but with parts that do nothing."""


class DataError(QvitError):
    """A dataset that is missing, damaged, or not what it claims to be."""


class ConfigError(QvitError):
    """An option or name that does not exist, or a value that it cannot take."""


class ModelError(QvitError):
    """A model that cannot be built as asked, or was given something it cannot read."""


class RunError(QvitError):
    """A run folder that cannot be created, read or continued."""


class TrainingError(QvitError):
    """Training that cannot go on, such as a loss that is no longer finite."""


class FileError(QvitError):
    """A file that cannot be read, or whose content is not what was expected.

    `found` says in two or three words why the file could not be read; it is empty if it was read and its content is
    wrong. `missing` says whether there is no such file.
    """

    def __init__(self, message: str, *, found: str = "", missing: bool = False) -> None:
        super().__init__(message)
        self.found = found
        self.missing = missing


class MetricError(QvitError):
    """Scores or labels that a metric cannot be computed from."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the valid name closest to `name`, or an empty string if none is close."""
    matches = difflib.get_close_matches(str(name)[:LONGEST_NAME], list(valid), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def printable(message: object) -> str:
    """Return a message as one line that any terminal can show, without control characters and lone surrogates.

    Line breaks become spaces, the others their escapes, such as `\\x1b`; a very long message loses its middle.
    """
    text = " ".join(str(message).splitlines())
    if len(text) > 2 * LONGEST:
        text = f"{text[:LONGEST]} … {text[-LONGEST:]}"
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() or unicodedata.category(mark) == "Zs" else _escape(mark) for mark in text)


def _escape(mark: str) -> str:
    return mark.encode("unicode_escape", "surrogatepass").decode()
