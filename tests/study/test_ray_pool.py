"""Runs done by Ray: what is sent and what comes back, with a module in Ray's place. A real one is in test_killed.py."""

import getpass
import json
import re
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvit.data.fetch import default_root
from qvit.errors import ConfigError, DataError
from qvit.study import ray_pool
from qvit.study.outcome import Outcome
from qvit.study.pool import Event
from qvit.study.ray_pool import RayPool, _images_of, _task, read_files, write_files
from qvit.study.work import Work
from qvit.training.places import recorded


class LostError(Exception):
    """What Ray raises of a task that is gone."""


class Ray:
    """Stands for the module: keeps what it is given, does tasks when they are asked for."""

    exceptions = SimpleNamespace(RayError=LostError)

    def __init__(self, cpus: float = 4.0) -> None:
        self.cpus, self.said, self.kept, self.begun, self.waited = cpus, {}, [], [], []
        self.outcomes: dict[int, Any] = {}
        self.left = False

    def init(self, **said: Any) -> None:
        self.said = said

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus} if self.cpus else {}

    def put(self, content: Any) -> Any:
        self.kept.append(content)
        return content

    def get(self, reference: Any) -> Any:
        found = self.outcomes.get(reference) if isinstance(reference, int) else reference
        if isinstance(found, Exception):
            raise found
        return found

    def remote(self, function: Any) -> Any:
        def begin(options: dict[str, Any], arguments: tuple[Any, ...]) -> int:
            self.begun.append((function, options, arguments))
            return len(self.begun) - 1

        return SimpleNamespace(options=lambda **said: SimpleNamespace(remote=lambda *given: begin(said, given)))

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        self.waited.append(timeout)
        return [one for one in references if one in self.outcomes], []

    def shutdown(self) -> None:
        self.left = True


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setitem(sys.modules, "ray", made)
    return made


def work_of(folder: Path, identity: str = "a", **options: Any) -> Work:
    given = {"dataset": "phantom", "model": "vit_4q1h"} | options
    return Work(identity, f"run {identity}", given, folder / identity, folder / "outputs", download=False)


def test_a_cluster_of_ones_own_has_so_many_workers(ray: Ray, tmp_path: Path) -> None:
    RayPool("local", tmp_path, workers=3, threads=2)
    assert {key: ray.said[key] for key in ("address", "num_cpus", "include_dashboard", "log_to_driver")} == {
        "address": "local",
        "num_cpus": 6,
        "include_dashboard": False,
        "log_to_driver": False,
    }
    RayPool("local", tmp_path)
    assert ray.said["num_cpus"] == 1
    RayPool("auto", tmp_path, workers=3)
    assert set(ray.said) == {"address", "log_to_driver", "logging_level"}


def test_there_is_room_for_as_many_runs_as_processors_allow(ray: Ray, tmp_path: Path) -> None:
    pool = RayPool("auto", tmp_path, threads=2)
    assert pool.idle == 2
    for name in "abc":
        assert pool.submit(work_of(tmp_path, name)) == "ray"
    assert pool.idle == 0, "none, and not less than none"
    ray.cpus = 9.0
    assert pool.idle == 1
    ray.cpus = 0.0
    assert pool.idle == 0


def test_a_run_takes_its_threads_and_a_gpu_if_it_computes_on_one(ray: Ray, tmp_path: Path) -> None:
    pool = RayPool("auto", tmp_path, threads=2)
    for device in ("cpu", "cuda", "cuda:1"):
        pool.submit(work_of(tmp_path, device=device))
    pool.submit(work_of(tmp_path))
    plain = {"num_cpus": 2, "max_retries": 3}
    assert [options for _, options, _ in ray.begun] == [
        plain,
        plain | {"num_gpus": 1},
        plain | {"num_gpus": 1},
        plain,
    ]
    assert {function for function, *_ in ray.begun} == {_task}


def test_files_and_teachers_are_sent_once(ray: Ray, tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(b"images")
    (tmp_path / "pool.npz").write_bytes(b"more")
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "result.json").write_bytes(b"{}")
    pool = RayPool("auto", tmp_path)
    options = {"dataset": str(tmp_path / "own.npz"), "transfer_set": str(tmp_path / "pool.npz")}
    for name in "ab":
        pool.submit(replace(work_of(tmp_path, name, **options), teachers=(teacher,)))
    assert ray.kept == [b"images", b"more", {"result.json": b"{}"}]
    _, _, (work, sent, study) = ray.begun[1]
    assert (work.identity, len(study)) == ("b", 12)
    assert {key: (name, content) for key, (name, _, content) in sent.images.items()} == {
        "dataset": ("own.npz", b"images"),
        "transfer_set": ("pool.npz", b"more"),
    }
    assert [(name, content) for name, _, content in sent.teachers] == [("teacher", {"result.json": b"{}"})]
    digests = {digest for _, digest, _ in (*sent.images.values(), *sent.teachers)}
    assert {len(digest) for digest in digests} == {16}
    assert len(digests) == 3


def test_which_file_an_option_names(tmp_path: Path) -> None:
    work = work_of(tmp_path, dataset="retinamnist", size=64)
    assert _images_of(work, "transfer_set") is None
    assert _images_of(work, "dataset") == Path(default_root()) / "retinamnist_64.npz"
    assert _images_of(replace(work, root=tmp_path), "dataset") == tmp_path / "retinamnist_64.npz"
    assert _images_of(work_of(tmp_path, dataset="breastmnist"), "dataset") == Path(default_root()) / "breastmnist.npz"
    assert _images_of(work_of(tmp_path, dataset="sub/own.npz"), "dataset") == Path("sub/own.npz")
    assert _images_of(work_of(tmp_path), "dataset") is None, "phantoms are made where they are needed"
    told = (
        "Ray sends single files to other machines, and ./cells is a folder or table of pictures: make an .npz file of "
        "it with `qvit data import`, and name that in the study."
    )
    with pytest.raises(ConfigError, match=re.escape(told)):
        _images_of(work_of(tmp_path, dataset="./cells"), "dataset")


def test_events(ray: Ray, tmp_path: Path) -> None:
    pool = RayPool("auto", tmp_path)
    assert pool.events(9.0) == []
    assert ray.waited == [], "nobody is waited for"
    works = [work_of(tmp_path, name) for name in "abcd"]
    for work in works:
        pool.submit(work)
    told = Outcome({"auc": 0.5}, 1.5)
    ray.outcomes = {
        0: ("finished", told, {"result.json": b"{}"}),
        1: ("failed", ("E: no", "Traceback"), {"result.json": b"{}"}),
        2: LostError(f"the node\n  died {'x' * 600}"),
    }
    found = pool.events(0.25)
    assert ray.waited == [0.25]
    assert found[:2] == [
        Event("finished", "a", "ray", told),
        Event("failed", "b", "ray", ("E: no", "Traceback")),
    ]
    assert (found[2].kind, found[2].identity, found[2].worker) == ("lost", "c", "ray")
    assert found[2].told == f"the node died {'x' * 486}"
    assert (tmp_path / "a" / "result.json").read_bytes() == b"{}"
    assert not (tmp_path / "b").exists(), "only what is finished is written"
    assert pool.idle == 3, "the fourth is still at work"
    assert pool.events(0.0) == []
    assert not ray.left
    pool.close()
    assert ray.left


# --- on another machine ---


@pytest.fixture
def machine(ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a study has on a machine of the cluster."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"qvit-{getpass.getuser()}-study"


def test_a_task_does_the_work_and_tells_it_as_if_done_here(
    ray: Ray, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npz, teacher, done = tmp_path / "own.npz", tmp_path / "teacher", []
    npz.write_bytes(b"images")
    teacher.mkdir()
    (teacher / "model.safetensors").write_bytes(b"weights")

    def execute(work: Work) -> Outcome:
        done.append(work)
        assert Path(work.options["dataset"]).read_bytes() == b"images"
        [known] = work.teachers
        assert (known / "model.safetensors").read_bytes() == b"weights"
        (work.folder / "pretrain").mkdir(parents=True)
        for name in ("config.json", "pretrain/config.json", "notes.txt"):
            here = (work.folder / name).parent
            places = {
                "dataset": recorded(work.options["dataset"], here),
                "origin": {"found_at": recorded(work.folder / "pretrain", here)},
                "guide": {"teacher": {"found_at": [recorded(known, here), "/elsewhere"]}},
            }
            (work.folder / name).write_text(json.dumps(places))
        return Outcome({"auc": 0.5}, 1.0)

    monkeypatch.setattr(ray_pool, "execute", execute)
    work = replace(work_of(tmp_path, dataset=str(npz)), teachers=(teacher,), download=True)
    pool = RayPool("auto", tmp_path)
    pool.submit(work)
    [(_, _, (_, sent, _))] = ray.begun
    kind, told, files = _task(work, sent, "study")
    assert (kind, told) == ("finished", Outcome({"auc": 0.5}, 1.0))
    [here] = done
    assert (here.folder, here.outputs, here.root) == (machine / "a", machine / "teacher-outputs", machine / "data")
    assert (here.identity, here.name, here.download) == ("a", "run a", False)
    assert set(files) == {"config.json", "pretrain/config.json", "notes.txt"}
    for name, up in (("config.json", ".."), ("pretrain/config.json", "../..")):
        assert json.loads(files[name]) == {
            "dataset": f"{up}/own.npz",
            "origin": {"found_at": {"..": "./pretrain", "../..": "./."}[up]},
            "guide": {"teacher": {"found_at": [f"{up}/teacher", "/elsewhere"]}},
        }
    assert b"../own/" in files["notes.txt"], "nothing but places in a config.json is changed"
    assert not here.folder.exists(), "nothing of it is left there"


def test_a_task_that_fails_keeps_what_it_has_to_go_on_with(
    ray: Ray, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(work: Work) -> Outcome:
        work.folder.mkdir(parents=True)
        (work.folder / "state.pt").write_bytes(b"half")
        raise DataError("out of images")

    monkeypatch.setattr(ray_pool, "execute", execute)
    kind, (line, trace), files = _task(work_of(tmp_path), ray_pool._Sent({}, ()), "study")
    assert (kind, line, files) == ("failed", "DataError: out of images", {})
    assert trace.startswith("Traceback")
    assert (machine / "a" / "state.pt").read_bytes() == b"half"


def test_an_official_file_is_laid_where_it_is_looked_for_once(
    ray: Ray, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "execute", lambda work: Outcome(work.options, 0.0))
    sent = ray_pool._Sent({"dataset": ("breastmnist.npz", "0" * 16, b"first")}, ())
    _, told, _ = _task(work_of(tmp_path, dataset="breastmnist"), sent, "study")
    assert told.result["dataset"] == "breastmnist"
    assert (machine / "data" / "breastmnist.npz").read_bytes() == b"first"
    again = ray_pool._Sent({"dataset": ("breastmnist.npz", "0" * 16, b"again")}, ())
    _task(work_of(tmp_path, dataset="breastmnist"), again, "study")
    assert (machine / "data" / "breastmnist.npz").read_bytes() == b"first"


def test_what_a_machine_keeps_is_known_by_its_content(ray: Ray, tmp_path: Path) -> None:
    """A file or a teacher that was made anew in the same place is another, though an earlier one still lies there."""
    npz, teacher = tmp_path / "own.npz", tmp_path / "teacher"
    teacher.mkdir()
    work = replace(work_of(tmp_path, dataset=str(npz)), teachers=(teacher,))
    for content in (b"first", b"again"):
        npz.write_bytes(content)
        (teacher / "model.safetensors").write_bytes(content)
        pool = RayPool("auto", tmp_path)
        sent = ray_pool._Sent({"dataset": pool._put(npz)}, (pool._put(teacher),))
        here, places = ray_pool._unpacked(work, sent, tmp_path / "machine")
        assert Path(here.options["dataset"]).read_bytes() == content
        assert (here.teachers[0] / "model.safetensors").read_bytes() == content
        assert places[here.options["dataset"]] == str(npz)
        assert (Path(here.options["dataset"]).name, here.teachers[0].name) == ("own.npz", "teacher")


# --- files ---


def test_files_travel_whole_and_the_result_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "finetune").mkdir(parents=True)
    contents = {"distillation.json": b"d", "finetune/result.json": b"r", "finetune/a.bin": b"\x00\xff", "z.txt": b""}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    (source / ".hidden").write_bytes(b"no")
    (source / "half.part").write_bytes(b"no")
    files = read_files(source)
    assert files == contents
    written: list[str] = []
    real = ray_pool.write_atomic
    monkeypatch.setattr(
        ray_pool, "write_atomic", lambda path, content: (written.append(path.name), real(path, content))
    )
    write_files(tmp_path / "target", files)
    assert read_files(tmp_path / "target") == contents
    assert written == ["a.bin", "z.txt", "result.json", "distillation.json"]


# --- addresses ---


def test_ray_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError) as caught:
        RayPool("local", tmp_path)
    assert str(caught.value) == "--ray needs Ray, which is not installed: pip install 'qvit[ray]'."


@pytest.mark.parametrize("address", ["cluster", ":6379", "host:", "host:port", ""])
def test_what_is_no_address_is_refused(ray: Ray, tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RayPool(address, tmp_path)
    assert str(caught.value) == (
        f"--ray takes local, auto, or an address such as 10.0.0.1:6379 or ray://head:10001, not '{address}'."
    )


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("10.0.0.1:6379", "10.0.0.1", 6379), ("ray://head:10001", "head", 10001), ("[::1]:6379", "::1", 6379)],
)
def test_somebody_listens_at_an_address_or_it_is_refused(
    ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, host: str, port: int
) -> None:
    asked: list[Any] = []

    def answer(place: Any, *, timeout: float) -> Any:
        asked.append((place, timeout))
        return SimpleNamespace(close=lambda: asked.append("closed"))

    monkeypatch.setattr(socket, "create_connection", answer)
    RayPool(address, tmp_path)
    assert asked == [((host, port), 10.0), "closed"]
    assert ray.said["address"] == address

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ConfigError) as caught:
        RayPool(address, tmp_path)
    assert str(caught.value) == f"There is no Ray cluster at '{address}': nobody there."


def test_a_port_too_large_is_refused(ray: Ray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^There is no Ray cluster at '127\.0\.0\.1:99999999': .*\.$"):
        RayPool("127.0.0.1:99999999", tmp_path)


@pytest.mark.parametrize("error", [ConnectionError, ValueError, RuntimeError])
def test_a_cluster_that_does_not_take_us_is_told(
    ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[str], Exception]
) -> None:
    def refuse(**_: Any) -> None:
        raise error("of another\n version")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConfigError) as caught:
        RayPool("auto", tmp_path)
    assert str(caught.value) == "There is no Ray cluster at 'auto': of another version"
