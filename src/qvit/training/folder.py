"""A run is a folder: configuration, environment, metrics by epoch, weights, predictions, result.

config.json         what determines the run            metrics.jsonl       one line an epoch
environment.json    where and with what it ran         timings.jsonl       seconds of each epoch
model.safetensors   the chosen weights                 {dataset}_{split}_[AUC]…csv   predictions
result.json         the final figures, written last    state.pt            only while unfinished
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from qvit.data.arrays import Dataset, load_dataset
from qvit.data.npz import md5_of
from qvit.data.registry import is_path
from qvit.errors import RunError
from qvit.evaluation.results import read_result, result_start
from qvit.models.zoo import Model, build, read_config
from qvit.training.checkpoint import load_weights
from qvit.training.seeding import INIT, seeded
from qvit.training.surroundings import surroundings

FOUND_AT = "found_at"  # keys of this name say where something lay, and not what it is


@dataclass(frozen=True)
class Run:
    """A run folder, read on demand. Raises `RunError` where a file is missing or damaged."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """What determines the run."""
        return self._json(
            "config.json", ("dataset", "size", "task", "data_digest", "model", "model_config", "seed", "train")
        )

    @property
    def finished(self) -> bool:
        """Whether training and evaluation are complete."""
        return (self.folder / "result.json").exists()

    @cached_property
    def result(self) -> dict[str, Any]:
        """The final figures."""
        if not self.finished and (self.folder / "config.json").exists():
            raise RunError(f"The run in {self.folder} is not finished; go on with `qvit train … --resume`.")
        return self._json("result.json", ("parameters", "best_epoch", "tta", "val", "test"))

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record an epoch."""
        return self._lines("metrics.jsonl", "val_auc")

    @property
    def seconds(self) -> float:
        """Time spent in training epochs, in seconds."""
        return sum(line["seconds"] for line in self.timings)

    @property
    def timings(self) -> list[dict[str, Any]]:
        """Seconds of each epoch."""
        return self._lines("timings.jsonl", "seconds")

    def predictions(self, split: str) -> Float[np.ndarray, "n k"]:
        """Return the probabilities written for a split ("val" or "test")."""
        start = result_start(flag_of(self.config["dataset"]), self.config["size"], split)
        paths = [path for path in self.folder.glob("*.csv") if path.name.startswith(start)]
        if len(paths) != 1:
            raise RunError(f"Expected one prediction file of the {split} split in {self.folder}, found {len(paths)}.")
        return read_result(paths[0])[1]

    @property
    def weights_path(self) -> Path:
        """The file of the chosen weights."""
        return self.folder / "model.safetensors"

    def load_model(self) -> Model:
        """Return the trained model in evaluation mode."""
        with surroundings(), seeded(0, INIT):  # these first weights are nobody's business
            model = build(read_config(self.config["model_config"]))
        path = self.weights_path
        try:
            model.load_state_dict(load_weights(path))
        except RuntimeError as error:
            raise RunError(f"{path} does not fit the model in config.json; train the run again.") from error
        return model.eval()

    def load_data(self, root: str | Path | None = None) -> Dataset:
        """Return the data the run was trained on; raises `RunError` if the file has changed since.

        A file of the user's that was moved together with the run is found where it lies now.
        """
        config = self.config
        own = is_path(config["dataset"])
        place = self._place_of_data() if own else config["dataset"]
        data = load_dataset(place, size=config["size"], root=root, task=config["task"] if own else None)
        if data.digest != config["data_digest"]:
            raise RunError(
                f"The run in {self.folder} was trained on other data: expected {config['dataset']} with digest "
                f"{config['data_digest']}, found {data.digest}."
            )
        return data

    def _place_of_data(self) -> str:
        """Return where the user's file lay, or lies now in a folder above the run's, by as much of its path as is left.

        Another file of that name is none.
        """
        lay = Path(self.config["dataset"])
        if lay.exists():
            return str(lay)
        tails = [Path(*lay.parts[-length:]) for length in range(len(lay.parts) - 1, 0, -1)]
        for folder in self.folder.resolve().parents:
            for place in (folder / tail for tail in tails):
                if place.is_file() and md5_of(place) == self.config["data_digest"]:
                    return str(place)
        return str(lay)

    def _json(self, name: str, keys: Sequence[str]) -> dict[str, Any]:
        path = self.folder / name
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"{self.folder} is not a run folder: {name} is missing.") from error
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}); train the run again.") from error
        missing = [key for key in keys if key not in found]
        if missing:
            raise RunError(f"{path} is not that of a run: it holds no {', '.join(missing)}.")
        return found

    def _lines(self, name: str, key: str) -> list[dict[str, Any]]:
        path = self.folder / name
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}); train the run again.") from error
        if not all(isinstance(line, dict) and key in line for line in lines):
            raise RunError(f"{path} cannot be read (a line holds no {key}); train the run again.")
        return lines


def flag_of(dataset: str) -> str:
    """Return the dataset's name as MedMNIST's file names allow it: letters and digits of ASCII."""
    return (
        "".join(character for character in Path(dataset).stem if character.isascii() and character.isalnum()) or "data"
    )


def short_name(model: str) -> str:
    """Return a model's name as file names allow it: timm's have a slash."""
    return model.replace("/", "-")


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
