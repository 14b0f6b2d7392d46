"""Runs as if trained on made-up files, and studies of them that are run in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvit.study import reading, runner
from qvit.study.outcome import Outcome
from qvit.study.reading import parse_study
from qvit.study.runner import Summary, run_study
from qvit.study.spec import Study
from study.inline import InlinePool, MakeNpz, Mishap, pretend
from suite.runs import few_will_do, make_npz, train_as_if  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies have the models that they name; tests of baselines say `baselines: auto`."""
    monkeypatch.setattr(reading, "DEFAULT_BASELINES", "never")


@pytest.fixture
def study(make_npz: MakeNpz) -> Callable[..., Study]:  # noqa: F811 - the fixture above
    """A study of tiny runs on a made-up file; what is given replaces parts of it."""

    def make(**changes: Any) -> Study:
        said = {
            "datasets": [str(make_npz())],
            "models": ["vit_4q1h", "cosine_4q1h"],
            "options": {"epochs": 2},
            "seeds": 1,
        } | changes
        return parse_study(json.dumps(said), name="tiny")

    return make


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Summary, InlinePool]]:
    """Run a study in one folder by a pool in this process."""

    def run(
        study: Study,
        mishap: Mishap | None = None,
        *,
        does: Callable[..., Outcome] = pretend,
        stacks: bool = False,
        **options: Any,
    ) -> tuple[Summary, InlinePool]:
        pool = InlinePool(mishap or (lambda work, number: None), does, stacks=stacks)
        monkeypatch.setattr(runner, "_pool", lambda *arguments: pool)
        return run_study(study, options.pop("folder", tmp_path / "study"), **options), pool

    return run


@pytest.fixture
def options_are_not_the_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is checked for which models would have to be built."""
    monkeypatch.setattr(reading, "_check_options", lambda jobs: None)
