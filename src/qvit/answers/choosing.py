"""What `qvit calibrate` does: how sure a run's answers are, and an operating point that is kept in its folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qvit.answers.calibrated import Answering, Calibration
from qvit.answers.evidence import gathered, load, save
from qvit.answers.needs import Needs
from qvit.evaluation import calibration
from qvit.evaluation.metrics import one_vs_rest
from qvit.training.folder import Run


def calibrated(
    folder: str | Path,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    clear: bool = False,
    root: str | Path | None = None,
    data: str | Path | None = None,
) -> dict[str, Any]:
    """Learn from validation images how sure answers are; keep what was chosen, and return the figures by name.

    Raises ConfigError for values outside (0, 1] and for a task without yes-or-no answers; RunError if the data are not
    there, or nothing can be written.
    """
    run = Run(Path(folder))
    needs = Needs.of(run)
    options = Answering(sensitivity=sensitivity, specificity=specificity)
    kept = load(run)
    evidence = kept or gathered(run, root=root, file=data)
    if clear or options.operating is not None:
        evidence = replace(evidence, operating=options.operating)
    learnt = Calibration.learn([evidence], needs, options)
    if evidence is not kept:
        save(run, evidence)
    return _figures(evidence.labels, learnt.probabilities(evidence.scores), learnt, needs) | {
        "operating_point": None if evidence.operating is None else "{} {:g}".format(*evidence.operating),
        "notes": list(learnt.notes),
    }


def _figures(labels: Any, told: Any, learnt: Calibration, needs: Needs) -> dict[str, Any]:
    task = needs.task
    decided = learnt.decided(told)
    errors = calibration.wrong(labels, decided, task)
    curve = calibration.risk_coverage(calibration.confidence(told, decided, task), errors)
    before, after = learnt.ece or (None, None)
    found: dict[str, Any] = {
        "images": len(labels),
        "temperature": learnt.temperature,
        "ece_before": before,
        "ece_after": after,
        "risk_over_coverage": curve.area,
    }
    truth = one_vs_rest(labels, task, classes=told.shape[1])
    answers = decided[:, -truth.shape[1] :]
    names = needs.classes[-truth.shape[1] :]
    for name, asked, given in zip(names, truth.T, answers.T, strict=True):
        found[f"sensitivity of {name}"] = float(np.mean(given[asked])) if asked.any() else None
        found[f"specificity of {name}"] = float(np.mean(~given[~asked])) if not asked.all() else None
    return found
