"""Whatever stdout and stderr are, and whatever the system refuses: the output survives, or one line says why not."""

import errno
import io
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.cli import main
from qvit.cli.streams import Stream, plain, safe_streams, tell

Qvit = Callable[..., Any]


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Run `qvit` in a shell; `$Q` is how."""
    variables = os.environ | {"Q": f"'{sys.executable}' -m qvit"} | environment
    done = subprocess.run(["bash", "-c", line.replace("$Q", variables["Q"])], capture_output=True, env=variables)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# --- what cannot be written to ---


FULL = "Error: Cannot write the output: No space left on device.\n"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        ("$Q data list >&- 2>&- <&-", 0, ""),
        ("$Q data lst 2>&-", 2, ""),
        ("$Q data list >/dev/full", 2, FULL),
        ("$Q data list --json | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("$Q data lst 2>&1 | true; exit ${PIPESTATUS[0]}", 2, ""),
    ],
)
def test_streams_that_cannot_be_written_to(line: str, code: int, err: str) -> None:
    """To the end of the process, when Python would write once more."""
    assert shell(line) == (code, "", err)


SHORT = (["data", "list"], ["data", "list", "--json"], ["--help"], ["--version"])


@pytest.mark.parametrize("words", SHORT, ids=" ".join)
def test_output_to_a_full_disk_is_one_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    news = io.StringIO()
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        patched.setattr(sys, "stderr", news)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert (ended.value.code, news.getvalue()) == (2, FULL)


@pytest.mark.parametrize("words", SHORT, ids=" ".join)
def test_a_reader_that_has_left_is_no_error(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    news = io.StringIO()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as left, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", left)
        patched.setattr(sys, "stderr", news)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert (ended.value.code, news.getvalue()) == (0, "")


def test_an_error_that_cannot_be_told_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", full)
        with pytest.raises(SystemExit) as ended:
            main(["data", "lst"])
    assert ended.value.code == 2


@pytest.mark.processes
def test_a_closed_stdout_is_not_the_next_file_that_is_opened(tmp_path: Path) -> None:
    code = (
        "import os\nfrom qvit.cli.streams import safe_streams\nwith safe_streams(), open('file', 'w') as file:\n"
        "    os.write(1, b'noise of a library')\n    file.write('content')\n"
    )
    subprocess.run(["bash", "-c", '"$0" -c "$1" >&-', sys.executable, code], cwd=tmp_path, check=True)
    assert (tmp_path / "file").read_text() == "content"


def test_news_that_nobody_can_read_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", full)
        with safe_streams() as (_, err):
            tell("epoch 1")
        assert isinstance(err.failure, OSError)


# --- terminals ---

TABLES = (
    ["--help"],
    ["train", "--help"],
    ["data", "list"],
    ["data", "info", "retinamnist"],
    ["circuit"],
    ["circuit", "strongly_entangling"],
    ["models"],
    ["models", "--cost", "qvit_4q1h"],
    ["evaluate", "été ⟨Z⟩"],
)


@pytest.mark.parametrize(
    ("encoding", "tables"), [("ascii", TABLES), ("latin-1", TABLES[4:7]), ("cp437", TABLES[4:7])], ids=str
)
def test_every_command_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, encoding: str, tables: tuple[list[str], ...]
) -> None:
    monkeypatch.setattr("qvit.models.zoo.list_models", lambda: ["qvit_4q1h"])
    for words in tables:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == (2 if words[0] == "evaluate" else 0)
        for stream in (out, err):
            stream.flush()
            text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
            assert text.isascii() or encoding != "ascii"
            assert "\\u" not in text
            if words[0] == "models" and stream is out:
                assert ("3 × 28 × 28" if encoding == "latin-1" else "3 x 28 x 28") in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_says_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    said = {"name": "é×", "title": "⟨Z⟩ …"}
    monkeypatch.setattr("qvit.cli.data.DATASETS", {"x": None})
    monkeypatch.setattr("qvit.cli.data._described", lambda _: said)
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        main(["data", "list", "--json"])
    text = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert json.loads(text) == [said]
    assert ("⟨Z⟩" in text) == (encoding == "utf-8"), "readable where it can be"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3 × 28 – „é“ …", '3 x 28 - \\u201ee" ...'),
        ("⟨Z₀⟩ ∂θ/∂φ ≥ 2²", "<Z0> dtheta/dphi >= 22"),
        ("┏━┳┓│║╭─╮╴╵", "+-++||+-+-|"),
        ("x\udcff木", "x\\udcff\\u6728"),
    ],
)
def test_plain_text(text: str, shown: str) -> None:
    assert plain(text) == shown
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True) as inner:
        Stream(inner).write(text)
        assert inner.buffer.getvalue().decode() == shown  # type: ignore[attr-defined]


@pytest.mark.processes
def test_names_that_are_no_utf8_can_be_shown() -> None:
    code, out, err = shell("$Q data info $'\\xff\\xfe'", PYTHONIOENCODING="ascii")
    assert (code, out) == (2, "")
    assert err.startswith("Error: Unknown dataset '\\udcff\\udcfe'.")


# --- what the system refuses ---


SMALLER = "Use smaller images, batches or models, or a machine with more memory."
ROOM = "Free some space, or choose another folder."
MAY = "Choose a file or folder that you may use."
LITTLE = "There is too little memory:"
NO = "The system refused:"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), f"{LITTLE} none is left. {SMALLER}"),
        (MemoryError("Unable to allocate 5 GiB"), f"{LITTLE} Unable to allocate 5 GiB. {SMALLER}"),
        (RuntimeError("[enforce fail] Can't allocate memory: 9 bytes\nx"),
         f"{LITTLE} [enforce fail] Can't allocate memory: 9 bytes. {SMALLER}"),
        (RuntimeError("std::bad_alloc"), f"{LITTLE} std::bad_alloc. {SMALLER}"),
        (RuntimeError("CUDA out of memory"), f"{LITTLE} CUDA out of memory. {SMALLER}"),
        (RuntimeError("can't start new thread"), f"{LITTLE} can't start new thread. {SMALLER}"),
        (RuntimeError("could not create a primitive"), f"{LITTLE} could not create a primitive. {SMALLER}"),
        (SystemError("bad_alloc"), f"{LITTLE} bad_alloc. {SMALLER}"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"),
         f"{LITTLE} [Errno 12] Cannot allocate memory. {SMALLER}"),
        (ImportError("t.so: failed to map segment"), f"{LITTLE} t.so: failed to map segment. {SMALLER}"),
        (OSError(errno.EROFS, "Read-only file system", "a\nb"),
         f"{NO} Read-only file system: a b. Choose a folder that you may write to."),
        (OSError(errno.ENOSPC, "No space left on device"), f"{NO} No space left on device. {ROOM}"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), f"{NO} Disk quota exceeded: /x. {ROOM}"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), f"{NO} Permission denied: /x. {MAY}"),
        (PermissionError(errno.EPERM, "Not permitted"), f"{NO} Not permitted. {MAY}"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), f"{NO} Broken pipe."),  # not of our output
        (OSError("of no number"), f"{NO} of no number."),
        (OSError(), f"{NO} OSError."),
    ],
)  # fmt: skip
def test_a_refusal_of_the_system_is_one_line(
    qvit: Qvit, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("qvit.cli.data.print_table", refuse)
    code, out, err = qvit("data", "list")
    assert (code, out, err) == (2, "", f"Error: {told}\n")


def test_interrupted_and_ended_commands_say_so_in_their_exit_code(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    for error, code in ((KeyboardInterrupt(), 130), (typer.Abort(), 130), (typer.Exit(1), 1), (typer.Exit(), 0)):

        def end(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("qvit.cli.data.print_table", end)
        told = qvit("data", "list")
        assert told.code == code
        said = "Interrupted. A run goes on with --resume, a study or an import by the same command.\n"
        assert told.err == (said if code == 130 else "")


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("of another kind")

    monkeypatch.setattr("qvit.cli.data.print_table", broken)
    before = sys.stdout, sys.stderr
    with pytest.raises(RuntimeError, match="of another kind"):
        main(["data", "list"])
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.processes
def test_too_little_memory_for_torch_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qvit", "models"],
        capture_output=True,
        text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (250 << 20, 250 << 20)),
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.fullmatch(r"Error: There is too little memory: .*\n", done.stderr)


def test_nothing_of_the_process_is_kept_changed(qvit: Qvit) -> None:
    import warnings

    before = warnings.showwarning, sys.stdout, sys.stderr, sys.excepthook
    assert qvit("data", "list").code == 0
    assert (warnings.showwarning, sys.stdout, sys.stderr, sys.excepthook) == before
