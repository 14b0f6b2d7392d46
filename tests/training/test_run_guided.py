"""Runs with a guide or an origin, of networks of others: recorded, resumed to the bit, refused where they differ."""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.data.views import Views
from qvit.errors import ConfigError, DataError, RunError, TrainingError
from qvit.models import Network, NetworkConfig, create_model
from qvit.training.batches import Batch, load_batch
from qvit.training.checkpoint import load_state
from qvit.training.config import TrainConfig
from qvit.training.evaluated import evaluate_run
from qvit.training.folder import flatten, short_name
from qvit.training.loop import fit
from qvit.training.objective import Guide, Objective, supervised
from qvit.training.options import RunConfig
from qvit.training.prediction import predict
from qvit.training.run import PretrainedWarning, Run, build_model, train_run
from qvit.training.seeding import GUIDE, INIT, NOISE, ORDER, generator, seeded
from qvit.training.step import make_optimizer

MakeData = Callable[..., Dataset]
MakeConfig = Callable[..., RunConfig]
Kept = Callable[[Path], dict[str, bytes]]
TINY = TrainConfig(epochs=2, batch_size=8)
RESNET: dict[str, Any] = {"model": "resnet18", "width": 1 / 16}
FULL: dict[str, Any] = {"model": "resnet18", "epochs": 1, "batch_size": 64, "tta": "never"}  # as published: one step


class Rescaled(nn.Module):
    """The plain loss of logits that go through a learned linear map, and are multiplied by a buffer that counts."""

    def __init__(self, data: Dataset, config: TrainConfig) -> None:
        super().__init__()
        self.map = nn.Linear(data.info.num_classes, data.info.num_classes)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("calls", torch.zeros(()))
        self.data, self.config = data, config

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        self.calls += 1
        plain = supervised(self.data, self.config)
        return plain(lambda images: self.map(model(images)) * (1 + 0.01 * self.calls), batch)


@dataclass(frozen=True)
class Mapped:
    """A guide whose objective is a module; `found_at` says where it lay."""

    strength: float = 1.0
    place: str = "here"
    only: int | None = None

    @property
    def described(self) -> dict[str, Any]:
        return {"strength": self.strength, "teacher": {"name": "none", "found_at": [self.place]}}

    def prepare(self, model: nn.Module, data: Dataset, config: TrainConfig, *, seed: int) -> tuple[Dataset, Objective]:
        with seeded(seed, GUIDE):
            objective = Rescaled(data, config)
        train = (
            data.train if self.only is None else Split(data.train.images[: self.only], data.train.labels[: self.only])
        )
        return replace(data, train=train), objective


class Killed(BaseException):
    pass


def stop_after(epoch: int) -> Callable[[dict[str, Any], float], None]:
    def on_epoch(record: dict[str, Any], _seconds: float) -> None:
        if record.epoch == epoch:
            raise Killed

    return on_epoch


def build(data: Dataset, name: str = "vit_4q1h", **options: Any) -> Any:
    with seeded(0, INIT):
        return create_model(
            name, in_chans=data.info.channels, num_classes=data.info.num_classes, img_size=data.size, **options
        )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_places_in_a_run_have_streams_of_their_own() -> None:
    assert len({INIT, ORDER, NOISE, GUIDE}) == 4


# --- an objective that learns ---


@pytest.mark.trains
def test_an_objectives_own_parameters_are_trained_and_kept(make_data: MakeData) -> None:
    data = make_data()
    model, objective = build(data), Rescaled(data, TINY)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    saved: list[dict[str, Tensor]] = []
    state = fit(model, data, TINY, seed=0, objective=objective, on_epoch=lambda state: saved.append(state.objective))
    after = objective.state_dict()
    assert after.keys() == {"map.weight", "map.bias", "frozen", "calls"}
    assert [name for name in after if torch.equal(after[name], before[name])] == ["frozen"]
    assert after["calls"] == 10
    assert same(state.objective, after)
    assert not same(saved[0], saved[1])
    assert saved[0]["calls"] == 5, "a copy, not a view of what goes on"
    assert state.model.keys() == model.state_dict().keys()
    assert not any(part is objective.map for part in model.modules())


@pytest.mark.trains
def test_a_step_moves_both_by_one_optimiser(make_data: MakeData) -> None:
    """Clipped together; matrices of the objective decay as those of the model."""
    data = make_data()
    config = replace(TINY, epochs=1, batch_size=64, clip_norm=0.05, weight_decay=0.3, augment="none")
    config = replace(config, schedule="constant", warmup=0.0)
    torch.manual_seed(0)
    model, objective = build(data), Rescaled(data, config)
    other_model, other = copy.deepcopy(model), copy.deepcopy(objective)
    fit(model, data, config, seed=0, objective=objective)

    both = nn.ModuleList([other_model, other])
    groups = make_optimizer(both, config).param_groups
    assert [any(one is other.map.weight for one in group["params"]) for group in groups] == [True, False]
    assert [any(one is other.map.bias for one in group["params"]) for group in groups] == [False, True]
    plain = torch.optim.AdamW([{"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups])
    batch = load_batch(Views(data.train, "none"), torch.arange(37), generator(0), "cpu")
    other(other_model, batch).mean().backward()
    norm = nn.utils.clip_grad_norm_(both.parameters(), config.clip_norm)
    assert norm > nn.utils.get_total_norm([one.grad for one in other_model.parameters()]) > 0
    for group in plain.param_groups:
        group["lr"] = config.lr
    plain.step()
    for ours, theirs in ((model, other_model), (objective, other)):
        for name, value in ours.state_dict().items():
            torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.trains
def test_resumes_bit_identically_with_an_objectives_state(config: MakeConfig, tmp_path: Path, kept: Kept) -> None:
    settings, guide = config(epochs=3, dropout=0.3, augment="mirror"), Mapped()
    assert isinstance(guide, Guide)
    whole = train_run(settings, tmp_path / "whole", guide=guide)
    plain = train_run(settings, tmp_path / "plain")
    for stops in ([1, 2],):
        folder = tmp_path / str(stops)
        for stop in stops:
            with pytest.raises(Killed):
                train_run(settings, folder, resume=True, guide=guide, on_epoch=stop_after(stop))
            state = load_state(folder / "state.pt")
            assert state.objective.keys() == {"map.weight", "map.bias", "frozen", "calls"}
            assert state.objective["calls"] == 3 * stop
        assert kept(train_run(settings, folder, resume=True, guide=guide).folder) == kept(whole.folder)
    names = safetensors.torch.load((whole.folder / "model.safetensors").read_bytes()).keys()
    assert names == whole.load_model().state_dict().keys()
    assert "model.safetensors" in kept(whole.folder)
    assert kept(whole.folder)["model.safetensors"] != kept(plain.folder)["model.safetensors"]


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_a_state_of_before_there_were_objectives_is_gone_on_with(
    config: MakeConfig, tmp_path: Path, kept: Kept
) -> None:
    settings = config()
    whole = train_run(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "parts", on_epoch=stop_after(1))
    path = tmp_path / "parts" / "state.pt"
    old = torch.load(path, weights_only=True)
    assert old.pop("objective") == {}
    torch.save(old, path)
    described = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert (described.pop("guide"), described.pop("origin")) == (None, None)
    (tmp_path / "parts" / "config.json").write_text(json.dumps(described))
    run = train_run(settings, tmp_path / "parts", resume=True)
    assert kept(run.folder) | {"config.json": b""} == kept(whole.folder) | {"config.json": b""}


@pytest.mark.trains
def test_a_guide_may_give_other_images_to_learn_on(config: MakeConfig, tmp_path: Path) -> None:
    whole = train_run(config(), tmp_path / "whole", guide=Mapped())
    part = train_run(config(), tmp_path / "part", guide=Mapped(only=9))
    assert whole.history != part.history
    assert evaluate_run(part, "val") == part.result.val
    first, second = (run.load_model().preprocess for run in (whole, part))
    assert torch.equal(first.mean, second.mean), "normalised as the dataset's own training images need"


@pytest.mark.trains
def test_what_is_not_finite_in_the_objective_is_an_error(make_data: MakeData) -> None:
    data = make_data()
    objective = Rescaled(data, TINY)
    with torch.no_grad():
        objective.map.bias[0] = torch.nan
    told = r"^The loss is no longer finite at epoch 1, step 1, learning rate 0\.0002: every layer's output is finite"
    with pytest.raises(TrainingError, match=told):
        fit(build(data), data, TINY, seed=0, objective=objective)


# --- an origin ---


@pytest.fixture
def first(config: MakeConfig, tmp_path: Path, nudged: None) -> Run:
    """A finished run to start from."""
    return train_run(config(epochs=1, tta="never"), tmp_path / "first")


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_starts_from_the_weights_of_a_finished_run(config: MakeConfig, tmp_path: Path, first: Run) -> None:
    run = train_run(config(lr=1e-12, epochs=1, tta="never"), tmp_path / "second", origin=first)
    for name, value in run.load_model().state_dict().items():
        torch.testing.assert_close(value, first.load_model().state_dict()[name], rtol=0, atol=1e-9)
    scratch = train_run(config(lr=1e-12, epochs=1, tta="never"), tmp_path / "scratch")
    assert not torch.equal(scratch.load_model().head.weight, run.load_model().head.weight)
    assert run.config["origin"].keys() == {"weights", "found_at"}
    assert run.config["origin"]["found_at"] == "../first"
    assert scratch.config["origin"] is None
    assert scratch.config["guide"] is None


@pytest.mark.long
def test_the_origin_is_known_by_its_weights(config: MakeConfig, tmp_path: Path, first: Run) -> None:
    run = train_run(config(epochs=1), tmp_path / "second", origin=first)
    weights = (first.folder / "model.safetensors").read_bytes()
    assert run.config["origin"]["weights"] == hashlib.sha256(weights).hexdigest()


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_resumes_from_its_own_state_and_not_from_the_origin(
    config: MakeConfig, tmp_path: Path, kept: Kept, first: Run
) -> None:
    settings = config(seed=5)
    whole = train_run(settings, tmp_path / "whole", origin=first)
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "parts", origin=first, on_epoch=stop_after(1))
    run = train_run(settings, tmp_path / "parts", origin=first, resume=True)
    assert kept(run.folder) == kept(whole.folder)


@pytest.mark.usefixtures("nudged")
def test_refuses_an_origin_that_is_not_finished(config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train_run(config(), tmp_path / "half", on_epoch=stop_after(1))
    with pytest.raises(RunError, match=rf"^Cannot start from the run in {tmp_path / 'half'}, which is not finished\.$"):
        train_run(config(), tmp_path / "second", origin=Run(tmp_path / "half"))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("change", [{"model": "qvit_4q1h"}, {"depth": 2}, RESNET])
def test_refuses_an_origin_of_another_architecture(
    config: MakeConfig, tmp_path: Path, first: Run, change: dict[str, Any]
) -> None:
    message = (
        rf"^Cannot start from the run in {first.folder}: its model \(vit_4q1h\) is not built like this one\. Use the "
        r"same model, options and dataset\.$"
    )
    with pytest.raises(ConfigError, match=message):
        train_run(config(**change), tmp_path / "second", origin=first)
    assert not (tmp_path / "second").exists()


def test_refuses_an_origin_without_weights(config: MakeConfig, tmp_path: Path, first: Run) -> None:
    (first.folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"first/model\.safetensors cannot be read \(.*\); train the run again\.$"):
        train_run(config(), tmp_path / "second", origin=first)
    assert not (tmp_path / "second").exists()


# --- resuming with something else ---


@pytest.mark.usefixtures("nudged")
@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        (None, Mapped(), {"guide.strength: None → 1.0", "guide.teacher.name: None → none"}),
        (Mapped(), None, {"guide.strength: 1.0 → None", "guide.teacher.name: none → None"}),
        (Mapped(), Mapped(strength=2.0), {"guide.strength: 1.0 → 2.0"}),
    ],
)
def test_refuses_to_go_on_with_another_guide(
    config: MakeConfig, tmp_path: Path, before: Mapped | None, after: Mapped | None, keys: set[str]
) -> None:
    with pytest.raises(Killed):
        train_run(config(), tmp_path / "run", guide=before, on_epoch=stop_after(1))
    untouched = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RunError, match="holds a run with another configuration") as caught:
        train_run(config(), tmp_path / "run", guide=after, resume=True)
    named = str(caught.value).partition("(")[2].rpartition(")")[0]
    assert set(named.split("; ")) == keys
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == untouched


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_refuses_to_go_on_with_another_origin(config: MakeConfig, tmp_path: Path, first: Run) -> None:
    other = train_run(config(seed=1), tmp_path / "other")
    settings = config(epochs=2)
    for name, before, after in (("a", None, first), ("b", first, None), ("c", first, other)):
        with pytest.raises(Killed):
            train_run(settings, tmp_path / name, origin=before, on_epoch=stop_after(1))
        with pytest.raises(RunError, match=r"another configuration \(origin\.weights: \w+ → \w+\)\. Choose another"):
            train_run(settings, tmp_path / name, origin=after, resume=True)
        train_run(settings, tmp_path / name, origin=before, resume=True)


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_where_teacher_and_origin_lie_is_no_difference(
    config: MakeConfig, tmp_path: Path, kept: Kept, first: Run
) -> None:
    settings = config(epochs=2)
    whole = train_run(settings, tmp_path / "whole", guide=Mapped(), origin=first)
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "parts", guide=Mapped(), origin=first, on_epoch=stop_after(1))
    shutil.move(first.folder, tmp_path / "moved")
    run = train_run(
        settings, tmp_path / "parts", guide=Mapped(place="there"), origin=Run(tmp_path / "moved"), resume=True
    )
    assert kept(run.folder) == kept(whole.folder), "what was written at the start stays"
    assert [Path(place).name for place in flatten(run.config)["guide.teacher.found_at"]] == ["here"]


# --- networks of others ---


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
def test_a_network_is_trained_saved_and_loaded_like_a_vit(config: MakeConfig, tmp_path: Path) -> None:
    run = train_run(config(**RESNET, tta="never", epochs=1), tmp_path / "run")
    assert run.config["model_config"]["arch"] == run.config["model"] == "resnet18"
    model = run.load_model()
    assert isinstance(model, Network)
    assert not model.training
    assert model.config == NetworkConfig("resnet18", 12, 3, 4, width=1 / 16)
    assert run.result.parameters == run.config["parameters"] == sum(p.numel() for p in model.parameters())
    data = run.load_data()
    np.testing.assert_allclose(predict(model, data.test, "multi-class"), run.predictions("test"), atol=1e-6)
    assert evaluate_run(run) == run.result.test
    fresh = build_model(model.config, data, seed=0)
    stored = safetensors.torch.load((run.folder / "model.safetensors").read_bytes())
    assert torch.equal(stored["body.bn1.running_mean"], model.body.bn1.running_mean), "statistics are kept"
    assert not torch.equal(fresh.body.conv1.weight, model.body.conv1.weight)
    assert torch.equal(fresh.preprocess.mean, model.preprocess.mean)
    described = json.loads((run.folder / "config.json").read_text())
    described["model_config"]["width"] = 1 / 8
    (run.folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(RunError, match=r"does not fit the model in config\.json; train the run again\.$"):
        Run(run.folder).load_model()


@pytest.mark.trains
def test_a_network_resumes_bit_identically(config: MakeConfig, tmp_path: Path, kept: Kept) -> None:
    settings = config(**RESNET, dropout=0.3, augment="d4", tta="never")
    whole = train_run(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        train_run(settings, tmp_path / "parts", on_epoch=stop_after(1))
    assert kept(train_run(settings, tmp_path / "parts", resume=True).folder) == kept(whole.folder)
    second = train_run(config(**RESNET, dropout=0.3, epochs=1), tmp_path / "second", origin=whole)
    assert second.config["origin"]["found_at"] == "../whole"


@pytest.mark.usefixtures("nudged")
def test_a_networks_name_with_a_slash_names_files(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert short_name("timm/resnet10t") == "timm-resnet10t"
    assert short_name("qvit_4q1h") == "qvit_4q1h"
    monkeypatch.setattr("qvit.training.run.short_name", lambda name: f"short-{name}")
    run = train_run(config(epochs=1), tmp_path / "run")
    assert [path.name.rpartition("@")[2].count("short-vit_4q1h-s0") for path in run.folder.glob("*.csv")] == [1, 1]
    assert len(run.predictions("test")) == 23


# --- published weights ---


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[NetworkConfig]:
    """Weights that are all alike stand for the published ones, for tests touch no network; what asked for them."""
    asked: list[NetworkConfig] = []

    def load(network: Network, **_: object) -> None:
        asked.append(network.config)
        with torch.no_grad():
            network.body.conv1.weight.fill_(0.25)

    monkeypatch.setattr("qvit.training.run.load_imagenet", load)
    monkeypatch.setattr("qvit.training.run.imagenet_weights", lambda network, **_: asked.append(network.config))
    return asked


@pytest.mark.long
def test_published_weights_are_where_training_starts(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: list[NetworkConfig]
) -> None:
    def begin(model: Any, *_: Any, **__: Any) -> None:
        assert model.body.conv1.weight.unique().tolist() == [0.25]
        raise Killed

    monkeypatch.setattr("qvit.training.run.fit", begin)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    for resume, times in ((False, 2), (True, 1)):  # whether they are there, and then; a run that goes on had them
        with pytest.raises(Killed):
            train_run(config(**FULL, pretrained="imagenet"), tmp_path / "run", resume=resume)
        assert [one.pretrained for one in published] == ["imagenet"] * times
        published.clear()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert Run(tmp_path / "run").config["model_config"]["pretrained"] == "imagenet"


@pytest.mark.long
def test_published_weights_are_asked_for_by_name(make_data: MakeData, published: list[NetworkConfig]) -> None:
    plain = NetworkConfig("resnet18", 12, 3, 4)
    for options, expected in (({}, 1), ({"published": False}, 0)):
        model = build_model(replace(plain, pretrained="imagenet"), make_data(), seed=0, **options)
        assert len(published) == expected
        assert (model.body.conv1.weight == 0.25).all() == (expected == 1)
        published.clear()
    build_model(replace(plain, width=1 / 16), make_data(), seed=0)
    assert published == []


@pytest.mark.long
def test_without_a_connection_it_is_said_and_recorded(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Kept
) -> None:
    asked: list[bool] = []

    def load(network: Network, *, download: bool) -> None:
        asked.append(download)
        raise DataError("No connection to example.org.")

    monkeypatch.setattr("qvit.training.run.imagenet_weights", load)
    monkeypatch.setattr("qvit.training.run._train", lambda *_: None)
    settings = config(**FULL, pretrained="imagenet")
    with pytest.warns(PretrainedWarning, match=r"^No connection to example\.org\. Training resnet18 from scratch\.$"):
        run = train_run(settings, tmp_path / "run", download=False)
    train_run(settings, tmp_path / "run", resume=True)  # says nothing, as it is known
    assert asked == [False]
    scratch = train_run(config(**FULL), tmp_path / "scratch")
    assert kept(run.folder) == kept(scratch.folder)


@pytest.mark.long
def test_other_errors_of_published_weights_pass(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(network: Network, **_: object) -> None:
        raise ConfigError("timm is not installed")

    monkeypatch.setattr("qvit.training.run.imagenet_weights", load)
    with pytest.raises(ConfigError, match="timm is not installed"):
        train_run(config(**FULL, pretrained="imagenet"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
