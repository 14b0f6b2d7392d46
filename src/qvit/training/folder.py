"""A run is a folder: configuration, environment, metrics by epoch, weights, predictions, result.

config.json         what determines the run            metrics.jsonl       one line per epoch
environment.json    where and with what it ran         timings.jsonl       seconds of each epoch
model.safetensors   the chosen weights                 {dataset}_{split}_[AUC]…csv   predictions
result.json         the final figures, written last    state.pt            only while unfinished
"""

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from qvit.data.arrays import Dataset, load_dataset
from qvit.data.folds import Fold, hold_out
from qvit.data.options import ImportOptions
from qvit.data.registry import is_path, name_of
from qvit.data.source import Asked, imported_before
from qvit.documents import one_line, parse_json, read_json
from qvit.errors import ConfigError, FileError, QvitError, RunError
from qvit.evaluation.medmnist_files import read_result, result_start
from qvit.files import read_text, remedy, unseen
from qvit.models.zoo import Model, ModelConfig, build, read_config
from qvit.training.checkpoint import check_weights, load_weights
from qvit.training.config import TrainConfig
from qvit.training.places import located, remembered
from qvit.training.records import EpochRecord, Result
from qvit.training.seeding import INIT, seeded
from qvit.training.stored import ConfigFile, EpochLine, ResultFile, TimingLine, checked
from qvit.training.surroundings import surroundings
from qvit.validate import validated

LARGEST = 1 << 20  # bytes of config.json and result.json
LARGEST_LINES = 64 << 20  # of metrics.jsonl and timings.jsonl


@dataclass(frozen=True)
class Run:
    """A run folder, read on demand. Raises `RunError` where a file is missing or damaged."""

    folder: Path

    @cached_property
    def config(self) -> ConfigFile:
        """What determines the run, from config.json."""
        found: ConfigFile = self._json("config.json", ConfigFile)
        found["train"] = asdict(TrainConfig()) | found["train"]  # earlier versions had fewer options
        if ("fold" in found) != ("folds" in found) or found.get("fold", 0) > found.get("folds", 0):
            told = f"it tells of fold {found.get('fold')} of {found.get('folds')}"
            raise RunError(f"{self.folder / 'config.json'} is damaged ({told}); train the run again.")
        return found

    @property
    def dataset(self) -> str:
        """The name of the dataset, or the absolute path at which the user's own data lay."""
        said = self.config["dataset"]
        return str(located(said, self.folder)) if is_path(said) else said

    @property
    def architecture(self) -> ModelConfig:
        """The configuration of the model."""
        return read_config(self.config["model_config"])

    @property
    def training(self) -> TrainConfig:
        """The options of training."""
        return validated(TrainConfig, self.config["train"])

    @property
    def fold(self) -> Fold | None:
        """The fold that was held out, of a run that took part in a cross-validation."""
        config = self.config
        return Fold(config["fold"], config["folds"], config["seed"]) if "fold" in config else None

    @property
    def finished(self) -> bool:
        """Whether training and evaluation are complete."""
        return os.path.exists(self.folder / "result.json")  # noqa: PTH110 - Path.exists raises for some names

    @cached_property
    def result(self) -> Result:
        """The final figures."""
        if not self.finished and os.path.exists(self.folder / "config.json"):  # noqa: PTH110
            raise RunError(f"The run in {self.folder} is not finished; go on with `qvit train … --resume`.")
        return Result.of(self._json("result.json", ResultFile))

    @property
    def history(self) -> list[EpochRecord]:
        """One record per epoch."""
        return [EpochRecord.of(line) for line in self._lines("metrics.jsonl", EpochLine)]

    @property
    def seconds(self) -> float:
        """Time spent in training epochs, in seconds."""
        return sum(line["seconds"] for line in self.timings)

    @property
    def timings(self) -> list[TimingLine]:
        """Seconds of each epoch."""
        return self._lines("timings.jsonl", TimingLine)

    def predictions(self, split: str) -> Float[np.ndarray, "n k"]:
        """Return the probabilities written for a split ("val" or "test")."""
        start = result_start(flag_of(self.config["dataset"]), self.config["size"], split)
        paths = [path for path in self.folder.glob("*.csv") if path.name.startswith(start)]
        if len(paths) != 1:
            raise RunError(f"Expected one prediction file of the {split} split in {self.folder}, found {len(paths)}.")
        scores = read_result(paths[0])[1]
        if scores.shape[1] != self.architecture.num_classes:
            raise RunError(
                f"{paths[0]} holds {scores.shape[1]} scores per image, and this run's model tells "
                f"{self.architecture.num_classes} classes apart; train the run again."
            )
        return scores

    @property
    def weights_path(self) -> Path:
        """The file of the chosen weights."""
        return self.folder / "model.safetensors"

    def load_model(self) -> Model:
        """Return the trained model in evaluation mode."""
        architecture, path = self.architecture, self.weights_path
        weights = load_weights(path)
        try:
            with surroundings(), seeded(0, INIT, alone=False):  # these first weights are replaced
                check_weights(weights, architecture)
                model = build(architecture)
                model.load_state_dict(weights)
        except RuntimeError as error:
            raise RunError(f"{path} does not fit the model in config.json; train the run again.") from error
        return model.eval()

    def load_data(
        self, root: str | Path | None = None, *, file: str | Path | None = None, download: bool = True
    ) -> Dataset:
        """Return the data the run was trained on. A fold that was held out is validation and test split there.

        `root` is the folder of the official files, `file` the new path of the user's own file; one moved together with
        the run is found without it. Raises `RunError` if the data have changed since or are no longer there.
        """
        config = self.config
        name, own = self.dataset, is_path(config["dataset"])
        if file is not None and not own:
            raise ConfigError(
                f"The run in {self.folder} was trained on {name}, not on a file of yours; "
                "use --root FOLDER (in Python root=…) for the folder of its file."
            )
        found = self._place_of_data() if own and file is None else file
        if own and (found is None or not os.path.exists(found)) and file is None:  # noqa: PTH110
            raise RunError(
                f"The run in {self.folder} was trained on {name}, which is not there any more. "
                "Say where the file lies now with --data FILE (in Python file=…)."
            )
        place = name if found is None else found
        data = self._load(place, root) if own else load_dataset(name, config["size"], root, download)
        if data.digest != config["data_digest"]:
            raise RunError(
                f"The run in {self.folder} was trained on other data: expected {name} with digest "
                f"{config['data_digest']}, found {data.digest}{'' if file is None else f' in {file}'}."
            )
        return data if self.fold is None else hold_out(data, self.fold)

    def is_of(self, file: str | Path, root: str | Path | None = None) -> bool:
        """Return whether a user's own file or folder holds the data the run was trained on, wherever it lies now."""
        if not is_path(self.config["dataset"]):
            return False
        with suppress(QvitError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an import, which is none if the data are others
            return self._load(file, root).digest == self.config["data_digest"]
        return False

    def _place_of_data(self) -> str:
        """Return the user's data: at the recorded place, where data like these lay last, or below a folder above.

        Below a folder above the run's, the end of the recorded path counts; a file with other content does not, nor
        do pictures that were never imported, as these may be anybody's.
        """
        # Methods of Path raise for places that may not be read, as in another user's folder, and for names too long.
        lay = Path(self.dataset)
        if os.path.exists(lay):  # noqa: PTH110
            return str(lay)
        for known in remembered(self.config["data_digest"]):
            if Path(known).name == lay.name and os.path.exists(known):  # noqa: PTH110
                return known
        tails = [Path(*lay.parts[-length:]) for length in range(len(lay.parts) - 1, 0, -1)]
        for folder in self.folder.resolve().parents:
            for place in (folder / tail for tail in tails):
                with suppress(QvitError):  # a file of this name that may not be read does not count
                    if os.path.exists(place) and self._is_of_this(place):  # noqa: PTH110
                        return str(place)
        return str(lay)

    def _is_of_this(self, place: Path) -> bool:
        asked = Asked(place, self.config["size"], None, False, self.config["task"], self._importing(place))
        if place.suffix != ".npz" and not imported_before(place, asked):
            return False
        return self._load(place, None).digest == self.config["data_digest"]

    def _load(self, place: str | Path, root: str | Path | None) -> Dataset:
        """Return the user's own data at a place: as a path, since a name such as `cells` would be a dataset's."""
        config, importing = self.config, self._importing(Path(place))
        return load_dataset(Path(place), size=config["size"], root=root, task=config["task"], importing=importing)

    def _importing(self, place: Path) -> ImportOptions:
        """Return how pictures become this run's data; an .npz file takes no options: it may be what was imported."""
        return validated(ImportOptions, {} if place.suffix == ".npz" else self.config.get("importing", {}))

    def _json(self, name: str, kind: Any) -> Any:
        path = self.folder / name
        try:
            return checked(read_json(path, most=LARGEST), kind, "it")
        except FileError as error:
            if error.missing or not os.path.isdir(self.folder):  # noqa: PTH112
                raise RunError(f"{self.folder} is not a run folder: {name} is missing.") from error
            state = "cannot be read" if unseen(error) else "is damaged"
            raise RunError(f"{path} {state} ({one_line(error)}); {remedy(error, 'train the run again')}.") from error

    def _lines(self, name: str, kind: Any) -> list[Any]:
        """Return the records of a file, one line per epoch."""
        path, records = self.folder / name, []
        try:
            for number, line in enumerate(read_text(path, most=LARGEST_LINES).removesuffix("\n").split("\n"), 1):
                records.append(checked(parse_json(line, f"line {number}"), kind, f"line {number}"))
                if records[-1]["epoch"] != number:
                    raise FileError(f"line {number} is of epoch {records[-1]['epoch']}.")
        except FileError as error:
            advice = remedy(error, "train the run again")
            raise RunError(f"{path} cannot be read ({one_line(error)}); {advice}.") from error
        return records


def named_classes(run: Run) -> tuple[str, ...]:
    """Return the names of a run's classes, or labels; numbers for runs of earlier versions, which have none."""
    return tuple(run.config.get("classes") or map(str, range(run.architecture.num_classes)))


def flag_of(dataset: str) -> str:
    """Return the dataset's name as MedMNIST's file names allow it: letters and digits of ASCII."""
    return "".join(character for character in name_of(dataset) if character.isascii() and character.isalnum()) or "data"


def short_name(model: str) -> str:
    """Return a model's name as file names allow it: timm's have a slash."""
    return model.replace("/", "-")


def flatten(config: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
