"""`qvit train --seeds`: train a model with several seeds as one stack, each into a run folder of its own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvit.cli.compare import print_runs
from qvit.cli.console import epoch_progress, heavy_imports, say
from qvit.data.registry import name_of
from qvit.errors import ConfigError, QvitError, TrainingError
from qvit.validate import require

MOST = 1000

if TYPE_CHECKING:
    from qvit.training.many import OnEpochOf
    from qvit.training.options import RunConfig


def train_seeds(
    options: dict[str, Any],
    seeds: int,
    out: Path | None,
    *,
    memory: float,
    root: Path | None,
    resume: bool,
    offline: bool,
    json: bool,
) -> None:
    """Train with `seeds` seeds from that of the options on, and print all results and their means.

    Models that cannot be stacked are trained one after the other. Raises `TrainingError` in the end for those that
    failed, when all others are done; other errors as `train_run` does.
    """
    with heavy_imports():
        from qvit.training.folder import Run, short_name
        from qvit.training.many import Asked, train_many
        from qvit.training.options import resolve
        from qvit.training.run import train_run

    if not 1 <= seeds <= MOST:
        raise ConfigError(f"--seeds must be from 1 to {MOST:,}, got {seeds}.")
    require(0.0 < memory < math.inf, "--memory", "positive", memory)
    first = resolve(options)
    name = f"{name_of(first.dataset)}-{short_name(first.model)}"
    numbers = range(first.seed, first.seed + seeds)
    folders = [(Path("runs") / f"{name}-s{seed}") if out is None else out / f"s{seed}" for seed in numbers]
    reason = _unstackable(first, root, download=not offline)
    configs = [replace(first, seed=seed, stacked=reason is None) for seed in numbers]
    common: dict[str, Any] = {"root": root, "download": not offline, "resume": resume}
    if reason is None:
        asked = [Asked(config, folder) for config, folder in zip(configs, folders, strict=True)]
        with _progress(f"{name}, {seeds} seeds", first, quiet=json) as on_epoch:
            outcomes = train_many(asked, **common, memory=memory, on_epoch=on_epoch)
    else:
        say(f"These models are trained one after the other: {reason}.")
        outcomes = []
        for config, folder in zip(configs, folders, strict=True):
            with epoch_progress(f"{name}-s{config.seed}", first.train.epochs, quiet=json) as tell:
                outcomes.append(train_run(config, folder, **common, on_epoch=tell))
    failed = {seed: one for seed, one in zip(numbers, outcomes, strict=True) if isinstance(one, QvitError)}
    if len(failed) == len(outcomes):
        raise failed[numbers[0]]
    print_runs([one for one in outcomes if isinstance(one, Run)], json=json)
    if failed:
        told = "; ".join(f"seed {seed}: {error}" for seed, error in failed.items())
        raise TrainingError(f"{len(failed)} of {seeds} runs failed, the others are done. {told}")
    say(f"Everything is in {', '.join(map(str, folders))}")


def _unstackable(config: "RunConfig", root: Path | None, *, download: bool) -> str | None:
    """Return why the models of a configuration have to be trained one by one; None if they can be stacked."""
    from qvit.models.stack import unstackable

    config.check_without_data()
    data = config.load_data(root, download=download)
    return unstackable(config.architecture(data.info, data.size))


@contextmanager
def _progress(label: str, config: "RunConfig", *, quiet: bool) -> Iterator["OnEpochOf | None"]:
    """Yield a callback that shows how far the model is that is furthest."""
    with epoch_progress(label, config.train.epochs, quiet=quiet) as tell:
        furthest = 0

        def callback(_place: int, record: Any, seconds: float) -> None:
            nonlocal furthest
            if tell is not None and record.epoch > furthest:
                furthest = record.epoch
                tell(record, seconds)

        yield None if tell is None else callback
