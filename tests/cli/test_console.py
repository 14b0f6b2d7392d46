"""Tables fit the terminal they are printed to; imports run without garbage collections."""

import gc
import io
import re
import sys
from dataclasses import replace

import pytest

from qvit.cli.console import epoch_progress, heavy_imports, print_table
from qvit.cli.study import _news
from qvit.study.driver import StudyProgress
from qvit.training.records import EpochRecord


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, rows: list[list[str]], *, columns: int, terminal: bool) -> list[str]:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    print_table("Title", ["model", "AUC", "ACC"], rows, caption="Caption")
    return [line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue()).splitlines()]


WIDE = [["qvit_4q2h", "0.700 [0.650, 0.750]", "0.500 [0.450, 0.550]"]]


def test_a_row_too_wide_for_a_terminal_becomes_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, WIDE, columns=50, terminal=True)
    assert any("ACC" in line and "0.500 [0.450, 0.550]" in line for line in lines)
    assert max(map(len, lines)) <= 50


@pytest.mark.parametrize(("columns", "terminal"), [(100, True), (50, False)])
def test_a_row_stays_a_row_where_there_is_room(monkeypatch: pytest.MonkeyPatch, columns: int, terminal: bool) -> None:
    lines = shown(monkeypatch, WIDE, columns=columns, terminal=terminal)
    assert any("qvit_4q2h" in line and "0.700" in line and "0.500" in line for line in lines)
    assert lines[0] == "Title"
    assert lines[-1] == "Caption"


def test_many_rows_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, WIDE * 9, columns=50, terminal=True)
    assert max(map(len, lines)) <= 50
    assert sum("0.700" in line for line in lines) == 9


EPOCH = EpochRecord(epoch=1, lr=0.1, train_loss=1.23456, val_loss=1.0, val_auc=0.5, val_acc=0.25, tta="none")


def test_brackets_in_names_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run, of a study and of its models; rich takes them for markup, and ends at a closing one."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with epoch_progress("cells[red]-vit[/x]-s0", 2, quiet=False) as told:
        assert told is not None
        told(EPOCH, 1.0)
    with _news("mine[bold]", quiet=False) as news:
        assert news is not None
        news(
            StudyProgress(total=3, finished=1, failed=0, doing={"a [blue] seed 0": ("train", 1, 2)}, left=None, news="")
        )
    for name in ("cells[red]-vit[/x]-s0", "mine[bold]", "a [blue] seed 0"):
        assert name in re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", sys.stderr.getvalue())  # type: ignore[attr-defined]


EVERY_SECOND = [*range(2, 45, 2), 45]


@pytest.mark.parametrize(
    ("epochs", "lines"), [(1, [1]), (3, [1, 2, 3]), (39, range(1, 40)), (45, [*range(2, 45, 2), 45])]
)
def test_progress_is_plain_lines_away_from_a_terminal(
    epochs: int, lines: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """About twenty of them, and the last epoch."""
    with epoch_progress("a run", epochs) as told:
        assert told is not None
        for epoch in range(1, epochs + 1):
            told(replace(EPOCH, epoch=epoch), 0.125)
    out, err = capsys.readouterr()
    news = "loss 1.235  val AUC 0.500  val ACC 0.250  0.12 s"
    assert (out, err.splitlines()) == ("", [f"a run: epoch {epoch}/{epochs}  {news}" for epoch in lines])


def test_no_progress_for_who_wants_none() -> None:
    with epoch_progress("a run", 1, quiet=True) as told:
        assert told is None
    with _news("a study", quiet=True) as news:
        assert news is None


@pytest.mark.parametrize("enabled", [True, False])
def test_imports_run_without_collections_which_then_go_on(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    if not enabled:
        gc.disable()
    try:
        with heavy_imports():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        assert frozen == [], "nothing was imported"
        with heavy_imports():
            monkeypatch.setitem(sys.modules, "qvit.made_up", sys)
        assert frozen == [True]
        with pytest.raises(ImportError), heavy_imports():
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
