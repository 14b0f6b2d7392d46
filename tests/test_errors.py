"""Errors: messages of one line that can be shown, however long, and the nearest of known names."""

import pytest

from qvit.errors import FileError, QvitError, nearest, printable


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no option 'a\nb'", "no option 'a b'"),
        ("a\r\nb\u2028c\x0bd", "a b c d"),
        ("\x1b[2J\x00\t", "\\x1b[2J\\x00\\t"),
        ("x\ud800/\udcff", "x\\ud800/\\udcff"),
        ("é × “ﬃ” 木\xa0\u3000", "é × “ﬃ” 木\xa0\u3000"),
        ("", ""),
    ],
)
def test_messages_are_one_line_that_can_be_shown(message: str, shown: str) -> None:
    assert str(QvitError(message)) == printable(message) == shown
    assert str(FileError(message)) == shown


def test_the_middle_of_a_long_message_is_left_out() -> None:
    assert printable("a" * 10_000 + "b" * 10_000) == "a" * 4000 + " … " + "b" * 4000


def test_nearest_takes_whatever_stands_for_a_name() -> None:
    assert nearest("epoch", ["epochs", "lr"]) == " Did you mean 'epochs'?"
    assert nearest(None, ["null", "none"]) == " Did you mean 'none'?"
    for name in (3, 2.5, True, (), b"x", "", "\ud800", "x" * 10**6):
        assert nearest(name, ["epochs", "lr"]) == ""
