"""`qvit train --seeds --folds`: train a model several times as one stack, each time into a run folder of its own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvit.cli.compare import print_runs
from qvit.cli.console import epoch_progress, heavy_imports, say
from qvit.data.registry import name_of
from qvit.errors import ConfigError, QvitError, TrainingError

MOST = 1000
LISTED = 8  # folders, if there are more, the first and the last are named

if TYPE_CHECKING:
    from qvit.training.folder import Run
    from qvit.training.many import OnEpochOf
    from qvit.training.options import RunConfig


def train_several(
    options: dict[str, Any],
    seeds: int,
    folds: int | None,
    out: Path | None,
    *,
    memory: float,
    root: Path | None,
    resume: bool,
    offline: bool,
    json: bool,
) -> None:
    """Train with `seeds` seeds from that of the options on, and without each of `folds` folds; print results and means.

    Models that cannot be stacked are trained one after the other. Raises `TrainingError` in the end for those that
    failed, when all others are done; other errors as `train_run` does.
    """
    with heavy_imports():
        from qvit.training.folder import Run, short_name
        from qvit.training.options import resolve

    check_several(seeds, memory)
    first = resolve(options if folds is None else _of_folds(options, folds))
    if seeds * (folds or 1) > MOST:
        raise ConfigError(f"--seeds times --folds must be at most {MOST:,} runs, got {seeds} times {folds}.")
    name = f"{name_of(first.dataset)}-{short_name(first.model)}"
    reason = unstackable_of(first, root, download=not offline)
    configs = [
        replace(first, seed=seed, fold=fold, stacked=reason is None)
        for seed in range(first.seed, first.seed + seeds)
        for fold in ([first.fold] if folds is None else range(1, folds + 1))
    ]
    folders = [(Path("runs") / f"{name}-{one.called}") if out is None else out / one.called for one in configs]
    label = f"{name}, {_number(seeds, 'seed')}{'' if folds is None else f', {folds} folds'}"
    common: dict[str, Any] = {"root": root, "download": not offline, "resume": resume}
    if reason is None:
        outcomes = _together(configs, folders, label, memory, quiet=json, **common)
    else:
        say(f"These models are trained one after the other: {reason}.")
        outcomes = _one_by_one(configs, folders, name, quiet=json, **common)
    done = {_told(one): ended for one, ended in zip(configs, outcomes, strict=True)}
    conclude(done, [one for one in outcomes if isinstance(one, Run)], folders, json=json)


def conclude(done: Mapping[str, object], runs: "Sequence[Run]", folders: Sequence[Path], *, json: bool) -> None:
    """Print the results of several trainings, of which `done` tells what became of each; raises as `train_several`."""
    failed = {which: ended for which, ended in done.items() if isinstance(ended, QvitError)}
    if len(failed) == len(done):
        raise next(iter(failed.values()))
    print_runs(runs, json=json)
    if failed:
        told = "; ".join(f"{which}: {error}" for which, error in failed.items())
        raise TrainingError(f"{len(failed)} of {len(done)} runs failed, the others are done. {told}")
    few = len(folders) <= LISTED
    say(f"Everything is in {', '.join(map(str, folders)) if few else f'{folders[0]} to {folders[-1]}'}")


def check_several(seeds: int, memory: float) -> None:
    """Raise `ConfigError` for numbers of seeds or gigabytes that cannot be."""
    from qvit.validate import require

    if not 1 <= seeds <= MOST:
        raise ConfigError(f"--seeds must be from 1 to {MOST:,}, got {seeds}.")
    require(0.0 < memory < math.inf, "--memory", "positive", memory)


def _of_folds(options: dict[str, Any], folds: int) -> dict[str, Any]:
    """Return the options of the run without the first fold, by which nothing is chosen, unless they say how."""
    for key in ("folds", "fold"):
        if options.get(key) is not None:
            raise ConfigError(f"--folds trains all folds, but the option {key} was given as well; use one of them.")
    return {"keep": "last", "tta": "always"} | options | {"folds": folds, "fold": 1}


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _told(config: "RunConfig") -> str:
    return f"seed {config.seed}" if config.fold is None else f"seed {config.seed}, fold {config.fold}"


def _together(
    configs: "Sequence[RunConfig]", folders: Sequence[Path], label: str, memory: float, *, quiet: bool, **common: Any
) -> "Sequence[Run | QvitError]":
    from qvit.training.many import Asked, train_many

    asked = [Asked(config, folder) for config, folder in zip(configs, folders, strict=True)]
    with furthest_progress(label, configs[0].train.epochs, quiet=quiet) as on_epoch:
        return train_many(asked, **common, memory=memory, on_epoch=on_epoch)


def _one_by_one(
    configs: "Sequence[RunConfig]", folders: Sequence[Path], name: str, *, quiet: bool, **common: Any
) -> "Sequence[Run | QvitError]":
    from qvit.training.run import train_run

    done = []
    for config, folder in zip(configs, folders, strict=True):
        with epoch_progress(f"{name}-{config.called}", config.epochs, quiet=quiet) as tell:
            done.append(train_run(config, folder, **common, on_epoch=tell))
    return done


def unstackable_of(config: "RunConfig", root: Path | None, *, download: bool) -> str | None:
    """Return why the models of a configuration have to be trained one by one; None if they can be stacked."""
    from qvit.models.stack import unstackable

    config.check_without_data()
    data = config.load_whole(root, download=download)
    return unstackable(config.architecture(data.info, data.size))


@contextmanager
def furthest_progress(label: str, epochs: int, *, quiet: bool) -> Iterator["OnEpochOf | None"]:
    """Yield a callback that shows how far the model is that is furthest."""
    with epoch_progress(label, epochs, quiet=quiet) as tell:
        furthest = 0

        def callback(_place: int, record: Any, seconds: float) -> None:
            nonlocal furthest
            if tell is not None and record.epoch > furthest:
                furthest = record.epoch
                tell(record, seconds)

        yield None if tell is None else callback
