"""From flat `key: value` options, as a YAML file or a command line gives them, to a validated configuration."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qvit.data.arrays import Dataset, load_dataset
from qvit.data.folds import MOST_FOLDS, Fold, hold_out
from qvit.data.options import DEFAULTS, IMPORT_KEYS, LARGEST_SEED, ImportOptions, check_side
from qvit.data.registry import SIZES, DatasetInfo, get_info, is_path
from qvit.documents import parse_yaml
from qvit.errors import ConfigError, FileError, nearest
from qvit.models.baselines import BASELINES
from qvit.models.projections import projection_options
from qvit.models.vit import ViTConfig
from qvit.models.zoo import OTHERS, SAID_BY_NAME, ModelConfig, model_config
from qvit.training.config import TrainConfig
from qvit.training.losses import make_loss
from qvit.training.recipes import check_name, found, read_flat, recipe_of, shipped_recipes, with_recipe
from qvit.validate import require, validated

TRAIN_KEYS = tuple(f.name for f in fields(TrainConfig))
# The options of training that plain baselines take, which take no steps.
OF_BASELINES = ("augment", "tta", "keep", "device", "threads")
GIVEN = ("in_chans", "num_classes", "img_size", "arch", *SAID_BY_NAME)  # by the data, and by the model's name


@dataclass(frozen=True)
class RunConfig:
    """What determines a run, together with the bytes of the data and the version of the code.

    `dataset` is a name, or the path of an `.npz` file, or of a folder or table of pictures, `size` the side of its
    images in pixels, `task` that of the user's own data (inferred if None), `importing` how pictures become a dataset,
    `model` a name of `models.zoo`, `model_options` fields of `ViTConfig` and its projection or of another kind's
    configuration, `seed` fixes initial weights, order of the images, augmentation, dropout and folds. With `folds`,
    training and validation images are divided into so many, and the run is trained without `fold`, from 1, and measured
    on that (see `data.folds`); nothing may be chosen by it. `stacked`: the model is computed as in a stack
    (`models.stack`), whether there are others in it or not. Numbers then differ in rounding from those of a model
    alone, which after many epochs is another model.
    """

    dataset: str
    model: str = "qvit_4q2h"
    seed: int = 0
    size: int = 28
    task: str | None = None
    stacked: bool = False
    folds: int | None = None
    fold: int | None = None
    recipe: str | None = None
    importing: ImportOptions = DEFAULTS
    model_options: dict[str, Any] = field(default_factory=dict)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be zero or more, got {self.seed}.")
        if self.seed > LARGEST_SEED:
            raise ConfigError(f"seed must be at most {LARGEST_SEED}, got {self.seed}.")
        check_side(self.size)
        if self.recipe is not None:
            check_name(self.recipe, "A run")
        self._check_folds()
        if self.model in BASELINES:
            self._check_baseline()

    def _check_baseline(self) -> None:
        usual = TrainConfig()
        for name in TRAIN_KEYS:
            if name not in OF_BASELINES and getattr(self.train, name) != getattr(usual, name):
                raise ConfigError(
                    f"{self.model} is fitted, not trained by steps, so it takes no {name} (got "
                    f"{getattr(self.train, name)}). Leave it out; of the options of training it takes "
                    f"{', '.join(OF_BASELINES)}."
                )

    def _check_folds(self) -> None:
        if self.folds is not None:
            require(2 <= self.folds <= MOST_FOLDS, "folds", f"from 2 to {MOST_FOLDS}", self.folds)
        if self.folds is None or self.fold is None:
            if self.folds != self.fold:
                raise ConfigError(
                    f"A run of a fold needs folds, how many there are, and fold, the one that is held out, got "
                    f"folds={self.folds} and fold={self.fold}. For all of them use `qvit train DATASET --folds 5`."
                )
            return
        require(1 <= self.fold <= self.folds, "fold", f"from 1 to {self.folds}", self.fold)
        if self.train.keep != "last" or self.train.tta == "auto":
            raise ConfigError(
                "A fold that is held out is measured, so nothing may be chosen by it: set keep=last, and tta=always or "
                f"tta=never, got keep={self.train.keep} and tta={self.train.tta}."
            )

    @property
    def held_out(self) -> Fold | None:
        """The fold that is held out, None of a run on the whole data."""
        return None if self.folds is None or self.fold is None else Fold(self.fold, self.folds, self.seed)

    @property
    def epochs(self) -> int:
        """How many epochs there are at most; a plain baseline is fitted in one."""
        return 1 if self.model in BASELINES else self.train.epochs

    @property
    def called(self) -> str:
        """What tells the run from others of its model and data, in names of files: s0, or s0-f1 of a fold."""
        return f"s{self.seed}" if self.fold is None else f"s{self.seed}-f{self.fold}"

    def load_data(self, root: str | Path | None = None, *, download: bool = True) -> Dataset:
        """Return what the run is trained and measured on, the dataset or a fold; raises as `load_whole` and a fold."""
        data, fold = self.load_whole(root, download=download), self.held_out
        return data if fold is None else hold_out(data, fold)

    def load_whole(self, root: str | Path | None = None, *, download: bool = True) -> Dataset:
        """Return the dataset; `root`, `download` and errors are those of `load_dataset`."""
        return load_dataset(
            self.dataset, size=self.size, root=root, download=download, task=self.task, importing=self.importing
        )

    def check_without_data(self) -> None:
        """Raise for a model or loss that cannot fit, if that is known before an official dataset is downloaded."""
        if not is_path(self.dataset):
            self.importing.refuse_for(f"Dataset '{self.dataset}'")
        if not is_path(self.dataset) and self.size in SIZES:
            info = get_info(self.dataset)
            self.architecture(info, self.size)
            make_loss(info.task, name=self.train.loss)

    def architecture(self, info: DatasetInfo, img_size: int) -> ModelConfig:
        """Return the configuration of the model for images of a dataset; raises as `zoo.model_config` does."""
        return model_config(
            self.model,
            in_chans=info.channels,
            num_classes=info.num_classes,
            img_size=img_size,
            **self.model_options,
        )


RUN_KEYS = ("dataset", "model", "seed", "size", "task", "stacked", "folds", "fold", "recipe")


def model_keys() -> tuple[str, ...]:
    """Return the options that models take, apart from those given by the data and the model's name."""
    kinds: tuple[type[Any], ...] = (ViTConfig, *OTHERS)
    own = dict.fromkeys(f.name for kind in kinds for f in fields(kind) if f.name not in GIVEN)
    return (*own, *projection_options())


def option_keys() -> tuple[str, ...]:
    """Return every key that `resolve` accepts."""
    return (*RUN_KEYS, *IMPORT_KEYS, *TRAIN_KEYS, *model_keys())


def resolve(options: dict[str, Any]) -> RunConfig:
    """Return the configuration for flat options; raises `ConfigError` for unknown keys and impossible values."""
    keys = option_keys()
    for key in options:
        if key not in keys:
            raise ConfigError(f"There is no option '{key}'.{nearest(key, keys)} Known options: {', '.join(keys)}.")
    if not options.get("dataset"):
        raise ConfigError(
            "No dataset given; name one (see `qvit data list`), or the path of a file or folder of yours."
        )
    train = validated(TrainConfig, {k: v for k, v in options.items() if k in TRAIN_KEYS})
    importing = validated(ImportOptions, {k: v for k, v in options.items() if k in IMPORT_KEYS})
    own = {k: v for k, v in options.items() if k in RUN_KEYS}
    model_options = {k: v for k, v in options.items() if k in model_keys()}
    return validated(RunConfig, own | {"train": train, "importing": importing, "model_options": model_options})


def read_options(path: Path) -> dict[str, Any]:
    """Return the flat options of a YAML file, or of a shipped recipe where `path` is its name and no such file exists.

    Those of the recipe that a file names stand below its own. Raises `ConfigError` for a missing, endless or malformed
    file, and for a recipe that is none.
    """
    path = found(path)
    said = read_flat(path, [f"a recipe, one of: {', '.join(shipped_recipes())}"])
    return recipe_of(said, str(path)).named if "about" in said else with_recipe(said)


def parse_assignment(text: str, flag: str = "--set") -> tuple[str, Any]:
    """Return key and value of `key=value`, the value read as YAML: `lr=0.01`, `clip_norm=null`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{flag} takes key=value, such as lr=0.005; got '{text:.200}'.")
    try:
        return key.strip(), parse_yaml(value, "it")
    except FileError as error:
        raise ConfigError(f"{flag} {key.strip():.80}: '{value:.200}' is not a value: {error}") from error
