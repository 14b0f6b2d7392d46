"""Identities of runs: the hash of everything that determines a run, so that no run is done twice."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qvit.data.transfer import load_images
from qvit.distill.pipeline import DistillationConfig
from qvit.models.networks import TIMM
from qvit.study.code import code_digest
from qvit.study.places import without_places
from qvit.study.spec import Job
from qvit.training.options import RunConfig

FORMAT = 2
SHORT = 8  # digits shown to people


class Identities:
    """The identities of jobs; each is computed once.

    `digests` holds known digests of datasets, by name and size; other datasets are read, from `root` if official.
    """

    def __init__(
        self, root: str | Path | None = None, digests: Mapping[tuple[str, int], str] = MappingProxyType({})
    ) -> None:
        self._root = root
        self._data = dict(digests)
        self._transfer: dict[tuple[str, int], str] = {}
        self._done: dict[int, tuple[Job, str]] = {}  # kept with the job, so that no other object gets its id

    def of(self, job: Job) -> str:
        """Return the SHA-256, in hexadecimal, of a job's options, data, teachers and code."""
        if id(job) not in self._done:
            self._done[id(job)] = job, self._work_out(job)
        return self._done[id(job)][1]

    def _work_out(self, job: Job) -> str:
        config, student = job.resolved(), job.run
        timm = {"timm": _version_of_timm()} if student.model.startswith(TIMM) else {}  # its networks are not ours
        return hashlib.sha256(
            json.dumps(
                {
                    "format": FORMAT,
                    "code": code_digest(),
                    "data": self.data_of(student),
                    "transfer_set": self._transfer_set_of(config, student),
                    "config": _determined(config),
                    "teachers": [self.of(teacher) for teacher in job.teachers],
                    **timm,
                },
                sort_keys=True,
            ).encode()
        ).hexdigest()

    def data_of(self, config: RunConfig) -> str:
        """Return the digest of a run's data."""
        key = config.dataset, config.size
        if key not in self._data:
            data = config.load_data(self._root, download=False)
            self._data[key] = data.digest
        return self._data[key]

    def _transfer_set_of(self, config: Any, student: RunConfig) -> str | None:
        name = getattr(config, "transfer_set", None)
        if name is None:
            return None
        key = name, student.size
        if key not in self._transfer:
            found = load_images(name, size=student.size, channels=3, root=self._root, download=False)
            self._transfer[key] = found[1]
        return self._transfer[key]


def _version_of_timm() -> str | None:
    try:
        return version("timm")
    except PackageNotFoundError:
        return None  # the run will say what is missing


def _determined(config: RunConfig | DistillationConfig) -> dict[str, Any]:
    """Return all options of a job as they take effect, so that two spellings of the same options are equal."""
    told = asdict(config)
    run = told if isinstance(config, RunConfig) else told["student"]
    run.pop("importing")  # the digest of the images says it
    run.pop("recipe")  # a name: its options are there
    if isinstance(config, DistillationConfig):
        for stage in ("pretrain", "finetune"):
            told[stage] = asdict(config.of(stage).train) if stage in config.stages else None
    return without_places(told)
