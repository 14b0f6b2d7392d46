"""A distillation is a folder of runs: what lies there, and going on with it after a stop.

Where real training is not what is tested, an epoch is a single step: see `one_step`.
"""

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qvit.distill import Distillation, DistillationConfig, DistillConfig, Teacher, TeacherGuide, distill, pipeline
from qvit.distill.pipeline import RESULT
from qvit.errors import RunError
from qvit.training.folder import Run
from qvit.training.run import FOUND_AT, evaluate_run, train_run

pytestmark = pytest.mark.usefixtures("uncounted")
Settings = Callable[..., DistillationConfig]
STAGES = ("scratch", "pretrain", "finetune")
# Dropout, symmetries and the map of features are all drawn; they must be the same after a stop.
LIVELY: dict[str, Any] = {"dropout": 0.2, "augment": "d4", "feature_weight": 0.5}


@pytest.fixture(scope="session")
def steps(settings: Settings, run_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Distillation:
    """A distillation of one step a stage, not to be changed."""
    folder = tmp_path_factory.mktemp("steps")
    return distill(settings(**LIVELY), run_teacher, folder / "whole", cache=folder / "cache")


@pytest.fixture
def copied(steps: Distillation, tmp_path: Path) -> Path:
    return Path(shutil.copytree(steps.folder, tmp_path / "out"))


def weights(run: Run | Path) -> bytes:
    folder = run.folder if isinstance(run, Run) else run
    return (folder / "model.safetensors").read_bytes()


def kept(folder: Path) -> dict[str, Any]:
    """All files of a distillation, but those that say when and where it ran, and the place of what it started from."""
    content: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("environment.json", "timings.jsonl"):
            content[str(path.relative_to(folder))] = path.read_bytes()
    if "finetune/config.json" in content:
        config = json.loads(content["finetune/config.json"])
        assert Path(config["origin"].pop(FOUND_AT)).name == "pretrain"
        content["finetune/config.json"] = config
    return content
