"""What is trained, and what came of it, as plain values that can be sent to another process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Cell:
    """A candidate without one fold: `place` counts folds through all divisions, `options` are those of the run."""

    candidate: str
    place: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Cells of one architecture that a worker trains together; `root` is the folder of the official files."""

    identity: str
    cells: tuple[Cell, ...]
    root: Path | None = None

    @property
    def all(self) -> tuple["Batch", ...]:
        """What a pool of workers counts."""
        return (self,)


@dataclass(frozen=True)
class Judged:
    """What a candidate says of the images that were held out: probabilities as float32, and AUC and accuracy of these.

    `seconds` of training and prediction are its share of its stack's; at its usual pace it would take `pace`, which
    leaves out what is compiled or loaded first. `parameters` are those of the trained model. With `error` it has none
    of this.
    """

    candidate: str
    place: int
    auc: float = 0.0
    acc: float = 0.0
    seconds: float = 0.0
    pace: float = 0.0
    parameters: int = 0
    scores: Float[np.ndarray, "n c"] | None = None
    error: str | None = None
