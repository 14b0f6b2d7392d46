"""Published test figures on MedMNIST, and the figures of the paper that qvit follows.

`published.csv` holds a row per model and dataset: AUC and ACC, empty if not reported, and the parameters in millions if
the model's own paper gives them for its own network. Sources: "MedMNIST v2" is the official table of Yang et al. 2023
(Scientific Data 10:41); MedMamba, MedViT and MedViTV2 are from their own papers.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Published:
    """One published model: test (AUC, ACC) by dataset, and its parameters in millions, None if not published."""

    name: str
    source: str
    figures: dict[str, tuple[float | None, float | None]]
    parameters: float | None = None

    def on(self, dataset: str) -> tuple[float | None, float | None]:
        """Return test AUC and ACC on a dataset."""
        return self.figures.get(dataset, (None, None))


@cache
def published() -> tuple[Published, ...]:
    """Return the published models, in the order of the file."""
    found: dict[tuple[str, str], Published] = {}
    text = (files("qvit.report") / "published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        key = row["model"], row["source"]
        model = found.setdefault(key, Published(*key, {}, _number(row["parameters"])))
        model.figures[row["dataset"]] = _number(row["auc"]), _number(row["acc"])
    return tuple(found.values())


def _number(text: str) -> float | None:
    return float(text) if text else None


# The figures that the paper reports for its own models (arXiv:2503.07294v2), means over its eight datasets, from
# scratch.
PAPER = {"source": "arXiv:2503.07294v2", "qvit": (0.863, 0.710), "vit_matched": (0.846, 0.687)}
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
