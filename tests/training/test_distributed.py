"""A run of several processes has the numbers of one, writes once, and fails as one.

The processes are real: this file is also the program that torchrun starts, with the name of one of the functions under
"what the processes do".
"""

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.distill import DistillConfig, Teacher
from qvit.distill.guide import TeacherGuide
from qvit.errors import ConfigError, QvitError, RunError
from qvit.models import create_model
from qvit.models.zoo import Model
from qvit.training import loop
from qvit.training.distributed import ALONE, Team, assemble
from qvit.training.folder import Run
from qvit.training.loop import Batch, Objective, TrainConfig, fit
from qvit.training.options import RunConfig, resolve
from qvit.training.run import train_run
from qvit.training.seeding import NOISE, derive

Kept = Callable[[Path], dict[str, bytes]]
# 37 images: in batches of 8 the last share is 2 of 5 images, in batches of 1 the second process has none.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 3, "augment": "d4"},
    "single": {"epochs": 1, "batch_size": 1, "augment": "mirror"},
    "labels": {"dataset": "multi-label", "model": "vit_4q1h", "epochs": 2, "class_weights": "balanced", "lr": 0.03},
    "grades": {
        "dataset": "ordinal",
        "task": "ordinal",
        "epochs": 2,
        "loss": "emd",
        "tta": "always",
        "patience": 1,
        "clip_norm": 0.1,
    },
    "odd": {"epochs": 2, "weight_decay": 0.3},
    "teacher": {"epochs": 2, "augment": "d4"},
    "noisy": {"epochs": 4, "dropout": 0.3},
    "norms": {"model": "resnet18", "width": 1 / 16},
}
LIMIT = 600  # seconds: ends what hangs; torch itself would wait for half an hour
SAME_AS_ONE = ("plain", "single", "labels", "grades", "odd", "teacher")


def settings(folder: Path, name: str) -> RunConfig:
    options = {"dataset": "multi-class", "model": "qvit_4q1h", "batch_size": 8} | OPTIONS[name]
    return resolve(options | {"dataset": str(folder / f"{options['dataset']}.npz")})


class Odd(nn.Module):
    """The labels' loss with parameters of its own: one that only the first image moves, and one that nothing does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.map = nn.Linear(classes, classes)
        self.rare = nn.Linear(1, classes)
        self.never = nn.Linear(1, 3)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = self.map(model(batch.images))
        first = batch.index == 0
        if first.any():
            logits = logits + self.rare(first.float()[:, None]) * first[:, None]
        return nn.functional.cross_entropy(logits, batch.labels[:, 0], reduction="none")


class OddGuide:
    """Asks for `Odd`, whose weights it draws from a generator that nobody has seeded alike."""

    described: dict[str, Any] = {"name": "odd"}  # noqa: RUF012
    objective: Odd

    def prepare(self, model: Model, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        torch.manual_seed(int(os.environ.get("RANK", 0)))
        self.objective = Odd(data.info.num_classes)
        return data, self.objective


class BrokenGuide:
    """The plain objective; in the second process the head puts out what is not finite."""

    described: dict[str, Any] = {"name": "broken"}  # noqa: RUF012

    def prepare(self, model: Any, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        if os.environ.get("RANK") == "1":
            model.head.register_forward_hook(lambda _module, _inputs, output: output * float("nan"))
        return data, loop.supervised(data, config)


def train_all(folder: Path, runs: Path) -> dict[str, Any]:
    """Make every run that has to have the numbers of one process; returns what was seen besides."""
    seen: dict[str, Any] = {"epochs": {}, "views": []}
    odd = OddGuide()
    for name in SAME_AS_ONE:
        guide: Any = odd if name == "odd" else None
        if name == "teacher":  # which is in the folder of the tests, so that all have the same
            teacher = Teacher.of_runs([folder / "teacher-run"])
            how = DistillConfig(feature_weight=0.5)
            cache = runs / ".outputs"
            guide = TeacherGuide(teacher, how, cache=cache, on_views=lambda done, _: seen["views"].append(done))
        epochs = seen["epochs"].setdefault(name, [])
        on_epoch = functools.partial(lambda epochs, record, _: epochs.append(record["epoch"]), epochs)
        assert train_run(settings(folder, name), runs / name, guide=guide, on_epoch=on_epoch).finished
    seen["odd"] = {name: value.tolist() for name, value in odd.objective.state_dict().items()}
    return seen


# --- what the processes do ---


def train(folder: Path) -> dict[str, Any]:
    """Everything that ends well."""
    digests: list[str] = []
    seeds: list[int] = []
    evaluate = loop.validation_figures

    def figures(model: nn.Module, *args: Any) -> dict[str, Any]:
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        digests.append(hashlib.sha256(weights).hexdigest())
        seeds.append(torch.initial_seed())
        return evaluate(model, *args)

    loop.validation_figures = figures
    if os.environ["RANK"] == "1":  # a machine that computes otherwise is not asked which epoch is the best
        loop.auc = lambda *_: -len(digests)
    seen = train_all(folder, folder / "two")
    train_run(settings(folder, "noisy"), folder / "two" / "noisy")
    return seen | {"digests": digests, "seeds": seeds}


def fail(folder: Path) -> dict[str, Any]:
    """Everything that is refused or goes wrong in one process, and what both then say."""
    import torch.distributed as dist

    rank, said = int(os.environ["RANK"]), {}

    @contextmanager
    def told(name: str) -> Iterator[None]:
        try:
            yield
        except (QvitError, OSError) as error:
            said[name] = f"{type(error).__name__}: {error}"

    with told("norms"):
        train_run(settings(folder, "norms"), folder / "norms")
    with told("broken"):
        train_run(settings(folder, "plain"), folder / "broken", guide=BrokenGuide())
    with told("not ours"):
        train_run(settings(folder, "plain"), folder)
    with told("second"), assemble("cpu") as team:
        team.in_turn(lambda: (folder / "missing").stat() if rank else None)
    with told("stopped"):
        train_run(settings(folder, "noisy"), folder / "stopped", on_epoch=stop_after(2))
    with told("resumed"):
        train_run(settings(folder, "noisy"), folder / "stopped", resume=True, on_epoch=stop_after(3))
        train_run(settings(folder, "noisy"), folder / "stopped", resume=True)
    dist.init_process_group("gloo")  # one's own group is used, and left
    with assemble("cpu") as team, assemble("cpu") as again:
        assert team == again == Team(rank, 2, rank)
        shares = team.collect(team.share(torch.arange(5)).tolist())
        parts = torch.arange(6.0).reshape(2, 3, 1)[:, :2] if rank == 0 else torch.arange(6.0).reshape(2, 3, 1)[:, 2:]
        assert torch.equal(team.gather(parts, 3), torch.arange(6.0).reshape(2, 3, 1))
    said["group"] = [dist.is_initialized(), shares]
    dist.destroy_process_group()
    return said


def die(folder: Path) -> dict[str, Any]:
    """Train until the second process is killed, in the third epoch."""
    step = loop.train_step

    def killed(*args: Any, epoch: int, **options: Any) -> Tensor:
        if epoch == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, epoch=epoch, **options)

    loop.train_step = killed
    train_run(settings(folder, "noisy"), folder / "killed")
    return {}


def stop_after(epoch: int) -> Callable[[dict[str, Any], float], None]:
    def on_epoch(record: dict[str, Any], _seconds: float) -> None:
        if record["epoch"] == epoch:
            raise OSError(f"stopped after {epoch}")

    return on_epoch


# --- numbers ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_arrays: Callable[..., Any]) -> Path:
    """Made-up data, and a trained teacher."""
    folder = tmp_path_factory.mktemp("distributed")
    for task in ("multi-class", "multi-label", "ordinal"):
        np.savez(folder / f"{task}.npz", **make_arrays(task))
    train_run(settings(folder, "plain"), folder / "teacher-run")
    return folder


def launch(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += map(str, arguments)
    variables = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    process = subprocess.Popen(
        command, env=variables | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun then ends its processes; killed, it would leave them behind
        out, errors = process.communicate(timeout=600)
        pytest.fail(f"no end after {LIMIT} seconds: {errors}")
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def launch_here(what: str, folder: Path) -> list[dict[str, Any]]:
    """Have two processes do something that ends well; returns what each of them says."""
    done = launch(__file__, what, folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{what}-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def trained(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes saw; the runs are in `two`."""
    return launch_here("train", folder)


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """What one process saw; the runs are in `one`."""
    return train_all(folder, folder / "one")


@pytest.mark.parametrize("name", SAME_AS_ONE)
def test_numbers_of_one_process(folder: Path, alone: Any, trained: Any, name: str) -> None:
    one, two = Run(folder / "one" / name), Run(folder / "two" / name)
    assert two.config == one.config
    assert len(two.history) == len(one.history)
    for ours, theirs in zip(two.history, one.history, strict=True):
        assert ours.pop("tta") == theirs.pop("tta")
        assert ours == pytest.approx(theirs, abs=1e-5, rel=0)
    for split in ("val", "test"):
        np.testing.assert_allclose(two.predictions(split), one.predictions(split), atol=1e-4, rtol=0)
    assert two.result["best_epoch"] == one.result["best_epoch"]
    for metric in ("auc", "acc"):
        assert two.result["test"][metric] == pytest.approx(one.result["test"][metric], abs=1e-5)


def test_parameters_of_an_objective_are_trained_as_in_one_process(alone: Any, trained: Any) -> None:
    assert alone["odd"]["rare.weight"] != alone["odd"]["rare.bias"], "the case is of no use if nothing moves"
    for name, value in alone["odd"].items():
        np.testing.assert_allclose(trained[0]["odd"][name], value, atol=1e-5)
    assert trained[1]["odd"] == trained[0]["odd"]
    torch.manual_seed(0)
    assert trained[0]["odd"]["never.weight"] == Odd(4).never.weight.tolist(), "not even weight decay moves it"


def test_processes_have_the_same_weights_and_one_speaks(folder: Path, alone: Any, trained: Any) -> None:
    first, second = trained
    assert first["digests"] == second["digests"]
    assert len(set(first["digests"])) == len(first["digests"]) > 10
    assert first["epochs"] == alone["epochs"]
    assert second["epochs"] == {name: [] for name in SAME_AS_ONE}
    assert first["views"] == alone["views"] != []
    assert second["views"] == [], "the teacher is asked once"
    assert len(list((folder / "two" / ".outputs").iterdir())) == 1


def test_noise_is_each_processes_own(trained: Any) -> None:
    lead, other = (seen["seeds"][-4:] for seen in trained)
    assert lead == [derive(0, NOISE, epoch) for epoch in range(4)], "that of one process alone"
    assert not set(lead) & set(other)
    assert len(set(other)) == 4


def test_files_are_those_of_one_process(folder: Path, alone: Any, trained: Any) -> None:
    for name in SAME_AS_ONE:
        one, two = ({path.suffix for path in (folder / count / name).iterdir()} for count in ("one", "two"))
        assert one == two
        assert len(list((folder / "one" / name).iterdir())) == len(list((folder / "two" / name).iterdir()))
    environment = json.loads((folder / "two" / "plain" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert "processes" not in json.loads((folder / "one" / "plain" / "environment.json").read_text())


# --- stops, errors, and going on ---


@pytest.fixture(scope="module")
def failed(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes said of what is refused or goes wrong."""
    return launch_here("fail", folder)


def test_batch_norm_is_refused_before_there_is_a_folder(folder: Path, failed: Any) -> None:
    for said in failed:
        assert said["norms"].startswith("ConfigError: This model has batch normalisation, whose statistics cannot be ")
        assert "Train it in one process, or on GPUs (device=cuda)" in said["norms"]
    assert not (folder / "norms").exists()


def test_what_stops_one_process_is_raised_in_all(folder: Path, failed: Any) -> None:
    lead, other = failed
    assert lead["broken"] == other["broken"]
    assert "loss is no longer finite at epoch 1, step 1" in lead["broken"]
    assert "layer 'head' is the first whose output is not finite" in lead["broken"]
    assert f"RunError: {folder} is not empty and not a run folder; choose another with --out." == lead["not ours"]
    assert f"RunError: Process 0: {folder} is not empty and not a run folder" in other["not ours"]
    assert lead["second"].startswith("RunError: Process 1: FileNotFoundError: ")
    assert other["second"].startswith("FileNotFoundError: ")
    assert lead["stopped"] == "OSError: stopped after 2"
    assert other["stopped"] == "RunError: Process 0: OSError: stopped after 2"


def test_a_group_of_ones_own_is_used_and_left(failed: Any) -> None:
    assert [said["group"] for said in failed] == [[True, [[0, 1, 2], [3, 4]]]] * 2


def test_a_stopped_run_goes_on_bit_for_bit(folder: Path, trained: Any, failed: Any, kept: Kept) -> None:
    assert failed[0]["resumed"] == "OSError: stopped after 3"
    train = launch("-m", "qvit", "train", *_options(folder, "noisy"), "--out", folder / "stopped", "--resume")
    assert train.returncode == 0, train.stderr
    assert train.stdout.count("qvit_4q1h") == 1, "one process speaks"
    assert [line for line in train.stderr.splitlines() if "epoch 4/4" in line] == [
        line for line in train.stderr.splitlines() if " epoch " in line and "loss" in line
    ]
    assert kept(folder / "stopped") == kept(folder / "two" / "noisy")
    assert "state.pt" not in kept(folder / "stopped")


def test_a_killed_process_ends_the_others_and_the_run_goes_on(folder: Path, trained: Any, kept: Kept) -> None:
    killed = launch(__file__, "die", folder)  # fails if it waits for the one that is gone
    assert killed.returncode != 0
    assert [record["epoch"] for record in Run(folder / "killed").history] == [1, 2]
    done = launch("-m", "qvit", "train", *_options(folder, "noisy"), "--out", folder / "killed", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best_epoch"] == Run(folder / "killed").result["best_epoch"]
    assert kept(folder / "killed") == kept(folder / "two" / "noisy")


def test_an_error_is_told_once_and_ends_all(folder: Path) -> None:
    done = launch("-m", "qvit", "train", *_options(folder, "plain"), "--out", folder / "teacher-run")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == [
        f"Error: {folder / 'teacher-run'} already holds a finished run. "
        "Go on with it by --resume, or choose another folder with --out."
    ]
    assert done.stdout == ""


def _options(folder: Path, name: str) -> list[str]:
    """Return what `settings` does, for the command line."""
    options = {"model": "qvit_4q1h", "batch_size": 8} | OPTIONS[name]
    return [str(folder / "multi-class.npz"), *(f"--set={key}={value}" for key, value in options.items())]


# --- without other processes ---


@pytest.mark.parametrize(("images", "count"), [(0, 2), (1, 2), (5, 2), (7, 3), (2, 5)])
def test_shares_follow_each_other(images: int, count: int) -> None:
    shares = [Team(rank, count).share(torch.arange(images)) for rank in range(count)]
    assert torch.equal(torch.cat(shares), torch.arange(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(3.0)
    for world_size in (None, "1", ""):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if world_size is not None:
            monkeypatch.setenv("WORLD_SIZE", world_size)
        with assemble("any device") as team:
            assert team is ALONE
            assert team.share(values) is values
            assert team.lead(lambda: values) is team.in_turn(lambda: values) is values
            assert team.collect(values) == [values]
            assert team.place == ()


@pytest.mark.parametrize(
    ("environment", "device", "message"),
    [
        ({}, "mps", "compute on cpu or cuda, not on 'mps'"),
        ({}, "cuda:1", "device='cuda:1' is one GPU for 99 processes; use device=cuda, and each has its own"),
        ({}, "cuda", r"99 processes with a GPU each were asked for, and this machine has \d+; use --nproc-per-node"),
        ({"WORLD_SIZE": "two"}, "cpu", "WORLD_SIZE=two, expected a whole number as torchrun sets"),
        ({}, "cpu", "WORLD_SIZE=99 speaks of several processes, but .* RANK .*Start them by torchrun, or unset WORLD"),
    ],
)
def test_environments_that_do_not_go(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], device: str, message: str
) -> None:
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"WORLD_SIZE": "99"} | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message), assemble(device):
        pass


class OwnNorm(nn.BatchNorm2d):
    """A batch norm that does more than torch's."""


def test_batch_norm_on_gpus_sees_all_of_a_batch() -> None:
    team, batches = Team(0, 3), [torch.arange(4), torch.arange(3)]
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    names = list(model.state_dict())
    ALONE.join_norms(model, "cuda", lambda: batches)
    assert type(model[1]) is nn.BatchNorm2d
    with pytest.raises(ConfigError, match="The smallest batch has 2 images, and batch normalisation needs one for eac"):
        team.join_norms(model, "cuda", lambda: [*batches, torch.arange(2)])
    with pytest.raises(ConfigError, match="This model's OwnNorm cannot take statistics over 3 processes"):
        team.join_norms(nn.Sequential(OwnNorm(2)), "cuda", lambda: batches)
    team.join_norms(model, "cuda", lambda: batches)
    assert type(model[1]) is nn.SyncBatchNorm
    assert list(model.state_dict()) == names


def test_batch_norm_of_an_objective_is_refused(make_data: Callable[..., Dataset]) -> None:
    data, objective = make_data(), Odd(4)
    objective.norm = nn.BatchNorm1d(4)
    model = create_model("vit_4q1h", img_size=data.size, num_classes=4)
    with pytest.raises(ConfigError, match="batch normalisation, whose statistics cannot be taken over 2 processes"):
        fit(model, data, TrainConfig(epochs=1), seed=0, objective=objective, team=Team(0, 2))


def test_lost_processes_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    def lost(*args: Any, **options: Any) -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1\nmore")

    for name in ("all_reduce", "broadcast_object_list", "all_gather_object"):
        monkeypatch.setattr(dist, name, lost)
    team, message = Team(0, 2), r"lost each other \(Connection closed by peer \[127.0.0.1\]:1\)\. One has ended"
    exchanges: list[Callable[[], object]] = [
        lambda: team.lead(int),
        lambda: team.collect(1),
        lambda: team.gather(torch.zeros(1, 1, 1), 2),
    ]
    for exchange in exchanges:
        with pytest.raises(RunError, match=message):
            exchange()


if __name__ == "__main__":
    warnings.simplefilter("error")
    what, place = sys.argv[1], Path(sys.argv[2])
    seen = {"train": train, "fail": fail, "die": die}[what](place)
    (place / f"{what}-{os.environ['RANK']}.json").write_text(json.dumps(seen))
