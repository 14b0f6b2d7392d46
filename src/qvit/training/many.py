"""Train several runs together, as one stack, each into a folder of its own."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from qvit.data.arrays import Dataset
from qvit.data.folds import folds_of
from qvit.errors import ConfigError, QvitError
from qvit.models.stack import bytes_of_training
from qvit.models.vit import ViT, ViTConfig
from qvit.training.batches import default_batch_size
from qvit.training.config import MEMORY
from qvit.training.described import describe
from qvit.training.folder import Run
from qvit.training.loop import fit_many
from qvit.training.losses import make_loss
from qvit.training.machine import check_device
from qvit.training.objective import Guide
from qvit.training.options import RunConfig
from qvit.training.records import EpochRecord
from qvit.training.run import check_measurable, fill, finish, fresh, kept_state, recorder, take_folder, to_build
from qvit.training.state import Member, TrainState
from qvit.training.surroundings import surroundings
from qvit.training.together import check_state

OnEpochOf = Callable[[int, EpochRecord, float], None]  # the place of the run in the list, and as for `train_run`


@dataclass(frozen=True)
class Asked:
    """One run of several: its configuration and folder, what it learns from, and what run it starts from."""

    config: RunConfig
    folder: Path
    guide: Guide | None = None
    origin: Run | None = None


def train_many(
    asked: Sequence[Asked],
    *,
    root: str | Path | None = None,
    download: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    memory: float = MEMORY,
    on_epoch: OnEpochOf | None = None,
) -> list[Run | QvitError]:
    """Train and evaluate several models of one architecture as a stack; return each one's run, or why it failed.

    Each becomes the run that `train_run` would make of it, whose options are the same: its folder can be resumed,
    evaluated and compared like any other, and what is in it does not depend on the other runs. All need the option
    `stacked` and those of `together.SHARED` in common. A run whose folder, data or numbers are not right fails alone.
    Runs of other architectures, and of other guides, are other stacks. If one would take more than `memory` gigabytes,
    there are several, one after the other. Raises `ConfigError` for runs that cannot be stacked.
    """
    _check(asked)
    threads = asked[0].config.train.threads
    outcomes: list[Run | QvitError | None] = [None] * len(asked)
    known: dict[str, tuple[Dataset, ...]] = {}
    with surroundings(threads), ExitStack() as held:
        going: list[_Going] = []
        for place, one in enumerate(asked):
            try:
                found = _take(one, known, held, root=root, download=download, resume=resume, overwrite=overwrite)
            except QvitError as error:
                outcomes[place] = error
                continue
            if isinstance(found, Run):
                outcomes[place] = found
            else:
                found.place = place
                found.tell = None if on_epoch is None else _told(on_epoch, place)
                going.append(found)
        for place, outcome in _train(going, memory):
            outcomes[place] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


@dataclass(eq=False)
class _Going:
    """A run that is to be trained."""

    asked: Asked
    run: Run
    data: Dataset
    model: ViT
    place: int = 0
    tell: Callable[[EpochRecord, float], None] | None = None

    @property
    def kind(self) -> str:
        """What it has in common with all that it can be stacked with."""
        guide = self.asked.guide
        taught = "" if guide is None else f"{guide.described} {self.data.digest}"
        return f"{self.model.config} {taught}"


def _check(asked: Sequence[Asked]) -> None:
    if not asked:
        raise ConfigError("Expected at least one run to train, got none.")
    if not all(one.config.stacked for one in asked):
        raise ConfigError("Expected runs with the option stacked, as that is what they will be; got one without it.")
    folders = [one.folder.absolute() for one in asked]
    if len(set(folders)) < len(folders):
        raise ConfigError("Expected a folder for each run, got the same one twice.")


def _told(on_epoch: OnEpochOf, place: int) -> Callable[[EpochRecord, float], None]:
    return lambda record, seconds: on_epoch(place, record, seconds)


def _take(
    asked: Asked,
    known: dict[str, tuple[Dataset, ...]],
    held: ExitStack,
    *,
    root: str | Path | None,
    download: bool,
    resume: bool,
    overwrite: bool,
) -> "_Going | Run":
    """Load a run's data, build its model and take its folder; return the run if it is finished already."""
    config, run = asked.config, Run(Path(asked.folder))
    config.check_without_data()
    check_device(config.train.device)
    data = _data(config, known, root, download=download)
    architecture = to_build(config, data, None, download=download)
    check_measurable(data)
    make_loss(data.info.task, name=config.train.loss)
    model = fresh(architecture, config.seed)
    assert isinstance(model, ViT), "others are refused"
    described = describe(run, config, data, model, asked.guide, asked.origin)
    if take_folder(run, config, data, described, held, resume=resume, overwrite=overwrite):
        (run.folder / "state.pt").unlink(missing_ok=True)
        return Run(run.folder)
    return _Going(asked, run, data, model)


def _data(
    config: RunConfig, known: dict[str, tuple[Dataset, ...]], root: str | Path | None, *, download: bool
) -> Dataset:
    """Return a run's data; what it has in common with other runs is loaded, and divided into folds, once."""
    plain = {"model": "", "model_options": {}, "train": type(config.train)(), "folds": None, "fold": None}
    whole = repr(replace(config, **plain, seed=0))  # type: ignore[arg-type]
    if whole not in known:
        known[whole] = (config.load_whole(root, download=download),)
    fold = config.held_out
    if fold is None:
        return known[whole][0]
    folds = f"{whole}, {fold.count} folds of seed {fold.seed}"
    if folds not in known:
        known[folds] = folds_of(known[whole][0], fold.count, seed=fold.seed)
    return known[folds][fold.number - 1]


def _train(going: Sequence[_Going], memory: float) -> list[tuple[int, Run | QvitError]]:
    """Train the runs, one stack for each architecture and guide among them, and finish them."""
    outcomes: list[tuple[int, Run | QvitError]] = []
    ready: list[tuple[_Going, Member]] = []
    for one in going:
        try:
            ready.append((one, _member(one)))
        except QvitError as error:
            outcomes.append((one.place, error))
    stacks: dict[str, list[tuple[_Going, Member]]] = {}
    for one, member in ready:
        stacks.setdefault(one.kind, []).append((one, member))
    for stack in stacks.values():
        one, member = stack[0]
        images = len(member.data.train)
        batch = min(images, member.config.batch_size or default_batch_size(images))
        most = most_together(one.model.config, batch, memory)
        for first in range(0, len(stack), most):
            part = stack[first : first + most]
            fit_many([one.model for one, _ in part], [member for _, member in part])
            outcomes += [(one.place, _finished(one, member)) for one, member in part]
    return outcomes


def most_together(config: ViTConfig, batch: int, memory: float) -> int:
    """Return how many models can be trained as one stack in `memory` gigabytes, on `batch` images each; at least 1."""
    return max(1, int(memory * 1e9 / bytes_of_training(config, batch)))


def _member(one: _Going) -> Member:
    config, state = one.asked.config, kept_state(one.run)
    fill(one.model, one.data, state, one.asked.origin)
    to_learn, objective = one.data, None
    if one.asked.guide is not None:
        to_learn, objective = one.asked.guide.prepare(one.model, one.data, config.train, seed=config.seed)
    record = recorder(one.run, one.tell)
    member = Member(to_learn, config.train, config.seed, objective, state or TrainState(), record)
    check_state(member, one.model)  # now, as in a stack it would stop the others, too
    return member


def _finished(one: _Going, member: Member) -> Run | QvitError:
    if member.error is not None:
        return member.error
    try:
        finish(one.run, one.model, one.asked.config, one.data, member.state)
    except QvitError as error:
        return error
    return Run(one.run.folder)
