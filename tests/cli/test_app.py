"""The command line as a whole: help of every command and group, and the version."""

import re
from collections.abc import Callable
from typing import Any

import pytest

import qvit as package
from cli.borders import COMMANDS

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_all_that_is_written_as_it_is_written(qvit: Qvit, path: tuple[str, ...]) -> None:
    """Square brackets are markup to rich: `pip install 'qvit[ray]'` became `'qvit'`."""
    told = qvit(*path, "--help")
    assert (told.code, told.err) == (0, "")
    assert " ".join(["Usage: qvit", *path]) in told.out
    command = COMMANDS[path]
    shown = re.sub(r"\s", "", told.out)
    texts = [command.help, *(parameter.help for parameter in command.params if not parameter.hidden)]
    for text in (text for text in texts if text):
        assert re.sub(r"\s", "", text).rstrip(".") in shown
    for name, inner in getattr(command, "commands", {}).items():
        first = inner.help.partition("\n\n")[0]
        assert name + re.sub(r"\s", "", first).rstrip(".") in shown


def test_commands_are_found() -> None:
    """Or the test above would test nothing."""
    assert {(), ("data",), ("study", "run"), ("bench", "layer"), ("train",)} <= COMMANDS.keys()
    assert sum("[" in (parameter.help or "") for command in COMMANDS.values() for parameter in command.params)


@pytest.mark.parametrize("group", [path for path, command in COMMANDS.items() if hasattr(command, "commands")])
def test_a_group_alone_shows_its_help(qvit: Qvit, group: tuple[str, ...]) -> None:
    told = qvit(*group)
    assert (told.code, told.err) == (0, "")
    assert told.out == qvit(*group, "--help").out
    assert "Commands:" in told.out


def test_help_shows_the_defaults(qvit: Qvit) -> None:
    told = re.sub(r"\s+", " ", qvit("train", "--help").out)
    for default in ("qvit_4q2h", "0", "100", "28", "runs/DATASET-MODEL-sSEED"):
        assert f"[default: ({default})]" in told
    assert "[default: ($QVIT_DATA, else your cache folder)]" in told
    demo = re.sub(r"\s+", " ", qvit("demo", "--help").out)
    assert "[default: (runs/demo-DATASET)]" in demo
    assert re.search(r"--epochs <int> .* \[default: 20\]", demo), "that many a slow machine does in two minutes"
    assert "$QVIT_DATA" in demo


def test_version(qvit: Qvit) -> None:
    assert qvit("--version") == (0, f"qvit {package.__version__}\n", "")
