"""What is said of where pictures came from, and of whose they are."""

from pathlib import Path

import pytest

from qvit.data.anonymous import below, hashed, without


@pytest.mark.parametrize(
    ("source", "group", "left"),
    [
        ("a/Smith John 3/x.png", "Smith John 3", "a/#/x.png"),
        ("a/smith_john-3/x.png", "Smith John 3", "a/#/x.png"),
        ("a/SmithJohn31/x.png", "Smith John 3", "a/SmithJohn31/x.png"),
        ("Li/liver/Li_2.png", "Li", "#/liver/#_2.png"),
        ("a/patient0_0.png", "0", "a/patient#_#.png"),
        ("a/patient10_0.png", "10", "a/patient#_0.png"),
        ("a/patient100.png", "10", "a/patient100.png"),
        ("ward/pjohnsonx.png", "Johnson", "ward/p#x.png"),
        ("a/.../x.png", "...", "a/#/x.png"),
        ("a/b+c/x.png", "b+c", "a/#/x.png"),
        ("größe/Müller/x.png", "MÜLLER", "größe/#/x.png"),
        ("a/x.png", "Smith", "a/x.png"),
        ("a/x.png", "a/x.png", "a/x.png"),
    ],
)
def test_names_in_paths_are_replaced(source: str, group: str, left: str) -> None:
    assert without(source, group, "#") == left


def test_paths_say_nothing_of_what_lies_above(tmp_path: Path) -> None:
    assert below(tmp_path, "a/x.png") == "a/x.png"
    assert below(tmp_path, "./a/../b/x.png") == "b/x.png"
    assert below(tmp_path, f"{tmp_path}/a/x.png") == "a/x.png"
    assert below(tmp_path, "../john/x.png") == "x.png"
    assert below(tmp_path, "/home/john/x.png") == "x.png"
    assert below(tmp_path, "..x.png") == "..x.png"


def test_a_hash_depends_on_its_salt() -> None:
    assert hashed("john", b"1" * 16) == hashed("john", b"1" * 16) != hashed("john", b"2" * 16)
    assert hashed("john", b"1" * 16) != hashed("joan", b"1" * 16)
    assert len(hashed("john", b"1" * 16)) == 16
