"""What a tuning has found, and where it lies."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvit.data.registry import name_of
from qvit.evaluation.selection import Rung
from qvit.training.folder import Run
from qvit.training.recipes import Recipe
from qvit.tune.verdict import Verdict


@dataclass(frozen=True)
class Tuned:
    """What a tuning has found: the verdict, the recipe, and its runs on the official training images.

    `share` is how much of the workers' time went into training candidates, `seconds` the time of the whole.
    """

    folder: Path
    dataset: str
    verdict: Verdict
    recipe: Recipe
    rungs: tuple[Rung, ...]
    trainings: int
    runs: tuple[Run, ...]
    seconds: float
    share: float

    @property
    def test(self) -> float:
        """The mean test AUC of the runs."""
        return math.fsum(run.result.test.auc for run in self.runs) / len(self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return what was found as plain values."""
        return {
            "folder": str(self.folder),
            "dataset": name_of(self.dataset),
            "recipe": {"recipe": self.recipe.name, "about": self.recipe.about, "source": self.recipe.source}
            | self.recipe.options,
            "verdict": self.verdict.as_json(),
            "rungs": [vars(rung) for rung in self.rungs],
            "trainings": self.trainings,
            "test_auc": [run.result.test.auc for run in self.runs],
            "test_acc": [run.result.test.acc for run in self.runs],
            "runs": [str(run.folder) for run in self.runs],
            "seconds": round(self.seconds, 1),
            "share_in_training": round(self.share, 4),
        }
