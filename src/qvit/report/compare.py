"""The rows of a comparison, read from finished run folders, and the tables they make."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qvit.data.registry import is_path, name_of
from qvit.errors import RunError
from qvit.evaluation.statistics import Interval, folds_interval, mean_interval
from qvit.models.baselines import BASELINES
from qvit.report.words import shown
from qvit.training.described import weights_digest
from qvit.training.folder import Run, flatten
from qvit.training.places import FOUND_AT, located
from qvit.training.records import Ends
from qvit.training.stored import Origin

LEVEL = 0.95
DIGITS = 8  # of a digest that is shown
INTERVALS = "Intervals: 95 %, bootstrap over {} images."
OVER_SEEDS = "Intervals: 95 %, Student's t over seeds, the same test images for all."
OVER_FOLDS = "Intervals: 95 %, Student's t over runs, wider as these share training images (Nadeau and Bengio 2003)."
FEW = "too few {} images to tell"  # how a figure varies over images
GENERATIONS = 8  # the longest chain of runs started from one another that is described
PRETRAIN = "pretrain"  # the prefix of options of the run that a run started from
# Keys of config.json with a column each; a recipe's options stand for its name.
SHOWN = ("model", "dataset", "size", "seed", "folds", "fold", "parameters", "recipe")
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
FOLD_COLUMNS = ["model", "dataset", "seed", "fold", "parameters", "AUC", "ACC", "seconds"]
FOLDS_COLUMNS = ["model", "dataset", "folds", "seeds", "runs", "parameters", "AUC", "ACC", "seconds"]


@dataclass(frozen=True)
class Row:
    """One run: what it was, and its figures on the test split, or the `fold` held out, with bootstrap intervals.

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
    folds: int | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed: means with Student-t intervals.

    With `folds` they may differ in the fold, too, and intervals are those of `folds_interval`.
    """

    model: str
    dataset: str
    seeds: tuple[int, ...]
    parameters: int
    auc: Interval
    acc: Interval
    val_auc: Interval
    seconds: float
    folds: int | None = None
    runs: int = 1


def read_row(run: Run) -> Row:
    """Return the row of one finished run; raises `RunError` otherwise."""
    config, result = run.config, run.result
    own, what = is_path(config["dataset"]), _measured("fold" in config)
    return Row(
        model=_named(config["model"], _lessons(run)),
        dataset=run.dataset if config["size"] == 28 or own else f"{run.dataset}_{config['size']}",
        seed=config["seed"],
        parameters=result.parameters,
        auc=_interval(result.test.auc, result.test.auc_interval, what),
        acc=_interval(result.test.acc, result.test.acc_interval, what),
        val_auc=result.val.auc,
        best_epoch=result.best_epoch,
        seconds=run.seconds,
        folds=config.get("folds"),
        fold=config.get("fold"),
    )


def _interval(value: float, ends: Ends, what: str) -> Interval:
    return Interval(value, *ends, LEVEL, FEW.format(what) if None in ends else "")


def _measured(held_out: bool) -> str:
    """Return which images figures are of."""
    return "held-out" if held_out else "test"


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
    """Average rows that differ only in the seed, and fold, in order of first appearance.

    Plain baselines store as many numbers as they were fitted to, which seeds and folds change: of these the mean.
    """
    members: dict[tuple[str, str, int | None, int | None], dict[tuple[int, int | None], Row]] = {}
    for row in rows:
        size = None if row.model.partition(" ")[0] in BASELINES else row.parameters
        members.setdefault((row.model, row.dataset, size, row.folds), {})[row.seed, row.fold] = row

    def mean(values: list[float], folds: int | None) -> Interval:
        return mean_interval(values, level=level) if folds is None else folds_interval(values, folds, level=level)

    return [
        Group(
            model=model,
            dataset=dataset,
            seeds=tuple(sorted({seed for seed, _ in alike})),
            parameters=round(sum(row.parameters for row in alike.values()) / len(alike)),
            auc=mean([row.auc.value for row in alike.values()], folds),
            acc=mean([row.acc.value for row in alike.values()], folds),
            val_auc=mean([row.val_auc for row in alike.values()], folds),
            seconds=sum(row.seconds for row in alike.values()) / len(alike),
            folds=folds,
            runs=len(alike),
        )
        for (model, dataset, _, folds), alike in members.items()
    ]


@dataclass(frozen=True)
class Table:
    """A table as text."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str


def tables(rows: Sequence[Row], groups: Sequence[Group] = ()) -> list[Table]:
    """Return the tables of runs and of means: on test images, and on folds that were held out, each if there are any.

    There are means of several seeds, or of several folds.
    """
    whole, held = ([row for row in rows if (row.folds is None) == plain] for plain in (True, False))
    seeds = [group for group in groups if group.folds is None]
    folds = [group for group in groups if group.folds is not None]
    made = []
    if whole:
        made.append(Table("Runs", COLUMNS, [cells(row) for row in whole], caption(whole)))
    if any(len(group.seeds) > 1 for group in seeds):
        made.append(Table("Means over seeds", GROUP_COLUMNS, [group_cells(group) for group in seeds], OVER_SEEDS))
    if held:
        made.append(Table("Folds held out", FOLD_COLUMNS, [cells(row) for row in held], caption(held)))
    if any(group.runs > 1 for group in folds):
        made.append(Table("Means over folds", FOLDS_COLUMNS, [group_cells(group) for group in folds], OVER_FOLDS))
    return made


def cells(row: Row) -> list[str]:
    """Return a row as text, in the order of `COLUMNS`, or `FOLD_COLUMNS`."""
    seconds = f"{row.seconds:.1f}"
    return [
        row.model,
        name_of(row.dataset),  # for a user's own file the name without its folder
        str(row.seed),
        *([] if row.folds is None else [f"{row.fold} of {row.folds}"]),
        f"{row.parameters:,}",
        shown(row.auc),
        shown(row.acc),
        *([f"{row.val_auc:.3f}", str(row.best_epoch), seconds] if row.folds is None else [seconds]),
    ]


def caption(rows: Sequence[Row]) -> str:
    """Return a caption that says what the intervals are, and why some rows have none."""
    none = any(interval.why for row in rows for interval in (row.auc, row.acc))
    held = any(row.folds is not None for row in rows)
    told = INTERVALS.format(_measured(held)) + (f" None: {FEW.format(_measured(held))}." if none else "")
    return f"After the last epoch, without the test images. {told}" if held else told


def group_cells(group: Group) -> list[str]:
    """Return a group as text, in the order of `GROUP_COLUMNS`, or `FOLDS_COLUMNS`."""
    seeds = str(len(group.seeds))
    return [
        group.model,
        name_of(group.dataset),
        *([seeds] if group.folds is None else [str(group.folds), seeds, str(group.runs)]),
        f"{group.parameters:,}",
        shown(group.auc),
        shown(group.acc),
        *([shown(group.val_auc)] if group.folds is None else []),
        f"{group.seconds:.1f}",
    ]


def as_json(rows: Sequence[Row], groups: Sequence[Group]) -> dict[str, Any]:
    """Return rows and groups as plain values."""
    return {"runs": [asdict(row) for row in rows], "means": [asdict(group) for group in groups]}
