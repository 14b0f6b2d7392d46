"""The harness finds what it is there to find: a planted defect of each kind, and nothing where there is none."""

import itertools
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import harness
from fuzz.harness import Kind, Report, fuzz, prepared
from qvit.errors import ConfigError, QvitError


class Panic(BaseException):
    """As libraries in Rust raise."""


def ticking(seconds: float = 0.001) -> Callable[[], float]:
    """A clock on which everything takes the same time."""
    return itertools.count(step=seconds).__next__


def nothing() -> None:
    pass


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def planted(act: Callable[[], object]) -> Kind:
    """Damaged inputs all do this, valid ones nothing."""

    def attempt(content: bytes, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "file").write_bytes(content)
        if content == b"damaged":
            act()

    return Kind("planted", 2, lambda random: b"valid", lambda random, content: b"damaged", attempt)


def tried(act: Callable[[], object], keep: Path | None = None, clock: Callable[[], float] | None = None) -> Report:
    """Fuzz two damaged inputs, on a clock of their own."""
    return fuzz(planted(act), inputs=2, keep=keep, valid=3, clock=clock or ticking())


def test_success_and_refusal_are_no_defects(tmp_path: Path) -> None:
    report = tried(nothing, tmp_path)
    assert (report.defects, report.tried, report.refused) == ([], 2, 0)
    assert report.median == pytest.approx(0.001)
    assert report.slowest == pytest.approx(0.001)
    report = tried(raising(ConfigError("No.")), tmp_path)
    assert (report.defects, report.tried, report.refused) == ([], 2, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_a_line() -> None:
    report = Report("planted", 12_345, 99, 0.0015, 0.03, 3 << 20, ["one"])
    assert report.line() == ("planted: 12,345 inputs, 99 refused, 1 defects, valid 1.50 ms, slowest 20x, memory +3 MiB")


@pytest.mark.parametrize("error", [ValueError("a\nb"), RecursionError(), MemoryError(), SystemExit(3), Panic("a b")])
def test_errors_of_other_kinds(error: BaseException, tmp_path: Path) -> None:
    report = tried(raising(error), tmp_path / "kept")
    said = " ".join(str(error).split())
    assert report.defects == [f"planted, seed 0 input {n}: {type(error).__name__}: {said}" for n in (0, 1)]
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == {
        f"planted-seed-0-input-{n}": b"damaged" for n in (0, 1)
    }
    assert report.refused == 0


class SaidError(QvitError):
    """A refusal in whatever words, which the others of ours put on a line."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


@pytest.mark.parametrize("text", ["", " ", "One.\nTwo."])
def test_a_message_that_is_not_a_line(text: str) -> None:
    report = tried(raising(SaidError(text)))
    assert report.defects == [f"planted, seed 0 input {n}: a message that is not one line: {text!r}" for n in (0, 1)]
    assert report.refused == 2


def test_ctrl_c_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt, match="by hand"):
        tried(raising(KeyboardInterrupt("by hand")))


def test_a_valid_input_that_fails_ends_it() -> None:
    kind = Kind(
        "planted", 2, lambda random: b"damaged", lambda random, content: content, planted(raising(Panic())).attempt
    )
    with pytest.raises(AssertionError, match=r"^a valid input of kind planted failed: b'damaged'$"):
        fuzz(kind, inputs=2, valid=3)


@pytest.mark.parametrize(("seconds", "found"), [(0.099, False), (0.101, True)])
def test_what_takes_a_hundred_times_as_long_as_a_valid_input(seconds: float, found: bool) -> None:
    """A valid one takes a millisecond."""
    now = ticking()
    late = [0.0]

    def slow() -> None:
        late[0] += seconds - 0.001

    report = tried(slow, clock=lambda: now() + late[0])
    said = [f"planted, seed 0 input {n}: {seconds} s, over 100 x 0.001000 s" for n in (0, 1)]
    assert report.defects == (said if found else [])
    assert report.slowest == pytest.approx(seconds)


def test_a_pause_of_the_machine_does_not_count() -> None:
    """It does not come back three times."""
    now, late, pauses = ticking(), [0.0], iter([5.0, 5.0, 5.0, 0.0, 0.0])

    def paused() -> None:
        late[0] += next(pauses)

    report = tried(paused, clock=lambda: now() + late[0])
    assert report.defects == []
    assert report.tried == 2
    assert list(pauses) == []


def test_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "HUNG", 0.02)

    def endless() -> None:
        while True:
            try:
                time.sleep(1)
            except Exception:
                continue

    assert tried(endless).defects == [f"planted, seed 0 input {n}: _TooSlow: not done after 0.02 s" for n in (0, 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched in /proc")
@pytest.mark.parametrize(("share", "found"), [(1.5, 2), (0.5, 0)])
def test_memory(monkeypatch: pytest.MonkeyPatch, share: float, found: int) -> None:
    assert harness.MORE_MEMORY == 300 << 20
    # As so much takes time. From the system itself, for an allocator may have kept what others gave back.
    monkeypatch.setattr(harness, "MORE_MEMORY", 64 << 20)

    def hungry() -> None:
        with mmap.mmap(-1, int(share * harness.MORE_MEMORY)) as block:
            block[:: mmap.PAGESIZE] = bytes(len(block) // mmap.PAGESIZE)

    # The system may take pages of files away and give them back meanwhile; not three times in a row.
    for report in (tried(hungry) for _ in range(3)):
        defects = ["MiB, a valid input takes" in defect for defect in report.defects]
        if defects == [True] * found and (not found or report.memory == pytest.approx(96 << 20, rel=0.3)):
            break
    else:
        pytest.fail(f"{report}")


def test_inputs_are_those_of_their_numbers_and_seed() -> None:
    """So that one of a long run can be made again by itself; fewer valid ones change nothing."""
    kind = Kind(
        "numbered",
        2,
        lambda random: random.randbytes(2),
        lambda random, content: content + random.randbytes(2),
        lambda content, folder: seen.append(content) if len(content) == 4 else None,
    )
    runs = []
    for options in ({"inputs": 4}, {"inputs": 2, "first": 2, "valid": 1}, {"inputs": 4, "seed": 1}):
        seen: list[bytes] = []
        fuzz(kind, clock=ticking(), **{"valid": 3} | options)
        runs.append(seen)
    every, last, other = runs
    assert len(set(every)) == 4
    assert last == every[2:]
    assert not set(other) & set(every)


def test_a_corpus_is_replayed_from_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(harness, "CORPUS", tmp_path)
    (tmp_path / "planted").mkdir()
    for name, content in (("b-harmless", b"harmless"), ("a-known", b"damaged")):
        (tmp_path / "planted" / name).write_bytes(content)
    with prepared(planted(raising(ValueError("again"))), valid=3, clock=ticking()) as scene:
        report = scene.replay()
    assert (report.tried, report.defects) == (2, ["planted, a-known: ValueError: again"])
