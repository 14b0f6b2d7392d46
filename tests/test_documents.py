"""YAML and JSON from outside: the scalars of YAML 1.2, and what is out of bounds refused in one line."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.documents import DEEPEST, MOST_VALUES, parse_json, parse_yaml, read_json, read_yaml
from qvit.errors import FileError
from qvit.files import read_bytes

# What the core schema of YAML 1.2 (section 10.3.2) makes of a plain scalar.
SCALARS: list[tuple[str, Any]] = [
    *[(word, None) for word in ("", "~", "null", "Null", "NULL")],
    *[(word, True) for word in ("true", "True", "TRUE")],
    *[(word, False) for word in ("false", "False", "FALSE")],
    *[("0", 0), ("010", 10), ("-019", -19), ("+12", 12), ("0o17", 15), ("0x1F", 31)],
    ("18446744073709551615", 2**64 - 1),
    *[("1.", 1.0), (".5", 0.5), ("-0.0", -0.0), ("1e3", 1000.0), ("12e-03", 0.012), ("+1.5E+2", 150.0)],
    *[(".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf), (".nan", math.nan), (".NAN", math.nan)],
    # Text there, and something else in YAML 1.1, of which some is silently another value.
    *[(word, word) for word in ("yes", "Yes", "no", "on", "Off", "y", "nUll", "tRUE", "1_000", "1:30", "190:20:30")],
    *[(word, word) for word in ("0b11", "0o8", "-0x1", "0x", "1e", ".", "+.nan", "inf", "nan", "=", "<<", "١")],
    *[(word, word) for word in ("2024-01-01", "2024-13-45", "2001-12-14t21:59:43.10-05:00")],
]  # fmt: skip


@pytest.mark.parametrize(("word", "value"), SCALARS)
def test_plain_scalars_are_those_of_yaml_1_2(word: str, value: Any) -> None:
    for read in (parse_yaml(word, "it"), parse_yaml(f"key: {word}", "it")["key"], parse_yaml(f"[{word} ]\n", "it")):
        read = read[0] if isinstance(read, list) and read else None if read == [] else read
        assert type(read) is type(value)
        assert repr(read) == repr(value)


@pytest.mark.parametrize("word", [word for word, value in SCALARS if not isinstance(value, str)])
def test_quotes_make_text(word: str) -> None:
    assert parse_yaml(f"'{word}'", "it") == parse_yaml(f'"{word}"', "it") == parse_yaml(f"!!str {word}", "it") == word


def test_collections_anchors_and_blocks() -> None:
    text = "a: &x {b: [1, 010]}\nc: *x\n? d\n: |\n  one\n  two\n3: {}\n"
    assert parse_yaml(text, "it") == {"a": {"b": [1, 10]}, "c": {"b": [1, 10]}, "d": "one\ntwo\n", 3: {}}
    assert parse_yaml("<<: {a: 1}\nb: 2", "it") == {"<<": {"a": 1}, "b": 2}, "merge keys are YAML 1.1's"
    assert parse_yaml("!!float 3", "it") == 3.0


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' appears twice"),
        ("{1: a, 0x1: b}", "the key 1 appears twice"),
        ("? [a]\n: b", "a key must be a single value"),
        ("? {a: b}\n: b", "a key must be a single value"),
        (LAUGHS, f"it holds too many values: more than {MOST_VALUES:,}"),
        ("&a [*a]", f"more than {DEEPEST} mappings or lists within one another"),
        ("&a {b: *a}", f"more than {DEEPEST} mappings or lists within one another"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} mappings or lists within one another"),
        ("[" * 20_000, "nested too deeply"),
        ("*a", "found undefined alias"),
        ("1e400", "the number 1e400 is too large"),
        ("-1" + "0" * 400 + ".0", "is too large"),
        ("18446744073709551616", "the whole number 18446744073709551616… is too large, of more than 64 bits"),
        ("0x" + "f" * 20_000, "is too large"),
        ("9" * 20_000, "is too large"),
        ("!!int x", "'x' is not what its tag says, int"),
        ("!!int 1_0", "'1_0' is not what its tag says, int"),
        ("!!float 1_0", "'1_0' is not what its tag says, float"),
        ("!!bool yes", "'yes' is not what its tag says, bool"),
        ("!!null x", "'x' is not what its tag says, null"),
        ("!!map 3", "expected a mapping node"),
        ("!!map [a]", "expected a mapping node"),
        ("!!seq 3", "expected a sequence node"),
        *[(f"!!{tag} a", "could not determine a constructor") for tag in ("set", "omap", "binary", "timestamp")],
        ("!!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("!own a", "could not determine a constructor"),
        ("!!merge <<: {a: 1}", "could not determine a constructor"),
        ('"\\ud800"', "text that is not valid Unicode: '\\ud800'"),
        ('{"\\ud800": 1}', "text that is not valid Unicode: '\\ud800'"),
        *[(f'"\\U{number}"', "is not valid YAML") for number in ("00110000", "FFFFFFFF")],
        ("a: \x00", "special characters are not allowed"),
        ("\ud800", "special characters are not allowed"),
        ("--- 1\n--- 2", "expected a single document"),
        ("a: [1, 2", "line 1: while parsing a flow sequence, expected ',' or ']'"),
        ("a: 1\n\tb: 2", "line 2: while scanning for the next token, found character '\\t'"),
    ],
)  # fmt: skip
def test_refuses_yaml(text: str, told: str) -> None:
    with pytest.raises(FileError) as caught:
        parse_yaml(text, "it")
    assert told in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Expecting value"),
        ("010", "Extra data"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' appears twice"),
        ("1e400", "the number 1e400 is too large"),
        ("18446744073709551616", "is too large, of more than 64 bits"),
        ("9" * 20_000, "is too large"),
        ('["\\ud800"]', "text that is not valid Unicode: '\\ud800'"),
        ('{"\\ud800": 1}', "text that is not valid Unicode: '\\ud800'"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} mappings or lists within one another"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_refuses_json(text: str, told: str) -> None:
    with pytest.raises(FileError) as caught:
        parse_json(text, "it")
    assert told in str(caught.value)
    assert str(caught.value).isprintable()


def test_json_is_read_as_python_writes_it() -> None:
    value = {"a": [1, 2.5, None, True, -(2**63)], "é": {"": "x\ny"}, "loss": math.inf}
    assert parse_json(json.dumps(value), "it") == value


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_files_that_never_end_or_are_none(read: Callable[..., Any], tmp_path: Path, pipe: Path) -> None:
    found = ((pipe, "a pipe or a device"), (Path("/dev/zero"), "a pipe or a device"), (tmp_path, "a folder"))
    for path, kind in found:
        with pytest.raises(FileError, match=f"Cannot read {path}: expected a regular file, found {kind}"):
            read(path)
    with pytest.raises(FileError, match="There is no file") as caught:
        read(tmp_path / "missing")
    assert caught.value.missing
    (tmp_path / "large").write_text("[1, 2]")
    with pytest.raises(FileError, match="expected at most 5 bytes, found more"):
        read(tmp_path / "large", most=5)
    with pytest.raises(FileError, match="embedded null byte"):
        read(Path("a\0b"))


def test_reading_leaves_no_file_open(tmp_path: Path, pipe: Path) -> None:
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir()))
    for path in (tmp_path, pipe):
        with pytest.raises(FileError):
            read_bytes(path, most=1)
    assert len(list(opened.iterdir())) == before
