"""Options of a file and of the command line: which wins, and every choice as it is typed."""

from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from qvit.cli.options import gather
from qvit.training.config import TrainConfig
from qvit.training.options import resolve

pytestmark = pytest.mark.usefixtures("untrained")


def test_precedence_of_options(tmp_path: Path) -> None:
    """A file, then --set, then the named ones; a later one wins."""
    options = tmp_path / "options.yaml"
    options.write_text("model: vit_4q1h\nepochs: 9\nseed: 9\nlr: 0.9\nbatch_size: 9\n")
    assert gather(options, ["seed=5", "epochs=5", "lr=0.5", "lr=0.25"], {"epochs": 1, "model": None}) == {
        "model": "vit_4q1h",
        "epochs": 1,
        "seed": 5,
        "lr": 0.25,
        "batch_size": 9,
    }


LITERALS = [
    (option, value)
    for option, kind in get_type_hints(TrainConfig).items()
    if get_origin(kind) is Literal
    for value in get_args(kind)
]


@pytest.mark.parametrize("source", ["--set", "--config"])
def test_every_choice_works_as_typed(tmp_path: Path, source: str) -> None:
    """YAML reads words such as on, off, yes and null as other things than words."""
    for option, value in LITERALS:
        (tmp_path / "options.yaml").write_text(f"{option}: {value}\n")
        given = (None, [f"{option}={value}"]) if source == "--set" else (tmp_path / "options.yaml", None)
        config = resolve(gather(*given, {"dataset": "phantom"}))
        assert getattr(config.train, option) == value


def test_choices_are_found() -> None:
    """Or the test above would test nothing."""
    assert {value for option, value in LITERALS if option == "tta"} == {"auto", "always", "never"}
    assert {option for option, _ in LITERALS} == {"schedule", "loss", "class_weights", "augment", "tta", "keep"}


@pytest.mark.parametrize("content", ["", "\n", "# nothing yet\n", "---\n"])
def test_an_empty_options_file_means_no_options(tmp_path: Path, content: str) -> None:
    (tmp_path / "options.yaml").write_text(content)
    assert gather(tmp_path / "options.yaml", None, {"seed": None, "size": 12}) == {"size": 12}
