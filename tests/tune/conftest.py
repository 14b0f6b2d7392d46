"""A small dataset, a small menu, and tunings of them that take no time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.data.arrays import Dataset, load_dataset
from qvit.training.together import Together
from qvit.tune.menu import Candidate, Kitchen, read_menu
from qvit.tune.trials import Cell
from suite.runs import make_npz  # noqa: F401 - a fixture

MENU = """
entries:
  - recipe: defaults
  - {recipe: defaults, options: {lr: 0.02}}
  - {recipe: defaults, model: cosine_4q1h}
draws:
  recipes: [defaults]
  changes: [1, 2]
  variants: 3
  kinds: [vit, cosine]
  sizes: [4q1h, 4q2h]
  options: {lr: [0.001, 0.003, 0.005], mlp_dim: [2, 4, 6], weight_decay: [0.0, 0.1]}
"""
SHORT = {"model": "vit_4q1h", "epochs": 1}


@pytest.fixture
def menu_file(tmp_path: Path) -> Path:
    path = tmp_path / "menu.yaml"
    path.write_text(MENU)
    return path


@pytest.fixture
def npz(make_npz: Callable[..., Path]) -> Path:  # noqa: F811 - the fixture above
    return make_npz()


@pytest.fixture
def data(npz: Path) -> Dataset:
    return load_dataset(npz)


@pytest.fixture
def kitchen(data: Dataset, npz: Path, menu_file: Path) -> Callable[..., Kitchen]:
    """What makes candidates of the small menu for the small dataset."""

    def make(
        text: str | None = None, *, model: str | None = "vit_4q1h", most: int | None = None, **given: Any
    ) -> Kitchen:
        if text is not None:
            menu_file.write_text(text)
        options = {"dataset": str(npz), "size": data.size, "epochs": 1} | given
        return Kitchen(read_menu(menu_file), data, options, model=model, most=most)

    return make


@pytest.fixture
def cell(npz: Path) -> Callable[..., Cell]:
    """A model without one of three folds."""

    def make(fold: int = 1, seed: int = 0, name: str = "one", **options: Any) -> Cell:
        held = {"folds": 3, "fold": fold, "seed": seed, "keep": "last", "tta": "always", "stacked": True}
        return Cell(name, fold - 1, {"dataset": str(npz)} | SHORT | held | options)

    return make


def nothing_learnt(trained: Together) -> tuple[list[float], Tensor]:
    """In place of the steps of an epoch: the weights stay as they are."""
    return [one.config.lr for one in trained.members], torch.ones(len(trained.members))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.training.loop.train_epoch", nothing_learnt)


def candidate(name: str, *, parameters: int = 100, baseline: bool = False) -> Candidate:
    return Candidate(name, f"about {name}", {}, parameters, baseline)
