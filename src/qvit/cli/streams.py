"""Make standard output and error usable if they are closed, full, without a reader, or limited to ASCII."""

import codecs
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

_ERRORS = "qvit.plain"  # the name of our codec error handler
_LOOKS = {
    "×": "x", "·": ".", "…": "...", "–": "-", "—": "-", "‖": "||", "⟨": "<", "⟩": ">", "≤": "<=", "≥": ">=",
    "→": "->", "←": "<-", "∂": "d", "“": '"', "”": '"', "‘": "'", "’": "'", "−": "-", "█": "#", "●": "*", "⊕": "X",
}  # fmt: skip


class Stream:
    """A text stream that accepts any text, and remembers the error if writing failed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._spelled_for = stream.encoding or "utf-8"
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:
        """The encoding reported to others: click takes an ASCII stream for a mistake and would bypass it with UTF-8."""
        return "utf-8" if self.is_ascii else self._spelled_for

    @property
    def is_ascii(self) -> bool:
        """Whether the stream writes only ASCII."""
        return codecs.lookup(self._spelled_for).name == "ascii"

    @property
    def is_unicode(self) -> bool:
        """Whether the stream can write every character."""
        return self._spelled_for.lower().startswith("utf")

    def write(self, text: str) -> int:
        """Write text; characters that the stream's encoding lacks are spelled out."""
        shown = text.encode(self._spelled_for, _ERRORS).decode(self._spelled_for)
        return self._watched(lambda: self._stream.write(shown))

    def flush(self) -> None:
        """Flush the stream."""
        self._watched(self._stream.flush)

    def silence(self) -> None:
        """Discard what could not be written, and everything that follows."""
        with suppress(OSError, ValueError):  # ValueError: no file of the system, or closed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def _watched(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except OSError as error:
            self.failure = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_streams() -> Iterator[tuple[Stream, Stream]]:
    """Yield stdout and stderr as streams to which any text can be written, whatever they are.

    Closed ones are replaced by the null device: otherwise the next file opened would get their number, and a library's
    output would end up in it. At the end nothing is left in them that Python would try to write again on exit.
    """
    with suppress(OSError):  # no null device: nothing can be done
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    before = sys.stdout, sys.stderr
    streams = tuple(
        Stream(stream or open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as the process
        for number, stream in enumerate(before, 1)
    )
    sys.stdout, sys.stderr = streams
    try:
        yield streams[0], streams[1]
    finally:
        for stream in streams:
            with suppress(OSError, ValueError):
                stream.flush()
            if stream.failure is not None:
                stream.silence()
        sys.stdout, sys.stderr = before


def tell(line: str) -> None:
    """Write a line to stderr; raises BrokenPipeError if the reader is gone, ignores other errors (a full disk)."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        pass


def shows_unicode(stream: Any) -> bool:
    """Return whether a stream can write every character."""
    if isinstance(stream, Stream):
        return stream.is_unicode
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def plain(text: str) -> str:
    """Return text in ASCII: letters without accents, lines of `-`, `|` and `+`, Greek letters by name."""
    return text if text.isascii() else "".join(map(_plain_mark, text))


def _plain_mark(mark: str) -> str:
    if mark.isascii():
        return mark
    if mark in _LOOKS:
        return _LOOKS[mark]
    name = unicodedata.name(mark, "")
    if name.startswith("BOX DRAWINGS"):
        lines = set(name.split()) & {"HORIZONTAL", "VERTICAL", "UP", "DOWN", "LEFT", "RIGHT"}
        return "-" if lines <= {"HORIZONTAL", "LEFT", "RIGHT"} else "|" if lines <= {"VERTICAL", "UP", "DOWN"} else "+"
    if name.startswith("GREEK"):
        return name.split()[-1].lower()
    letters = "".join(part for part in unicodedata.normalize("NFKD", mark) if part.isascii())
    return letters or mark.encode("unicode_escape", "surrogatepass").decode()


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _spelled)
