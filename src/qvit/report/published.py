"""Published test figures on MedMNIST, and the figures of the paper that qvit follows.

`published.csv` holds a row per model and dataset: AUC and ACC, empty if not reported, and the parameters in millions if
the model's own paper gives them for its own network. Sources: "MedMNIST v2" is the official table of Yang et al. 2023
(Scientific Data 10:41); MedMamba, MedViT and MedViTV2 are from their own papers.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from qvit.evaluation.sampled import METRICS


@dataclass(frozen=True)
class Published:
    """One published model: its test metrics by dataset, and its parameters in millions, None if not published."""

    name: str
    source: str
    figures: dict[str, dict[str, float]]
    parameters: float | None = None

    def on(self, dataset: str) -> dict[str, float]:
        """Return the test metrics reported on a dataset."""
        return self.figures.get(dataset, {})


@cache
def published() -> tuple[Published, ...]:
    """Return the published models, in the order of the file."""
    found: dict[tuple[str, str], Published] = {}
    text = (files("qvit.report") / "published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        key = row["model"], row["source"]
        model = found.setdefault(key, Published(*key, {}, float(row["parameters"]) if row["parameters"] else None))
        model.figures[row["dataset"]] = {metric: float(row[metric]) for metric in METRICS if row.get(metric)}
    return tuple(found.values())


# The figures that the paper reports for its own models, means over its eight datasets, from scratch.
PAPER_SOURCE = "arXiv:2503.07294v2"
PAPER = {"qvit": {"auc": 0.863, "acc": 0.710}, "vit_matched": {"auc": 0.846, "acc": 0.687}}
PAPER_DATASETS = (
    "pathmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "organcmnist",
)
