"""Train and evaluate one model into a run folder, and resume it after any interruption."""

import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from qvit.data.arrays import Dataset
from qvit.data.registry import is_path
from qvit.errors import ConfigError, DataError
from qvit.evaluation.medmnist_files import write_result
from qvit.files import expanded, sole_user, write_atomic
from qvit.models import Baseline, BaselineConfig, Network, NetworkConfig, count_parameters
from qvit.models.pretrained import imagenet_weights, load_imagenet
from qvit.models.stack import unstackable
from qvit.models.vit import ViT
from qvit.models.zoo import Model, ModelConfig, build, build_without_numbers
from qvit.training.checkpoint import load_state, load_weights, save_state, save_weights
from qvit.training.described import describe
from qvit.training.distributed import ALONE, Team, assemble
from qvit.training.fitted import check_alone, fit_baseline
from qvit.training.folder import Run, flag_of, short_name
from qvit.training.loop import fit, fit_many
from qvit.training.losses import make_loss
from qvit.training.machine import check_device
from qvit.training.measured import figures_of
from qvit.training.objective import Guide
from qvit.training.options import RunConfig
from qvit.training.places import remember
from qvit.training.prediction import predict
from qvit.training.record import check_recordable, claim, dump, make_folder, write_history
from qvit.training.records import EpochRecord, Result
from qvit.training.saved import check_tensors
from qvit.training.seeding import INIT, seeded
from qvit.training.state import Member, TrainState
from qvit.training.statistics import normalise_by
from qvit.training.stored import ConfigFile
from qvit.training.surroundings import surroundings

OnEpoch = Callable[[EpochRecord, float], None]


class PretrainedWarning(UserWarning):
    """Published weights that were asked for and are not available."""


def train_run(
    config: RunConfig,
    folder: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    guide: Guide | None = None,
    origin: Run | None = None,
    on_epoch: OnEpoch | None = None,
) -> Run:
    """Train and evaluate one model, and write everything into `folder`.

    With `resume` an unfinished run goes on from its last whole epoch, bit for bit as if it had not stopped, and a
    finished one is returned as it is. With `overwrite` an earlier run of the same model on the same dataset is deleted,
    once data and options have been checked. With `guide` the model learns from that, not just from the labels; with
    `origin` it starts from that finished run's weights. ImageNet weights, where asked for, are downloaded; if they are
    not available, this warns (`PretrainedWarning`) and uses none. The test split is read once, after training.
    Raises `RunError` if the folder holds something else, and all errors of data, model and training.

    Started by torchrun, all processes train this one run together, each on its share of every batch; see `fit`. Only
    the first one reads the folder, writes, and calls `on_epoch`. An error of one process is raised in all. A resumed
    run is the same bit for bit with as many processes as before, and up to rounding with another number.
    """
    with surroundings(config.train.threads), assemble(config.train.device) as team:
        data = team.in_turn(lambda: _load(config, root, download=download))
        run = Run(Path(folder))
        architecture = team.lead(lambda: to_build(config, data, origin or _earlier(run, resume), download=download))
        if isinstance(architecture, BaselineConfig):
            check_alone(config.model, guide, origin, team)
        if config.stacked and team.count > 1:
            raise ConfigError("stacked: a stack is trained by one process. Leave stacked out, or start one process.")
        check_measurable(data)
        make_loss(data.info.task, name=config.train.loss)
        model = team.in_turn(lambda: fresh(architecture, config.seed))
        if team.count > 1:
            team.check_norms(model, config.train.device)
        with ExitStack() as held:

            def take() -> bool:
                described = describe(run, config, data, model, guide, origin)
                kept = held, team.count
                return take_folder(run, config, data, described, *kept, resume=resume, overwrite=overwrite)

            if not team.lead(take):
                _train(run, model, config, data, guide, origin, on_epoch, team)
            else:
                team.lead(lambda: (run.folder / "state.pt").unlink(missing_ok=True))
    return Run(run.folder)


def take_folder(
    run: Run,
    config: RunConfig,
    data: Dataset,
    described: ConfigFile,
    held: ExitStack,
    processes: int = 1,
    *,
    resume: bool,
    overwrite: bool,
) -> bool:
    """Make a run's folder its own, for as long as `held` is open; return whether the run is finished already."""
    if is_path(config.dataset):
        remember(described["data_digest"], expanded(config.dataset))
    check_recordable(described)
    make_folder(run.folder)
    held.enter_context(sole_user(run.folder))
    claim(run, described, processes=processes, resume=resume, overwrite=overwrite)
    return run.finished


def _load(config: RunConfig, root: str | Path | None, *, download: bool) -> Dataset:
    config.check_without_data()
    check_device(config.train.device)
    return config.load_data(root, download=download)


def _earlier(run: Run, resume: bool) -> Run | None:
    there = os.path.exists(run.folder / "config.json")  # noqa: PTH110 - Path.exists raises for some names
    return run if resume and there else None


def check_measurable(data: Dataset) -> None:
    """Refuse splits on which no AUC exists, which would only fail after training."""
    for name in ("val", "test"):
        labels = data[name].labels
        if (labels == labels[0]).all():
            raise DataError(
                f"{data.path or data.info.title}: expected at least two classes in {name}_labels, found only "
                f"{labels[0].tolist()}. AUC compares classes: add images of another, or split anew."
            )


def to_build(config: RunConfig, data: Dataset, earlier: Run | None, *, download: bool) -> ModelConfig:
    """Return what model to build, without published weights if they are not available or an earlier run had none."""
    architecture = config.architecture(data.info, data.size)
    if config.stacked and (reason := unstackable(architecture)) is not None:
        raise ConfigError(f"stacked: {config.model} cannot be trained in a stack: {reason}. Leave stacked out.")
    if not isinstance(architecture, NetworkConfig) or architecture.pretrained is None:
        return architecture
    if earlier is not None:
        return replace(architecture, pretrained=getattr(earlier.architecture, "pretrained", None))
    try:
        network = build_without_numbers(architecture)
        assert isinstance(network, Network)
        imagenet_weights(network, download=download)
    except DataError as error:
        message = f"{error} Training {architecture.arch} from scratch."
        warnings.warn(message, PretrainedWarning, stacklevel=5)  # where `train_run` was called
        return replace(architecture, pretrained=None)
    return architecture


def _train(
    run: Run,
    model: Model,
    config: RunConfig,
    data: Dataset,
    guide: Guide | None,
    origin: Run | None,
    on_epoch: OnEpoch | None,
    team: Team,
) -> None:
    state = team.lead(lambda: kept_state(run))
    team.in_turn(lambda: fill(model, data, state, origin, team))
    team.spread(model)
    to_learn, objective = data, None
    if guide is not None:
        to_learn, objective = team.in_turn(lambda: guide.prepare(model, data, config.train, seed=config.seed))
    if isinstance(objective, nn.Module):
        team.spread(objective)
    record = recorder(run, on_epoch)
    if isinstance(model, Baseline):
        done = fit_baseline(model, data, config.train, seed=config.seed)
        if on_epoch is not None:
            on_epoch(done.history[-1], done.seconds[-1])
    elif config.stacked:
        one = Member(to_learn, config.train, config.seed, objective, state or TrainState(), record)
        assert isinstance(model, ViT), "others are refused"
        fit_many([model], [one])
        if one.error is not None:
            raise one.error
        done = one.state
    else:
        done = fit(
            model,
            to_learn,
            config.train,
            seed=config.seed,
            objective=objective,
            state=state,
            on_epoch=lambda state: team.lead(lambda: record(state)),
            team=team,
        )
    finish(run, model, config, data, done, team)


def kept_state(run: Run) -> TrainState | None:
    """Return the state of an unfinished run; None for one that has no epoch yet."""
    path = run.folder / "state.pt"
    return load_state(path) if path.exists() else None


def fill(model: Model, data: Dataset, state: TrainState | None, origin: Run | None, team: Team = ALONE) -> None:
    """Give a fresh model what comes from elsewhere: statistics, published weights, or those of the run it starts from.

    Raises `ModelError` for a model whose weights cannot be kept: now, not after all epochs.
    """
    _fill(model, data, published=state is None and origin is None)
    check_tensors(model.state_dict())
    if origin is not None and team.leads:
        model.load_state_dict(load_weights(origin.weights_path))


def recorder(run: Run, on_epoch: OnEpoch | None) -> Callable[[TrainState], None]:
    """Return what keeps a run's state after each epoch, and then calls `on_epoch`."""

    def record(state: TrainState) -> None:
        save_state(run.folder / "state.pt", state)
        write_history(run.folder, state)
        if on_epoch is not None:
            on_epoch(state.history[-1], state.seconds[-1])

    return record


def finish(run: Run, model: Model, config: RunConfig, data: Dataset, done: TrainState, team: Team = ALONE) -> None:
    """Write the weights of a trained model, predict validation and test images, and write the result."""

    def write() -> None:
        write_history(run.folder, done)  # again, in case the run was killed between the state and this
        save_weights(run.weights_path, model.state_dict())

    team.lead(write)
    assert done.best is not None
    _evaluate(run, model, data, config, done.best.record, team)
    team.lead(lambda: (run.folder / "state.pt").unlink(missing_ok=True))


def build_model(architecture: ModelConfig, data: Dataset, *, seed: int, published: bool = True) -> Model:
    """Return a fresh model, with weights fixed by the seed, that normalises by the statistics of the training images.

    A network configured as pretrained gets its published weights, unless `published` is false as it will get others.
    """
    with surroundings():
        model = fresh(architecture, seed)
        _fill(model, data, published=published)
    return model


def fresh(architecture: ModelConfig, seed: int) -> Model:
    """Return a model with weights fixed by the seed; what comes from elsewhere is left out."""
    with seeded(seed, INIT):
        return build(architecture)


def _fill(model: Model, data: Dataset, *, published: bool) -> None:
    """Give a fresh model what comes from elsewhere: published weights, and the statistics of the training images."""
    if published and isinstance(model, Network) and model.config.pretrained:
        load_imagenet(model)
    normalise_by(model.preprocess, data.train)


def _evaluate(run: Run, model: Model, data: Dataset, config: RunConfig, best: EpochRecord, team: Team) -> None:
    """Predict validation and test images, write the prediction files and the result."""
    group, device = best.tta, config.train.device
    scores = {
        name: predict(model, data[name], data.info.task, group=group, device=device, team=team)
        for name in ("val", "test")
    }

    def write() -> None:
        figures = {name: figures_of(data[name].labels, scores[name], data.info.task) for name in scores}
        flag, suffix = flag_of(run.config["dataset"]), f"{short_name(config.model)}-{config.called}"
        for name, found in figures.items():
            write_result(run.folder, flag, data.size, name, scores[name], found.auc, found.acc, suffix)
        result = Result(count_parameters(model), best.epoch, group, **figures)
        write_atomic(run.folder / "result.json", dump(asdict(result)))

    team.lead(write)
