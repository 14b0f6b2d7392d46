"""The rows of a comparison, read from finished run folders."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qvit.data.registry import is_path, name_of
from qvit.errors import RunError
from qvit.evaluation.statistics import Interval, mean_interval
from qvit.report.words import shown
from qvit.training.folder import Run, flatten
from qvit.training.places import FOUND_AT, located
from qvit.training.records import Ends
from qvit.training.run import weights_digest
from qvit.training.stored import Origin

LEVEL = 0.95
DIGITS = 8  # of a digest that is shown
INTERVALS = "Intervals: 95 %, bootstrap over test images."
FEW = "too few test images to tell"  # how a figure varies over images
GENERATIONS = 8  # the longest chain of runs started from one another that is described
PRETRAIN = "pretrain"  # the prefix of options of the run that a run started from
SHOWN = ("model", "dataset", "size", "seed", "parameters")  # keys of config.json that have a column of their own
COLUMNS = [
    "model",
    "dataset",
    "seed",
    "parameters",
    "test AUC",
    "test ACC",
    "val AUC",
    "best epoch",
    "seconds",
]
GROUP_COLUMNS = ["model", "dataset", "seeds", "parameters", "test AUC", "test ACC", "val AUC", "seconds"]


@dataclass(frozen=True)
class Row:
    """One run: what it was, and its figures on the test split with bootstrap intervals.

    `model` is its name, followed in brackets by what it learned from besides labels, as "(pre-trained on resnet18)".
    """

    model: str
    dataset: str
    seed: int
    parameters: int
    auc: Interval
    acc: Interval
    val_auc: float
    best_epoch: int
    seconds: float


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed: means with Student-t intervals."""

    model: str
    dataset: str
    seeds: tuple[int, ...]
    parameters: int
    auc: Interval
    acc: Interval
    val_auc: Interval
    seconds: float


def read_row(run: Run) -> Row:
    """Return the row of one finished run; raises `RunError` otherwise."""
    config, result = run.config, run.result
    own = is_path(config["dataset"])
    return Row(
        model=_named(config["model"], _lessons(run)),
        dataset=run.dataset if config["size"] == 28 or own else f"{run.dataset}_{config['size']}",
        seed=config["seed"],
        parameters=result.parameters,
        auc=_interval(result.test.auc, result.test.auc_interval),
        acc=_interval(result.test.acc, result.test.acc_interval),
        val_auc=result.val.auc,
        best_epoch=result.best_epoch,
        seconds=run.seconds,
    )


def _interval(value: float, ends: Ends) -> Interval:
    return Interval(value, *ends, LEVEL, FEW if None in ends else "")


def read_rows(runs: Sequence[Run]) -> list[Row]:
    """Return the rows of finished runs, in order; options in which runs of a model differ are added to its name.

    Runs that learned from different teachers count as different models. A file with several paths is one dataset, named
    by the first path.
    """
    rows = [read_row(run) for run in runs]
    places: dict[tuple[str, str], str] = {}
    for place, (run, row) in enumerate(zip(runs, rows, strict=True)):
        if is_path(row.dataset):
            same = Path(row.dataset).name, run.config["data_digest"]
            rows[place] = replace(row, dataset=places.setdefault(same, row.dataset))
    known = [_options(run) for run in runs]
    named = []
    for run, row, options in zip(runs, rows, known, strict=True):
        peers = [known[i] for i, other in enumerate(rows) if (other.dataset, other.model) == (row.dataset, row.model)]
        differing = [key for key in options if any(peer.get(key) != options[key] for peer in peers)]
        told = [f"{_short(key)}={options[key]}" for key in differing]
        named.append(replace(row, model=_named(run.config["model"], [*_lessons(run), *told])))
    return named


def _named(model: str, told: Sequence[str]) -> str:
    return f"{model} ({', '.join(told)})" if told else model


def _lessons(run: Run) -> list[str]:
    """Return what a run learned from besides labels: a teacher, or the weights of an earlier run."""
    guide, lessons = run.config.get("guide"), []
    if guide is not None:
        lessons.append(f"taught by {_teacher(guide)}{'' if guide.get('alpha', 1.0) == 1.0 else ' and labels'}")
    if (origin := run.config.get("origin")) is not None:
        before = _origin(run, origin)
        lessons.append("pre-trained" if before is None else f"pre-trained on {_subject(before)}")
    return lessons


def _subject(run: Run) -> str:
    guide = run.config.get("guide")
    return str(name_of(run.config["dataset"]) if guide is None else _teacher(guide))


def _teacher(guide: dict[str, Any]) -> str:
    """Return the name of a run's teacher, or "a guide" for a user's own guide without a name."""
    teacher = guide.get("teacher")
    return str(teacher.get("name", "a guide") if isinstance(teacher, dict) else "a guide")


def _origin(run: Run, origin: Origin) -> Run | None:
    """Return the run whose weights a run started from, at its old path or beside it; None if it is gone or changed."""
    lay = located(origin["found_at"], run.folder)
    for folder in (lay, run.folder.resolve().parent / lay.name):  # a distillation may be moved as a whole
        before = Run(folder)
        try:
            if weights_digest(before) == origin["weights"] and before.config:
                return before
        except RunError:
            continue
    return None


def _options(run: Run, generations: int = GENERATIONS) -> dict[str, Any]:
    """Return the options without a column, by dotted name: those of the run, and of the run that it started from.

    Paths are left out, and digests are shortened. Initial weights are described by the options that led to them, so
    that runs of several seeds are described alike. They are described by their digest if that run is gone, or more than
    `generations` runs ago, since damaged files may say that a run started from itself.
    """
    config, origin = run.config, run.config.get("origin")
    options = {key: value for key, value in flatten(config).items() if key not in SHOWN and not key.endswith(FOUND_AT)}
    for key in ("guide.teacher.digest", "guide.transfer_set", "origin.weights"):
        if options.get(key) is not None:
            options[key] = str(options[key])[:DIGITS]
    before = None if origin is None or not generations else _origin(run, origin)
    if before is not None:
        del options["origin.weights"]
        options |= {f"{PRETRAIN}.{key}": value for key, value in _options(before, generations - 1).items()}
        if before.config["seed"] != config["seed"]:
            options[f"{PRETRAIN}.seed"] = before.config["seed"]
    return options


def _short(key: str) -> str:
    """Return the name in tables of an option with a dotted name."""
    name = key.removesuffix(".digest").rpartition(".")[2]
    return f"{PRETRAIN} {name}" if key.startswith(f"{PRETRAIN}.") else name


def group_rows(rows: Sequence[Row], level: float = LEVEL) -> list[Group]:
    """Average rows that differ only in the seed, in order of first appearance."""
    members: dict[tuple[str, str, int], dict[int, Row]] = {}
    for row in rows:
        members.setdefault((row.model, row.dataset, row.parameters), {})[row.seed] = row
    return [
        Group(
            model=model,
            dataset=dataset,
            seeds=tuple(sorted(by_seed)),
            parameters=parameters,
            auc=mean_interval([row.auc.value for row in by_seed.values()], level=level),
            acc=mean_interval([row.acc.value for row in by_seed.values()], level=level),
            val_auc=mean_interval([row.val_auc for row in by_seed.values()], level=level),
            seconds=sum(row.seconds for row in by_seed.values()) / len(by_seed),
        )
        for (model, dataset, parameters), by_seed in members.items()
    ]


def cells(row: Row) -> list[str]:
    """Return a row as text, in the order of `COLUMNS`."""
    return [
        row.model,
        name_of(row.dataset),  # for a user's own file the name without its folder
        str(row.seed),
        f"{row.parameters:,}",
        shown(row.auc),
        shown(row.acc),
        f"{row.val_auc:.3f}",
        str(row.best_epoch),
        f"{row.seconds:.1f}",
    ]


def caption(rows: Sequence[Row]) -> str:
    """Return a caption that says what the intervals are, and why some rows have none."""
    none = any(interval.why for row in rows for interval in (row.auc, row.acc))
    return f"{INTERVALS} None: {FEW}." if none else INTERVALS


def group_cells(group: Group) -> list[str]:
    """Return a group as text, in the order of `GROUP_COLUMNS`."""
    return [
        group.model,
        name_of(group.dataset),
        str(len(group.seeds)),
        f"{group.parameters:,}",
        shown(group.auc),
        shown(group.acc),
        shown(group.val_auc),
        f"{group.seconds:.1f}",
    ]


def as_json(rows: Sequence[Row], groups: Sequence[Group]) -> dict[str, Any]:
    """Return rows and groups as plain values."""
    return {"runs": [asdict(row) for row in rows], "means": [asdict(group) for group in groups]}
