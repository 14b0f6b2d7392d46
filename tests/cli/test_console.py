"""Tables fit the terminal they are printed to; imports run without garbage collections."""

import gc
import io
import re
import sys

import pytest

from qvit.cli.console import heavy_imports, print_table


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
