"""Studies of a few lines, and what a finished run of one leaves."""

import json
from pathlib import Path
from typing import Any

from qvit.study.reading import parse_study
from qvit.study.spec import Job, Study
from qvit.training.records import Result

SMALL = "datasets: phantom\nmodels: qvit_4q2h\n"
TEACHERS = "teachers: {t: [{arch: vit_4q1h}]}\n"


def parse(text: str, **more: Any) -> Study:
    return parse_study(text, name="study", **more)


def labels(models: str) -> list[str]:
    return [model.label for model in parse(f"datasets: phantom\nmodels: {models}").models]


def students(study: Study) -> list[Job]:
    return [job for job in study.jobs if job.role == "student"]


def teachers(study: Study) -> list[Job]:
    return [job for job in study.jobs if job.role == "teacher"]


def models(entry: str) -> str:
    return f"datasets: phantom\nmodels: {entry}"


def member(entry: str) -> str:
    return SMALL + f"teachers: {{t: [{{{entry}}}]}}\nregimes: {{kd: {{teacher: t}}}}"


def regime(options: str) -> str:
    return SMALL + TEACHERS + f"regimes: {{kd: {{{options}}}}}"


def override(entry: str) -> str:
    return SMALL + TEACHERS + f"regimes: {{scratch: , kd: {{teacher: t}}}}\noverrides: [{{{entry}}}]"


FIGURES = {"auc": 0.75, "acc": 0.5, "auc_interval": [0.5, 0.9], "acc_interval": [None, None]}


def finish(folder: Path, parameters: int = 5, seconds: float = 1.5) -> Result:
    """Make the folder of a finished run; returns its result."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {"parameters": parameters, "best_epoch": 2, "tta": "none", "val": FIGURES, "test": FIGURES}
    (folder / "result.json").write_text(json.dumps(result))
    lines = [json.dumps({"epoch": epoch, "seconds": seconds}) for epoch in (1, 2)]
    (folder / "timings.jsonl").write_text("\n".join(lines))
    return Result.of(result)
