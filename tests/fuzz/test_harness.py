"""The harness finds what it is there to find: a planted defect of each kind, and nothing where there is none."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from fuzz import harness
from fuzz.harness import Kind, Report, fuzz
from qvit.errors import ConfigError


class Panic(BaseException):
    """As libraries in Rust raise."""


def tried(act: Callable[[], object], keep: Path | None = None) -> Report:
    """Fuzz two inputs that both do this, after valid ones that do next to nothing."""

    def attempt(content: bytes, folder: Path) -> None:
        if content == b"damaged":
            act()

    def valid(random: Random) -> bytes:
        return b"valid"

    return fuzz(Kind("planted", 2, valid, lambda random, content: b"damaged", attempt), inputs=2, keep=keep)


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def test_success_and_refusal_are_no_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SLOWER", 10_000)  # next to nothing is soon slower by a hundred times
    assert tried(lambda: None).defects == []
    report = tried(raising(ConfigError("No.")))
    assert (report.defects, report.tried, report.refused) == ([], 2, 2)


@pytest.mark.parametrize("error", [ValueError("a"), RecursionError(), MemoryError(), SystemExit(3), Panic("a")])
def test_errors_of_other_kinds(error: BaseException, tmp_path: Path) -> None:
    defects = tried(raising(error), tmp_path).defects
    assert sum(type(error).__name__ in defect for defect in defects) == 2
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"damaged"] * 2


def test_a_message_that_says_nothing() -> None:
    assert sum("not one line" in defect for defect in tried(raising(ConfigError(""))).defects) == 2


def test_ctrl_c_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        tried(raising(KeyboardInterrupt()))


def test_slowness() -> None:
    assert sum("over 100 x" in defect for defect in tried(lambda: time.sleep(0.1)).defects) == 2


def test_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "HUNG", 0.1)

    def endless() -> None:
        while True:
            try:
                time.sleep(1)
            except Exception:
                continue

    assert sum("_TooSlow: not done" in defect for defect in tried(endless).defects) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched in /proc")
@pytest.mark.parametrize(("share", "found"), [(1.2, 2), (0.8, 0)])
def test_memory(monkeypatch: pytest.MonkeyPatch, share: float, found: int) -> None:
    assert harness.MORE_MEMORY == 300 << 20
    monkeypatch.setattr(harness, "MORE_MEMORY", 50 << 20)  # as so much takes time
    monkeypatch.setattr(harness, "SLOWER", 1e6)

    def hungry() -> None:
        bytearray(b"x") * int(share * harness.MORE_MEMORY)

    assert sum("MiB, a valid input takes" in defect for defect in tried(hungry).defects) == found
