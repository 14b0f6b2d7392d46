"""What config.json says of a run: all that determines it."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import qvit
from qvit.data.arrays import Dataset
from qvit.data.registry import is_path
from qvit.documents import one_line
from qvit.errors import ConfigError, FileError, RunError
from qvit.files import expanded, open_regular, remedy
from qvit.models import Baseline, count_parameters
from qvit.models.zoo import Model, ModelConfig
from qvit.training.folder import Run
from qvit.training.objective import Guide
from qvit.training.options import RunConfig
from qvit.training.places import recorded, with_places
from qvit.training.stored import ConfigFile, Origin


def describe(
    run: Run, config: RunConfig, data: Dataset, model: Model, guide: Guide | None, origin: Run | None
) -> ConfigFile:
    """Return the contents of config.json."""
    described: ConfigFile = {
        "qvit_version": qvit.__version__,
        "dataset": recorded(expanded(config.dataset), run.folder) if is_path(config.dataset) else data.info.name,
        "size": data.size,
        "task": data.info.task,
        "data_digest": (data.whole or data).digest,
        "classes": list(data.info.labels),
        "model": config.model,
        "model_config": asdict(model.config),
        "parameters": count_parameters(model),
        "seed": config.seed,
        "train": asdict(config.train),
        "origin": None if origin is None else _describe_origin(origin, model.config, run.folder),
        "guide": None if guide is None else with_places(guide.described, lambda place: recorded(place, run.folder)),
    }
    if isinstance(model, Baseline):  # which is fitted later: result.json says how many numbers it stores
        del described["parameters"]
    if config.importing.changed:
        described["importing"] = config.importing.changed
    if config.recipe is not None:
        described["recipe"] = config.recipe
    if config.stacked:
        described["stacked"] = True
    if config.folds is not None and config.fold is not None:
        if guide is not None or origin is not None:
            raise ConfigError(
                "A run of a fold learns from labels alone: another model may have seen the images that are held out. "
                "Leave out the guide and the run to start from, or folds and fold."
            )
        described |= {"folds": config.folds, "fold": config.fold}
    return described


def _describe_origin(origin: Run, architecture: ModelConfig, folder: Path) -> Origin:
    if not origin.finished:
        raise RunError(f"Cannot start from the run in {origin.folder}, which is not finished.")
    if origin.architecture != architecture:
        raise ConfigError(
            f"Cannot start from the run in {origin.folder}: its model ({origin.config['model']}) is not built like "
            "this one. Use the same model, options and dataset."
        )
    return {"weights": weights_digest(origin), "found_at": recorded(origin.folder, folder)}


def weights_digest(run: Run) -> str:
    """Return the SHA-256 of a finished run's weights; raises `RunError` where they are missing."""
    try:
        with open_regular(run.weights_path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileError, OSError) as error:
        advice = remedy(error, "train the run again")
        raise RunError(f"{run.weights_path} cannot be read ({one_line(error)}); {advice}.") from error
