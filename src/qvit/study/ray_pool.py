"""Workers as tasks of a Ray cluster, or of one that Ray starts on this machine.

No file system needs to be shared. Each file of images and each teacher is put into Ray's object store once and copied
to each machine once; the files of a finished run are sent back, and the driver writes them. Ray repeats a task whose
worker died, which continues from its last epoch if it is on the same machine.
"""

import getpass
import hashlib
import json
import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qvit.data.fetch import default_root
from qvit.data.registry import file_name, get_info, is_path
from qvit.errors import ConfigError
from qvit.files import PART, write_atomic
from qvit.study.outcome import OUTPUTS, Outcome
from qvit.study.pool import Event, attempt
from qvit.study.work import Work, execute
from qvit.training.places import located, recorded, with_places
from qvit.training.record import dump

RETRIES = 3
ANSWER = 10.0  # seconds in which a cluster's head should answer
LAST = ("result.json", "distillation.json")  # mark a run as finished, so they are written last
IMAGES = ("dataset", "transfer_set")  # options that name files of images
Files = dict[str, bytes]


@dataclass(frozen=True)
class _Sent:
    """What a task needs besides its `Work`: files of images by option, and teachers' folders, each with its name.

    Each comes with the digest of its content, under which a machine keeps it, since names and paths may be reused.
    """

    images: dict[str, tuple[str, str, Any]]
    teachers: tuple[tuple[str, str, Any], ...]


class RayPool:
    """A Ray cluster at `address`; "local" starts one on this machine with room for `workers` runs.

    Each run takes `threads` CPUs, and a GPU if it computes on one. Raises `ConfigError` if Ray is not installed, or if
    there is no cluster at the address. A run of a stack is done by itself, with the same result.
    """

    stacks = False

    def __init__(self, address: str, folder: Path, *, workers: int | None = None, threads: int = 1) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("--ray needs Ray, which is not installed: pip install 'qvit[ray]'.") from error
        self._ray: Any = ray
        self._threads = threads
        self._study = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        _check_address(address)
        said: dict[str, Any] = {"address": address}
        if address == "local":
            said |= {"num_cpus": (workers or 1) * threads, "include_dashboard": False}
        try:
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **said)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"There is no Ray cluster at '{address}': {reason}") from error
        self._refs: dict[Path, tuple[str, str, Any]] = {}
        self._running: dict[Any, Work] = {}

    @property
    def idle(self) -> int:
        """The number of runs that the cluster still has room for."""
        cpus = int(self._ray.cluster_resources().get("CPU", 0)) // self._threads
        return max(0, cpus - len(self._running))

    def submit(self, work: Work) -> str:
        """Let the cluster begin a run and return "ray", the name of every worker."""
        options = {"num_cpus": self._threads, "max_retries": RETRIES}
        if str(work.options.get("device", "cpu")).startswith("cuda"):
            options["num_gpus"] = 1
        images = {}
        for key in IMAGES:
            path = _images_of(work, key)
            if path is not None:
                images[key] = self._put(path)
        sent = _Sent(images, tuple(self._put(teacher) for teacher in work.teachers))
        reference = self._ray.remote(_task).options(**options).remote(work, sent, self._study)
        self._running[reference] = work
        return "ray"

    def _put(self, path: Path) -> tuple[str, str, Any]:
        """Return name, digest, and a reference to a file's bytes or a folder's files, which are sent once."""
        if path not in self._refs:
            content = read_files(path) if path.is_dir() else path.read_bytes()
            self._refs[path] = path.name, _digest(content), self._ray.put(content)
        return self._refs[path]

    def events(self, timeout: float) -> list[Event]:
        """Return the outcomes of runs; a run is lost if its workers died more often than Ray retries."""
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), timeout=timeout)
        return [self._event(reference, self._running.pop(reference)) for reference in done]

    def _event(self, reference: Any, work: Work) -> Event:
        try:
            kind, told, files = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Event("lost", work.identity, "ray", " ".join(str(error).split())[:500])
        if kind == "finished":
            write_files(work.folder, files)
        return Event(kind, work.identity, "ray", told)

    def close(self) -> None:
        """Leave the cluster; running tasks are cancelled, and a cluster that was started here ends."""
        self._ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse at once an address at which nothing listens, since Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        if address in ("local", "auto"):
            return
        raise ConfigError(
            f"--ray takes local, auto, or an address such as 10.0.0.1:6379 or ray://head:10001, not '{address}'."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"There is no Ray cluster at '{address}': {error}.") from error


def read_files(folder: Path) -> Files:
    """Return the files in a folder and its subfolders, by relative path, without hidden and unfinished ones."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.suffix != PART:
            yield path


def _digest(content: bytes | Files) -> str:
    """Return the first digits of the SHA-256 of a file, or of files with their names."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()[:16]
    return _digest("".join(f"{_digest(content[name])} {name}\n" for name in sorted(content)).encode())


def write_files(folder: Path, files: Files) -> None:
    """Write the files that `read_files` returned; those that mark a run as finished come last."""
    for name in sorted(files, key=lambda name: (Path(name).name in LAST, name.count("/") == 0, name)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, files[name])


def _images_of(work: Work, key: str) -> Path | None:
    """Return the file of images that an option names; None where there is none to send."""
    name = work.options.get(key)
    if name is None:
        return None
    if is_path(name):
        if not name.endswith(".npz"):
            raise ConfigError(
                f"Ray sends single files to other machines, and {name} is a folder or table of pictures: make an .npz "
                "file of it with `qvit data import`, and name that in the study."
            )
        return Path(name)
    size = int(work.options.get("size", 28))
    if not get_info(name).md5:
        return None  # generated, so there is no file
    return Path(work.root or default_root()) / file_name(name, size)


def _task(work: Work, sent: _Sent, study: str) -> tuple[str, Any, Files]:
    """Do a run on this machine; return its outcome, and its files with the driver's paths in them."""
    place = Path(tempfile.gettempdir()) / f"qvit-{getpass.getuser()}-{study}"
    here, places = _unpacked(work, sent, place)
    kind, told = attempt(execute, here)
    files: Files = {}
    if kind == "finished":
        assert isinstance(told, Outcome)
        found = read_files(here.folder)
        files = {name: _moved(name, content, places, here.folder, work.folder) for name, content in found.items()}
        shutil.rmtree(here.folder, ignore_errors=True)
    return kind, told, files


def _unpacked(work: Work, sent: _Sent, place: Path) -> tuple[Work, dict[str, str]]:
    """Return the work with paths on this machine, where its files are put, and a map of these paths to the driver's."""
    import ray

    options = dict(work.options)
    here = replace(work, folder=place / work.folder.name, outputs=place / OUTPUTS, root=place / "data")
    places = {str(here.folder): str(work.folder.resolve()), str(here.outputs): str(work.outputs.resolve())}
    for key, (name, digest, reference) in sent.images.items():
        target = place / "data" / name
        if is_path(options[key]):
            target = place / "own" / digest / name
            places[str(target)] = options[key]
            options[key] = str(target)
        _lay(target, ray.get(reference))
    teachers = []
    for folder, (name, digest, reference) in zip(work.teachers, sent.teachers, strict=True):
        target = place / "teachers" / digest / name
        places[str(target)] = str(folder.resolve())
        for file, content in ray.get(reference).items():
            _lay(target / file, content)
        teachers.append(target)
    return replace(here, options=options, teachers=tuple(teachers), download=False), places


def _lay(path: Path, content: bytes) -> None:
    """Write a file unless it exists; another task may be writing the same."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)


def _moved(name: str, content: bytes, places: dict[str, str], here: Path, there: Path) -> bytes:
    """Return a file's bytes as a run in the driver's folder `there` writes them: only places in config.json differ."""
    if Path(name).name != "config.json":
        return content
    inside = Path(name).parent

    def change(place: str) -> str:
        path = str(located(place, here / inside))
        for lay, lies in places.items():
            if path == lay or path.startswith(f"{lay}/"):
                return recorded(lies + path[len(lay) :], there / inside)
        return place

    return dump(with_places(json.loads(content), change))
