"""Rows of a comparison, read from finished run folders."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qvit.data.registry import is_path
from qvit.evaluation.statistics import Interval, mean_interval
from qvit.training.folder import Run, flatten

LEVEL = 0.95
SHOWN = ("model", "dataset", "size", "seed", "parameters")  # keys of config.json that have a column
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
    """One run: what it was, and its figures on the test split with bootstrap intervals."""

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
    """Runs that differ in the seed alone: means with Student-t intervals."""

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
    test, own = result["test"], is_path(config["dataset"])
    return Row(
        model=config["model"],
        dataset=config["dataset"] if config["size"] == 28 or own else f"{config['dataset']}_{config['size']}",
        seed=config["seed"],
        parameters=result["parameters"],
        auc=_interval(test, "auc"),
        acc=_interval(test, "acc"),
        val_auc=result["val"]["auc"],
        best_epoch=result["best_epoch"],
        seconds=run.seconds,
    )


def _interval(figures: dict[str, Any], name: str) -> Interval:
    low, high = figures[f"{name}_interval"]
    return Interval(figures[name], low, high, LEVEL)


def read_rows(runs: Sequence[Run]) -> list[Row]:
    """Return the rows of finished runs, in order; options that differ within a model are added to its name."""
    rows = [read_row(run) for run in runs]
    flat = [{key: value for key, value in flatten(run.config).items() if key not in SHOWN} for run in runs]
    named = []
    for row, options in zip(rows, flat, strict=True):
        peers = [flat[i] for i, other in enumerate(rows) if (other.dataset, other.model) == (row.dataset, row.model)]
        differing = [key for key in options if any(peer.get(key) != options[key] for peer in peers)]
        told = ", ".join(f"{key.rpartition('.')[2]}={options[key]}" for key in differing)
        named.append(replace(row, model=f"{row.model} ({told})") if told else row)
    return named


def group_rows(rows: Sequence[Row], level: float = LEVEL) -> list[Group]:
    """Average rows that differ in the seed alone, in order of first appearance."""
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
        Path(row.dataset).stem,  # of a user's own file the name is enough
        str(row.seed),
        f"{row.parameters:,}",
        _shown(row.auc),
        _shown(row.acc),
        f"{row.val_auc:.3f}",
        str(row.best_epoch),
        f"{row.seconds:.1f}",
    ]


def group_cells(group: Group) -> list[str]:
    """Return a group as text, in the order of `GROUP_COLUMNS`."""
    return [
        group.model,
        Path(group.dataset).stem,
        str(len(group.seeds)),
        f"{group.parameters:,}",
        _shown(group.auc),
        _shown(group.acc),
        _shown(group.val_auc),
        f"{group.seconds:.1f}",
    ]


def as_json(rows: Sequence[Row], groups: Sequence[Group]) -> dict[str, Any]:
    """Return rows and groups as plain values."""
    return {"runs": [asdict(row) for row in rows], "means": [asdict(group) for group in groups]}


def _shown(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
