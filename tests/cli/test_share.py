"""`qvit push`, and runs named hf://owner/name where a run folder can be named."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from answers.fake_hub import Hub, served

Qvit = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore::qvit.answers.predictor.CalibrationWarning"),
    pytest.mark.long,
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((20, 20), 90).convert("RGB").save("p.png")
    with served(tmp_path / "home", monkeypatch) as found:
        yield found


def test_a_push_tells_where_the_run_is(qvit: Qvit, run: Path, hub: Hub) -> None:
    told = qvit("push", run, "anna/cells", "--message", "first")
    commit = hub.repositories["anna/cells"].branches["main"]
    lines = [f"Pushed: {hub.endpoint}/anna/cells (private)", f"Commit: {commit}", "Load it: hf://anna/cells"]
    assert (told.code, told.out.splitlines()) == (0, lines)
    advice = "keeps no predictions of validation images. `qvit calibrate` makes them; push again."
    assert told.err == f"Not calibrated: {run} {advice}\n"
    assert hub.repositories["anna/cells"].messages[-1] == "first"
    assert qvit("calibrate", run).code == 0
    told = qvit("push", run, "cells", "--revision", "two", "--json")
    assert told.err == ""
    assert json.loads(told.out) == {
        "name": "hf://anna/cells@two",
        "address": f"{hub.endpoint}/anna/cells/tree/two",
        "commit": hub.repositories["anna/cells"].branches["two"],
        "private": True,
        "files": sorted(hub.files("anna/cells", "two")),
        "calibrated": True,
    }
    told = qvit("push", run, "open", "--public")
    assert told.out.splitlines()[0] == f"Pushed: {hub.endpoint}/anna/open (public)"


def test_a_run_on_a_hub_is_asked_as_one_here(qvit: Qvit, run: Path, hub: Hub) -> None:
    expected = qvit("predict", run, "p.png", "--jsonl")
    qvit("push", run, "anna/cells")
    assert qvit("predict", "hf://anna/cells", "p.png", "--jsonl").out == expected.out
    assert "Predictions of hf://anna/cells " in qvit("predict", "hf://anna/cells", "p.png").out
    both = qvit("predict", run, "p.png", "--with", "hf://anna/cells", "--json")
    assert json.loads(both.out)["predictions"] == [json.loads(expected.out)]
    told = qvit("explain", "hf://anna/cells", "p.png", "--beside", run, "--json")
    assert told.code == 0, told.err
    assert [case["run"] for case in json.loads(told.out)["cases"]] == ["cells", "run"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["push", "run", "anna/cells"], "hf://anna/cells: {} answered 503 (Later). Try again later."),
        (["predict", "hf://anna/cells", "p.png"], "hf://anna/cells: {} answered 503 (Later). Try again later."),
        (
            ["explain", "run", "p.png", "--beside", "hf://a/b@c"],
            "hf://a/b@c: {} answered 503 (Later). Try again later.",
        ),
    ],
)
def test_what_a_hub_refuses_is_one_line(qvit: Qvit, run: Path, hub: Hub, words: list[str], told: str) -> None:
    hub.refuse = 503, "Later"
    assert qvit(*words) == (2, "", f"Error: {told.format(hub.endpoint)}\n")


@pytest.mark.processes
@pytest.mark.slow("three processes, each of which imports torch")
def test_processes_go_by_the_environment(process: Qvit, run: Path, hub: Hub) -> None:
    told = process("push", run, "anna/cells")
    assert (told.code, told.err.count("\n")) == (0, 1), "the line that it is not calibrated"
    asked = process("predict", "hf://anna/cells", "p.png", "--jsonl")
    assert asked == process("predict", run, "p.png", "--jsonl")
    assert asked.code == 0
