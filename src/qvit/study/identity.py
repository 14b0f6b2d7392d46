"""What a run is, as a number: the hash of everything that determines it, so that no run is done twice."""

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import qvit
from qvit.data.arrays import load_dataset
from qvit.data.registry import get_info, is_path
from qvit.data.transfer import load_images
from qvit.distill.pipeline import DistillationConfig
from qvit.models.networks import TIMM
from qvit.study.places import without_places
from qvit.study.spec import Job
from qvit.training.options import RunConfig

FORMAT = 1
SHORT = 8  # digits where a person reads them
# Folders of the package that choose, watch or show runs, and cannot change what comes out of one.
BYSTANDERS = ("study", "cli", "bench")
COMPUTED_BY = ("torch", "numpy", "scipy", "numba", "monai")


@cache
def code_digest() -> str:
    """Return the SHA-256 of all sources that can change what a run gives, and of the versions of what they call."""
    root = Path(qvit.__file__).parent
    digest = hashlib.sha256(json.dumps({name: version(name) for name in COMPUTED_BY}).encode())
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):  # paths sort by system
        place = path.relative_to(root)
        if place.parts[0] not in BYSTANDERS:
            source = path.read_bytes().replace(b"\r\n", b"\n")  # git may write lines as the system ends them
            digest.update(f"{place.as_posix()} {hashlib.sha256(source).hexdigest()}\n".encode())
    return digest.hexdigest()


def data_digest(dataset: str, size: int, *, root: str | Path | None = None) -> str:
    """Return the digest of a dataset's images and labels; that of an official file is known without reading it."""
    if not is_path(dataset):
        known = get_info(dataset).md5.get(size)
        if known is not None:
            return known
    return load_dataset(dataset, size=size, root=root, download=False).digest


class Identities:
    """The identities of jobs; each is worked out once."""

    def __init__(self, root: str | Path | None = None) -> None:
        self._root = root
        self._data: dict[tuple[str, int], str] = {}
        self._done: dict[int, tuple[Job, str]] = {}  # with the job, so that no other gets its id

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
            self._data[key] = data_digest(*key, root=self._root)
        return self._data[key]

    def _transfer_set_of(self, config: Any, student: RunConfig) -> str | None:
        name = getattr(config, "transfer_set", None)
        if name is None or not is_path(name):
            return None if name is None else data_digest(name, student.size, root=self._root)
        return load_images(name, size=student.size, channels=3, root=self._root, download=False)[1]


def _version_of_timm() -> str | None:
    try:
        return version("timm")
    except PackageNotFoundError:
        return None  # the run will say what is missing


def _determined(config: RunConfig | DistillationConfig) -> dict[str, Any]:
    """Return all options of a job as they take effect, so that two ways of writing one thing are one."""
    told = asdict(config)
    if isinstance(config, DistillationConfig):
        for stage in ("pretrain", "finetune"):
            told[stage] = asdict(config.of(stage).train) if stage in config.stages else None
    return without_places(told)
