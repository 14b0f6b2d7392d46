"""Tune: try many recipes on folds of a dataset's training and validation images, and train the chosen one once.

asked → data, menu → race (workers, record) → verdict → recipe.yaml → training, one reading of the test images
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qvit.data.arrays import Dataset
from qvit.data.folds import MOST_FOLDS
from qvit.data.registry import is_path, name_of
from qvit.errors import ConfigError, QvitError, RunError, TrainingError
from qvit.evaluation.selection import Rung
from qvit.files import expanded, sole_user
from qvit.models.stack import unstackable
from qvit.study.pool import Pool, await_workers, cores
from qvit.training.config import MEMORY
from qvit.training.folder import Run
from qvit.training.many import Asked as AskedRun
from qvit.training.many import train_many
from qvit.training.options import RunConfig, resolve
from qvit.training.places import located, recorded, remember
from qvit.training.recipes import Recipe, write_recipe
from qvit.training.records import EpochRecord
from qvit.training.run import check_measurable, train_run
from qvit.tune.menu import DATA_KEYS, Entry, Kitchen, Menu, read_menu
from qvit.tune.planning import Plan, Timed, fixed, steps
from qvit.tune.race import OnNews, Race
from qvit.tune.record import Record, TuneFile, begin_record, candidate_of, read_file
from qvit.tune.tuned import Tuned
from qvit.tune.verdict import Held, Verdict, held_of, verdict_of
from qvit.tune.workers import pool_of
from qvit.validate import require

MOST_TRIALS = 10_000
MOST_MINUTES = 100_000
OF_ITS_OWN = ("folds", "fold", "stacked")  # options of runs that a tuning sets


@dataclass(frozen=True)
class Asked:
    """What is to be tuned, and how much.

    `options` are flat, as for `qvit train`, with the dataset; all recipes are tried with them. `model` is the only kind
    of model to try; None for those of the menu. `parameters` is the most that a recipe may have, None for 1,100 or
    those of the first entry of the menu if it has more. `minutes` are what may be used, `trials` a number of candidates
    instead. `seed` fixes folds, draws and weights. `folds` divide the images, `seeds` is how often the chosen recipe is
    trained in the end. `repeats` is an earlier tuning, all of whose candidates are tried again as they were then.
    """

    options: dict[str, Any]
    model: str | None = None
    parameters: int | None = None
    minutes: float = 30.0
    trials: int | None = None
    seed: int = 0
    folds: int = 5
    seeds: int = 1
    menu: Menu = field(default_factory=read_menu)
    repeats: TuneFile | None = None

    def __post_init__(self) -> None:
        require(self.parameters is None or self.parameters >= 1, "parameters", "at least 1", self.parameters)
        require(0.0 < self.minutes <= MOST_MINUTES, "minutes", f"above 0 and at most {MOST_MINUTES:,}", self.minutes)
        number = self.trials
        require(number is None or 1 <= number <= MOST_TRIALS, "trials", f"from 1 to {MOST_TRIALS:,}", number)
        require(2 <= self.folds <= MOST_FOLDS, "folds", f"from 2 to {MOST_FOLDS}", self.folds)
        require(1 <= self.seeds <= 1000, "seeds", "from 1 to 1,000", self.seeds)
        for key in OF_ITS_OWN:
            if self.options.get(key) is not None:
                raise ConfigError(f"A tuning divides and stacks by itself, so it takes no option {key}; leave it out.")


def tune(
    asked: Asked,
    folder: str | Path,
    *,
    workers: int | None = None,
    root: str | Path | None = None,
    download: bool = True,
    memory: float = MEMORY,
    resume: bool = False,
    on_news: OnNews | None = None,
    on_epoch: Callable[[int, EpochRecord, float], None] | None = None,
) -> Tuned:
    """Try recipes on folds, choose one, train it on the official training images, and read the test images once.

    `workers` processes train, by default as many as the cores allow, each in stacks of at most `memory` gigabytes; one
    is this process itself. Nothing depends on their number. With `resume` an interrupted tuning goes on. Everything is
    kept in `folder`, see `tune.record`. Raises `RunError` for a folder that holds something else, `ConfigError` for
    options that do not fit together, `TrainingError` if the first candidate or the chosen one cannot be trained, and
    the errors of data and folds.
    """
    require(0.0 < memory < math.inf, "memory", "positive", memory)
    require(workers is None or workers >= 1, "workers", "at least 1", workers)
    folder, began = Path(folder), time.monotonic()
    first = resolve(asked.options)
    first.check_without_data()
    data = first.load_whole(root, download=download)
    check_measurable(data)
    if asked.repeats is not None and data.digest != asked.repeats["asked"]["data_digest"]:
        raise ConfigError(
            f"The tuning to repeat was on other data: expected {first.dataset} with digest "
            f"{asked.repeats['asked']['data_digest']}, found {data.digest}. Name the data with --data."
        )
    divisions = steps(asked.folds)[-1] // asked.folds
    held = held_of(data, asked.folds, seed=asked.seed, divisions=divisions)
    kitchen = Kitchen(asked.menu, data, _given(asked, data), model=asked.model, most=asked.parameters)
    with _taken(folder, _described(asked, data, folder, kitchen.most), resume=resume) as record:
        if is_path(first.dataset):
            remember(data.digest, expanded(first.dataset))
        earlier, count = record.spent, workers or max(1, cores() // first.train.threads)
        plan = _plan(asked, record, count, began)
        with _workers(count, folder, data, first.train.threads) as pool:
            images = len(data.train) + len(data.val) - len(held.rows[0])
            how: dict[str, Any] = {"root": None if root is None else Path(root), "memory": memory, "workers": count}
            rungs = Race(record, kitchen, plan, pool, images=images, **how, on_news=on_news).run()
        searched = earlier + time.monotonic() - began
        share = sum(one.seconds for one in record.judged.values()) / (count * max(searched, 1e-9))
        found = _found(record, rungs, held, kitchen, data, asked)
        recipe = _recipe(asked, data, found, record)
        write_recipe(folder / "recipe.yaml", recipe)
        runs = _trained(recipe, kitchen, asked, folder, root, memory, on_epoch)
        record.spent = earlier + time.monotonic() - began
        number, seconds = len(record.judged), record.spent
        told = Tuned(folder, first.dataset, found, recipe, tuple(rungs), number, runs, seconds, min(share, 1.0))
        record.result = {key: value for key, value in told.as_json().items() if key not in ("folder", "runs")}
        record.save()
    return told


@contextmanager
def _workers(count: int, folder: Path, data: Dataset, threads: int) -> Iterator[Pool]:
    """Yield workers, when those of an earlier tuning in the folder are gone; they end with the block."""
    await_workers(folder)
    pool = pool_of(count, folder, data, threads=threads)
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def _taken(folder: Path, described: dict[str, Any], *, resume: bool) -> Iterator[Record]:
    """Yield the record of the tuning in a folder that no other process uses."""
    record = begin_record(folder, described, resume=resume)
    with sole_user(folder):
        yield record


def _given(asked: Asked, data: Dataset) -> dict[str, Any]:
    """Return the options that all candidates have, with those of the data, as they are."""
    left_out = ("seed", "recipe", *(["model"] if asked.model else []))
    said = {key: value for key, value in asked.options.items() if key not in left_out}
    return said | ({"size": data.size} if is_path(str(said["dataset"])) else {})


def _described(asked: Asked, data: Dataset, folder: Path, most: int) -> dict[str, Any]:
    """Return what tune.json says of what was asked."""
    own = str(asked.options["dataset"])
    return {
        "dataset": recorded(expanded(own), folder) if is_path(own) else data.info.name,
        "size": data.size,
        "data_digest": data.digest,
        "options": {key: value for key, value in asked.options.items() if key not in ("dataset", "seed")},
        "model": asked.model,
        "parameters": most,
        "minutes": asked.minutes if asked.trials is None and asked.repeats is None else None,
        "trials": asked.trials,
        "seed": asked.seed,
        "folds": asked.folds,
        "seeds": asked.seeds,
        "menu": hashlib.sha256(repr(asked.menu).encode()).hexdigest()[:16],
    }


def repeated(path: str | Path, options: dict[str, Any]) -> Asked:
    """Return what an earlier tuning was asked, by its tune.json, to be done again; `options` may say where data lie.

    Raises `RunError` for a file that is none.
    """
    path = Path(path)
    file = read_file(path)
    said = file["asked"]
    if not file["rungs"]:
        raise RunError(f"{path} is of a tuning that had not begun; there is nothing to repeat.")
    own = said["dataset"]
    dataset = str(located(own, path.parent)) if is_path(own) else own
    of_data = {"size": said["size"]} if not is_path(dataset) else {}
    return Asked(
        said["options"] | {"dataset": dataset} | of_data | options,
        model=said["model"],
        parameters=said["parameters"],
        seed=said["seed"],
        folds=said["folds"],
        seeds=said["seeds"],
        menu=Menu((Entry(Recipe("defaults", "", "")),)),
        repeats=file,
    )


def _plan(asked: Asked, record: Record, workers: int, began: float) -> Plan | Timed:
    """Return what decides how many candidates are on each rung; an earlier tuning gives its candidates, too."""
    if asked.repeats is not None:
        record.candidates = record.candidates or [candidate_of(one) for one in asked.repeats["candidates"]]
        return Plan(tuple(Rung(one["folds"], len(one["entrants"])) for one in asked.repeats["rungs"]))
    folds = steps(asked.folds)
    if asked.trials is not None:
        return fixed(asked.trials, folds)
    spent = record.spent + time.monotonic() - began
    return Timed(60.0 * asked.minutes, folds, workers, seeds=asked.seeds, spent=spent)


def _found(record: Record, rungs: Sequence[Rung], held: Held, kitchen: Kitchen, data: Dataset, asked: Asked) -> Verdict:
    candidates = [one for one in record.candidates if not one.baseline]
    candidates += [one for one in record.candidates if one.baseline]
    how = {"most": kitchen.most, "images": len(data.test), "seeds": asked.seeds, "seed": asked.seed}
    return verdict_of(candidates, record.judged, rungs, held, **how)


def _recipe(asked: Asked, data: Dataset, verdict: Verdict, record: Record) -> Recipe:
    """Return the recipe of the chosen candidate, which says where it came from."""
    name, one = name_of(str(asked.options["dataset"])), verdict.of_chosen
    tried = sum(not other.baseline for other in record.candidates)
    options = next(other.options for other in record.candidates if other.name == verdict.chosen)
    kept = {key: value for key, value in options.items() if key not in DATA_KEYS and key != "recipe"}
    low, high = verdict.between
    about = (
        f"{one.about} ({one.parameters:,} parameters), the best of {tried} recipes for {name}."
        if verdict.chosen != verdict.first
        else f"{one.about} ({one.parameters:,} parameters): none of {tried} recipes for {name} is ahead of it by more "
        "than the noise."
    )
    source = (
        f"qvit tune on {data.info.title}, seed {asked.seed}: AUC {one.auc:.3f} over {one.folds} folds of training and "
        f"validation images, {verdict.of(verdict.first).auc:.3f} by {verdict.first}; {verdict.expected:.3f} "
        f"[{low:.3f}, {high:.3f}] expected of new images."
    )
    plain = "".join(mark if mark.isascii() and (mark.isalnum() or mark in "._-") else "-" for mark in name)
    return Recipe(f"tuned-{plain}"[:100], about, source, kept)


def _trained(
    recipe: Recipe,
    kitchen: Kitchen,
    asked: Asked,
    folder: Path,
    root: str | Path | None,
    memory: float,
    on_epoch: Callable[[int, EpochRecord, float], None] | None,
) -> tuple[Run, ...]:
    """Train the recipe on the official training images with so many seeds; what is finished already is only read."""
    config, architecture = kitchen.resolved(recipe.named)
    configs = [replace(config, seed=seed) for seed in range(asked.seed, asked.seed + asked.seeds)]
    folders = [folder / "runs" / one.called for one in configs]
    if unstackable(architecture) is None:
        wanted = [AskedRun(replace(one, stacked=True), place) for one, place in zip(configs, folders, strict=True)]
        told = train_many(wanted, root=root, download=False, resume=True, memory=memory, on_epoch=on_epoch)
    else:
        told = [_alone(one, place, root, on_epoch) for one, place in zip(configs, folders, strict=True)]
    runs = tuple(one for one in told if isinstance(one, Run))
    errors = [one for one in told if isinstance(one, QvitError)]
    if errors:
        raise TrainingError(f"The chosen recipe cannot be trained on the training images: {errors[0]}")
    return runs


def _alone(
    config: RunConfig, place: Path, root: str | Path | None, on_epoch: Callable[[int, EpochRecord, float], None] | None
) -> Run | QvitError:
    tell = None if on_epoch is None else lambda record, seconds: on_epoch(0, record, seconds)
    try:
        return train_run(config, place, root=root, download=False, resume=True, on_epoch=tell)
    except QvitError as error:
        return error
