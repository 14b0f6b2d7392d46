"""What the processes of a run do for each other, with threads in their place, and the teams that cannot be."""

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.data.views import Views
from qvit.errors import ConfigError, QvitError, RunError, TrainingError
from qvit.models import Preprocess, create_model
from qvit.training.batches import Batch, load_batch
from qvit.training.config import TrainConfig
from qvit.training.distributed import ALONE, PATIENCE, Team, assemble
from qvit.training.loop import fit
from qvit.training.prediction import predict_logits
from qvit.training.seeding import ORDER, generator
from qvit.training.step import make_optimizer, train_step
from qvit.training.validation import validation_figures
from training.threads import Room


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch, 2)


# --- shares of a batch ---


@pytest.mark.parametrize(
    ("images", "count", "lengths"),
    [(0, 2, [0, 0]), (1, 2, [1, 0]), (5, 2, [3, 2]), (7, 3, [3, 2, 2]), (2, 5, [1, 1, 0, 0, 0]), (3, 1, [3])],
)
def test_shares_follow_each_other(images: int, count: int, lengths: list[int]) -> None:
    shares = [Team(rank, count).share(torch.arange(images)) for rank in range(count)]
    assert torch.equal(torch.cat(shares), torch.arange(images))
    assert [len(share) for share in shares] == lengths


def test_the_lead_is_the_first_and_has_the_streams_of_one_alone() -> None:
    assert [(team.leads, team.place) for team in (ALONE, Team(0, 2), Team(1, 2), Team(2, 3))] == [
        (True, ()),
        (True, ()),
        (False, (1,)),
        (False, (2,)),
    ]
    assert (ALONE.rank, ALONE.count, ALONE.local_rank, ALONE.device) == (0, 1, 0, torch.device("cpu"))


def test_one_process_needs_no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "broadcast_object_list", "all_gather_object"):
        monkeypatch.delattr(dist, name)
    values, losses, work = torch.arange(3.0).reshape(1, 3, 1), torch.tensor([1.0, 5.0]), object()
    assert ALONE.share(values) is values
    assert ALONE.gather(values, 3) is values
    assert ALONE.lead(lambda: work) is ALONE.in_turn(lambda: work) is work
    assert ALONE.collect(work) == [work]
    assert ALONE.part(losses) == 3.0
    assert ALONE.combine(losses.mean(), [], images=2) == 3.0
    ALONE.spread(nn.Linear(1, 1))


def test_gradients_of_the_mean_come_from_those_of_the_shares(pair: Room) -> None:
    """By hand: losses 1 and 2 in one process, 6 in the other; gradients are of their sums."""

    def work(team: Team) -> tuple[Tensor, list[Tensor | None]]:
        both, first_only, neither = (nn.Parameter(torch.zeros(2)) for _ in range(3))
        losses = torch.tensor([1.0, 2.0]) if team.leads else torch.tensor([6.0])
        part = team.part(losses)
        assert part == (3.0 if team.leads else 6.0)
        both.grad = torch.tensor([3.0, 0.0]) if team.leads else torch.tensor([6.0, -3.0])
        first_only.grad = torch.tensor([9.0, 1.5]) if team.leads else None
        loss = team.combine(part, [both, first_only, neither], images=len(losses))
        return loss, [both.grad, first_only.grad, neither.grad]

    for loss, (both, first_only, neither) in pair.together(work):
        assert loss == 3.0
        assert loss.shape == ()
        assert both.tolist() == [3.0, -1.0]
        assert first_only.tolist() == [3.0, 0.5]
        assert neither is None, "not even weight decay moves it"


def test_each_model_of_a_stack_has_the_mean_of_its_own_losses(pair: Room) -> None:
    def work(team: Team) -> tuple[Tensor, Tensor | None]:
        losses = torch.tensor([[1.0, 2.0], [0.0, 3.0]]) if team.leads else torch.tensor([[6.0], [9.0]])
        weight = nn.Parameter(torch.zeros(2, 1))
        part = team.part(losses)
        weight.grad = part[:, None].clone()
        return team.combine(part, [weight], images=losses.shape[-1]), weight.grad

    for loss, gradient in pair.together(work):
        assert loss.tolist() == [3.0, 4.0]
        assert gradient is not None
        assert gradient.tolist() == [[3.0], [4.0]]


class Odd(nn.Module):
    """The labels' loss with parameters of its own: one that only the first image moves, and one that nothing does."""

    def __init__(self, classes: int = 4) -> None:
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


@pytest.mark.parametrize("images", [5, 1])  # of one image the second process has none
def test_a_step_together_is_the_step_of_one(make_data: Callable[..., Dataset], pair: Room, images: int) -> None:
    data, config = make_data(), TrainConfig(weight_decay=0.3)

    def work(team: Team) -> tuple[list[float], dict[str, Tensor]]:
        order = generator(0, ORDER, 0)
        with lock:  # as the weights are drawn from the generator of all threads
            torch.manual_seed(0)
            both = nn.ModuleList([create_model("vit_4q1h", num_classes=4, img_size=12), Odd()])
        optimizer, losses = make_optimizer(both, config), []
        for start in (0, 9):
            batch = load_batch(Views(data.train, "d4"), torch.arange(start, start + images), order, "cpu", team)
            assert len(batch.images) == len(batch.labels) == len(batch.index) == len(batch.elements)
            losses.append(train_step(both[0], batch, both[1], optimizer, lr=0.01, clip_norm=0.1, team=team).item())
        return losses, both.state_dict()

    lock = threading.Lock()
    losses, weights = work(ALONE)
    (first_losses, first), (second_losses, second) = pair.together(work)
    assert first_losses == second_losses == pytest.approx(losses, rel=1e-5)
    for name, value in weights.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-4, msg=name)
    torch.manual_seed(0)
    create_model("vit_4q1h", num_classes=4, img_size=12)
    fresh = Odd()
    assert torch.equal(weights["1.never.weight"], fresh.never.weight)
    assert not torch.equal(weights["1.rare.weight"], fresh.rare.weight)


@pytest.mark.parametrize(("images", "expected"), [(3, [0, 1, 2]), (1, [0]), (4, [0, 1, 2, 3])])
def test_all_get_what_each_found_in_order(pair: Room, images: int, expected: list[int]) -> None:
    def work(team: Team) -> list[Any]:
        part = team.share(torch.arange(float(images))).reshape(1, -1, 1)
        return team.gather(torch.cat([part, 10 + part]), images).squeeze(2).tolist()

    whole = [[float(number) for number in expected], [10.0 + number for number in expected]]
    assert pair.together(work) == [whole, whole]


def test_predictions_and_figures_are_those_of_one(
    make_data: Callable[..., Dataset], pair: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data()
    torch.manual_seed(0)
    model = create_model("vit_4q1h", num_classes=4, img_size=12).eval()
    for found in pair.together(lambda team: predict_logits(model, data.val, group="d4", team=team)):
        torch.testing.assert_close(found, predict_logits(model, data.val, group="d4"))
    config = TrainConfig(tta="never")
    told = validation_figures(model, data, config)
    monkeypatch.setattr("qvit.training.validation.auc", lambda *_: float(pair.mine.rank))
    found = pair.together(lambda team: validation_figures(model, data, config, team))
    assert found == [replace(told, val_auc=0.0)] * 2, "a machine that computes otherwise is not asked which is best"


# --- work and its errors ---


def test_the_lead_works_for_all(pair: Room) -> None:
    asked: list[int] = []

    def work(team: Team) -> list[int]:
        return team.lead(lambda: asked.append(team.rank) or [7])

    assert pair.together(work) == [[7], [7]]
    assert asked == [0]


def test_the_first_of_each_machine_works_before_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    room, places, order = Room(monkeypatch, 4), [(0, 0), (1, 1), (2, 0), (3, 1)], list[int]()

    def work(team: Team) -> int:
        team = Team(team.rank, 4, dict(places)[team.rank])
        return team.in_turn(lambda: order.append(team.rank) or 10 * team.rank)

    assert room.together(work) == [0, 10, 20, 30]
    assert set(order[:2]) == {0, 2}
    assert set(order[2:]) == {1, 3}


def test_all_values_are_collected_in_order(pair: Room) -> None:
    assert pair.together(lambda team: team.collect(f"of {team.rank}")) == [["of 0", "of 1"]] * 2


def test_what_stops_one_process_is_raised_in_all(pair: Room) -> None:
    def fail(error: Exception) -> None:
        raise error

    def said(work: Callable[[Team], Any]) -> list[str]:
        return [f"{type(error).__name__}: {error}" for error in pair.together(work)]

    assert said(lambda team: team.lead(lambda: fail(OSError("no room")))) == [
        "OSError: no room",
        "RunError: Process 0: OSError: no room",
    ]
    assert said(lambda team: team.lead(lambda: fail(ConfigError("not so")))) == [
        "ConfigError: not so",
        "RunError: Process 0: not so",
    ]
    for rank in range(2):
        told = [f"RunError: Process {rank}: KeyError: 'x'"] * 2
        told[rank] = "KeyError: 'x'"
        found = said(lambda team, rank=rank: team.in_turn(lambda: fail(KeyError("x")) if team.rank == rank else None))
        assert found == told


def test_all_say_in_whose_images_a_loss_ceased_to_be_finite(make_data: Callable[..., Dataset], pair: Room) -> None:
    data = make_data()

    def work(team: Team) -> None:
        model = nn.Sequential(Preprocess(3), nn.Flatten(), nn.Linear(432, 4))
        if not team.leads:
            model[2].register_forward_hook(lambda _module, _inputs, output: output * float("nan"))
        batch = load_batch(Views(data.train, "none"), torch.arange(4), generator(0), "cpu", team)
        optimizer = make_optimizer(model, TrainConfig())
        train_step(model, batch, lambda model, batch: model(batch.images).sum(1), optimizer, lr=0.5, step=3, team=team)

    first, second = pair.together(work)
    assert isinstance(first, TrainingError)
    assert str(first) == str(second)
    assert str(first).startswith(
        "The loss is no longer finite at epoch 1, step 3, learning rate 0.5: layer '2' is the first whose output is "
        "not finite. "
    )


def test_lost_processes_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*args: Any, **options: Any) -> None:
        raise RuntimeError(" Connection closed by peer [127.0.0.1]:1\nmore")

    for name in ("all_reduce", "broadcast_object_list", "all_gather_object"):
        monkeypatch.setattr(dist, name, lost)
    team, parameter = Team(0, 2), nn.Parameter(torch.zeros(1))
    exchanges: list[Callable[[], object]] = [
        lambda: team.lead(int),
        lambda: team.collect(1),
        lambda: team.gather(torch.zeros(1, 1, 1), 2),
        lambda: team.combine(torch.zeros(()), [parameter], images=1),
    ]
    for exchange in exchanges:
        with pytest.raises(RunError) as caught:
            exchange()
        assert str(caught.value) == (
            "The processes of this run lost each other (Connection closed by peer [127.0.0.1]:1). One has ended: see "
            "what it said; an unfinished run goes on with --resume."
        )


# --- models ---


def test_all_get_the_leads_weights(pair: Room) -> None:
    modules = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    with torch.no_grad():
        modules[0].weight.copy_(torch.tensor([2.0, 3.0]))
        modules[0].running_mean.copy_(torch.tensor([4.0, 5.0]))
    pair.together(lambda team: team.spread(modules[team.rank]))
    for module in modules:
        assert module.weight.tolist() == [2.0, 3.0]
        assert module.running_mean.tolist() == [4.0, 5.0]


class OwnNorm(nn.BatchNorm2d):
    """A batch norm that does more than torch's."""


class AnotherNorm(nn.BatchNorm1d):
    """Another one."""


def refusal(attempt: Callable[[], Any], kind: type[QvitError] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        attempt()
    return str(caught.value)


def test_batch_norm_on_gpus_sees_all_of_a_batch() -> None:
    team, batches = Team(0, 3), [torch.arange(4), torch.arange(3)]
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    names = list(model.state_dict())
    ALONE.join_norms(model, "cuda", lambda: pytest.fail("one process needs no batches"))
    team.join_norms(nn.Linear(2, 2), "cuda", lambda: pytest.fail("without norms there are none either"))
    assert type(model[1]) is nn.BatchNorm2d
    assert refusal(lambda: team.join_norms(model, "cuda:0", lambda: [*batches, torch.arange(2)])) == (
        "The smallest batch has 2 images, and batch normalisation needs one for each of 3 processes; use fewer "
        "processes or another batch_size."
    )
    assert refusal(lambda: team.join_norms(nn.Sequential(OwnNorm(2), AnotherNorm(2)), "cuda", lambda: batches)) == (
        "This model's AnotherNorm, OwnNorm cannot take statistics over 3 processes; train it in one process."
    )
    team.join_norms(model, "cuda", lambda: batches)
    assert type(model[1]) is nn.SyncBatchNorm
    assert list(model.state_dict()) == names
    team.check_norms(model, "cuda")


def test_batch_norm_is_refused_on_the_cpu(make_data: Callable[..., Dataset]) -> None:
    told = (
        "This model has batch normalisation, whose statistics cannot be taken over 2 processes on 'cpu'. Train it in "
        "one process, or on GPUs (device=cuda), or take a model without, such as ours."
    )
    norm = nn.BatchNorm1d(4)
    assert refusal(lambda: Team(0, 2).check_norms(norm, "cpu")) == told
    assert refusal(lambda: Team(0, 2).join_norms(norm, "cpu", list)) == told
    ALONE.check_norms(norm, "cpu")
    Team(0, 2).check_norms(nn.LayerNorm(4), "cpu")
    data, objective = make_data(), Odd()
    objective.norm = norm  # of an objective, too
    model = create_model("vit_4q1h", img_size=data.size, num_classes=4)
    assert refusal(lambda: fit(model, data, TrainConfig(), seed=0, objective=objective, team=Team(0, 2))) == told


# --- how a team comes about ---


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set torchrun's variables, and no others of them."""

    def put(**variables: str) -> None:
        for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1", "RANK": "x"}])
def test_one_process_is_alone(environment: Callable[..., None], variables: dict[str, str]) -> None:
    environment(**variables)
    with assemble("any device") as team:
        assert team is ALONE


GPUS = torch.cuda.device_count()


@pytest.mark.parametrize(
    ("variables", "device", "told"),
    [
        ({}, "mps", "Several processes compute on cpu or cuda, not on 'mps'; use one process."),
        ({}, "cuda:1", "device='cuda:1' is one GPU for 99 processes; use device=cuda, and each has its own."),
        (
            {"LOCAL_WORLD_SIZE": "98"},
            "cuda",
            f"98 processes with a GPU each were asked for, and this machine has {GPUS}; use --nproc-per-node "
            f"{max(1, GPUS)}, or device=cpu.",
        ),
        (
            {"WORLD_SIZE": "two"},
            "cpu",
            "The environment has WORLD_SIZE=two, expected a whole number as torchrun sets.",
        ),
        ({"RANK": "x"}, "cpu", "The environment has RANK=x, expected a whole number as torchrun sets."),
        (
            {},
            "cpu",
            "WORLD_SIZE=99 speaks of several processes, but Error initializing torch.distributed using env:// "
            "rendezvous: environment variable RANK expected, but not set. Start them by torchrun, or unset WORLD_SIZE.",
        ),
    ],
)
def test_environments_that_do_not_go(
    environment: Callable[..., None], variables: dict[str, str], device: str, told: str
) -> None:
    environment(**({"WORLD_SIZE": "99"} | variables))

    def attempt() -> None:
        with assemble(device):
            pytest.fail("there was a team")

    assert refusal(attempt) == told


@pytest.mark.parametrize(
    ("device", "backend", "more"), [("cpu", "gloo", {}), ("cuda", "nccl", {"device_id": torch.device("cuda", 1)})]
)
def test_torchruns_processes_are_a_group_while_they_train(
    environment: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    device: str,
    backend: str,
    more: dict[str, Any],
) -> None:
    """With torch's own functions replaced by ones that note what they are given; real processes have tests below."""
    environment(WORLD_SIZE="4", RANK="3", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2")
    store, said, ended, gpus = dist.HashStore(), list[Any](), list[str](), list[int]()

    class Gpu:
        def __init__(self, number: int) -> None:
            gpus.append(number)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def start(backend: str, **options: Any) -> None:
        options.pop("store").set("a name", "of this group")
        said.append((backend, options))

    def gather(values: list[Any], value: Any) -> None:
        ended.append("waited")
        values[:] = [value] * 4

    monkeypatch.setattr(
        sys.modules["torch.distributed.rendezvous"], "rendezvous", lambda url, timeout: iter([(store, 3, 4)])
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", Gpu)
    monkeypatch.setattr(dist, "init_process_group", start)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.append("left"))
    for _ in range(2):
        with assemble(device) as team:
            assert team == Team(3, 4, 1, torch.device("cuda", 1) if device == "cuda" else torch.device("cpu"))
            assert ended == []
        assert ended == ["waited", "left"], "nobody leaves while another one is still listening"
        ended.clear()
    assert said == [(backend, {"rank": 3, "world_size": 4, "timeout": PATIENCE} | more)] * 2
    assert PATIENCE.days == 2
    assert [store.get(f"qvit/{number}/a name") for number in (1, 2)] == [b"of this group"] * 2
    assert gpus == ([1, 1] if device == "cuda" else [])
    with pytest.raises(ZeroDivisionError), assemble(device):
        _ = 1 / 0
    assert ended == ["left"], "the others are not waited for after an error"


def test_a_group_that_there_is_is_used_and_left(
    environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "destroy_process_group", lambda: pytest.fail("it is somebody's"))
    environment(LOCAL_RANK="5")

    def work(team: Team) -> Team:
        with assemble("cpu") as found:
            return found

    assert Room(monkeypatch, 2).together(work) == [Team(0, 2, 5), Team(1, 2, 5)]
    environment()
    assert Room(monkeypatch, 2).together(work) == [Team(0, 2, 0), Team(1, 2, 1)]
    assert Room(monkeypatch, 1).together(work) == [ALONE]
