"""Train and evaluate one model into a run folder, and go on with it after any interruption."""

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

import qvit
from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.data.registry import is_path
from qvit.errors import ConfigError, DataError, RunError
from qvit.evaluation.metrics import evaluate
from qvit.evaluation.results import write_result
from qvit.evaluation.statistics import bootstrap_interval
from qvit.files import PART, sole_user, write_atomic
from qvit.models import Network, NetworkConfig, count_parameters, model_config
from qvit.models.pretrained import load_imagenet
from qvit.models.zoo import Model, ModelConfig, build, read_config
from qvit.training.checkpoint import load_state, load_weights, save_state, save_weights
from qvit.training.folder import Run, flag_of, flatten, short_name
from qvit.training.loop import Objective, TrainConfig, TrainState, check_device, fit
from qvit.training.losses import make_loss
from qvit.training.options import RunConfig
from qvit.training.prediction import predict
from qvit.training.seeding import INIT, seeded, torch_threads

Progress = Callable[[dict[str, Any], float], None]
STATISTICS_BYTES = 2**25  # of images at a time
FOUND_AT = "found_at"  # keys of this name say where something lay, and not what it is


class PretrainedWarning(UserWarning):
    """Published weights that were asked for and could not be had."""


@runtime_checkable
class Guide(Protocol):
    """What a run learns from instead of the labels, or beside them; see `qvit.distill`."""

    @property
    def described(self) -> dict[str, Any]:
        """What of it determines the run, for config.json."""

    def prepare(self, model: Model, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        """Return the data to train on, its validation split that of `data`, and what to minimise."""


def train_run(
    config: RunConfig,
    folder: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = True,
    resume: bool = False,
    replace: bool = False,
    guide: Guide | None = None,
    origin: Run | None = None,
    on_epoch: Progress | None = None,
) -> Run:
    """Train and evaluate one model; everything lands in `folder`.

    With `resume` an unfinished run goes on from its last whole epoch, bit for bit as if it had not stopped, and a
    finished one is returned as it is. With `replace` an earlier run of the same model on the same dataset is deleted,
    once data and options have been checked. With `guide` the model learns what that says and not just the labels;
    with `origin` it starts from that finished run's weights. ImageNet's, where asked for, are downloaded, or there is
    a `PretrainedWarning` and none are used. The test split is read once, after training.
    Raises `RunError` if the folder holds something else, and all errors of data, model and training.
    """
    data = load_dataset(config.dataset, size=config.size, root=root, download=download, task=config.task)
    run = Run(Path(folder))
    earlier = run if resume and (run.folder / "config.json").exists() else None
    architecture = _architecture(config, data, origin or earlier, download=download)
    described = _describe(config, data, architecture, guide, origin)
    _check_measurable(data)
    check_device(config.train.device)
    make_loss(data.info.task, name=config.train.loss)  # refuses one that does not fit, before there is a folder
    _make_folder(run.folder)
    with sole_user(run.folder), torch_threads(config.train.threads):
        _claim(run, described, resume=resume, replace=replace)
        if not run.finished:
            _train(run, architecture, config, data, guide, origin, on_epoch)
        (run.folder / "state.pt").unlink(missing_ok=True)
    return Run(run.folder)


def _check_measurable(data: Dataset) -> None:
    """Refuse now what would only fail after training: splits on which no AUC exists."""
    for name in ("val", "test"):
        labels = data[name].labels
        if (labels == labels[0]).all():
            raise DataError(
                f"{data.path or data.info.title}: expected at least two classes in {name}_labels, found only "
                f"{labels[0].tolist()}. AUC compares classes: add images of another, or split anew."
            )


def _architecture(config: RunConfig, data: Dataset, earlier: Run | None, *, download: bool) -> ModelConfig:
    """Return what model to build: without published weights if they cannot be had, or if an earlier run had none."""
    architecture = model_config(
        config.model,
        in_chans=data.info.channels,
        num_classes=data.info.num_classes,
        img_size=data.size,
        **config.model_options,
    )
    if not isinstance(architecture, NetworkConfig) or architecture.pretrained is None:
        return architecture
    if earlier is not None:
        return replace(architecture, pretrained=earlier.config["model_config"].get("pretrained"))
    try:
        with torch.random.fork_rng():  # this network is thrown away: its random numbers are nobody's business
            load_imagenet(Network(architecture), download=download)
    except DataError as error:
        warnings.warn(f"{error} Training {architecture.arch} from scratch.", PretrainedWarning, stacklevel=3)
        return replace(architecture, pretrained=None)
    return architecture


def _describe(
    config: RunConfig, data: Dataset, architecture: ModelConfig, guide: Guide | None, origin: Run | None
) -> dict[str, Any]:
    """Return the contents of config.json."""
    return {
        "qvit_version": qvit.__version__,
        "dataset": str(Path(config.dataset).expanduser().resolve()) if is_path(config.dataset) else data.info.name,
        "size": data.size,
        "task": data.info.task,
        "data_digest": data.digest,
        "model": config.model,
        "model_config": asdict(architecture),
        "parameters": count_parameters(architecture),
        "seed": config.seed,
        "train": asdict(config.train),
        "origin": None if origin is None else _describe_origin(origin, architecture),
        "guide": None if guide is None else guide.described,
    }


def _describe_origin(origin: Run, architecture: ModelConfig) -> dict[str, Any]:
    if not origin.finished:
        raise RunError(f"Cannot start from the run in {origin.folder}, which is not finished.")
    if read_config(origin.config["model_config"]) != architecture:
        raise ConfigError(
            f"Cannot start from the run in {origin.folder}: its model ({origin.config['model']}) is not built like "
            "this one. Use the same model, options and dataset."
        )
    return {"weights": weights_digest(origin), FOUND_AT: str(origin.folder.resolve())}


def weights_digest(run: Run) -> str:
    """Return the SHA-256 of a finished run's weights; raises `RunError` where they are missing."""
    try:
        return hashlib.sha256(run.weights_path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{run.weights_path} cannot be read ({error}); train the run again.") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"Cannot use {folder} as a run folder: {error.strerror or error}. Choose another with --out."
        ) from error


def _empty(folder: Path) -> None:
    """Delete the files of a run: the result first, so that a half-emptied folder never looks finished."""
    paths = sorted(folder.iterdir(), key=lambda path: (path.name == "config.json") - (path.name == "result.json"))
    if any(path.is_dir() for path in paths):
        raise RunError(f"{folder} holds folders that no run makes; it was left as it is. Choose another with --out.")
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise RunError(f"Cannot empty {folder}: {error.strerror or error}. Choose another with --out.") from error


def _claim(run: Run, described: dict[str, Any], *, resume: bool, replace: bool) -> None:
    """Make sure that the folder is new, or holds this very run and may be continued, or one that may be replaced."""
    if replace and (run.folder / "config.json").exists():
        earlier = Run(run.folder).config
        if all(earlier[key] == described[key] for key in ("dataset", "model")):
            _empty(run.folder)
    names = [entry.name for entry in run.folder.iterdir() if not entry.name.startswith(".")]
    if "config.json" in names:
        if not resume:
            raise RunError(
                f"{run.folder} already holds a {'finished' if run.finished else 'started'} run. "
                "Go on with it by --resume, or choose another folder with --out."
            )
        ours, theirs = flatten(described), flatten(run.config)
        keys = [key for key in dict.fromkeys([*ours, *theirs]) if not key.endswith(FOUND_AT)]
        differing = [key for key in keys if theirs.get(key) != ours.get(key)]
        if differing:
            changes = "; ".join(f"{key}: {theirs.get(key)} → {ours.get(key)}" for key in differing)
            raise RunError(f"{run.folder} holds a run with another configuration ({changes}). Choose another --out.")
    elif names:
        raise RunError(f"{run.folder} is not empty and not a run folder; choose another with --out.")
    else:
        write_atomic(run.folder / "config.json", _dump(described))
    for leftover in run.folder.glob(f".*{PART}"):
        leftover.unlink()
    if "environment.json" not in names:
        write_atomic(run.folder / "environment.json", _dump(_environment()))


def _train(
    run: Run,
    architecture: ModelConfig,
    config: RunConfig,
    data: Dataset,
    guide: Guide | None,
    origin: Run | None,
    on_epoch: Progress | None,
) -> None:
    state_path = run.folder / "state.pt"
    state = load_state(state_path) if state_path.exists() else None
    model = build_model(architecture, data, seed=config.seed, published=state is None and origin is None)
    if origin is not None:
        model.load_state_dict(load_weights(origin.weights_path))
    to_learn, objective = data, None
    if guide is not None:
        to_learn, objective = guide.prepare(model, data, config.train, seed=config.seed)

    def record(state: TrainState) -> None:
        save_state(state_path, state)
        _write_history(run.folder, state)
        if on_epoch is not None:
            on_epoch(state.history[-1], state.seconds[-1])

    state = fit(model, to_learn, config.train, seed=config.seed, objective=objective, state=state, on_epoch=record)
    _write_history(run.folder, state)  # again, in case the run was killed between the state and this
    save_weights(run.weights_path, model.state_dict())
    _evaluate(run, model, data, config, state.best)


def build_model(architecture: ModelConfig, data: Dataset, *, seed: int, published: bool = True) -> Model:
    """Return a fresh model whose weights are fixed by the seed and which normalises as the training images need.

    A network that is to start from published weights has them, unless `published` says that it will get others anyway.
    """
    with seeded(seed, INIT):
        model = build(architecture)
    if published and isinstance(model, Network) and model.config.pretrained:
        load_imagenet(model)
    model.preprocess.set_statistics(*channel_statistics(data.train))
    return model


def _write_history(folder: Path, state: TrainState) -> None:
    timings = [{"epoch": epoch, "seconds": round(seconds, 4)} for epoch, seconds in enumerate(state.seconds, 1)]
    write_atomic(folder / "timings.jsonl", _dump_lines(timings), durable=False)
    write_atomic(folder / "metrics.jsonl", _dump_lines(state.history), durable=False)


def _evaluate(run: Run, model: Model, data: Dataset, config: RunConfig, best: dict[str, Any]) -> None:
    """Predict validation and test images, write the prediction files and the result."""
    group = best["tta"]
    result: dict[str, Any] = {"parameters": count_parameters(model), "best_epoch": best["epoch"], "tta": group}
    for name in ("val", "test"):
        split = data.splits[name]
        scores = predict(model, split, data.info.task, group=group, device=config.train.device)
        figures = result[name] = _figures(split, scores, data)
        write_result(
            run.folder,
            flag_of(run.config["dataset"]),
            data.size,
            name,
            scores,
            figures["auc"],
            figures["acc"],
            f"{short_name(config.model)}-s{config.seed}",
        )
    write_atomic(run.folder / "result.json", _dump(result))


def evaluate_run(run: Run, split: str = "test", *, root: str | Path | None = None) -> dict[str, Any]:
    """Predict a split again from a run's weights; returns all measures and the intervals of AUC and accuracy."""
    group = run.result["tta"]  # first, as it says of an unfinished run what to do
    data = run.load_data(root)
    images = data[split]
    with torch_threads(run.config["train"]["threads"]):
        scores = predict(run.load_model(), images, data.info.task, group=group)
    return _figures(images, scores, data)


def _figures(split: Split, scores: Float[np.ndarray, "n k"], data: Dataset) -> dict[str, Any]:
    intervals = bootstrap_interval(split.labels, scores, data.info.task)
    return evaluate(split.labels, scores, data.info.task) | {
        f"{metric}_interval": [interval.low, interval.high] for metric, interval in intervals.items()
    }


def channel_statistics(split: Split) -> tuple[Float[torch.Tensor, " c"], Float[torch.Tensor, " c"]]:
    """Return mean and standard deviation of each channel `(c,)` on the 0–1 scale, reading the images in parts."""
    pixels = split.images[0, 0].size
    total = square = torch.zeros(split.images.shape[1], dtype=torch.int64)
    for part in np.array_split(np.arange(len(split)), 1 + split.images.size // STATISTICS_BYTES):
        images = split.batch(part)[0]
        total = total + images.sum((0, 2, 3), dtype=torch.int64)
        square = square + images.int().square().sum((0, 2, 3), dtype=torch.int64)
    mean = total.double() / (255.0 * pixels * len(split))
    variance = square.double() / (255.0**2 * pixels * len(split)) - mean**2
    return mean.float(), variance.clamp_min(0).sqrt().float()


def _environment() -> dict[str, Any]:
    packages = ("torch", "numpy", "scipy", "safetensors", "monai")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: version(name) for name in packages},
    }


def _dump(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _dump_lines(values: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()
